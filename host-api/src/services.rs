//! Every Service of the host, reduced: twins to plan with, and for all others the numbers they hold. Pure.
//!
//! Knowing who holds a number spares a write that could only fail, and tells when to try again: by the event that frees
//! it, not by polling.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use k3k_expose_proto::{Key, Uid};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::name;
use crate::newest::Newest;
use crate::policy::Usage;
use crate::twin::{self, HostService, Twin};

/// Namespace and name of a Service, or an Ingress, of the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl HostName {
    /// Where the twin of an object is.
    #[must_use]
    pub fn of_twin(namespace: &str, cluster: &str, key: &Key) -> Self {
        Self { namespace: namespace.to_owned(), name: name::twin(key.name(), key.namespace(), cluster) }
    }

    /// Where an object is.
    #[must_use]
    pub fn of(meta: &ObjectMeta) -> Self {
        Self { namespace: meta.namespace.clone().unwrap_or_default(), name: meta.name.clone().unwrap_or_default() }
    }
}

/// What a twin can be kept waiting for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blocker {
    /// A name that somebody else has, or that is not free yet.
    Name(HostName),
    /// A cluster IP that somebody else holds.
    ClusterIp(IpAddr),
    /// A node port that somebody else holds.
    NodePort(u16),
    /// A quota of this namespace that is used up.
    Quota(String),
    /// The host's ranges of cluster IPs.
    Ranges,
    /// A name of an Ingress that somebody else has, or that is not free yet.
    IngressName(HostName),
    /// A host of an Ingress that somebody else has.
    Host(String),
    /// Whether this Service of that tenant has a twin.
    Backend(Uid, Key),
    /// Room for another twin of that tenant.
    Room(Uid),
    /// A slice that is not gone yet, or somebody else's.
    Slice(HostName),
    /// Whose an address is.
    Endpoint(IpAddr),
    /// Whose the addresses of the host are, as long as that is not known.
    Addresses,
    /// One more of what that tenant may have only so many of.
    Count(Uid, Counted),
}

/// What a tenant may have only so many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counted {
    /// Node ports.
    NodePorts,
    /// Load balancers.
    LoadBalancers,
}

/// What an event changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// The Service before.
    pub before: Option<HostService>,
    /// Names and numbers that nobody holds any more.
    pub freed: Vec<Blocker>,
}

/// The Services of the host.
#[derive(Debug, Default)]
pub struct HostServices {
    // By namespace first, so that a tenant's own can be listed without a look at all others.
    known: HashMap<String, BTreeMap<String, HostService>>,
    cluster_ips: HashMap<IpAddr, HostName>,
    node_ports: HashMap<u16, HostName>,
    twins: HashMap<Uid, usize>,
    usage: HashMap<Uid, Usage>,
    // Held by an IPAddress object that somebody made without a Service.
    reserved_ips: HashSet<IpAddr>,
    newest: Newest,
}

impl HostServices {
    /// Takes a Service from the watch.
    ///
    /// Gives `None` when nothing newer is said than what is known.
    pub fn seen(&mut self, service: Service) -> Option<Change> {
        let (at, service) = Self::parse(service);
        let known = version(&self.known, &at);
        self.newest.seen(known, service.resource_version()).then(|| self.replace(at, Some(service)))
    }

    /// Takes a Service that a read has just shown.
    pub fn read(&mut self, service: Service) -> Option<Change> {
        let (at, service) = Self::parse(service);
        let known = version(&self.known, &at);
        Newest::read(known, service.resource_version()).then(|| self.replace(at, Some(service)))
    }

    /// Takes a Service from the answer to a write of ours.
    pub fn answered(&mut self, service: Service) -> Option<Change> {
        let (at, service) = Self::parse(service);
        let known = version(&self.known, &at);
        self.newest.answered(known, service.resource_version()).then(|| self.replace(at, Some(service)))
    }

    /// Takes it that a Service is gone. `resource_version` is that of the event, or `None` for what a read has shown.
    pub fn gone(&mut self, at: HostName, resource_version: Option<&str>) -> Option<Change> {
        let known = version(&self.known, &at);
        self.newest.gone(known, resource_version).then(|| self.replace(at, None))
    }

    /// Takes it that the host has accepted the deletion of a twin. It goes for good, whatever older news says of it.
    pub fn goes(&mut self, at: &HostName, uid: &str) {
        let known = self.known.get_mut(&at.namespace).and_then(|services| services.get_mut(&at.name));
        if let Some(HostService::Twin(twin)) = known
            && twin.uid == uid
        {
            twin.terminating = true;
        }
    }

    /// Names of all Services known, to find those that a new list lacks.
    #[must_use]
    pub fn names(&self) -> Vec<HostName> {
        let in_namespace = |(namespace, services): (&String, &BTreeMap<String, HostService>)| {
            services
                .keys()
                .map(|name| HostName { namespace: namespace.clone(), name: name.clone() })
                .collect::<Vec<_>>()
        };
        self.known.iter().flat_map(in_namespace).collect()
    }

    /// The Service of that name.
    #[must_use]
    pub fn get(&self, at: &HostName) -> Option<&HostService> {
        self.known.get(&at.namespace)?.get(&at.name)
    }

    /// The twins in a namespace.
    pub fn twins(&self, namespace: &str) -> impl Iterator<Item = (&str, &Twin)> {
        self.known.get(namespace).into_iter().flatten().filter_map(|(name, service)| match service {
            HostService::Twin(twin) => Some((name.as_str(), twin.as_ref())),
            HostService::Foreign(_) => None,
        })
    }

    /// Number of twins of a tenant.
    #[must_use]
    pub fn twins_of(&self, tenant: &Uid) -> usize {
        self.twins.get(tenant).copied().unwrap_or_default()
    }

    /// What the twins of a tenant take up.
    #[must_use]
    pub fn usage(&self, tenant: &Uid) -> Usage {
        self.usage.get(tenant).copied().unwrap_or_default()
    }

    /// Who holds what something waits for.
    #[must_use]
    pub fn holder(&self, of: &Blocker) -> Option<&HostName> {
        match of {
            Blocker::ClusterIp(ip) => self.cluster_ips.get(ip),
            Blocker::NodePort(port) => self.node_ports.get(port),
            _ => None,
        }
    }

    /// Whether a cluster IP is held without a Service.
    #[must_use]
    pub fn is_reserved(&self, of: &Blocker) -> bool {
        matches!(of, Blocker::ClusterIp(ip) if self.reserved_ips.contains(ip))
    }

    /// Takes it that a cluster IP is held, or not held any more, without a Service. Tells whether that is new.
    pub fn reserve(&mut self, ip: IpAddr, held: bool) -> bool {
        if held { self.reserved_ips.insert(ip) } else { self.reserved_ips.remove(&ip) }
    }

    /// Cluster IPs that are held without a Service.
    #[must_use]
    pub fn reserved(&self) -> Vec<IpAddr> {
        self.reserved_ips.iter().copied().collect()
    }

    /// Who else than `at` holds a number. The API server counts node ports over all protocols.
    #[must_use]
    pub fn other_holder(&self, at: &HostName, of: &Blocker) -> Option<&HostName> {
        self.holder(of).filter(|holder| *holder != at)
    }

    fn parse(service: Service) -> (HostName, HostService) {
        let at = HostName::of(&service.metadata);
        (at, twin::reduce(service))
    }

    fn replace(&mut self, at: HostName, mut service: Option<HostService>) -> Change {
        if let (Some(HostService::Twin(after)), Some(HostService::Twin(before))) = (&mut service, self.get(&at)) {
            after.terminating |= before.terminating && before.uid == after.uid;
        }
        let held = service.as_ref().map(HostService::held).unwrap_or_default();
        let present = service.is_some();
        let is = service.as_ref().and_then(HostService::twin).map(|twin| twin.marks.tenant.clone());
        if let Some(twin) = service.as_ref().and_then(HostService::twin) {
            let usage = self.usage.entry(twin.marks.tenant.clone()).or_default();
            *usage = usage.and(Usage::of(&twin.spec));
        }
        let of_namespace = self.known.entry(at.namespace.clone()).or_default();
        let before = match service {
            Some(service) => of_namespace.insert(at.name.clone(), service),
            None => of_namespace.remove(&at.name),
        };
        if of_namespace.is_empty() {
            self.known.remove(&at.namespace);
        }
        let was = before.as_ref().and_then(HostService::twin).map(|twin| &twin.marks.tenant);
        recount(&mut self.twins, was, is.as_ref());
        if let Some(twin) = before.as_ref().and_then(HostService::twin)
            && let Some(usage) = self.usage.get_mut(&twin.marks.tenant)
        {
            *usage = usage.without(Usage::of(&twin.spec));
            if *usage == Usage::default() {
                self.usage.remove(&twin.marks.tenant);
            }
        }
        let released = before.as_ref().map(HostService::held).unwrap_or_default();
        let mut freed = Vec::new();
        for ip in released.cluster_ips.into_iter().filter(|ip| !held.cluster_ips.contains(ip)) {
            if self.cluster_ips.get(&ip) == Some(&at) {
                self.cluster_ips.remove(&ip);
                freed.push(Blocker::ClusterIp(ip));
            }
        }
        for port in released.node_ports.into_iter().filter(|port| !held.node_ports.contains(port)) {
            if self.node_ports.get(&port) == Some(&at) {
                self.node_ports.remove(&port);
                freed.push(Blocker::NodePort(port));
            }
        }
        self.cluster_ips.extend(held.cluster_ips.into_iter().map(|ip| (ip, at.clone())));
        self.node_ports.extend(held.node_ports.into_iter().map(|port| (port, at.clone())));
        if !present {
            freed.push(Blocker::Name(at));
        }
        Change { before, freed }
    }
}

fn version<'a>(known: &'a HashMap<String, BTreeMap<String, HostService>>, at: &HostName) -> Option<&'a str> {
    known.get(&at.namespace)?.get(&at.name).map(HostService::resource_version)
}

/// Counts a twin with its tenant, no more with the one before.
pub(crate) fn recount(twins: &mut HashMap<Uid, usize>, was: Option<&Uid>, is: Option<&Uid>) {
    if let Some(is) = is {
        *twins.entry(is.clone()).or_default() += 1;
    }
    if let Some(was) = was
        && let Some(count) = twins.get_mut(was)
    {
        *count -= 1;
        if *count == 0 {
            twins.remove(was);
        }
    }
}

/// Whether `known` is at least as new. Revisions of one object are comparable as numbers (KEP-5504).
#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(name: &str, revision: u32, port: u16) -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "ns", "uid": name, "resourceVersion": revision.to_string()},
            "spec": {"clusterIPs": [format!("10.43.0.{}", port % 100)], "ports": [{"port": 80, "nodePort": port}]}
        }))
        .unwrap()
    }

    fn at(name: &str) -> HostName {
        HostName { namespace: "ns".to_owned(), name: name.to_owned() }
    }

    #[test]
    fn who_holds_a_number_is_known_and_freed_numbers_are_told() {
        let mut services = HostServices::default();
        services.seen(service("a", 1, 30_001)).unwrap();
        assert!(
            services.other_holder(&at("b"), &Blocker::NodePort(30_001)).is_some()
                && services.other_holder(&at("a"), &Blocker::NodePort(30_001)).is_none()
        );
        let change = services.seen(service("a", 2, 30_002)).unwrap();
        assert_eq!(change.freed, [Blocker::ClusterIp("10.43.0.1".parse().unwrap()), Blocker::NodePort(30_001)]);
        let change = services.gone(at("a"), Some("3")).unwrap();
        assert!(change.freed.contains(&Blocker::NodePort(30_002)) && change.freed.contains(&Blocker::Name(at("a"))));
        assert!(services.other_holder(&at("b"), &Blocker::NodePort(30_002)).is_none());
    }

    #[test]
    fn older_news_changes_nothing() {
        let mut services = HostServices::default();
        services.seen(service("a", 5, 30_005)).unwrap();
        assert_eq!(services.seen(service("a", 4, 30_004)), None);
        assert_eq!(services.answered(service("a", 5, 30_005)), None);
        assert!(services.other_holder(&at("b"), &Blocker::NodePort(30_005)).is_some());
    }

    #[test]
    fn an_answer_that_the_watch_has_overtaken_does_not_raise_the_dead() {
        let mut services = HostServices::default();
        services.seen(service("a", 5, 30_005)).unwrap();
        services.gone(at("a"), Some("7")).unwrap();
        assert_eq!(services.answered(service("a", 6, 30_006)), None);
        assert_eq!(services.get(&at("a")), None);
        assert!(services.answered(service("a", 8, 30_008)).is_some());
    }

    #[test]
    fn a_late_farewell_does_not_take_the_namesake_along() {
        let mut services = HostServices::default();
        services.seen(service("a", 9, 30_009)).unwrap();
        assert_eq!(services.gone(at("a"), Some("8")), None);
        assert!(services.get(&at("a")).is_some());
    }

    #[test]
    fn a_number_that_moved_on_is_not_freed_by_its_old_holder() {
        let mut services = HostServices::default();
        services.seen(service("a", 1, 30_001)).unwrap();
        services.seen(service("b", 2, 30_001)).unwrap();
        assert_eq!(services.gone(at("a"), Some("3")).unwrap().freed, [Blocker::Name(at("a"))]);
        assert!(services.other_holder(&at("a"), &Blocker::NodePort(30_001)).is_some());
    }
}
