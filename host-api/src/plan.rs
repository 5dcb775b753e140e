//! From what stands and what should stand to the next write. Pure, and level-based: whoever carries out a step asks again
//! with what stands then, until there is nothing left to do. So a walk goes on by itself after a crash between its steps.
//!
//! | fields that cannot change in place | road | keeps |
//! |---|---|---|
//! | load-balancer class | over ClusterIP | UID, cluster IP |
//! | health-check node port | over externalTrafficPolicy Cluster | UID, all other numbers |
//! | headless to ClusterIP and back; another cluster IP or primary family | over ExternalName | UID |
//! | another cluster IP or primary family of a *new* virtual UID | delete, create when it is gone | |

use std::collections::BTreeMap;

use k3k_expose_proto::{Key, Uid};
use k8s_openapi::api::core::v1::ServiceSpec;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::translate::{Desired, HEADLESS};
use crate::twin::{HostService, Twin, has_health_check, is_balancer};

/// The name that a Service answers to while it walks over ExternalName. `.invalid` never resolves (RFC 2606).
const WALK_NAME: &str = "walk.expose.k3k.io.invalid";

/// Every field of `spec` that we write. Those that the twin should not have are set to null.
const FIELDS: &[&str] = &[
    "allocateLoadBalancerNodePorts",
    "clusterIP",
    "clusterIPs",
    "externalIPs",
    "externalName",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "internalTrafficPolicy",
    "ipFamilies",
    "ipFamilyPolicy",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "ports",
    "publishNotReadyAddresses",
    "selector",
    "sessionAffinity",
    "sessionAffinityConfig",
    "trafficDistribution",
    "type",
];

/// The next step.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// The twin is as it should be.
    Nothing,
    /// There is none yet.
    Create,
    /// A merge patch, guarded by UID and resourceVersion.
    Patch(Value),
    /// Delete it; the next one is made when it is gone.
    Replace,
    /// It is on its way out.
    Wait,
    /// The name is somebody else's.
    NameTaken,
    /// It belongs to another virtual cluster.
    WrongVirtualCluster,
}

/// Which road to take. The API server's "may not change" moves on to the next one instead of a retry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Road {
    /// The one that the table names.
    #[default]
    Table,
    /// Over ExternalName, which drops every immutable field.
    OverExternalName,
    /// Delete and create.
    Replace,
}

impl Road {
    /// The road after this one was refused, or `None` after the last.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self {
            Self::Table => Some(Self::OverExternalName),
            Self::OverExternalName => Some(Self::Replace),
            Self::Replace => None,
        }
    }
}

/// Plans the next step for the twin of `key` of the tenant with that UID.
///
/// `let_through` is the virtual cluster for which the platform team allows what is not this cluster's to change.
#[must_use]
pub fn plan(
    tenant: &Uid,
    key: &Key,
    desired: &Desired,
    current: Option<&HostService>,
    road: Road,
    let_through: Option<&Uid>,
) -> Plan {
    let twin = match current {
        None => return Plan::Create,
        Some(HostService::Twin(twin)) if twin.marks.tenant == *tenant && twin.marks.key == *key => twin,
        Some(_) => return Plan::NameTaken,
    };
    if let Some(plan) = obstacle(desired, twin, let_through) {
        return plan;
    }
    let spec = complete(&desired.spec, &twin.spec);
    let metadata = metadata(desired, twin);
    if spec == twin.spec && metadata.is_empty() {
        return Plan::Nothing;
    }
    let renewed = twin.marks.uid.as_ref().is_some_and(|uid| *uid != desired.uid);
    match step(&spec, &twin.spec, renewed, road) {
        Step::Straight => Plan::Patch(patch(twin, &spec, metadata)),
        Step::Over(via) => Plan::Patch(patch(twin, &via, Map::new())),
        Step::Replace => Plan::Replace,
    }
}

/// Why a twin of whatever resource is not to be written, if it is not.
pub(crate) fn obstacle<S>(desired: &Desired<S>, twin: &Twin<S>, let_through: Option<&Uid>) -> Option<Plan> {
    if twin.terminating {
        return Some(Plan::Wait);
    }
    let home = twin.marks.virtual_cluster.as_ref();
    let stranger = home.is_some_and(|home| *home != desired.virtual_cluster);
    (stranger && let_through != Some(&desired.virtual_cluster)).then_some(Plan::WrongVirtualCluster)
}

/// The patch by which a twin lets go of its node ports and keeps the rest.
#[must_use]
pub fn without_external_numbers(twin: &Twin) -> Value {
    patch(twin, &over_cluster_ip(&twin.spec), Map::new())
}

/// The patch by which a twin lets go of all its numbers.
#[must_use]
pub fn without_numbers(twin: &Twin) -> Value {
    patch(twin, &over_external_name(&twin.spec), Map::new())
}

enum Step {
    Straight,
    Over(Box<ServiceSpec>),
    Replace,
}

/// The table at the top of this file.
fn step(spec: &ServiceSpec, current: &ServiceSpec, renewed: bool, road: Road) -> Step {
    if current.type_.as_deref() == Some("ExternalName") {
        return if road == Road::Replace { Step::Replace } else { Step::Straight };
    }
    match road {
        Road::Table => {}
        Road::OverExternalName => return Step::Over(Box::new(over_external_name(current))),
        Road::Replace => return Step::Replace,
    }
    let is = |spec: &ServiceSpec, word| spec.type_.as_deref() == Some(word);
    let headless = |spec: &ServiceSpec| spec.cluster_ip.as_deref() == Some(HEADLESS);
    let family = |spec: &ServiceSpec| spec.ip_families.as_ref().and_then(|families| families.first().cloned());
    let balancers = is(spec, "LoadBalancer") && is(current, "LoadBalancer");
    let health = |spec: &ServiceSpec| spec.health_check_node_port;
    let moved = spec.cluster_ip != current.cluster_ip || family(spec) != family(current);
    if headless(spec) != headless(current) {
        Step::Over(Box::new(over_external_name(current)))
    } else if moved && renewed {
        Step::Replace
    } else if moved {
        Step::Over(Box::new(over_external_name(current)))
    } else if balancers && spec.load_balancer_class != current.load_balancer_class {
        Step::Over(Box::new(over_cluster_ip(current)))
    } else if balancers && health(spec).is_some() && health(current).is_some() && health(spec) != health(current) {
        Step::Over(Box::new(over_cluster_policy(current)))
    } else {
        Step::Straight
    }
}

/// The desired spec with every number and default that the tenant left to the host taken from what stands.
fn complete(desired: &ServiceSpec, current: &ServiceSpec) -> ServiceSpec {
    let mut spec = desired.clone();
    let primary = |spec: &ServiceSpec| spec.ip_families.as_ref().and_then(|families| families.first().cloned());
    let other_family = spec.ip_families.is_some() && primary(&spec) != primary(current);
    let allocated = current.cluster_ip.as_deref().is_some_and(|ip| ip != HEADLESS) && !other_family;
    // A host that expands a preferred dual stack, or lacks a family of it, is not fought.
    let preferred = spec.ip_family_policy.as_deref() == Some("PreferDualStack");
    if allocated && (spec.cluster_ip.is_none() || preferred && spec.cluster_ip == current.cluster_ip) {
        spec.cluster_ip.clone_from(&current.cluster_ip);
        spec.cluster_ips.clone_from(&current.cluster_ips);
        spec.ip_families.clone_from(&current.ip_families);
    }
    let or = |wish: &mut Option<String>, stands: &Option<String>| {
        if wish.is_none() {
            wish.clone_from(stands);
        }
    };
    or(&mut spec.ip_family_policy, &current.ip_family_policy);
    or(&mut spec.internal_traffic_policy, &current.internal_traffic_policy);
    if spec.ip_families.is_none() {
        spec.ip_families.clone_from(&current.ip_families);
    }
    let external = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"));
    // The API server fills it in for whatever can be reached from outside.
    if external || spec.external_ips.is_some() {
        or(&mut spec.external_traffic_policy, &current.external_traffic_policy);
    }
    // A load balancer that shall do without node ports leaves none to the host.
    if external && spec.allocate_load_balancer_node_ports != Some(false) {
        let wished: Vec<_> = spec.ports.iter().flatten().map(|port| (port.protocol.clone(), port.node_port)).collect();
        for port in spec.ports.iter_mut().flatten().filter(|port| port.node_port.is_none()) {
            let same = current.ports.iter().flatten().find(|p| p.port == port.port && p.protocol == port.protocol);
            // Another port of the Service may ask for what this one had.
            let kept = same.filter(|same| !wished.contains(&(same.protocol.clone(), same.node_port)));
            port.node_port = kept.and_then(|same| same.node_port);
        }
    }
    if is_balancer(&spec) {
        spec.allocate_load_balancer_node_ports =
            spec.allocate_load_balancer_node_ports.or(current.allocate_load_balancer_node_ports);
    }
    if has_health_check(&spec) {
        spec.health_check_node_port = spec.health_check_node_port.or(current.health_check_node_port);
    }
    let unset = |spec: &ServiceSpec| {
        spec.session_affinity_config
            .as_ref()
            .is_some_and(|config| config.client_ip.as_ref().is_none_or(|client_ip| client_ip.timeout_seconds.is_none()))
    };
    if unset(&spec) && current.session_affinity_config.is_some() {
        spec.session_affinity_config.clone_from(&current.session_affinity_config);
    }
    spec
}

/// What of labels and annotations must change: ours are set or taken away, those of others stay.
pub(crate) fn metadata<S>(desired: &Desired<S>, twin: &Twin<S>) -> Map<String, Value> {
    let mut metadata = Map::new();
    let labels = changes(&desired.labels, &twin.labels, &twin.own_labels);
    let annotations = changes(&desired.annotations, &twin.annotations, &twin.own_annotations);
    for (field, changes) in [("labels", labels), ("annotations", annotations)] {
        if !changes.is_empty() {
            metadata.insert(field.to_owned(), Value::Object(changes));
        }
    }
    metadata
}

fn changes(
    desired: &BTreeMap<String, String>,
    current: &BTreeMap<String, String>,
    own: &[String],
) -> Map<String, Value> {
    let set = desired.iter().filter(|&(key, value)| current.get(key) != Some(value));
    let set = set.map(|(key, value)| (key.clone(), Value::from(value.as_str())));
    let gone = own.iter().filter(|&key| current.contains_key(key) && !desired.contains_key(key));
    set.chain(gone.map(|key| (key.clone(), Value::Null))).collect()
}

/// A merge patch (RFC 7396) of metadata and `spec` that fails if the twin is another or has moved on.
pub(crate) fn guarded<S>(twin: &Twin<S>, mut metadata: Map<String, Value>, spec: &impl Serialize) -> Value {
    metadata.insert("uid".to_owned(), twin.uid.as_str().into());
    metadata.insert("resourceVersion".to_owned(), twin.resource_version.as_str().into());
    json!({"metadata": metadata, "spec": spec})
}

/// The patch that makes `spec` exactly this.
pub(crate) fn patch(twin: &Twin, spec: &ServiceSpec, metadata: Map<String, Value>) -> Value {
    let mut fields = match json!(spec) {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    for &field in FIELDS {
        fields.entry(field).or_insert(Value::Null);
    }
    if let Some(Value::Object(selector)) = fields.get_mut("selector") {
        for key in twin.spec.selector.iter().flatten().map(|(key, _)| key) {
            selector.entry(key.as_str()).or_insert(Value::Null);
        }
    }
    guarded(twin, metadata, &fields)
}

fn without_node_ports(current: &ServiceSpec) -> ServiceSpec {
    let mut spec = current.clone();
    for port in spec.ports.iter_mut().flatten() {
        port.node_port = None;
    }
    spec
}

fn over_external_name(current: &ServiceSpec) -> ServiceSpec {
    ServiceSpec {
        type_: Some("ExternalName".to_owned()),
        external_name: Some(WALK_NAME.to_owned()),
        ports: without_node_ports(current).ports,
        selector: current.selector.clone(),
        session_affinity: current.session_affinity.clone(),
        session_affinity_config: current.session_affinity_config.clone(),
        publish_not_ready_addresses: current.publish_not_ready_addresses,
        ..ServiceSpec::default()
    }
}

fn over_cluster_ip(current: &ServiceSpec) -> ServiceSpec {
    ServiceSpec {
        type_: Some("ClusterIP".to_owned()),
        load_balancer_class: None,
        load_balancer_source_ranges: None,
        allocate_load_balancer_node_ports: None,
        external_traffic_policy: None,
        health_check_node_port: None,
        ..without_node_ports(current)
    }
}

fn over_cluster_policy(current: &ServiceSpec) -> ServiceSpec {
    ServiceSpec { external_traffic_policy: Some("Cluster".to_owned()), health_check_node_port: None, ..current.clone() }
}

#[cfg(test)]
mod tests;
