//! What is of Ingress alone: news of the host's Ingresses and of the policy, and what to do about an object now. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use k3k_expose_proto::ingress::Ingress as Asked;
use k3k_expose_proto::message::{Numbers, Object};
use k3k_expose_proto::{Key, Outcome, Reason, Resource, Uid};
use k8s_openapi::api::networking::v1::{Ingress, IngressSpec};

use super::Registry;
use super::judge::{Task, Verdict, body};
use crate::ingress::host::routes;
use crate::ingress::plan::plan;
use crate::ingress::policy::{Denial, Policy};
use crate::ingress::store::Change;
use crate::ingress::translate::{backends, translate};
use crate::ledger::{Ledger, Record, Shown};
use crate::plan::Plan;
use crate::services::{Blocker, HostName};
use crate::translate::Desired;
use crate::twin::Twin;

/// How the Service of a backend stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backend {
    /// It has a twin.
    Exposed,
    /// It has none yet, as far as is known.
    Coming,
    /// It has none.
    Absent,
}

/// A judgment, and what would change it.
type Standing<T> = (T, Vec<Blocker>);

impl Registry {
    /// An Ingress of the host as the watch shows it.
    pub fn ingress_seen(&mut self, ingress: Ingress, now: Duration) {
        let at = HostName::of(&ingress.metadata);
        if let Some(change) = self.ingresses.seen(ingress) {
            self.ingress_changed(&at, &change, now);
        }
    }

    /// An Ingress of the host as a read of this moment shows it.
    pub fn ingress_read(&mut self, ingress: Ingress, now: Duration) {
        let at = HostName::of(&ingress.metadata);
        if let Some(change) = self.ingresses.read(ingress) {
            self.ingress_changed(&at, &change, now);
        }
    }

    /// An Ingress of the host as the answer to a write shows it.
    pub fn ingress_answered(&mut self, ingress: Ingress, now: Duration) {
        let at = HostName::of(&ingress.metadata);
        if let Some(change) = self.ingresses.answered(ingress) {
            self.ingress_changed(&at, &change, now);
        }
    }

    /// An Ingress of the host is gone.
    pub fn ingress_gone(&mut self, at: &HostName, resource_version: Option<&str>, now: Duration) {
        if let Some(change) = self.ingresses.gone(at, resource_version) {
            self.ingress_changed(at, &change, now);
        }
    }

    /// All Ingresses of the host are these.
    pub fn ingresses_listed(&mut self, listed: &BTreeSet<HostName>, now: Duration) {
        for at in self.ingresses.names().into_iter().filter(|at| !listed.contains(at)) {
            self.ingress_gone(&at, None, now);
        }
    }

    /// The platform team admits this from now on, so everything is judged anew.
    pub fn set_ingress_policy(&mut self, policy: Policy) {
        self.ingress_policy = policy;
        let records = self.tenants.iter().flat_map(|(tenant, ledger)| {
            let ingresses = ledger.records().filter(|(key, _)| key.resource() == Resource::Ingresses);
            ingresses.map(|(key, _)| (tenant.clone(), key.clone()))
        });
        self.effects.wake.extend(self.sessions.keys());
        for (tenant, key) in records.collect::<Vec<_>>() {
            self.need(&tenant, &key);
        }
    }

    pub(super) fn judge_ingress(&self, ledger: &Ledger, key: &Key) -> Verdict {
        let tenant = ledger.tenant.id();
        let at = Self::place(ledger, key);
        let current = self.ingresses.get(&at);
        let twin = current.and_then(|current| current.twin.as_deref());
        let k3k_writes = self.k3k_writes(tenant, Resource::Ingresses);
        let Some(record) = ledger.record(key) else {
            return match self.removal(ledger, key, &at, twin) {
                _ if k3k_writes => Verdict::Nothing,
                Verdict::Nothing => self.judge_standing_ingress(ledger, key, &at, twin),
                verdict => verdict,
            };
        };
        let Some(Object::Ingress(asked)) = &record.object else {
            return self.judge_standing_ingress(ledger, key, &at, twin);
        };
        if k3k_writes {
            return Verdict::Answer(Reason::Adopting, Vec::new());
        }
        let (desired, needs) = match self.desired_ingress(ledger, key, record, asked, &at) {
            Ok(desired) => desired,
            Err((denial, blockers)) if denial.reason.outcome() == Outcome::Pending => {
                return Verdict::Deny(denial, blockers);
            }
            Err((denial, blockers)) => {
                return match self.removal(ledger, key, &at, twin) {
                    Verdict::Nothing => Verdict::Deny(denial, blockers),
                    verdict => verdict,
                };
            }
        };
        if self.is_beyond(tenant, &at.namespace, key) {
            return match self.removal(ledger, key, &at, twin) {
                Verdict::Nothing => Verdict::Answer(Reason::TooManyObjects, vec![Blocker::Room(tenant.clone())]),
                verdict => verdict,
            };
        }
        let let_through = self.clusters.get(tenant).and_then(|state| state.mass_delete.as_ref());
        match plan(tenant, key, &desired, current, let_through) {
            Plan::Nothing => Verdict::Answer(Reason::Applied, needs),
            Plan::Create => {
                let ingress = Ingress { metadata: body(&at, &desired), spec: Some(desired.spec), status: None };
                Verdict::Do(Task::CreateIngress(at, Box::new(ingress)))
            }
            Plan::Patch(patch) => Verdict::Do(Task::Patch(at, patch)),
            Plan::Wait => Verdict::Answer(Reason::TwinTerminating, vec![Blocker::IngressName(at)]),
            Plan::NameTaken => Verdict::Answer(Reason::NameTaken, vec![Blocker::IngressName(at)]),
            Plan::WrongVirtualCluster => Verdict::Answer(Reason::WrongVirtualCluster, Vec::new()),
            Plan::Replace => Verdict::Nothing,
        }
    }

    /// The twin that an Ingress should have, with what it stands on; or why it should have none, with what would change that.
    fn desired_ingress(
        &self,
        ledger: &Ledger,
        key: &Key,
        record: &Record,
        asked: &Asked,
        at: &HostName,
    ) -> Result<Standing<Desired<IngressSpec>>, Standing<Denial>> {
        let tenant = ledger.tenant.id();
        let no = |reason| Denial { reason, message: super::words::message(Resource::Ingresses, reason, &[]) };
        if !self.clusters.get(tenant).is_none_or(|state| state.selects(Resource::Ingresses, &asked.labels)) {
            return Err((no(Reason::NotSelected), Vec::new()));
        }
        let policy = &self.ingress_policy;
        let desired = translate(policy, &ledger.tenant, &ledger.virtual_cluster, key, &record.uid, asked)
            .map_err(|denial| (denial, Vec::new()))?;
        let named = backends(key, asked);
        let needs: Vec<Blocker> =
            named.iter().flatten().map(|service| Blocker::Backend(tenant.clone(), service.clone())).collect();
        let stands: Vec<Backend> = named
            .iter()
            .map(|service| service.as_ref().map_or(Backend::Absent, |service| self.backend(ledger, service)))
            .collect();
        if stands.contains(&Backend::Absent) {
            return Err((no(Reason::BackendNotSynced), needs));
        }
        if stands.contains(&Backend::Coming) {
            return Err((no(Reason::WaitingForBackend), needs));
        }
        let routes = routes(&desired.spec);
        if let Some(route) = self.ingresses.taken(at, tenant, &routes) {
            return Err((no(Reason::HostTaken), vec![Blocker::Route(route.clone())]));
        }
        Ok((desired, needs))
    }

    fn backend(&self, ledger: &Ledger, service: &Key) -> Backend {
        match self.standing(ledger.tenant.id(), service) {
            Some(twin) if !twin.terminating => return Backend::Exposed,
            Some(_) => return Backend::Coming,
            None => {}
        }
        match ledger.record(service) {
            Some(record) if record.is_refused() => Backend::Absent,
            None if ledger.complete => Backend::Absent,
            _ => Backend::Coming,
        }
    }

    /// The twin of an Ingress, if it stands.
    pub(super) fn standing_ingress(&self, tenant: &Uid, key: &Key) -> Option<&Twin<IngressSpec>> {
        let at = Self::place(self.tenants.get(tenant)?, key);
        self.ingresses.get(&at)?.twin.as_deref().filter(|twin| twin.marks.is_of(tenant, key))
    }

    /// What the tenant may see of it.
    pub(super) fn shown_ingress(&self, tenant: &Uid, key: &Key) -> Option<Shown> {
        let twin = self.standing_ingress(tenant, key)?;
        Some(Shown { numbers: Numbers::default(), load_balancer: twin.ingress.clone(), conditions: Vec::new() })
    }

    fn ingress_changed(&mut self, at: &HostName, change: &Change, now: Duration) {
        for route in &change.freed {
            self.wake(&Blocker::Route(route.clone()));
        }
        let after = self.ingresses.get(at).map(|after| after.twin.as_deref().cloned());
        if after.is_none() {
            self.wake(&Blocker::IngressName(at.clone()));
        }
        // Of two that got a route at the same time one has to give way.
        let met = change.met.iter().filter_map(|other| self.ingresses.get(other)?.twin.as_ref());
        let met: Vec<_> = met.map(|twin| (twin.marks.tenant.clone(), twin.marks.key.clone())).collect();
        for (tenant, key) in met {
            self.need(&tenant, &key);
        }
        let before = change.before.as_ref().and_then(|before| before.twin.as_deref());
        self.follow(before, after.flatten().as_ref(), now);
    }
}
