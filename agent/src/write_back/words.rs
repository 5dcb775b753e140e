//! What a tenant reads in Events about its own Services: a closed list of reasons, and no word about anybody else. Pure.
//!
//! A refusal's Event has the reason of the condition; the others are listed here.

use std::net::IpAddr;

use k3k_expose_proto::message::{Condition, NodePort, Numbers};

use super::standing::Synced;

/// Reason of a condition while a Service is being brought to the host's numbers.
pub(super) const RENUMBERING: &str = "Renumbering";
/// Type of the host's condition about load-balancer provisioning.
const BALANCER_READY: &str = "expose.k3k.io/LoadBalancerReady";

/// The Service has other numbers than before.
const RENUMBERED: &str = "Renumbered";
/// Its status is being overwritten by somebody else.
const STATUS_CONTESTED: &str = "StatusContested";
/// The host does not get on with its load balancer.
const LOAD_BALANCER_NOT_READY: &str = "LoadBalancerNotReady";
/// Reasons of Events beside those that a condition can have.
pub const EVENT_REASONS: [&str; 3] = [RENUMBERED, STATUS_CONTESTED, LOAD_BALANCER_NOT_READY];

/// What happened to a virtual Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) is_warning: bool,
    pub(crate) reason: String,
    pub(crate) note: String,
}

impl Event {
    /// The Service has other numbers now.
    pub(super) fn renumbered(told: &[String]) -> Self {
        Self { is_warning: false, reason: RENUMBERED.to_owned(), note: told.join("; ") }
    }

    /// The Service is refused.
    pub(super) fn refused(synced: &Synced) -> Self {
        Self { is_warning: true, reason: synced.reason.clone(), note: synced.message.clone() }
    }

    /// Somebody else keeps overwriting the status.
    pub(super) fn contested() -> Self {
        Self {
            is_warning: true,
            reason: STATUS_CONTESTED.to_owned(),
            note:
                "something in this cluster keeps overwriting the status that comes from the host; it is left alone for \
                   five minutes"
                    .to_owned(),
        }
    }

    /// The host does not get on with the load balancer.
    pub(super) fn of_condition(condition: &Condition) -> Option<Self> {
        (condition.condition_type == BALANCER_READY && condition.status == "False").then(|| Self {
            is_warning: true,
            reason: LOAD_BALANCER_NOT_READY.to_owned(),
            note: format!("the host reports a problem with the load balancer: {}", condition.reason),
        })
    }
}

pub(super) fn node_port(own: NodePort, target: NodePort) -> String {
    let NodePort { port, protocol, node_port } = own;
    format!(
        "node port {node_port} of port {port}/{protocol:?} is held on the host, {} takes its place",
        target.node_port
    )
}

pub(super) fn cluster_ip(own: &[IpAddr], target: &[IpAddr]) -> String {
    format!("cluster IP {} is held on the host, {} takes its place", list(own), list(target))
}

pub(super) fn health_check(own: &Numbers, target: &Numbers) -> String {
    let number = |numbers: &Numbers| numbers.health_check_node_port.map(|port| port.to_string()).unwrap_or_default();
    format!("health-check node port {} is held on the host, {} takes its place", number(own), number(target))
}

fn list(ips: &[IpAddr]) -> String {
    ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
