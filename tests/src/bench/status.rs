//! How long a load-balancer address takes to reach the virtual cluster's watch: from the host's status, and straight.
//!
//! Open loop and interleaved, as the latencies of changes are. The straight one is written by the agent's own account to a
//! Service that the agent leaves alone, `kube-system/kube-dns`: on any other it would put the status right at once.

use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::bodies::{self, VIRTUAL_NAMESPACE};
use super::field::Field;
use super::latency::Pair;
use super::service_watch::{Seen, ServiceWatch};
use crate::cloud;

/// Load balancers of the tenant; each gets another address every five seconds.
const BALANCERS: usize = 100;
const SAMPLES: usize = 500;
/// Twenty a second on either side are sixty writes: far below what two cores take, so that no queue is measured.
const PERIOD: Duration = Duration::from_millis(50);

/// For the last address of a run to arrive, or the last Service to come and go.
const DEADLINE: Duration = Duration::from_secs(60);

/// One side: whose status is written, and the second byte of its addresses, which are for benchmarks (RFC 2544).
struct Side {
    services: Api<Service>,
    names: Vec<String>,
    network: u8,
}

pub(super) async fn measure(field: &Field) -> anyhow::Result<Pair> {
    let tenants: Api<Service> = Api::namespaced(field.virtual_client().await?, VIRTUAL_NAMESPACE);
    let names: Vec<String> = (0..BALANCERS).map(|index| format!("status-{index}")).collect();
    for name in &names {
        tenants.create(&PostParams::default(), &bodies::balancer(name)?).await?;
    }
    let twins: Vec<String> = names.iter().map(|name| field.tenant().twin_name(name, VIRTUAL_NAMESPACE)).collect();
    field
        .watch()
        .wait("every load balancer", DEADLINE, |seen| twins.iter().all(|twin| seen.made(twin).is_some()).then_some(()))
        .await?;
    // What the agent writes for a new Service is no part of what is measured.
    let watch = ServiceWatch::start(Api::all(field.virtual_client().await?)).await?;
    let synced = |seen: &Seen| names.iter().all(|name| seen.is_synced(name)).then_some(());
    watch.wait("every load balancer synced", DEADLINE, synced).await?;
    // Nor is what the host's controllers do for these, and for those that came and went before.
    field.settled().await?;

    let ours =
        Side { services: Api::namespaced(field.host_client().await?, field.namespace()), names: twins, network: 18 };
    let pair = run_both(field, &watch, &ours).await?;
    for name in &names {
        tenants.delete(name, &DeleteParams::default()).await?;
    }
    let gone = |seen: &Seen| ours.names.iter().all(|twin| seen.gone(twin).is_some()).then_some(());
    field.watch().wait("no load balancer", DEADLINE, gone).await?;
    Ok(pair)
}

async fn run_both(field: &Field, watch: &ServiceWatch, ours: &Side) -> anyhow::Result<Pair> {
    let system: Api<Service> = Api::namespaced(field.virtual_client().await?, "kube-system");
    let untouched = system.create(&PostParams::default(), &bodies::balancer("kube-dns")?).await?;
    let services = Api::namespaced(field.agents_client().await?, "kube-system");
    let direct = Side { services, names: vec![untouched.name_any()], network: 19 };
    for side in [ours, &direct] {
        // The first request of a client also opens its connection.
        side.services.get_opt("warm-up").await?;
    }
    let start = Instant::now() + PERIOD;
    let (ours_began, direct_began) = tokio::try_join!(run(start, ours), run(start + PERIOD / 2, &direct))?;
    Ok(Pair { ours: samples(watch, ours, &ours_began).await?, direct: samples(watch, &direct, &direct_began).await? })
}

/// Writes every address at its time and gives when each call was made, by index.
async fn run(start: Instant, side: &Side) -> anyhow::Result<Vec<Instant>> {
    let mut calls = JoinSet::new();
    let mut due = start;
    for (index, name) in side.names.iter().cycle().take(SAMPLES).enumerate() {
        sleep_until(due).await;
        due += PERIOD;
        let (services, name) = (side.services.clone(), name.clone());
        let entries = json!([{"ip": side.address(index)}]);
        calls.spawn(async move {
            let began = Instant::now();
            cloud::set_ingress(&services, &name, &entries).await.map(|_| (index, began))
        });
    }
    let mut began = vec![start; SAMPLES];
    while let Some(done) = calls.join_next().await {
        let (index, at) = done.context("a call died")??;
        if let Some(slot) = began.get_mut(index) {
            *slot = at;
        }
    }
    Ok(began)
}

async fn samples(watch: &ServiceWatch, side: &Side, began: &[Instant]) -> anyhow::Result<Vec<f64>> {
    let addresses: Vec<String> = (0..SAMPLES).map(|index| side.address(index)).collect();
    let all =
        |seen: &Seen| -> Option<Vec<Instant>> { addresses.iter().map(|address| seen.has_address(address)).collect() };
    let arrived = watch.wait("every address in the virtual cluster", DEADLINE, all).await?;
    let pairs = arrived.iter().zip(began);
    Ok(pairs.map(|(arrived, began)| arrived.saturating_duration_since(*began).as_secs_f64() * 1000.0).collect())
}

impl Side {
    fn address(&self, index: usize) -> String {
        format!("198.{}.{}.{}", self.network, index / 250, 1 + index % 250)
    }
}
