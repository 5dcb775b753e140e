//! One set of numbers on both sides, also when somebody on the host holds one first; and Services that get no twin.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::future::try_join_all;
use k3k_expose_tests::foreign::Holder;
use k3k_expose_tests::k3k::TenantOptions;
use k3k_expose_tests::product::{HOST_API_USER, HostApi, HostApiOptions};
use k3k_expose_tests::rig::Rig;
use k3k_expose_tests::took;
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::observe::virtual_cluster;
use crate::world::{CLUSTER, World, change, create, delete, numbers, replace, service};

/// From the end of the foreign Service to the twin, by the event of its end: two writes and one line each way.
pub const FREED: Duration = Duration::from_millis(200);

/// Two clusters with the same ranges, so that each can have what the other draws.
const PAIR: &str = "families";

#[tokio::test]
async fn numbers_that_are_free_on_the_host_are_the_same_on_both_sides() -> Result<()> {
    let world = World::shared("follow", CLUSTER).await?;
    let services = world.namespace("numbers").await?;
    let asked = json!({"type": "NodePort", "clusterIP": world.spare_ip(3), "ports": [
        {"name": "a", "port": 80, "nodePort": world.spare_port(1)}, {"name": "b", "port": 81}]});
    let asked = create(&services, &service("asked", asked)).await?;
    let drawn = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]});
    let drawn = create(&services, &service("drawn", drawn)).await?;
    for wanted in [asked, drawn] {
        let (twin, wanted) = (world.follows(&wanted).await?.spec, wanted.spec);
        let (twin, wanted) = (twin.context("a spec")?, wanted.context("a spec")?);
        assert!(twin.cluster_ip.is_some() && twin.cluster_ips == wanted.cluster_ips);
        let node_ports = |ports: Option<Vec<k8s_openapi::api::core::v1::ServicePort>>| {
            ports.into_iter().flatten().map(|port| port.node_port).collect::<Vec<_>>()
        };
        let ports = node_ports(twin.ports);
        assert!(ports.iter().all(Option::is_some) && ports == node_ports(wanted.ports), "{ports:?}");
        assert_eq!(twin.health_check_node_port, wanted.health_check_node_port);
    }
    Ok(())
}

#[tokio::test]
async fn a_cluster_ip_that_is_held_on_the_host_is_waited_for_where_conflicts_are_reported() -> Result<()> {
    let env = vec![("K3K_EXPOSE_CLUSTER_IP_CONFLICT".to_owned(), "report".to_owned())];
    let host = Rig::shared().host().await?;
    let host_api = HostApi::start(host, HostApiOptions { env, ..HostApiOptions::default() }).await?;
    let plane = virtual_cluster("report").await?;
    let world = World::on(host, &host_api, plane, "report", TenantOptions::default()).await?;
    let held = json!({"clusterIP": "10.43.0.240", "ports": [{"port": 80}]});
    waits_for(&world, "held-ip", held.clone(), held, "ClusterIPTaken").await
}

#[tokio::test]
async fn a_node_port_that_is_held_on_the_host_is_replaced() -> Result<()> {
    let world = World::paired(PAIR).await?;
    let port = world.spare_port(2);
    let wish = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
    replaced(&world, "held-port", wish, port).await?.release().await
}

#[tokio::test]
async fn a_health_check_port_that_is_held_on_the_host_is_replaced() -> Result<()> {
    let world = World::paired(PAIR).await?;
    let port = world.spare_port(3);
    let wish = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": port,
        "ports": [{"port": 80}]});
    replaced(&world, "held-health-check", wish, port).await?.release().await
}

/// Somebody on the host holds a node port that a Service asks for: both sides agree on another, without a write that fails.
async fn replaced(world: &World, name: &str, wish: Value, port: u16) -> Result<Holder> {
    let audit = Rig::shared().pair(PAIR).await?.host.audit();
    let mark = audit.mark().await?;
    let holder = world.holder_of_port(port).await?;
    let services = world.namespace(name).await?;
    // host-api knows of the holder by its watch: a twin made after it shows that the watch has come that far.
    let fence = create(&services, &service("fence", json!({"ports": [{"port": 80}]}))).await?;
    world.follows(&fence).await?;
    let wish = create(&services, &service("wish", wish)).await?;
    let (here, twin) = world.agrees(&wish).await?;
    let found = numbers(&here);
    let has =
        found.node_ports.iter().map(|(_, _, port)| *port).chain(found.health_check).any(|has| has == i32::from(port));
    assert!(!has && here.uid() == wish.uid(), "{found:?}");
    let writes = audit.writes_since(mark, |user| user == HOST_API_USER).await?.counted;
    let codes: Vec<u16> = writes.iter().filter(|entry| entry.name == twin.name_any()).map(|entry| entry.code).collect();
    assert_eq!(codes, [201], "one write, and none that fails");
    Ok(holder)
}

/// No write while a Service of the host holds the number, and the twin by itself when it lets go.
async fn waits_for(world: &World, name: &str, wish: Value, holds: Value, reason: &str) -> Result<()> {
    let audit = Rig::shared().host().await?.audit();
    let mark = audit.mark().await?;
    let foreign: Api<Service> = Api::namespaced(world.host.clone(), "default");
    let holder = create(&foreign, &service(name, holds)).await?;
    let services = world.namespace(name).await?;
    // host-api knows of the holder by its watch: a twin made after it shows that the watch has come that far.
    let fence = create(&services, &service("fence", json!({"clusterIP": "None", "ports": [{"port": 80}]}))).await?;
    world.follows(&fence).await?;

    create(&services, &service("wish", wish)).await?;
    world.told("wish", name, reason).await?;
    for round in 0..5 {
        change(&services, "wish", json!({"metadata": {"labels": {"round": round.to_string()}}})).await?;
        let fence = change(&services, "fence", json!({"metadata": {"labels": {"round": round.to_string()}}})).await?;
        world.follows(&fence).await?;
    }
    world.no_twin("wish", name).await?;
    let twin = world.tenant.twin_name("wish", name);
    let tried = audit.since(mark).await?;
    let tried: Vec<_> = tried.iter().filter(|entry| entry.user == HOST_API_USER && entry.name == twin).collect();
    assert!(tried.iter().all(|entry| !entry.is_write()), "{tried:?}");
    assert_eq!(foreign.get(name).await?.resource_version(), holder.resource_version(), "the holder was touched");

    let start = Instant::now();
    foreign.delete(name, &DeleteParams::default()).await?;
    world.follows(&services.get("wish").await?).await?;
    took(&format!("a twin after its {reason} was freed"), start.elapsed(), FREED);
    let writes = audit.writes_since(mark, |user| user == HOST_API_USER).await?.counted;
    let codes: Vec<u16> = writes.iter().filter(|entry| entry.name == twin).map(|entry| entry.code).collect();
    // The API server tells of a deletion before it frees the numbers, so a first try may come a few milliseconds too soon.
    assert!(codes == [201] || codes == [422, 201], "{codes:?}");
    Ok(())
}

#[tokio::test]
async fn a_number_that_moves_between_services_of_one_tenant_arrives() -> Result<()> {
    let world = World::shared("walks", "walks").await?;
    let services = world.namespace("moving").await?;
    let on = |port: u16| json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": world.spare_port(port)}]});
    let made = ["a", "b", "c"]
        .into_iter()
        .zip([4, 5, 6])
        .map(async |(name, port)| world.follows(&create(&services, &service(name, on(port))).await?).await);
    try_join_all(made).await?;
    world.agent.kill().await?;
    // `a` and `b` swap theirs by way of another, `d` inherits that of `c`.
    let to = async |name, port| replace(&services, name, json!({"spec": on(port)})).await;
    to("a", 7).await?;
    let b = to("b", 4).await?;
    let a = to("a", 5).await?;
    delete(&services, "c").await?;
    let d = create(&services, &service("d", on(6))).await?;
    world.agent.restart().await?;
    for wanted in [d, a, b] {
        world.follows(&wanted).await?;
    }
    world.no_twin("c", "moving").await
}

#[tokio::test]
async fn only_the_virtual_clusters_own_services_and_aliases_get_no_twin() -> Result<()> {
    let world = World::shared("follow", CLUSTER).await?;
    let services = world.namespace("twinless").await?;
    let web = || json!({"ports": [{"port": 53, "protocol": "UDP"}]});
    let alias = json!({"type": "ExternalName", "externalName": "example.com"});
    let params = PostParams::default();
    world.services("kube-system").create(&params, &service("kube-dns", web())).await?;
    create(&services, &service("alias", alias.clone())).await?;
    world.told("alias", "twinless", "ExternalNameNotExposed").await?;
    // Made last, so that its twin shows that the others were seen.
    let namesakes = ["kube-dns", "kubernetes"]
        .map(async |name| world.follows(&create(&services, &service(name, web())).await?).await);
    try_join_all(namesakes).await?;
    for (name, namespace) in [("kubernetes", "default"), ("kube-dns", "kube-system"), ("alias", "twinless")] {
        let twin = world.tenant.host_services().get_opt(&world.tenant.twin_name(name, namespace)).await?;
        assert!(twin.is_none(), "{namespace}/{name} has a twin");
    }

    let mut patch = alias;
    patch["clusterIP"] = Value::Null;
    patch["clusterIPs"] = Value::Null;
    replace(&services, "kube-dns", json!({"spec": patch})).await?;
    world.no_twin("kube-dns", "twinless").await
}
