//! Watches of our slices, and of whose the addresses of the host are: pods of tenants, nodes, the API server. The latter begin
//! with the first hand-made endpoints: most hosts never have any. I/O.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher as watch;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};

use super::drive;
use crate::endpoints::address::Source;
use crate::endpoints::holder::{Holds, node, pod, server};
use crate::endpoints::slice::{SERVICE_NAME, SLICE_MANAGED_BY};
use crate::hub::Hub;
use crate::ready::Ready;
use crate::services::HostName;
use crate::twin::{CLUSTER_NAME, MANAGER};

/// Watches the slices that are ours. Never ends.
pub async fn slices(hub: Arc<Hub>, client: Client, ready: Ready) {
    let mut listed = BTreeSet::new();
    let mut handle = |event: Event<EndpointSlice>| {
        hub.with(|registry, now| match event {
            Event::Init => listed.clear(),
            Event::InitApply(slice) => {
                listed.insert(HostName::of(&slice.metadata));
                registry.slice_seen(slice, now);
            }
            Event::InitDone => {
                registry.slices_listed(&std::mem::take(&mut listed), now);
                ready.up();
            }
            Event::Apply(slice) => registry.slice_seen(slice, now),
            Event::Delete(slice) => {
                let meta = &slice.metadata;
                registry.slice_gone(&HostName::of(meta), meta.resource_version.as_deref(), now);
            }
        });
    };
    let config = watcher::Config::default().labels(&format!("{SLICE_MANAGED_BY}={MANAGER}"));
    drive("endpoint slices", watch(Api::all(client), config), &mut handle).await;
}

/// Watches whose the addresses of the host are, once that matters. Never ends.
pub async fn addresses(hub: Arc<Hub>, client: Client) {
    hub.addresses().await;
    // Only narrows what is read: whose a pod is, its controller says.
    let pods = watcher::Config::default().labels(CLUSTER_NAME);
    let servers = watcher::Config::default().labels(&format!("{SERVICE_NAME}=kubernetes"));
    tokio::join!(
        holders(&hub, "pods of tenants", Source::Pods, Api::<Pod>::all(client.clone()), pods, pod),
        holders(&hub, "nodes", Source::Nodes, Api::<Node>::all(client.clone()), watcher::Config::default(), node),
        holders(&hub, "API servers", Source::Servers, Api::namespaced(client, "default"), servers, server),
    );
}

async fn holders<K>(
    hub: &Hub,
    what: &'static str,
    source: Source,
    api: Api<K>,
    config: watcher::Config,
    holds: impl Fn(&K) -> Holds,
) where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let mut listed = BTreeSet::new();
    let id = |object: &K| object.uid().unwrap_or_default();
    let mut handle = |event: Event<K>| {
        hub.with(|registry, _| match event {
            Event::Init => listed.clear(),
            Event::InitApply(object) => {
                registry.holder_seen(source, &id(&object), holds(&object));
                listed.insert(id(&object));
            }
            Event::InitDone => registry.holders_listed(source, &std::mem::take(&mut listed)),
            Event::Apply(object) => registry.holder_seen(source, &id(&object), holds(&object)),
            Event::Delete(object) => registry.holder_seen(source, &id(&object), None),
        });
    };
    drive(what, watch(api, config), &mut handle).await;
}
