//! Numbers that change, and types that change, as packets see them.

use anyhow::ensure;
use kube::Api;
use serde_json::json;
use tokio::time::Instant;

use super::super::stage::Stage;
use super::center::{Center, Crew, SOON, address, entry};
use super::checks::{check, cluster_ip, ends, names_of, node_port, pod_of, reaches};
use crate::eventually::eventually;
use crate::foreign::Holder;

/// Numbers that no API server draws by itself.
const NODE_PORT: u16 = 30_080;
const CLUSTER_IP: &str = "10.43.0.80";

pub(super) async fn all(stage: &mut Stage, center: &Center, crew: &Crew<'_>) -> anyhow::Result<()> {
    stage.begin(
        "Numbers and types that change",
        "A number that somebody else holds on the host is replaced on both sides, and what the tenant then reads is what works.",
    );
    replaced(stage, center, crew).await?;
    types(stage, center, crew).await
}

async fn replaced(stage: &mut Stage, center: &Center, crew: &Crew<'_>) -> anyhow::Result<()> {
    let (alpha, client) = (&center.alpha, &center.fabric.client);
    let web = names_of(&crew.alpha, "web").await?;
    let from = pod_of(&crew.alpha, "other").await?;
    check(stage, "A cluster IP that is held on the host: the new one works", async {
        Holder::of_cluster_ips(&center.host_client, &[CLUSTER_IP]).await?;
        let began = Instant::now();
        let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
        let spec = json!({"clusterIP": CLUSTER_IP, "selector": {"app": "web"}, "ports": ports});
        let moved = cluster_ip(&alpha.serve("moved", spec).await?)?;
        ensure!(moved != CLUSTER_IP, "it kept its address");
        reaches(&from.namespace, &moved, 80, &web).await?;
        Ok(format!("{CLUSTER_IP} became {moved}; an answer {:.2} s after it was made", began.elapsed().as_secs_f64()))
    })
    .await;
    check(stage, "A node port that is held on the host: the new one works", async {
        Holder::of_node_port(&center.host_client, NODE_PORT, "TCP").await?;
        let began = Instant::now();
        let ports = json!([{"name": "http", "port": 80, "targetPort": 8080, "nodePort": NODE_PORT}]);
        let service =
            alpha.serve("replaced", json!({"type": "NodePort", "selector": {"app": "web"}, "ports": ports})).await?;
        let port = node_port(&service, "http")?;
        ensure!(port != i32::from(NODE_PORT), "it kept its port");
        reaches(client, center.fabric.nodes[0].address, port, &web).await?;
        Ok(format!("{NODE_PORT} became {port}; an answer {:.2} s after it was made", began.elapsed().as_secs_f64()))
    })
    .await;
    Ok(())
}

async fn types(stage: &mut Stage, center: &Center, crew: &Crew<'_>) -> anyhow::Result<()> {
    let (alpha, client) = (&center.alpha, &center.fabric.client);
    let web = names_of(&crew.alpha, "web").await?;
    let from = pod_of(&crew.alpha, "other").await?;
    let node = center.fabric.nodes[0].address.to_string();
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    let service = alpha.serve("shape", json!({"type": "NodePort", "selector": {"app": "web"}, "ports": ports})).await?;
    let ip = cluster_ip(&service)?;
    let port = node_port(&service, "http")?;
    reaches(client, &node, port, &web).await?;
    check(stage, "NodePort becomes ClusterIP: the node port is closed, the cluster IP answers", async {
        alpha.change("shape", json!({"spec": {"type": "ClusterIP"}})).await?;
        ends(client, &node, port).await?;
        reaches(&from.namespace, &ip, 80, &web).await?;
        Ok(format!("{node}:{port} is closed, {ip} answers"))
    })
    .await;
    let mut lb = String::new();
    check(stage, "ClusterIP becomes LoadBalancer: an address appears and answers", async {
        alpha.change("shape", json!({"spec": {"type": "LoadBalancer"}})).await?;
        lb = address(&alpha.services(), "shape").await?;
        reaches(client, &lb, 80, &web).await?;
        Ok(lb.clone())
    })
    .await;
    check(stage, "LoadBalancer becomes NodePort: the address goes, a node port answers", async {
        alpha.change("shape", json!({"spec": {"type": "NodePort"}})).await?;
        let services: Api<_> = alpha.services();
        let port = eventually("a node port and no address", SOON, async || {
            let service = services.get("shape").await?;
            ensure!(entry(&service).is_none(), "the address stands");
            node_port(&service, "http")
        })
        .await?;
        ends(client, &lb, 80).await?;
        reaches(client, &node, port, &web).await?;
        Ok(format!("{lb} is silent, {node}:{port} answers"))
    })
    .await;
    Ok(())
}
