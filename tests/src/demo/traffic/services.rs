//! What each type of Service promises, from where it promises it.

use anyhow::{Context, ensure};
use serde_json::json;

use super::super::stage::Stage;
use super::center::{Center, Crew, SOON, address};
use super::checks::{check, cluster_ip, names_of, node_port, pod_of, reaches};
use crate::eventually::eventually;
use crate::traffic::curl;
use crate::traffic::fabric::CLIENT;

pub(super) async fn all(stage: &mut Stage, center: &Center, crew: &Crew<'_>) -> anyhow::Result<()> {
    stage.begin(
        "Services",
        "Every address and port below is the one that the *virtual* Service shows: the tenant has nothing else to go by.",
    );
    exposed(stage, center, crew).await?;
    internal(stage, center, crew).await?;
    ports(stage, center, crew).await?;
    local(stage, center, crew).await
}

async fn exposed(stage: &mut Stage, center: &Center, crew: &Crew<'_>) -> anyhow::Result<()> {
    let (alpha, client) = (&center.alpha, &center.fabric.client);
    let web = names_of(&crew.alpha, "web").await?;
    let ports = json!([{"name": "http", "port": 80, "targetPort": "http"}]);
    check(stage, "NodePort: from outside by the address of any node", async {
        let service =
            alpha.serve("port", json!({"type": "NodePort", "selector": {"app": "web"}, "ports": ports})).await?;
        let port = node_port(&service, "http")?;
        for node in &center.fabric.nodes {
            reaches(client, node.address, port, &web).await?;
        }
        Ok(format!("port {port} of {} nodes", center.fabric.nodes.len()))
    })
    .await;
    check(stage, "LoadBalancer: from outside by its address", async {
        alpha.serve("edge", json!({"type": "LoadBalancer", "selector": {"app": "web"}, "ports": ports})).await?;
        let address = address(&alpha.services(), "edge").await?;
        let pod = reaches(client, &address, 80, &web).await?;
        Ok(format!("{address} leads to {pod}"))
    })
    .await;
    Ok(())
}

async fn internal(stage: &mut Stage, center: &Center, crew: &Crew<'_>) -> anyhow::Result<()> {
    let web = names_of(&crew.alpha, "web").await?;
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    let service = center.alpha.serve("inner", json!({"selector": {"app": "web"}, "ports": ports})).await?;
    let ip = cluster_ip(&service)?;
    check(stage, "ClusterIP: from a pod of the same tenant", async {
        let from = pod_of(&crew.alpha, "single").await?;
        Ok(format!("{ip} leads to {}", reaches(&from.namespace, &ip, 80, &web).await?))
    })
    .await;
    check(stage, "ClusterIP: from a pod of the host", async {
        let from =
            crew.platform.of_app("ingress", "contour").await?.into_values().next().context("a pod of the host")?;
        Ok(format!("{ip} leads to {}", reaches(&from.namespace, &ip, 80, &web).await?))
    })
    .await;
    Ok(())
}

async fn ports(stage: &mut Stage, center: &Center, crew: &Crew<'_>) -> anyhow::Result<()> {
    let (alpha, client) = (&center.alpha, &center.fabric.client);
    let web = names_of(&crew.alpha, "web").await?;
    check(stage, "Several ports: two of TCP and one of UDP that has the number of the first", async {
        let ports = json!([
            {"name": "http", "port": 80, "targetPort": "http"},
            {"name": "second", "port": 81, "targetPort": "second"},
            {"name": "datagrams", "port": 80, "targetPort": 8081, "protocol": "UDP"},
        ]);
        let service =
            alpha.serve("several", json!({"type": "LoadBalancer", "selector": {"app": "web"}, "ports": ports})).await?;
        let address = address(&alpha.services(), "several").await?;
        let node = center.fabric.nodes[0].address.to_string();
        for name in ["http", "second"] {
            reaches(client, &node, node_port(&service, name)?, &web).await?;
        }
        reaches(client, &address, 80, &web).await?;
        reaches(client, &address, 81, &web).await?;
        for (to, port) in [(&address, 80), (&node, node_port(&service, "datagrams")?)] {
            eventually(&format!("a datagram from {to}:{port}"), SOON, async || {
                let name = curl::datagram(client, to, port, "hostname").await?;
                ensure!(web.contains(&name), "{name} answered");
                Ok(())
            })
            .await?;
        }
        Ok(format!("at {address} and at node ports; {}", sctp()))
    })
    .await;
    Ok(())
}

/// SCTP is left to kernels that have it; the rig has no program that speaks it.
fn sctp() -> &'static str {
    let known = std::fs::read_to_string("/proc/net/protocols").unwrap_or_default();
    if known.lines().any(|line| line.starts_with("SCTP")) { "SCTP not tried" } else { "this kernel has no SCTP" }
}

async fn local(stage: &mut Stage, center: &Center, crew: &Crew<'_>) -> anyhow::Result<()> {
    let (alpha, client) = (&center.alpha, &center.fabric.client);
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "selector": {"app": "single"}, "ports": ports});
    let service = alpha.serve("local", spec).await?;
    let lb = address(&alpha.services(), "local").await?;
    let pod = pod_of(&crew.alpha, "single").await?.address;
    let (here, there): (Vec<_>, Vec<_>) = center.fabric.nodes.iter().partition(|node| node.has(pod));
    let (here, there) = (here.first().context("the pod's node")?, there.first().context("another node")?);
    check(stage, "externalTrafficPolicy Local: the pod sees the client's address", async {
        let url = format!("http://{lb}/clientip");
        let seen = eventually("an answer", SOON, async || curl::get(client, &url).await).await?;
        ensure!(seen.starts_with(&format!("{CLIENT}:")), "the pod saw {seen}");
        let by_node = format!("http://{}:{}/clientip", here.address, node_port(&service, "http")?);
        let seen = curl::get(client, &by_node).await?;
        ensure!(seen.starts_with(&format!("{CLIENT}:")), "by the node port the pod saw {seen}");
        let edge = address(&alpha.services(), "edge").await?;
        let other = curl::get(client, &format!("http://{edge}/clientip")).await?;
        Ok(format!("{CLIENT}; with policy Cluster {}", other.split(':').next().unwrap_or_default()))
    })
    .await;
    check(stage, "externalTrafficPolicy Local: the health-check port tells nodes apart", async {
        let port = service.spec.as_ref().and_then(|spec| spec.health_check_node_port).context("no such port")?;
        let url = |node: &crate::traffic::fabric::Node| format!("http://{}:{port}/healthz", node.address);
        for (node, expected) in [(here, 200), (there, 503)] {
            eventually("a health check", SOON, async || {
                let status = curl::status(client, &url(node)).await?;
                ensure!(status == expected, "{} says {status}", node.name);
                Ok(())
            })
            .await?;
        }
        Ok(format!("port {port}: 200 where the pod is, 503 elsewhere"))
    })
    .await;
    Ok(())
}
