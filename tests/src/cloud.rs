//! The cloud's part: what a load-balancer controller writes into the status of a Service.

use anyhow::Context;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

/// The field manager of the cloud.
const FIELD_MANAGER: &str = "cloud";

/// Gives a Service these load-balancer entries, for example `[{"ip": "192.0.2.1"}]`; an empty list takes all away.
///
/// # Errors
/// When the API server refuses, as it does on every type but LoadBalancer.
pub async fn set_ingress(services: &Api<Service>, name: &str, entries: &Value) -> anyhow::Result<Service> {
    patch(services, name, &Patch::Merge(json!({"status": {"loadBalancer": {"ingress": entries}}}))).await
}

/// Sets one condition beside those that stand.
///
/// # Errors
/// When the API server refuses.
pub async fn set_condition(
    services: &Api<Service>,
    name: &str,
    condition: &str,
    status: &str,
    reason: &str,
) -> anyhow::Result<Service> {
    let condition = json!({
        "type": condition, "status": status, "reason": reason, "message": "said by the test",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    patch(services, name, &Patch::Strategic(json!({"status": {"conditions": [condition]}}))).await
}

async fn patch(services: &Api<Service>, name: &str, patch: &Patch<Value>) -> anyhow::Result<Service> {
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    services.patch_status(name, &params, patch).await.with_context(|| format!("status of {name} as the cloud"))
}
