//! host-api's certificates: its own, which all replicas share and renew in time, and those of somebody else.
//!
//! Time is real here, so lives are as short as they may be: a certificate lives 20 s and an authority 60 s, by the same rules as
//! 90 days and a year.

mod handshake;
mod rotation;

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::k3k::{self, Tenant, TenantOptions};
use k3k_expose_tests::product::{HostApi, HostApiOptions};
use k3k_expose_tests::tls::Authority;
use k3k_expose_tests::wire::{WireSession, hello};
use k3k_expose_tests::{ControlPlane, PlaneOptions, Rig, took, webhook};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::time::Instant;

use crate::observe::headless;
use crate::world::SOON;
use handshake::{handshake, shown_to_anybody};

/// Files are looked at this often.
const LOOK: Duration = Duration::from_secs(10);

/// A host-api that makes its own certificates, with more variables.
fn own(env: &[(&str, &str)]) -> HostApiOptions {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    HostApiOptions { env, own_certificates: true }
}

async fn bare_host(name: &str) -> Result<ControlPlane> {
    let host = ControlPlane::start(PlaneOptions::new(name).without_controllers()).await?;
    k3k::install(&host.client().await?).await?;
    Ok(host)
}

/// The bundle that stands in the Secret.
async fn bundle(client: &Client) -> Result<String> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "k3k-expose");
    let data = secrets.get("k3k-expose-host-api-tls").await?.data.context("a Secret has data")?;
    Ok(String::from_utf8(data.get("ca.crt").context("a bundle")?.0.clone())?)
}

fn authorities(bundle: &str) -> usize {
    bundle.matches("BEGIN CERTIFICATE").count()
}

#[tokio::test]
async fn two_replicas_that_start_at_once_end_with_one_authority_that_the_webhooks_trust() -> Result<()> {
    let host = bare_host("certificates").await?;
    let client = host.client().await?;
    let elects =
        [("K3K_EXPOSE_LEADER_ELECTION", "true"), ("K3K_EXPOSE_LEASE_SECONDS", "3"), ("K3K_EXPOSE_LOG", "trace")];
    let (one, other) = tokio::try_join!(HostApi::start(&host, own(&elects)), HostApi::start(&host, own(&elects)))?;
    let bundle = bundle(&client).await?;
    assert_eq!(authorities(&bundle), 1);
    let mut seen = Vec::new();
    for port in [one.url(), one.admission_url(), other.url(), other.admission_url()] {
        seen.push(handshake(&port, &bundle).await.with_context(|| port.clone())?);
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "all four ports show one certificate");

    // With an authority that nobody has, until host-api puts it right.
    webhook::install_with_labels(&client, &one).await?;
    let all: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let before = all.get(webhook::NAME).await?;
    let began = Instant::now();
    let after = eventually("the webhooks trust host-api", SOON, async || {
        let configuration = all.get(webhook::NAME).await?;
        let mut bundles = configuration.webhooks.iter().flatten().map(|webhook| &webhook.client_config.ca_bundle);
        ensure!(bundles.all(|told| told.as_ref().is_some_and(|told| told.0 == bundle.as_bytes())), "not yet");
        anyhow::Ok(configuration)
    })
    .await?;
    took("caBundle put right", began.elapsed(), Duration::from_secs(1));
    let rest = |mut configuration: MutatingWebhookConfiguration| {
        configuration.webhooks.iter_mut().flatten().for_each(|webhook| webhook.client_config.ca_bundle = None);
        configuration.webhooks
    };
    assert_eq!(rest(before), rest(after), "nothing else was changed");
    // As it is, and as a Secret has it.
    for marker in ["PRIVATE KEY", "LS0tLS1CRUdJTiBQUklWQVRFIEtFW"] {
        for replica in [&one, &other] {
            assert!(!replica.log_lines()?.iter().any(|line| line.contains(marker)), "a key is in the log");
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_expired_certificate_is_shown_to_nobody_and_renewed_as_soon_as_that_is_possible() -> Result<()> {
    let host = bare_host("expiry-tls").await?;
    let client = host.client().await?;
    let lives = [("K3K_EXPOSE_CERTIFICATE_SECONDS", "10"), ("K3K_EXPOSE_AUTHORITY_SECONDS", "600")];
    let host_api = HostApi::start(&host, own(&lives)).await?;
    let ports = [host_api.url(), host_api.admission_url()];
    for port in &ports {
        ensure!(shown_to_anybody(port).await?.is_some(), "{port} shows nothing");
    }
    host.kill_api_server().await?;
    eventually("no certificate to show", Duration::from_secs(100), async || {
        for port in &ports {
            // Even to those who would take it.
            if let Some(left) = shown_to_anybody(port).await? {
                assert!(left >= -1, "{port} showed what had expired {left} s before");
                anyhow::bail!("{left} s are left");
            }
        }
        anyhow::Ok(())
    })
    .await?;
    host.start_api_server().await?;
    let began = Instant::now();
    eventually("a new certificate", Duration::from_secs(100), async || {
        let bundle = bundle(&client).await?;
        for port in &ports {
            handshake(port, &bundle).await?;
        }
        anyhow::Ok(())
    })
    .await?;
    took("a certificate after the API server was back", began.elapsed(), Duration::from_secs(10));
    Ok(())
}

#[tokio::test]
async fn files_of_somebody_else_are_read_again_when_their_bytes_change_and_no_session_notices() -> Result<()> {
    let host = Rig::shared().host().await?;
    let host_api = HostApi::start(host, HostApiOptions::default()).await?;
    let client = host.client().await?;
    let tenant = Tenant::create(&client, "host-files", "mine", TenantOptions::default()).await?;
    let token = tenant.server_pod_token(0).await?;
    let mut session = WireSession::open(&host_api, &token, hello("vc", &[])?).await?.0;
    let (url, first) = (host_api.url(), host_api.ca_pem());
    let before = handshake(&url, &first).await?;

    let files = host_api.files();
    fs::write(&files.certificate, "half of a")?;
    eventually("a warning of files that cannot be used", LOOK * 10, async || {
        let lines = host_api.log_lines()?;
        ensure!(lines.iter().any(|line| line.contains("cannot be used yet")), "none");
        anyhow::Ok(())
    })
    .await?;
    assert_eq!(handshake(&url, &first).await?, before, "the last good one is still shown");

    let second = Authority::new("k3k-expose rig other host-api")?;
    let folder = files.certificate.parent().context("a file lies in a folder")?;
    second.write_server_files(folder)?;
    let began = Instant::now();
    let after = eventually("the other certificate", LOOK * 10, async || handshake(&url, &second.pem()).await).await?;
    took("other files were read", began.elapsed(), LOOK);
    assert_ne!(before, after);
    assert!(handshake(&url, &first).await.is_err(), "the first authority does not vouch for it");

    let put = headless("web")?;
    session.send_snapshot(std::slice::from_ref(&put)).await?;
    session.settled(&put).await?;
    Ok(())
}
