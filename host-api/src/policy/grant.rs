//! What one tenant may have, read from the policies that are about it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k3k_expose_process::cidr::Cidr;

use super::keys::{Keys, Name};
use super::limits::Limits;
use super::resource::{Allow, Deny, ExposurePolicySpec, KeyRule};
use super::{Rule, select};
use crate::bounds::{self, Bounds};
use crate::ingress::policy::Policy;
use crate::numbers::Conflict;
use crate::translate::label_may_cross;
use crate::twin::LAST_APPLIED;

/// Node ports of a tenant, health-check node ports among them, without a policy.
pub const NODE_PORTS: usize = 100;
/// Load balancers of a tenant without a policy.
pub const LOAD_BALANCERS: usize = 10;

/// What one tenant may have.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// The policy whose `spec.allow` decides.
    pub policy: Option<String>,
    /// Fields of `spec.allow` that it gives.
    given: BTreeSet<&'static str>,
    /// Types of Services.
    pub types: BTreeSet<String>,
    /// First and last node port; none for the host's whole range.
    pub band: Option<(u16, u16)>,
    /// Most node ports.
    pub node_ports: usize,
    /// Most load balancers.
    pub load_balancers: usize,
    /// Classes of load balancers that may be named.
    pub classes: BTreeSet<String>,
    /// Each load balancer must say who may connect.
    pub source_ranges_required: bool,
    /// Where source ranges have to lie; anywhere without one.
    pub source_ranges: Option<Vec<Cidr>>,
    /// Addresses that may be asked for.
    pub addresses: Vec<Cidr>,
    /// External IPs that may be had.
    pub external_ips: Vec<Cidr>,
    /// Endpoints that Services without a selector may have besides the tenant's own pods.
    pub endpoints: Vec<Cidr>,
    /// Annotations that cross.
    pub annotations: Vec<Keys>,
    /// Labels that cross; all but reserved ones without it.
    pub labels: Option<Vec<Keys>>,
    /// Annotations that twins get besides.
    pub default_annotations: BTreeMap<String, String>,
    /// Labels that twins get besides.
    pub default_labels: BTreeMap<String, String>,
    /// What happens when a cluster IP is held; as host-api is set without it.
    pub conflict: Option<Conflict>,
    /// What is admitted of its Ingresses.
    pub ingresses: Arc<Policy>,
    /// How much it may use up.
    pub limits: Limits,
    /// What no policy may allow, by the policy that denies it.
    pub denies: Vec<(String, Denies)>,
}

/// What one policy denies of Services.
#[derive(Clone, Debug, PartialEq)]
pub struct Denies {
    /// Types of Services.
    pub types: BTreeSet<String>,
    /// Classes of load balancers.
    pub classes: BTreeSet<String>,
    addresses: Vec<Option<Cidr>>,
    annotations: Vec<Name>,
    labels: Vec<Name>,
}

impl Default for Grant {
    fn default() -> Self {
        Self::new(None, &[])
    }
}

impl Grant {
    /// Reads what the deciding policy allows, if one decides, and what all deny.
    #[must_use]
    pub fn new(allow: Option<(&str, &Allow)>, deny: &[(&str, &Deny)]) -> Self {
        let policy = allow.map(|(name, _)| name.to_owned());
        let ingresses = allow.and_then(|(name, allow)| allow.ingresses.as_ref().map(|allow| (name, allow)));
        let denied: Vec<_> = deny.iter().filter_map(|(name, deny)| Some((*name, deny.ingresses.as_ref()?))).collect();
        let default = Allow::default();
        let allow = allow.map_or(&default, |(_, allow)| allow);
        let balancers = allow.load_balancers.clone().unwrap_or_default();
        let (band, node_ports) = allow.node_ports.as_ref().map_or((None, None), |ports| (band(ports), ports.most));
        let defaults = allow.defaults.clone().unwrap_or_default();
        Self {
            policy,
            given: given(allow),
            types: match &allow.service_types {
                Some(types) => types.iter().cloned().collect(),
                None => ["ClusterIP", "NodePort", "LoadBalancer"].map(str::to_owned).into(),
            },
            band,
            node_ports: number(node_ports).unwrap_or(NODE_PORTS),
            load_balancers: number(balancers.most).unwrap_or(LOAD_BALANCERS),
            classes: balancers.classes.into_iter().collect(),
            source_ranges_required: balancers.source_ranges_required,
            source_ranges: Some(balancers.source_ranges).filter(|cidrs| !cidrs.is_empty()).map(|cidrs| read(&cidrs)),
            addresses: read(&balancers.addresses),
            external_ips: read(allow.external_ips.as_deref().unwrap_or_default()),
            endpoints: read(allow.endpoints.as_deref().unwrap_or_default()),
            annotations: keys(allow.annotations.as_deref().unwrap_or_default()),
            labels: allow.labels.as_deref().map(keys),
            default_annotations: retain(defaults.annotations, annotation_may_cross),
            default_labels: retain(defaults.labels, label_may_cross),
            conflict: match allow.cluster_ip_conflict.as_deref() {
                None => None,
                Some("Renumber") => Some(Conflict::Renumber),
                Some(_) => Some(Conflict::Report),
            },
            ingresses: Arc::new(Policy::read(ingresses, &denied).0),
            limits: allow.limits.as_ref().map(Limits::parse).unwrap_or_default(),
            denies: deny.iter().map(|(name, deny)| ((*name).to_owned(), Denies::parse(deny))).collect(),
        }
    }

    /// Whether both admit the same of Services, whoever says so, and however many of them.
    #[must_use]
    pub fn admits_same_as(&self, other: &Self) -> bool {
        let (policy, given) = (self.policy.clone(), self.given.clone());
        *self == Self { policy, given, limits: self.limits, ingresses: Arc::clone(&self.ingresses), ..other.clone() }
    }

    /// What decides about a field of `spec.allow`.
    #[must_use]
    pub fn rule(&self, field: &'static str) -> Rule {
        let policy = self.policy.clone().filter(|_| self.given.contains(field.split('.').next().unwrap_or(field)));
        Rule { policy, field: format!("spec.allow.{field}") }
    }

    /// What denies, by the name of the policy.
    #[must_use]
    pub fn denied(policy: &str, field: &'static str) -> Rule {
        Rule { policy: Some(policy.to_owned()), field: format!("spec.deny.{field}") }
    }

    /// The annotations of Services that agents are to send, as they are told them.
    #[must_use]
    pub fn shown_annotations(&self) -> Vec<String> {
        let shown: BTreeSet<String> = self.annotations.iter().map(|keys| keys.name().shown()).collect();
        shown.into_iter().filter(|key| !key.is_empty()).collect()
    }

    /// The rule that means an annotation, unless its key may not cross at all.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&Keys> {
        let denied = self.denies.iter().flat_map(|(_, denies)| &denies.annotations).any(|name| name.denies(key));
        if denied || !annotation_may_cross(key) {
            return None;
        }
        self.annotations.iter().find(|keys| keys.name().admits(key))
    }

    /// Whether a label crosses.
    #[must_use]
    pub fn admits_label(&self, key: &str, value: &str) -> bool {
        let denied = self.denies.iter().flat_map(|(_, denies)| &denies.labels).any(|name| name.denies(key));
        let admitted = |keys: &Vec<Keys>| keys.iter().any(|keys| keys.name().admits(key) && keys.admits(value));
        label_may_cross(key) && !denied && self.labels.as_ref().is_none_or(admitted)
    }

    /// Whether a node port lies in the band.
    #[must_use]
    pub fn has_in_band(&self, port: u16) -> bool {
        self.band.is_none_or(|(from, to)| (from..=to).contains(&port))
    }

    /// The policy that denies an address, if one does.
    #[must_use]
    pub fn denies_address(&self, ip: IpAddr) -> Option<&str> {
        // A block that cannot be read may be any.
        let denies = |denies: &Denies| denies.addresses.iter().any(|cidr| cidr.is_none_or(|cidr| cidr.contains(ip)));
        self.denies.iter().find(|(_, all)| denies(all)).map(|(policy, _)| policy.as_str())
    }
}

impl Denies {
    /// Reads what is denied.
    #[must_use]
    pub fn parse(deny: &Deny) -> Self {
        Self {
            types: deny.service_types.iter().cloned().collect(),
            classes: deny.load_balancer_classes.iter().cloned().collect(),
            addresses: deny.addresses.iter().map(|cidr| Cidr::parse(cidr)).collect(),
            annotations: deny.annotations.iter().map(Name::denied).collect(),
            labels: deny.labels.iter().map(Name::denied).collect(),
        }
    }
}

/// What each field of `spec.allow` is without a policy that says so, in the order of the README.
#[must_use]
pub fn defaults() -> Vec<(&'static str, String)> {
    let writes = Bounds::default().writes;
    vec![
        ("serviceTypes", "ClusterIP (headless ones too), NodePort, LoadBalancer".to_owned()),
        ("nodePorts", format!("any of the host's range, {NODE_PORTS} at most, those of health checks among them")),
        (
            "loadBalancers",
            format!(
                "{LOAD_BALANCERS} at most, of the host's default class, open to anybody, with no address of their choice"
            ),
        ),
        ("externalIPs", "none".to_owned()),
        ("endpoints", "addresses of the virtual cluster's own pods".to_owned()),
        ("annotations", "none".to_owned()),
        ("labels", "all but those under `k3k.io`, `kubernetes.io` and `k8s.io`, which never cross".to_owned()),
        ("defaults", "none".to_owned()),
        ("clusterIPConflict", "as `K3K_EXPOSE_CLUSTER_IP_CONFLICT` says".to_owned()),
        ("ingresses", "none".to_owned()),
        (
            "limits",
            format!(
                "`K3K_EXPOSE_TENANT_OBJECTS` Services, Ingresses and certificates, {} writes at once, then {} a second; no policy gives more",
                bounds::many(writes.burst.try_into().unwrap_or(usize::MAX)),
                writes.per_second
            ),
        ),
    ]
}

/// Whether an annotation's key may cross if a policy says so: no marks, and not the object as a whole.
#[must_use]
pub fn annotation_may_cross(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    key != LAST_APPLIED && domain != "k3k.io" && !domain.ends_with(".k3k.io")
}

/// What of a policy cannot be used.
#[must_use]
pub fn mistakes(spec: &ExposurePolicySpec) -> Vec<String> {
    let mut mistakes = Vec::new();
    if !select::is_clear(spec) {
        mistakes.push(
            "a selector cannot be read: nobody gets what the policy allows, and everybody is denied what it denies"
                .to_owned(),
        );
    }
    let (allow, deny) = (spec.allow.clone().unwrap_or_default(), spec.deny.clone().unwrap_or_default());
    let balancers = allow.load_balancers.unwrap_or_default();
    let [external, endpoints] = [allow.external_ips, allow.endpoints].map(Option::unwrap_or_default);
    let cidrs = [&balancers.source_ranges, &balancers.addresses, &external, &endpoints, &deny.addresses];
    let unread = cidrs.into_iter().flatten().filter(|cidr| Cidr::parse(cidr).is_none());
    mistakes.extend(unread.map(|cidr| format!("{cidr:?} is no CIDR")));
    let rules = [allow.annotations, allow.labels];
    mistakes.extend(rules.iter().flatten().flatten().filter_map(|rule| Keys::parse(rule).1));
    let denied: Vec<_> = deny.ingresses.iter().map(|deny| ("", deny)).collect();
    mistakes.extend(Policy::read(allow.ingresses.as_ref().map(|allow| ("", allow)), &denied).1);
    let denied = deny.annotations.iter().chain(&deny.labels).map(Name::denied);
    mistakes.extend(
        denied.filter(|name| *name == Name::Unusable).map(|_| "a key is missing, so all are denied".to_owned()),
    );
    if allow.node_ports.as_ref().is_some_and(|ports| (ports.from.is_some() || ports.to.is_some()) && !is_band(ports)) {
        mistakes.push("the band of node ports is none, so there are none".to_owned());
    }
    mistakes
}

fn given(allow: &Allow) -> BTreeSet<&'static str> {
    [
        ("serviceTypes", allow.service_types.is_some()),
        ("nodePorts", allow.node_ports.is_some()),
        ("loadBalancers", allow.load_balancers.is_some()),
        ("externalIPs", allow.external_ips.is_some()),
        ("endpoints", allow.endpoints.is_some()),
        ("annotations", allow.annotations.is_some()),
        ("labels", allow.labels.is_some()),
        ("defaults", allow.defaults.is_some()),
        ("clusterIPConflict", allow.cluster_ip_conflict.is_some()),
        ("ingresses", allow.ingresses.is_some()),
        ("limits", allow.limits.is_some()),
    ]
    .into_iter()
    .filter_map(|(field, given)| given.then_some(field))
    .collect()
}

/// A band that is none admits no port.
fn band(ports: &super::resource::NodePorts) -> Option<(u16, u16)> {
    let port = |port: Option<i32>| port.and_then(|port| u16::try_from(port).ok());
    match (ports.from, ports.to) {
        (None, None) => None,
        _ => Some(port(ports.from).zip(port(ports.to)).unwrap_or((1, 0))),
    }
}

fn is_band(ports: &super::resource::NodePorts) -> bool {
    band(ports).is_some_and(|(from, to)| from <= to)
}

fn number(most: Option<i32>) -> Option<usize> {
    most.map(|most| usize::try_from(most).unwrap_or_default())
}

/// The blocks that can be read: one that cannot admits nothing.
fn read(cidrs: &[String]) -> Vec<Cidr> {
    cidrs.iter().filter_map(|cidr| Cidr::parse(cidr)).collect()
}

fn keys(rules: &[KeyRule]) -> Vec<Keys> {
    rules.iter().map(|rule| Keys::parse(rule).0).collect()
}

fn retain(mut map: BTreeMap<String, String>, may_cross: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
    map.retain(|key, _| may_cross(key));
    map
}
