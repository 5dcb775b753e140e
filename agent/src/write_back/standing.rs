//! A virtual Service to what the write-back compares with: its numbers, its status as far as it is ours to write, and what
//! of k3k's or ours still hangs on it. Pure.

pub(crate) mod ingress;

use std::net::IpAddr;
use std::num::NonZeroU16;

use k3k_expose_proto::message::{Condition, Ingress, NodePort, Numbers};
use k3k_expose_proto::service::{ClusterIps, Port};
use k3k_expose_proto::{Hash, Service, Uid};
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde_json::json;

use super::SYNCED;
use crate::pins::MANAGER;
use crate::renumber;

/// The finalizer of k3k's own syncer.
pub(crate) const K3K_FINALIZER: &str = "service.k3k.io/finalizer";

/// A virtual Service, reduced.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Standing {
    pub(crate) uid: Uid,
    /// `metadata.resourceVersion`, which API servers compare as a number (KEP-5504).
    pub(crate) revision: u64,
    pub(crate) wish: Wish,
    pub(crate) is_balancer: bool,
    /// It is an Ingress, whose addresses are a controller's of the virtual cluster where it is none of the host's business.
    pub(crate) is_ingress: bool,
    /// `status.loadBalancer.ingress`; `None` when it holds what no host would say.
    pub(crate) ingress: Option<Vec<Ingress>>,
    /// The host's conditions that we have brought here.
    pub(crate) conditions: Vec<Condition>,
    pub(crate) synced: Option<Synced>,
    /// It has a deletionTimestamp.
    pub(crate) is_leaving: bool,
    pub(crate) has_k3k_finalizer: bool,
    /// It stands between the two updates of a move.
    pub(crate) is_moving: bool,
}

/// What host-api hears of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wish {
    /// This, with these numbers.
    Wanted(Hash, Held),
    /// Nothing, because of this.
    Refused(&'static str),
    /// Nothing.
    Nothing,
}

/// The numbers of the virtual Service, and which of them somebody asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Held {
    pub(crate) numbers: Numbers,
    pub(crate) pinned: Vec<Number>,
}

/// One number at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Number {
    ClusterIp(IpAddr),
    NodePort(NodePort),
    HealthCheck(NonZeroU16),
}

/// Our condition as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Standing {
    /// Reduces a Service that was projected so; `hash` is that of the projected object when it fits into a line.
    pub(crate) fn of(service: &v1::Service, wish: Wish) -> Option<Self> {
        let meta = &service.metadata;
        let spec = service.spec.as_ref();
        let status = service.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let finalizers = meta.finalizers.as_deref().unwrap_or_default();
        Some(Self {
            uid: Uid::parse(meta.uid.as_deref()?).ok()?,
            revision: meta.resource_version.as_deref()?.parse().ok()?,
            wish,
            is_ingress: false,
            is_balancer: spec.and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer"),
            ingress: status.map_or(Some(Vec::new()), ingress),
            conditions: ours(meta, conditions),
            synced: conditions.iter().find(|condition| condition.type_ == SYNCED).map(|condition| Synced {
                status: condition.status.clone(),
                reason: condition.reason.clone(),
                message: condition.message.clone(),
            }),
            is_leaving: meta.deletion_timestamp.is_some(),
            has_k3k_finalizer: finalizers.iter().any(|finalizer| finalizer == K3K_FINALIZER),
            is_moving: renumber::arrived(service).is_some(),
        })
    }
}

impl Held {
    /// The numbers of a projected Service.
    pub(crate) fn of(service: &Service) -> Self {
        let cluster_ips = match &service.cluster_ips {
            ClusterIps::Headless => Vec::new(),
            ClusterIps::Addresses(ips) => ips.clone(),
        };
        let node_port =
            |port: &Port| Some(NodePort { port: port.port, protocol: port.protocol, node_port: port.node_port? });
        let mut pinned = Vec::new();
        if service.cluster_ip_pinned {
            pinned.extend(cluster_ips.iter().copied().map(Number::ClusterIp));
        }
        let ports = service.ports.iter().filter(|port| port.node_port_pinned);
        pinned.extend(ports.filter_map(node_port).map(Number::NodePort));
        let health = service.health_check_node_port.filter(|_| service.health_check_node_port_pinned);
        pinned.extend(health.map(Number::HealthCheck));
        Self {
            numbers: Numbers {
                cluster_ips,
                node_ports: service.ports.iter().filter_map(node_port).collect(),
                health_check_node_port: service.health_check_node_port,
            },
            pinned,
        }
    }
}

/// The entries in the wire's words, which are those of the API with an `ipMode` that the API server fills in.
fn ingress(status: &v1::ServiceStatus) -> Option<Vec<Ingress>> {
    let entries = status.load_balancer.as_ref().and_then(|balancer| balancer.ingress.as_ref());
    let entries: Vec<Ingress> =
        entries.map_or(Ok(Vec::new()), |entries| serde_json::from_value(json!(entries))).ok()?;
    Some(entries.into_iter().map(filled).collect())
}

/// An entry as the API server stores it: an address without a mode is a virtual IP (KEP-1860).
pub(super) fn filled(mut entry: Ingress) -> Ingress {
    if entry.ip.is_some() {
        entry.ip_mode.get_or_insert_with(|| "VIP".to_owned());
    }
    entry
}

/// The conditions, all but Synced, whose status is in our fields.
fn ours(meta: &meta::ObjectMeta, conditions: &[meta::Condition]) -> Vec<Condition> {
    let entries = meta.managed_fields.iter().flatten();
    let ours: Vec<_> = entries
        .filter(|entry| entry.manager.as_deref() == Some(MANAGER))
        .filter_map(|entry| entry.fields_v1.as_ref()?.0.get("f:status")?.get("f:conditions")?.as_object())
        .collect();
    let is_ours = |condition: &&meta::Condition| {
        let key = format!("k:{}", json!({"type": condition.type_}));
        condition.type_ != SYNCED && ours.iter().any(|fields| fields.contains_key(&key))
    };
    let condition = |condition: &meta::Condition| Condition {
        condition_type: condition.type_.clone(),
        status: condition.status.clone(),
        reason: condition.reason.clone(),
    };
    conditions.iter().filter(is_ours).map(condition).collect()
}
