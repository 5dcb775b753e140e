//! A `clusters.k3k.io` CRD with the fields that host-api reads, their defaults and their immutability.
//!
//! Fields that are not here are pruned, so a test cannot come to depend on one that we do not claim to read.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, ListParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::{cluster_resource, unless_exists};
use crate::eventually::eventually;

/// Installs the CRD and returns when the API server serves it.
///
/// # Errors
/// When the API server refuses, or does not serve it in time.
pub async fn install_crds(host: &Client) -> anyhow::Result<()> {
    let crd: CustomResourceDefinition = serde_json::from_value(definition())?;
    unless_exists(Api::all(host.clone()).create(&PostParams::default(), &crd).await)?;
    let clusters: Api<DynamicObject> = Api::all_with(host.clone(), &cluster_resource());
    eventually("clusters.k3k.io served", Duration::from_secs(30), async || {
        clusters.list(&ListParams::default().limit(1)).await.map(|_| ())
    })
    .await
}

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "clusters.k3k.io"},
        "spec": {
            "group": "k3k.io",
            "names": {"kind": "Cluster", "listKind": "ClusterList", "plural": "clusters", "singular": "cluster"},
            "scope": "Namespaced",
            "versions": [{
                "name": "v1beta1",
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "required": ["spec"],
                    "properties": {
                        "apiVersion": {"type": "string"},
                        "kind": {"type": "string"},
                        "metadata": {"type": "object"},
                        "spec": spec(),
                        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    },
                }},
            }],
        },
    })
}

fn spec() -> Value {
    json!({
        "type": "object",
        "default": {},
        "properties": {
            "mode": {
                "type": "string",
                "enum": ["shared", "virtual", "hcp"],
                "default": "shared",
                "x-kubernetes-validations": [{"message": "mode is immutable", "rule": "self == oldSelf"}],
            },
            "servers": {"type": "integer", "format": "int32", "default": 1},
            "sync": {
                "type": "object",
                "default": {},
                "properties": {"services": sync_of(true), "ingresses": sync_of(false)},
            },
        },
    })
}

fn sync_of(enabled: bool) -> Value {
    json!({
        "type": "object",
        "default": {"enabled": enabled},
        "properties": {
            "enabled": {"type": "boolean", "default": enabled},
            "selector": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    })
}
