//! Watches of what decides whether a server pod gets the agent: StatefulSets, namespaces, LimitRanges; and of what it
//! mounts. I/O.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, LimitRange};
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher as watch;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};

use super::{drive, policies};
use crate::admission::stores::{self, NamespaceMeta};
use crate::authorities::Authorities;
use crate::hub::Hub;
use crate::inject::AUTHORITIES;
use crate::ready::Ready;

/// Watches all StatefulSets: they carry no label of which k3k owns the key. Never ends.
pub async fn sets(client: Client, stored: &mut Writer<StatefulSet>, ready: Ready) {
    let mut handle = |mut event: Event<StatefulSet>| {
        if let Event::InitApply(set) | Event::Apply(set) = &mut event {
            stores::reduce(set);
        }
        stored.apply_watcher_event(&event);
        up_when_listed(&event, &ready);
    };
    drive("stateful sets", watch(Api::all(client), watcher::Config::default()), &mut handle).await;
}

/// Watches the labels and annotations of all namespaces. Never ends.
pub async fn namespaces(hub: Arc<Hub>, client: Client, stored: &mut Writer<NamespaceMeta>, ready: Ready) {
    let mut listed = BTreeSet::new();
    let mut handle = |event: Event<NamespaceMeta>| {
        policies::namespaces(&hub, &mut listed, &event);
        stored.apply_watcher_event(&event);
        up_when_listed(&event, &ready);
    };
    drive("namespaces", watch(Api::all(client), watcher::Config::default()), &mut handle).await;
}

/// Watches all LimitRanges. Never ends.
pub async fn limit_ranges(client: Client, stored: &mut Writer<LimitRange>, ready: Ready) {
    let mut handle = |event: Event<LimitRange>| {
        stored.apply_watcher_event(&event);
        up_when_listed(&event, &ready);
    };
    drive("limit ranges", watch(Api::all(client), watcher::Config::default()), &mut handle).await;
}

/// Watches the ConfigMaps that sidecars mount, by their one name: no other can be read. Never ends.
pub async fn authorities(client: Client, authorities: &Authorities, ready: Ready) {
    let mut handle = |event: Event<ConfigMap>| {
        up_when_listed(&event, &ready);
        authorities.take_in(&event);
    };
    let config = watcher::Config::default().fields(&format!("metadata.name={AUTHORITIES}"));
    drive("authorities", watch(Api::all(client), config), &mut handle).await;
}

fn up_when_listed<K>(event: &Event<K>, ready: &Ready) {
    if matches!(event, Event::InitDone) {
        ready.up();
    }
}
