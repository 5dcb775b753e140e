//! What arbitrary bytes are put to: one function for each reader that meets strangers. None may panic, and what each lets
//! through must hold. Pure; `tests/fuzz` calls them.

use clap::Parser as _;
use k3k_expose_proto::message::{FromAgent, Object, Put};
use k3k_expose_proto::{Uid, line};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::admission::pod_of_review;
use crate::cluster::Cluster;
use crate::config::{Config, Raw};
use crate::ingress::policy::Policy;
use crate::inject::{Settings, Surroundings, inject};
use crate::label;
use crate::tenant::{Tenant, tenant_of};
use crate::translate::{label_may_cross, translate};
use crate::twin::{CLUSTER_NAME, MANAGED_BY, VIRTUAL_NAMESPACE};

/// What did not hold.
pub type Broken = &'static str;

/// The body of an API server's question about a pod.
///
/// # Errors
/// [`Broken`].
pub fn review(bytes: &[u8]) -> Result<(), Broken> {
    let Some((pod, creator)) = pod_of_review(bytes) else {
        return Ok(());
    };
    let settings = Settings { image: "agent".into(), host_api_url: "https://h".into(), sync_ingresses: false };
    let around = Surroundings { set: None, cluster: None, namespace: None, ranges: &[], quotas: &[] };
    if inject(&pod, &creator, around, &settings).is_ok() {
        return Err("a pod without a StatefulSet and a Cluster got the agent");
    }
    let patch = label::patch(&pod.metadata);
    let paths = patch.iter().flat_map(|patch| patch.as_array().into_iter().flatten());
    let labels_only = |path: &str| path.starts_with("/metadata/labels");
    let only = paths.into_iter().all(|step| step["path"].as_str().is_some_and(labels_only));
    if only { Ok(()) } else { Err("something else than labels is changed") }
}

/// The file that says which Ingresses are admitted.
///
/// # Errors
/// [`Broken`].
pub fn policy(bytes: &[u8]) -> Result<(), Broken> {
    if let Ok(Ok(policy)) = std::str::from_utf8(bytes).map(Policy::parse) {
        let _ = policy.classes();
    }
    Ok(())
}

/// A line of an agent, and what becomes of the object in it.
///
/// # Errors
/// [`Broken`].
pub fn translation(bytes: &[u8]) -> Result<(), Broken> {
    let Ok(FromAgent::Put(Put { key, uid, object, .. })) = line::decode(bytes) else {
        return Ok(());
    };
    let tenant = tenant().ok_or("the tenant of this test is none")?;
    let service = match object {
        Object::Service(service) => service,
        Object::Ingress(ingress) => {
            let admitted = Policy::default().judge(&tenant, &ingress).is_ok();
            return if admitted { Err("an Ingress that nobody admitted") } else { Ok(()) };
        }
    };
    let Ok(virtual_cluster) = Uid::parse("vc") else { return Ok(()) };
    let Ok(desired) = translate(&tenant, &virtual_cluster, &key, &uid, &service) else {
        return Ok(());
    };
    let selector = desired.spec.selector.unwrap_or_default();
    let bound = |label: &str, value: &str| selector.get(label).is_some_and(|there| there == value);
    let bound_to_tenant = bound(CLUSTER_NAME, "mine") && bound(VIRTUAL_NAMESPACE, key.namespace());
    if !selector.is_empty() && !bound_to_tenant {
        return Err("a selector that is not bound to its tenant");
    }
    if selector.is_empty() != service.selector.is_empty() {
        return Err("a selector that came or went");
    }
    let own = [CLUSTER_NAME, MANAGED_BY];
    if !desired.labels.keys().all(|label| own.contains(&label.as_str()) || label_may_cross(label)) {
        return Err("a label that may not cross");
    }
    let [ips, address] =
        [desired.spec.external_ips.is_some_and(|ips| !ips.is_empty()), desired.spec.load_balancer_ip.is_some()];
    if ips || address { Err("an address that nobody admitted") } else { Ok(()) }
}

/// Flags, one a line.
///
/// # Errors
/// [`Broken`].
pub fn configuration(bytes: &[u8]) -> Result<(), Broken> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Ok(());
    };
    let Ok(raw) = Raw::try_parse_from(std::iter::once("host-api").chain(text.lines())) else {
        return Ok(());
    };
    match Config::try_from(raw) {
        Err(invalid) if invalid.0.is_empty() => Err("a refusal that names no mistake"),
        _ => Ok(()),
    }
}

fn tenant() -> Option<Tenant> {
    let owner = |api: &str, kind: &str, name: &str, uid: &str| json!([{"apiVersion": api, "kind": kind, "name": name, "uid": uid, "controller": true}]);
    let pod: Pod =
        serde_json::from_value(json!({"metadata": {"name": "k3k-mine-server-0", "namespace": "ns", "uid": "p",
        "ownerReferences": owner("apps/v1", "StatefulSet", "k3k-mine-server", "s")}}))
        .ok()?;
    let set: StatefulSet = serde_json::from_value(json!({
        "metadata": {"name": "k3k-mine-server", "namespace": "ns", "uid": "s",
            "ownerReferences": owner("k3k.io/v1beta1", "Cluster", "mine", "c")},
        "spec": {"replicas": 1, "serviceName": "", "template": {},
            "selector": {"matchLabels": {"cluster": "mine", "role": "server"}}}}))
    .ok()?;
    let cluster: Cluster = serde_json::from_value(json!({"apiVersion": "k3k.io/v1beta1", "kind": "Cluster",
        "metadata": {"name": "mine", "namespace": "ns", "uid": "c"}, "spec": {"mode": "shared"}}))
    .ok()?;
    tenant_of(&pod, Some(&set), Some(&cluster)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tenant_that_lines_are_put_to_is_one() {
        assert_eq!(tenant().unwrap().cluster(), "mine");
    }
}
