//! The server pods of the host, and which of them run without the agent. I/O: wake-ups.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k3k_expose_proto::Uid;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::admission::stores::Stores;
use crate::hub::Hub;
use crate::inject::{self, Surroundings};
use crate::metrics::Metrics;
use crate::notice::{Notice, NoticeKind};
use crate::tenant::{self, NotATenant};

/// How often everything is looked at without news of pods: a Cluster or namespace may opt in or out.
const AGAIN: Duration = Duration::from_secs(30);
/// News are gathered this long: a new tenant's pods come one after another.
const GATHER: Duration = Duration::from_secs(1);

/// Pods that look like server pods, reduced, by namespace and name.
#[derive(Debug, Default)]
pub struct ServerPods {
    pods: Mutex<BTreeMap<(String, String), Pod>>,
    news: Notify,
}

impl ServerPods {
    /// Takes in an event of their watch.
    pub fn take_in(&self, event: &Event<Pod>) {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Init => pods.clear(),
            Event::InitApply(pod) | Event::Apply(pod) if pod.metadata.deletion_timestamp.is_none() => {
                pods.insert(key(pod), reduce(pod));
            }
            Event::InitApply(pod) | Event::Apply(pod) | Event::Delete(pod) => drop(pods.remove(&key(pod))),
            Event::InitDone => {}
        }
        drop(pods);
        self.news.notify_one();
    }

    /// Counts the pods without the agent and tells of them, once per change. Never ends.
    pub async fn tell(&self, stores: &Stores, hub: &Arc<Hub>, metrics: &Metrics) {
        stores.ready().await;
        let mut told: BTreeMap<Uid, NoticeKind> = BTreeMap::new();
        loop {
            let pods: Vec<Pod> = self.pods.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
            let notices = lacking(&pods, stores);
            metrics.uninjected(notices.iter().map(|notice| count(&notice.kind)).sum());
            let mut now = BTreeMap::new();
            for notice in notices {
                if told.get(&notice.cluster) != Some(&notice.kind) {
                    hub.report(notice.clone());
                }
                now.insert(notice.cluster, notice.kind);
            }
            told = now;
            let again = Instant::now() + AGAIN;
            tokio::select! {
                () = self.news.notified() => sleep_until(Instant::now() + GATHER).await,
                () = sleep_until(again) => {}
            }
        }
    }
}

/// What is to be told of Clusters whose server pods run without the agent, though nobody wants it so.
fn lacking(pods: &[Pod], stores: &Stores) -> Vec<Notice> {
    let mut notices: BTreeMap<Option<String>, Notice> = BTreeMap::new();
    let mut pods: Vec<&Pod> = pods.iter().filter(|pod| !inject::is_present(pod)).collect();
    // The highest ordinal is to be replaced first.
    pods.sort_by_key(|pod| Reverse((pod.name_any().len(), pod.name_any())));
    for pod in pods {
        let namespace = pod.namespace().unwrap_or_default();
        let set = tenant::stateful_set_of(pod).ok().and_then(|owner| stores.set(&namespace, &owner.name));
        let owner = tenant::cluster_of(pod, set.as_ref()).ok();
        let Some(cluster) = owner.and_then(|owner| stores.cluster(&namespace, &owner.name)) else {
            continue;
        };
        let known = stores.namespace(&namespace);
        let around = Surroundings { namespace: known.as_ref(), ..Surroundings::default() };
        if around.namespace.is_some_and(inject::opts_out) || inject::opts_out(&cluster.metadata) {
            continue;
        }
        let kind = match tenant::tenant_of(pod, set.as_ref(), Some(&cluster)) {
            Ok(_) => NoticeKind::Uninjected { namespace, pods: Vec::new() },
            Err(NotATenant::UnsupportedMode(_)) => NoticeKind::UnsupportedMode,
            Err(_) => continue,
        };
        let Some(notice) = Notice::about(&cluster, kind) else { continue };
        let notice = notices.entry(cluster.metadata.uid.clone()).or_insert(notice);
        if let NoticeKind::Uninjected { pods, .. } = &mut notice.kind {
            pods.push(pod.name_any());
        }
    }
    notices.into_values().collect()
}

fn count(kind: &NoticeKind) -> usize {
    match kind {
        NoticeKind::Uninjected { pods, .. } => pods.len(),
        _ => 0,
    }
}

fn key(pod: &Pod) -> (String, String) {
    (pod.namespace().unwrap_or_default(), pod.name_any())
}

/// Owners, and the names of init containers: all that decides.
fn reduce(pod: &Pod) -> Pod {
    let mut reduced = Pod { metadata: pod.metadata.clone(), ..Pod::default() };
    reduced.metadata.managed_fields = None;
    let init = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    let names = init.iter().map(|container| Container { name: container.name.clone(), ..Container::default() });
    reduced.spec = Some(PodSpec { init_containers: Some(names.collect()), ..PodSpec::default() });
    reduced
}
