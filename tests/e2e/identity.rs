//! Who is refused before the stream and by which word, and how a session ends with whom it spoke for.

use anyhow::{Context, Result, ensure};
use k3k_expose_proto::message::ByeReason;
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::k3k::{HostPod, Mode, Tenant, TenantOptions};
use k3k_expose_tests::product::{Agent, AgentOptions};
use k3k_expose_tests::token::{self, AUDIENCE, TokenWish};
use k3k_expose_tests::wire::{Problem, WireSession, hello};
use k3k_expose_tests::{Rig, took};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Client, ResourceExt};
use std::time::Duration;
use tokio::time::Instant;

use crate::observe::{event, metric, session_up, virtual_cluster};
use crate::world::SOON;

const REFUSED: &str = "k3k_expose_agent_sessions_total{result=\"refused\"}";

#[tokio::test]
async fn a_token_that_proves_no_living_pod_is_refused_by_its_own_reason() -> Result<()> {
    let host = Rig::shared().host().await?;
    let client = host.client().await?;
    let tenant = Tenant::create(&client, "host-tokens", "mine", TenantOptions::default()).await?;
    let good = tenant.server_pod_token(0).await?;
    let unbound = TokenWish { audiences: vec![AUDIENCE.to_owned()], seconds: 3600, pod: None };
    let table = [
        (String::new(), 401, "TokenMissing"),
        ("no.token.at-all".to_owned(), 401, "TokenRejected"),
        (token::expired(host, &good).await?, 401, "TokenExpired"),
        (tenant.pod_token(&tenant.server_pod_name(0), "somebody-else").await?, 401, "WrongAudience"),
        (token::request(&client, &tenant.namespace, "default", unbound).await?, 403, "NotAServerPod"),
    ];
    for (token, status, reason) in table {
        assert_eq!(refusal(&token).await?, (status, reason.to_owned()));
    }
    WireSession::open(Rig::shared().host_api().await?, &good, hello("vc", &[])?).await.context("the good token")?;

    tenant.set_pod_phase(&tenant.server_pod_name(0), "Succeeded").await?;
    assert_eq!(refusal(&good).await?, (403, "PodGone".to_owned()));
    // The API server believes the token for some seconds after the pod went; what it says then decides only the word.
    tenant.delete_pod(&tenant.server_pod_name(0)).await?;
    let (_, reason) = refusal(&good).await?;
    assert!(["PodGone", "TokenRejected"].contains(&reason.as_str()), "{reason}");
    tenant.create_server_pod(0).await?;
    let (_, reason) = refusal(&good).await?;
    assert!(["PodGone", "TokenRejected"].contains(&reason.as_str()), "a namesake of the pod: {reason}");
    Ok(())
}

#[tokio::test]
async fn a_pod_that_is_no_server_of_a_shared_mode_cluster_is_refused_whatever_it_wears() -> Result<()> {
    let client = Rig::shared().host().await?.client().await?;
    let tenant = Tenant::create(&client, "host-pods", "mine", TenantOptions::default()).await?;
    let set = Tenant::stateful_set_reference(&tenant.stateful_set, &tenant.stateful_set_uid);
    let lonely = reference(&tenant, "lonely", None).await?;
    let second = reference(&tenant, "second", Some(tenant.owner_reference(true))).await?;
    let passenger = OwnerReference { controller: None, ..set.clone() };
    let table = [
        ("in-costume", vec![]),
        ("k3k-mine-server-x", vec![set.clone()]),
        ("k3k-mine-server-1", vec![set.clone()]),
        ("k3k-mine-server-00", vec![set.clone()]),
        ("elsewhere-0", vec![set]),
        ("k3k-mine-server-2", vec![passenger]),
        ("tenant-pod-0", vec![tenant.owner_reference(true)]),
        ("lonely-0", vec![lonely]),
        ("second-0", vec![second]),
    ];
    for (name, owners) in table {
        let labels = tenant.server_labels();
        tenant.create_pod(HostPod { name: name.to_owned(), labels, owners, ..HostPod::default() }).await?;
        let token = tenant.pod_token(name, AUDIENCE).await?;
        assert_eq!(refusal(&token).await?, (403, "NotAServerPod".to_owned()), "{name}");
    }
    for (cluster, mode) in [("inside", Mode::Virtual), ("hosted", Mode::Hcp)] {
        let tenant = unsupported(&client, cluster, mode).await?;
        let token = tenant.server_pod_token(0).await?;
        assert_eq!(refusal(&token).await?, (403, "UnsupportedMode".to_owned()), "{cluster}");
        let note = event(&client, &tenant, "UnsupportedMode").await?;
        assert!(note.contains("shared mode"), "{note}");
    }
    Ok(())
}

#[tokio::test]
async fn an_agent_that_is_refused_stays_up_says_each_reason_once_and_retries_slowly() -> Result<()> {
    let rig = Rig::shared();
    let client = rig.host().await?.client().await?;
    let tenant = unsupported(&client, "refused", Mode::Virtual).await?;
    let good = Tenant::create(&client, "host-refused", "mine", TenantOptions::default()).await?;
    good.create_pod(HostPod { name: "in-costume".to_owned(), labels: good.server_labels(), ..HostPod::default() })
        .await?;
    let (virtual_mode, costume) = (tenant.server_pod_token(0).await?, good.pod_token("in-costume", AUDIENCE).await?);
    let plane = virtual_cluster("quiet").await?;
    let began = Instant::now();
    let options = AgentOptions::in_pod(&tenant.server_pod_name(0));
    let agent = Agent::start(&plane, rig.host_api().await?, &virtual_mode, options).await?;
    agent.wait_ready().await?;
    eventually("a second refusal", SOON, async || {
        let tries = metric(&agent, REFUSED).await?;
        ensure!(tries >= 2.0, "{tries}");
        anyhow::Ok(())
    })
    .await?;
    agent.token_file().write(&costume)?;
    refused_for(&agent, "NotAServerPod").await?;
    agent.token_file().write(&virtual_mode)?;
    refused_for(&agent, "UnsupportedMode").await?;

    let lines = agent.log_lines()?;
    let said = |reason: &str| lines.iter().filter(|line| line.contains(reason)).count();
    assert_eq!((said("UnsupportedMode"), said("NotAServerPod")), (1, 1), "{lines:#?}");
    assert!(said("exposure is not available") == 1, "the reason comes in words: {lines:#?}");
    let tries = metric(&agent, REFUSED).await?;
    let at_most = 5.0 * began.elapsed().as_secs_f64();
    assert!(tries <= at_most.max(5.0), "{tries} tries in {:?}", began.elapsed());
    assert!(agent.process().await.exit().is_none());
    assert_eq!(agent.get("/readyz").await?.0, 200);
    let (status, syncz) = agent.get("/syncz").await?;
    assert!(status == 503 && syncz.contains("UnsupportedMode"), "{status} {syncz}");

    agent.token_file().write(&good.server_pod_token(0).await?)?;
    session_up(&agent).await
}

#[tokio::test]
async fn a_session_ends_with_its_pod_and_with_its_cluster() -> Result<()> {
    let rig = Rig::shared();
    let client = rig.host().await?.client().await?;
    let tenant = Tenant::create(&client, "host-ends", "mine", TenantOptions::default()).await?;
    let open = async || {
        let token = tenant.server_pod_token(0).await?;
        let (session, _) = WireSession::open(rig.host_api().await?, &token, hello("vc", &[])?).await?;
        anyhow::Ok(session)
    };
    let mut session = open().await?;
    let began = Instant::now();
    tenant.delete_pod(&tenant.server_pod_name(0)).await?;
    assert_eq!(session.bye().await?.reason, ByeReason::Expired);
    took("end of a session after its pod went", began.elapsed(), Duration::from_secs(1));

    tenant.create_server_pod(0).await?;
    let mut session = open().await?;
    let began = Instant::now();
    tenant.delete_cluster().await?;
    assert_eq!(session.bye().await?.reason, ByeReason::Expired);
    took("end of a session after its Cluster went", began.elapsed(), Duration::from_secs(1));
    Ok(())
}

async fn refusal(token: &str) -> Result<(u16, String)> {
    let host_api = Rig::shared().host_api().await?;
    let problem = match WireSession::open(host_api, token, hello("vc", &[])?).await {
        Err(problem) => problem,
        Ok((_, welcome)) => anyhow::bail!("it was welcomed: {welcome:?}"),
    };
    ensure!(!problem.detail.is_empty() && !problem.detail.starts_with("no problem details"), "{problem}");
    let Problem { status, reason, .. } = problem;
    Ok((status, reason))
}

async fn unsupported(client: &Client, cluster: &str, mode: Mode) -> Result<Tenant> {
    let options = TenantOptions { mode, ..TenantOptions::default() };
    Tenant::create(client, &format!("host-{cluster}-mode"), cluster, options).await
}

async fn reference(tenant: &Tenant, set: &str, owner: Option<OwnerReference>) -> Result<OwnerReference> {
    let made = tenant.create_stateful_set(set, owner, 1).await?;
    Ok(Tenant::stateful_set_reference(set, &made.uid().context("an object has a UID")?))
}

/// Waits until this is what the agent was refused for last.
async fn refused_for(agent: &Agent, reason: &str) -> Result<()> {
    eventually(&format!("a refusal for {reason}"), SOON, async || {
        let (_, syncz) = agent.get("/syncz").await?;
        ensure!(syncz.contains(reason), "{syncz}");
        Ok(())
    })
    .await
}
