//! Ingresses beside a plain client: the same bodies, on the same host, by the same account.
//!
//! Both sides have one watch on all Ingresses of the host. The plain run ends with its last answer, ours with a look that
//! finds the last twin: what is in doubt is in favor of the plain client.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::bodies::VIRTUAL_NAMESPACE;
use super::field::{Field, PATIENCE, count};
use super::report::Ingresses;
use super::spending::Spending;
use super::{AFTERMATH, WORKERS};
use crate::admitted::{apply, of_namespace};
use crate::eventually::eventually;
use crate::progress::say;

/// The field manager of host-api: its bookkeeping is part of what is stored.
const FIELD_MANAGER: &str = "k3k-expose";
/// DESIGN 11, as for Services.
const SETTLE: Duration = Duration::from_secs(30);

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

    let twins: Api<Ingress> = Api::namespaced(field.plain_client().await?, field.namespace());
    let standing: Api<Ingress> = Api::namespaced(field.host_client().await?, field.namespace());
    let mut limit_s = f64::INFINITY;
    for workers in WORKERS {
        say(&format!("a plain client with {workers} workers creates {n} Ingresses"));
        let mut watch = JoinSet::new();
        let all: Api<Ingress> = Api::all(field.plain_client().await?);
        watch.spawn(async move { watcher(all, watcher::Config::default()).try_for_each(|_| async { Ok(()) }).await });
        limit_s = limit_s.min(create_all(&twins, bodies.clone(), workers).await?.as_secs_f64());
        standing.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        until(&standing, 0).await?;
    }

    say(&format!("initial sync of {n} Ingresses, then 30 s"));
    let allow = json!({"ingresses": {"classes": ["public"], "hostSuffixes": ["bench.example"]}});
    apply(&field.host_client().await?, field.namespace(), &of_namespace(field.namespace(), allow)).await?;
    let agent = [("K3K_EXPOSE_SYNC_INGRESSES".to_owned(), "true".to_owned())];
    let spending = Spending::of_writes(&field).await?;
    let began = field.start_with(agent.into()).await?;
    until(&standing, n).await?;
    let initial_s = began.elapsed().as_secs_f64();
    field.programs()?.agent.wait_ok("/syncz", PATIENCE).await?;
    tokio::time::sleep(SETTLE).await;
    let initial = spending.writes(&field).await?;
    let usage = field.programs()?.usage().await?;

    let mut report = Ingresses {
        n,
        limit_s,
        initial_s,
        initial_to_limit: initial_s / limit_s,
        // The Service and the classes among them.
        host_writes_initial: initial.on_host,
        virtual_writes_initial: initial.in_virtual,
        ..Ingresses::default()
    }
    .with_memory(&usage);
    for side in ["the agent", "host-api"] {
        say(&format!("restart of {side}"));
        let spending = Spending::of_writes(&field).await?;
        match side {
            "the agent" => field.programs()?.restart_agent().await?,
            _ => field.programs()?.restart_host_api().await?,
        }
        tokio::time::sleep(AFTERMATH).await;
        let written = spending.writes(&field).await?;
        report.writes_restarts += written.on_host + written.in_virtual;
    }
    field.stop().await?;
    Ok(report)
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

async fn until(standing: &Api<Ingress>, n: usize) -> anyhow::Result<()> {
    eventually(&format!("{n} Ingresses on the host"), PATIENCE, async || {
        let found = count(standing).await?;
        ensure!(found == n, "{found}");
        anyhow::Ok(())
    })
    .await
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
