//! Watches of what is host-api's own, each by its one name: no other can be read. I/O.

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher as watch;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio::sync::watch::Sender;

use super::drive;
use crate::certificates::{ca_bundle, own};

/// Watches the Secret with the certificates. Never ends.
pub async fn certificates(client: Client, seen: &Sender<own::Seen>) {
    let secrets: Api<Secret> = Api::default_namespaced(client);
    one("certificates", secrets, own::NAME, |secret| {
        seen.send_replace(Some(secret));
    })
    .await;
}

/// Watches the webhook configuration. Never ends.
pub async fn webhooks(client: Client, seen: &Sender<Option<MutatingWebhookConfiguration>>) {
    one("webhooks", Api::all(client), ca_bundle::NAME, |configuration| {
        seen.send_replace(configuration);
    })
    .await;
}

async fn one<K>(what: &'static str, api: Api<K>, name: &str, mut tell: impl FnMut(Option<K>))
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let mut listed = None;
    let mut handle = |event: Event<K>| match event {
        Event::Init => listed = None,
        Event::InitApply(object) => listed = Some(object),
        Event::InitDone => tell(listed.take()),
        Event::Apply(object) => tell(Some(object)),
        Event::Delete(_) => tell(None),
    };
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    drive(what, watch(api, config), &mut handle).await;
}
