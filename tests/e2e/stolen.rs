//! Tokens that outlive what they prove, and tokens that two hold: no old one opens anything, and two never both speak.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k3k_expose_proto::message::{ByeReason, FromAgent};
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::k3k::{Tenant, TenantOptions};
use k3k_expose_tests::wire::{Problem, WireSession, delete, end, hello};
use k3k_expose_tests::{Rig, took};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::time::Instant;

use crate::observe::{headless, twins};
use crate::world::SOON;

/// Within this a token that proves nothing any more must be refused.
const REFUSED: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_cluster_made_again_under_its_old_name_owes_nothing_to_old_tokens() -> Result<()> {
    let rig = Rig::shared();
    let (client, host_api) = (rig.host().await?.client().await?, rig.host_api().await?);
    let old = Tenant::create(&client, "host-again", "mine", TenantOptions::default()).await?;
    let old_token = old.server_pod_token(0).await?;
    let said = vec![headless("web")?];
    let (mut session, _) = WireSession::open(host_api, &old_token, hello("vc", &said)?).await?;
    session.send_snapshot(&said).await?;
    session.settled(&said[0]).await?;
    old.delete_cluster().await?;
    assert_eq!(session.bye().await?.reason, ByeReason::Expired);
    let began = Instant::now();

    // The garbage collector takes along what the old one owned; until then the names are taken.
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), "host-again");
    let pods: Api<Pod> = Api::namespaced(client.clone(), "host-again");
    eventually("the end of what the old Cluster owned", SOON, async || {
        let left = (
            sets.get_opt(&old.stateful_set).await?.is_some(),
            pods.get_opt(&old.server_pod_name(0)).await?.is_some(),
            twins(&old).await?.len(),
        );
        ensure!(left == (false, false, 0), "{left:?}");
        anyhow::Ok(())
    })
    .await?;
    let again = Tenant::create(&client, "host-again", "mine", TenantOptions::default()).await?;
    assert_ne!(again.cluster_uid, old.cluster_uid);
    let mut session = eventually("a session of the new Cluster", SOON, async || {
        let token = again.server_pod_token(0).await?;
        WireSession::open(host_api, &token, hello("vc", &[])?).await.map_err(anyhow::Error::from)
    })
    .await?
    .0;
    session.send_snapshot(&said).await?;
    session.settled(&said[0]).await?;
    let standing = twins(&again).await?;
    assert_eq!(standing.len(), 1);

    // The verdict on the old token is still kept; the pod is looked up all the same.
    let lie = async || -> Result<Problem> {
        match WireSession::open(host_api, &old_token, hello("vc", &[])?).await {
            Err(problem) => Ok(problem),
            Ok((session, _)) => {
                session.send(&FromAgent::End(end(&[]))).await?;
                session.send(&FromAgent::Delete(delete(&said[0]))).await?;
                bail!("the old token opened a session")
            }
        }
    };
    for _ in 0..3 {
        let problem = lie().await?;
        assert!(["PodGone", "TokenRejected", "NotAServerPod"].contains(&problem.reason.as_str()), "{problem}");
    }
    took("the refusal of a token of the Cluster before", began.elapsed(), REFUSED);
    assert_eq!(twins(&again).await?, standing, "twins of the new Cluster");
    Ok(())
}

#[tokio::test]
async fn a_stolen_token_used_from_two_places_leaves_one_session_and_is_soon_slowed_down() -> Result<()> {
    let rig = Rig::shared();
    let (client, host_api) = (rig.host().await?.client().await?, rig.host_api().await?);
    let tenant = Tenant::create(&client, "host-stolen", "mine", TenantOptions::default()).await?;
    let other = Tenant::create(&client, "host-stolen-other", "other", TenantOptions::default()).await?;
    let token = tenant.server_pod_token(0).await?;
    let (mut owner, _) = WireSession::open(host_api, &token, hello("vc", &[])?).await?;
    let began = Instant::now();
    let (mut thief, _) = WireSession::open(host_api, &token, hello("vc", &[])?).await?;
    assert_eq!(owner.bye().await?.reason, ByeReason::Superseded);
    took("the end of the session that was taken over", began.elapsed(), Duration::from_secs(1));
    // The owner comes back, and the thief is out.
    let (mut owner, _) = WireSession::open(host_api, &token, hello("vc", &[])?).await?;
    assert_eq!(thief.bye().await?.reason, ByeReason::Superseded);
    let (_thief, _) = WireSession::open(host_api, &token, hello("vc", &[])?).await?;
    assert_eq!(owner.bye().await?.reason, ByeReason::Superseded);
    let Err(problem) = WireSession::open(host_api, &token, hello("vc", &[])?).await else {
        bail!("they go on for ever");
    };
    assert_eq!((problem.status, problem.reason.as_str()), (429, "TooManyTakeovers"), "{problem}");
    ensure!(problem.retry_after.context("a time to come back")? >= 10);
    // However often it is tried, the host is asked only so often, and others open theirs.
    let mut slowed = false;
    for _ in 0..60 {
        let Err(problem) = WireSession::open(host_api, &token, hello("vc", &[])?).await else { continue };
        slowed |= problem.reason == "TooManyTries";
    }
    assert!(slowed, "sixty tries in a row");
    WireSession::open(host_api, &other.server_pod_token(0).await?, hello("vc", &[])?).await?;
    Ok(())
}
