//! The plain client: what the host itself can take, with nothing in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::PostParams;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::field::Field;
use super::service_watch::ServiceWatch;

/// The field manager of host-api: its bookkeeping is part of what is stored.
const FIELD_MANAGER: &str = "k3k-expose";

/// Time for this many workers to create all twins: one shared client, no retries, no rate limit.
///
/// It ends with the last answer, a moment before the watch that ends the measured run: what is in doubt is in its favor.
pub(super) async fn create_all(field: &Field, workers: usize) -> anyhow::Result<Duration> {
    let bodies = Arc::new(field.twin_bodies().await?);
    let client = field.plain_client().await?;
    // In the measured run host-api has its own watch on all Services of the host.
    let other = ServiceWatch::start(Api::all(client.clone())).await?;
    let services: Api<Service> = Api::namespaced(client, field.namespace());
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..workers {
        tasks.spawn(work(services.clone(), Arc::clone(&bodies), Arc::clone(&next)));
    }
    while let Some(done) = tasks.join_next().await {
        done.context("a worker died")??;
    }
    let took = began.elapsed();
    drop(other);
    Ok(took)
}

async fn work(services: Api<Service>, bodies: Arc<Vec<Service>>, next: Arc<AtomicUsize>) -> anyhow::Result<()> {
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
        services.create(&params, body).await?;
    }
    Ok(())
}
