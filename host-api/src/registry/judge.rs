//! What to do about an object now: the one place where all that is known of it comes together. Pure.

use std::time::Duration;

use k3k_expose_proto::message::Object;
use k3k_expose_proto::{Key, Reason, Resource, Uid};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::Value;

use super::{Registry, wishes};
use crate::guard::Guard;
use crate::ingress::secret::SecretTwin;
use crate::ledger::Ledger;
use crate::plan::{self, Plan, Road, plan};
use crate::policy::{self, Refusal};
use crate::services::{Blocker, HostName};
use crate::translate::translate;
use crate::twin::{self, CLUSTER_NAME, Held, HostService, Marks, Twin, VIRTUAL_NAMESPACE};

/// How long it is believed that pods carry, or do not carry, our labels.
const PODS_FRESH: Duration = Duration::from_secs(2);

/// The writer's next call for an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// None: the object has its answer.
    Settled,
    /// Create this Service.
    Create(HostName, Box<Service>),
    /// Create this Ingress.
    CreateIngress(HostName, Box<Ingress>),
    /// Create this Secret.
    CreateSecret(HostName, Box<SecretTwin>),
    /// Delete this twin of a Secret: its name says what it is.
    DeleteSecret(HostName),
    /// Apply this merge patch.
    Patch(HostName, Value),
    /// Delete this object, if it still has this UID and resourceVersion.
    Delete {
        /// Where it is.
        at: HostName,
        /// Its UID.
        uid: String,
        /// Its resourceVersion.
        resource_version: String,
    },
    /// Create this slice.
    CreateSlice(HostName, Box<EndpointSlice>),
    /// Apply this merge patch to a slice.
    PatchSlice(HostName, Value),
    /// Delete this slice, if it still has this UID and resourceVersion.
    DeleteSlice {
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
    /// An answer with words of its own.
    Deny(Refusal, Vec<Blocker>),
    Nothing,
}

impl Registry {
    pub(super) fn judge(&self, tenant: &Uid, key: &Key, road: Road, now: Duration) -> Verdict {
        if let Some(orphan) = self.orphan(tenant, key) {
            return Verdict::Do(Task::DeleteSecret(orphan));
        }
        let Some(ledger) = self.tenants.get(tenant) else {
            return Verdict::Nothing;
        };
        let verdict = match key.resource() {
            Resource::Services => self.judge_service(ledger, key, road, now),
            Resource::Secrets => self.judge_secret(ledger, key),
            Resource::Ingresses => self.judge_ingress(ledger, key, now),
        };
        match verdict {
            Verdict::Do(_) | Verdict::LetGo(..) | Verdict::Answer(Reason::Applied, _) => verdict,
            // Whoever waits, is refused or says nothing keeps what stands, but not what no policy admits any more.
            left => match self.judge_standing(ledger, key, now) {
                Verdict::Nothing => left,
                stands => stands,
            },
        }
    }

    fn judge_service(&self, ledger: &Ledger, key: &Key, road: Road, now: Duration) -> Verdict {
        let tenant = ledger.tenant.id();
        let at = Self::place(ledger, key);
        let current = self.services.get(&at);
        let standing = current.and_then(HostService::twin);
        let Some(record) = ledger.record(key) else {
            if self.k3k_writes(tenant, Resource::Services) {
                return Verdict::Nothing;
            }
            return self.removal(ledger, key, &at, standing);
        };
        let Some(Object::Service(object)) = &record.object else {
            return Verdict::Nothing;
        };
        if self.k3k_writes(tenant, Resource::Services) {
            return Verdict::Answer(Reason::Adopting, Vec::new());
        }
        let selected = self.clusters.get(tenant).is_none_or(|state| state.selects(Resource::Services, &object.labels));
        let refused = |answer| match self.removal(ledger, key, &at, standing) {
            Verdict::Nothing => answer,
            verdict => verdict,
        };
        let desired = if selected {
            translate(&ledger.tenant, &ledger.virtual_cluster, key, &record.uid, object)
        } else {
            Err(Reason::NotSelected)
        };
        let mut desired = match desired {
            Ok(desired) => desired,
            Err(reason) => return refused(Verdict::Answer(reason, Vec::new())),
        };
        let grant = self.grant(tenant);
        if let Err(refusal) = policy::service::judge(grant, object) {
            return refused(Verdict::Deny(refusal, Vec::new()));
        }
        if self.is_beyond(tenant, &at.namespace, key) {
            return refused(Verdict::Answer(Reason::TooManyObjects, vec![Blocker::Room(tenant.clone())]));
        }
        policy::service::shape(grant, object, &mut desired);
        Self::leave_band(grant, &mut desired.spec);
        if let Err((reason, blocker)) = self.has_count(ledger, key, &desired.spec) {
            return refused(Verdict::Answer(reason, vec![blocker]));
        }
        let twin = standing.filter(|twin| twin.marks.is_of(tenant, key));
        let resolved = self.resolve(ledger, record, &at, (&mut desired.spec, object), twin, now);
        if self.enter_band((Some(record), &at), grant, &mut desired.spec, twin, now).is_none() {
            return refused(Verdict::Answer(Reason::TooManyNodePorts, Vec::new()));
        }
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
            Plan::Replace => return standing.map_or(Verdict::Nothing, |twin| Verdict::Do(deletion(at, twin))),
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
            Plan::Create => {
                let service = Service { metadata: desired.metadata(&at), spec: Some(desired.spec), status: None };
                Verdict::Do(Task::Create(at, Box::new(service)))
            }
            Plan::Patch(patch) => match twin.filter(|twin| narrows(twin, &desired.spec)) {
                Some(_) => self.narrow(ledger, Task::Patch(at, patch), now),
                None => Verdict::Do(Task::Patch(at, patch)),
            },
            _ => {
                let needs = match self.judge_endpoints(ledger, key, record, object, twin) {
                    Ok(needs) => needs,
                    Err(verdict) => return *verdict,
                };
                let (reason, mut blockers) = wishes::refusal(&resolved).unwrap_or((Reason::Applied, Vec::new()));
                blockers.extend(needs);
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
    pub(super) fn removal<S>(&self, ledger: &Ledger, key: &Key, at: &HostName, twin: Option<&Twin<S>>) -> Verdict {
        let twin = twin.filter(|twin| twin.marks.is_of(ledger.tenant.id(), key) && !twin.terminating);
        match twin.filter(|twin| self.may_go(ledger, key, &twin.marks)) {
            Some(twin) => Verdict::Do(deletion(at.clone(), twin)),
            None => Verdict::Nothing,
        }
    }

    /// Whether a twin may be deleted as far as is known of its virtual cluster.
    pub(super) fn may_go(&self, ledger: &Ledger, key: &Key, marks: &Marks) -> bool {
        let tenant = ledger.tenant.id();
        let guard = Guard {
            // A record shows that the virtual cluster itself spoke of this object, so no snapshot is needed.
            complete: ledger.complete || ledger.record(key).is_some(),
            emptied: ledger.emptied && ledger.record(key).is_none(),
            virtual_cluster: &ledger.virtual_cluster,
            let_through: self.clusters.get(tenant).and_then(|state| state.mass_delete.as_ref()),
            adopted: ledger.adopted,
        };
        // Of a kind that the agent does not speak for nothing is known, so all of it stays.
        ledger.speaks_for(key.resource()) && guard.may_delete(marks)
    }

    /// Whether k3k's own syncer writes twins of this kind.
    pub(super) fn k3k_writes(&self, tenant: &Uid, resource: Resource) -> bool {
        self.clusters.get(tenant).is_none_or(|state| state.k3k_writes(resource))
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
            _ => Held::default(),
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

pub(super) fn deletion<S>(at: HostName, twin: &Twin<S>) -> Task {
    Task::Delete { at, uid: twin.uid.clone(), resource_version: twin.resource_version.clone() }
}
