//! A Service of the host, reduced: whose twin it is, and what of it we must know to plan. Pure.
//!
//! The label alone proves nothing, since k3k's own Services may carry it. A twin is known by both annotations, the name
//! that follows from them, and an owner reference to the Cluster.

mod marks;
mod status;

use std::collections::BTreeMap;
use std::net::IpAddr;

use k3k_expose_proto::Resource;
use k3k_expose_proto::message::{Condition, Ingress, Numbers};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

pub use marks::Marks;
pub(crate) use marks::marks;
pub(crate) use status::{number, protocol};

/// Label with the Cluster's name, as k3k writes it.
pub const CLUSTER_NAME: &str = "k3k.io/clusterName";
/// Annotation with the virtual object's name, as k3k writes it.
pub const VIRTUAL_NAME: &str = "k3k.io/name";
/// Annotation and selector key with the virtual namespace, as k3k writes it.
pub const VIRTUAL_NAMESPACE: &str = "k3k.io/namespace";
/// Label that names who keeps the twin.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Annotation with the virtual object's UID.
pub const VIRTUAL_UID: &str = "expose.k3k.io/uid";
/// Annotation with the UID of the virtual cluster's `kube-system` namespace.
pub const VIRTUAL_CLUSTER: &str = "expose.k3k.io/virtual-cluster";
/// Annotation of an Ingress with the names of the twins of Secrets that stand for it, separated by commas.
pub const TLS_SECRETS: &str = "expose.k3k.io/tls-secrets";
/// Our field manager, and the value of [`MANAGED_BY`].
pub const MANAGER: &str = "k3k-expose";

/// Never kept: it may be as large as the object itself.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A Service of the host.
#[derive(Clone, Debug, PartialEq)]
pub enum HostService {
    /// The twin of a virtual Service, ours or k3k's.
    Twin(Box<Twin>),
    /// Anybody's: all that matters is which numbers it holds.
    Foreign(Foreign),
}

/// A Service that is nobody's twin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// What it holds.
    pub numbers: Held,
}

/// Numbers that a Service keeps others from having.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Cluster IPs.
    pub cluster_ips: Vec<IpAddr>,
    /// Node ports, the health-check node port among them.
    pub node_ports: Vec<u16>,
}

/// A twin, reduced. `S` is the `spec` of its resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Twin<S = ServiceSpec> {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// It has a deletionTimestamp: a patch would be accepted and die with it.
    pub terminating: bool,
    /// Whose twin it is.
    pub marks: Marks,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// Keys of labels that we set, by `managedFields`.
    pub own_labels: Vec<String>,
    /// Keys of annotations that we set, by `managedFields`.
    pub own_annotations: Vec<String>,
    /// k3k's syncer made it: its manager still stands in `managedFields`.
    pub made_by_k3k: bool,
    /// `spec`, in one spelling for each meaning.
    pub spec: S,
    /// `status.loadBalancer.ingress`.
    pub ingress: Vec<Ingress>,
    /// `status.conditions`.
    pub conditions: Vec<Condition>,
}

/// Reduces a Service of the host.
#[must_use]
pub fn reduce(service: Service) -> HostService {
    let spec = normalize(service.spec.unwrap_or_default());
    let meta = service.metadata;
    let resource_version = meta.resource_version.clone().unwrap_or_default();
    let Some(marks) = marks(&meta, Resource::Services) else {
        return HostService::Foreign(Foreign { resource_version, numbers: held(&spec) });
    };
    let status = service.status.unwrap_or_default();
    let (ingress, conditions) = (status::ingress(&status), status::conditions(&status));
    HostService::Twin(Box::new(Twin::new(meta, marks, spec, ingress, conditions)))
}

impl HostService {
    /// The twin, if it is one.
    #[must_use]
    pub fn twin(&self) -> Option<&Twin> {
        match self {
            Self::Twin(twin) => Some(twin),
            Self::Foreign(_) => None,
        }
    }

    /// `metadata.resourceVersion`.
    #[must_use]
    pub fn resource_version(&self) -> &str {
        match self {
            Self::Twin(twin) => &twin.resource_version,
            Self::Foreign(foreign) => &foreign.resource_version,
        }
    }

    /// What it holds.
    #[must_use]
    pub fn held(&self) -> Held {
        match self {
            Self::Twin(twin) => twin.held(),
            Self::Foreign(foreign) => foreign.numbers.clone(),
        }
    }
}

impl<S> Twin<S> {
    /// A twin of whatever resource, by its metadata and what of the rest is its own.
    #[must_use]
    pub fn new(meta: ObjectMeta, marks: Marks, spec: S, ingress: Vec<Ingress>, conditions: Vec<Condition>) -> Self {
        let made_by_k3k = marks::made_by_k3k(&meta);
        let own_labels = marks::own_keys(&meta, "f:labels");
        let own_annotations = marks::own_keys(&meta, "f:annotations");
        let mut annotations = meta.annotations.unwrap_or_default();
        annotations.remove(LAST_APPLIED);
        Self {
            uid: meta.uid.unwrap_or_default(),
            resource_version: meta.resource_version.unwrap_or_default(),
            terminating: meta.deletion_timestamp.is_some(),
            marks,
            labels: meta.labels.unwrap_or_default(),
            annotations,
            own_labels,
            own_annotations,
            made_by_k3k,
            spec,
            ingress,
            conditions,
        }
    }
}

impl<S: PartialEq> Twin<S> {
    /// Whether two states differ in what we are to keep. Status and revision are others' business.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.uid == other.uid
            && self.terminating == other.terminating
            && self.marks == other.marks
            && self.spec == other.spec
            && self.labels == other.labels
            && self.annotations == other.annotations
    }

    /// Whether something that we are to keep is lost or changed in `after`. What others add, change and take away of
    /// their own labels and annotations is their business.
    #[must_use]
    pub fn is_undone_in(&self, after: &Self) -> bool {
        let lost = |own: &[String], before: &BTreeMap<String, String>, after: &BTreeMap<String, String>| {
            own.iter().any(|key| before.get(key) != after.get(key))
        };
        self.uid != after.uid
            || self.terminating != after.terminating
            || self.marks != after.marks
            || self.spec != after.spec
            || lost(&self.own_labels, &self.labels, &after.labels)
            || lost(&self.own_annotations, &self.annotations, &after.annotations)
    }
}

impl Twin {
    /// What it holds.
    #[must_use]
    pub fn held(&self) -> Held {
        held(&self.spec)
    }

    /// Whether it asks for a load balancer.
    #[must_use]
    pub fn is_balancer(&self) -> bool {
        is_balancer(&self.spec)
    }

    /// The numbers that the host holds for it.
    #[must_use]
    pub fn numbers(&self) -> Numbers {
        let ports = self.spec.ports.as_deref().unwrap_or_default();
        Numbers {
            cluster_ips: self.held().cluster_ips,
            node_ports: ports.iter().filter_map(status::node_port).collect(),
            health_check_node_port: self.spec.health_check_node_port.and_then(status::number),
        }
    }
}

/// One spelling for each meaning: what the API server may leave out or write as zero or empty is absent.
#[must_use]
pub fn normalize(mut spec: ServiceSpec) -> ServiceSpec {
    let empty = |list: &mut Option<Vec<String>>| {
        if list.as_ref().is_some_and(Vec::is_empty) {
            *list = None;
        }
    };
    empty(&mut spec.cluster_ips);
    empty(&mut spec.external_ips);
    empty(&mut spec.load_balancer_source_ranges);
    empty(&mut spec.ip_families);
    let blank = |text: &mut Option<String>| {
        if text.as_ref().is_some_and(String::is_empty) {
            *text = None;
        }
    };
    blank(&mut spec.cluster_ip);
    blank(&mut spec.external_name);
    blank(&mut spec.load_balancer_ip);
    blank(&mut spec.external_traffic_policy);
    spec.health_check_node_port = spec.health_check_node_port.filter(|&port| port != 0);
    spec.publish_not_ready_addresses = spec.publish_not_ready_addresses.filter(|&publish| publish);
    spec.selector = spec.selector.filter(|selector| !selector.is_empty());
    spec.ports = spec.ports.filter(|ports| !ports.is_empty());
    for port in spec.ports.iter_mut().flatten() {
        port.name = port.name.take().filter(|name| !name.is_empty());
        port.node_port = port.node_port.filter(|&port| port != 0);
        port.protocol.get_or_insert_with(|| "TCP".to_owned());
        port.target_port.get_or_insert(IntOrString::Int(port.port));
    }
    spec
}

/// Whether a spec asks for a load balancer.
#[must_use]
pub fn is_balancer(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("LoadBalancer")
}

/// Whether each port of a spec gets a node port, whoever chooses it.
#[must_use]
pub fn has_node_ports(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("NodePort")
        || is_balancer(spec) && spec.allocate_load_balancer_node_ports != Some(false)
}

/// Whether a spec gets a health-check node port, whoever chooses it.
#[must_use]
pub fn has_health_check(spec: &ServiceSpec) -> bool {
    is_balancer(spec) && spec.external_traffic_policy.as_deref() == Some("Local")
}

/// The numbers that a spec names.
#[must_use]
pub fn held(spec: &ServiceSpec) -> Held {
    let cluster_ips = match (&spec.cluster_ips, &spec.cluster_ip) {
        (Some(ips), _) => ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
        (None, Some(ip)) => ip.parse().into_iter().collect(),
        (None, None) => Vec::new(),
    };
    let ports = spec.ports.iter().flatten().filter_map(|port| port.node_port);
    let node_ports = ports.chain(spec.health_check_node_port).filter_map(|port| u16::try_from(port).ok()).collect();
    Held { cluster_ips, node_ports }
}

#[cfg(test)]
mod tests;
