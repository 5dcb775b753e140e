//! A host and one virtual cluster that have the same ranges, as k3k makes them, with a host-api between.
//!
//! Only there can a virtual Service take over a number that the host chose. Nobody else draws from these ranges, so a number
//! is held on the host only by whom a test says.

use std::sync::Arc;

use super::{host, virtual_options};
use crate::plane::{ControlPlane, PlaneOptions};
use crate::product::{HostApi, HostApiOptions};

/// The ranges of a dual-stack pair, as large as k3s has them.
pub const FAMILIES: &str = "10.43.0.0/16,fd00:43::/112";

/// Both clusters; dropping the value kills everything.
#[derive(Debug)]
pub struct Pair {
    // Fields are dropped in this order, clients before their servers.
    /// The host-api on the host, ready.
    pub host_api: HostApi,
    /// The virtual cluster.
    pub virtual_cluster: Arc<ControlPlane>,
    /// The host.
    pub host: ControlPlane,
}

impl Pair {
    /// Boots a pair with two families, and in the virtual cluster also the controllers of endpoints and quotas.
    ///
    /// For tests that need settings of their own; the others share one by [`super::Rig::pair`].
    ///
    /// # Errors
    /// When a part does not get ready.
    pub async fn dual_stack(name: &str, options: HostApiOptions) -> anyhow::Result<Self> {
        let more = ["endpointslice-controller", "resourcequota-controller"];
        let on_host = PlaneOptions::new(&format!("{name}-host")).with_service_cidr(FAMILIES);
        let in_virtual = virtual_options(name).with_service_cidr(FAMILIES).with_more_controllers(&more);
        Self::boot(on_host, in_virtual, options).await
    }

    /// Boots any two control planes as a pair; their ranges are the caller's choice.
    ///
    /// # Errors
    /// As [`Pair::dual_stack`].
    pub async fn boot(
        on_host: PlaneOptions,
        in_virtual: PlaneOptions,
        options: HostApiOptions,
    ) -> anyhow::Result<Self> {
        let (host, virtual_cluster) = tokio::try_join!(host(on_host), ControlPlane::start(in_virtual))?;
        let host_api = HostApi::start(&host, options).await?;
        Ok(Self { host_api, virtual_cluster: Arc::new(virtual_cluster), host })
    }
}
