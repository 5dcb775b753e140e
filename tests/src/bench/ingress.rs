//! Ingresses beside a plain client: the same bodies, on the same host, by the same account.
//!
//! One watch on all Ingresses of the host runs beside all, another is host-api's own. The plain run ends with its last answer, ours
//! when the watch tells of the last twin: what is in doubt is in favor of the plain client. It makes them without the fence and
//! within it, which shows what those rules cost. What counts is the median of rounds in which each has its turn, seconds after
//! the other: this machine's speed drifts by half, so that the best of each would be of different times.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::reflector::{self, reflector};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::bodies::VIRTUAL_NAMESPACE;
use super::field::{Field, PATIENCE, SETTLE};
use super::report::{Ingresses, Percentiles};
use super::spending::Spending;
use super::{AFTERMATH, WORKERS};
use crate::admitted::{apply, of_namespace};
use crate::progress::say;

/// The field manager of host-api: its bookkeeping is part of what is stored.
const FIELD_MANAGER: &str = "k3k-expose";

pub(super) async fn measure(n: usize) -> anyhow::Result<Ingresses> {
    let mut field = Field::boot().await?;
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    let services: Api<Service> = Api::namespaced(field.virtual_client().await?, VIRTUAL_NAMESPACE);
    services.create(&PostParams::default(), &serde_json::from_value(service)?).await?;
    let made: Api<Ingress> = Api::namespaced(field.virtual_client().await?, VIRTUAL_NAMESPACE);
    let wished = (0..n).map(wished).collect::<Result<Vec<_>, _>>()?;
    create_all(&made, wished, 8).await?;
    let bodies: Vec<Ingress> = made
        .list(&ListParams::default())
        .await?
        .items
        .iter()
        .map(|ingress| twin(&field, ingress))
        .collect::<Result<_, _>>()?;

    let allow = json!({"ingresses": {"classes": ["public"], "hostSuffixes": ["bench.example"]}});
    apply(&field.host_client().await?, field.namespace(), &of_namespace(field.namespace(), allow)).await?;
    let fenced = field.fenced_client().await?;
    let mut standing = Standing::watch(Api::all(field.host_client().await?));
    let mut report = Ingresses { n, ..Ingresses::default() };
    let (mut plain, mut within, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    // An odd number, so that there is one in the middle.
    for (round, workers) in WORKERS.repeat(3).into_iter().enumerate() {
        for (client, took) in [(field.plain_client().await?, &mut plain), (fenced.clone(), &mut within)] {
            say(&format!("a plain client with {workers} workers creates {n} Ingresses"));
            let host_apis = Standing::watch(Api::all(field.plain_client().await?));
            let twins = Api::namespaced(client, field.namespace());
            let seconds = create_all(&twins, bodies.clone(), workers).await?.as_secs_f64();
            say(&format!("took {seconds:.2} s"));
            took.push(seconds);
            drop(host_apis);
            clear(&field, &mut standing).await?;
        }
        say(&format!("initial sync of {n} Ingresses"));
        let spending = Spending::of_writes(&field).await?;
        let began = field.start_with([("K3K_EXPOSE_SYNC_INGRESSES".to_owned(), "true".to_owned())].into()).await?;
        standing.until(n).await?;
        let seconds = began.elapsed().as_secs_f64();
        say(&format!("took {seconds:.2} s"));
        ours.push(seconds);
        field.programs()?.agent.wait_ok("/syncz", PATIENCE).await?;
        if round == 0 {
            say("30 s, then a restart of each");
            tokio::time::sleep(SETTLE).await;
            let initial = spending.writes(&field).await?;
            // The Service and the classes among them.
            (report.host_writes_initial, report.virtual_writes_initial) = (initial.on_host, initial.in_virtual);
            report.writes_restarts = restarts(&field).await?;
            report = report.with_memory(&field.programs()?.usage().await?);
        }
        field.clear(1).await?;
        clear(&field, &mut standing).await?;
    }
    let median = |samples: &[f64]| Percentiles::of(samples).p50;
    let ratio = |to: &[f64]| median(&ours.iter().zip(to).map(|(ours, to)| ours / to).collect::<Vec<_>>());
    (report.limit_s, report.fenced_s, report.initial_s) = (median(&plain), median(&within), median(&ours));
    (report.initial_to_limit, report.initial_to_fenced) = (ratio(&plain), ratio(&within));
    // A watch whose server goes has nothing to tell any more.
    drop(standing);
    field.stop().await?;
    Ok(report)
}

/// Takes every Ingress off the host.
async fn clear(field: &Field, standing: &mut Standing) -> anyhow::Result<()> {
    let all: Api<Ingress> = Api::namespaced(field.host_client().await?, field.namespace());
    all.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    standing.until(0).await
}

/// Writes of both programs in a restart of each.
async fn restarts(field: &Field) -> anyhow::Result<usize> {
    let mut writes = 0;
    for side in ["the agent", "host-api"] {
        let spending = Spending::of_writes(field).await?;
        match side {
            "the agent" => field.programs()?.restart_agent().await?,
            _ => field.programs()?.restart_host_api().await?,
        }
        tokio::time::sleep(AFTERMATH).await;
        let written = spending.writes(field).await?;
        writes += written.on_host + written.in_virtual;
    }
    Ok(writes)
}

/// Time for this many workers to create all of them.
async fn create_all(api: &Api<Ingress>, bodies: Vec<Ingress>, workers: usize) -> anyhow::Result<Duration> {
    let (bodies, next) = (Arc::new(bodies), Arc::new(AtomicUsize::new(0)));
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..workers {
        let (api, bodies, next) = (api.clone(), Arc::clone(&bodies), Arc::clone(&next));
        tasks.spawn(async move {
            let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
            while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                api.create(&params, body).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.context("a worker died")??;
    }
    Ok(began.elapsed())
}

/// How many Ingresses stand, as a watch tells; it ends when this value is dropped.
struct Standing {
    count: watch::Receiver<usize>,
    _task: JoinSet<()>,
}

impl Standing {
    fn watch(api: Api<Ingress>) -> Self {
        let (counter, count) = watch::channel(0);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let (store, writer) = reflector::store();
            let mut events = pin!(reflector(writer, watcher(api, watcher::Config::default())));
            while let Some(Ok(_)) = events.next().await {
                counter.send_replace(store.len());
            }
        });
        Self { count, _task: task }
    }

    async fn until(&mut self, n: usize) -> anyhow::Result<()> {
        let found = timeout(PATIENCE, self.count.wait_for(|count| *count == n)).await;
        found.with_context(|| format!("{n} Ingresses on the host: not within {PATIENCE:?}"))??;
        Ok(())
    }
}

/// An Ingress of the tenant.
fn wished(index: usize) -> anyhow::Result<Ingress> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": format!("shop-{index:05}"), "labels": {"app": "shop"}},
        "spec": spec("web", &format!("shop-{index:05}.bench.example")),
    }))?)
}

/// The twin of a stored Ingress of the tenant, written from the contract.
fn twin(field: &Field, ingress: &Ingress) -> anyhow::Result<Ingress> {
    let (name, tenant) = (ingress.name_any(), field.tenant());
    let mut labels = ingress.labels().clone();
    labels.insert("k3k.io/clusterName".to_owned(), tenant.cluster.clone());
    labels.insert("app.kubernetes.io/managed-by".to_owned(), "k3k-expose".to_owned());
    Ok(serde_json::from_value(json!({
        "metadata": {
            "name": tenant.twin_name(&name, VIRTUAL_NAMESPACE),
            "labels": labels,
            "annotations": {
                "k3k.io/name": name,
                "k3k.io/namespace": VIRTUAL_NAMESPACE,
                "expose.k3k.io/uid": ingress.uid(),
                "expose.k3k.io/virtual-cluster": field.virtual_uid(),
            },
            "ownerReferences": [tenant.owner_reference(false)],
        },
        "spec": spec(&tenant.twin_name("web", VIRTUAL_NAMESPACE), &format!("{name}.bench.example")),
    }))?)
}

fn spec(service: &str, host: &str) -> Value {
    let backend = json!({"service": {"name": service, "port": {"number": 80}}});
    let paths = json!([{"path": "/", "pathType": "Prefix", "backend": backend}]);
    json!({"ingressClassName": "public", "rules": [{"host": host, "http": {"paths": paths}}]})
}
