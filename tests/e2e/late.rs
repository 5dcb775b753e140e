//! What happens between the look at who is speaking and the first line counts: a `hello` may come seconds later.

use std::convert::Infallible;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, future, stream};
use k3k_expose_proto::message::{ByeReason, FromAgent, Put};
use k3k_expose_proto::{Reason, line};
use k3k_expose_tests::Rig;
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::k3k::{Tenant, TenantOptions};
use k3k_expose_tests::product::HOST_API_USER;
use k3k_expose_tests::wire::{WireSession, hello};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::observe::headless;
use crate::world::SOON;

#[tokio::test]
async fn a_pod_that_goes_before_its_hello_comes_gets_no_session() -> Result<()> {
    let (tenant, other) = tenants("host-late-pod").await?;
    let mut session = session(&other).await?;
    let answer = late(&tenant, &[], async || {
        tenant.delete_pod(&tenant.server_pod_name(0)).await?;
        // host-api has seen that when it has seen what went after it.
        other.delete_pod(&other.server_pod_name(0)).await?;
        assert_eq!(session.bye().await?.reason, ByeReason::Expired);
        Ok(())
    })
    .await?;
    assert_eq!(answer.status(), 403);
    assert!(answer.text().await?.contains("PodGone"));
    Ok(())
}

#[tokio::test]
async fn a_cluster_that_goes_before_the_hello_comes_gets_no_session() -> Result<()> {
    let (tenant, other) = tenants("host-late-cluster").await?;
    let mut session = session(&other).await?;
    let answer = late(&tenant, &[], async || {
        tenant.delete_cluster().await?;
        other.delete_cluster().await?;
        assert_eq!(session.bye().await?.reason, ByeReason::Expired);
        Ok(())
    })
    .await?;
    assert_eq!(answer.status(), 403);
    // The garbage collector takes the pod along.
    let body = answer.text().await?;
    assert!(body.contains("NotAServerPod") || body.contains("PodGone"), "{body}");
    Ok(())
}

#[tokio::test]
async fn a_cluster_that_changes_before_the_hello_comes_counts_as_it_is_then() -> Result<()> {
    let (tenant, other) = tenants("host-late-sync").await?;
    let mut session = session(&other).await?;
    let said = headless("web")?;
    let answer = late(&tenant, std::slice::from_ref(&said), async || {
        tenant.set_sync_services(true).await?;
        other.set_sync_services(true).await?;
        eventually("the other's Cluster as it is", SOON, async || {
            session.send(&FromAgent::Put(said.clone())).await?;
            let answer = session.answer_for(&said.key).await?;
            ensure!(answer.reason == Reason::Adopting, "{answer:?}");
            anyhow::Ok(())
        })
        .await
    })
    .await?;
    assert_eq!(answer.status(), 200);
    let (mut lines, mut chunks) = (String::new(), answer.bytes_stream());
    while !lines.contains("\"answer\"") {
        let chunk = timeout(SOON, chunks.next()).await?.context("the session ended")??;
        lines.push_str(std::str::from_utf8(&chunk)?);
    }
    assert!(lines.contains("\"Adopting\""), "{lines}");
    let twin = tenant.twin_name("web", "first");
    assert!(tenant.host_services().get_opt(&twin).await?.is_none(), "k3k's own sync is on");
    Ok(())
}

async fn tenants(namespace: &str) -> Result<(Tenant, Tenant)> {
    let client = Rig::shared().host().await?.client().await?;
    let options = TenantOptions::default();
    let tenant = Tenant::create(&client, namespace, "mine", options).await?;
    let other = Tenant::create(&client, &format!("{namespace}-other"), "other", options).await?;
    Ok((tenant, other))
}

async fn session(tenant: &Tenant) -> Result<WireSession> {
    let token = tenant.server_pod_token(0).await?;
    let host_api = Rig::shared().host_api().await?;
    Ok(WireSession::open(host_api, &token, hello("vc-other", &[])?).await?.0)
}

/// Asks for a session, and says `hello` and these only after host-api has looked up who is speaking and `meanwhile` is done.
async fn late(tenant: &Tenant, said: &[Put], meanwhile: impl AsyncFnOnce() -> Result<()>) -> Result<reqwest::Response> {
    let (host, host_api) = (Rig::shared().host().await?, Rig::shared().host_api().await?);
    let mut lines = line::encode(&FromAgent::Hello(hello("vc", said)?))?;
    for put in said {
        lines.extend(line::encode(&FromAgent::Put(put.clone()))?);
    }
    let (say, heard) = oneshot::channel::<Vec<u8>>();
    let body = stream::once(async { Ok::<_, Infallible>(heard.await.unwrap_or_default()) }).chain(stream::pending());
    let authorities = reqwest::Certificate::from_pem_bundle(host_api.ca_pem().as_bytes())?;
    let client = reqwest::Client::builder().tls_certs_only(authorities).http2_prior_knowledge().no_proxy().build()?;
    let request = client
        .post(format!("{}/v1/session", host_api.url()))
        .bearer_auth(tenant.server_pod_token(0).await?)
        .body(reqwest::Body::wrap_stream(body))
        .send();
    let audit = host.audit();
    let mark = audit.mark().await?;
    let meanwhile = async {
        eventually("the look at the Cluster", SOON, async || {
            let looked = audit.since(mark).await?.into_iter().any(|entry| {
                entry.user == HOST_API_USER && entry.resource == "clusters" && entry.namespace == tenant.namespace
            });
            ensure!(looked, "none yet");
            anyhow::Ok(())
        })
        .await?;
        meanwhile().await?;
        say.send(lines).map_err(|_| anyhow::anyhow!("the request ended before its hello"))
    };
    let (answer, said) = future::join(timeout(SOON, request), meanwhile).await;
    said?;
    Ok(answer??)
}
