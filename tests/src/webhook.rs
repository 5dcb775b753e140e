//! The webhook configuration, with a URL where there is no Service network.

use anyhow::Context;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::product::HostApi;

/// Name of the configuration.
pub const NAME: &str = "k3k-expose";

/// Makes the API server ask this host-api about pods.
///
/// # Errors
/// When the API server refuses.
pub async fn install(host: &Client, host_api: &HostApi) -> anyhow::Result<()> {
    let ca = host_api.ca_pem();
    let client = |path: &str| {
        json!({"url": format!("{}{path}", host_api.admission_url()),
            "caBundle": k8s_openapi::ByteString(ca.clone().into_bytes())})
    };
    let hook = |name: &str, path: &str, operations: &[&str], conditions: Value| {
        json!({
            "name": name, "clientConfig": client(path), "matchConditions": conditions,
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": operations,
                "scope": "Namespaced"}],
            "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Ignore", "timeoutSeconds": 3,
        })
    };
    let creators = "request.userInfo.username in ['system:serviceaccount:kube-system:statefulset-controller', \
                    'system:kube-controller-manager']";
    let controlled = "has(object.metadata.ownerReferences) && object.metadata.ownerReferences.exists(it, \
                      it.kind == 'Cluster' && it.apiVersion.startsWith('k3k.io/'))";
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": NAME},
        "webhooks": [
            hook("inject.expose.k3k.io", "/v1/inject", &["CREATE"],
                json!([{"name": "created-by-statefulset-controller", "expression": creators}])),
            hook("label.expose.k3k.io", "/v1/label", &["CREATE", "UPDATE"],
                json!([{"name": "controlled-by-a-cluster", "expression": controlled}])),
        ],
    });
    let all: Api<MutatingWebhookConfiguration> = Api::all(host.clone());
    let params = PatchParams::apply("k3k-expose-rig").force();
    all.patch(NAME, &params, &Patch::Apply(configuration)).await.context("the webhook configuration")?;
    Ok(())
}

/// Takes it away again.
///
/// # Errors
/// When it is not there.
pub async fn remove(host: &Client) -> anyhow::Result<()> {
    let all: Api<MutatingWebhookConfiguration> = Api::all(host.clone());
    all.delete(NAME, &DeleteParams::default()).await?;
    Ok(())
}
