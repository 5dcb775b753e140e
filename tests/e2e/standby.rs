//! Three server pods of one tenant: one speaks, and the next is there at once when it goes or its API server does not answer.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::StreamExt;
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::front::Front;
use k3k_expose_tests::k3k::{Tenant, TenantOptions};
use k3k_expose_tests::product::{Agent, AgentOptions};
use k3k_expose_tests::{ControlPlane, Rig, told, took};
use k8s_openapi::api::core::v1::Service;
use kube::api::{ListParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::task::{JoinHandle, JoinSet, LocalSet, spawn_local};
use tokio::time::Instant;

use crate::observe::{create_all, metric, outcomes, session_up, twins, virtual_cluster};
use crate::world::{SOON, service};

const SERVERS: u32 = 3;
const BATCH: usize = 20;
const FIGURE: Duration = Duration::from_secs(1);

/// A server pod: its agent, and the line to its own API server.
struct Pod {
    agent: Agent,
    line: JoinHandle<Infallible>,
}

/// The line of one pod to an API server that only this pod loses: servers of k3s share their data, not their processes.
async fn pod(tenant: &Tenant, plane: &ControlPlane, ordinal: u32) -> Result<Pod> {
    let front = Front::open().await?;
    let mut options = AgentOptions::in_pod(&tenant.server_pod_name(ordinal));
    options.env.push(("K3K_EXPOSE_VIRTUAL_SERVER".to_owned(), format!("https://{}", front.address())));
    let server = plane.url().trim_start_matches("https://").to_owned();
    let line = spawn_local(front.forward(async move || Some(server.clone())));
    let token = tenant.server_pod_token(ordinal).await?;
    let agent = Agent::start(plane, Rig::shared().host_api().await?, &token, options).await?;
    session_up(&agent).await?;
    Ok(Pod { agent, line })
}

async fn is_active(pod: &Pod) -> Result<bool> {
    Ok(metric(&pod.agent, "k3k_expose_agent_active").await? > 0.5)
}

/// Waits until this pod speaks.
async fn speaks(pod: &Pod) -> Result<()> {
    eventually("the pod speaks", Duration::from_secs(60), async || {
        ensure!(is_active(pod).await?, "not yet");
        anyhow::Ok(())
    })
    .await
}

#[tokio::test]
async fn of_three_server_pods_one_speaks_and_the_next_follows_within_a_second_and_no_write_is_done_twice() -> Result<()>
{
    // The lines stay on one thread.
    LocalSet::new().run_until(three()).await
}

async fn three() -> Result<()> {
    let host = Rig::shared().host().await?;
    let plane: Arc<ControlPlane> = virtual_cluster("standby").await?;
    let options = TenantOptions { servers: SERVERS, ..TenantOptions::default() };
    let tenant = Tenant::create(&host.client().await?, "host-standby", "mine", options).await?;
    let services: Api<Service> = Api::namespaced(plane.client().await?, "default");
    let in_virtual = Revisions::watch(services.clone());
    let on_host = Revisions::watch(Api::namespaced(host.client().await?, &tenant.namespace));

    // In any order; the first one speaks until the lowest has been there for a while.
    let mut pods = BTreeMap::new();
    for ordinal in [1, 2, 0] {
        pods.insert(ordinal, pod(&tenant, &plane, ordinal).await?);
    }
    speaks(&pods[&0]).await?;
    one_speaks(&pods).await?;
    batch(&services, 0).await?;
    outcomes(&pods[&0].agent, "applied", BATCH, SOON).await?;

    // While there is something to do.
    batch(&services, 1).await?;
    pods[&0].agent.kill().await?;
    let began = Instant::now();
    speaks(&pods[&1]).await?;
    took("the next server pod speaks after a kill", began.elapsed(), FIGURE);
    batch(&services, 2).await?;
    outcomes(&pods[&1].agent, "applied", 3 * BATCH, SOON).await?;
    pods.remove(&0);
    one_speaks(&pods).await?;

    let began = Instant::now();
    pods[&1].line.abort();
    speaks(&pods[&2]).await?;
    took("the next server pod speaks after its API server was lost", began.elapsed(), FIGURE);
    batch(&services, 3).await?;
    outcomes(&pods[&2].agent, "applied", 4 * BATCH, SOON).await?;
    one_speaks(&pods).await?;

    assert_eq!(twins(&tenant).await?.len(), 4 * BATCH);
    eventually("all are told", SOON, async || {
        let all = services.list(&ListParams::default()).await?.items;
        let told = all.iter().filter(|one| told::synced(one).is_some_and(|said| said.status == "True")).count();
        ensure!(told == 4 * BATCH, "{told}");
        anyhow::Ok(())
    })
    .await?;
    services
        .create(&PostParams::default(), &service("last", json!({"clusterIP": "None", "ports": [{"port": 80}]})))
        .await?;
    let made = on_host.up_to("last-").await?;
    ensure!(made.len() == 4 * BATCH && made.values().all(|revisions| *revisions == 1), "twins: {made:?}");
    let told = in_virtual.up_to("last").await?;
    ensure!(told.len() == 4 * BATCH && told.values().all(|revisions| *revisions == 2), "statuses: {told:?}");
    Ok(())
}

/// Exactly one speaks, and all the others are there.
async fn one_speaks(pods: &BTreeMap<u32, Pod>) -> Result<()> {
    eventually("one speaks and the others stand by", SOON, async || {
        let mut active = 0;
        for pod in pods.values() {
            active += usize::from(is_active(pod).await?);
            ensure!(metric(&pod.agent, "k3k_expose_agent_session_up").await? > 0.5, "one is not there");
        }
        ensure!(active == 1, "{active} speak");
        Ok(())
    })
    .await
}

async fn batch(services: &Api<Service>, number: usize) -> Result<()> {
    let spec = json!({"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"port": 80}]});
    let all = (0..BATCH).map(|index| service(&format!("web-{number}-{index}"), spec.clone()));
    create_all(services, all.collect()).await.map(drop)
}

/// The revisions of each Service that a watch has told of. The audit log would say less: it has writes that were refused, and
/// none of a write that was done for a client who was gone before the answer.
struct Revisions {
    seen: Arc<Mutex<BTreeMap<String, BTreeSet<String>>>>,
    _watch: JoinSet<()>,
}

impl Revisions {
    fn watch(services: Api<Service>) -> Self {
        let seen = Arc::new(Mutex::new(BTreeMap::<String, BTreeSet<String>>::new()));
        let (noted, mut watch) = (Arc::clone(&seen), JoinSet::new());
        watch.spawn(async move {
            let changes = watcher(services, watcher::Config::default()).applied_objects();
            let changes = changes.filter_map(async |event| event.ok());
            changes
                .for_each(async |service| {
                    let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                    noted.entry(service.name_any()).or_default().extend(service.resource_version());
                })
                .await;
        });
        Self { seen, _watch: watch }
    }

    /// How many revisions each Service of a batch has had, once the watch tells of one whose name has this in it.
    async fn up_to(&self, last: &str) -> Result<BTreeMap<String, usize>> {
        eventually("the last Service is seen", SOON, async || {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            ensure!(seen.keys().any(|name| name.contains(last)), "not yet");
            let batches = seen.iter().filter(|(name, _)| name.starts_with("web-"));
            Ok(batches.map(|(name, revisions)| (name.clone(), revisions.len())).collect())
        })
        .await
    }
}
