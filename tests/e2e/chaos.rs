//! Whatever is killed whenever: the twins end up equal to the virtual Services.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use fastrand::Rng;
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::k3k::{self, TenantOptions};
use k3k_expose_tests::product::{HostApi, HostApiOptions};
use k3k_expose_tests::progress::say;
use k3k_expose_tests::rig::virtual_options;
use k3k_expose_tests::{ControlPlane, PlaneOptions, took};
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Error, ResourceExt};
use serde_json::json;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::Instant;

use crate::observe::equal;
use crate::world::{World, service};

const CHANGES: usize = 200;
const NAMES: usize = 40;
const KILLS: usize = 10;
/// Repeats a run: set it to the seed that a failed run printed.
const SEED: &str = "K3K_EXPOSE_CHAOS_SEED";
const PATIENCE: Duration = Duration::from_secs(120);

/// Who is killed.
struct Victims {
    host: Returning,
    virtual_cluster: Returning,
    host_api: HostApi,
    world: World,
}

/// A control plane whose API server may just be on its way back.
struct Returning {
    plane: Arc<ControlPlane>,
    under_way: Option<JoinHandle<Result<()>>>,
}

#[tokio::test]
async fn kills_of_everything_during_two_hundred_changes_end_in_equal_state() -> Result<()> {
    // The futures of the rig stay on one thread.
    LocalSet::new().run_until(chaos()).await
}

async fn chaos() -> Result<()> {
    let asked = std::env::var_os(SEED);
    let seed = asked.map_or_else(|| Ok(fastrand::u64(..)), |seed| seed.to_string_lossy().parse())?;
    say(&format!("chaos: {SEED}={seed}"));
    let mut rng = Rng::with_seed(seed);
    let mut victims = Victims::start().await?;
    let services = victims.world.namespace("first").await?;
    // All four are gone together at the last change, so that the time at the end is one of a real return.
    let moments: [BTreeSet<usize>; 4] = std::array::from_fn(|_| {
        let drawn = rng.choose_multiple(0..CHANGES - 1, KILLS - 1);
        drawn.into_iter().chain([CHANGES - 1]).collect()
    });
    let mut kills = 0;
    for number in 0..CHANGES {
        for (victim, moments) in moments.iter().enumerate() {
            if moments.contains(&number) {
                victims.kill(victim).await?;
                kills += 1;
            }
        }
        change(&services, &mut rng, number).await?;
    }
    assert_eq!(kills, 4 * KILLS);
    victims.all_back().await?;
    let began = Instant::now();
    let (world, mut count) = (&victims.world, 0);
    eventually("equal state", PATIENCE, async || {
        count = equal(&world.virtual_cluster, &world.tenant).await?;
        anyhow::Ok(())
    })
    .await?;
    took("equal state after the return of the last one", began.elapsed(), Duration::from_secs(10));
    let standing = services.list(&ListParams::default()).await?.items.len();
    assert!(count == standing && count > 0, "{count} twins, {standing} Services");
    world.agent.wait_ok("/syncz", PATIENCE).await?;
    Ok(())
}

impl Victims {
    async fn start() -> Result<Self> {
        let (host, plane) = tokio::try_join!(
            ControlPlane::start(PlaneOptions::new("chaos-host").without_controllers()),
            ControlPlane::start(virtual_options("chaos").without_controllers()),
        )?;
        let (host, plane) = (Arc::new(host), Arc::new(plane));
        k3k::install(&host.client().await?).await?;
        let host_api = HostApi::start(&host, HostApiOptions::default()).await?;
        let world = World::on(&host, &host_api, Arc::clone(&plane), "chaos", TenantOptions::default()).await?;
        let returning = |plane| Returning { plane, under_way: None };
        Ok(Self { host: returning(host), virtual_cluster: returning(plane), host_api, world })
    }

    /// `kill -9` and begin to start again.
    async fn kill(&mut self, victim: usize) -> Result<()> {
        match victim {
            0 => self.world.agent.restart().await,
            1 => self.host_api.restart().await,
            2 => self.host.kill().await,
            _ => self.virtual_cluster.kill().await,
        }
    }

    async fn all_back(&mut self) -> Result<()> {
        self.host.back().await?;
        self.virtual_cluster.back().await?;
        self.host_api.wait_ready().await?;
        self.world.agent.wait_ready().await
    }
}

impl Returning {
    async fn kill(&mut self) -> Result<()> {
        self.back().await?;
        self.plane.kill_api_server().await?;
        let plane = Arc::clone(&self.plane);
        self.under_way = Some(spawn_local(async move { plane.start_api_server().await }));
        Ok(())
    }

    async fn back(&mut self) -> Result<()> {
        match self.under_way.take() {
            Some(return_) => return_.await?,
            None => Ok(()),
        }
    }
}

/// One change of one Service, tried until the API server has taken it.
pub async fn change(services: &Api<Service>, rng: &mut Rng, number: usize) -> Result<()> {
    let (name, kind) = (format!("web-{}", rng.usize(..NAMES)), rng.u8(..10));
    eventually("a change taken", PATIENCE, async || {
        let Some(standing) = services.get_opt(&name).await? else {
            return done(services.create(&PostParams::default(), &made(&name, number, kind)).await);
        };
        if kind < 3 {
            return done(services.delete(&name, &DeleteParams::default()).await);
        }
        let patch = match kind {
            3 | 4 => json!({"metadata": {"labels": {"round": number.to_string()}}}),
            5 | 6 => json!({"spec": {"selector": {"app": format!("app-{number}")}}}),
            7 => json!({"spec": {"sessionAffinity": if number.is_multiple_of(2) { "ClientIP" } else { "None" }}}),
            _ => json!({"spec": {"publishNotReadyAddresses": number.is_multiple_of(2)}}),
        };
        ensure!(standing.metadata.deletion_timestamp.is_none(), "it is going");
        done(services.patch(&standing.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await)
    })
    .await
}

fn made(name: &str, number: usize, kind: u8) -> Service {
    let mut spec =
        json!({"selector": {"app": name}, "ports": [{"name": "http", "port": 1_000 + number, "targetPort": "http"}]});
    match kind {
        0 => spec["clusterIP"] = json!("None"),
        1 | 2 => spec["type"] = json!("NodePort"),
        3 => spec["type"] = json!("LoadBalancer"),
        _ => {}
    }
    service(name, spec)
}

/// A request whose answer was lost may have been taken, and its repetition then says so.
fn done<T>(outcome: kube::Result<T>) -> Result<()> {
    match outcome {
        Ok(_) => Ok(()),
        Err(Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
