//! What is of Ingress alone: news of the host's Ingresses and of the policy, and what to do about an object now. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use k3k_expose_proto::ingress::Ingress as Asked;
use k3k_expose_proto::message::{Numbers, Object};
use k3k_expose_proto::{Key, Outcome, Reason, Resource, Uid};
use k8s_openapi::api::networking::v1::{Ingress, IngressSpec};

use super::Registry;
use super::judge::{Task, Verdict};
use super::secrets::Names;
use crate::ingress::host::{self, hosts};
use crate::ingress::plan::plan;
use crate::ingress::store::Change;
use crate::ingress::translate::{backends, name_secrets, translate};
use crate::ledger::{Ledger, Record, Shown};
use crate::plan::Plan;
use crate::policy::Refusal;
use crate::queue::Cause;
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

    pub(super) fn judge_ingress(&self, ledger: &Ledger, key: &Key, now: Duration) -> Verdict {
        let tenant = ledger.tenant.id();
        let at = Self::place(ledger, key);
        let current = self.ingresses.get(&at);
        let twin = current.and_then(|current| current.twin.as_deref());
        let k3k_writes = self.k3k_writes(tenant, Resource::Ingresses);
        let Some(record) = ledger.record(key) else {
            return if k3k_writes { Verdict::Nothing } else { self.removal_of_ingress(ledger, key, &at, twin) };
        };
        let Some(Object::Ingress(asked)) = &record.object else {
            return Verdict::Nothing;
        };
        if k3k_writes {
            return Verdict::Answer(Reason::Adopting, Vec::new());
        }
        let own = twin.filter(|twin| twin.marks.is_of(tenant, key));
        let desired = self.desired_ingress(ledger, (key, record, asked), &at, now);
        let (mut desired, names) = match desired {
            Ok(desired) => desired,
            Err((refusal, blockers)) if refusal.reason.outcome() == Outcome::Pending => {
                let task = own.and_then(|own| self.without_lost_secrets(ledger, &at, own, &blockers));
                return task.map_or(Verdict::Deny(refusal, blockers), Verdict::Do);
            }
            Err((refusal, blockers)) => {
                return match self.removal_of_ingress(ledger, key, &at, twin) {
                    Verdict::Nothing => Verdict::Deny(refusal, blockers),
                    verdict => verdict,
                };
            }
        };
        if self.is_beyond(tenant, &at.namespace, key) {
            return match self.removal_of_ingress(ledger, key, &at, twin) {
                Verdict::Nothing => Verdict::Answer(Reason::TooManyObjects, vec![Blocker::Room(tenant.clone())]),
                verdict => verdict,
            };
        }
        let mut outlived = own.map(|own| self.outlived(&at, own, &names)).unwrap_or_default();
        name_secrets(&mut desired, &names, outlived.iter().map(|secret| &secret.name));
        let let_through = self.clusters.get(tenant).and_then(|state| state.mass_delete.as_ref());
        match plan(tenant, key, &desired, current, let_through) {
            // Nobody needs them now that the Ingress does not name them any more.
            Plan::Nothing => match outlived.pop() {
                Some(secret) => Verdict::Do(Task::DeleteSecret(secret)),
                None => Verdict::Answer(Reason::Applied, Self::secrets_of(ledger, key, &names)),
            },
            Plan::Create => {
                let ingress = Ingress { metadata: desired.metadata(&at), spec: Some(desired.spec), status: None };
                Verdict::Do(Task::CreateIngress(at, Box::new(ingress)))
            }
            Plan::Patch(patch) => Verdict::Do(Task::Patch(at, patch)),
            Plan::Wait => Verdict::Answer(Reason::TwinTerminating, vec![Blocker::IngressName(at)]),
            Plan::NameTaken => Verdict::Answer(Reason::NameTaken, vec![Blocker::IngressName(at)]),
            Plan::WrongVirtualCluster => Verdict::Answer(Reason::WrongVirtualCluster, Vec::new()),
            Plan::Replace => Verdict::Nothing,
        }
    }

    /// The twin that an Ingress should have; or why it should have none, with what would change that.
    fn desired_ingress(
        &self,
        ledger: &Ledger,
        (key, record, asked): (&Key, &Record, &Asked),
        at: &HostName,
        now: Duration,
    ) -> Result<(Desired<IngressSpec>, Names), (Refusal, Vec<Blocker>)> {
        let tenant = ledger.tenant.id();
        let no = |reason| Refusal::new(reason, super::words::message(Resource::Ingresses, reason, &[]));
        if !self.clusters.get(tenant).is_none_or(|state| state.selects(Resource::Ingresses, &asked.labels)) {
            return Err((no(Reason::NotSelected), Vec::new()));
        }
        let policy = &self.grant(tenant).ingresses;
        let desired = translate(policy, &ledger.tenant, &ledger.virtual_cluster, key, &record.uid, asked)
            .map_err(|refusal| (refusal, Vec::new()))?;
        // Before all that only waits: who waits keeps what stands, and that must not be somebody else's host.
        let hosts = hosts(&desired.spec);
        let kept = |host: &&String| {
            self.is_kept_for_another(tenant, host, now)
                && !self.standing_ingress(tenant, key).is_some_and(|twin| host::hosts(&twin.spec).contains(*host))
        };
        if let Some(host) = self.ingresses.taken(at, tenant, &hosts).or_else(|| hosts.iter().find(kept)) {
            return Err((no(Reason::HostTaken), vec![Blocker::Host(host.clone())]));
        }
        self.backends(ledger, key, asked).map_err(|(reason, blockers)| (no(reason), blockers))?;
        let names = self.secrets(ledger, key, asked)?;
        Ok((desired, names))
    }

    /// As [`Self::removal`]; its Secrets go first.
    fn removal_of_ingress(
        &self,
        ledger: &Ledger,
        key: &Key,
        at: &HostName,
        twin: Option<&Twin<IngressSpec>>,
    ) -> Verdict {
        match (self.removal(ledger, key, at, twin), twin) {
            (Verdict::Do(deletion), Some(twin)) => Verdict::Do(self.before_deletion(at, twin, deletion)),
            (verdict, _) => verdict,
        }
    }

    /// Whether every Service that an Ingress names has a twin; or what the first one lacks that has none. That one alone is
    /// waited for: an Ingress may name hundreds. Once the twin stands, it tells itself whom it serves.
    fn backends(&self, ledger: &Ledger, key: &Key, asked: &Asked) -> Result<(), (Reason, Vec<Blocker>)> {
        let named = backends(key, asked);
        let state = |service: &Option<Key>| service.as_ref().map_or(Backend::Absent, |key| self.backend(ledger, key));
        let first = |looked_for: Backend| named.iter().find(|service| state(service) == looked_for);
        let blockers = |service: &Option<Key>| {
            service.iter().map(|service| Blocker::Backend(ledger.tenant.id().clone(), service.clone())).collect()
        };
        match (first(Backend::Absent), first(Backend::Coming)) {
            (Some(absent), _) => Err((Reason::BackendNotSynced, blockers(absent))),
            (None, Some(coming)) => Err((Reason::WaitingForBackend, blockers(coming))),
            (None, None) => Ok(()),
        }
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
        self.bequeath(at, change, now);
        let holder = self.ingresses.get(at).and_then(|after| after.twin.as_ref());
        if let Some(tenant) = holder.map(|twin| twin.marks.tenant.clone()) {
            change.listed.iter().for_each(|secret| self.secrets.listed(&tenant, secret));
        }
        let before = change.before.as_ref().and_then(|before| before.twin.as_deref());
        if let Some(marks) = before.map(|before| &before.marks) {
            for secret in &change.unlisted {
                if self.secrets.unlisted(secret, &marks.tenant, &marks.key) {
                    self.queue.add(&marks.tenant, marks.key.clone(), Cause::Change);
                    self.effects.work = true;
                }
                self.offer_room(&marks.tenant);
            }
        }
        let after = self.ingresses.get(at).map(|after| after.twin.as_deref().cloned());
        if after.is_none() {
            self.wake(&Blocker::IngressName(at.clone()));
        }
        let after = after.flatten();
        // Of two that got a host at the same time one has to give way.
        let met = change.met.iter().filter_map(|other| self.ingresses.get(other)?.twin.as_ref());
        let met: Vec<_> = met.map(|twin| (twin.marks.tenant.clone(), twin.marks.key.clone())).collect();
        for (tenant, key) in met {
            self.need(&tenant, &key);
        }
        self.follow(before, after.as_ref(), now);
        self.enforce_on_seen(before, after.as_ref());
    }
}
