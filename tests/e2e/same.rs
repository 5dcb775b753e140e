//! Whether a twin is what its virtual Service asks for. Pure.
//!
//! Written from the contract and not from host-api's code, and closed: a field of either side that is not named here as an
//! exception must be the same on the other.

use std::collections::{BTreeMap, BTreeSet};

use k3k_expose_tests::k3k::Tenant;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use kube::ResourceExt;
use serde_json::{Map, Value, json};

/// Addresses of the tenant's choice and aliases, which the twin must not have.
const NEVER: [&str; 3] = ["externalIPs", "externalName", "loadBalancerIP"];
/// The virtual object's UID.
pub const VIRTUAL_UID: &str = "expose.k3k.io/uid";

/// Every way in which the twin is not what it should be.
pub fn differences(tenant: &Tenant, wanted: &Service, twin: &Service) -> Vec<String> {
    let mut found = spec_differences(tenant, wanted, twin);
    let mut compare = |what: &str, wanted: Value, is: Value| {
        if wanted != is {
            found.push(format!("{what} is {is} and not {wanted}"));
        }
    };
    let mut labels: BTreeMap<_, _> = wanted.labels().clone();
    labels.retain(|key, _| crosses(key));
    labels.insert("k3k.io/clusterName".to_owned(), tenant.cluster.clone());
    labels.insert("app.kubernetes.io/managed-by".to_owned(), "k3k-expose".to_owned());
    compare("labels", json!(labels), json!(twin.labels()));
    let mut annotations = twin.annotations().clone();
    let virtual_cluster = annotations.remove("expose.k3k.io/virtual-cluster");
    compare("whether the virtual cluster is marked", json!(true), json!(virtual_cluster.is_some()));
    let marks = json!({
        "k3k.io/name": wanted.name_any(), "k3k.io/namespace": wanted.namespace(), VIRTUAL_UID: wanted.uid(),
    });
    compare("annotations", marks, json!(annotations));
    compare("owners", json!([tenant.owner_reference(false)]), json!(twin.owner_references()));
    compare("finalizers", json!([]), json!(twin.finalizers()));
    compare("the deletion timestamp", Value::Null, json!(twin.metadata.deletion_timestamp));
    found
}

/// The spec without the numbers that an API server may draw.
pub fn without_numbers(service: &Service) -> Option<ServiceSpec> {
    let mut spec = service.spec.clone()?;
    (spec.cluster_ip, spec.cluster_ips, spec.health_check_node_port) = (None, None, None);
    spec.ports.iter_mut().flatten().for_each(|port| port.node_port = None);
    Some(spec)
}

fn spec_differences(tenant: &Tenant, wanted: &Service, twin: &Service) -> Vec<String> {
    let (mut spec, is) = (fields(wanted), fields(twin));
    for field in NEVER {
        spec.remove(field);
    }
    if let Some(Value::Object(selector)) = spec.get_mut("selector") {
        selector.insert("k3k.io/clusterName".to_owned(), tenant.cluster.clone().into());
        selector.insert("k3k.io/namespace".to_owned(), wanted.namespace().into());
    }
    let names: BTreeSet<&String> = spec.keys().chain(is.keys()).collect();
    let value = |of: &Map<String, Value>, name: &String| of.get(name).cloned().unwrap_or_default();
    names
        .into_iter()
        .filter(|name| spec.get(*name) != is.get(*name))
        .map(|name| format!("{name} is {} and not {}", value(&is, name), value(&spec, name)))
        .collect()
}

/// The fields of a spec that say something.
fn fields(service: &Service) -> Map<String, Value> {
    let Value::Object(mut fields) = json!(service.spec) else {
        return Map::new();
    };
    fields.retain(|_, value| *value != json!({}) && *value != json!([]) && *value != json!(""));
    fields
}

fn crosses(key: &str) -> bool {
    let reserved = |domain: &str| {
        let of = |root: &str| domain == root || domain.ends_with(&format!(".{root}"));
        domain != "app.kubernetes.io" && (of("k3k.io") || of("kubernetes.io") || of("k8s.io"))
    };
    key != "app.kubernetes.io/managed-by" && !key.split_once('/').is_some_and(|(domain, _)| reserved(domain))
}
