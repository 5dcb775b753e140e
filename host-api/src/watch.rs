//! Watches of the host: Services, Ingresses, Clusters and server pods, each into the registry. I/O.

pub mod endpoints;
pub mod own;
pub mod policies;
pub mod room;
pub mod surroundings;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use backon::ExponentialBuilder;
use futures::{Stream, TryStreamExt};
use k3k_expose_process::quote::causes;
use k3k_expose_proto::Uid;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::Ingress;
use kube::core::PartialObjectMeta;
use kube::runtime::utils::ResetTimerBackoff;
use kube::runtime::watcher::{self, Event, ExponentialBackoff};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::cluster::{Cluster, ClusterState};
use crate::hub::Hub;
use crate::ready::Ready;
use crate::servers::ServerPods;
use crate::services::HostName;

/// Time until the host is asked again for what it did not serve: it may have been upgraded.
const UNSERVED: Duration = Duration::from_secs(300);

/// Watches all Services. Never ends.
pub async fn services(hub: Arc<Hub>, client: Client, ready: Ready) {
    let mut listed = BTreeSet::new();
    let mut handle = |event: Event<Service>| {
        hub.with(|registry, now| match event {
            Event::Init => listed.clear(),
            Event::InitApply(service) => {
                listed.insert(HostName::of(&service.metadata));
                registry.service_seen(service, now);
            }
            Event::InitDone => {
                registry.services_listed(&std::mem::take(&mut listed), now);
                ready.up();
            }
            Event::Apply(service) => registry.service_seen(service, now),
            Event::Delete(service) => {
                registry.service_gone(
                    &HostName::of(&service.metadata),
                    service.metadata.resource_version.as_deref(),
                    now,
                );
            }
        });
    };
    drive("services", watch(Api::all(client), watcher::Config::default()), &mut handle).await;
}

/// Watches all Ingresses: any of them may have a host and path that a twin asks for. Never ends.
pub async fn ingresses(hub: Arc<Hub>, client: Client, ready: Ready) {
    let mut listed = BTreeSet::new();
    let mut handle = |event: Event<Ingress>| {
        hub.with(|registry, now| match event {
            Event::Init => listed.clear(),
            Event::InitApply(ingress) => {
                listed.insert(HostName::of(&ingress.metadata));
                registry.ingress_seen(ingress, now);
            }
            Event::InitDone => {
                registry.ingresses_listed(&std::mem::take(&mut listed), now);
                ready.up();
            }
            Event::Apply(ingress) => registry.ingress_seen(ingress, now),
            Event::Delete(ingress) => {
                let meta = &ingress.metadata;
                registry.ingress_gone(&HostName::of(meta), meta.resource_version.as_deref(), now);
            }
        });
    };
    drive("ingresses", watch(Api::all(client), watcher::Config::default()), &mut handle).await;
}

/// Watches all Clusters; `handed_on` gets each event too. Never ends.
pub async fn clusters(hub: Arc<Hub>, client: Client, ready: Ready, mut handed_on: impl FnMut(&Event<Cluster>)) {
    let mut listed = BTreeSet::new();
    let mut handle = |event: Event<Cluster>| {
        handed_on(&event);
        let uid = |cluster: &Cluster| cluster.metadata.uid.as_deref().and_then(|uid| Uid::parse(uid).ok());
        hub.with(|registry, now| match event {
            Event::Init => listed.clear(),
            Event::InitApply(cluster) => {
                if let Some(uid) = uid(&cluster) {
                    registry.cluster_seen(&uid, ClusterState::from(&cluster));
                    listed.insert(uid);
                }
            }
            Event::InitDone => {
                registry.clusters_listed(&std::mem::take(&mut listed), now);
                ready.up();
            }
            Event::Apply(cluster) => {
                if let Some(uid) = uid(&cluster) {
                    registry.cluster_seen(&uid, ClusterState::from(&cluster));
                }
            }
            Event::Delete(cluster) => {
                if let Some(uid) = uid(&cluster) {
                    registry.cluster_gone(&uid, now);
                }
            }
        });
    };
    drive("clusters", watch(Api::all(client), watcher::Config::default()), &mut handle).await;
}

/// Watches server pods, so that a session ends with its pod, and one without the agent is told of. Never ends.
pub async fn server_pods(hub: Arc<Hub>, servers: &ServerPods, client: Client, ready: Ready) {
    let mut listed = BTreeSet::new();
    let uid = |pod: &Pod| pod.metadata.uid.as_deref().and_then(|uid| Uid::parse(uid).ok());
    let mut handle = |event: Event<Pod>| {
        servers.take_in(&event);
        hub.with(|registry, now| match event {
            Event::Init => listed.clear(),
            Event::InitApply(pod) => listed.extend(uid(&pod).filter(|_| pod.metadata.deletion_timestamp.is_none())),
            Event::InitDone => {
                for gone in registry.session_pods().difference(&listed) {
                    registry.pod_gone(gone, now);
                }
                ready.up();
            }
            Event::Apply(pod) if pod.metadata.deletion_timestamp.is_none() => {}
            Event::Apply(pod) | Event::Delete(pod) => {
                if let Some(uid) = uid(&pod) {
                    registry.pod_gone(&uid, now);
                }
            }
        });
    };
    // Only narrows what is read: who is a server pod is decided by controller references.
    let config = watcher::Config::default().labels("role=server");
    drive("server pods", watch(Api::all(client), config), &mut handle).await;
}

/// Watches the metadata of all pods. Never ends.
pub async fn pods(client: Client, handle: &mut impl FnMut(Event<PartialObjectMeta<Pod>>)) {
    drive("pods", watch(Api::all(client), watcher::Config::default()), handle).await;
}

/// Feeds a watch into `handle`, through errors, with delays from 0.2 s doubling to 3 s; what the API server does not serve at
/// all, with delays of [`UNSERVED`].
async fn drive<K>(
    what: &'static str,
    stream: impl Stream<Item = watcher::Result<Event<K>>>,
    handle: &mut impl FnMut(Event<K>),
) {
    drive_or(what, stream, handle, || UNSERVED).await;
}

/// The same; `unserved` hears of it each time that the host does not serve this, and says when to ask again.
async fn drive_or<K>(
    what: &'static str,
    stream: impl Stream<Item = watcher::Result<Event<K>>>,
    handle: &mut impl FnMut(Event<K>),
    mut on_unserved: impl FnMut() -> Duration,
) {
    let delays = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(3))
        .with_jitter()
        .without_max_times();
    let delays = ResetTimerBackoff::new(ExponentialBackoff::from(delays), Duration::from_secs(120));
    let mut stream = std::pin::pin!(stream.backoff(delays));
    let mut unserved = false;
    loop {
        match stream.try_next().await {
            Ok(Some(event)) => {
                if matches!(event, Event::InitDone) {
                    info!(what, "watch was listed");
                }
                handle(event);
            }
            Ok(None) => return,
            Err(error) if is_unserved(&error) => {
                if !std::mem::replace(&mut unserved, true) {
                    info!(what, "the host does not serve this, so it is not watched");
                }
                sleep(on_unserved()).await;
            }
            Err(error) => warn!(what, error = causes(&error), "watch failed, tried again"),
        }
    }
}

/// Whether the host is too old to know what is to be watched.
fn is_unserved(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404)
}
