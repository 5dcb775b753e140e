//! Everything that the demo runs, so that it can be ended in order and shown to be gone.

use std::time::Duration;

use anyhow::{Context, bail};

use crate::k3k::Tenant;
use crate::plane::{ControlPlane, PlaneOptions};
use crate::product::{Agent, AgentOptions, HostApi, HostApiOptions};
use crate::rig::{self, virtual_options};
use crate::supervisor::Exit;
use crate::usage;

/// For a session to open and for what is there to be in sync.
const IN_SYNC: Duration = Duration::from_secs(60);
/// For one of our programs to drain and end.
const DRAIN: Duration = Duration::from_secs(20);

/// What has been started so far.
#[derive(Default)]
pub(super) struct World {
    // Fields are dropped in this order, clients before their servers.
    agent: Option<Agent>,
    host_api: Option<HostApi>,
    pub(super) tenant: Option<Tenant>,
    pub(super) virtual_cluster: Option<ControlPlane>,
    pub(super) host: Option<ControlPlane>,
}

impl World {
    pub(super) async fn boot_host() -> anyhow::Result<ControlPlane> {
        rig::host(PlaneOptions::new("host")).await
    }

    /// With the host's ranges, as k3k makes it.
    pub(super) async fn boot_virtual_cluster() -> anyhow::Result<ControlPlane> {
        ControlPlane::start(virtual_options("virtual")).await
    }

    pub(super) async fn start_host_api(&mut self, options: HostApiOptions) -> anyhow::Result<()> {
        self.host_api = Some(HostApi::start(self.host()?, options).await?);
        Ok(())
    }

    pub(super) async fn start_agent(&mut self, token: &str, options: AgentOptions) -> anyhow::Result<()> {
        let agent = Agent::start(self.virtual_cluster()?, self.host_api()?, token, options).await?;
        agent.wait_ok("/syncz", IN_SYNC).await?;
        self.agent = Some(agent);
        Ok(())
    }

    pub(super) fn host(&self) -> anyhow::Result<&ControlPlane> {
        self.host.as_ref().context("the host was not booted")
    }

    pub(super) fn virtual_cluster(&self) -> anyhow::Result<&ControlPlane> {
        self.virtual_cluster.as_ref().context("the virtual cluster was not booted")
    }

    pub(super) fn tenant(&self) -> anyhow::Result<&Tenant> {
        self.tenant.as_ref().context("the tenant was not made")
    }

    pub(super) fn host_api(&self) -> anyhow::Result<&HostApi> {
        self.host_api.as_ref().context("host-api was not started")
    }

    pub(super) fn agent(&self) -> anyhow::Result<&Agent> {
        self.agent.as_ref().context("the agent was not started")
    }

    /// Ends everything in order and gives the number of processes that were there.
    pub(super) async fn stop(&mut self) -> anyhow::Result<usize> {
        let mut pids = Vec::new();
        for (name, product) in [("the agent", &**self.agent()?), ("host-api", &**self.host_api()?)] {
            pids.push(product.process().await.pid());
            match product.terminate(DRAIN).await? {
                Exit::Code(0) => {}
                exit => bail!("{name} was asked to stop and ended with {exit:?}"),
            }
        }
        for plane in [self.virtual_cluster()?, self.host()?] {
            let running = plane.pids().await;
            pids.extend([running.etcd, running.api_server, running.controllers].into_iter().flatten());
            plane.stop().await?;
        }
        let left: Vec<u32> = pids.iter().copied().filter(|pid| usage::is_running(*pid)).collect();
        if !left.is_empty() {
            bail!("processes {left:?} still run");
        }
        Ok(pids.len())
    }
}
