//! What absence means: deletions made while the agent was away follow, those of a reset or emptied cluster do not.

use std::time::Duration;

use anyhow::{Result, ensure};
use k3k_expose_tests::Rig;
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::k3k::TenantOptions;
use k8s_openapi::api::core::v1::Service;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::observe::{create_all, equal, event, metric, outcomes, session_up, twins, virtual_uid, world, writes};
use crate::world::{SOON, World, service};

/// One more than an empty snapshot may take away by itself.
const STANDING: usize = 11;
const ALLOW: &str = "expose.k3k.io/allow-mass-delete";

#[tokio::test]
async fn services_deleted_while_the_agent_was_down_lose_their_twins_and_an_emptied_cluster_loses_none() -> Result<()> {
    let world = world("guard", TenantOptions::default()).await?;
    let audit = Rig::shared().host().await?.audit();
    let services = world.namespace("first").await?;
    create_all(&services, headless(STANDING + 2)).await?;
    outcomes(&world.agent, "applied", STANDING + 2, SOON).await?;

    let mark = audit.mark().await?;
    world.agent.kill().await?;
    for number in [3, 5] {
        services.delete(&format!("web-{number}"), &DeleteParams::default()).await?;
    }
    world.agent.restart().await?;
    session_up(&world.agent).await?;
    in_sync(&world, STANDING).await?;
    let written = writes(&audit, mark, &world.tenant.namespace).await?;
    assert!(written.len() == 2 && written.iter().all(|entry| entry.verb == "delete"), "{written:?}");

    let mark = audit.mark().await?;
    world.agent.kill().await?;
    delete_all(&services).await?;
    world.agent.restart().await?;
    session_up(&world.agent).await?;
    let note = event(&world.host, &world.tenant, "VirtualClusterEmptied").await?;
    let uid = virtual_uid(&world.virtual_cluster).await?;
    assert!(note.contains(&format!("{ALLOW}={uid}")), "{note}");
    assert!(notices("VirtualClusterEmptied").await? >= 1.0);
    let written = writes(&audit, mark, &world.tenant.namespace).await?;
    assert!(written.is_empty(), "{written:?}");
    assert_eq!(twins(&world.tenant).await?.len(), STANDING);

    // Another cluster's UID lets nothing through, and new Services follow meanwhile.
    world.tenant.annotate_cluster(ALLOW, Some("another")).await?;
    create_all(&services, vec![named("later")]).await?;
    outcomes(&world.agent, "applied", 1, SOON).await?;
    assert_eq!(twins(&world.tenant).await?.len(), STANDING + 1);
    world.tenant.annotate_cluster(ALLOW, Some(&uid)).await?;
    in_sync(&world, 1).await
}

#[tokio::test]
async fn a_reset_cluster_deletes_and_changes_nothing_until_the_platform_team_lets_it() -> Result<()> {
    let rig = Rig::shared();
    let audit = rig.host().await?.audit();
    let world = world("reset", TenantOptions::default()).await?;
    let services = world.namespace("first").await?;
    create_all(&services, headless(STANDING)).await?;
    outcomes(&world.agent, "applied", STANDING, SOON).await?;
    let before = twins(&world.tenant).await?;

    let mark = audit.mark().await?;
    world.plane.reset().await?;
    world.agent.renew_kubeconfig(&world.plane)?;
    let uid = virtual_uid(&world.virtual_cluster).await?;
    let note = event(&world.host, &world.tenant, "VirtualClusterEmptied").await?;
    assert!(note.contains(&format!("{ALLOW}={uid}")), "{note}");
    let services = world.namespace("first").await?;
    create_all(&services, vec![named("web-0"), named("new")]).await?;
    outcomes(&world.agent, "applied", 1, SOON).await?;
    outcomes(&world.agent, "rejected", 1, SOON).await?;
    event(&world.host, &world.tenant, "WrongVirtualCluster").await?;
    assert!(notices("WrongVirtualCluster").await? >= 1.0);
    let written = writes(&audit, mark, &world.tenant.namespace).await?;
    assert!(written.len() == 1 && written[0].verb == "create", "{written:?}");
    let after = twins(&world.tenant).await?;
    for (name, twin) in &before {
        assert_eq!(after[name].resource_version(), twin.resource_version(), "{name}");
    }

    world.tenant.annotate_cluster(ALLOW, Some(&uid)).await?;
    in_sync(&world, 2).await
}

/// Waits until exactly so many virtual Services have exactly their twins.
async fn in_sync(world: &World, count: usize) -> Result<()> {
    eventually("as many twins as Services", Duration::from_secs(30), async || {
        let found = equal(&world.virtual_cluster, &world.tenant).await?;
        ensure!(found == count, "{found}");
        anyhow::Ok(())
    })
    .await
}

async fn notices(reason: &str) -> Result<f64> {
    let series = format!("k3k_expose_host_api_notices_total{{reason=\"{reason}\"}}");
    metric(Rig::shared().host_api().await?, &series).await
}

async fn delete_all(services: &Api<Service>) -> Result<()> {
    for service in services.list(&kube::api::ListParams::default()).await? {
        services.delete(&service.name_any(), &DeleteParams::default()).await?;
    }
    Ok(())
}

fn headless(count: usize) -> Vec<Service> {
    (0..count).map(|number| named(&format!("web-{number}"))).collect()
}

/// A Service without numbers, so that nobody else can hold them.
fn named(name: &str) -> Service {
    service(name, json!({"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"port": 80}]}))
}
