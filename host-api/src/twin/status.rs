//! What the host gave a twin: numbers, load-balancer addresses, conditions. Pure.

use std::num::NonZeroU16;

use k3k_expose_proto::message::{Condition, Ingress, IngressPort, NodePort};
use k3k_expose_proto::service::Protocol;
use k8s_openapi::api::core::v1::{ServicePort, ServiceStatus};

/// Most conditions of one twin that are told.
const CONDITIONS: usize = 8;
/// Domain of our own conditions.
const OURS: &str = "expose.k3k.io/";

pub(super) fn node_port(port: &ServicePort) -> Option<NodePort> {
    let node_port = number(port.node_port?)?;
    Some(NodePort { port: number(port.port)?, protocol: protocol(port.protocol.as_deref()?)?, node_port })
}

pub(super) fn ingress(status: &ServiceStatus) -> Vec<Ingress> {
    let entries = status.load_balancer.as_ref().and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
    let port = |port: &k8s_openapi::api::core::v1::PortStatus| {
        Some(IngressPort { port: number(port.port)?, protocol: protocol(&port.protocol)?, error: port.error.clone() })
    };
    let entry = |entry: &k8s_openapi::api::core::v1::LoadBalancerIngress| Ingress {
        ip: entry.ip.as_deref().and_then(|ip| ip.parse().ok()),
        hostname: entry.hostname.clone(),
        ip_mode: entry.ip_mode.clone(),
        ports: entry.ports.iter().flatten().filter_map(port).collect(),
    };
    entries.iter().map(entry).collect()
}

/// Those under our own domain are ours to give, and of all others a few say enough.
pub(super) fn conditions(status: &ServiceStatus) -> Vec<Condition> {
    let conditions = status.conditions.as_deref().unwrap_or_default().iter();
    let conditions = conditions.filter(|condition| !condition.type_.starts_with(OURS)).take(CONDITIONS);
    let condition = |condition: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| Condition {
        condition_type: condition.type_.clone(),
        status: condition.status.clone(),
        reason: condition.reason.clone(),
    };
    conditions.map(condition).collect()
}

pub(crate) fn number(port: i32) -> Option<NonZeroU16> {
    u16::try_from(port).ok().and_then(NonZeroU16::new)
}

pub(crate) fn protocol(text: &str) -> Option<Protocol> {
    match text {
        "TCP" => Some(Protocol::TCP),
        "UDP" => Some(Protocol::UDP),
        "SCTP" => Some(Protocol::SCTP),
        _ => None,
    }
}
