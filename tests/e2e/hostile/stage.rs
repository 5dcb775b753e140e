//! A host-api of its own with two tenants: one that misbehaves, and one that must not notice.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use k3k_expose_proto::message::{FromAgent, Put, Resume};
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::k3k::{Tenant, TenantOptions};
use k3k_expose_tests::product::{HostApi, HostApiOptions};
use k3k_expose_tests::wire::{WireSession, hello};
use k3k_expose_tests::{Rig, took};
use tokio::time::Instant;

use crate::observe::{headless, twins};
use crate::world::SOON;

const VIRTUAL: &str = "hostile-cluster";
/// How many twins the hostile tenant has.
const STANDING: usize = 5;
/// How many it may have.
const OBJECTS: usize = 200;

/// A host-api with two tenants: one that misbehaves, and one that goes on.
pub struct Stage {
    /// Where both speak.
    pub host_api: Arc<HostApi>,
    /// The one that misbehaves.
    pub hostile: Tenant,
    /// Its token.
    pub token: String,
    /// What it wants.
    pub said: Vec<Put>,
    /// The one that must not notice.
    pub neighbor_tenant: Tenant,
    neighbor: WireSession,
    arrived: usize,
}

impl Stage {
    /// The hostile tenant stands with five twins, the neighbor with none.
    pub async fn start(name: &str) -> Result<Self> {
        let host = Rig::shared().host().await?;
        let client = host.client().await?;
        // So few that a flood of objects is over soon.
        let env = vec![
            ("K3K_EXPOSE_TENANT_OBJECTS".to_owned(), OBJECTS.to_string()),
            ("K3K_EXPOSE_LOG".to_owned(), "info,k3k_expose_host_api=debug".to_owned()),
        ];
        let host_api = HostApi::start(host, HostApiOptions { env, ..HostApiOptions::default() }).await?;
        let host_api = Arc::new(host_api);
        let hostile = Tenant::create(&client, name, "hostile", TenantOptions::default()).await?;
        let neighbor_tenant =
            Tenant::create(&client, &format!("{name}-next"), "neighbor", TenantOptions::default()).await?;
        let token = hostile.server_pod_token(0).await?;
        let said = (0..STANDING).map(|number| headless(&format!("web-{number}"))).collect::<Result<Vec<_>>>()?;
        let mut session = WireSession::open(&host_api, &token, hello(VIRTUAL, &said)?).await?.0;
        session.send_snapshot(&said).await?;
        for put in &said {
            session.settled(put).await?;
        }
        let hello = hello("neighbor-cluster", &[])?;
        let neighbor = WireSession::open(&host_api, &neighbor_tenant.server_pod_token(0).await?, hello).await?.0;
        neighbor.send_snapshot(&[]).await?;
        Ok(Self { host_api, hostile, token, said, neighbor, neighbor_tenant, arrived: 0 })
    }

    /// A session of the hostile tenant that resumes, or one that is in the middle of its snapshot.
    pub async fn session(&self, resume: Resume) -> Result<WireSession> {
        let said = if resume == Resume::Nothing { self.said.as_slice() } else { &[] };
        let opened = eventually("a session", SOON, async || {
            WireSession::open(&self.host_api, &self.token, hello(VIRTUAL, said)?).await.map_err(anyhow::Error::from)
        })
        .await?;
        assert_eq!(opened.1.resume, resume);
        Ok(opened.0)
    }

    /// The neighbor opens a new session, which takes over.
    pub async fn renewed(&mut self) -> Result<()> {
        let token = self.neighbor_tenant.server_pod_token(0).await?;
        let said = (1..=self.arrived).map(|number| headless(&format!("web-{number}"))).collect::<Result<Vec<_>>>()?;
        let hello = hello("neighbor-cluster", &said)?;
        self.neighbor = WireSession::open(&self.host_api, &token, hello).await?.0;
        Ok(())
    }

    /// Nothing of the hostile tenant's was deleted, and the neighbor's next Service arrives.
    pub async fn unharmed(&mut self, after: &str) -> Result<()> {
        self.arrived += 1;
        let put = headless(&format!("web-{}", self.arrived))?;
        let began = Instant::now();
        self.neighbor.send(&FromAgent::Put(put.clone())).await?;
        self.neighbor.settled(&put).await.with_context(|| format!("the neighbor after {after}"))?;
        took(&format!("the neighbor's create after {after}"), began.elapsed(), Duration::from_secs(1));
        assert_eq!(twins(&self.neighbor_tenant).await?.len(), self.arrived, "{after}");
        assert_eq!(twins(&self.hostile).await?.len(), STANDING, "{after}");
        Ok(())
    }
}
