//! The cables: a router (we ourselves) with two nodes, a client outside, and below each node its pods.
//!
//! Routed everywhere, bridged nowhere: each packet between pods passes the node's rules, as with most network plugins, and the
//! kernel needs no bridge. The client knows the way to nodes and to addresses of the load balancer, and to no pod.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use super::namespace::{Namespace, ip};
use crate::scratch;

/// The router, at which nodes and pods reach the API servers. Addresses are for documentation (RFC 5737).
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Names and addresses of the nodes.
pub const NODES: [(&str, Ipv4Addr); 2] =
    [("node-1", Ipv4Addr::new(192, 0, 2, 11)), ("node-2", Ipv4Addr::new(192, 0, 2, 12))];
/// The client.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// All pods.
pub const PODS: &str = "10.42.0.0/16";
/// What every pod takes for its way out; only the cable to the node knows it.
const POD_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The data center without its servers.
#[derive(Debug)]
pub struct Fabric {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// Somebody outside.
    pub client: Namespace,
    folder: PathBuf,
}

/// A node of the host.
#[derive(Debug)]
pub struct Node {
    /// Its name in the host cluster.
    pub name: &'static str,
    /// Its address.
    pub address: Ipv4Addr,
    /// Where its kube-proxy writes rules.
    pub namespace: Namespace,
    number: u8,
    pods: AtomicU8,
}

impl Fabric {
    /// Lays everything that stands before the first pod.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn lay() -> anyhow::Result<Self> {
        let folder = scratch::folder("fabric")?;
        let client = Namespace::open("client", &folder).await?;
        client.connect(None, "client", CLIENT, ROUTER).await?;
        let mut nodes = Vec::new();
        for (number, (name, address)) in (1..).zip(NODES) {
            let namespace = Namespace::open(name, &folder).await?;
            namespace.connect(None, name, address, ROUTER).await?;
            namespace.set("ip_forward", "1").await?;
            ip(None, &format!("route add 10.42.{number}.0/24 via {address} dev {name} onlink\n")).await?;
            nodes.push(Node { name, address, namespace, number, pods: AtomicU8::new(1) });
        }
        Ok(Self { nodes, client, folder })
    }

    /// Logs of what holds it together.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Node {
    /// Whether a pod of this address is on the node.
    #[must_use]
    pub fn has(&self, pod: Ipv4Addr) -> bool {
        pod.octets()[2] == self.number
    }

    /// A namespace for a pod on this node, with an address that no pod had before.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn pod(&self, name: &str, folder: &Path) -> anyhow::Result<(Namespace, Ipv4Addr)> {
        let last = self.pods.fetch_add(1, Ordering::Relaxed);
        let address = Ipv4Addr::new(10, 42, self.number, last);
        let namespace = Namespace::open(name, folder).await?;
        namespace.connect(Some(&self.namespace), &format!("pod{last}"), address, POD_GATEWAY).await?;
        Ok((namespace, address))
    }
}
