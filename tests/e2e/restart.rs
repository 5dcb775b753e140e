//! A restart of either product with everything in sync costs bytes, never a write.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use k3k_expose_tests::audit::{AuditLog, Entry, Mark};
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::k3k::{self, TenantOptions};
use k3k_expose_tests::product::{ADMIN_USER, AGENT_USER, HOST_API_USER, HostApi, HostApiOptions};
use k3k_expose_tests::rig::virtual_options;
use k3k_expose_tests::{ControlPlane, PlaneOptions, told, took};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;
use tokio::time::Instant;

use crate::observe::{create_all, equal, metric, outcomes, session_up};
use crate::world::{World, create, service};

const COUNT: usize = 1_000;
const LONG: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_restart_with_a_thousand_services_in_sync_writes_nothing() -> Result<()> {
    // A host of its own: other tests would hold some of a thousand addresses.
    let (host, plane) = tokio::try_join!(
        ControlPlane::start(PlaneOptions::new("restart-host").without_controllers()),
        ControlPlane::start(virtual_options("restart").without_controllers()),
    )?;
    k3k::install(&host.client().await?).await?;
    let host_api = HostApi::start(&host, HostApiOptions::default()).await?;
    let plane = Arc::new(plane);
    let world = World::on(&host, &host_api, Arc::clone(&plane), "restart", TenantOptions::default()).await?;
    let services = world.namespace("first").await?;
    create_all(&services, (0..COUNT).map(numbered).collect()).await?;
    outcomes(&world.agent, "applied", COUNT, LONG).await?;
    assert_eq!(equal(&world.virtual_cluster, &world.tenant).await?, COUNT);
    eventually("all are told", LONG, async || {
        let all = services.list(&ListParams::default()).await?.items;
        let told = all.iter().filter(|one| told::synced(one).is_some_and(|said| said.status == "True")).count();
        ensure!(told == COUNT, "{told}");
        anyhow::Ok(())
    })
    .await?;

    let (on_host, on_virtual) = (host.audit(), plane.audit());
    let marks = (on_host.mark().await?, on_virtual.mark().await?);
    world.agent.restart().await?;
    let began = Instant::now();
    in_sync(&world).await?;
    took("a restarted agent in sync", began.elapsed(), Duration::from_secs(3));
    fence(&world, &services, "fence-agent").await?;
    assert_eq!(written(&on_host, marks.0).await?, [], "by a restart of the agent, on the host");
    assert_eq!(written(&on_virtual, marks.1).await?, [], "by a restart of the agent, in the virtual cluster");

    let snapshot = "k3k_expose_agent_stream_bytes_total{direction=\"sent\"}";
    let before = metric(&world.agent, snapshot).await?;
    host_api.restart().await?;
    let began = Instant::now();
    eventually("all said again to the new host-api", LONG, async || {
        let sent = metric(&world.agent, snapshot).await? - before;
        ensure!(sent > 100.0 * 1_000.0, "{sent} bytes");
        anyhow::Ok(())
    })
    .await?;
    in_sync(&world).await?;
    took("a restarted host-api in sync", began.elapsed(), Duration::from_secs(6));
    fence(&world, &services, "fence-host-api").await?;
    assert_eq!(written(&on_host, marks.0).await?, [], "by a restart of host-api, on the host");
    assert_eq!(written(&on_virtual, marks.1).await?, [], "by a restart of host-api, in the virtual cluster");
    assert_eq!(equal(&world.virtual_cluster, &world.tenant).await?, COUNT + 2);
    Ok(())
}

async fn in_sync(world: &World) -> Result<()> {
    session_up(&world.agent).await?;
    world.agent.wait_ok("/syncz", LONG).await
}

/// A Service made after a restart: when it is told, whatever the restart led to was written before.
async fn fence(world: &World, services: &Api<Service>, name: &str) -> Result<()> {
    let fence = create(services, &numbered_as(name, 3)).await?;
    world.applied(&fence).await.map(drop)
}

/// What either product wrote since the mark, but for the fences.
async fn written(audit: &AuditLog, mark: Mark) -> Result<Vec<Entry>> {
    let ours = |user: &str| [HOST_API_USER, AGENT_USER, ADMIN_USER].contains(&user);
    let counted = audit.writes_since(mark, ours).await?.counted;
    Ok(counted.into_iter().filter(|entry| !entry.name.starts_with("fence")).collect())
}

/// One of a mix: mostly plain, some headless, some with more than one port.
fn numbered(number: usize) -> Service {
    numbered_as(&format!("web-{number}"), number)
}

fn numbered_as(name: &str, number: usize) -> Service {
    let mut spec = json!({"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]});
    match number % 10 {
        0 => spec["clusterIP"] = json!("None"),
        1 => spec["sessionAffinity"] = json!("ClientIP"),
        2 => spec["ports"] = json!([{"name": "a", "port": 53, "protocol": "UDP"}, {"name": "b", "port": 53}]),
        _ => {}
    }
    service(name, spec)
}
