//! The Services of the bench: the tenant's, their twins as the plain client posts them, and the reference objects.
//!
//! A twin's body is written here from the contract, not taken from host-api; [`Fingerprints`] shows afterwards that what
//! host-api made is the same.

use std::collections::BTreeMap;

use anyhow::Context;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::k3k::Tenant;

/// The namespace of the tenant's Services in the virtual cluster.
pub(super) const VIRTUAL_NAMESPACE: &str = "default";
/// The port of every Service, and the one that updates change it to.
pub(super) const PORT: i32 = 80;
/// See [`PORT`].
pub(super) const NEW_PORT: i32 = 81;

/// What was stored, by name, without what differs from object to object and from hour to hour.
#[derive(Default)]
pub(super) struct Fingerprints(BTreeMap<String, String>);

impl Fingerprints {
    pub(super) fn of(services: &[Service]) -> Self {
        let print = |service: &Service| {
            let meta = &service.metadata;
            let kept = json!([meta.labels, meta.annotations, meta.owner_references, service.spec]);
            (service.name_any(), kept.to_string())
        };
        Self(services.iter().map(print).collect())
    }

    /// How many are the same in both.
    pub(super) fn equal(&self, other: &Self) -> usize {
        let same = |(name, print): &(&String, &String)| other.0.get(*name) == Some(*print);
        self.0.iter().filter(same).count()
    }
}

/// A ClusterIP Service of the tenant.
pub(super) fn tenants(name: &str) -> anyhow::Result<Service> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"type": "ClusterIP", "selector": {"app": name}, "ports": [port(PORT)]},
    }))?)
}

/// The twin of a stored Service of the tenant.
pub(super) fn twin(tenant: &Tenant, virtual_cluster: &str, service: &Service) -> anyhow::Result<Service> {
    let (name, namespace) = (service.name_any(), service.namespace().unwrap_or_default());
    let spec = service.spec.clone().context("a stored Service has a spec")?;
    let mut selector = spec.selector.clone().unwrap_or_default();
    selector.insert("k3k.io/clusterName".to_owned(), tenant.cluster.clone());
    selector.insert("k3k.io/namespace".to_owned(), namespace.clone());
    let mut labels = service.labels().clone();
    labels.insert("k3k.io/clusterName".to_owned(), tenant.cluster.clone());
    labels.insert("app.kubernetes.io/managed-by".to_owned(), "k3k-expose".to_owned());
    Ok(serde_json::from_value(json!({
        "metadata": {
            "name": tenant.twin_name(&name, &namespace),
            "labels": labels,
            "annotations": {
                "k3k.io/name": name,
                "k3k.io/namespace": namespace,
                "expose.k3k.io/uid": service.uid(),
                "expose.k3k.io/virtual-cluster": virtual_cluster,
            },
            "ownerReferences": [tenant.owner_reference(false)],
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": spec.cluster_ip,
            "clusterIPs": spec.cluster_ips,
            "ipFamilies": spec.ip_families,
            "ipFamilyPolicy": spec.ip_family_policy,
            "internalTrafficPolicy": spec.internal_traffic_policy,
            "sessionAffinity": spec.session_affinity,
            "selector": selector,
            "ports": [port(PORT)],
        },
    }))?)
}

/// A Service of nobody's, as large as a twin, for direct calls beside ours: host-api must leave it alone.
pub(super) fn reference(name: &str, index: usize) -> anyhow::Result<Service> {
    Ok(serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "labels": {"app": name, "example.com/cluster": "reference", "app.kubernetes.io/managed-by": "sync-bench"},
            "annotations": {
                "example.com/name": name,
                "example.com/namespace": VIRTUAL_NAMESPACE,
                "example.com/uid": "00000000-0000-0000-0000-000000000000",
                "example.com/virtual-cluster": "00000000-0000-0000-0000-000000000000",
            },
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": free_address(index),
            "selector": {"app": name, "example.com/cluster": "reference", "example.com/namespace": VIRTUAL_NAMESPACE},
            "ports": [port(PORT)],
        },
    }))?)
}

/// A LoadBalancer Service of the tenant, without node ports.
pub(super) fn balancer(name: &str) -> anyhow::Result<Service> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
            "selector": {"app": name}, "ports": [port(PORT)],
        },
    }))?)
}

/// The change of an update, for either kind.
pub(super) fn update() -> Value {
    json!({"spec": {"ports": [port(NEW_PORT)]}})
}

/// The upper half of the host's range, of which the virtual cluster draws nothing.
fn free_address(index: usize) -> String {
    format!("10.43.{}.{}", 128 + index / 250, 1 + index % 250)
}

fn port(number: i32) -> Value {
    json!({"protocol": "TCP", "port": number, "targetPort": 8080})
}
