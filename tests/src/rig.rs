//! What the tests of one binary share: control planes boot once, whichever test needs them first.
//!
//! Only processes and files live in here, no client and no task: every test has a runtime of its own. A test that kills or
//! resets a plane starts its own by `ControlPlane::start`, because its neighbors run at the same time.
//!
//! The trap: every API server draws numbers at random from its ranges, and one that two virtual clusters draw is taken on
//! the host for the second. So each virtual cluster gets a slice of the host's ranges for itself, on a host where nobody else
//! draws: one for the tests that let the host choose numbers for what they say by hand, another for virtual clusters. What is
//! about numbers that both sides draw needs whole ranges, as k3k gives them, and so a host for itself: a [`Pair`].

mod pair;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::{Mutex, OnceCell};

pub use pair::{FAMILIES, Pair};

use crate::k3k;
use crate::plane::{ControlPlane, PlaneOptions};
use crate::product::{HostApi, HostApiOptions};

/// Slices that there are: 4096 cluster IPs and 160 node ports each. The first is left to Services of the host.
const SLICES: u16 = 15;

/// A host and its host-api, each booted by whom needs it first.
#[derive(Debug)]
pub struct Site {
    name: &'static str,
    host: OnceCell<ControlPlane>,
    host_api: OnceCell<HostApi>,
}

impl Site {
    const fn new(name: &'static str) -> Self {
        Self { name, host: OnceCell::const_new(), host_api: OnceCell::const_new() }
    }

    /// The host: a control plane with controllers, k3k's CRD and a Node.
    ///
    /// # Errors
    /// When it does not boot; the next call tries again.
    pub async fn host(&self) -> anyhow::Result<&ControlPlane> {
        self.host.get_or_try_init(async || host(PlaneOptions::new(self.name)).await).await
    }

    /// The host-api on that host, ready.
    ///
    /// # Errors
    /// When it does not get ready; the next call tries again.
    pub async fn host_api(&self) -> anyhow::Result<&HostApi> {
        let host = self.host().await?;
        self.host_api.get_or_try_init(async || HostApi::start(host, HostApiOptions::default()).await).await
    }
}

/// The shared processes of this test binary; they end with it.
#[derive(Debug)]
pub struct Rig {
    by_hand: Site,
    sliced: Site,
    virtual_clusters: Mutex<HashMap<String, Arc<OnceCell<Arc<ControlPlane>>>>>,
    pairs: Mutex<HashMap<String, Arc<OnceCell<Arc<Pair>>>>>,
}

impl Rig {
    /// The one of this process; nothing is started by this call.
    #[must_use]
    pub fn shared() -> &'static Self {
        static RIG: OnceLock<Rig> = OnceLock::new();
        RIG.get_or_init(|| Self {
            by_hand: Site::new("host"),
            sliced: Site::new("sliced-host"),
            virtual_clusters: Mutex::default(),
            pairs: Mutex::default(),
        })
    }

    /// The host that most tests share, whose API server draws numbers for what they say by hand.
    ///
    /// # Errors
    /// As [`Site::host`].
    pub async fn host(&self) -> anyhow::Result<&ControlPlane> {
        self.by_hand.host().await
    }

    /// The host-api on that host, ready.
    ///
    /// # Errors
    /// As [`Site::host_api`].
    pub async fn host_api(&self) -> anyhow::Result<&HostApi> {
        self.by_hand.host_api().await
    }

    /// The host of the virtual clusters that share out its numbers. Tests say nothing there for which it has to draw.
    #[must_use]
    pub const fn sliced(&self) -> &Site {
        &self.sliced
    }

    /// The virtual cluster of this name, for the sliced host, booted at the first call; each costs about 400 MB.
    ///
    /// # Errors
    /// When it does not boot; the next call tries again.
    pub async fn virtual_cluster(&self, name: &str) -> anyhow::Result<Arc<ControlPlane>> {
        let cell = Arc::clone(self.virtual_clusters.lock().await.entry(name.to_owned()).or_default());
        let boot = async || ControlPlane::start(with_slice(virtual_options(name))?).await.map(Arc::new);
        cell.get_or_try_init(boot).await.cloned()
    }

    /// The dual-stack pair of this name, booted at the first call with every controller that a virtual cluster may have;
    /// each costs about 900 MB.
    ///
    /// # Errors
    /// When it does not boot; the next call tries again.
    pub async fn pair(&self, name: &str) -> anyhow::Result<Arc<Pair>> {
        let cell = Arc::clone(self.pairs.lock().await.entry(name.to_owned()).or_default());
        let boot = async || Pair::dual_stack(name, HostApiOptions::default()).await.map(Arc::new);
        cell.get_or_try_init(boot).await.cloned()
    }
}

/// A host with these options: a control plane with k3k's CRD and a Node.
///
/// # Errors
/// When it does not boot.
pub async fn host(options: PlaneOptions) -> anyhow::Result<ControlPlane> {
    let host = ControlPlane::start(options).await?;
    k3k::install(&host.client().await?).await?;
    Ok(host)
}

/// The options with a slice of the host's numbers that no other virtual cluster of this process draws from.
///
/// # Errors
/// When none is left.
pub fn with_slice(options: PlaneOptions) -> anyhow::Result<PlaneOptions> {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let slice = NEXT.fetch_add(1, Ordering::Relaxed);
    anyhow::ensure!(slice <= SLICES, "this binary boots more than {SLICES} shared virtual clusters");
    let first_port = 30_000 + slice * 160;
    Ok(options
        .with_service_cidr(&format!("10.43.{}.0/20", slice * 16))
        .with_node_port_range(&format!("{first_port}-{}", first_port + 159)))
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
