//! `k3k-expose-host-api plan`: what the host would get for the Services, Ingresses and EndpointSlices of a file, or the rule that
//! refuses them. Pure but for the caller's reading.
//!
//! The same code decides as in a session. What only a host at work knows, such as who holds a number or a host name, or how
//! much a tenant has already, is said as an open end.

mod documents;
mod endpoints;
mod ingress;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Write};
use std::sync::Arc;

use k3k_expose_proto::{Key, Reason, Resource, Uid};
use serde::Serialize;
use serde_json::{Value, json};

use super::grant::Grant;
use super::select::Labels;
use super::{Policies, Refusal};
use crate::cluster::{Cluster, ClusterState};
use crate::endpoints::address::Addresses;
use crate::ranges::Ranges;
use crate::registry::words;
use crate::tenant::{Tenant, supported};
use crate::translate::{Desired, label_may_cross};

use documents::{Document, Read};

pub use documents::{Documents, PlanError, policies};

/// Around a file: whose it is, and what the platform team admits.
#[derive(Debug, Default)]
pub struct Around {
    /// The Cluster, with its namespace and labels.
    pub cluster: Cluster,
    /// Labels of its namespace.
    pub namespace: Labels,
    /// All policies.
    pub policies: Policies,
    /// Whose the addresses of the host are, where that was asked.
    pub host: Option<Host>,
}

/// What decides about endpoints besides policies.
#[derive(Debug, Default)]
pub struct Host {
    /// The addresses of pods, nodes and API servers.
    pub addresses: Addresses,
    /// Those for Services.
    pub ranges: Ranges,
}

/// What becomes of the documents of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Planned {
    /// For people, and as YAML what is no comment.
    pub text: String,
    /// Whether one is refused.
    pub refused: bool,
}

/// Whose documents are planned, and what these are judged by.
struct Judge<'a> {
    tenant: Tenant,
    cluster: ClusterState,
    grant: Arc<Grant>,
    host: Option<&'a Host>,
    /// UIDs of what a file has not.
    unknown: Uid,
}

/// What the file says of a Service.
#[derive(Clone, Copy, Debug)]
struct Told {
    is_refused: bool,
    is_bare: bool,
}

/// Plans every document of a kind that crosses, in their order; endpoints behind their Service.
///
/// # Errors
/// [`PlanError`].
pub fn planned(documents: &Documents, around: &Around) -> Result<Planned, PlanError> {
    let Read { documents, skipped } = documents.read()?;
    if let Err(unsupported) = supported(around.cluster.spec.mode) {
        let mut nothing = Planned { refused: true, ..Planned::default() };
        nothing.line(&format!("refused: {unsupported}"));
        nothing.line("decided by: the Cluster, spec.mode");
        return Ok(nothing);
    }
    let judge = Judge::of(around);
    let (mut services, mut told, mut slices) = (Vec::new(), BTreeMap::new(), BTreeMap::<&Key, Vec<_>>::new());
    for (key, document) in &documents {
        match document {
            Document::Service(service) => {
                let planned = service::planned(&judge, key, service);
                told.insert(key, Told { is_refused: planned.refused, is_bare: service.is_bare() });
                services.push(planned);
            }
            Document::Slices(of) => slices.entry(key).or_default().push(of),
            Document::Ingress(_) => {}
        }
    }
    let (mut all, mut services, mut joined) = (Planned::default(), services.into_iter(), BTreeSet::new());
    for (key, document) in &documents {
        match document {
            Document::Service(_) => services.next().into_iter().for_each(|planned| all.add(&planned)),
            Document::Ingress(ingress) => all.add(&ingress::planned(&judge, key, ingress, &told)),
            Document::Slices(_) if told.contains_key(key) => continue,
            Document::Slices(_) => {}
        }
        if let Some(slices) = slices.get(key).filter(|_| joined.insert(key)) {
            all.add(&endpoints::planned(&judge, key, told.get(key).copied(), slices));
        }
    }
    skipped.iter().for_each(|skipped| all.line(skipped));
    Ok(all)
}

impl<'a> Judge<'a> {
    fn of(around: &'a Around) -> Self {
        let meta = &around.cluster.metadata;
        let unknown = Uid::from_number(0);
        let id = meta.uid.as_deref().and_then(|uid| Uid::parse(uid).ok()).unwrap_or_else(|| unknown.clone());
        let [namespace, name] = [&meta.namespace, &meta.name].map(|text| text.clone().unwrap_or_default());
        Self {
            tenant: Tenant::of_cluster(id, &namespace, &name),
            cluster: ClusterState::from(&around.cluster),
            grant: around.policies.grant(&around.namespace, meta.labels.as_ref().unwrap_or(&Labels::new())),
            host: around.host.as_ref(),
            unknown,
        }
    }

    fn begin(&self, what: &str) -> Planned {
        let mut planned = Planned::default();
        planned.line(&format!("{what} of Cluster {}/{}", self.tenant.namespace(), self.tenant.cluster()));
        planned
    }

    /// Whether the Cluster itself leaves such an object out, or the tenant may have none at all.
    fn leaves_out(&self, resource: Resource, labels: &Labels, planned: &mut Planned) -> bool {
        let crossing = labels.iter().filter(|(key, _)| label_may_cross(key));
        if !self.cluster.selects(resource, &crossing.map(|(key, value)| (key.clone(), value.clone())).collect()) {
            let rule = format!("the Cluster, spec.sync.{}.selector", resource.as_str());
            planned.refuse(Reason::NotSelected, &words::message(resource, Reason::NotSelected, &[]), Some(&rule));
        }
        planned.refused
    }

    fn admitted(&self, resource: Resource, planned: &mut Planned) {
        match &self.grant.policy {
            Some(policy) => planned.line(&format!("admitted by: ExposurePolicy {policy}")),
            None => planned.line("admitted by: the safe defaults, as no policy with spec.allow selects this Cluster"),
        }
        if self.cluster.k3k_writes(resource) {
            let (message, kind) = (words::message(resource, Reason::Adopting, &[]), resource.as_str());
            planned.line(&format!("not yet: Adopting: {message} (the Cluster, spec.sync.{kind}.enabled)"));
        }
    }

    /// Counts one more object. Tells whether not one is admitted.
    fn has_no_room(&self, planned: &mut Planned) -> bool {
        let none = self.grant.limits.objects == Some(0);
        if none {
            planned.not_one(Reason::TooManyObjects, &self.grant.rule("limits.objects"));
        }
        none
    }

    fn count(&self, planned: &mut Planned) {
        if let Some(objects) = self.grant.limits.objects {
            let rule = self.grant.rule("limits.objects");
            planned.line(&format!("counts: 1 of {objects} Services, Ingresses and certificates ({rule})"));
        }
    }

    /// What a twin would be. Who owns it is left out, since a file says no UIDs.
    fn twin<S: Serialize>(&self, api_version: &str, kind: &str, desired: &Desired<S>) -> Value {
        json!({
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {
                "name": desired.name,
                "namespace": self.tenant.namespace(),
                "labels": desired.labels,
                "annotations": desired.annotations,
            },
            "spec": desired.spec,
        })
    }
}

impl Planned {
    fn add(&mut self, other: &Self) {
        self.text.push_str(&other.text);
        self.refused |= other.refused;
    }

    fn line(&mut self, what: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# {what}");
    }

    fn unknown(&mut self, what: &str) {
        self.line(&format!("not known here: {what}"));
    }

    /// Without a rule no policy could change it.
    fn refuse(&mut self, reason: Reason, message: &str, rule: Option<&dyn Display>) {
        self.refused = true;
        match rule {
            Some(rule) => {
                self.line(&format!("refused: {}: {message}", reason.as_str()));
                self.line(&format!("decided by: {rule}"));
            }
            None => self.line(&format!("refused: {}, whatever policies say: {message}", reason.as_str())),
        }
    }

    fn refuse_as(&mut self, Refusal { reason, message, rule }: &Refusal) {
        self.refuse(*reason, message, rule.as_ref().map(|rule| rule as _));
    }

    fn not_one(&mut self, reason: Reason, rule: &dyn Display) {
        self.refuse(reason, "not one is admitted", Some(rule));
    }

    fn object(&mut self, object: &Value) {
        self.text.push_str("---\n");
        self.text.push_str(&serde_saphyr::to_string(object).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests;
