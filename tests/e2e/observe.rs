//! What several tests say and look at: Services without numbers, labeled metrics, writes in one host namespace, equality of
//! a tenant with its twins.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k3k_expose_proto::message::Put;
use k3k_expose_proto::service::ClusterIps;
use k3k_expose_tests::audit::{AuditLog, Entry, Mark};
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::k3k::{Tenant, TenantOptions};
use k3k_expose_tests::product::{Agent, HOST_API_USER, Product};
use k3k_expose_tests::rig::virtual_options;
use k3k_expose_tests::wire::{cluster_ip_service, put};
use k3k_expose_tests::{ControlPlane, Rig};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::world::{SOON, World};

/// A virtual cluster that ends with its test, so that it costs nobody memory for longer. It is not one of those that share out
/// the host's numbers: whoever uses it asks for addresses in 10.43.0.0/24, which no API server draws, or for none.
pub async fn virtual_cluster(name: &str) -> Result<Arc<ControlPlane>> {
    let options = virtual_options(name).without_controllers();
    Ok(Arc::new(ControlPlane::start(options).await?))
}

/// A tenant with such a virtual cluster on the shared host.
pub async fn world(name: &str, options: TenantOptions) -> Result<World> {
    let rig = Rig::shared();
    let plane = virtual_cluster(name).await?;
    World::on(rig.host().await?, rig.host_api().await?, plane, name, options).await
}

/// The value of one metric with exactly these labels, 0 while there is none.
pub async fn metric(product: &Product, series: &str) -> Result<f64> {
    let text = product.metrics().await?;
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    Ok(value.map(str::parse).transpose()?.unwrap_or_default())
}

/// Waits until so many Services of an agent have this outcome.
pub async fn outcomes(agent: &Agent, outcome: &str, count: usize, deadline: Duration) -> Result<()> {
    let series = format!("k3k_expose_agent_services{{outcome=\"{outcome}\"}}");
    eventually(&format!("{count} services {outcome}"), deadline, async || {
        let found = metric(agent, &series).await?;
        #[expect(clippy::cast_precision_loss, reason = "tests have few Services")]
        let wanted = count as f64;
        ensure!((found - wanted).abs() < 0.5, "{found}");
        Ok(())
    })
    .await
}

/// Waits until an agent has a session.
pub async fn session_up(agent: &Agent) -> Result<()> {
    eventually("a session", SOON, async || {
        let up = metric(agent, "k3k_expose_agent_session_up").await?;
        ensure!(up > 0.5, "none");
        Ok(())
    })
    .await
}

/// What host-api wrote into one namespace since the mark.
pub async fn writes(audit: &AuditLog, mark: Mark, namespace: &str) -> Result<Vec<Entry>> {
    let writes = audit.writes_since(mark, |user| user == HOST_API_USER).await?;
    Ok(writes.counted.into_iter().filter(|entry| entry.namespace == namespace).collect())
}

/// Waits for a warning Event with this reason on the tenant's Cluster, and gives its note.
pub async fn event(host: &Client, tenant: &Tenant, reason: &str) -> Result<String> {
    let events: Api<Event> = Api::namespaced(host.clone(), &tenant.namespace);
    eventually(&format!("an event {reason} on {}", tenant.cluster), SOON, async || {
        let found = events.list(&ListParams::default()).await?.items.into_iter().find(|event| {
            let about = event.regarding.as_ref().and_then(|about| about.uid.as_deref());
            event.reason.as_deref() == Some(reason) && about == Some(&tenant.cluster_uid)
        });
        let event = found.context("there is none")?;
        ensure!(event.type_.as_deref() == Some("Warning"), "it is {:?}", event.type_);
        anyhow::Ok(event.note.unwrap_or_default())
    })
    .await
}

/// Creates Services, eight at a time.
pub async fn create_all(api: &Api<Service>, services: Vec<Service>) -> Result<Vec<Service>> {
    let create = |service: Service| async move { api.create(&PostParams::default(), &service).await };
    Ok(stream::iter(services).map(create).buffer_unordered(8).try_collect().await?)
}

/// The `put` of a Service without numbers, so that nobody else can hold them.
pub fn headless(name: &str) -> Result<Put> {
    let mut service = cluster_ip_service("web", 80)?;
    service.cluster_ips = ClusterIps::Headless;
    put("first", name, &format!("uid-{name}"), service)
}

/// UID of `kube-system`, by which a virtual cluster is told from any other.
pub async fn virtual_uid(client: &Client) -> Result<String> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.get("kube-system").await?.uid().context("an object has a UID")
}

/// The twins of a tenant by name: everything in its host namespace.
pub async fn twins(tenant: &Tenant) -> Result<BTreeMap<String, Service>> {
    let found = tenant.host_services().list(&ListParams::default()).await?;
    Ok(found.items.into_iter().map(|twin| (twin.name_any(), twin)).collect())
}

/// Whether every virtual Service has exactly its right twin, and no other Service stands in the host namespace.
pub async fn equal(virtual_cluster: &Client, tenant: &Tenant) -> Result<usize> {
    let all: Api<Service> = Api::all(virtual_cluster.clone());
    let mut standing = twins(tenant).await?;
    let mut count = 0;
    for service in all.list(&ListParams::default()).await?.items {
        let (name, namespace) = (service.name_any(), service.namespace().unwrap_or_default());
        if (namespace.as_str(), name.as_str()) == ("default", "kubernetes") {
            continue;
        }
        let twin = standing.remove(&tenant.twin_name(&name, &namespace));
        let twin = twin.with_context(|| format!("{namespace}/{name} has no twin"))?;
        let (wanted, found) = (right(tenant, &service), shown(&twin));
        ensure!(wanted == found, "{namespace}/{name} should be {wanted}, is {found}");
        count += 1;
    }
    ensure!(standing.is_empty(), "nobody wants {:?}", standing.keys());
    Ok(count)
}

/// What the twin of a Service must show.
fn right(tenant: &Tenant, service: &Service) -> Value {
    let mut spec = json!(service.spec);
    if let Some(selector) = spec.get_mut("selector") {
        selector["k3k.io/clusterName"] = json!(tenant.cluster);
        selector["k3k.io/namespace"] = json!(service.namespace());
    }
    let mut labels = json!(service.labels());
    labels["k3k.io/clusterName"] = json!(tenant.cluster);
    labels["app.kubernetes.io/managed-by"] = json!("k3k-expose");
    json!({"uid": service.uid(), "labels": labels, "spec": spec})
}

fn shown(twin: &Service) -> Value {
    let uid = twin.annotations().get("expose.k3k.io/uid");
    json!({"uid": uid, "labels": twin.labels(), "spec": twin.spec})
}
