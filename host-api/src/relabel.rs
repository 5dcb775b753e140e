//! Puts the labels of tenants' pods right after the fact: for pods that were made or changed while nothing forced them. I/O.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use k3k_expose_process::quote::causes;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
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

/// A pod with wrong labels, as it was seen last.
struct Wrong {
    pod: Meta,
    failures: u32,
    due: Instant,
}

/// Pods with wrong labels, by namespace and name: no more than there are pods.
type AllWrong = BTreeMap<(String, String), Wrong>;

/// Watches the metadata of all pods and puts right what is wrong. Never ends.
pub async fn run(client: Client, metrics: &Metrics, ready: Ready) {
    let mut wrong = AllWrong::new();
    let mut pods = std::pin::pin!(watch::pods_metadata(client.clone()));
    loop {
        let due = wrong.iter().min_by_key(|(_, wrong)| wrong.due).map(|(key, wrong)| (key.clone(), wrong.due));
        let until = due.as_ref().map_or_else(|| Instant::now() + RETRY_MOST, |(_, due)| *due);
        tokio::select! {
            Some(event) = pods.next() => take_in(&mut wrong, event, &ready),
            () = sleep_until(until), if due.is_some() => {
                if let Some(mut one) = due.and_then(|(key, _)| wrong.remove(&key)) {
                    match put_right(&client, &one.pod).await {
                        Ok(()) => metrics.relabeled(),
                        // It has moved on, or is gone: the watch tells.
                        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                        Err(error) => {
                            let (namespace, pod) = key(&one.pod);
                            warn!(namespace, pod, error = causes(&error), "labels of a pod stay wrong, tried again");
                            one.failures = one.failures.saturating_add(1);
                            let longest = RETRY_FIRST.saturating_mul(1 << one.failures.min(10)).min(RETRY_MOST);
                            one.due = Instant::now() + longest.mul_f64(0.5 + fastrand::f64() / 2.0);
                            wrong.insert((namespace, pod), one);
                        }
                    }
                }
            }
        }
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
