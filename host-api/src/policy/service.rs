//! A Service of a tenant against what the tenant may have. Pure.
//!
//! What a tenant asks for and may not have is refused; labels and annotations that may not cross stay behind. How many node
//! ports and load balancers a tenant has besides is counted elsewhere.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k3k_expose_process::cidr::Cidr;
use k3k_expose_process::quote::quote;
use k3k_expose_proto::service::{Service, ServiceType};
use k3k_expose_proto::{Reason, service};

use super::grant::{Denies, Grant};
use super::{Refusal, Rule};
use crate::translate::{Desired, label_may_cross, traffic_word};

/// Judges a Service.
///
/// # Errors
/// The first [`Refusal`], in the order in which a tenant would mend them.
pub fn judge(grant: &Grant, service: &Service) -> Result<(), Refusal> {
    service_type(grant, service.service_type)?;
    if matches!(service.service_type, ServiceType::NodePort | ServiceType::LoadBalancer) {
        node_ports(grant, service)?;
    }
    if service.service_type == ServiceType::LoadBalancer {
        class(grant, service)?;
        source_ranges(grant, service)?;
        if let Some(ip) = service.load_balancer_ip {
            address(grant, ip, &grant.addresses, "loadBalancers.addresses", Reason::AddressNotAdmitted)?;
        }
    }
    for ip in &service.external_ips {
        address(grant, *ip, &grant.external_ips, "externalIPs", Reason::ExternalIPNotAdmitted)?;
    }
    annotations(grant, &service.annotations)
}

/// Puts onto the twin what of a Service that was admitted crosses under policy only.
pub fn shape(grant: &Grant, service: &Service, desired: &mut Desired) {
    labels(grant, &mut desired.labels, &service.labels);
    let crossing =
        service.annotations.iter().filter(|(key, value)| grant.annotation(key).is_some_and(|keys| keys.admits(value)));
    let crossing: BTreeMap<String, String> = crossing.map(|(key, value)| (key.clone(), value.clone())).collect();
    // What is said later wins: the tenant over the defaults, the marks over all.
    let marks = std::mem::take(&mut desired.annotations);
    desired.annotations = grant.default_annotations.clone();
    desired.annotations.extend(crossing);
    desired.annotations.extend(marks);
    let text = |ip: &IpAddr| ip.to_string();
    desired.spec.external_ips =
        Some(service.external_ips.iter().map(text).collect::<Vec<_>>()).filter(|ips| !ips.is_empty());
    if desired.spec.external_ips.is_some() && desired.spec.external_traffic_policy.is_none() {
        desired.spec.external_traffic_policy =
            service.external_traffic_policy.map(|policy| traffic_word(policy).to_owned());
    }
    let balancer = service.service_type == ServiceType::LoadBalancer;
    desired.spec.load_balancer_ip = service.load_balancer_ip.as_ref().filter(|_| balancer).map(text);
}

/// Takes labels off a twin that may not cross, and adds the defaults. The marks are none of the tenant's.
fn labels(grant: &Grant, labels: &mut BTreeMap<String, String>, asked: &BTreeMap<String, String>) {
    labels
        .retain(|key, value| asked.get(key) != Some(value) || grant.admits_label(key, value) || !label_may_cross(key));
    for (key, value) in &grant.default_labels {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

fn service_type(grant: &Grant, asked: ServiceType) -> Result<(), Refusal> {
    let word = match asked {
        ServiceType::ClusterIP => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
        // It has an answer of its own.
        ServiceType::ExternalName => return Ok(()),
    };
    let refuse = |rule| refuse(Reason::TypeNotAdmitted, format!("Services of type {word} are not admitted"), rule);
    if let Some(policy) = denying(grant, |denies| denies.types.contains(word)) {
        return refuse(Grant::denied(policy, "serviceTypes"));
    }
    if grant.types.contains(word) { Ok(()) } else { refuse(grant.rule("serviceTypes")) }
}

/// A port that the virtual API server drew is nobody's wish; the twin gets another.
fn node_ports(grant: &Grant, service: &Service) -> Result<(), Refusal> {
    let Some((from, to)) = grant.band else {
        return Ok(());
    };
    let pinned = |port: &service::Port| port.node_port.filter(|_| port.node_port_pinned);
    let health = service.health_check_node_port.filter(|_| service.health_check_node_port_pinned);
    let mut asked = service.ports.iter().filter_map(pinned).chain(health);
    match asked.find(|port| !grant.has_in_band(port.get())) {
        Some(port) => {
            let message = format!("node port {port} is not admitted; choose one from {from} to {to}, or none");
            refuse(Reason::NodePortNotAdmitted, message, grant.rule("nodePorts"))
        }
        None => Ok(()),
    }
}

fn class(grant: &Grant, service: &Service) -> Result<(), Refusal> {
    let Some(class) = &service.load_balancer_class else {
        return Ok(());
    };
    let message = || format!("load-balancer class {} is not admitted", quote(class));
    if let Some(policy) = denying(grant, |denies| denies.classes.contains(class)) {
        return refuse(Reason::LoadBalancerClassNotAdmitted, message(), Grant::denied(policy, "loadBalancerClasses"));
    }
    if grant.classes.contains(class) {
        return Ok(());
    }
    refuse(Reason::LoadBalancerClassNotAdmitted, message(), grant.rule("loadBalancers.classes"))
}

fn source_ranges(grant: &Grant, service: &Service) -> Result<(), Refusal> {
    let asked = &service.load_balancer_source_ranges;
    if asked.is_empty() && (grant.source_ranges_required || grant.source_ranges.is_some()) {
        let message = "loadBalancerSourceRanges must say who may connect".to_owned();
        return refuse(Reason::SourceRangesRequired, message, grant.rule("loadBalancers.sourceRangesRequired"));
    }
    let Some(admitted) = &grant.source_ranges else {
        return Ok(());
    };
    // The API server lets blanks around a range through.
    let within =
        |text: &str| Cidr::parse(text.trim()).is_some_and(|asked| admitted.iter().any(|cidr| cidr.covers(asked)));
    match asked.iter().find(|text| !within(text)) {
        Some(text) => {
            let message = format!("source range {} is not admitted", quote(text));
            refuse(Reason::SourceRangeNotAdmitted, message, grant.rule("loadBalancers.sourceRanges"))
        }
        None => Ok(()),
    }
}

fn address(grant: &Grant, ip: IpAddr, admitted: &[Cidr], field: &'static str, reason: Reason) -> Result<(), Refusal> {
    // An IPv4 address in the clothes of an IPv6 one would be judged as another than it is used as.
    let plain = ip.to_canonical();
    let message = || format!("address {ip} is not admitted");
    if let Some(policy) = grant.denies_address(plain) {
        return refuse(reason, message(), Grant::denied(policy, "addresses"));
    }
    let is_admitted = plain == ip && admitted.iter().any(|cidr| cidr.contains(ip));
    if is_admitted { Ok(()) } else { refuse(reason, message(), grant.rule(field)) }
}

/// A key that is not admitted stays behind; a value that is not is refused, since the tenant relies on it.
fn annotations(grant: &Grant, asked: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let mut mistaken =
        asked.iter().filter(|(key, value)| grant.annotation(key).is_some_and(|keys| !keys.admits(value)));
    match mistaken.next() {
        Some((key, _)) => {
            let message = format!("the value of annotation {} is not admitted", quote(key));
            refuse(Reason::AnnotationNotAdmitted, message, grant.rule("annotations"))
        }
        None => Ok(()),
    }
}

fn denying(grant: &Grant, denies: impl Fn(&Denies) -> bool) -> Option<&str> {
    grant.denies.iter().find(|(_, all)| denies(all)).map(|(policy, _)| policy.as_str())
}

fn refuse(reason: Reason, message: String, rule: Rule) -> Result<(), Refusal> {
    Err(Refusal { reason, message, rule: Some(rule) })
}
