//! Two replicas of host-api: one serves sessions and writes, and the other takes over when it is killed or does not come to its
//! turn.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use k3k_expose_proto::message::ByeReason;
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::front::{Front, next_ready};
use k3k_expose_tests::k3k::{self, Tenant, TenantOptions};
use k3k_expose_tests::product::{Agent, AgentOptions, HostApi, HostApiOptions};
use k3k_expose_tests::progress::say;
use k3k_expose_tests::rig::virtual_options;
use k3k_expose_tests::supervisor::Signal;
use k3k_expose_tests::wire::{WireSession, hello};
use k3k_expose_tests::{ControlPlane, PlaneOptions, took};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use crate::chaos;
use crate::observe::{create_all, equal, metric, outcomes, session_up, twins};
use crate::world::{SOON, World, replace, service};

const CHANGES: usize = 200;
/// Services that are changed and never deleted, so that their twins must stay the same.
const STAYING: usize = 20;
const PATIENCE: Duration = Duration::from_secs(200);
/// From the failure to equal state.
const FIGURE: Duration = Duration::from_secs(20);
/// For how long a leader is stopped that goes on later.
const STOPPED: Duration = Duration::from_secs(60);

/// A tenant whose agent reaches two replicas by one address.
struct Stage {
    world: World,
    replicas: [HostApi; 2],
    _host: ControlPlane,
}

impl Stage {
    /// The front has to be forwarded to the replicas before the agent gets its session.
    async fn start(name: &str, front: &Front) -> Result<Self> {
        let (host, plane) = tokio::try_join!(
            ControlPlane::start(PlaneOptions::new(&format!("{name}-host")).without_controllers()),
            ControlPlane::start(virtual_options(name).without_controllers()),
        )?;
        let (client, plane) = (host.client().await?, Arc::new(plane));
        k3k::install(&client).await?;
        let options = replica();
        let (one, other) =
            tokio::try_join!(HostApi::start(&host, options.clone()), HostApi::start(&host, options.clone()))?;
        one.trust(&client).await?;
        other.trust(&client).await?;
        let tenant = Tenant::create(&client, &format!("host-{name}"), "mine", TenantOptions::default()).await?;
        let token = tenant.server_pod_token(0).await?;
        let mut agent = AgentOptions::in_pod(&tenant.server_pod_name(0));
        agent.env.push(("K3K_EXPOSE_HOST_API_URL".to_owned(), format!("https://{}", front.address())));
        let agent = Arc::new(Agent::start(&plane, &one, &token, agent).await?);
        let virtual_cluster = plane.client().await?;
        let world = World { tenant, plane, agent, host: client, virtual_cluster };
        Ok(Self { world, replicas: [one, other], _host: host })
    }

    async fn leader(&self) -> Result<usize> {
        eventually("one leader", SOON, async || {
            let leads = [leads(&self.replicas[0]).await?, leads(&self.replicas[1]).await?];
            match leads {
                [true, false] => Ok(0),
                [false, true] => Ok(1),
                other => bail!("{other:?}"),
            }
        })
        .await
    }

    /// Makes a change with each call: of a Service that stays, or of one that comes and goes.
    async fn change(&self, services: &Api<Service>, rng: &mut Rng, number: usize) -> Result<()> {
        if number.is_multiple_of(2) {
            return chaos::change(services, rng, number).await;
        }
        let name = staying(number % STAYING);
        let spec = json!({"spec": {"selector": {"app": format!("app-{number}")}}});
        replace(services, &name, spec).await.map(drop)
    }

    async fn uids(&self) -> Result<BTreeMap<String, String>> {
        let standing = twins(&self.world.tenant).await?;
        let uid = |number| {
            let twin = standing.get(&self.world.tenant.twin_name(&staying(number), "first"));
            let uid = twin.and_then(|twin| twin.metadata.uid.clone()).context("it stands")?;
            anyhow::Ok((staying(number), uid))
        };
        (0..STAYING).map(uid).collect()
    }

    async fn equal(&self) -> Result<()> {
        eventually("equal state", PATIENCE, async || {
            let count = equal(&self.world.virtual_cluster, &self.world.tenant).await?;
            ensure!(count >= STAYING, "{count}");
            anyhow::Ok(())
        })
        .await
    }

    async fn prepared(&self) -> Result<(Api<Service>, BTreeMap<String, String>)> {
        session_up(&self.world.agent).await?;
        let services = self.world.namespace("first").await?;
        let spec = json!({"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]});
        let staying = (0..STAYING).map(|number| service(&staying(number), spec.clone()));
        create_all(&services, staying.collect()).await?;
        outcomes(&self.world.agent, "applied", STAYING, SOON).await?;
        let uids = self.uids().await?;
        Ok((services, uids))
    }
}

fn staying(number: usize) -> String {
    format!("stays-{number}")
}

/// With the Lease of 15 s that is the default.
fn replica() -> HostApiOptions {
    let env = vec![("K3K_EXPOSE_LEADER_ELECTION".to_owned(), "true".to_owned())];
    HostApiOptions { env, own_certificates: true }
}

async fn leads(replica: &HostApi) -> Result<bool> {
    Ok(metric(replica, "k3k_expose_host_api_leader").await? > 0.5)
}

/// Runs a scenario while connections to the front reach whichever replica is ready.
async fn fronted(name: &str, scenario: impl AsyncFnOnce(&Stage) -> Result<()>) -> Result<()> {
    let front = Front::open().await?;
    let stage = Stage::start(name, &front).await?;
    let (replicas, turn) = ([&stage.replicas[0], &stage.replicas[1]], Cell::new(0));
    tokio::select! {
        outcome = scenario(&stage) => outcome,
        never = front.forward(async || next_ready(&replicas, &turn).await) => match never {},
    }
}

#[tokio::test]
async fn a_kill_of_the_leader_during_two_hundred_changes_ends_in_equal_state_with_the_same_twins() -> Result<()> {
    fronted("kill", async |stage| {
        let (services, uids) = stage.prepared().await?;
        let (mut rng, leader) = (Rng::new(), stage.leader().await?);
        for number in 0..CHANGES / 2 {
            stage.change(&services, &mut rng, number).await?;
        }
        // As kubelet starts a container anew, and without its old name.
        stage.replicas[leader].restart().await?;
        let killed = Instant::now();
        for number in CHANGES / 2..CHANGES {
            stage.change(&services, &mut rng, number).await?;
        }
        stage.equal().await?;
        took("equal state after a kill of the leader", killed.elapsed(), FIGURE);
        assert_eq!(stage.uids().await?, uids, "no twin was deleted and made anew");
        stage.world.agent.wait_ok("/syncz", SOON).await
    })
    .await
}

/// The other replica has long taken over when the former leader goes on.
#[tokio::test]
async fn a_leader_that_was_stopped_for_a_minute_and_goes_on_leaves_the_state_equal_and_the_twins_the_same() -> Result<()>
{
    fronted("stop", async |stage| {
        let (services, uids) = stage.prepared().await?;
        let (mut rng, leader) = (Rng::new(), stage.leader().await?);
        let (stopped, other) = (&stage.replicas[leader], &stage.replicas[1 - leader]);
        for number in 0..CHANGES / 2 {
            stage.change(&services, &mut rng, number).await?;
        }
        stopped.process().await.signal(Signal::Stop);
        let end = Instant::now() + STOPPED;
        for number in CHANGES / 2..CHANGES {
            stage.change(&services, &mut rng, number).await?;
        }
        let began = Instant::now();
        eventually("the other leads", PATIENCE, async || {
            ensure!(leads(other).await?, "not yet");
            anyhow::Ok(())
        })
        .await?;
        say(&format!("the other led {:.1} s after the last change", began.elapsed().as_secs_f64()));
        sleep_until(end).await;
        stopped.process().await.signal(Signal::Continue);
        let continued = Instant::now();
        stage.equal().await?;
        took("equal state after the former leader went on", continued.elapsed(), FIGURE);
        eventually("the former leader knows", SOON, async || {
            ensure!(!leads(stopped).await? && leads(other).await?, "not yet");
            anyhow::Ok(())
        })
        .await?;
        assert_eq!(stage.uids().await?, uids, "no twin was deleted and made anew");
        stage.world.agent.wait_ok("/syncz", SOON).await
    })
    .await
}

#[tokio::test]
async fn the_leader_alone_serves_and_lets_go_of_the_lease_when_it_stops() -> Result<()> {
    let host = ControlPlane::start(PlaneOptions::new("lease").without_controllers()).await?;
    let client = host.client().await?;
    k3k::install(&client).await?;
    let tenant = Tenant::create(&client, "host-lease", "mine", TenantOptions::default()).await?;
    let token = tenant.server_pod_token(0).await?;
    let first = HostApi::start(&host, replica()).await?;
    first.trust(&client).await?;
    eventually("a leader", SOON, async || {
        ensure!(leads(&first).await?, "not yet");
        anyhow::Ok(())
    })
    .await?;
    let second = HostApi::start(&host, replica()).await?;
    second.trust(&client).await?;
    let problem = WireSession::open(&second, &token, hello("vc", &[])?).await.err().context("a refusal")?;
    assert_eq!((problem.status, problem.reason.as_str(), problem.retry_after), (503, "NotLeader", Some(1)));

    let (mut session, welcome) = WireSession::open(&first, &token, hello("vc", &[])?).await?;
    let began = Instant::now();
    first.terminate(SOON).await?;
    assert_eq!(session.bye().await?.reason, ByeReason::Draining);
    let other = eventually("a session with the other replica", PATIENCE, async || {
        let opened = WireSession::open(&second, &token, hello("vc", &[])?).await;
        opened.map(|(_, welcome)| welcome).map_err(|problem| anyhow::anyhow!("{}", problem.reason))
    })
    .await?;
    took("a session with the other replica after the leader stopped", began.elapsed(), Duration::from_secs(3));
    assert_ne!(welcome.epoch, other.epoch);
    Ok(())
}
