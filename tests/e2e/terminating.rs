//! A twin on its way out, held up by somebody's finalizer, is neither patched nor believed.

use std::slice;
use std::time::Duration;

use anyhow::{Result, ensure};
use k3k_expose_proto::service::ServiceType;
use k3k_expose_proto::{FromAgent, Outcome, Reason};
use k3k_expose_tests::rig::Rig;
use k3k_expose_tests::wire::{WireSession, cluster_ip_service, delete as gone, hello, put};
use k3k_expose_tests::{eventually, took};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

use crate::same::VIRTUAL_UID;
use crate::world::{CLUSTER, SOON, World, change, create, delete, service, tenant};

/// From the end of the finalizer to the new twin, by the event.
const FREED: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_load_balancer_made_again_while_its_twin_is_held_up_has_one_right_twin_at_the_end() -> Result<()> {
    let world = World::shared("follow", CLUSTER).await?;
    let services = world.namespace("held-up").await?;
    let twins = world.tenant.host_services();
    let balancer = |port: u16| json!({"type": "LoadBalancer", "ports": [{"port": port}]});
    let old = world.follows(&create(&services, &service("web", balancer(80))).await?).await?;
    hold(&twins, &old).await?;
    delete(&services, "web").await?;
    create(&services, &service("web", balancer(81))).await?;
    let dying = is_terminating(&twins, &old).await?;
    let wanted = change(&services, "web", json!({"metadata": {"labels": {"second": "yes"}}})).await?;
    // Its own twin shows that the lines before it were taken in.
    let fence = create(&services, &service("fence", balancer(82))).await?;
    world.follows(&fence).await?;
    assert_eq!(json!(twins.get(&old.name_any()).await?), json!(dying), "a dying twin was written");

    let start = Instant::now();
    let_go(&twins, &old).await?;
    let new = world.follows_in_all_but_numbers(&wanted).await?;
    took("the new twin after the end of the old one", start.elapsed(), FREED);
    assert_ne!(new.uid(), old.uid());
    let of_web = twins.list(&Default::default()).await?;
    let of_web = of_web.iter().filter(|twin| twin.annotations().get(VIRTUAL_UID) == wanted.uid().as_ref());
    assert_eq!(of_web.count(), 1);
    Ok(())
}

#[tokio::test]
async fn a_twin_that_is_on_its_way_out_is_never_reported_as_applied() -> Result<()> {
    let rig = Rig::shared();
    let tenant = tenant(&rig.host().await?.client().await?, "host-held-up", CLUSTER).await?;
    let token = tenant.server_pod_token(0).await?;
    let twins = tenant.host_services();
    let of = |uid: &str, port| {
        let mut balancer = cluster_ip_service("web", port)?;
        balancer.service_type = ServiceType::LoadBalancer;
        put("shop", "web", uid, balancer)
    };
    let first = of("first", 80)?;
    let (mut session, _) =
        WireSession::open(rig.host_api().await?, &token, hello("cluster", slice::from_ref(&first))?).await?;
    session.send_snapshot(slice::from_ref(&first)).await?;
    assert_eq!(session.settled(&first).await?.reason, Reason::Applied);
    let old = twins.get(&tenant.twin_name("web", "shop")).await?;
    hold(&twins, &old).await?;

    session.send(&FromAgent::Delete(gone(&first))).await?;
    let dying = is_terminating(&twins, &old).await?;
    let mut last = first.clone();
    for (uid, port) in [("second", 80), ("second", 81), ("third", 80), ("first", 80)] {
        last = of(uid, port)?;
        session.send(&FromAgent::Put(last.clone())).await?;
        // Level-based: an answer to an earlier put may still be on its way, and must not be `applied` either.
        loop {
            let answer = session.answer_for(&last.key).await?;
            assert_eq!((answer.outcome, answer.reason), (Outcome::Pending, Reason::TwinTerminating), "{answer:?}");
            if answer.hash == last.hash && answer.uid == last.uid {
                break;
            }
        }
    }
    assert_eq!(json!(twins.get(&old.name_any()).await?), json!(dying), "a dying twin was written");

    let start = Instant::now();
    let_go(&twins, &old).await?;
    // Not even host-api keeps objects: it asks for this one again.
    ensure!(wanted(&mut session).await?, "host-api did not ask");
    session.send(&FromAgent::Put(last.clone())).await?;
    assert_eq!(session.settled(&last).await?.reason, Reason::Applied);
    took("applied after the end of the old twin", start.elapsed(), FREED);
    let new = twins.get(&old.name_any()).await?;
    assert_ne!(new.uid(), old.uid());
    assert_eq!(new.annotations().get(VIRTUAL_UID).map(String::as_str), Some("first"));
    Ok(())
}

/// Whether host-api asks for an object before it ends the session.
async fn wanted(session: &mut WireSession) -> Result<bool> {
    while let Some(line) = session.next().await? {
        if matches!(line, k3k_expose_proto::FromHost::Want(_)) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn hold(twins: &Api<Service>, twin: &Service) -> Result<()> {
    finalizers(twins, twin, json!(["example.com/balancer"])).await
}

async fn let_go(twins: &Api<Service>, twin: &Service) -> Result<()> {
    finalizers(twins, twin, json!(null)).await
}

async fn finalizers(twins: &Api<Service>, twin: &Service, finalizers: serde_json::Value) -> Result<()> {
    let patch = Patch::Merge(json!({"metadata": {"uid": twin.uid(), "finalizers": finalizers}}));
    twins.patch(&twin.name_any(), &PatchParams::default(), &patch).await?;
    Ok(())
}

async fn is_terminating(twins: &Api<Service>, twin: &Service) -> Result<Service> {
    eventually("the old twin is on its way out", SOON, async || {
        let found = twins.get(&twin.name_any()).await?;
        ensure!(found.uid() == twin.uid() && found.metadata.deletion_timestamp.is_some(), "not yet");
        anyhow::Ok(found)
    })
    .await
}
