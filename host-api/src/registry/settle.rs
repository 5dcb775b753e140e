//! From an object that wants a look to the writer's next call, and from that call's result to an answer. Pure.
//!
//! The writer asks again after every call, with what stands then, until nothing is left to do. The answer is given in
//! the same step that finds nothing to do, so `Applied` is never said of what was not compared.

use std::net::IpAddr;
use std::time::Duration;

use k3k_expose_proto::message::Answer;
use k3k_expose_proto::{Hash, Key, Reason, Uid};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::Registry;
use crate::guard::Guard;
use crate::ledger::{self, Ledger};
use crate::notice::NoticeKind;
use crate::plan::{Plan, Road, plan};
use crate::refusal::{Number, Refusal};
use crate::services::{Blocker, HostName};
use crate::translate::{Desired, HEADLESS, translate};
use crate::twin::{CLUSTER_NAME, HostService, Twin, VIRTUAL_NAMESPACE};

/// How long it is believed that pods carry, or do not carry, our labels.
const PODS_FRESH: Duration = Duration::from_secs(2);
/// Delay before the labels of pods are looked at again.
const PODS_AGAIN: Duration = Duration::from_secs(2);
/// Delay before a contested twin is put right again, and before an object that the host refuses is tried again.
const SLOW: Duration = Duration::from_secs(300);

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
enum Verdict {
    Do(Task),
    Answer(Reason, Option<Blocker>),
    Nothing,
}

impl Registry {
    /// The next call for an object that was taken from the queue.
    pub fn decide(&mut self, tenant: &Uid, key: &Key, road: Road, now: Duration) -> Task {
        match self.judge(tenant, key, road, now) {
            Verdict::Do(task) => task,
            Verdict::Nothing => {
                if let Some(ledger) = self.tenants.get_mut(tenant) {
                    ledger.failures.remove(key);
                }
                Task::Settled
            }
            Verdict::Answer(reason, blocker) => {
                self.conclude(tenant, key, reason, blocker);
                if let Some(ledger) = self.tenants.get_mut(tenant) {
                    ledger.failures.remove(key);
                }
                match reason {
                    Reason::Adopting if !self.k3k_syncs(tenant) => self.retry_at(tenant, key, now + PODS_AGAIN),
                    Reason::WrongVirtualCluster => self.report_stranger(tenant),
                    Reason::Applied => self.note_adoption(tenant, key),
                    _ => {}
                }
                Task::Settled
            }
        }
    }

    /// Which object, in which state, the tenant wants at a key.
    #[must_use]
    pub fn wish(&self, tenant: &Uid, key: &Key) -> Option<(Uid, Hash)> {
        let record = self.tenants.get(tenant)?.record(key)?;
        Some((record.uid.clone(), record.hash))
    }

    /// Looks at an object once more, after others had their turn, if the tenant wants it otherwise than before.
    ///
    /// Gives whether it does.
    pub fn again_if_other(&mut self, tenant: &Uid, key: &Key, before: Option<&(Uid, Hash)>) -> bool {
        let is_other = self.wish(tenant, key).as_ref() != before;
        if is_other {
            self.need(tenant, key);
        }
        is_other
    }

    /// Takes in which labels the tenant's host pods carry.
    pub fn pods_inspected(&mut self, tenant: &Uid, labeled: bool, now: Duration) {
        if let Some(ledger) = self.tenants.get_mut(tenant) {
            ledger.pods_labeled = Some((now, labeled));
        }
    }

    /// Takes in that the host has accepted a deletion. The twin may stand for a while yet, so what follows waits.
    ///
    /// Gives whether the writer is done with the object for now.
    pub fn deleted(&mut self, tenant: &Uid, key: &Key) -> bool {
        let Some(ledger) = self.tenants.get(tenant) else {
            return true;
        };
        let at = Self::place(ledger, key);
        if ledger.record(key).is_some() {
            if self.services.get(&at).is_none() {
                return false;
            }
            self.conclude(tenant, key, Reason::TwinTerminating, Some(Blocker::Name(at)));
        }
        true
    }

    /// Takes in that the host has refused a write for good or for now.
    pub fn refused(&mut self, tenant: &Uid, key: &Key, refusal: Refusal, now: Duration) {
        let reason = match refusal {
            Refusal::Held(Number::ClusterIp) => Reason::ClusterIPTaken,
            Refusal::Held(Number::NodePort) => Reason::NodePortTaken,
            Refusal::OutOfRange(Number::ClusterIp) => Reason::ClusterIPOutOfRange,
            Refusal::OutOfRange(Number::NodePort) => Reason::NodePortOutOfRange,
            Refusal::Family => Reason::IPFamilyUnavailable,
            Refusal::Denied | Refusal::Immutable => Reason::HostRefused,
            Refusal::Absent | Refusal::Conflict | Refusal::Exists | Refusal::Overloaded | Refusal::Unavailable => {
                Reason::HostUnavailable
            }
        };
        self.conclude(tenant, key, reason, None);
        match reason {
            // The holder of the number is not known (yet), so no event will tell when it is freed.
            Reason::HostUnavailable | Reason::ClusterIPTaken | Reason::NodePortTaken => self.retry(tenant, key, now),
            Reason::HostRefused => self.retry_at(tenant, key, now + SLOW),
            _ => {}
        }
    }

    /// Takes it that somebody on the host keeps undoing a twin.
    pub fn contested(&mut self, tenant: &Uid, key: &Key, now: Duration) {
        self.conclude(tenant, key, Reason::Contested, None);
        self.retry_at(tenant, key, now + SLOW);
    }

    /// Gives an object its answer. Its own content is forgotten with that.
    pub(super) fn conclude(&mut self, tenant: &Uid, key: &Key, reason: Reason, blocker: Option<Blocker>) {
        let Some(ledger) = self.tenants.get_mut(tenant) else {
            return;
        };
        let at = Self::place(ledger, key);
        let twin = match self.services.get(&at) {
            Some(HostService::Twin(twin)) if twin.marks.tenant == *tenant && twin.marks.key == *key => Some(twin),
            _ => None,
        };
        let waited = ledger
            .record_mut(key)
            .and_then(|record| std::mem::replace(&mut record.blocker, blocker.clone()));
        self.last_version += 1;
        let version = self.last_version;
        ledger.answer(key, version, |record| {
            let message = message(reason, blocker.as_ref());
            ledger::answer(key, record, version, reason, &message, twin.map(AsRef::as_ref)) as Answer
        });
        if let Some(waited) = waited {
            self.unblock(&waited, tenant, key);
        }
        if let Some(blocker) = blocker {
            self.waiting
                .entry(blocker)
                .or_default()
                .insert((tenant.clone(), key.clone()));
        }
        self.wake_of(tenant);
    }

    fn judge(&self, tenant: &Uid, key: &Key, road: Road, now: Duration) -> Verdict {
        let Some(ledger) = self.tenants.get(tenant) else {
            return Verdict::Nothing;
        };
        let at = Self::place(ledger, key);
        let Some(record) = ledger.record(key) else {
            return if self.k3k_syncs(tenant) {
                Verdict::Nothing
            } else {
                self.removal(ledger, key, &at)
            };
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
                let twin = current.and_then(twin_of);
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
                            return Verdict::Do(Task::InspectPods {
                                namespace,
                                cluster: tenant.clone(),
                            });
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
        let Some(twin) = self.services.get(at).and_then(twin_of) else {
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
        if guard.may_delete(twin) {
            deletion(at.clone(), self.services.get(at))
        } else {
            Verdict::Nothing
        }
    }

    /// The first number of a wished spec that somebody else holds. What the twin has already is its own.
    fn taken(&self, at: &HostName, spec: &ServiceSpec, twin: Option<&Twin>) -> Option<(Reason, Blocker)> {
        let own = twin
            .map(|twin| HostService::Twin(Box::new(twin.clone())).held())
            .unwrap_or_default();
        let ips = spec.cluster_ips.iter().flatten().filter(|ip| *ip != HEADLESS);
        let ips = ips
            .filter_map(|ip| ip.parse::<IpAddr>().ok())
            .filter(|ip| !own.cluster_ips.contains(ip));
        let ports = spec
            .ports
            .iter()
            .flatten()
            .filter_map(|port| port.node_port)
            .chain(spec.health_check_node_port);
        let ports = ports
            .filter_map(|port| u16::try_from(port).ok())
            .filter(|port| !own.node_ports.contains(port));
        let ip = ips.into_iter().find(|ip| self.services.holds_cluster_ip(at, *ip));
        let port = ports.into_iter().find(|port| self.services.holds_node_port(at, *port));
        ip.map(|ip| (Reason::ClusterIPTaken, Blocker::ClusterIp(ip)))
            .or_else(|| port.map(|port| (Reason::NodePortTaken, Blocker::NodePort(port))))
    }

    fn k3k_syncs(&self, tenant: &Uid) -> bool {
        self.clusters.get(tenant).is_none_or(|state| state.k3k_syncs)
    }

    /// The first adopted twin shows that this is the virtual cluster that k3k served, so what else k3k left may go.
    fn note_adoption(&mut self, tenant: &Uid, key: &Key) {
        let Some(ledger) = self.tenants.get_mut(tenant) else {
            return;
        };
        let twin = self.services.get(&Self::place(ledger, key)).and_then(twin_of);
        if !ledger.adopted && twin.is_some_and(|twin| twin.made_by_k3k) {
            ledger.adopted = true;
            self.collect(tenant);
        }
    }

    fn report_stranger(&mut self, tenant: &Uid) {
        if let Some(speaks) = self.tenants.get(tenant).map(|ledger| ledger.virtual_cluster.clone()) {
            self.notify(tenant, NoticeKind::WrongVirtualCluster { speaks });
        }
    }
}

/// Whether a patch would narrow the selector of a twin that k3k made: endpoints drop to zero at once if its pods do not
/// carry the labels yet.
fn narrows(twin: &Twin, spec: &ServiceSpec) -> bool {
    let bound = |key: &str| {
        twin.spec
            .selector
            .as_ref()
            .is_some_and(|selector| selector.contains_key(key))
    };
    !twin.marks.ours && spec.selector.is_some() && !(bound(CLUSTER_NAME) && bound(VIRTUAL_NAMESPACE))
}

fn deletion(at: HostName, current: Option<&HostService>) -> Verdict {
    current.and_then(twin_of).map_or(Verdict::Nothing, |twin| {
        let (uid, resource_version) = (twin.uid.clone(), twin.resource_version.clone());
        Verdict::Do(Task::Delete {
            at,
            uid,
            resource_version,
        })
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

fn twin_of(service: &HostService) -> Option<&Twin> {
    match service {
        HostService::Twin(twin) => Some(twin),
        HostService::Foreign(_) => None,
    }
}

/// What the tenant reads. It names numbers of the tenant's own wish, never who on the host holds them.
fn message(reason: Reason, blocker: Option<&Blocker>) -> String {
    match (reason, blocker) {
        (Reason::ClusterIPTaken, Some(Blocker::ClusterIp(ip))) => format!("cluster IP {ip} is held on the host"),
        (Reason::NodePortTaken, Some(Blocker::NodePort(port))) => format!("node port {port} is held on the host"),
        (reason, _) => TEXTS
            .iter()
            .find(|(of, _)| *of == reason)
            .map(|(_, text)| *text)
            .unwrap_or_default()
            .to_owned(),
    }
}

const TEXTS: &[(Reason, &str)] = &[
    (
        Reason::Adopting,
        "waiting for k3k's own Service sync to be off and for the host pods to be labeled",
    ),
    (
        Reason::TwinTerminating,
        "waiting for the old Service on the host to be gone",
    ),
    (
        Reason::HostUnavailable,
        "the host did not take the change yet; it is tried again",
    ),
    (
        Reason::NameTaken,
        "another object holds this Service's name on the host; rename this one",
    ),
    (Reason::ClusterIPTaken, "the cluster IP is held on the host"),
    (
        Reason::ClusterIPOutOfRange,
        "the cluster IP lies outside the host's Service ranges",
    ),
    (Reason::NodePortTaken, "a node port is held on the host"),
    (Reason::NodePortOutOfRange, "a node port lies outside the host's range"),
    (
        Reason::IPFamilyUnavailable,
        "the host lacks an IP family that this Service asks for",
    ),
    (
        Reason::ReservedSelectorKey,
        "selector keys under k3k.io/ are reserved; remove them",
    ),
    (
        Reason::ExternalNameNotExposed,
        "a Service of type ExternalName has nothing to expose",
    ),
    (
        Reason::WrongVirtualCluster,
        "the host holds this Service for another virtual cluster; ask the platform team",
    ),
    (
        Reason::Contested,
        "something on the host keeps changing this Service; ask the platform team",
    ),
    (
        Reason::HostRefused,
        "the host refuses this Service; ask the platform team",
    ),
];
