//! News of policies, and what each tenant may have by them. Pure.
//!
//! A policy that changes is judged against what stands at once, not only against what agents say next: an agent that
//! keeps silent keeps nothing that is not admitted any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k3k_expose_proto::message::ByeReason;
use k3k_expose_proto::{Key, Resource, Uid};
use k8s_openapi::api::networking::v1::IngressSpec;
use serde_json::{Map, Value};

use super::Registry;
use super::judge::{Task, Verdict, deletion};
use crate::cluster::ClusterState;
use crate::ingress;
use crate::ledger::Ledger;
use crate::plan;
use crate::policy::grant::Grant;
use crate::policy::resource::ExposurePolicySpec;
use crate::policy::select::Labels;
use crate::policy::{Reach, standing};
use crate::queue::Cause;
use crate::services::HostName;
use crate::session::Session;
use crate::tenant::Tenant;
use crate::twin::{HostService, Twin};

/// What the status of a policy says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// Whom it is about.
    pub reach: Reach,
    /// What of it cannot be used.
    pub mistakes: Vec<String>,
}

impl Registry {
    /// A policy of the host, or that it is gone.
    pub fn policy_seen(&mut self, name: &str, spec: Option<ExposurePolicySpec>) {
        if self.policies.set(name, spec) {
            self.grant_anew();
        }
    }

    /// All policies of the host are these.
    pub fn policies_listed(&mut self, listed: &BTreeSet<String>) {
        let gone: Vec<String> =
            self.policies.names().filter(|name| !listed.contains(*name)).map(str::to_owned).collect();
        for name in gone {
            self.policy_seen(&name, None);
        }
        if !std::mem::replace(&mut self.policies_known, true) {
            self.enforce_all();
        }
    }

    /// The labels of a namespace, or that it is gone.
    pub fn namespace_seen(&mut self, name: &str, labels: Option<&Labels>) {
        let labels = labels.filter(|labels| !labels.is_empty());
        let same = self.namespaces.get(name) == labels;
        match labels {
            _ if same => return,
            Some(labels) => self.namespaces.insert(name.to_owned(), labels.clone()),
            None => self.namespaces.remove(name),
        };
        let inside = self.clusters.iter().filter(|(_, state)| state.namespace == name);
        for cluster in inside.map(|(cluster, _)| cluster.clone()).collect::<Vec<_>>() {
            self.grant_of_cluster_anew(&cluster);
        }
    }

    /// All namespaces of the host are these.
    pub fn namespaces_listed(&mut self, listed: &BTreeSet<String>) {
        let gone: Vec<String> = self.namespaces.keys().filter(|name| !listed.contains(*name)).cloned().collect();
        for name in gone {
            self.namespace_seen(&name, None);
        }
        if !std::mem::replace(&mut self.namespaces_known, true) {
            self.enforce_all();
        }
    }

    /// A number that grows whenever [`Self::verdicts`] may have changed. `None` until policies, namespaces and Clusters are known:
    /// what is said before would have to be taken back.
    #[must_use]
    pub const fn policy_revision(&self) -> Option<u64> {
        if self.knows_policies() { Some(self.policy_revision) } else { None }
    }

    /// Whether it is known what is admitted of whom: what stands is not judged before.
    const fn knows_policies(&self) -> bool {
        self.policies_known && self.namespaces_known && self.clusters_known
    }

    /// What the statuses of all policies should say.
    #[must_use]
    pub fn verdicts(&self) -> BTreeMap<String, Verdicts> {
        let none = Labels::new();
        let labels = |state: &'_ ClusterState| self.namespaces.get(&state.namespace);
        let clusters = self.clusters.values().map(|state| (labels(state).unwrap_or(&none), &state.labels));
        let reach = self.policies.reach(clusters);
        let verdicts = reach.into_iter().map(|(name, reach)| {
            let mistakes = self.policies.mistakes(&name).unwrap_or_default().to_vec();
            (name, Verdicts { reach, mistakes })
        });
        verdicts.collect()
    }

    /// What a tenant may have.
    #[must_use]
    pub(super) fn grant(&self, tenant: &Uid) -> &Grant {
        self.grants.get(tenant).unwrap_or(&self.safe)
    }

    fn grant_anew(&mut self) {
        self.policy_revision += 1;
        for cluster in self.clusters.keys().cloned().collect::<Vec<_>>() {
            self.grant_of_cluster_anew(&cluster);
        }
    }

    /// Reads again what a tenant may have, and judges what it has by that.
    pub(super) fn grant_of_cluster_anew(&mut self, cluster: &Uid) {
        self.policy_revision += 1;
        let Some(state) = self.clusters.get(cluster) else {
            self.grants.remove(cluster);
            return;
        };
        let none = Labels::new();
        let grant = self.policies.grant(self.namespaces.get(&state.namespace).unwrap_or(&none), &state.labels);
        let before = self.grants.insert(cluster.clone(), Arc::clone(&grant)).unwrap_or_else(|| Arc::clone(&self.safe));
        self.set_bounds(cluster, self.bounds_of(cluster));
        let (of_services, of_ingresses) = (!before.admits_same_as(&grant), before.ingresses != grant.ingresses);
        if of_services || of_ingresses || before.limits != grant.limits {
            self.enforce(cluster);
        }
        if of_ingresses {
            // The classes that it can use are shown to it.
            self.wake_of(cluster);
            self.need_all(cluster, Resource::Ingresses);
            self.need_all(cluster, Resource::Secrets);
        }
        if !of_services {
            return;
        }
        if before.shown_annotations() != grant.shown_annotations() {
            // What an agent sends of annotations it learns by `welcome` alone.
            let of_tenant = |session: &Session| session.tenant == *cluster;
            self.end_sessions(ByeReason::Role, "the platform team admits other annotations", of_tenant);
        }
        self.need_all(cluster, Resource::Services);
    }

    /// Looks at every object of a tenant again, with what the agent says.
    fn need_all(&mut self, tenant: &Uid, resource: Resource) {
        let records = self.tenants.get(tenant).into_iter().flat_map(Ledger::records);
        let keys = records.map(|(key, _)| key).filter(|key| key.resource() == resource);
        for key in keys.cloned().collect::<Vec<_>>() {
            self.need(tenant, &key);
        }
    }

    /// Sees to it that no twin of whatever tenant stands that is not admitted, be there a session or not.
    pub(super) fn enforce_all(&mut self) {
        for tenant in self.clusters.keys().cloned().collect::<Vec<_>>() {
            self.enforce(&tenant);
        }
    }

    /// The same for one tenant.
    pub(super) fn enforce(&mut self, tenant: &Uid) {
        let namespace = self.clusters.get(tenant).map(|state| state.namespace.as_str()).unwrap_or_default();
        let services = self.services.twins(namespace).map(|(_, twin)| &twin.marks);
        let marks = services.chain(self.ingresses.twins(namespace).map(|twin| &twin.marks));
        let keys: Vec<Key> = marks.filter(|marks| marks.tenant == *tenant).map(|marks| marks.key.clone()).collect();
        for key in keys {
            self.enforce_on(tenant, &key);
        }
    }

    /// The same for a twin that an event shows. Of one that stood already, and that agents have spoken of, the answer decides.
    pub(super) fn enforce_on_seen<S>(&mut self, before: Option<&Twin<S>>, after: Option<&Twin<S>>) {
        if let Some(marks) = after.map(|after| &after.marks)
            && (before.is_none() || self.record(&marks.tenant, &marks.key).is_none())
        {
            self.enforce_on(&marks.tenant, &marks.key);
        }
    }

    /// Has the writer look at a twin that is not admitted.
    pub(super) fn enforce_on(&mut self, tenant: &Uid, key: &Key) {
        let Some(state) = self.clusters.get(tenant) else {
            return;
        };
        let at = HostName::of_twin(&state.namespace, &state.name, key);
        let marks = match key.resource() {
            Resource::Services => {
                let twin = self.services.get(&at).and_then(HostService::twin);
                twin.filter(|twin| twin.marks.is_of(tenant, key) && self.is_unfit(tenant, &at, twin))
                    .map(|twin| &twin.marks)
            }
            Resource::Ingresses => {
                let twin = self.ingresses.get(&at).and_then(|ingress| ingress.twin.as_deref());
                twin.filter(|twin| twin.marks.is_of(tenant, key) && self.is_unfit_ingress(tenant, &at, twin))
                    .map(|twin| &twin.marks)
            }
            Resource::Secrets => None,
        };
        let Some(marks) = marks else {
            return;
        };
        if !self.tenants.contains_key(tenant) {
            let home = marks.virtual_cluster.clone().unwrap_or_else(|| tenant.clone());
            let of_cluster = Tenant::of_cluster(tenant.clone(), &state.namespace, &state.name);
            // What it says counts for nothing: a session begins anew.
            let mut ledger = Ledger::new(of_cluster, home, 0);
            ledger.bounds = self.bounds_of(tenant);
            self.tenants.insert(tenant.clone(), ledger);
        }
        self.queue.add(tenant, key.clone(), Cause::Policy);
        self.effects.work = true;
    }

    fn is_unfit(&self, tenant: &Uid, at: &HostName, twin: &Twin) -> bool {
        let grant = self.grant(tenant);
        let fits = || {
            standing::judge(grant, &twin.spec).is_ok()
                && standing::unfit_keys(grant, twin).is_empty()
                && twin.held().node_ports.iter().all(|port| grant.has_in_band(*port))
                && !self.is_beyond(tenant, &at.namespace, &twin.marks.key)
                && self.judge_standing_slices(tenant, at).is_none()
        };
        self.is_judged(twin) && !fits()
    }

    fn is_unfit_ingress(&self, tenant: &Uid, at: &HostName, twin: &Twin<IngressSpec>) -> bool {
        let fits = || {
            ingress::standing::is_admitted(&self.grant(tenant).ingresses, twin)
                && !self.is_beyond(tenant, &at.namespace, &twin.marks.key)
        };
        self.is_judged(twin) && !fits()
    }

    /// What k3k left is not ours to judge before it is adopted.
    fn is_judged<S>(&self, twin: &Twin<S>) -> bool {
        self.knows_policies() && twin.marks.ours && !twin.terminating
    }

    /// What to do about a twin that stands, by itself alone. What is not admitted goes, whatever is known of the virtual cluster.
    pub(super) fn judge_standing(&self, ledger: &Ledger, key: &Key, now: Duration) -> Verdict {
        let (tenant, at) = (ledger.tenant.id(), Self::place(ledger, key));
        if self.k3k_writes(tenant, key.resource()) {
            return Verdict::Nothing;
        }
        let task = match key.resource() {
            Resource::Services => self
                .standing(tenant, key)
                .filter(|twin| self.is_unfit(tenant, &at, twin))
                .map(|twin| self.fit(ledger, key, at, twin, now)),
            Resource::Ingresses => self
                .standing_ingress(tenant, key)
                .filter(|twin| self.is_unfit_ingress(tenant, &at, twin))
                .map(|twin| self.before_deletion(&at, twin, deletion(at.clone(), twin))),
            Resource::Secrets => None,
        };
        task.map_or(Verdict::Nothing, Verdict::Do)
    }

    /// What makes the twin of a Service one that is admitted, or takes it away.
    fn fit(&self, ledger: &Ledger, key: &Key, at: HostName, twin: &Twin, now: Duration) -> Task {
        let tenant = ledger.tenant.id();
        let grant = self.grant(tenant);
        if let Some(task) = self.judge_standing_slices(tenant, &at) {
            return task;
        }
        let mut spec = twin.spec.clone();
        Self::leave_band(grant, &mut spec);
        let entered = self.enter_band((ledger.record(key), &at), grant, &mut spec, Some(twin), now);
        let beyond = self.is_beyond(tenant, &at.namespace, key);
        if beyond || standing::judge(grant, &twin.spec).is_err() || entered.is_none() {
            return deletion(at, twin);
        }
        let unfit = standing::unfit_keys(grant, twin);
        let nulls = |keys: &[String]| keys.iter().map(|key| (key.clone(), Value::Null)).collect::<Map<_, _>>();
        let metadata = [("labels", nulls(&unfit.labels)), ("annotations", nulls(&unfit.annotations))];
        let metadata = metadata.into_iter().map(|(field, keys)| (field.to_owned(), Value::Object(keys))).collect();
        Task::Patch(at, plan::patch(twin, &spec, metadata))
    }
}
