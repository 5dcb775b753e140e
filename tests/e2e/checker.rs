//! Two thousand random changes of three hundred Services on a host where somebody else takes numbers: at rest both sides
//! agree in every address, port and reason.

mod compare;
mod moves;

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
use kube::Api;
use kube::api::ListParams;
use tokio::time::Instant;

use crate::world::World;
use compare::faults;
use moves::{Moves, NAMES};

const CHANGES: usize = 2_000;
/// Restarts of each of the two processes.
const RESTARTS: usize = 8;
/// Repeats a run: set it to the seed that a failed run printed.
const SEED: &str = "K3K_EXPOSE_CHECKER_SEED";
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test]
async fn three_hundred_services_agree_after_two_thousand_changes_beside_a_foreign_writer() -> Result<()> {
    let asked = std::env::var_os(SEED);
    let seed = asked.map_or_else(|| Ok(fastrand::u64(..)), |seed| seed.to_string_lossy().parse())?;
    say(&format!("checker: {SEED}={seed}"));
    let mut rng = Rng::with_seed(seed);
    // Ranges so narrow that numbers collide by chance as well.
    let narrow = |options: PlaneOptions| options.with_service_cidr("10.43.0.0/21").with_node_port_range("30000-31999");
    let (host, plane) = tokio::try_join!(
        ControlPlane::start(narrow(PlaneOptions::new("checker-host").without_controllers())),
        ControlPlane::start(narrow(virtual_options("checker").without_controllers())),
    )?;
    k3k::install(&host.client().await?).await?;
    let host_api = HostApi::start(&host, HostApiOptions::default()).await?;
    let world = World::on(&host, &host_api, Arc::new(plane), "checker", TenantOptions::default()).await?;
    let services = world.namespace("shop").await?;
    let mut moves = Moves::new(&world, services.clone()).await?;
    moves.fill(&mut rng).await?;
    let began = Instant::now();
    for number in 0..CHANGES {
        if number % (CHANGES / RESTARTS) == CHANGES / RESTARTS / 2 {
            world.agent.restart().await?;
        }
        if number % (CHANGES / RESTARTS) == CHANGES / RESTARTS - 1 {
            host_api.restart().await?;
        }
        moves.change(&mut rng, number).await?;
    }
    say(&format!("checker: {CHANGES} changes in {:.1?}: {}", began.elapsed(), moves.tally()));
    let ended = Instant::now();
    let all: Api<Service> = Api::all(world.host.clone());
    let mut told = (0, 0);
    eventually("no difference between the two sides", PATIENCE, async || {
        let params = ListParams::default();
        let (wanted, there) = tokio::try_join!(services.list(&params), all.list(&params))?;
        let found = faults(&world.tenant, &wanted.items, &there.items);
        ensure!(found.is_empty(), "{} differences: {}", found.len(), found[..found.len().min(5)].join(" | "));
        told = compare::told(&wanted.items);
        anyhow::Ok(())
    })
    .await?;
    took("no difference at rest", ended.elapsed(), Duration::from_secs(10));
    say(&format!("checker: {} Services agree, {} are refused for a reason", told.0, told.1));
    assert!(told.0 + told.1 > NAMES / 2 && told.0 > told.1, "{told:?}");
    Ok(())
}
