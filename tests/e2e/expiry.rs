//! A session ends before its token does, and its successor is there before that.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use k3k_expose_proto::message::ByeReason;
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::k3k::{Tenant, TenantOptions};
use k3k_expose_tests::product::{Agent, AgentOptions};
use k3k_expose_tests::wire::{WireSession, hello};
use k3k_expose_tests::{ControlPlane, Rig, token};
use kube::Api;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::observe::{create_all, metric, outcomes, session_up, virtual_cluster, writes};
use crate::world::{SOON, service};

#[tokio::test]
async fn a_session_ends_a_minute_before_its_token() -> Result<()> {
    let rig = Rig::shared();
    let host = rig.host().await?;
    let tenant = Tenant::create(&host.client().await?, "host-expiry", "mine", TenantOptions::default()).await?;
    // It may have to be built first, and the token lives for a minute only.
    let host_api = rig.host_api().await?;
    let token = lasting(host, &tenant.server_pod_token(0).await?, 63).await?;
    let began = Instant::now();
    let (mut session, welcome) = WireSession::open(host_api, &token, hello("vc", &[])?).await?;
    assert!((1..=3).contains(&welcome.ends_in_s), "{welcome:?}");
    assert_eq!(session.bye().await?.reason, ByeReason::Expired);
    let lasted = began.elapsed();
    assert!(lasted < Duration::from_secs(60), "the token itself may have ended it after {lasted:?}");
    Ok(())
}

#[tokio::test]
async fn an_agent_renews_its_session_before_it_ends_and_says_nothing_again() -> Result<()> {
    let rig = Rig::shared();
    let (host, host_api) = (rig.host().await?, rig.host_api().await?);
    let client = host.client().await?;
    let tenant = Tenant::create(&client, "host-renewal", "mine", TenantOptions::default()).await?;
    let plane = virtual_cluster("renewal").await?;
    let services = Api::namespaced(plane.client().await?, "default");
    let spec = json!({"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"port": 80}]});
    create_all(&services, (0..20).map(|number| service(&format!("web-{number}"), spec.clone())).collect()).await?;

    let good = tenant.server_pod_token(0).await?;
    let short = lasting(host, &good, 70).await?;
    let agent = Agent::start(&plane, host_api, &short, AgentOptions::in_pod(&tenant.server_pod_name(0))).await?;
    session_up(&agent).await?;
    agent.token_file().write(&good)?;
    outcomes(&agent, "applied", 20, SOON).await?;
    let sent = "k3k_expose_agent_stream_bytes_total{direction=\"sent\"}";
    let (before, audit) = (metric(&agent, sent).await?, host.audit());
    let mark = audit.mark().await?;
    eventually("the renewal", SOON, async || {
        let up = metric(&agent, "k3k_expose_agent_session_up").await?;
        assert!(up > 0.5, "there was a moment without a session");
        ensure!(metric(&agent, "k3k_expose_agent_sessions_total{result=\"renewed\"}").await? > 0.5, "not yet");
        Ok(())
    })
    .await?;
    outcomes(&agent, "applied", 20, SOON).await?;
    let cost = metric(&agent, sent).await? - before;
    assert!(cost < 1_000.0, "a renewal with nothing changed cost {cost} bytes");
    assert_eq!(writes(&audit, mark, &tenant.namespace).await?, []);
    Ok(())
}

/// The same token with so many seconds left, as nobody would mint it: the API server's least is ten minutes.
async fn lasting(host: &ControlPlane, token: &str, seconds: i64) -> Result<String> {
    let mut claims = token::claims(token)?;
    let now = claims["iat"].as_i64().context("a token says when it was issued")?;
    claims["exp"] = json!(now + seconds);
    claims["jti"] = json!(format!("{:016x}", fastrand::u64(..)));
    let header = token.split('.').next().context("a token has a header")?;
    let header: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(header)?)?;
    let key = header["kid"].as_str().context("a token names its key")?;
    token::sign(host.service_account_key_path(), key, &claims).await
}
