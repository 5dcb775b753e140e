//! A Service of the host, reduced: whose twin it is, and what of it we must know to plan. Pure.
//!
//! The label alone proves nothing, since k3k's own Services may carry it. A twin is known by both annotations, the name
//! that follows from them, and an owner reference to the Cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use k3k_expose_proto::message::{Condition, Ingress, IngressPort, NodePort, Numbers};
use k3k_expose_proto::service::Protocol;
use k3k_expose_proto::{Key, Uid};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec, ServiceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use crate::{cluster, name};

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
/// Our field manager, and the value of [`MANAGED_BY`].
pub const MANAGER: &str = "k3k-expose";

/// Field managers of k3k's own syncer, whose fields become ours with its twins.
const K3K_MANAGERS: &[&str] = &["k3k", "k3k-kubelet"];
/// Never kept: it may be as large as the object itself.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

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

/// A twin, reduced.
#[derive(Clone, Debug, PartialEq)]
pub struct Twin {
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
    /// `spec`, in the one spelling that [`normalize`] gives.
    pub spec: ServiceSpec,
    /// `status.loadBalancer.ingress`.
    pub ingress: Vec<Ingress>,
    /// `status.conditions`.
    pub conditions: Vec<Condition>,
}

/// Whose twin it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    /// UID of the owning Cluster.
    pub tenant: Uid,
    /// The virtual object.
    pub key: Key,
    /// We have made or adopted it; otherwise it is k3k's.
    pub ours: bool,
    /// UID of the virtual object, once we have written it.
    pub uid: Option<Uid>,
    /// UID of the virtual cluster, once we have written it.
    pub virtual_cluster: Option<Uid>,
}

/// Reduces a Service of the host.
#[must_use]
pub fn reduce(service: Service) -> HostService {
    let spec = normalize(service.spec.unwrap_or_default());
    let meta = service.metadata;
    let resource_version = meta.resource_version.clone().unwrap_or_default();
    let Some(marks) = marks(&meta) else {
        return HostService::Foreign(Foreign {
            resource_version,
            numbers: held(&spec),
        });
    };
    let made_by_k3k = managers(&meta).any(|(manager, _)| K3K_MANAGERS.contains(&manager));
    let own_labels = own_keys(&meta, "f:labels");
    let own_annotations = own_keys(&meta, "f:annotations");
    let mut annotations = meta.annotations.unwrap_or_default();
    annotations.remove(LAST_APPLIED);
    let status = service.status.unwrap_or_default();
    HostService::Twin(Box::new(Twin {
        uid: meta.uid.unwrap_or_default(),
        resource_version,
        terminating: meta.deletion_timestamp.is_some(),
        marks,
        labels: meta.labels.unwrap_or_default(),
        annotations,
        own_labels,
        own_annotations,
        made_by_k3k,
        ingress: ingress(&status),
        conditions: conditions(&status),
        spec,
    }))
}

impl HostService {
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
            Self::Twin(twin) => held(&twin.spec),
            Self::Foreign(foreign) => foreign.numbers.clone(),
        }
    }
}

impl Twin {
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

    /// The numbers that the host holds for it.
    #[must_use]
    pub fn numbers(&self) -> Numbers {
        let ports = self.spec.ports.as_deref().unwrap_or_default();
        Numbers {
            cluster_ips: held(&self.spec).cluster_ips,
            node_ports: ports.iter().filter_map(node_port).collect(),
            health_check_node_port: self.spec.health_check_node_port.and_then(number),
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

/// The Cluster, key and ownership that a Service's metadata shows, if it is a twin.
fn marks(meta: &ObjectMeta) -> Option<Marks> {
    let annotations = meta.annotations.as_ref()?;
    let annotation = |key: &str| annotations.get(key).map(String::as_str);
    let key = Key::service(annotation(VIRTUAL_NAMESPACE)?, annotation(VIRTUAL_NAME)?).ok()?;
    let owner = meta
        .owner_references
        .as_deref()
        .unwrap_or_default()
        .iter()
        .find(|owner| owner.kind == "Cluster" && owner.api_version.split('/').next() == Some(cluster::GROUP))?;
    let derived = name::twin(key.name(), key.namespace(), &owner.name);
    if meta.name.as_deref() != Some(derived.as_str()) {
        return None;
    }
    let label = |key: &str| {
        meta.labels
            .as_ref()
            .and_then(|labels| labels.get(key))
            .map(String::as_str)
    };
    let uid = annotation(VIRTUAL_UID).and_then(|uid| Uid::parse(uid).ok());
    // Either mark suffices, so that a twin that lost one to a hand edit is still ours to repair.
    let ours = label(MANAGED_BY) == Some(MANAGER) || uid.is_some();
    if !ours && label(CLUSTER_NAME) != Some(owner.name.as_str()) {
        return None;
    }
    Some(Marks {
        tenant: Uid::parse(&owner.uid).ok()?,
        key,
        ours,
        uid,
        virtual_cluster: annotation(VIRTUAL_CLUSTER).and_then(|uid| Uid::parse(uid).ok()),
    })
}

/// Managers of the object itself (not of its status), each with its fields.
fn managers(meta: &ObjectMeta) -> impl Iterator<Item = (&str, &Value)> {
    let entries = meta.managed_fields.as_deref().unwrap_or_default().iter();
    entries
        .filter(|entry| entry.subresource.as_deref().unwrap_or_default().is_empty())
        .filter_map(|entry| Some((entry.manager.as_deref()?, &entry.fields_v1.as_ref()?.0)))
}

/// Keys of the labels or annotations that we, or k3k before us, have set.
fn own_keys(meta: &ObjectMeta, field: &str) -> Vec<String> {
    let ours = managers(meta).filter(|(manager, _)| *manager == MANAGER || K3K_MANAGERS.contains(manager));
    let fields = ours.filter_map(|(_, fields)| fields.get("f:metadata")?.get(field)?.as_object());
    let mut keys: Vec<String> = fields
        .flat_map(|keys| keys.keys())
        .filter_map(|key| key.strip_prefix("f:"))
        .map(str::to_owned)
        .collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn held(spec: &ServiceSpec) -> Held {
    let cluster_ips = match (&spec.cluster_ips, &spec.cluster_ip) {
        (Some(ips), _) => ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
        (None, Some(ip)) => ip.parse().into_iter().collect(),
        (None, None) => Vec::new(),
    };
    let ports = spec.ports.iter().flatten().filter_map(|port| port.node_port);
    let node_ports = ports
        .chain(spec.health_check_node_port)
        .filter_map(|port| u16::try_from(port).ok())
        .collect();
    Held {
        cluster_ips,
        node_ports,
    }
}

fn node_port(port: &ServicePort) -> Option<NodePort> {
    let node_port = number(port.node_port?)?;
    Some(NodePort {
        port: number(port.port)?,
        protocol: protocol(port.protocol.as_deref()?)?,
        node_port,
    })
}

fn ingress(status: &ServiceStatus) -> Vec<Ingress> {
    let entries = status
        .load_balancer
        .as_ref()
        .and_then(|balancer| balancer.ingress.as_deref())
        .unwrap_or_default();
    let port = |port: &k8s_openapi::api::core::v1::PortStatus| {
        Some(IngressPort {
            port: number(port.port)?,
            protocol: protocol(&port.protocol)?,
            error: port.error.clone(),
        })
    };
    let entry = |entry: &k8s_openapi::api::core::v1::LoadBalancerIngress| Ingress {
        ip: entry.ip.as_deref().and_then(|ip| ip.parse().ok()),
        hostname: entry.hostname.clone(),
        ip_mode: entry.ip_mode.clone(),
        ports: entry.ports.iter().flatten().filter_map(port).collect(),
    };
    entries.iter().map(entry).collect()
}

fn conditions(status: &ServiceStatus) -> Vec<Condition> {
    let conditions = status.conditions.as_deref().unwrap_or_default().iter();
    let condition = |condition: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| Condition {
        condition_type: condition.type_.clone(),
        status: condition.status.clone(),
        reason: condition.reason.clone(),
    };
    conditions.map(condition).collect()
}

fn number(port: i32) -> Option<NonZeroU16> {
    u16::try_from(port).ok().and_then(NonZeroU16::new)
}

fn protocol(text: &str) -> Option<Protocol> {
    match text {
        "TCP" => Some(Protocol::TCP),
        "UDP" => Some(Protocol::UDP),
        "SCTP" => Some(Protocol::SCTP),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn twin_json() -> Value {
        json!({
            "metadata": {
                "name": name::twin("web", "default", "mine"), "namespace": "ns", "uid": "u", "resourceVersion": "7",
                "labels": {"k3k.io/clusterName": "mine", "app.kubernetes.io/managed-by": "k3k-expose", "a": "1"},
                "annotations": {"k3k.io/name": "web", "k3k.io/namespace": "default", "expose.k3k.io/uid": "v",
                    "expose.k3k.io/virtual-cluster": "vc", "foreign": "x", LAST_APPLIED: "{}"},
                "ownerReferences": [{"apiVersion": "k3k.io/v1beta1", "kind": "Cluster", "name": "mine", "uid": "t"}],
                "managedFields": [
                    {"manager": "k3k-expose", "operation": "Update", "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:a": {}}}}},
                    {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:metadata": {"f:annotations": {"f:foreign": {}}}}},
                    {"manager": "k3k-expose", "operation": "Update", "subresource": "status", "fieldsV1": {"f:metadata": {"f:labels": {"f:b": {}}}}}
                ]
            },
            "spec": {"type": "NodePort", "clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.9"],
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80, "nodePort": 30080}], "healthCheckNodePort": 0}
        })
    }

    fn reduced(json: Value) -> HostService {
        reduce(serde_json::from_value(json).unwrap())
    }

    fn twin(json: Value) -> Twin {
        match reduced(json) {
            HostService::Twin(twin) => *twin,
            HostService::Foreign(_) => panic!("classified as foreign"),
        }
    }

    #[test]
    fn our_twin_is_known_with_its_marks_and_keys() {
        let twin = twin(twin_json());
        assert!(twin.marks.ours && !twin.made_by_k3k);
        assert_eq!(twin.marks.key, Key::service("default", "web").unwrap());
        assert_eq!(twin.marks.virtual_cluster, Some(Uid::parse("vc").unwrap()));
        assert_eq!(twin.own_labels, ["a"]);
        assert!(twin.own_annotations.is_empty());
        assert!(!twin.annotations.contains_key(LAST_APPLIED));
        assert_eq!(twin.numbers().node_ports.len(), 1);
    }

    #[test]
    fn a_twin_without_our_marks_is_that_of_k3k() {
        let mut json = twin_json();
        json["metadata"]["labels"] = json!({"k3k.io/clusterName": "mine"});
        json["metadata"]["annotations"] = json!({"k3k.io/name": "web", "k3k.io/namespace": "default"});
        json["metadata"]["managedFields"][0]["manager"] = json!("k3k-kubelet");
        let twin = twin(json);
        assert!(!twin.marks.ours && twin.made_by_k3k);
        assert_eq!(twin.own_labels, ["a"], "the fields of k3k become ours");
    }

    #[test]
    fn what_others_do_to_their_own_keys_undoes_nothing() {
        let before = twin(twin_json());
        let after = |path: &str, value: Value| {
            let mut json = twin_json();
            *json.pointer_mut(path).unwrap() = value;
            twin(json)
        };
        let visited = after("/metadata/annotations/foreign", json!("y"));
        assert!(!before.same_as(&visited) && !before.is_undone_in(&visited));
        assert!(before.is_undone_in(&after("/metadata/labels/a", json!("2"))));
        assert!(before.is_undone_in(&after("/spec/clusterIP", json!("10.43.0.8"))));
    }

    #[test]
    fn what_lacks_one_proof_is_foreign_and_still_holds_its_numbers() {
        let broken: &[(&str, Value)] = &[
            ("/metadata/name", json!("other")),
            ("/metadata/annotations", json!({})),
            ("/metadata/annotations/k3k.io~1name", json!("other")),
            ("/metadata/annotations/k3k.io~1namespace", json!("../..")),
            ("/metadata/ownerReferences", json!([])),
            ("/metadata/ownerReferences/0/kind", json!("ReplicaSet")),
            ("/metadata/ownerReferences/0/apiVersion", json!("evil.io/v1")),
            ("/metadata/ownerReferences/0/name", json!("other")),
        ];
        for (path, value) in broken {
            let mut json = twin_json();
            *json.pointer_mut(path).unwrap() = value.clone();
            let HostService::Foreign(foreign) = reduced(json) else {
                panic!("{path} = {value} is a twin")
            };
            assert_eq!(foreign.numbers.node_ports, [30080]);
            assert_eq!(foreign.numbers.cluster_ips.len(), 1);
        }
    }
}
