//! Numbers that somebody else holds on the host: both sides end with the same other one, and nothing else changes.

use anyhow::{Context, Result};
use k3k_expose_tests::rig::Rig;
use k3k_expose_tests::took;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use crate::world::answer::{ingress, numbers};
use crate::world::{World, create, replace, service};

const PAIR: &str = "renumber";
/// From the creation of a Service whose number is taken to agreement; the issue names no figure, a second is what people accept.
const HEALED: Duration = Duration::from_secs(1);

/// Waits until host-api's watch has seen what was made on the host before: it has seen a twin that was made after.
pub async fn fence(world: &World, services: &Api<Service>, name: &str) -> Result<()> {
    let fence = create(services, &service(name, json!({"ports": [{"port": 80}]}))).await?;
    world.applied(&fence).await.map(drop)
}

/// Every field of a spec but the numbers.
fn rest(service: &Service) -> Value {
    let mut spec = json!(service.spec);
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        port["nodePort"] = Value::Null;
    }
    for number in ["clusterIP", "clusterIPs", "healthCheckNodePort"] {
        spec[number] = Value::Null;
    }
    spec
}

/// The Service ends agreed under another address, as the same object with all else as it was.
async fn moves(world: &World, services: &Api<Service>, name: &str, spec: Value) -> Result<Service> {
    let began = Instant::now();
    let made = create(services, &service(name, spec)).await?;
    let (now, twin) = world.agrees(&made).await?;
    took(&format!("{name} has another address on both sides"), began.elapsed(), HEALED);
    assert_eq!(now.uid(), made.uid(), "it is another object");
    assert_ne!(numbers(&now).cluster_ips, numbers(&made).cluster_ips);
    assert_eq!(rest(&now), rest(&made));
    assert!(!now.annotations().contains_key("expose.k3k.io/renumber"), "{:?}", now.annotations());
    assert_eq!(world.event(&made, "Renumbered").await?.len(), 1);
    let again = world.agrees(&made).await?.1;
    assert_eq!(again.uid(), twin.uid(), "the twin is another object");
    Ok(made)
}

#[tokio::test]
async fn a_held_cluster_ip_moves_services_of_every_kind_in_place() -> Result<()> {
    let world = World::paired(PAIR).await?;
    let services = world.namespace("moving").await?;
    let kinds = [
        (
            "inside",
            json!({"ports": [{"port": 80}], "sessionAffinity": "ClientIP", "internalTrafficPolicy": "Local",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 77}}, "selector": {"app": "a"}}),
        ),
        (
            "nodes",
            json!({"type": "NodePort", "ports": [{"name": "a", "port": 53, "protocol": "UDP"},
            {"name": "b", "port": 53}], "externalTrafficPolicy": "Local"}),
        ),
        (
            "balancer",
            json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
            "loadBalancerClass": "example.com/fast", "loadBalancerSourceRanges": ["192.0.2.0/24"],
            "ports": [{"port": 80}], "publishNotReadyAddresses": true}),
        ),
    ];
    for (index, (name, mut spec)) in kinds.into_iter().enumerate() {
        let ip = world.spare_ip(30 + u8::try_from(index)?);
        let holder = world.holder_of_ips(&[&ip]).await?;
        fence(&world, &services, &format!("fence-{index}")).await?;
        spec["clusterIP"] = ip.into();
        moves(&world, &services, name, spec).await?;
        assert!(holder.is_untouched().await?);
    }
    let both = [world.spare_ip(40), world.spare_ip6(40)];
    let _holder = world.holder_of_ips(&[&both[0]]).await?;
    fence(&world, &services, "fence-dual").await?;
    let dual = json!({"clusterIP": both[0], "clusterIPs": both, "ipFamilyPolicy": "RequireDualStack",
        "ports": [{"port": 80}]});
    let made = moves(&world, &services, "dual", dual).await?;
    assert_eq!(numbers(&world.agrees(&made).await?.0).cluster_ips.len(), 2);
    Ok(())
}

#[tokio::test]
async fn an_address_and_the_endpoint_slices_outlive_a_move() -> Result<()> {
    let world = World::paired(PAIR).await?;
    let services = world.namespace("outliving").await?;
    let spec = |ip: Option<&str>| {
        let mut spec = json!({"type": "LoadBalancer", "selector": {"app": "x"}, "ports": [{"port": 80}]});
        if let Some(ip) = ip {
            spec["clusterIP"] = ip.into();
        }
        spec
    };
    let made = create(&services, &service("web", spec(None))).await?;
    let (_, twin) = world.agrees(&made).await?;
    world.cloud_gives(&made, json!([{"ip": "192.0.2.50"}])).await?;
    let shown = json!([{"ip": "192.0.2.50", "ipMode": "VIP"}]);
    world.has_ingress(&made, shown.clone()).await?;
    let slices: Api<EndpointSlice> = Api::namespaced(world.virtual_cluster.clone(), "outliving");
    let of_web = ListParams::default().labels("kubernetes.io/service-name=web");
    let slice = async || anyhow::Ok(slices.list(&of_web).await?.items.first().and_then(ResourceExt::uid));
    let before = k3k_expose_tests::eventually::eventually("an EndpointSlice", crate::world::SOON, async || {
        slice().await?.context("there is none")
    })
    .await?;

    // The tenant walks to an address that is taken on the host, as one does who wants another one: over ExternalName.
    let ip = world.spare_ip(45);
    let _holder = world.holder_of_ips(&[&ip]).await?;
    fence(&world, &services, "fence").await?;
    world.agent.kill().await?;
    let away = json!({"spec": {"type": "ExternalName", "externalName": "away.example.com", "clusterIP": null,
        "clusterIPs": null, "ipFamilies": null, "ipFamilyPolicy": null, "internalTrafficPolicy": null,
        "externalTrafficPolicy": null, "allocateLoadBalancerNodePorts": null,
        "ports": [{"port": 80, "nodePort": null}]}});
    replace(&services, "web", away).await?;
    let mut back = spec(Some(&ip));
    back["externalName"] = Value::Null;
    replace(&services, "web", json!({"spec": back})).await?;
    world.agent.restart().await?;
    let (now, after) = world.agrees(&made).await?;
    assert_eq!((now.uid(), after.uid()), (made.uid(), twin.uid()));
    assert_ne!(numbers(&now).cluster_ips, [ip]);
    assert_eq!(ingress(&now), ingress(&after));
    assert_eq!(slice().await?, Some(before), "the EndpointSlice is another one");
    Ok(())
}

#[tokio::test]
async fn a_held_health_check_port_leaves_every_node_port_equal() -> Result<()> {
    let world = World::paired(PAIR).await?;
    let services = world.namespace("health").await?;
    let held = world.spare_port(20);
    let _holder = world.holder_of_port(held).await?;
    fence(&world, &services, "fence").await?;
    let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": held,
        "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 443}]});
    let made = create(&services, &service("web", spec)).await?;
    let (now, twin) = world.agrees(&made).await?;
    assert_eq!((now.uid(), numbers(&now)), (made.uid(), numbers(&twin)));
    assert!(numbers(&now).health_check.is_some_and(|port| port != i32::from(held)));
    assert_eq!(numbers(&now).cluster_ips, numbers(&made).cluster_ips);
    Ok(())
}

#[tokio::test]
async fn node_ports_agree_by_port_and_protocol_through_every_change_of_the_list() -> Result<()> {
    let world = World::paired(PAIR).await?;
    let services = world.namespace("ports").await?;
    let (first, second) = (world.spare_port(21), world.spare_port(22));
    let _held = (world.holder_of_port(first).await?, world.holder_of_port(second).await?);
    fence(&world, &services, "fence").await?;
    let spec = json!({"type": "NodePort", "ports": [
        {"name": "tcp", "port": 53, "nodePort": first}, {"name": "udp", "port": 53, "protocol": "UDP"},
        {"name": "web", "port": 80}]});
    let made = create(&services, &service("web", spec)).await?;
    let (now, twin) = world.agrees(&made).await?;
    assert_eq!(numbers(&now), numbers(&twin));
    let note = world.event(&made, "Renumbered").await?[0].message.clone().unwrap_or_default();
    assert!(note.contains(&first.to_string()) && note.contains("53/TCP"), "{note}");
    let kept = numbers(&now).node_ports;

    let mut ports = json!(now.spec.context("a spec")?.ports);
    ports.as_array_mut().context("a list")?.reverse();
    replace(&services, "web", json!({"spec": {"ports": ports}})).await?;
    assert_eq!(numbers(&world.agrees(&made).await?.1).node_ports, kept, "reordered");
    let other = json!([{"name": "udp", "port": 53, "protocol": "UDP"},
        {"name": "more", "port": 8080, "nodePort": second}]);
    replace(&services, "web", json!({"spec": {"ports": other}})).await?;
    let (now, twin) = world.agrees(&made).await?;
    assert_eq!(numbers(&now), numbers(&twin));
    assert!(numbers(&now).node_ports.iter().all(|(_, _, port)| *port != i32::from(second)));
    let inside = json!({"spec": {"type": "ClusterIP", "externalTrafficPolicy": null,
        "ports": [{"name": "udp", "port": 53, "protocol": "UDP", "nodePort": null}]}});
    replace(&services, "web", inside).await?;
    assert_eq!(numbers(&world.agrees(&made).await?.1).node_ports, []);
    replace(&services, "web", json!({"spec": {"type": "NodePort"}})).await?;
    let (now, twin) = world.agrees(&made).await?;
    assert_eq!((numbers(&now).node_ports.len(), numbers(&now)), (1, numbers(&twin)));
    Ok(())
}

#[tokio::test]
async fn a_pinned_node_port_is_replaced_once_and_never_fought_over() -> Result<()> {
    let world = World::paired(PAIR).await?;
    let services = world.namespace("insisting").await?;
    let port = world.spare_port(23);
    let holder = world.holder_of_port(port).await?;
    fence(&world, &services, "fence").await?;
    let wish = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}});
    let apply = async || {
        let params = PatchParams::apply("helm").force();
        anyhow::Ok(services.patch("web", &params, &Patch::Apply(&wish)).await?)
    };
    let made = apply().await?;
    let (now, _) = world.agrees(&made).await?;
    assert_ne!(numbers(&now).node_ports[0].2, i32::from(port));
    let given = numbers(&now);
    apply().await?;
    world.refused(&made, "NodePortTaken").await?;
    let pair = Rig::shared().pair(PAIR).await?;
    let (here, there) = (pair.virtual_cluster.audit(), pair.host.audit());
    let marks = (here.mark().await?, there.mark().await?);
    for _ in 0..10 {
        apply().await?;
    }
    fence(&world, &services, "fence-after").await?;
    let twin = world.tenant.twin_name("web", "insisting");
    let ours = here.writes_since(marks.0, |user| user.ends_with("k3k-expose-agent")).await?.counted;
    let ours = ours.iter().filter(|entry| entry.namespace == "insisting" && entry.name == "web").count();
    let hosts = there.writes_since(marks.1, |_| true).await?.counted;
    let hosts = hosts.iter().filter(|entry| entry.name == twin).count();
    assert!(ours <= 1 && hosts <= 1, "{ours} writes here, {hosts} there");
    let kept = world.twin(&made, |_| true).await?;
    assert_eq!(numbers(&kept).node_ports, given.node_ports, "the twin keeps the host's number");

    holder.release().await?;
    let (now, twin) = world.agrees(&made).await?;
    assert_eq!(numbers(&now).node_ports[0].2, i32::from(port));
    assert_eq!(numbers(&twin), numbers(&now));
    Ok(())
}
