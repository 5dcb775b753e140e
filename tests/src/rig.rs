//! What the tests of one binary share: control planes boot once, whichever test needs them first.
//!
//! Only processes and files live in here, no client and no task: every test has a runtime of its own. A test that kills or
//! resets a plane starts its own by `ControlPlane::start`, because its neighbors run at the same time.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use tokio::sync::{Mutex, OnceCell};

use crate::k3k;
use crate::plane::{ControlPlane, PlaneOptions};
use crate::product::{HostApi, HostApiOptions};

/// The shared processes of this test binary; they end with it.
#[derive(Debug, Default)]
pub struct Rig {
    host: OnceCell<ControlPlane>,
    host_api: OnceCell<HostApi>,
    virtual_clusters: Mutex<HashMap<String, Arc<OnceCell<Arc<ControlPlane>>>>>,
}

impl Rig {
    /// The one of this process; nothing is started by this call.
    #[must_use]
    pub fn shared() -> &'static Self {
        static RIG: OnceLock<Rig> = OnceLock::new();
        RIG.get_or_init(Self::default)
    }

    /// The host: a control plane with controllers, k3k's CRD and a Node.
    ///
    /// # Errors
    /// When it does not boot; the next call tries again.
    pub async fn host(&self) -> anyhow::Result<&ControlPlane> {
        self.host
            .get_or_try_init(async || {
                let host = ControlPlane::start(PlaneOptions::new("host")).await?;
                k3k::install(&host.client().await?).await?;
                Ok(host)
            })
            .await
    }

    /// The host-api on that host, ready.
    ///
    /// # Errors
    /// When it does not get ready; the next call tries again.
    pub async fn host_api(&self) -> anyhow::Result<&HostApi> {
        let host = self.host().await?;
        self.host_api
            .get_or_try_init(async || HostApi::start(host, HostApiOptions::default()).await)
            .await
    }

    /// The virtual cluster of this name, booted at the first call; each costs about 400 MB.
    ///
    /// # Errors
    /// When it does not boot; the next call tries again.
    pub async fn virtual_cluster(&self, name: &str) -> anyhow::Result<Arc<ControlPlane>> {
        let cell = Arc::clone(self.virtual_clusters.lock().await.entry(name.to_owned()).or_default());
        let boot = async || ControlPlane::start(virtual_options(name)).await.map(Arc::new);
        cell.get_or_try_init(boot).await.cloned()
    }
}

/// A virtual control plane with the controllers that tests see at work; endpoints are the host's business.
#[must_use]
pub fn virtual_options(name: &str) -> PlaneOptions {
    PlaneOptions::new(name).with_controllers(&[
        "garbage-collector-controller",
        "namespace-controller",
        "serviceaccount-controller",
    ])
}
