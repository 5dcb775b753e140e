//! From an object of the host to the addresses that it holds. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k3k_expose_proto::Uid;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::address::Holder;
use crate::tenant;

/// Who holds which addresses; nobody if none matter.
pub type Holds = Option<(Holder, BTreeSet<IpAddr>)>;

/// A pod that a Cluster controls, while it has its addresses to itself.
#[must_use]
pub fn pod(pod: &Pod) -> Holds {
    let owner = tenant::cluster_that_controls(&pod.metadata)?;
    let on_node = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or_default();
    let status = pod.status.as_ref()?;
    let is_over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if on_node || is_over {
        return None;
    }
    let ips = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()).chain(status.pod_ip.as_deref());
    Some((Holder::Pod(Uid::parse(&owner.uid).ok()?), ips.filter_map(|ip| ip.parse().ok()).collect()))
}

/// A node, by every address that it shows.
#[must_use]
pub fn node(node: &Node) -> Holds {
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref()).into_iter().flatten();
    Some((Holder::Node, addresses.filter_map(|address| address.address.parse().ok()).collect()))
}

/// A slice of the API server's own Service.
#[must_use]
pub fn server(slice: &EndpointSlice) -> Holds {
    let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    Some((Holder::Server, addresses.filter_map(|address| address.parse().ok()).collect()))
}
