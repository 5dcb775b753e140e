//! What to do about an object now: the one place where all that is known of it comes together. Pure.

use std::time::Duration;

use k3k_expose_proto::{Key, Reason, Uid};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::{Registry, wishes};
use crate::guard::Guard;
use crate::ledger::Ledger;
use crate::plan::{self, Plan, Road, plan};
use crate::services::{Blocker, HostName};
use crate::translate::{Desired, translate};
use crate::twin::{self, CLUSTER_NAME, Held, HostService, Twin, VIRTUAL_NAMESPACE};

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
    /// The twin lets go of these numbers, by this patch.
    LetGo(Task, Vec<Blocker>),
    Answer(Reason, Vec<Blocker>),
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
            return Verdict::Answer(Reason::Adopting, Vec::new());
        }
        let selected = self.clusters.get(tenant).is_none_or(|state| state.selects(&object.labels));
        let desired = if selected {
            translate(&ledger.tenant, &ledger.virtual_cluster, key, &record.uid, object)
        } else {
            Err(Reason::NotSelected)
        };
        let mut desired = match desired {
            Ok(desired) => desired,
            Err(reason) => {
                return match self.removal(ledger, key, &at) {
                    Verdict::Nothing => Verdict::Answer(reason, Vec::new()),
                    verdict => verdict,
                };
            }
        };
        let current = self.services.get(&at);
        let twin = current.and_then(HostService::twin).filter(|twin| twin.marks.is_of(tenant, key));
        let resolved = self.resolve(ledger, record, &at, (&mut desired.spec, object), twin, now);
        let let_through = self.clusters.get(tenant).and_then(|state| state.mass_delete.as_ref());
        let planned = plan(tenant, key, &desired, current, road, let_through);
        match planned {
            Plan::Wait => return Verdict::Answer(Reason::TwinTerminating, vec![Blocker::Name(at)]),
            Plan::NameTaken => return Verdict::Answer(Reason::NameTaken, vec![Blocker::Name(at)]),
            Plan::WrongVirtualCluster => return Verdict::Answer(Reason::WrongVirtualCluster, Vec::new()),
            Plan::Nothing | Plan::Create | Plan::Patch(_) | Plan::Replace => {}
        }
        let resolved = match (resolved, twin) {
            (Ok(resolved), _) => resolved,
            (Err(numbers), Some(twin)) => return without(at, twin, numbers),
            (Err(_), None) => return Verdict::Nothing,
        };
        if resolved.no_twin {
            let (reason, blockers) = wishes::refusal(&resolved).unwrap_or((Reason::ClusterIPTaken, Vec::new()));
            return Verdict::Answer(reason, blockers);
        }
        match planned {
            Plan::Replace => return deletion(at, current),
            Plan::Create | Plan::Patch(_) if !resolved.wait.is_empty() => {
                let circle = |blocker| twin.and_then(|twin| self.out_of_circle(tenant, &at, twin, blocker));
                return match resolved.wait.first().and_then(circle) {
                    Some(patch) => Verdict::Do(Task::Patch(at, patch)),
                    None => Verdict::Answer(Reason::WaitingForNumber, resolved.wait),
                };
            }
            _ => {}
        }
        match planned {
            Plan::Create => Verdict::Do(Task::Create(at.clone(), Box::new(body(at, desired)))),
            Plan::Patch(patch) => match twin.filter(|twin| narrows(twin, &desired.spec)) {
                Some(_) => self.narrow(ledger, Task::Patch(at, patch), now),
                None => Verdict::Do(Task::Patch(at, patch)),
            },
            _ => {
                let (reason, blockers) = wishes::refusal(&resolved).unwrap_or((Reason::Applied, Vec::new()));
                Verdict::Answer(reason, blockers)
            }
        }
    }

    /// A patch that narrows a selector, once every host pod of the tenant carries the labels that it asks for.
    fn narrow(&self, ledger: &Ledger, patch: Task, now: Duration) -> Verdict {
        match ledger.pods_labeled {
            Some((when, true)) if now.saturating_sub(when) < PODS_FRESH => Verdict::Do(patch),
            Some((when, false)) if now.saturating_sub(when) < PODS_FRESH => {
                Verdict::Answer(Reason::Adopting, Vec::new())
            }
            _ => {
                let namespace = ledger.tenant.namespace().to_owned();
                Verdict::Do(Task::InspectPods { namespace, cluster: ledger.tenant.id().clone() })
            }
        }
    }

    /// What to do about a twin that nobody wants, or that may not be.
    fn removal(&self, ledger: &Ledger, key: &Key, at: &HostName) -> Verdict {
        let tenant = ledger.tenant.id();
        let Some(twin) = self.services.get(at).and_then(HostService::twin) else {
            return Verdict::Nothing;
        };
        if !twin.marks.is_of(tenant, key) || twin.terminating {
            return Verdict::Nothing;
        }
        if self.may_go(ledger, key, twin) { deletion(at.clone(), self.services.get(at)) } else { Verdict::Nothing }
    }

    /// Whether a twin may be deleted as far as is known of its virtual cluster.
    pub(super) fn may_go(&self, ledger: &Ledger, key: &Key, twin: &Twin) -> bool {
        let tenant = ledger.tenant.id();
        let guard = Guard {
            // A record shows that the virtual cluster itself spoke of this object, so no snapshot is needed.
            complete: ledger.complete || ledger.record(key).is_some(),
            emptied: ledger.emptied && ledger.record(key).is_none(),
            virtual_cluster: &ledger.virtual_cluster,
            let_through: self.clusters.get(tenant).and_then(|state| state.mass_delete.as_ref()),
            adopted: ledger.adopted,
        };
        guard.may_delete(twin)
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

impl Task {
    /// The numbers that a call asks for.
    #[must_use]
    pub fn asked(&self) -> Held {
        match self {
            Self::Create(_, service) => service.spec.as_ref().map(twin::held).unwrap_or_default(),
            Self::Patch(_, patch) => {
                let spec = serde_json::from_value::<ServiceSpec>(patch["spec"].clone());
                spec.map(|spec| twin::held(&spec)).unwrap_or_default()
            }
            Self::Settled | Self::Delete { .. } | Self::InspectPods { .. } => Held::default(),
        }
    }
}

/// The twin lets go of numbers that the virtual cluster cannot give its object.
fn without(at: HostName, twin: &Twin, numbers: Vec<Blocker>) -> Verdict {
    let patch = match numbers.first() {
        Some(Blocker::NodePort(_)) => plan::without_external_numbers(twin),
        _ => plan::without_numbers(twin),
    };
    Verdict::LetGo(Task::Patch(at, patch), numbers)
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
