//! Keeps `caBundle` of the webhook configuration equal to the authorities that vouch for us. I/O but for `due`.
//!
//! Only that field is written, and only where it differs. While others make the certificates it is theirs to fill in.

use std::time::Duration;

use k3k_expose_process::quote::causes;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::api::Patch;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::params;
use crate::watch as watches;

/// The configuration.
pub const NAME: &str = "k3k-expose";
/// Longest wait for one write.
const WRITE: Duration = Duration::from_secs(10);
/// Time until what failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Watches the configuration and puts it right. Never ends.
pub async fn run(client: Client, bundle: watch::Receiver<Option<String>>) {
    let (seen, configuration) = watch::channel(None);
    tokio::join!(watches::own::webhooks(client.clone(), &seen), keep(&client, bundle, configuration));
}

async fn keep(
    client: &Client,
    mut bundle: watch::Receiver<Option<String>>,
    mut configuration: watch::Receiver<Option<MutatingWebhookConfiguration>>,
) {
    loop {
        let wanted = bundle.borrow_and_update().clone();
        let stands = configuration.borrow_and_update().clone();
        let patch = wanted.zip(stands).and_then(|(bundle, stands)| due(&stands, &bundle));
        let failed = match patch {
            None => false,
            Some(patch) => !write(client, &patch).await,
        };
        tokio::select! {
            Ok(()) = bundle.changed() => {}
            Ok(()) = configuration.changed() => {}
            () = sleep(AGAIN), if failed => {}
            else => std::future::pending().await,
        }
    }
}

/// The patch that puts it right, if it is not.
fn due(configuration: &MutatingWebhookConfiguration, bundle: &str) -> Option<Value> {
    let webhooks = configuration.webhooks.as_deref().unwrap_or_default();
    let differs = |stands: Option<&k8s_openapi::ByteString>| stands.is_none_or(|it| it.0 != bundle.as_bytes());
    let wrong = webhooks.iter().filter(|webhook| differs(webhook.client_config.ca_bundle.as_ref()));
    let bundle = k8s_openapi::ByteString(bundle.as_bytes().to_vec());
    let right: Vec<Value> =
        wrong.map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": bundle}})).collect();
    let meta = &configuration.metadata;
    (!right.is_empty())
        .then(|| json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version}, "webhooks": right}))
}

/// Writes it; `false` when that is to be tried again.
async fn write(client: &Client, patch: &Value) -> bool {
    let all: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let params = params::patch();
    // By strategic merge, which knows webhooks by their names and leaves every other field alone.
    let patch = Patch::Strategic(patch);
    let write = all.patch(NAME, &params, &patch);
    match timeout(WRITE, write).await.unwrap_or_else(|_| Err(kube::Error::Service("no answer in time".into()))) {
        Ok(_) => {
            info!("caBundle of the webhooks was put right");
            true
        }
        // It has moved on, or is gone: the watch tells.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => true,
        Err(error) => {
            warn!(error = causes(&error), "caBundle of the webhooks stays wrong, tried again");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_webhooks_whose_bundle_differs_are_named_in_the_patch() {
        let configuration: MutatingWebhookConfiguration = serde_json::from_value(json!({
            "metadata": {"name": NAME, "uid": "u", "resourceVersion": "7"},
            "webhooks": [
                {"name": "right", "clientConfig": {"caBundle": "bmV3"}, "sideEffects": "None", "admissionReviewVersions": []},
                {"name": "stale", "clientConfig": {"caBundle": "b2xk"}, "sideEffects": "None", "admissionReviewVersions": []},
                {"name": "none", "clientConfig": {"url": "https://a"}, "sideEffects": "None", "admissionReviewVersions": []},
            ],
        }))
        .unwrap();
        let expected = json!({"metadata": {"uid": "u", "resourceVersion": "7"}, "webhooks": [
            {"name": "stale", "clientConfig": {"caBundle": "bmV3"}},
            {"name": "none", "clientConfig": {"caBundle": "bmV3"}},
        ]});
        assert_eq!(due(&configuration, "new"), Some(expected));
        let mut right = configuration;
        right.webhooks.as_mut().unwrap().truncate(1);
        assert_eq!(due(&right, "new"), None);
    }
}
