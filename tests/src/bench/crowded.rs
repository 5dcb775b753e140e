//! A host where somebody else is everywhere in the way, and how long one conflict takes to heal there.
//!
//! Foreign Services hold exactly the cluster IPs that the virtual cluster drew. It has clusters of its own with equal ranges,
//! as k3k gives them: only there can the tenant have what the host chooses.

use std::time::Duration;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Service;
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::bodies::VIRTUAL_NAMESPACE;
use super::field::{Field, PATIENCE};
use super::report::{Crowded, Heal};
use super::service_watch::ServiceWatch;
use crate::foreign::Holder;
use crate::progress::say;
use crate::told;

/// Conflicts of each kind.
const SAMPLES: u8 = 20;

/// For one conflict.
const DEADLINE: Duration = Duration::from_secs(30);

/// What came of both measurements.
pub(super) struct Outcome {
    pub(super) crowded: Crowded,
    pub(super) heal: Heal,
}

pub(super) async fn measure(services: usize) -> anyhow::Result<Outcome> {
    let mut field = Field::boot_equal().await?;
    field.fill(services).await?;
    say(&format!("{services} foreign Services take the cluster IPs of {services} Services"));
    let held = occupy(&field).await?;
    let watch = ServiceWatch::start(Api::namespaced(field.virtual_client().await?, VIRTUAL_NAMESPACE)).await?;
    let began = field.start().await?;
    let all = watch.wait("every Service synced", PATIENCE, |seen| (seen.synced() >= services).then_some(())).await;
    if let Err(error) = &all {
        say(&format!("{error:#}"));
    }
    let took = began.elapsed();
    let crowded = judge(&field, &held, all.is_ok().then_some(took)).await?;
    say(&format!("{SAMPLES} taken node ports, {SAMPLES} taken cluster IPs"));
    let heal = heal(&field, &watch).await?;
    field.stop().await?;
    Ok(Outcome { crowded, heal })
}

/// Gives every cluster IP of the tenant's to somebody else on the host.
async fn occupy(field: &Field) -> anyhow::Result<Vec<Holder>> {
    let host = field.host_client().await?;
    let addresses = field.tenants().await?.into_iter().filter_map(|service| service.spec?.cluster_ip);
    let holders = addresses.map(|address| {
        let host = host.clone();
        async move { Holder::of_cluster_ips(&host, &[&address]).await }
    });
    stream::iter(holders).buffer_unordered(8).try_collect().await
}

async fn judge(field: &Field, held: &[Holder], took: Option<Duration>) -> anyhow::Result<Crowded> {
    let twins = field.tenant().host_services().list(&ListParams::default()).await?.items;
    let address = |service: &Service| service.spec.as_ref().and_then(|spec| spec.cluster_ip.clone());
    let of_twin = |service: &Service| {
        let name = field.tenant().twin_name(&service.name_any(), VIRTUAL_NAMESPACE);
        twins.iter().find(|twin| twin.name_any() == name).and_then(address)
    };
    let taken: Vec<_> = held.iter().map(|holder| address(&holder.service)).collect();
    let services = field.tenants().await?;
    let is_same = |service: &&Service| {
        let own = address(service);
        own.is_some() && own == of_twin(service) && !taken.contains(&own)
    };
    let is_synced = |service: &&Service| told::synced(service).is_some_and(|said| said.status == "True");
    Ok(Crowded {
        synced: services.iter().filter(is_synced).count(),
        same_cluster_ip: services.iter().filter(is_same).count(),
        s: took.map(|took| took.as_secs_f64()),
    })
}

/// One conflict after the other, each from before the tenant's call until both watches have told of the same numbers.
async fn heal(field: &Field, watch: &ServiceWatch) -> anyhow::Result<Heal> {
    let host = field.host_client().await?;
    let mut wishes: Vec<(String, Value)> = Vec::new();
    for index in 0..SAMPLES {
        // From the parts of both ranges that no API server draws from by itself.
        let (port, address) = (30_000 + u16::from(index), format!("10.43.0.{}", 2 + index));
        Holder::of_node_port(&host, port, "TCP").await?;
        Holder::of_cluster_ips(&host, &[&address]).await?;
        wishes.push((
            format!("node-port-{index}"),
            json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}),
        ));
        wishes.push((format!("cluster-ip-{index}"), json!({"clusterIP": address, "ports": [{"port": 80}]})));
    }
    // host-api learns of the holders by its watch: a twin that was made after them shows that it has.
    let fence = one(field, watch, "fence", json!({"ports": [{"port": 80}]})).await?;
    say(&format!("a Service without any conflict: {fence:.1} ms"));
    let (mut node_port, mut cluster_ip) = (Vec::new(), Vec::new());
    for (name, spec) in wishes {
        let kind = if name.starts_with("node-port") { &mut node_port } else { &mut cluster_ip };
        kind.push(one(field, watch, &name, spec).await?);
    }
    Ok(Heal::of(&node_port, &cluster_ip))
}

/// Makes one Service and gives the milliseconds until both sides have the same numbers.
async fn one(field: &Field, watch: &ServiceWatch, name: &str, spec: Value) -> anyhow::Result<f64> {
    let services: Api<Service> = Api::namespaced(field.virtual_client().await?, VIRTUAL_NAMESPACE);
    let service: Service = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))?;
    let twin = field.tenant().twin_name(name, VIRTUAL_NAMESPACE);
    services.get_opt("warm-up").await?;
    let began = Instant::now();
    services.create(&PostParams::default(), &service).await?;
    let equal = watch.wait_with(field.watch(), name, DEADLINE, |here, there| {
        let (ours, since) = here.numbers(name)?;
        let (theirs, theirs_since) = there.numbers(&twin)?;
        (ours == theirs).then_some(since.max(theirs_since))
    });
    let equal = equal.await.with_context(|| format!("the numbers of {name} never became equal"))?;
    Ok(equal.saturating_duration_since(began).as_secs_f64() * 1000.0)
}
