//! Watches of what the platform team admits: ExposurePolicies, and the labels of namespaces by which they select. I/O.
//!
//! The trap: on a host without the CRD there is no policy, which has to be known as well, or nothing would ever be served.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::watcher as watch;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};

use super::drive_or;
use crate::admission::stores::NamespaceMeta;
use crate::hub::Hub;
use crate::policy::resource::ExposurePolicy;
use crate::ready::Ready;

/// Time until the host is asked again for policies that it does not serve: the CRD may be on its way.
const UNSERVED: Duration = Duration::from_secs(5);

/// Watches all policies. Never ends.
pub async fn policies(hub: Arc<Hub>, client: Client, ready: Ready) {
    let mut listed = BTreeSet::new();
    let mut handle = |event: Event<ExposurePolicy>| {
        hub.with(|registry, _| match event {
            Event::Init => listed.clear(),
            Event::InitApply(policy) => {
                listed.insert(policy.name_any());
                registry.policy_seen(&policy.name_any(), Some(policy.spec));
            }
            Event::InitDone => {
                registry.policies_listed(&std::mem::take(&mut listed));
                ready.up();
            }
            Event::Apply(policy) => registry.policy_seen(&policy.name_any(), Some(policy.spec)),
            Event::Delete(policy) => registry.policy_seen(&policy.name_any(), None),
        });
    };
    let unserved = || {
        hub.with(|registry, _| registry.policies_listed(&BTreeSet::new()));
        ready.up();
        UNSERVED
    };
    drive_or("policies", watch(Api::all(client), watcher::Config::default()), &mut handle, unserved).await;
}

/// Takes the labels of namespaces into the registry, besides what else is made of the same events.
pub fn namespaces(hub: &Hub, listed: &mut BTreeSet<String>, event: &Event<NamespaceMeta>) {
    let none = std::collections::BTreeMap::new();
    let labels = |namespace: &NamespaceMeta| namespace.metadata.labels.clone().unwrap_or_else(|| none.clone());
    hub.with(|registry, _| match event {
        Event::Init => listed.clear(),
        Event::InitApply(namespace) => {
            listed.insert(namespace.name_any());
            registry.namespace_seen(&namespace.name_any(), Some(&labels(namespace)));
        }
        Event::InitDone => registry.namespaces_listed(&std::mem::take(listed)),
        Event::Apply(namespace) => registry.namespace_seen(&namespace.name_any(), Some(&labels(namespace))),
        Event::Delete(namespace) => registry.namespace_seen(&namespace.name_any(), None),
    });
}
