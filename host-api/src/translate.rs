//! From a virtual Service to the twin that the host should have. Pure, and built by allow-list: what is not written here
//! does not cross, whatever the agent sent.

use std::collections::{BTreeMap, BTreeSet};

use k3k_expose_process::cidr::Cidr;
use k3k_expose_proto::limits::ENDPOINTS;
use k3k_expose_proto::service::{
    ClusterIps, IpFamily, IpFamilyPolicy, Port, Protocol, Service, ServiceType, SessionAffinity, TargetPort,
    TrafficPolicy,
};
use k3k_expose_proto::{Key, Reason, Uid};
use k8s_openapi::api::core::v1::{ClientIPConfig, ServicePort, ServiceSpec, SessionAffinityConfig};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::cluster;
use crate::name;
use crate::services::HostName;
use crate::syntax::{is_annotation_key, is_label, is_qualified_name, is_word};
use crate::tenant::Tenant;
use crate::twin::{CLUSTER_NAME, MANAGED_BY, MANAGER, VIRTUAL_CLUSTER, VIRTUAL_NAME, VIRTUAL_NAMESPACE, VIRTUAL_UID};

/// Most source ranges of a load balancer that are put to the API server.
const RANGES: usize = 256;

/// The word in `clusterIP` of a headless Service.
pub const HEADLESS: &str = "None";

/// The twin that a virtual object asks for. `S` is the `spec` of its resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired<S = ServiceSpec> {
    /// Its name, by k3k's rule.
    pub name: String,
    /// The virtual object's UID.
    pub uid: Uid,
    /// The virtual cluster's UID.
    pub virtual_cluster: Uid,
    /// Labels, marks included.
    pub labels: BTreeMap<String, String>,
    /// Annotations, marks included.
    pub annotations: BTreeMap<String, String>,
    /// The Cluster, not as controller: k3k's status controller looks for `controller: true`.
    pub owner: OwnerReference,
    /// `spec`, with absent numbers where the host may choose.
    pub spec: S,
}

impl<S> Desired<S> {
    /// The metadata of a new twin at that place.
    #[must_use]
    pub fn metadata(&self, at: &HostName) -> ObjectMeta {
        ObjectMeta {
            name: Some(at.name.clone()),
            namespace: Some(at.namespace.clone()),
            labels: Some(self.labels.clone()),
            annotations: Some(self.annotations.clone()),
            owner_references: Some(vec![self.owner.clone()]),
            ..ObjectMeta::default()
        }
    }
}

/// Translates a Service of a tenant.
///
/// # Errors
/// The reason for which there can be no twin.
pub fn translate(
    tenant: &Tenant,
    virtual_cluster: &Uid,
    key: &Key,
    uid: &Uid,
    service: &Service,
) -> Result<Desired, Reason> {
    if service.service_type == ServiceType::ExternalName {
        return Err(Reason::ExternalNameNotExposed);
    }
    let selector = selector(tenant, key, &service.selector)?;
    if !is_readable(service) {
        return Err(Reason::HostRefused);
    }
    Ok(frame(tenant, virtual_cluster, key, uid, &service.labels, spec(service, selector)))
}

/// Whether an API server would read every text and list of a Service. What it refuses costs it the more the longer it is: a line of
/// bad source ranges takes it seconds.
fn is_readable(service: &Service) -> bool {
    let target = |port: &Port| match &port.target_port {
        TargetPort::Number(_) => true,
        TargetPort::Name(name) => is_word(name),
    };
    let endpoint_ports = service.endpoints.iter().flat_map(|endpoints| &endpoints.ports);
    let named = service.ports.iter().map(|port| (&port.name, port.app_protocol.as_ref()));
    let mut named = named.chain(endpoint_ports.map(|port| (&port.name, port.app_protocol.as_ref())));
    let addresses = match &service.cluster_ips {
        ClusterIps::Headless => 0,
        ClusterIps::Addresses(addresses) => addresses.len(),
    };
    let distinct: BTreeSet<_> = service.ports.iter().map(|port| (port.port, port.protocol)).collect();
    // Older objects may have blanks around theirs.
    let range = |range: &String| Cidr::parse(range.trim()).is_some();
    service.labels.iter().chain(&service.selector).all(is_label)
        && service.annotations.keys().all(|key| is_annotation_key(key))
        && addresses.max(service.ip_families.len()) <= 2
        && distinct.len() == service.ports.len()
        && service.endpoints.iter().all(|endpoints| endpoints.ports.len() <= ENDPOINTS)
        && service.ports.iter().all(target)
        && named.all(|(name, protocol)| (name.is_empty() || is_word(name)) && is_readable_name(protocol))
        && service.traffic_distribution.as_deref().is_none_or(is_word)
        && is_readable_name(service.load_balancer_class.as_ref())
        && service.load_balancer_source_ranges.len() <= RANGES
        && service.load_balancer_source_ranges.iter().all(range)
}

fn is_readable_name(name: Option<&String>) -> bool {
    name.is_none_or(|name| is_qualified_name(name))
}

/// What every twin has around its spec: its name, the labels that may cross, the marks, and its owner.
pub(crate) fn frame<S>(
    tenant: &Tenant,
    virtual_cluster: &Uid,
    key: &Key,
    uid: &Uid,
    labels: &BTreeMap<String, String>,
    spec: S,
) -> Desired<S> {
    let mut labels: BTreeMap<_, _> =
        labels.iter().filter(|(key, _)| label_may_cross(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
    labels.insert(CLUSTER_NAME.to_owned(), tenant.cluster().to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    // No annotation of the tenant's is admitted yet, so only the marks are written.
    let annotations = [
        (VIRTUAL_NAME, key.name()),
        (VIRTUAL_NAMESPACE, key.namespace()),
        (VIRTUAL_UID, uid.as_str()),
        (VIRTUAL_CLUSTER, virtual_cluster.as_str()),
    ];
    Desired {
        name: name::twin(key.name(), key.namespace(), tenant.cluster()),
        uid: uid.clone(),
        virtual_cluster: virtual_cluster.clone(),
        labels,
        annotations: annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        owner: OwnerReference {
            api_version: format!("{}/v1beta1", cluster::GROUP),
            kind: "Cluster".to_owned(),
            name: tenant.cluster().to_owned(),
            uid: tenant.id().to_string(),
            ..OwnerReference::default()
        },
        spec,
    }
}

/// Whether a tenant's label may stand on the twin: no key in the domains of k3k and Kubernetes but `app.kubernetes.io/`.
///
/// `service.kubernetes.io/service-proxy-name`, for one, would make kube-proxy ignore the twin.
#[must_use]
pub fn label_may_cross(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else {
        return true;
    };
    if domain == "app.kubernetes.io" {
        return key != MANAGED_BY;
    }
    let reserved = |root: &str| domain.strip_suffix(root).is_some_and(|head| head.is_empty() || head.ends_with('.'));
    !["k3k.io", "kubernetes.io", "k8s.io"].into_iter().any(reserved)
}

/// The tenant's selector, bound to its own pods. No selector stays no selector.
fn selector(
    tenant: &Tenant,
    key: &Key,
    asked: &BTreeMap<String, String>,
) -> Result<Option<BTreeMap<String, String>>, Reason> {
    if asked.is_empty() {
        return Ok(None);
    }
    let bound = [(CLUSTER_NAME, tenant.cluster()), (VIRTUAL_NAMESPACE, key.namespace())];
    let foreign = |(key, value): (&String, &String)| {
        key.starts_with("k3k.io/") && !bound.contains(&(key.as_str(), value.as_str()))
    };
    if asked.iter().any(foreign) {
        return Err(Reason::ReservedSelectorKey);
    }
    let mut selector = asked.clone();
    selector.extend(bound.map(|(key, value)| (key.to_owned(), value.to_owned())));
    Ok(Some(selector))
}

fn spec(service: &Service, selector: Option<BTreeMap<String, String>>) -> ServiceSpec {
    let external = matches!(service.service_type, ServiceType::NodePort | ServiceType::LoadBalancer);
    let balancer = service.service_type == ServiceType::LoadBalancer;
    let local = service.external_traffic_policy == Some(TrafficPolicy::Local);
    let cluster_ips = match &service.cluster_ips {
        ClusterIps::Headless => vec![HEADLESS.to_owned()],
        ClusterIps::Addresses(addresses) => addresses.iter().map(ToString::to_string).collect(),
    };
    let (affinity, timeout) = match service.session_affinity {
        SessionAffinity::None => ("None", None),
        SessionAffinity::ClientIp(timeout) => ("ClientIP", Some(timeout)),
    };
    let config = timeout.map(|seconds| SessionAffinityConfig {
        client_ip: Some(ClientIPConfig { timeout_seconds: seconds.and_then(|seconds| i32::try_from(seconds).ok()) }),
    });
    let ports: Vec<_> = service.ports.iter().map(|asked| port(asked, external)).collect();
    let ranges = Some(service.load_balancer_source_ranges.clone()).filter(|ranges| balancer && !ranges.is_empty());
    ServiceSpec {
        type_: Some(type_word(service.service_type).to_owned()),
        cluster_ip: cluster_ips.first().cloned(),
        cluster_ips: Some(cluster_ips).filter(|ips| !ips.is_empty()),
        ip_families: Some(service.ip_families.iter().map(|&family| family_word(family).to_owned()).collect::<Vec<_>>())
            .filter(|families| !families.is_empty()),
        ip_family_policy: service.ip_family_policy.map(|policy| policy_word(policy).to_owned()),
        ports: Some(ports).filter(|ports| !ports.is_empty()),
        selector,
        session_affinity: Some(affinity.to_owned()),
        session_affinity_config: config,
        external_traffic_policy: service
            .external_traffic_policy
            .filter(|_| external)
            .map(|policy| traffic_word(policy).to_owned()),
        internal_traffic_policy: service.internal_traffic_policy.map(|policy| traffic_word(policy).to_owned()),
        traffic_distribution: service.traffic_distribution.clone(),
        publish_not_ready_addresses: service.publish_not_ready_addresses.then_some(true),
        health_check_node_port: service
            .health_check_node_port
            .filter(|_| balancer && local)
            .map(|port| i32::from(port.get())),
        load_balancer_class: service.load_balancer_class.clone().filter(|_| balancer),
        load_balancer_source_ranges: ranges,
        allocate_load_balancer_node_ports: service.allocate_load_balancer_node_ports.filter(|_| balancer),
        // Addresses of the tenant's choice may cross only where a policy names them, and none does yet.
        external_ips: None,
        load_balancer_ip: None,
        external_name: None,
    }
}

fn port(asked: &Port, external: bool) -> ServicePort {
    ServicePort {
        name: Some(asked.name.clone()).filter(|name| !name.is_empty()),
        protocol: Some(protocol_word(asked.protocol).to_owned()),
        port: i32::from(asked.port.get()),
        target_port: Some(match &asked.target_port {
            TargetPort::Number(number) => IntOrString::Int(i32::from(number.get())),
            TargetPort::Name(name) => IntOrString::String(name.clone()),
        }),
        app_protocol: asked.app_protocol.clone(),
        node_port: asked.node_port.filter(|_| external).map(|port| i32::from(port.get())),
    }
}

const fn type_word(service_type: ServiceType) -> &'static str {
    match service_type {
        ServiceType::ClusterIP => "ClusterIP",
        ServiceType::NodePort => "NodePort",
        ServiceType::LoadBalancer => "LoadBalancer",
        ServiceType::ExternalName => "ExternalName",
    }
}

pub(crate) const fn family_word(family: IpFamily) -> &'static str {
    match family {
        IpFamily::IPv4 => "IPv4",
        IpFamily::IPv6 => "IPv6",
    }
}

const fn policy_word(policy: IpFamilyPolicy) -> &'static str {
    match policy {
        IpFamilyPolicy::SingleStack => "SingleStack",
        IpFamilyPolicy::PreferDualStack => "PreferDualStack",
        IpFamilyPolicy::RequireDualStack => "RequireDualStack",
    }
}

pub(crate) const fn traffic_word(policy: TrafficPolicy) -> &'static str {
    match policy {
        TrafficPolicy::Cluster => "Cluster",
        TrafficPolicy::Local => "Local",
    }
}

pub(crate) const fn protocol_word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::TCP => "TCP",
        Protocol::UDP => "UDP",
        Protocol::SCTP => "SCTP",
    }
}

#[cfg(test)]
mod tests;
