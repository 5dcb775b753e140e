//! The two programs while they run: what they cost, and starting them anew in the ways that are measured.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::Instant;

use super::Usage;
use super::field::PATIENCE;
use super::proxy::Proxy;
use crate::eventually::eventually;
use crate::k3k::Tenant;
use crate::plane::ControlPlane;
use crate::product::{Agent, AgentOptions, HostApi, Product};

/// For one of our programs to drain and end.
const DRAIN: Duration = Duration::from_secs(20);

/// Bytes of the agent's lines in both directions.
const STREAM_BYTES: &str = "k3k_expose_agent_stream_bytes_total";
const SESSIONS: &str = "k3k_expose_agent_sessions_total";
const SESSION_UP: &str = "k3k_expose_agent_session_up";

/// Both, in sync.
pub(super) struct Programs {
    pub(super) agent: Agent,
    pub(super) host_api: Arc<HostApi>,
}

/// Starts an agent with further variables.
pub(super) async fn start_agent(
    virtual_cluster: &ControlPlane,
    tenant: &Tenant,
    host_api: &HostApi,
    token: &str,
    env: Vec<(String, String)>,
) -> anyhow::Result<Agent> {
    let mut options = AgentOptions::in_pod(&tenant.server_pod_name(0));
    options.env.extend(env);
    Agent::start(virtual_cluster, host_api, token, options).await
}

impl Programs {
    pub(super) async fn usage(&self) -> anyhow::Result<Usage> {
        let Self { agent, host_api } = self;
        Ok(Usage {
            agent_rss_kib: agent.rss_kib().await?,
            host_api_rss_kib: host_api.rss_kib().await?,
            agent_cpu_s: agent.cpu_seconds().await?,
            host_api_cpu_s: host_api.cpu_seconds().await?,
        })
    }

    /// Stops the agent, starts it again and waits until it is in sync.
    pub(super) async fn restart_agent(&self) -> anyhow::Result<()> {
        self.agent.terminate(DRAIN).await?;
        self.agent.restart().await?;
        self.agent.wait_ok("/syncz", PATIENCE).await
    }

    /// The same with host-api; the agent has noticed before it comes back.
    pub(super) async fn restart_host_api(&self) -> anyhow::Result<()> {
        let Self { agent, host_api } = self;
        host_api.terminate(DRAIN).await?;
        eventually("the agent out of sync", DRAIN, async || {
            agent.get("/syncz").await.is_ok_and(|(status, _)| status != 200)
        })
        .await?;
        host_api.restart().await?;
        host_api.wait_ready().await?;
        agent.wait_ok("/syncz", PATIENCE).await
    }

    /// Cuts the connection and gives the bytes of lines, in both directions, that it takes to come back.
    ///
    /// The agent is started anew for it, with a proxy as its way to host-api, so that no other measurement pays for it.
    pub(super) async fn reconnect(
        self,
        virtual_cluster: &ControlPlane,
        tenant: &Tenant,
        token: &str,
    ) -> anyhow::Result<(Self, u64)> {
        let Self { agent, host_api } = self;
        agent.terminate(DRAIN).await?;
        let proxy = Proxy::start(host_api.address()).await?;
        let way = vec![("K3K_EXPOSE_HOST_API_URL".to_owned(), proxy.url())];
        let agent = start_agent(virtual_cluster, tenant, &host_api, token, way).await?;
        agent.wait_ok("/syncz", PATIENCE).await?;
        let before = quiet_bytes(&agent).await?;
        let ended_before = agent.metric(SESSIONS).await?.unwrap_or_default();
        proxy.cut();
        eventually("a new session", PATIENCE, async || {
            let ended = agent.metric(SESSIONS).await?.unwrap_or_default();
            match agent.metric(SESSION_UP).await? {
                Some(up) if up > 0.5 && ended > ended_before => Ok(()),
                up => bail!("session up: {up:?}"),
            }
        })
        .await?;
        agent.wait_ok("/syncz", PATIENCE).await?;
        let bytes = quiet_bytes(&agent).await? - before;
        Ok((Self { agent, host_api }, bytes))
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        for product in [&*self.agent as &Product, &*self.host_api] {
            product.terminate(DRAIN).await?;
        }
        Ok(())
    }
}

/// The agent's bytes once they have not changed for a second: a beat comes only every 15 s.
async fn quiet_bytes(agent: &Agent) -> anyhow::Result<u64> {
    const QUIET: Duration = Duration::from_secs(1);
    let mut last = (None, Instant::now());
    eventually("a quiet stream", PATIENCE, async || {
        let bytes = agent.metric(STREAM_BYTES).await?.context("no metric of bytes")?;
        if last.0 != Some(bytes) {
            last = (Some(bytes), Instant::now());
        }
        if last.1.elapsed() < QUIET {
            bail!("{bytes} bytes");
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small counter")]
        Ok(bytes as u64)
    })
    .await
}
