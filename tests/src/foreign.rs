//! Services of nobody's tenant that hold numbers on the host.

use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, anyhow};
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use crate::k3k;

/// The namespace of the platform team's own Services.
pub const NAMESPACE: &str = "platform";

/// The part of the host's range that no sliced virtual cluster has: 10.43.1.0 to 10.43.15.255.
const FREE: u16 = 15 * 256;
/// So many of them are tried: on a pair anybody may have drawn one.
const ADDRESSES: usize = 10;
static NEXT: AtomicU16 = AtomicU16::new(0);

/// A Service that stands in the way until it is released; it outlives this value.
pub struct Holder {
    services: Api<Service>,
    /// As the host's API server stored it.
    pub service: Service,
}

impl Holder {
    /// Holds cluster IPs: one, or one of each family, the primary one first.
    ///
    /// # Errors
    /// When somebody has one of them already.
    pub async fn of_cluster_ips(host: &Client, ips: &[&str]) -> anyhow::Result<Self> {
        let policy = if ips.len() == 2 { "RequireDualStack" } else { "SingleStack" };
        Self::make(
            host,
            json!({"clusterIP": ips.first(), "clusterIPs": ips, "ipFamilyPolicy": policy,
            "ports": [{"port": 80}]}),
        )
        .await
    }

    /// Holds a node port of one protocol; that of any protocol is taken as a health-check node port.
    ///
    /// # Errors
    /// As [`Holder::of_cluster_ips`].
    pub async fn of_node_port(host: &Client, node_port: u16, protocol: &str) -> anyhow::Result<Self> {
        let mut outcome = Err(anyhow!("no address was tried"));
        for _ in 0..ADDRESSES {
            // A drawn address might be one that some virtual cluster draws, too.
            let [high, low] = (256 + NEXT.fetch_add(1, Ordering::Relaxed) % FREE).to_be_bytes();
            let address = format!("10.43.{high}.{low}");
            outcome = Self::make(
                host,
                json!({"type": "NodePort", "clusterIP": address,
                    "ports": [{"port": 80, "protocol": protocol, "nodePort": node_port}]}),
            )
            .await;
            let is_address_taken =
                outcome.as_ref().is_err_and(|error| error.root_cause().to_string().contains(&format!("IP {address}:")));
            if !is_address_taken {
                break;
            }
        }
        outcome
    }

    /// Lets go of everything.
    ///
    /// # Errors
    /// When the Service is gone already.
    pub async fn release(self) -> anyhow::Result<()> {
        self.services.delete(&self.service.name_any(), &DeleteParams::default()).await?;
        Ok(())
    }

    /// Whether the Service is as it was made, which it has to be: it is none of ours.
    ///
    /// # Errors
    /// When it is gone.
    pub async fn is_untouched(&self) -> anyhow::Result<bool> {
        let now = self.services.get(&self.service.name_any()).await?;
        Ok(now.resource_version() == self.service.resource_version())
    }

    async fn make(host: &Client, spec: Value) -> anyhow::Result<Self> {
        k3k::ensure_namespace(host, NAMESPACE).await?;
        let services: Api<Service> = Api::namespaced(host.clone(), NAMESPACE);
        let wanted: Service = serde_json::from_value(json!({"metadata": {"generateName": "holder-"}, "spec": spec}))?;
        let made = services.create(&PostParams::default(), &wanted).await;
        Ok(Self { service: made.with_context(|| format!("a holder of {spec}"))?, services })
    }
}
