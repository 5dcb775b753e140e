//! The way back: the host's answer reaches the tenant, and a number that somebody else holds becomes another on both sides.

use anyhow::bail;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::beside;
use super::services::{LOST, Twins};
use super::stage::Stage;
use super::world::World;
use crate::foreign::Holder;

/// The one whose node port is taken.
const REPLACED: &str = "metrics";
/// The one whose cluster IP is taken.
pub(super) const MOVED: &str = "cache";

/// Numbers that no API server draws by itself, so that it is certain who is in whose way.
const NODE_PORT: u16 = 30_080;
const CLUSTER_IP: &str = "10.43.0.80";

/// An address for documentation (RFC 5737).
const ADDRESS: &str = "203.0.113.10";

/// The reason of the Events for a number that became another.
const RENUMBERED: &str = "Renumbered";

/// The cloud gives the twin an address.
pub(super) async fn address(stage: &mut Stage, twins: &Twins) -> anyhow::Result<()> {
    stage.begin(
        "An address from the cloud",
        "The host's cloud (played here) gives the twin of `edge` an address; the tenant sees nothing of the host, and \
         finds it on its own Service instead of `<pending>`.",
    );
    let (service, twin) = twins.cloud_gives(LOST, &json!([{"ip": ADDRESS}])).await?;
    stage.tick(&format!("`{LOST}` has {ADDRESS} in the virtual cluster"));
    stage.table(&beside::addresses(&service, &twin));
    Ok(())
}

/// A foreign Service holds the node port.
pub(super) async fn node_port(stage: &mut Stage, world: &World, twins: &Twins) -> anyhow::Result<()> {
    stage.begin(
        "A taken node port",
        "A node port is a port of the host's machines, and only one Service can have it; the tenant asks for one that \
         somebody else has, so both sides agree on another.",
    );
    let holder = Holder::of_node_port(&world.host()?.client().await?, NODE_PORT, "TCP").await?;
    stage.tick(&format!("a Service of the platform team holds node port {NODE_PORT} of the host"));
    let ports = json!([{"port": 9090, "nodePort": NODE_PORT}]);
    let made = wish(twins, REPLACED, json!({"type": "NodePort", "ports": ports})).await?;
    healed(stage, twins, &made, &format!("`{REPLACED}` asked for {NODE_PORT}; both sides now have another"), &holder)
        .await
}

/// A foreign Service holds the cluster IP.
pub(super) async fn cluster_ip(stage: &mut Stage, world: &World, twins: &Twins) -> anyhow::Result<()> {
    stage.begin(
        "A taken cluster IP",
        "The tenant's DNS answers with the tenant's address, but the host's network routes it: were they to differ, its \
         pods would reach somebody else. So the tenant's Service moves to the twin's address, and stays the same object.",
    );
    let holder = Holder::of_cluster_ips(&world.host()?.client().await?, &[CLUSTER_IP]).await?;
    stage.tick(&format!("a Service of the platform team holds {CLUSTER_IP} on the host"));
    let made = wish(twins, MOVED, json!({"clusterIP": CLUSTER_IP, "ports": [{"port": 6379}]})).await?;
    healed(
        stage,
        twins,
        &made,
        &format!("`{MOVED}` asked for {CLUSTER_IP}; both sides now have another, and its UID is the same"),
        &holder,
    )
    .await
}

async fn wish(twins: &Twins, name: &str, mut spec: Value) -> anyhow::Result<Service> {
    spec["selector"] = json!({"app": name});
    twins.make(&serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))?).await
}

async fn healed(stage: &mut Stage, twins: &Twins, made: &Service, text: &str, holder: &Holder) -> anyhow::Result<()> {
    let (service, twin) = twins.heals(made).await?;
    stage.tick(text);
    stage.table(&beside::numbers(&service, &twin));
    let event = twins.event(&service, RENUMBERED).await?;
    stage.tick(&format!("the tenant is told, by an Event `{RENUMBERED}` on `{}`", service.name_any()));
    stage.detail(&format!("\"{event}\""));
    if !holder.is_untouched().await? {
        bail!("the Service of the platform team was touched");
    }
    Ok(())
}
