//! What `/metrics` of both real processes tells of work that was done, and of work that waits.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::exposed;
use k3k_expose_tests::k3k::TenantOptions;
use k3k_expose_tests::product::{HostApi, HostApiOptions, Product};
use k3k_expose_tests::{Rig, took};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::observe::{metric, outcomes, session_up, virtual_cluster};
use crate::world::{SOON, World, change, create, service};

/// Services that are made.
const COUNT: u16 = 20;

/// From the event to the answer, on the average of Services that are made one after another; and as much again until the status
/// shows it. The issue names no figure: half a second is what people do not notice.
const FIGURE: Duration = Duration::from_millis(500);

#[tokio::test]
async fn both_processes_tell_the_documented_metrics_and_count_what_they_did() -> Result<()> {
    let host = Rig::shared().host().await?;
    let host_api = HostApi::start(host, HostApiOptions::default()).await?;
    let world =
        World::on(host, &host_api, virtual_cluster("metrics").await?, "metrics", TenantOptions::default()).await?;
    let services = world.namespace("first").await?;
    let headless = || json!({"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"port": 80}]});
    for number in 0..COUNT {
        create(&services, &service(&format!("web-{number}"), headless())).await?;
    }
    outcomes(&world.agent, "applied", COUNT.into(), SOON).await?;
    reaches(&world.agent, "k3k_expose_agent_writes_total{kind=\"status\",result=\"ok\"}", COUNT).await?;
    reaches(&world.agent, "k3k_expose_agent_reflection_latency_seconds_count", COUNT).await?;
    reaches(&host_api, "k3k_expose_host_api_writes_total{verb=\"create\",result=\"ok\"}", COUNT).await?;
    let lag = mean(&world.agent, "k3k_expose_agent_sync_lag_seconds").await?;
    took("mean lag from event to answer", lag, FIGURE);
    let latency = mean(&world.agent, "k3k_expose_agent_reflection_latency_seconds").await?;
    took("mean latency from answer to status", latency, FIGURE);
    let idle = metric(&world.agent, "k3k_expose_agent_oldest_unacknowledged_seconds").await?;
    assert!(idle.abs() < f64::EPSILON, "nothing waits, but {idle}");
    assert!(metric(&world.agent, "k3k_expose_agent_active").await? > 0.5);
    assert!(metric(&host_api, "k3k_expose_host_api_leader").await? > 0.5);

    change(&services, "web-0", json!({"spec": {"selector": {"k3k.io/clusterName": "other"}}})).await?;
    reaches(&host_api, "k3k_expose_host_api_rejections_total{reason=\"ReservedSelectorKey\"}", 1).await?;
    let rejected = "k3k_expose_host_api_services{outcome=\"rejected\",reason=\"ReservedSelectorKey\"}";
    assert!((metric(&host_api, rejected).await? - 1.0).abs() < f64::EPSILON);

    let twin = world.tenant.twin_name("web-1", "first");
    let damage = Patch::Merge(json!({"spec": {"selector": {"added": "key"}}}));
    world.tenant.host_services().patch(&twin, &PatchParams::default(), &damage).await?;
    reaches(&host_api, "k3k_expose_host_api_repairs_total", 1).await?;

    for (product, known) in [&world.agent as &Product, &host_api].into_iter().zip(exposed::by_both()?) {
        let told = exposed::metrics(&product.metrics().await?);
        let untold: Vec<&String> = known.keys().filter(|name| !told.contains_key(*name)).collect();
        assert_eq!(untold, Vec::<&String>::new(), "documented and not told");
        for (name, told) in told {
            let known = known.get(&name).with_context(|| format!("{name} is not documented"))?;
            assert_eq!((&told.kind, &told.help), (&known.kind, &known.help), "{name}");
            assert!(told.labels.is_subset(&known.labels), "{name}: {:?}", told.labels);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_change_that_waits_is_told_by_its_age_until_it_is_answered() -> Result<()> {
    let host = Rig::shared().host().await?;
    let host_api = HostApi::start(host, HostApiOptions::default()).await?;
    let world = World::on(host, &host_api, virtual_cluster("lag").await?, "lag", TenantOptions::default()).await?;
    let services = world.namespace("first").await?;
    session_up(&world.agent).await?;
    host_api.kill().await?;
    let spec = json!({"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"port": 80}]});
    let made = create(&services, &service("web", spec)).await?;
    let oldest = "k3k_expose_agent_oldest_unacknowledged_seconds";
    eventually("a change that is older than a second", SOON, async || {
        let age = metric(&world.agent, oldest).await?;
        ensure!(age > 1.0, "{age}");
        anyhow::Ok(())
    })
    .await?;
    host_api.restart().await?;
    outcomes(&world.agent, "applied", 1, SOON).await.with_context(|| made.name_any())?;
    assert!(metric(&world.agent, oldest).await? < f64::EPSILON);
    let lag = mean(&world.agent, "k3k_expose_agent_sync_lag_seconds").await?;
    assert!(lag > Duration::from_secs(1), "the wait counts: {lag:?}");
    Ok(())
}

async fn reaches(product: &Product, series: &str, least: u16) -> Result<()> {
    eventually(&format!("{series} at {least}"), SOON, async || {
        let found = metric(product, series).await?;
        ensure!(found >= f64::from(least), "{found}");
        anyhow::Ok(())
    })
    .await
}

/// The mean of a histogram in seconds.
async fn mean(product: &Product, name: &str) -> Result<Duration> {
    let (sum, count) =
        (metric(product, &format!("{name}_sum")).await?, metric(product, &format!("{name}_count")).await?);
    ensure!(count > 0.5, "nothing was measured");
    Ok(Duration::try_from_secs_f64(sum / count)?)
}
