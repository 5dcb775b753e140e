//! News from the host: Services, Clusters and pods that come, change and go. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use k3k_expose_proto::message::ByeReason;
use k3k_expose_proto::{Key, Resource, Uid};
use k8s_openapi::api::core::v1::Service;

use super::Registry;
use crate::cluster::ClusterState;
use crate::ledger::Ledger;
use crate::notice::{Notice, NoticeKind};
use crate::policy::Usage;
use crate::services::{Blocker, Change, HostName};
use crate::session::Session;
use crate::twin::{HostService, Marks, Twin};

/// A session may open this long after it was looked up who is speaking: three lookups and the wait for its `hello`.
const GONE_KEPT: Duration = Duration::from_secs(60);

impl Registry {
    /// A Service of the host as the watch shows it.
    pub fn service_seen(&mut self, service: Service, now: Duration) {
        let at = HostName::of(&service.metadata);
        if let Some(change) = self.services.seen(service) {
            self.changed(&at, &change, now);
        }
    }

    /// A Service of the host as a read of this moment shows it.
    pub fn service_read(&mut self, service: Service, now: Duration) {
        let at = HostName::of(&service.metadata);
        if let Some(change) = self.services.read(service) {
            self.changed(&at, &change, now);
        }
    }

    /// A Service of the host as the answer to a write shows it.
    pub fn service_answered(&mut self, service: Service, now: Duration) {
        let at = HostName::of(&service.metadata);
        if let Some(change) = self.services.answered(service) {
            self.changed(&at, &change, now);
        }
    }

    /// A Service of the host is gone.
    pub fn service_gone(&mut self, at: &HostName, resource_version: Option<&str>, now: Duration) {
        if let Some(change) = self.services.gone(at.clone(), resource_version) {
            self.changed(at, &change, now);
        }
    }

    /// All Services of the host are these: what a new list lacks is gone.
    pub fn services_listed(&mut self, listed: &BTreeSet<HostName>, now: Duration) {
        for at in self.services.names().into_iter().filter(|at| !listed.contains(at)) {
            self.service_gone(&at, None, now);
        }
    }

    /// A Cluster as the watch, or the lookup of a session, shows it. They overtake each other, so the newer one counts.
    pub fn cluster_seen(&mut self, cluster: &Uid, state: ClusterState) {
        let known = self.clusters.get(cluster);
        if known.is_some_and(|known| known.revision > state.revision) {
            return;
        }
        let same = known.is_some_and(|known| known.says_same_as(&state));
        let relabeled = known.is_none_or(|known| known.labels != state.labels);
        self.clusters.insert(cluster.clone(), state);
        if relabeled {
            self.grant_of_cluster_anew(cluster);
        }
        if same {
            return;
        }
        self.watch_for_two_writers(cluster);
        self.enforce(cluster);
        let Some(ledger) = self.tenants.get_mut(cluster) else {
            return;
        };
        // What was refused or put off under the old state may be judged otherwise now.
        let keys: Vec<Key> = ledger.records().map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.need(cluster, &key);
        }
        self.collect(cluster);
    }

    /// A Cluster is gone, and its tenant with it. Its twins go by their owner reference.
    pub fn cluster_gone(&mut self, cluster: &Uid, now: Duration) {
        self.bury(cluster, now);
        self.release(cluster);
        self.clusters.remove(cluster);
        self.grant_of_cluster_anew(cluster);
        self.tenants.remove(cluster);
        let of_cluster = |session: &Session| session.tenant == *cluster;
        self.end_sessions(ByeReason::Expired, "the Cluster is gone", of_cluster);
    }

    /// All Clusters of the host are these.
    pub fn clusters_listed(&mut self, listed: &BTreeSet<Uid>, now: Duration) {
        let gone: Vec<Uid> = self.clusters.keys().filter(|&cluster| !listed.contains(cluster)).cloned().collect();
        for cluster in gone {
            self.cluster_gone(&cluster, now);
        }
        if !std::mem::replace(&mut self.clusters_known, true) {
            self.enforce_all();
        }
    }

    /// A pod is gone or done.
    pub fn pod_gone(&mut self, pod: &Uid, now: Duration) {
        self.bury(pod, now);
        self.end_sessions(ByeReason::Expired, "the pod is gone", |session| session.pod.uid == *pod);
    }

    /// UIDs of the pods that hold sessions.
    #[must_use]
    pub fn session_pods(&self) -> BTreeSet<Uid> {
        self.sessions.values().map(|session| session.pod.uid.clone()).collect()
    }

    /// Asks for a look at every twin of a tenant that nobody wants.
    pub(super) fn collect(&mut self, tenant: &Uid) {
        let Some(ledger) = self.tenants.get(tenant) else { return };
        let let_through = self.clusters.get(tenant).and_then(|state| state.mass_delete.as_ref());
        if ledger.emptied && let_through != Some(&ledger.virtual_cluster) {
            return;
        }
        let unwanted = self.marks(ledger).map(|(marks, _)| &marks.key).filter(|key| ledger.record(key).is_none());
        let keys: Vec<Key> = unwanted.cloned().collect();
        for key in keys {
            self.need(tenant, &key);
        }
    }

    /// Marks of a tenant's twins of every kind that its agent speaks for, and whether k3k made them.
    pub(super) fn marks(&self, ledger: &Ledger) -> impl Iterator<Item = (&Marks, bool)> {
        let (namespace, tenant) = (ledger.tenant.namespace(), ledger.tenant.id().clone());
        let services = self.services.twins(namespace).map(|(_, twin)| (&twin.marks, twin.made_by_k3k));
        let ingresses = self.ingresses.twins(namespace).map(|twin| (&twin.marks, twin.made_by_k3k));
        let ingresses = ingresses.filter(|_| ledger.speaks_for(Resource::Ingresses));
        services.chain(ingresses).filter(move |(marks, _)| marks.tenant == tenant)
    }

    /// Takes a tenant's objects out of what waits and what is due, before they are forgotten.
    pub(super) fn release(&mut self, tenant: &Uid) {
        let Some(ledger) = self.tenants.get_mut(tenant) else { return };
        let due = std::mem::take(&mut ledger.due);
        let blocked = ledger.records().map(|(key, record)| (key.clone(), record.blockers.clone()));
        let blocked: Vec<(Key, Vec<Blocker>)> = blocked.collect();
        for (key, time) in due {
            self.retries.remove(&(time, tenant.clone(), key));
        }
        for (key, blockers) in blocked {
            self.unblock(&blockers, tenant, &key);
        }
    }

    fn bury(&mut self, uid: &Uid, now: Duration) {
        self.gone.retain(|_, time| now.saturating_sub(*time) < GONE_KEPT);
        self.gone.insert(uid.clone(), now);
    }

    pub(super) fn unblock(&mut self, blockers: &[Blocker], tenant: &Uid, key: &Key) {
        for blocker in blockers {
            if let Some(waiting) = self.waiting.get_mut(blocker) {
                waiting.remove(&(tenant.clone(), key.clone()));
                if waiting.is_empty() {
                    self.waiting.remove(blocker);
                }
            }
        }
    }

    /// Two writers are the platform team's business while a session is open, once each time that it becomes so.
    pub(super) fn watch_for_two_writers(&mut self, tenant: &Uid) {
        for (resource, kind) in
            [(Resource::Services, NoticeKind::TwoWriters), (Resource::Ingresses, NoticeKind::TwoWritersOfIngresses)]
        {
            let writes = self.k3k_writes(tenant, resource);
            match self.tenants.get_mut(tenant) {
                Some(ledger) if writes && ledger.session.is_some() && ledger.speaks_for(resource) => {
                    self.notify(tenant, kind);
                }
                Some(ledger) if !writes => ledger.noticed.retain(|noticed| *noticed != kind),
                _ => {}
            }
        }
        self.wake_of(tenant);
    }

    pub(super) fn notify(&mut self, tenant: &Uid, kind: NoticeKind) {
        let Some(ledger) = self.tenants.get_mut(tenant) else {
            return;
        };
        if ledger.noticed.contains(&kind) {
            return;
        }
        ledger.noticed.retain(|noticed| std::mem::discriminant(noticed) != std::mem::discriminant(&kind));
        ledger.noticed.push(kind.clone());
        self.effects.notices.push(Notice {
            cluster: tenant.clone(),
            namespace: ledger.tenant.namespace().to_owned(),
            name: ledger.tenant.cluster().to_owned(),
            kind,
        });
    }

    fn changed(&mut self, at: &HostName, change: &Change, now: Duration) {
        for blocker in &change.freed {
            self.wake(blocker);
        }
        let before = change.before.as_ref().and_then(HostService::twin);
        let after = self.services.get(at).and_then(HostService::twin).cloned();
        self.follow_trouble(at, after.as_ref(), now);
        if before.map(|twin| twin.terminating) != after.as_ref().map(|twin| twin.terminating) {
            for marks in [before, after.as_ref()].into_iter().flatten().map(|twin| &twin.marks) {
                self.wake(&Blocker::Backend(marks.tenant.clone(), marks.key.clone()));
            }
            if let Some(lost) = before.filter(|_| after.as_ref().is_none_or(|twin| twin.terminating)) {
                self.need_served(&lost.marks.tenant, at);
            }
        }
        if let Some(before) = before {
            let same = after.as_ref().filter(|after| after.marks.tenant == before.marks.tenant);
            let left = same.map(|after| Usage::of(&after.spec)).unwrap_or_default();
            self.offer(&before.marks.tenant, Usage::of(&before.spec).without(left));
        }
        self.follow(before, after.as_ref(), now);
        self.enforce_on_seen(before, after.as_ref());
    }

    /// Looks again at the Ingresses that a Service of the host served.
    pub(super) fn need_served(&mut self, tenant: &Uid, at: &HostName) {
        let served = self.ingresses.naming(at).filter(|twin| twin.marks.tenant == *tenant);
        for key in served.map(|twin| twin.marks.key.clone()).collect::<Vec<_>>() {
            self.need(tenant, &key);
        }
    }

    /// What a change of an object of the host means for those that it was, or is, the twin of.
    pub(super) fn follow<S: PartialEq>(&mut self, before: Option<&Twin<S>>, after: Option<&Twin<S>>, now: Duration) {
        let [was, is] = [before, after].map(|twin| twin.map(|twin| twin.marks.clone()));
        if let Some(was) = was.as_ref().filter(|was| is.as_ref().is_none_or(|is| is.tenant != was.tenant)) {
            self.offer_room(&was.tenant);
        }
        if let Some(marks) = &was {
            self.compare(&marks.tenant, &marks.key, before, after, now);
        }
        if let Some(marks) = &is
            && was.as_ref().is_none_or(|was| (&was.tenant, &was.key) != (&marks.tenant, &marks.key))
        {
            self.compare(&marks.tenant, &marks.key, None, after, now);
        }
    }

    /// What a change of a twin means for the object that it is the twin of.
    fn compare<S: PartialEq>(
        &mut self,
        tenant: &Uid,
        key: &Key,
        before: Option<&Twin<S>>,
        after: Option<&Twin<S>>,
        now: Duration,
    ) {
        let Some(ledger) = self.tenants.get_mut(tenant) else {
            return;
        };
        let complete = ledger.complete;
        let Some(record) = ledger.record_mut(key) else {
            if complete && after.is_some_and(|twin| !twin.terminating) {
                self.need(tenant, key);
            }
            return;
        };
        // While the object is at hand the writer works on it and will see what stands by itself.
        if record.object.is_some() {
            return;
        }
        let kept = record.is_kept();
        match (before, after) {
            (Some(before), Some(after)) if before.same_as(after) => self.refresh(tenant, key),
            // Somebody wrote keys of its own: no contest, but a key of the tenant's may have been among them.
            (Some(before), Some(after)) if !before.is_undone_in(after) => self.need(tenant, key),
            _ if kept => self.undone(tenant, key, now),
            _ => self.need(tenant, key),
        }
    }

    /// Puts right what somebody undid of an object's twin, unless it is a contest.
    pub(super) fn undone(&mut self, tenant: &Uid, key: &Key, now: Duration) {
        let Some(record) = self.tenants.get_mut(tenant).and_then(|ledger| ledger.record_mut(key)) else {
            return;
        };
        let is_contested = record.contest.undone(now);
        self.totals.repairs += 1;
        if is_contested { self.contested(tenant, key, now) } else { self.need(tenant, key) }
    }

    /// Tells the agent what the host changed in a twin's status.
    pub(super) fn refresh(&mut self, tenant: &Uid, key: &Key) {
        let Some(shown) = self.shown(tenant, key) else {
            return;
        };
        let Some(ledger) = self.tenants.get_mut(tenant) else {
            return;
        };
        let told = ledger.record(key).and_then(|record| record.answer.as_ref());
        let told = told.map(|told| (&told.load_balancer, &told.conditions));
        if told.is_none_or(|told| told == (&shown.load_balancer, &shown.conditions)) {
            return;
        }
        self.last_version += 1;
        ledger.tell_again(key, self.last_version, |answer| {
            answer.load_balancer = shown.load_balancer;
            answer.conditions = shown.conditions;
        });
        self.wake_of(tenant);
    }
}
