//! The projected Service: the fields of a virtual Service that cross, and nothing else. Pure.
//!
//! Field names and defaults are those of `v1/Service`. The agent fills it by allow-list; host-api still trusts none of
//! it beyond its shape. Field order and sorted maps make its JSON canonical, which [`crate::Hash`] relies on.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use crate::endpoints::{Endpoints, LeftOut};
use crate::unique;

/// A virtual Service as host-api sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// `spec.type`.
    #[serde(rename = "type")]
    pub service_type: ServiceType,
    /// `spec.clusterIPs`.
    #[serde(default, rename = "clusterIPs")]
    pub cluster_ips: ClusterIps,
    /// Whether a field manager asked for the cluster IP, rather than the API server drawing it.
    #[serde(default, rename = "clusterIPPinned", skip_serializing_if = "is_false")]
    pub cluster_ip_pinned: bool,
    /// `spec.ipFamilies`, primary first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip_families: Vec<IpFamily>,
    /// `spec.ipFamilyPolicy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_family_policy: Option<IpFamilyPolicy>,
    /// `spec.ports`, in the tenant's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// `spec.selector`. Empty means that the Service has none.
    #[serde(default, deserialize_with = "unique::map", skip_serializing_if = "BTreeMap::is_empty")]
    pub selector: BTreeMap<String, String>,
    /// `spec.sessionAffinity` and its time-out.
    #[serde(default)]
    pub session_affinity: SessionAffinity,
    /// `spec.externalTrafficPolicy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<TrafficPolicy>,
    /// `spec.internalTrafficPolicy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal_traffic_policy: Option<TrafficPolicy>,
    /// `spec.trafficDistribution`: an open set of words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_distribution: Option<String>,
    /// `spec.publishNotReadyAddresses`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub publish_not_ready_addresses: bool,
    /// `spec.healthCheckNodePort`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check_node_port: Option<NonZeroU16>,
    /// Whether a field manager asked for the health-check node port.
    #[serde(default, skip_serializing_if = "is_false")]
    pub health_check_node_port_pinned: bool,
    /// `spec.loadBalancerClass`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer_class: Option<String>,
    /// `spec.loadBalancerSourceRanges`: CIDRs as written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load_balancer_source_ranges: Vec<String>,
    /// `spec.loadBalancerIP`.
    #[serde(default, rename = "loadBalancerIP", skip_serializing_if = "Option::is_none")]
    pub load_balancer_ip: Option<IpAddr>,
    /// `spec.allocateLoadBalancerNodePorts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocate_load_balancer_node_ports: Option<bool>,
    /// `spec.externalIPs`.
    #[serde(default, rename = "externalIPs", skip_serializing_if = "Vec::is_empty")]
    pub external_ips: Vec<IpAddr>,
    /// `metadata.labels`, all but the reserved ones.
    #[serde(default, deserialize_with = "unique::map", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`, only the keys that `welcome` admitted.
    #[serde(default, deserialize_with = "unique::map", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Hand-made endpoints, of a Service without a selector alone: one set for each family and list of ports, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoints>,
    /// Whether more endpoints stand there than are said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints_left_out: Option<LeftOut>,
}

impl Service {
    /// A Service of that type with every other field at its zero value.
    #[must_use]
    pub fn new(service_type: ServiceType) -> Self {
        Self {
            service_type,
            cluster_ips: ClusterIps::default(),
            cluster_ip_pinned: false,
            ip_families: Vec::new(),
            ip_family_policy: None,
            ports: Vec::new(),
            selector: BTreeMap::new(),
            session_affinity: SessionAffinity::None,
            external_traffic_policy: None,
            internal_traffic_policy: None,
            traffic_distribution: None,
            publish_not_ready_addresses: false,
            health_check_node_port: None,
            health_check_node_port_pinned: false,
            load_balancer_class: None,
            load_balancer_source_ranges: Vec::new(),
            load_balancer_ip: None,
            allocate_load_balancer_node_ports: None,
            external_ips: Vec::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            endpoints: Vec::new(),
            endpoints_left_out: None,
        }
    }

    /// Whether it has endpoints of nobody but who makes them by hand.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.selector.is_empty() && self.service_type != ServiceType::ExternalName
    }
}

/// `spec.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceType {
    /// Reachable inside the cluster.
    ClusterIP,
    /// Reachable on a port of every node.
    NodePort,
    /// Reachable through a load balancer.
    LoadBalancer,
    /// A DNS alias, nothing to expose.
    ExternalName,
}

/// `spec.clusterIPs`: headless, or the addresses, primary first (none while the API server has drawn none).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClusterIps {
    /// `None`, the word that makes a Service headless.
    Headless,
    /// One address, or two of different families.
    Addresses(Vec<IpAddr>),
}

impl Default for ClusterIps {
    fn default() -> Self {
        Self::Addresses(Vec::new())
    }
}

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum IpFamily {
    /// IPv4.
    IPv4,
    /// IPv6.
    IPv6,
}

/// `spec.ipFamilyPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpFamilyPolicy {
    /// One family.
    SingleStack,
    /// Two where the cluster has them.
    PreferDualStack,
    /// Two or refusal.
    RequireDualStack,
}

/// One entry of `spec.ports`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// `name`, empty when the Service has one unnamed port.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `protocol`.
    pub protocol: Protocol,
    /// `port`.
    pub port: NonZeroU16,
    /// `targetPort`.
    pub target_port: TargetPort,
    /// `appProtocol`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
    /// `nodePort`, absent when none is wished or drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_port: Option<NonZeroU16>,
    /// Whether a field manager asked for the node port.
    #[serde(default, skip_serializing_if = "is_false")]
    pub node_port_pinned: bool,
}

/// `protocol` of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    TCP,
    /// UDP.
    UDP,
    /// SCTP.
    SCTP,
}

/// `targetPort`: a number, or the name of a container's port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetPort {
    /// A port number.
    Number(NonZeroU16),
    /// The name of a port of the pod.
    Name(String),
}

/// `spec.sessionAffinity` with `sessionAffinityConfig.clientIP.timeoutSeconds`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SessionAffinity {
    /// `None`.
    #[default]
    None,
    /// `ClientIP`, with the time-out in seconds when one is set.
    ClientIp(Option<u32>),
}

/// `externalTrafficPolicy` and `internalTrafficPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrafficPolicy {
    /// Any endpoint of the cluster.
    Cluster,
    /// Only endpoints on the node that was reached.
    Local,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that skip_serializing_if asks for")]
const fn is_false(value: &bool) -> bool {
    !*value
}
