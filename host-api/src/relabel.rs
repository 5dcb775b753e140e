//! Puts the labels of tenants' pods right after the fact: for pods that were made or changed while nothing forced them. I/O.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k3k_expose_process::quote::causes;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Patch;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use crate::label;
use crate::metrics::Metrics;
use crate::params;
use crate::ready::Ready;
use crate::watch;

/// Longest wait for one patch.
const PATCH: Duration = Duration::from_secs(10);
/// First delay after a failure; doubles with each.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Longest delay after a failure.
const RETRY_MOST: Duration = Duration::from_secs(30);

type Meta = PartialObjectMeta<Pod>;

/// Pods with wrong labels, as they were seen last: no more than there are pods.
#[derive(Default)]
struct AllWrong {
    pods: BTreeMap<Key, Wrong>,
}

/// Namespace and name.
type Key = (String, String);

/// A pod, and what became of attempts to put it right. News of it change neither the count nor the delay: a pod that is written
/// every second would be tried every second.
#[derive(Clone)]
struct Wrong {
    pod: Meta,
    failures: u32,
    due: Instant,
    /// Whether the list that is under way has named it.
    listed: bool,
}

/// Watches the metadata of all pods and puts right what is wrong. Never ends.
pub async fn run(client: Client, metrics: &Metrics, ready: Ready) {
    let (wrong, news) = (Mutex::new(AllWrong::default()), Notify::new());
    let lock = || wrong.lock().unwrap_or_else(PoisonError::into_inner);
    let mut handle = |event| {
        if matches!(event, Event::InitDone) {
            ready.up();
        }
        lock().take_in(event, Instant::now());
        news.notify_one();
    };
    let repair = async {
        loop {
            let next = lock().next();
            let until = next.as_ref().map_or_else(|| Instant::now() + RETRY_MOST, |(_, one)| one.due);
            tokio::select! {
                () = news.notified() => continue,
                () = sleep_until(until) => {}
            }
            let Some((key, one)) = next else { continue };
            match put_right(&client, &one.pod).await {
                Ok(()) => {
                    lock().settled(&key, &one.pod);
                    metrics.relabeled();
                }
                // It has moved on, or is gone: the watch tells.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => lock().settled(&key, &one.pod),
                Err(error) => {
                    let (namespace, pod) = &key;
                    warn!(namespace, pod, error = causes(&error), "labels of a pod stay wrong, tried again");
                    lock().failed(&key, Instant::now());
                }
            }
        }
    };
    tokio::select! {
        () = watch::pods(client.clone(), &mut handle) => {}
        () = repair => {}
    }
}

impl AllWrong {
    fn take_in(&mut self, event: Event<Meta>, now: Instant) {
        match event {
            Event::InitApply(pod) | Event::Apply(pod) => {
                let key = key(&pod);
                if pod.metadata.deletion_timestamp.is_some() || label::changes(&pod.metadata).is_empty() {
                    self.pods.remove(&key);
                    return;
                }
                let new = || Wrong { pod: pod.clone(), failures: 0, due: now, listed: true };
                let wrong = self.pods.entry(key).or_insert_with(new);
                (wrong.pod, wrong.listed) = (pod, true);
            }
            Event::Delete(pod) => drop(self.pods.remove(&key(&pod))),
            Event::Init => self.pods.values_mut().for_each(|wrong| wrong.listed = false),
            Event::InitDone => self.pods.retain(|_, wrong| wrong.listed),
        }
    }

    /// The one whose turn comes first.
    fn next(&self) -> Option<(Key, Wrong)> {
        let first = self.pods.iter().min_by_key(|(_, wrong)| wrong.due);
        first.map(|(key, wrong)| (key.clone(), wrong.clone()))
    }

    /// Nothing more is to be done about this state of the pod; a newer one, which came meanwhile, stays.
    fn settled(&mut self, key: &Key, pod: &Meta) {
        if self.pods.get(key).is_some_and(|wrong| wrong.pod.metadata.resource_version == pod.metadata.resource_version)
        {
            self.pods.remove(key);
        }
    }

    fn failed(&mut self, key: &Key, now: Instant) {
        if let Some(wrong) = self.pods.get_mut(key) {
            wrong.failures = wrong.failures.saturating_add(1);
            let longest = RETRY_FIRST.saturating_mul(1 << wrong.failures.min(10)).min(RETRY_MOST);
            wrong.due = now + longest.mul_f64(0.5 + fastrand::f64() / 2.0);
        }
    }
}

async fn put_right(client: &Client, pod: &Meta) -> Result<(), kube::Error> {
    let (namespace, name) = key(pod);
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let meta = &pod.metadata;
    let patch = json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version,
        "labels": label::changes(meta)}});
    let late = || kube::Error::Service("no answer in time".into());
    timeout(PATCH, pods.patch_metadata(&name, &params::patch(), &Patch::Merge(&patch))).await.map_err(|_| late())??;
    info!(namespace, pod = name, "labels of a pod were put right");
    Ok(())
}

fn key(pod: &Meta) -> (String, String) {
    (pod.namespace().unwrap_or_default(), pod.name_any())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, version: &str, namespace: Option<&str>) -> Meta {
        let meta = json!({"metadata": {
            "name": crate::name::twin(name, "shop", "mine"), "namespace": "ns", "resourceVersion": version,
            "annotations": {"k3k.io/name": name, "k3k.io/namespace": "shop"},
            "labels": {"k3k.io/clusterName": "mine", "k3k.io/namespace": namespace.unwrap_or("shop")},
            "ownerReferences": [
                {"apiVersion": "k3k.io/v1beta1", "kind": "Cluster", "name": "mine", "uid": "c", "controller": true}],
        }});
        serde_json::from_value(meta).unwrap()
    }

    #[test]
    fn news_of_a_pod_that_cannot_be_put_right_do_not_shorten_its_delay() {
        let (mut all, now) = (AllWrong::default(), Instant::now());
        all.take_in(Event::Apply(pod("web", "1", Some("bank"))), now);
        let (key, first) = all.next().unwrap();
        assert_eq!(first.due, now);
        for _ in 0..5 {
            all.failed(&key, now);
        }
        let due = all.next().unwrap().1.due;
        assert!(due > now + RETRY_FIRST * 4);
        for event in [
            Event::Apply(pod("web", "2", Some("other"))),
            Event::Init,
            Event::InitApply(pod("web", "3", Some("bank"))),
            Event::InitDone,
        ] {
            all.take_in(event, now);
            let next = all.next().unwrap().1;
            assert_eq!((next.due, next.failures), (due, 5));
        }
        all.take_in(Event::Apply(pod("web", "4", None)), now);
        assert!(all.next().is_none(), "it is right now");
        all.take_in(Event::Apply(pod("web", "5", Some("bank"))), now);
        assert_eq!(all.next().unwrap().1.due, now, "what was right starts anew");
    }

    #[test]
    fn a_state_that_came_while_the_one_before_was_put_right_is_not_forgotten() {
        let (mut all, now) = (AllWrong::default(), Instant::now());
        all.take_in(Event::Apply(pod("web", "1", Some("bank"))), now);
        let (key, first) = all.next().unwrap();
        all.take_in(Event::Apply(pod("web", "2", Some("other"))), now);
        all.settled(&key, &first.pod);
        let (_, second) = all.next().unwrap();
        all.settled(&key, &second.pod);
        assert!(all.next().is_none());
    }

    #[test]
    fn what_a_new_list_does_not_name_is_gone() {
        let (mut all, now) = (AllWrong::default(), Instant::now());
        for name in ["web", "gone"] {
            all.take_in(Event::Apply(pod(name, "1", Some("bank"))), now);
        }
        for event in [Event::Init, Event::InitApply(pod("web", "1", Some("bank"))), Event::InitDone] {
            all.take_in(event, now);
        }
        assert_eq!(all.pods.len(), 1);
    }
}
