//! Moving a virtual Service to other numbers in place, its UID kept: two updates with an ExternalName between them. Pure.
//!
//! The API server lets a cluster IP and a health-check node port change in no other way. What the second update restores
//! stands in an annotation, so that a crash between the two loses nothing. The trap: a tenant can write annotations. So
//! one counts only where `managedFields` shows that the agent wrote it, only together with the external name, and only
//! for a closed list of fields: never external IPs, selector or labels.

use std::net::IpAddr;

use k3k_expose_proto::message::{NodePort, Numbers};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::pins::MANAGER;

/// Annotation that holds what the second update restores, as JSON.
pub(crate) const ANNOTATION: &str = "expose.k3k.io/renumber";
/// What a Service answers to between the updates. `.invalid` never resolves (RFC 2606).
pub(crate) const EXTERNAL_NAME: &str = "renumber.expose.k3k.io.invalid";

/// The fields that an ExternalName cannot keep, as they shall be afterwards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Intent {
    #[serde(rename = "type")]
    service_type: String,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    node_ports: Vec<NodePort>,
    #[serde(flatten)]
    fields: Fields,
}

/// Those of them that the move itself does not change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip_families: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip_family_policy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    external_traffic_policy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    internal_traffic_policy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    health_check_node_port: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    load_balancer_class: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    load_balancer_source_ranges: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    allocate_load_balancer_node_ports: Option<bool>,
}

/// Which numbers the second update asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Those of the host.
    TheHosts,
    /// None: those of the host are not to be had (any more), so the virtual API server draws.
    Any,
}

/// The first update: everything that an ExternalName cannot keep goes, and the intent is noted.
pub(crate) fn leave(service: &Service, numbers: &Numbers) -> Option<Value> {
    let spec = service.spec.as_ref()?;
    let balancer_local = spec.health_check_node_port.is_some_and(|port| port != 0);
    let intent = Intent {
        service_type: spec.type_.clone()?,
        cluster_ips: numbers.cluster_ips.clone(),
        node_ports: numbers.node_ports.clone(),
        fields: Fields {
            ip_families: spec.ip_families.clone(),
            ip_family_policy: spec.ip_family_policy.clone(),
            external_traffic_policy: spec.external_traffic_policy.clone(),
            internal_traffic_policy: spec.internal_traffic_policy.clone(),
            health_check_node_port: numbers
                .health_check_node_port
                .filter(|_| balancer_local)
                .map(|port| i32::from(port.get())),
            load_balancer_class: spec.load_balancer_class.clone(),
            load_balancer_source_ranges: spec.load_balancer_source_ranges.clone(),
            allocate_load_balancer_node_ports: spec.allocate_load_balancer_node_ports,
        },
    };
    let intent = serde_json::to_string(&intent).ok()?;
    Some(patch(
        service,
        &json!(intent),
        &json!({
            "type": "ExternalName", "externalName": EXTERNAL_NAME,
            "clusterIP": null, "clusterIPs": null, "ipFamilies": null, "ipFamilyPolicy": null,
            "externalTrafficPolicy": null, "internalTrafficPolicy": null, "healthCheckNodePort": null,
            "loadBalancerClass": null, "loadBalancerSourceRanges": null, "allocateLoadBalancerNodePorts": null,
            "ports": ports(spec, &[]),
        }),
    ))
}

/// The second update, if the Service stands between the two.
pub(crate) fn arrive(service: &Service, ask: Ask) -> Option<Value> {
    let intent = intent(service)?;
    let spec = service.spec.as_ref()?;
    let mut fields = json!(intent.fields);
    fields["type"] = json!(intent.service_type);
    fields["externalName"] = Value::Null;
    match ask {
        Ask::TheHosts => {
            fields["clusterIP"] = json!(intent.cluster_ips.first());
            fields["clusterIPs"] = json!(intent.cluster_ips);
            fields["ports"] = json!(ports(spec, &intent.node_ports));
        }
        Ask::Any => {
            fields["healthCheckNodePort"] = Value::Null;
            fields["ports"] = json!(ports(spec, &[]));
        }
    }
    Some(patch(service, &Value::Null, &fields))
}

/// The Service as the second update will leave it, if it stands between the two. Everyone else is to see it like that.
pub(crate) fn arrived(service: &Service) -> Option<Service> {
    let intent = intent(service)?;
    let mut arrived = service.clone();
    let spec = arrived.spec.as_mut()?;
    spec.ports = Some(ports(spec, &intent.node_ports));
    spec.type_ = Some(intent.service_type);
    spec.external_name = None;
    spec.cluster_ip = intent.cluster_ips.first().map(ToString::to_string);
    spec.cluster_ips = Some(intent.cluster_ips.iter().map(ToString::to_string).collect());
    spec.ip_families = intent.fields.ip_families;
    spec.ip_family_policy = intent.fields.ip_family_policy;
    spec.external_traffic_policy = intent.fields.external_traffic_policy;
    spec.internal_traffic_policy = intent.fields.internal_traffic_policy;
    spec.health_check_node_port = intent.fields.health_check_node_port;
    spec.load_balancer_class = intent.fields.load_balancer_class;
    spec.load_balancer_source_ranges = intent.fields.load_balancer_source_ranges;
    spec.allocate_load_balancer_node_ports = intent.fields.allocate_load_balancer_node_ports;
    Some(arrived)
}

/// The full list of ports with other node ports: a patch by the key of a list fails where one port has two protocols.
pub(crate) fn with_node_ports(service: &Service, node_ports: &[NodePort]) -> Option<Value> {
    let spec = service.spec.as_ref()?;
    let mut ports = spec.ports.clone()?;
    for port in &mut ports {
        if let Some(number) = node_port(port, node_ports) {
            port.node_port = Some(number);
        }
    }
    let meta = &service.metadata;
    Some(json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version}, "spec": {"ports": ports}}))
}

fn patch(service: &Service, annotation: &Value, spec: &Value) -> Value {
    let meta = &service.metadata;
    json!({
        "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "annotations": {ANNOTATION: annotation}},
        "spec": spec,
    })
}

fn intent(service: &Service) -> Option<Intent> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() != Some("ExternalName") || spec.external_name.as_deref() != Some(EXTERNAL_NAME) {
        return None;
    }
    let intent = service.metadata.annotations.as_ref()?.get(ANNOTATION)?;
    let field = format!("f:{ANNOTATION}");
    let ours = service.metadata.managed_fields.iter().flatten().any(|entry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        entry.manager.as_deref() == Some(MANAGER)
            && fields.is_some_and(|fields| fields["f:metadata"]["f:annotations"].get(&field).is_some())
    });
    serde_json::from_str(intent).ok().filter(|_| ours)
}

/// The ports as they are, with these node ports and no others.
fn ports(spec: &ServiceSpec, node_ports: &[NodePort]) -> Vec<ServicePort> {
    let mut ports = spec.ports.clone().unwrap_or_default();
    for port in &mut ports {
        port.node_port = node_port(port, node_ports);
    }
    ports
}

fn node_port(port: &ServicePort, node_ports: &[NodePort]) -> Option<i32> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let of_port = |candidate: &&NodePort| {
        i32::from(candidate.port.get()) == port.port && json!(candidate.protocol).as_str() == Some(protocol)
    };
    node_ports.iter().find(of_port).map(|found| i32::from(found.node_port.get()))
}
