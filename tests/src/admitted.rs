//! Policies as the platform team of a host writes them.

use k3k_expose_host_api::policy::resource::ExposurePolicy;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde_json::{Value, json};

/// Applies an `ExposurePolicy` with this `spec`, whole, as `kubectl apply` would: untyped, so that bad ones reach the API server. It
/// counts a moment later.
///
/// # Errors
/// When the API server refuses.
pub async fn apply(host: &Client, name: &str, spec: &Value) -> anyhow::Result<()> {
    let resource = ApiResource::erase::<ExposurePolicy>(&());
    let api: Api<DynamicObject> = Api::all_with(host.clone(), &resource);
    let policy = json!({"apiVersion": ExposurePolicy::api_version(&()), "kind": ExposurePolicy::kind(&()),
        "metadata": {"name": name}, "spec": spec});
    api.patch(name, &PatchParams::apply("platform").force(), &Patch::Apply(policy)).await?;
    Ok(())
}

/// The `spec` of a policy that is about the Clusters of that namespace alone.
#[must_use]
pub fn selecting(namespace: &str, mut spec: Value) -> Value {
    spec["namespaceSelector"] = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
    spec
}

/// The same with this `spec.allow`.
#[must_use]
pub fn of_namespace(namespace: &str, allow: Value) -> Value {
    let mut spec = json!({});
    spec["allow"] = allow;
    selecting(namespace, spec)
}
