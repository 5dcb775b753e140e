//! Twins of Ingresses that policy does not admit any more: they go whatever their agent says, or leaves unsaid. Pure.
//!
//! Elsewhere an object is judged when its agent says it. An agent that stays away, or does not answer when it is asked, would
//! keep such a twin for ever.

use k3k_expose_proto::{Key, Resource, Uid};
use k8s_openapi::api::networking::v1::IngressSpec;

use super::Registry;
use super::judge::{Task, deletion};
use crate::ingress::policy::Policy;
use crate::ingress::standing::is_admitted;
use crate::services::HostName;
use crate::twin::{CLUSTER_NAME, Twin};

impl Registry {
    /// The platform team admits this from now on, so everything is judged anew.
    pub fn set_ingress_policy(&mut self, policy: Policy) {
        self.ingress_policy = Some(policy);
        self.condemn_all();
        let records = self.tenants.iter().flat_map(|(tenant, ledger)| {
            let ingresses = ledger.records().filter(|(key, _)| key.resource() == Resource::Ingresses);
            ingresses.map(|(key, _)| (tenant.clone(), key.clone()))
        });
        self.effects.wake.extend(self.sessions.keys());
        for (tenant, key) in records.collect::<Vec<_>>() {
            self.need(&tenant, &key);
        }
    }

    /// Judges every twin anew.
    pub(super) fn condemn_all(&mut self) {
        self.condemned.clear();
        for at in self.ingresses.names() {
            self.condemn(&at);
        }
    }

    /// Judges the twins of a tenant anew.
    pub(super) fn condemn_of(&mut self, tenant: &Uid, namespace: &str) {
        self.condemned.retain(|(condemned, _), _| condemned != tenant);
        let twins = self.ingresses.twins(namespace).filter(|twin| twin.marks.tenant == *tenant);
        let cluster = |twin: &Twin<IngressSpec>| twin.labels.get(CLUSTER_NAME).cloned().unwrap_or_default();
        let names = twins.map(|twin| HostName::of_twin(namespace, &cluster(twin), &twin.marks.key));
        for at in names.collect::<Vec<_>>() {
            self.condemn(&at);
        }
    }

    /// Sees to it that an Ingress goes if it is a twin which policy does not admit. Without a policy nothing is judged, nor
    /// before it is known which there are.
    pub(super) fn condemn(&mut self, at: &HostName) {
        let twin = self.ingresses.get(at).and_then(|ingress| ingress.twin.as_deref());
        let known = twin.filter(|_| self.policies_known && self.namespaces_known);
        let judged = known.and_then(|twin| Some((twin, self.ingress_policy(&twin.marks.tenant)?)));
        let judged = judged.filter(|(twin, policy)| !is_admitted(policy, at, twin));
        let Some((tenant, key)) = judged.map(|(twin, _)| (twin.marks.tenant.clone(), twin.marks.key.clone())) else {
            return;
        };
        self.queue.add(&tenant, key.clone());
        self.effects.work = true;
        self.condemned.insert((tenant, key), at.clone());
    }

    /// Takes up once more what was to go.
    pub(super) fn condemn_again(&mut self) {
        for (tenant, key) in self.condemned.keys() {
            self.queue.add(tenant, key.clone());
            self.effects.work = true;
        }
    }

    /// Whether a twin was to go when it was judged last.
    pub(super) fn is_condemned(&self, tenant: &Uid, key: &Key) -> bool {
        key.resource() == Resource::Ingresses && self.condemned.contains_key(&(tenant.clone(), key.clone()))
    }

    /// What to do about a twin that is to go: nothing where its object is at hand, since that is judged then.
    pub(super) fn condemned(&self, tenant: &Uid, key: &Key) -> Option<Task> {
        let at = self.condemned.get(&(tenant.clone(), key.clone()))?;
        let record = self.tenants.get(tenant).and_then(|ledger| ledger.record(key));
        if record.is_some_and(|record| record.object.is_some()) || self.k3k_writes(tenant, key.resource()) {
            return None;
        }
        let twin = self.ingresses.get(at)?.twin.as_deref()?;
        let is_it = twin.marks.is_of(tenant, key) && !twin.terminating;
        (is_it && !is_admitted(self.ingress_policy(tenant)?, at, twin))
            .then(|| self.before_deletion(at, twin, deletion(at.clone(), twin)))
    }
}
