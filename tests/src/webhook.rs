//! The webhook configuration as it is shipped, with a URL where there is no Service network.

use anyhow::{Context, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::manifest;
use crate::product::HostApi;

/// Name of the configuration.
pub const NAME: &str = "k3k-expose";

/// Makes the API server ask this host-api about server pods.
///
/// # Errors
/// When the API server refuses, or the manifests are not as they should be.
pub async fn install(host: &Client, host_api: &HostApi) -> anyhow::Result<()> {
    apply(host, host_api, shipped()?).await
}

/// The same, and about labels of tenants' pods as on hosts that need it.
///
/// # Errors
/// As [`install`].
pub async fn install_with_labels(host: &Client, host_api: &HostApi) -> anyhow::Result<()> {
    let mut configuration = shipped()?;
    configuration["webhooks"].as_array_mut().context("a configuration has webhooks")?.push(labels()?);
    apply(host, host_api, configuration).await
}

async fn apply(host: &Client, host_api: &HostApi, mut configuration: Value) -> anyhow::Result<()> {
    let ca = ByteString(host_api.ca_pem().into_bytes());
    for webhook in configuration["webhooks"].as_array_mut().context("a configuration has webhooks")? {
        let service = webhook["clientConfig"]["service"].take();
        ensure!(service["name"] == "k3k-expose-host-api", "asks {service}");
        let path = service["path"].as_str().context("a path")?;
        webhook["clientConfig"] = json!({"url": format!("{}{path}", host_api.admission_url()), "caBundle": ca});
    }
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

/// The configuration of the base.
fn shipped() -> anyhow::Result<Value> {
    let documents = manifest::documents(&manifest::text("base/webhooks.yaml")?)?;
    let is_it = |object: &DynamicObject| object.metadata.name.as_deref() == Some(NAME);
    let found = documents.into_iter().find(is_it).with_context(|| format!("no object {NAME}"))?;
    Ok(serde_json::to_value(found)?)
}

/// The webhook that an overlay adds.
fn labels() -> anyhow::Result<Value> {
    let patch: Value = serde_saphyr::from_str(&manifest::text("overlays/label-webhook/webhook.yaml")?)?;
    ensure!(patch[0]["path"] == "/webhooks/-", "the first operation appends a webhook");
    Ok(patch[0]["value"].clone())
}
