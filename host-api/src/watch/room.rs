//! Watches of what else on the host limits twins, or goes wrong with them. Nobody waits for these to be listed: they only tell
//! sooner what a write would tell, or when to try again. I/O.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event as Warning, ResourceQuota};
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher as watch;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use tokio::time::sleep;

use super::drive;
use crate::hub::Hub;
use crate::quota;
use crate::ready::Ready;
use crate::services::HostName;

/// Addresses that the API server's own allocator did not make for a Service: all others are known by their Services.
const NOT_OF_A_SERVICE: &str = "ipaddress.kubernetes.io/managed-by!=ipallocator.k8s.io";
/// Warnings about Services.
const WARNINGS: &str = "type=Warning,involvedObject.kind=Service";

/// Watches all quotas; `stored` is what admission reads. Never ends.
pub async fn quotas(hub: Arc<Hub>, client: Client, stored: &mut Writer<ResourceQuota>) {
    let mut listed = BTreeSet::new();
    let mut handle = |event: Event<ResourceQuota>| {
        stored.apply_watcher_event(&event);
        hub.with(|registry, _| match event {
            Event::Init => listed.clear(),
            Event::InitApply(quota) => {
                listed.insert(quota::name(&quota));
                registry.quota_seen(&quota);
            }
            Event::InitDone => registry.quotas_listed(&std::mem::take(&mut listed)),
            Event::Apply(quota) => registry.quota_seen(&quota),
            Event::Delete(quota) => registry.quota_gone(&quota::name(&quota)),
        });
    };
    drive("resource quotas", watch(Api::all(client), watcher::Config::default()), &mut handle).await;
}

/// Watches the ranges of cluster IPs. Never ends.
pub async fn ranges(hub: Arc<Hub>, client: Client) {
    let mut listed = BTreeSet::new();
    let cidrs = |range: &ServiceCIDR| range.spec.as_ref().and_then(|spec| spec.cidrs.clone()).unwrap_or_default();
    let mut handle = |event: Event<ServiceCIDR>| {
        hub.with(|registry, _| match event {
            Event::Init => listed.clear(),
            Event::InitApply(range) => {
                registry.range_seen(&range.name_any(), Some(&cidrs(&range)));
                listed.insert(range.name_any());
            }
            Event::InitDone => registry.ranges_listed(&std::mem::take(&mut listed)),
            Event::Apply(range) => registry.range_seen(&range.name_any(), Some(&cidrs(&range))),
            Event::Delete(range) => registry.range_seen(&range.name_any(), None),
        });
    };
    drive("service ranges", watch(Api::all(client), watcher::Config::default()), &mut handle).await;
}

/// Watches the addresses that somebody holds without a Service. Never ends.
pub async fn addresses(hub: Arc<Hub>, client: Client) {
    let mut listed = BTreeSet::new();
    let ip = |address: &PartialObjectMeta<IPAddress>| address.name_any().parse::<IpAddr>().ok();
    let mut handle = |event: Event<PartialObjectMeta<IPAddress>>| {
        hub.with(|registry, _| match event {
            Event::Init => listed.clear(),
            Event::InitApply(address) => {
                listed.extend(ip(&address));
                ip(&address).into_iter().for_each(|ip| registry.address_seen(ip));
            }
            Event::InitDone => registry.addresses_listed(&std::mem::take(&mut listed)),
            Event::Apply(address) => ip(&address).into_iter().for_each(|ip| registry.address_seen(ip)),
            Event::Delete(address) => ip(&address).into_iter().for_each(|ip| registry.address_gone(ip)),
        });
    };
    let config = watcher::Config::default().labels(NOT_OF_A_SERVICE);
    drive("reserved addresses", watch(Api::all(client), config), &mut handle).await;
}

/// Watches warnings about Services. One that goes while nobody watches ends with its load balancer's trouble. Never ends.
pub async fn warnings(hub: Arc<Hub>, client: Client, services: Ready) {
    // A warning counts only for a twin that is known.
    while !services.is_up() {
        sleep(Duration::from_millis(100)).await;
    }
    let of = |warning: &Warning| {
        let object = &warning.involved_object;
        let (namespace, name) = (object.namespace.clone(), object.name.clone());
        HostName { namespace: namespace.unwrap_or_default(), name: name.unwrap_or_default() }
    };
    let mut handle = |event: Event<Warning>| match event {
        Event::Init | Event::InitDone => {}
        Event::InitApply(warning) | Event::Apply(warning) => {
            let uid = warning.involved_object.uid.as_deref().unwrap_or_default();
            let reason = warning.reason.as_deref().unwrap_or_default();
            hub.with(|registry, now| registry.warned(&of(&warning), uid, reason, &warning.name_any(), now));
        }
        Event::Delete(warning) => {
            hub.with(|registry, now| registry.warning_gone(&of(&warning), &warning.name_any(), now));
        }
    };
    drive("warnings", watch(Api::all(client), watcher::Config::default().fields(WARNINGS)), &mut handle).await;
}
