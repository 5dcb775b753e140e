//! What to do about an object now: the one place where all that is known of it comes together. Pure.

use std::net::IpAddr;
use std::time::Duration;

use k3k_expose_proto::{Key, Reason, Uid};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::Registry;
use crate::guard::Guard;
use crate::ledger::Ledger;
use crate::plan::{Plan, Road, plan};
use crate::services::{Blocker, HostName};
use crate::translate::{Desired, HEADLESS, translate};
use crate::twin::{CLUSTER_NAME, HostService, Twin, VIRTUAL_NAMESPACE};

/// How long it is believed that pods carry, or do not carry, our labels.
const PODS_FRESH: Duration = Duration::from_secs(2);

/// The writer's next call for an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// None: the object has its answer.
    Settled,
    /// Create this Service.
    Create(HostName, Box<Service>),
    /// Apply this merge patch.
    Patch(HostName, Value),
    /// Delete this Service, if it still has this UID and resourceVersion.
    Delete {
        /// Where it is.
        at: HostName,
        /// Its UID.
        uid: String,
        /// Its resourceVersion.
        resource_version: String,
    },
    /// See whether every host pod of this Cluster carries our labels.
    InspectPods {
        /// The pods' namespace.
        namespace: String,
        /// UID of the Cluster that controls them.
        cluster: Uid,
    },
}

/// What a look at an object led to.
pub(super) enum Verdict {
    Do(Task),
    Answer(Reason, Option<Blocker>),
    Nothing,
}

impl Registry {
    pub(super) fn judge(&self, tenant: &Uid, key: &Key, road: Road, now: Duration) -> Verdict {
        let Some(ledger) = self.tenants.get(tenant) else {
            return Verdict::Nothing;
        };
        let at = Self::place(ledger, key);
        let Some(record) = ledger.record(key) else {
            return if self.k3k_syncs(tenant) { Verdict::Nothing } else { self.removal(ledger, key, &at) };
        };
        let Some(object) = &record.object else {
            return Verdict::Nothing;
        };
        if self.k3k_syncs(tenant) {
            return Verdict::Answer(Reason::Adopting, None);
        }
        let desired = match translate(&ledger.tenant, &ledger.virtual_cluster, key, &record.uid, object) {
            Ok(desired) => desired,
            Err(reason) => {
                return match self.removal(ledger, key, &at) {
                    Verdict::Nothing => Verdict::Answer(reason, None),
                    verdict => verdict,
                };
            }
        };
        let current = self.services.get(&at);
        let let_through = self.clusters.get(tenant).and_then(|state| state.mass_delete.as_ref());
        match plan(tenant, key, &desired, current, road, let_through) {
            Plan::Nothing => Verdict::Answer(Reason::Applied, None),
            Plan::Wait => Verdict::Answer(Reason::TwinTerminating, Some(Blocker::Name(at))),
            Plan::NameTaken => Verdict::Answer(Reason::NameTaken, Some(Blocker::Name(at))),
            Plan::WrongVirtualCluster => Verdict::Answer(Reason::WrongVirtualCluster, None),
            Plan::Replace => deletion(at, current),
            Plan::Create => match self.taken(&at, &desired.spec, None) {
                Some((reason, blocker)) => Verdict::Answer(reason, Some(blocker)),
                None => Verdict::Do(Task::Create(at.clone(), Box::new(body(at, desired)))),
            },
            Plan::Patch(patch) => {
                let twin = current.and_then(HostService::twin);
                if let Some((reason, blocker)) = self.taken(&at, &desired.spec, twin) {
                    let way_out = twin.and_then(|twin| self.out_of_circle(tenant, &at, twin, &blocker));
                    return match way_out {
                        Some(patch) => Verdict::Do(Task::Patch(at, patch)),
                        None => Verdict::Answer(reason, Some(blocker)),
                    };
                }
                if twin.is_some_and(|twin| narrows(twin, &desired.spec)) {
                    match ledger.pods_labeled {
                        Some((when, labeled)) if now.saturating_sub(when) < PODS_FRESH => {
                            if !labeled {
                                return Verdict::Answer(Reason::Adopting, None);
                            }
                        }
                        _ => {
                            let namespace = ledger.tenant.namespace().to_owned();
                            return Verdict::Do(Task::InspectPods { namespace, cluster: tenant.clone() });
                        }
                    }
                }
                Verdict::Do(Task::Patch(at, patch))
            }
        }
    }

    /// What to do about a twin that nobody wants, or that may not be.
    fn removal(&self, ledger: &Ledger, key: &Key, at: &HostName) -> Verdict {
        let tenant = ledger.tenant.id();
        let Some(twin) = self.services.get(at).and_then(HostService::twin) else {
            return Verdict::Nothing;
        };
        if twin.marks.tenant != *tenant || twin.marks.key != *key || twin.terminating {
            return Verdict::Nothing;
        }
        let guard = Guard {
            // A record shows that the virtual cluster itself spoke of this object, so no snapshot is needed.
            complete: ledger.complete || ledger.record(key).is_some(),
            emptied: ledger.emptied && ledger.record(key).is_none(),
            virtual_cluster: &ledger.virtual_cluster,
            let_through: self.clusters.get(tenant).and_then(|state| state.mass_delete.as_ref()),
            adopted: ledger.adopted,
        };
        if guard.may_delete(twin) { deletion(at.clone(), self.services.get(at)) } else { Verdict::Nothing }
    }

    /// The first number of a wished spec that somebody else holds. What the twin has already is its own.
    fn taken(&self, at: &HostName, spec: &ServiceSpec, twin: Option<&Twin>) -> Option<(Reason, Blocker)> {
        let own = twin.map(Twin::held).unwrap_or_default();
        let ips = spec.cluster_ips.iter().flatten().filter(|ip| *ip != HEADLESS);
        let ips = ips.filter_map(|ip| ip.parse::<IpAddr>().ok()).filter(|ip| !own.cluster_ips.contains(ip));
        let ports = spec.ports.iter().flatten().filter_map(|port| port.node_port).chain(spec.health_check_node_port);
        let ports = ports.filter_map(|port| u16::try_from(port).ok()).filter(|port| !own.node_ports.contains(port));
        let ip = ips.into_iter().find(|ip| self.services.holds_cluster_ip(at, *ip));
        let port = ports.into_iter().find(|port| self.services.holds_node_port(at, *port));
        ip.map(|ip| (Reason::ClusterIPTaken, Blocker::ClusterIp(ip)))
            .or_else(|| port.map(|port| (Reason::NodePortTaken, Blocker::NodePort(port))))
    }

    pub(super) fn k3k_syncs(&self, tenant: &Uid) -> bool {
        self.clusters.get(tenant).is_none_or(|state| state.k3k_syncs)
    }
}

/// Whether a patch would narrow the selector of a twin that k3k made: endpoints drop to zero at once if its pods do not
/// carry the labels yet.
fn narrows(twin: &Twin, spec: &ServiceSpec) -> bool {
    let bound = |key: &str| twin.spec.selector.as_ref().is_some_and(|selector| selector.contains_key(key));
    !twin.marks.ours && spec.selector.is_some() && !(bound(CLUSTER_NAME) && bound(VIRTUAL_NAMESPACE))
}

fn deletion(at: HostName, current: Option<&HostService>) -> Verdict {
    current.and_then(HostService::twin).map_or(Verdict::Nothing, |twin| {
        let (uid, resource_version) = (twin.uid.clone(), twin.resource_version.clone());
        Verdict::Do(Task::Delete { at, uid, resource_version })
    })
}

fn body(at: HostName, desired: Desired) -> Service {
    Service {
        metadata: ObjectMeta {
            name: Some(at.name),
            namespace: Some(at.namespace),
            labels: Some(desired.labels),
            annotations: Some(desired.annotations),
            owner_references: Some(vec![desired.owner]),
            ..ObjectMeta::default()
        },
        spec: Some(desired.spec),
        status: None,
    }
}
