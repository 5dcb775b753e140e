//! A virtual Service to what of it may cross, field by field. Pure.
//!
//! The trap: a field that is not named here does not cross, so whoever adds one raises
//! [`k3k_expose_proto::version::PROJECTION`].

pub mod ingress;
pub mod secret;

use std::collections::BTreeSet;
use std::net::IpAddr;

use k3k_expose_projection::labels;
use k3k_expose_projection::value::{ip_family, number, protocol, word};
use k3k_expose_proto::message::Object;
use k3k_expose_proto::service::{
    ClusterIps, IpFamilyPolicy, Port, ServiceType, SessionAffinity, TargetPort, TrafficPolicy,
};
use k3k_expose_proto::{Key, Service, Uid};
use k8s_openapi::api::core::v1::{self, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::pins::Pins;
use crate::renumber;

/// Services that every cluster makes for itself, by namespace and name.
const OWN: [(&str, &str); 2] = [("default", "kubernetes"), ("kube-system", "kube-dns")];

/// What an event about an object means for host-api.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Projected {
    /// Nothing: the cluster's own Service, or no object that can be named.
    Skip,
    /// It is gone, or going.
    Gone {
        /// Where it was.
        key: Key,
        /// Which object it was.
        uid: Uid,
    },
    /// It is to be exposed.
    Wanted {
        /// Where it is.
        key: Key,
        /// Which object it is.
        uid: Uid,
        /// What crosses of it.
        object: Object,
    },
    /// It has a value that this build cannot carry.
    Refused {
        /// Where it is.
        key: Key,
        /// Which object it is.
        uid: Uid,
        /// The field and what is wrong with it.
        why: &'static str,
    },
}

/// Projects a Service as it stands after an addition or a change.
#[must_use]
pub fn project(service: &v1::Service, admitted: &BTreeSet<String>) -> Projected {
    let Some((key, uid)) = identity(service) else {
        return Projected::Skip;
    };
    if service.metadata.deletion_timestamp.is_some() {
        return Projected::Gone { key, uid };
    }
    // A move between its two updates must not look like the end of an exposure.
    let arrived = renumber::arrived(service);
    match fields(arrived.as_ref().unwrap_or(service), admitted) {
        Ok(service) => Projected::Wanted { key, uid, object: Object::Service(Box::new(service)) },
        Err(why) => Projected::Refused { key, uid, why },
    }
}

/// Projects a Service that was deleted.
#[must_use]
pub fn gone(service: &v1::Service) -> Projected {
    match identity(service) {
        Some((key, uid)) => Projected::Gone { key, uid },
        None => Projected::Skip,
    }
}

/// Key and UID, unless the Service is the cluster's own. A real API server gives every object both.
fn identity(service: &v1::Service) -> Option<(Key, Uid)> {
    let namespace = service.metadata.namespace.as_deref()?;
    let name = service.metadata.name.as_deref()?;
    if OWN.contains(&(namespace, name)) {
        return None;
    }
    let key = Key::service(namespace, name).ok()?;
    let uid = Uid::parse(service.metadata.uid.as_deref()?).ok()?;
    Some((key, uid))
}

fn fields(service: &v1::Service, admitted: &BTreeSet<String>) -> Result<Service, &'static str> {
    let default = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&default);
    let mut projected = Service::new(service_type(spec.type_.as_deref())?);
    projected.labels = labels::labels(service.metadata.labels.as_ref());
    if projected.service_type == ServiceType::ExternalName {
        return Ok(projected);
    }
    let pins = Pins::of(service);
    projected.cluster_ips = cluster_ips(spec)?;
    projected.cluster_ip_pinned =
        pins.cluster_ip && matches!(&projected.cluster_ips, ClusterIps::Addresses(ips) if !ips.is_empty());
    projected.ip_families =
        each(spec.ip_families.as_ref(), |family| ip_family(family).ok_or("ipFamilies has an unknown entry"))?;
    projected.ip_family_policy = spec.ip_family_policy.as_deref().map(ip_family_policy).transpose()?;
    projected.ports = each(spec.ports.as_ref(), |from| port(from, &pins))?;
    projected.selector = spec.selector.clone().unwrap_or_default();
    projected.session_affinity = session_affinity(spec)?;
    projected.external_traffic_policy = traffic_policy(spec.external_traffic_policy.as_deref())?;
    projected.internal_traffic_policy = traffic_policy(spec.internal_traffic_policy.as_deref())?;
    projected.traffic_distribution = word(spec.traffic_distribution.as_ref());
    projected.publish_not_ready_addresses = spec.publish_not_ready_addresses.unwrap_or_default();
    projected.health_check_node_port = number(spec.health_check_node_port, "healthCheckNodePort is no port")?;
    projected.health_check_node_port_pinned = pins.health_check_node_port && projected.health_check_node_port.is_some();
    projected.load_balancer_class = word(spec.load_balancer_class.as_ref());
    projected.load_balancer_source_ranges = spec.load_balancer_source_ranges.clone().unwrap_or_default();
    projected.load_balancer_ip =
        word(spec.load_balancer_ip.as_ref()).map(|ip| address(&ip, "loadBalancerIP is no address")).transpose()?;
    projected.allocate_load_balancer_node_ports = spec.allocate_load_balancer_node_ports;
    projected.external_ips =
        each(spec.external_ips.as_ref(), |ip| address(ip, "externalIPs has an entry that is no address"))?;
    projected.annotations = labels::annotations(service.metadata.annotations.as_ref(), admitted);
    Ok(projected)
}

fn service_type(word: Option<&str>) -> Result<ServiceType, &'static str> {
    match word {
        None | Some("" | "ClusterIP") => Ok(ServiceType::ClusterIP),
        Some("NodePort") => Ok(ServiceType::NodePort),
        Some("LoadBalancer") => Ok(ServiceType::LoadBalancer),
        Some("ExternalName") => Ok(ServiceType::ExternalName),
        Some(_) => Err("type is unknown"),
    }
}

/// `clusterIPs`, or `clusterIP` where only that is set.
fn cluster_ips(spec: &ServiceSpec) -> Result<ClusterIps, &'static str> {
    let listed = spec.cluster_ips.iter().flatten();
    let mut words: Vec<&str> = listed.map(String::as_str).filter(|ip| !ip.is_empty()).collect();
    if words.is_empty() {
        words.extend(spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty()));
    }
    if words == ["None"] {
        return Ok(ClusterIps::Headless);
    }
    let parsed: Result<_, _> =
        words.iter().map(|ip| address(ip, "clusterIPs has an entry that is no address")).collect();
    parsed.map(ClusterIps::Addresses)
}

fn ip_family_policy(word: &str) -> Result<IpFamilyPolicy, &'static str> {
    match word {
        "SingleStack" => Ok(IpFamilyPolicy::SingleStack),
        "PreferDualStack" => Ok(IpFamilyPolicy::PreferDualStack),
        "RequireDualStack" => Ok(IpFamilyPolicy::RequireDualStack),
        _ => Err("ipFamilyPolicy is unknown"),
    }
}

fn port(from: &ServicePort, pins: &Pins) -> Result<Port, &'static str> {
    const NO_PORT: &str = "ports has a port that is none";
    let port = number(Some(from.port), NO_PORT)?.ok_or(NO_PORT)?;
    let protocol = protocol(from.protocol.as_deref()).ok_or("ports has an unknown protocol")?;
    let target_port = match &from.target_port {
        None | Some(IntOrString::Int(0)) => TargetPort::Number(port),
        Some(IntOrString::Int(target)) => {
            const NO_TARGET: &str = "ports has a targetPort that is no port";
            TargetPort::Number(number(Some(*target), NO_TARGET)?.ok_or(NO_TARGET)?)
        }
        Some(IntOrString::String(name)) => TargetPort::Name(name.clone()),
    };
    let node_port = number(from.node_port, "ports has a nodePort that is no port")?;
    Ok(Port {
        name: from.name.clone().unwrap_or_default(),
        protocol,
        port,
        target_port,
        app_protocol: word(from.app_protocol.as_ref()),
        node_port,
        node_port_pinned: node_port.is_some() && pins.node_port(port.get(), protocol),
    })
}

fn session_affinity(spec: &ServiceSpec) -> Result<SessionAffinity, &'static str> {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => Ok(SessionAffinity::None),
        Some("ClientIP") => {
            let config = spec.session_affinity_config.as_ref();
            let seconds = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
            let seconds = seconds.map(u32::try_from).transpose();
            seconds.map(SessionAffinity::ClientIp).map_err(|_| "sessionAffinityConfig has a negative time-out")
        }
        Some(_) => Err("sessionAffinity is unknown"),
    }
}

fn traffic_policy(word: Option<&str>) -> Result<Option<TrafficPolicy>, &'static str> {
    match word {
        None | Some("") => Ok(None),
        Some("Cluster") => Ok(Some(TrafficPolicy::Cluster)),
        Some("Local") => Ok(Some(TrafficPolicy::Local)),
        Some(_) => Err("a traffic policy is unknown"),
    }
}

fn address(text: &str, why: &'static str) -> Result<IpAddr, &'static str> {
    text.parse().map_err(|_| why)
}

fn each<A, B>(list: Option<&Vec<A>>, f: impl Fn(&A) -> Result<B, &'static str>) -> Result<Vec<B>, &'static str> {
    list.into_iter().flatten().map(f).collect()
}

#[cfg(test)]
mod tests;
