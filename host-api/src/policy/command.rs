//! `k3k-expose-host-api plan`: what the host would get for a Service, or the rule that refuses it. Pure but for the caller's
//! reading.
//!
//! The same code decides as in a session. What only a host at work knows, such as who holds a number or how much a tenant
//! has already, is said as an open end.

use std::fmt::Write;

use k3k_expose_proto::{Key, Reason, Uid};
use k8s_openapi::api::core::v1::Service;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::grant::Grant;
use super::resource::ExposurePolicy;
use super::select::Labels;
use super::{Policies, Refusal, Rule, Usage, service, written};
use crate::cluster::Cluster;
use crate::inject::command::items;
use crate::tenant::Tenant;
use crate::translate::{Desired, translate};

/// Why there is nothing to print.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The text is no YAML.
    #[error("{0} is no YAML: {1}")]
    NoYaml(&'static str, String),
    /// No Service is among the documents.
    #[error("no Service among the documents")]
    NoService,
    /// A document is not what its kind says.
    #[error("a {0} cannot be read: {1}")]
    Unreadable(&'static str, serde_json::Error),
    /// It has no name that could be one.
    #[error("the Service has no name")]
    NoName,
}

/// Around a Service: whose it is, and what the platform team admits.
#[derive(Clone, Debug, Default)]
pub struct Around {
    /// The Cluster, with its namespace and labels.
    pub cluster: Cluster,
    /// Labels of its namespace.
    pub namespace: Labels,
    /// All policies.
    pub policies: Policies,
}

/// What becomes of the Services of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// For people, and as YAML what is no comment.
    pub text: String,
    /// Whether one is refused.
    pub refused: bool,
}

/// The documents of one kind in a YAML text.
///
/// # Errors
/// When the text is no YAML, or a document is not of that kind after all.
pub fn documents<T: DeserializeOwned>(what: &'static str, kind: &'static str, text: &str) -> Result<Vec<T>, PlanError> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| PlanError::NoYaml(what, error.to_string()))?;
    let documents = documents.into_iter().flat_map(items).filter(|document| document["kind"] == kind);
    documents.map(|document| serde_json::from_value(document).map_err(|e| PlanError::Unreadable(kind, e))).collect()
}

/// Reads policies.
///
/// # Errors
/// When there is no YAML, or no policy.
pub fn policies(text: &str) -> Result<Policies, PlanError> {
    let mut policies = Policies::default();
    for policy in documents::<ExposurePolicy>("the policy", "ExposurePolicy", text)? {
        policies.set(&policy.metadata.name.unwrap_or_default(), Some(policy.spec));
    }
    Ok(policies)
}

/// Plans every Service of a YAML text.
///
/// # Errors
/// [`PlanError`].
pub fn planned(text: &str, around: &Around) -> Result<Planned, PlanError> {
    let services: Vec<Service> = documents("the file", "Service", text)?;
    if services.is_empty() {
        return Err(PlanError::NoService);
    }
    let grant =
        around.policies.grant(&around.namespace, around.cluster.metadata.labels.as_ref().unwrap_or(&Labels::new()));
    let mut planned = Planned { text: String::new(), refused: false };
    for written in services {
        let (text, refused) = one(&grant, &written, &around.cluster)?;
        planned.text.push_str(&text);
        planned.refused |= refused;
    }
    Ok(planned)
}

fn one(grant: &Grant, written: &Service, cluster: &Cluster) -> Result<(String, bool), PlanError> {
    let asked = written::service(written).map_err(|error| PlanError::Unreadable("Service", error))?;
    let name = written.metadata.name.as_deref().ok_or(PlanError::NoName)?;
    let namespace = written.metadata.namespace.as_deref().unwrap_or("default");
    let key = Key::service(namespace, name).map_err(|_| PlanError::NoName)?;
    let unknown = Uid::from_number(0);
    let meta = &cluster.metadata;
    let place = [&meta.namespace, &meta.name].map(|text| text.clone().unwrap_or_default());
    let tenant = Tenant::of_cluster(unknown.clone(), &place[0], &place[1]);
    let mut text = format!("# Service {namespace}/{name} of Cluster {}/{}\n", tenant.namespace(), tenant.cluster());
    let mut desired = match translate(&tenant, &unknown, &key, &unknown, &asked) {
        Ok(desired) => desired,
        Err(reason) => {
            line(&mut text, &format!("refused: {}, whatever policies say", reason.as_str()));
            return Ok((text, true));
        }
    };
    if let Err(refusal) = service::judge(grant, &asked) {
        let Refusal { reason, message, rule } = refusal;
        line(&mut text, &format!("refused: {}: {message}", reason.as_str()));
        line(&mut text, &format!("decided by: {rule}"));
        return Ok((text, true));
    }
    service::shape(grant, &asked, &mut desired);
    if let Some((reason, rule)) = over(grant, &desired) {
        line(&mut text, &format!("refused: {}: not one is admitted", reason.as_str()));
        line(&mut text, &format!("decided by: {rule}"));
        return Ok((text, true));
    }
    match &grant.policy {
        Some(policy) => line(&mut text, &format!("admitted by: ExposurePolicy {policy}")),
        None => line(&mut text, "admitted by: the safe defaults, as no policy with spec.allow selects this Cluster"),
    }
    left_behind(&mut text, grant, &asked, &desired);
    counted(&mut text, grant, &desired);
    if desired.spec.selector.is_none() {
        let more = if grant.endpoints.is_empty() { "" } else { ", and what the policy names" };
        let rule = grant.rule("endpoints");
        line(&mut text, &format!("endpoints made by hand: addresses of the virtual cluster's own pods{more} ({rule})"));
    }
    let twin = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": desired.name,
            "namespace": tenant.namespace(),
            "labels": desired.labels,
            "annotations": desired.annotations,
        },
        "spec": desired.spec,
    });
    let yaml = serde_saphyr::to_string(&twin).unwrap_or_default();
    text.push_str("---\n");
    text.push_str(&yaml);
    Ok((text, false))
}

/// What the tenant says and the twin will not have.
fn left_behind(text: &mut String, grant: &Grant, asked: &k3k_expose_proto::Service, desired: &Desired) {
    for (key, value) in &asked.annotations {
        if desired.annotations.get(key) != Some(value) {
            line(text, &format!("left behind: annotation {key} ({})", grant.rule("annotations")));
        }
    }
    for (key, value) in &asked.labels {
        if desired.labels.get(key) != Some(value) {
            line(text, &format!("left behind: label {key} ({})", grant.rule("labels")));
        }
    }
}

/// What is refused even to a tenant that has nothing yet.
fn over(grant: &Grant, desired: &Desired) -> Option<(Reason, Rule)> {
    let Usage { node_ports, load_balancers } = Usage::asked(&desired.spec);
    [
        (node_ports > grant.node_ports, Reason::TooManyNodePorts, "nodePorts.most"),
        (load_balancers > grant.load_balancers, Reason::TooManyLoadBalancers, "loadBalancers.most"),
        (grant.limits.objects == Some(0), Reason::TooManyObjects, "limits.objects"),
    ]
    .into_iter()
    .find_map(|(over, reason, field)| over.then(|| (reason, grant.rule(field))))
}

fn counted(text: &mut String, grant: &Grant, desired: &Desired) {
    let Usage { node_ports, load_balancers } = Usage::asked(&desired.spec);
    if node_ports > 0 {
        let band = grant.band.map(|(from, to)| format!(", from {from} to {to}")).unwrap_or_default();
        line(
            text,
            &format!("counts: {node_ports} of {} node ports{band} ({})", grant.node_ports, grant.rule("nodePorts")),
        );
    }
    if load_balancers > 0 {
        line(text, &format!("counts: 1 of {} load balancers ({})", grant.load_balancers, grant.rule("loadBalancers")));
    }
    if let Some(objects) = grant.limits.objects {
        line(text, &format!("counts: 1 of {objects} Services and Ingresses ({})", grant.rule("limits.objects")));
    }
}

fn line(text: &mut String, what: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICIES: &str = "
apiVersion: expose.k3k.io/v1alpha1
kind: ExposurePolicy
metadata: {name: team}
spec:
  clusterSelector: {matchLabels: {tier: gold}}
  allow:
    serviceTypes: [ClusterIP, LoadBalancer]
    annotations: [{prefix: metallb.io/}]
---
apiVersion: expose.k3k.io/v1alpha1
kind: ExposurePolicy
metadata: {name: everybody}
spec:
  deny: {serviceTypes: [NodePort]}
";

    fn around(labels: &[(&str, &str)]) -> Around {
        let mut cluster = Cluster::default();
        cluster.metadata.name = Some("mine".to_owned());
        cluster.metadata.namespace = Some("team".to_owned());
        cluster.metadata.labels = Some(labels.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect());
        Around { cluster, namespace: Labels::new(), policies: policies(POLICIES).unwrap() }
    }

    const BALANCER: &str = "
kind: Service
metadata:
  name: web
  annotations: {metallb.io/address-pool: public, example.com/x: kept}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80}]}
";

    #[test]
    fn a_plan_shows_the_twin_and_what_stays_behind_with_the_rule() {
        let gold = planned(BALANCER, &around(&[("tier", "gold")])).unwrap();
        assert!(!gold.refused, "{}", gold.text);
        for words in [
            "# admitted by: ExposurePolicy team",
            "# left behind: annotation example.com/x (ExposurePolicy team, spec.allow.annotations)",
            "# counts: 1 of 10 load balancers (the safe default of spec.allow.loadBalancers)",
            "metallb.io/address-pool: public",
            "k3k.io/clusterName: mine",
        ] {
            assert!(gold.text.contains(words), "{words} in {}", gold.text);
        }
        let plain = planned(BALANCER, &around(&[])).unwrap();
        assert!(plain.text.contains("# admitted by: the safe defaults"), "{}", plain.text);
        assert!(!plain.text.contains("metallb.io/address-pool: public"), "{}", plain.text);
    }

    #[test]
    fn a_plan_counts_what_there_may_be_only_so_much_of() {
        let of = |allow: &str| {
            let policy = format!("kind: ExposurePolicy\nmetadata: {{name: few}}\nspec: {{allow: {allow}}}");
            let around = Around { policies: policies(&policy).unwrap(), ..around(&[]) };
            planned(BALANCER, &around).unwrap()
        };
        let some = of("{limits: {objects: 7}}").text;
        let words = "# counts: 1 of 7 Services and Ingresses (ExposurePolicy few, spec.allow.limits.objects)";
        assert!(some.contains(words), "{some}");
        for (allow, words) in [
            ("{limits: {objects: 0}}", "# decided by: ExposurePolicy few, spec.allow.limits.objects"),
            ("{loadBalancers: {most: 0}}", "# refused: TooManyLoadBalancers"),
            ("{nodePorts: {most: 0}}", "# decided by: ExposurePolicy few, spec.allow.nodePorts.most"),
        ] {
            let none = of(allow);
            assert!(none.refused && none.text.contains(words), "{}", none.text);
        }
    }

    #[test]
    fn a_service_without_a_selector_is_told_which_endpoints_it_may_have() {
        let bare = "kind: Service\nmetadata: {name: db}\nspec: {ports: [{port: 5432}]}";
        let words = "own pods (the safe default of spec.allow.endpoints)";
        assert!(planned(bare, &around(&[("tier", "gold")])).unwrap().text.contains(words));
        assert!(!planned(BALANCER, &around(&[])).unwrap().text.contains("endpoints made by hand"));
    }

    #[test]
    fn a_refusal_names_the_rule_that_decided() {
        let node_port = "kind: Service\nmetadata: {name: web}\nspec: {type: NodePort, ports: [{port: 80}]}";
        let denied = planned(node_port, &around(&[("tier", "gold")])).unwrap();
        assert!(denied.refused);
        assert!(denied.text.contains("# refused: TypeNotAdmitted: Services of type NodePort are not admitted"));
        assert!(denied.text.contains("# decided by: ExposurePolicy everybody, spec.deny.serviceTypes"));
        let alias = "kind: Service\nmetadata: {name: web}\nspec: {type: ExternalName, externalName: example.com}";
        assert!(planned(alias, &around(&[])).unwrap().text.contains("# refused: ExternalNameNotExposed"));
        assert!(matches!(planned("kind: Pod", &around(&[])), Err(PlanError::NoService)));
    }
}
