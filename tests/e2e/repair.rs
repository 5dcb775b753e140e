//! What becomes of twins that somebody on the host edits or deletes by hand.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::k3k::{Tenant, TenantOptions};
use k3k_expose_tests::product::{HostApi, HostApiOptions};
use k3k_expose_tests::wire::{WireSession, hello};
use k3k_expose_tests::{Rig, took};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::observe::{headless, metric, outcomes, session_up, virtual_cluster, world, writes};
use crate::world::{SOON, World, create, service};

/// The damage that no policy admits by default.
const FORBIDDEN: &str = "an added external IP";

/// Each kind of damage, once: what it is called, and the merge patch, or nothing for a deletion.
fn damages() -> Vec<(&'static str, Option<Value>)> {
    let ports = json!([{"name": "http", "port": 81, "protocol": "TCP", "targetPort": 8080}]);
    vec![
        ("an edited port", Some(json!({"spec": {"ports": ports}}))),
        ("an edited selector key", Some(json!({"spec": {"selector": {"k3k.io/clusterName": "other"}}}))),
        ("an added selector key", Some(json!({"spec": {"selector": {"added": "key"}}}))),
        (FORBIDDEN, Some(json!({"spec": {"externalIPs": ["192.0.2.7"]}}))),
        ("a deletion", None),
    ]
}

#[tokio::test]
async fn damage_by_hand_is_repaired_while_a_session_is_up() -> Result<()> {
    let world = world("repair", TenantOptions::default()).await?;
    let services = stand(&world, 160).await?;
    for ((name, damage), service) in damages().into_iter().zip(&services) {
        let right = world.twin(service, |_| true).await?;
        let began = Instant::now();
        inflict(&world.tenant, &right, damage.as_ref()).await?;
        repaired(&world.tenant, &right).await?;
        took(&format!("repair of {name}"), began.elapsed(), Duration::from_secs(1));
    }
    Ok(())
}

#[tokio::test]
async fn a_twin_that_somebody_undoes_three_times_in_a_minute_is_contested_and_left() -> Result<()> {
    let world = world("contest", TenantOptions::default()).await?;
    let services = stand(&world, 170).await?;
    let right = world.twin(&services[0], |_| true).await?;
    let (_, damage) = damages().swap_remove(2);
    for _ in 0..2 {
        inflict(&world.tenant, &right, damage.as_ref()).await?;
        repaired(&world.tenant, &right).await?;
    }
    let audit = Rig::shared().host().await?.audit();
    let mark = audit.mark().await?;
    inflict(&world.tenant, &right, damage.as_ref()).await?;
    outcomes(&world.agent, "rejected", 1, SOON).await?;
    // Whatever host-api still had to do about it, it would have done before this one's twin.
    let spec = json!({"clusterIP": "None", "selector": {"app": "a"}, "ports": [{"port": 80}]});
    let api = kube::Api::namespaced(world.virtual_cluster.clone(), "first");
    let later = create(&api, &service("later", spec)).await?;
    world.twin(&later, |_| true).await?;
    let written = writes(&audit, mark, &world.tenant.namespace).await?;
    assert_eq!(written.len(), 1, "only the later one was written: {written:?}");
    assert_eq!(written[0].verb, "create");
    let left = world.tenant.host_services().get(&right.name_any()).await?;
    assert!(left.spec.unwrap().selector.unwrap().contains_key("added"));
    Ok(())
}

#[tokio::test]
async fn damage_from_while_host_api_was_down_is_repaired_after_the_next_welcome() -> Result<()> {
    let rig = Rig::shared();
    let host = rig.host().await?;
    let own = HostApi::start(host, HostApiOptions::default()).await?;
    let plane = virtual_cluster("absence").await?;
    let world = World::on(host, &own, plane, "absence", TenantOptions::default()).await?;
    let services = stand(&world, 180).await?;
    let right = rights(&world, &services).await?;
    own.kill().await?;
    eventually("the end of the session", SOON, async || {
        ensure!(metric(&world.agent, "k3k_expose_agent_session_up").await? < 0.5, "it is up");
        anyhow::Ok(())
    })
    .await?;
    inflict_all(&world.tenant, &right, damages()).await?;
    own.restart().await?;
    session_up(&world.agent).await?;
    let began = Instant::now();
    for twin in &right {
        repaired(&world.tenant, twin).await?;
    }
    took("repair after the next welcome", began.elapsed(), Duration::from_secs(2));
    Ok(())
}

#[tokio::test]
async fn without_a_session_twins_stay_as_they_are() -> Result<()> {
    let rig = Rig::shared();
    let world = world("fail-static", TenantOptions::default()).await?;
    let services = stand(&world, 190).await?;
    let right = rights(&world, &services).await?;
    world.agent.kill().await?;
    let audit = rig.host().await?.audit();
    let mark = audit.mark().await?;
    // What no policy admits goes without a session too, if another test's host-api sees it that never heard of this tenant.
    let admitted = damages().into_iter().filter(|(name, _)| *name != FORBIDDEN).collect();
    inflict_all(&world.tenant, &right, admitted).await?;
    // host-api has seen all of that when it has seen what was written after it: the twin of another tenant's Service.
    let other = Tenant::create(&world.host, "host-fail-static", "other", TenantOptions::default()).await?;
    let token = other.server_pod_token(0).await?;
    let mut wire = WireSession::open(rig.host_api().await?, &token, hello("vc-other", &[])?).await?.0;
    let marker = headless("marker")?;
    wire.send_snapshot(std::slice::from_ref(&marker)).await?;
    wire.settled(&marker).await?;
    let written = writes(&audit, mark, &world.tenant.namespace).await?;
    assert_eq!(written.len(), 1, "only the other tenant's was written: {written:?}");

    world.agent.restart().await?;
    session_up(&world.agent).await?;
    for twin in &right {
        repaired(&world.tenant, twin).await?;
    }
    Ok(())
}

/// Five Services with twins. Their addresses are asked for below those that API servers draw, which other tests hold.
async fn stand(world: &World, first: u32) -> Result<Vec<Service>> {
    let api = world.namespace("first").await?;
    let mut services = Vec::new();
    for number in 0..5 {
        let spec = json!({
            "clusterIP": format!("10.43.0.{}", first + number),
            "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        });
        services.push(create(&api, &service(&format!("web-{number}"), spec)).await?);
    }
    outcomes(&world.agent, "applied", 5, SOON).await?;
    Ok(services)
}

async fn rights(world: &World, services: &[Service]) -> Result<Vec<Service>> {
    let mut right = Vec::new();
    for service in services {
        right.push(world.twin(service, |_| true).await?);
    }
    Ok(right)
}

async fn inflict_all(tenant: &Tenant, twins: &[Service], damages: Vec<(&str, Option<Value>)>) -> Result<()> {
    for ((_, damage), twin) in damages.iter().zip(twins) {
        inflict(tenant, twin, damage.as_ref()).await?;
    }
    Ok(())
}

async fn inflict(tenant: &Tenant, twin: &Service, damage: Option<&Value>) -> Result<()> {
    let (twins, name) = (tenant.host_services(), twin.name_any());
    match damage {
        Some(patch) => drop(twins.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await?),
        None => drop(twins.delete(&name, &DeleteParams::default()).await?),
    }
    Ok(())
}

/// Waits until a twin stands as it did.
async fn repaired(tenant: &Tenant, right: &Service) -> Result<()> {
    let twins = tenant.host_services();
    eventually("the repair", SOON, async || {
        let found = twins.get_opt(&right.name_any()).await?.context("there is none")?;
        let ports = found.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        let ports: Vec<_> = ports.map(|port| (port.port, port.target_port.clone())).collect();
        ensure!(ports == [(80, Some(IntOrString::Int(8080)))], "{ports:?}");
        ensure!(found.spec == right.spec, "{}", json!(found.spec));
        ensure!(found.labels() == right.labels() && found.annotations() == right.annotations(), "other marks");
        anyhow::Ok(())
    })
    .await
}
