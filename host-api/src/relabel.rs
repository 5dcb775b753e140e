//! Puts the labels of tenants' pods right after the fact: for pods that were made or changed while nothing forced them. I/O.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k3k_expose_process::quote::causes;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use crate::label;
use crate::metrics::Metrics;
use crate::ready::Ready;
use crate::twin::MANAGER;
use crate::watch;

/// Longest wait for one patch.
const PATCH: Duration = Duration::from_secs(10);
/// First delay after a failure; doubles with each.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Longest delay after a failure.
const RETRY_MOST: Duration = Duration::from_secs(30);

type Meta = PartialObjectMeta<Pod>;

/// Pods with wrong labels, as they were seen last, by namespace and name: no more than there are pods.
type AllWrong = BTreeMap<(String, String), Wrong>;

struct Wrong {
    pod: Meta,
    failures: u32,
    due: Instant,
}

/// Watches the metadata of all pods and puts right what is wrong. Never ends.
pub async fn run(client: Client, metrics: &Metrics, ready: Ready) {
    let (wrong, news) = (Mutex::new(AllWrong::new()), Notify::new());
    let lock = || wrong.lock().unwrap_or_else(PoisonError::into_inner);
    let mut handle = |event| {
        take_in(&mut lock(), event, &ready);
        news.notify_one();
    };
    let repair = async {
        loop {
            let next = lock().iter().min_by_key(|(_, wrong)| wrong.due).map(|(key, wrong)| (key.clone(), wrong.due));
            let until = next.as_ref().map_or_else(|| Instant::now() + RETRY_MOST, |(_, due)| *due);
            tokio::select! {
                () = news.notified() => continue,
                () = sleep_until(until) => {}
            }
            let Some(one) = next.and_then(|(key, _)| lock().remove(&key)) else {
                continue;
            };
            match put_right(&client, &one.pod).await {
                Ok(()) => metrics.relabeled(),
                // It has moved on, or is gone: the watch tells.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => {
                    let (namespace, pod) = key(&one.pod);
                    warn!(namespace, pod, error = causes(&error), "labels of a pod stay wrong, tried again");
                    lock().entry((namespace, pod)).or_insert_with(|| one.later());
                }
            }
        }
    };
    tokio::select! {
        () = watch::pods(client.clone(), &mut handle) => {}
        () = repair => {}
    }
}

impl Wrong {
    fn later(mut self) -> Self {
        self.failures = self.failures.saturating_add(1);
        let longest = RETRY_FIRST.saturating_mul(1 << self.failures.min(10)).min(RETRY_MOST);
        self.due = Instant::now() + longest.mul_f64(0.5 + fastrand::f64() / 2.0);
        self
    }
}

fn take_in(wrong: &mut AllWrong, event: Event<Meta>, ready: &Ready) {
    match event {
        Event::InitApply(pod) | Event::Apply(pod) => {
            let key = key(&pod);
            if pod.metadata.deletion_timestamp.is_some() || label::changes(&pod.metadata).is_empty() {
                wrong.remove(&key);
            } else {
                let failures = wrong.get(&key).map_or(0, |known| known.failures);
                wrong.insert(key, Wrong { pod, failures, due: Instant::now() });
            }
        }
        Event::Delete(pod) => drop(wrong.remove(&key(&pod))),
        Event::Init => wrong.clear(),
        Event::InitDone => ready.up(),
    }
}

async fn put_right(client: &Client, pod: &Meta) -> Result<(), kube::Error> {
    let (namespace, name) = key(pod);
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let meta = &pod.metadata;
    let patch = json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version,
        "labels": label::changes(meta)}});
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let late = || kube::Error::Service("no answer in time".into());
    timeout(PATCH, pods.patch_metadata(&name, &params, &Patch::Merge(&patch))).await.map_err(|_| late())??;
    info!(namespace, pod = name, "labels of a pod were put right");
    Ok(())
}

fn key(pod: &Meta) -> (String, String) {
    (pod.namespace().unwrap_or_default(), pod.name_any())
}
