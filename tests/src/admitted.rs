//! What the platform team of a host admits of the Clusters in one namespace.

use kube::Client;
use serde_json::{Value, json};

use crate::manifest;

/// Applies an `ExposurePolicy` with this `spec.allow`, of the namespace's name. It counts a moment later.
///
/// # Errors
/// When the API server refuses.
pub async fn admit(host: &Client, namespace: &str, allow: &Value) -> anyhow::Result<()> {
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
    let policy = json!({
        "apiVersion": "expose.k3k.io/v1alpha1", "kind": "ExposurePolicy",
        "metadata": {"name": namespace},
        "spec": {"namespaceSelector": selector, "allow": allow},
    });
    // JSON is YAML.
    manifest::apply(host, &policy.to_string()).await
}
