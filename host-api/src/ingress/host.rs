//! An Ingress of the host, reduced: whose twin it is, and which hosts and paths it has. Pure.

use std::collections::BTreeSet;

use k3k_expose_proto::Resource;
use k3k_expose_proto::message::{Ingress as Address, IngressPort};
use k8s_openapi::api::networking::v1::{Ingress, IngressSpec, IngressStatus};

use crate::twin::{self, Twin};

/// An Ingress of the host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostIngress {
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// When it was created, in seconds, and its UID: of two that have a route, the lesser one was first.
    pub age: (i64, String),
    /// What it has.
    pub routes: BTreeSet<Route>,
    /// It as a twin, if it is one.
    pub twin: Option<Box<Twin<IngressSpec>>>,
}

/// A host name with a path: at most one tenant has it.
///
/// The type of the path does not count, so that nobody slips beneath another's `Prefix` with an `Exact` of the same path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The host name, empty for all.
    pub host: String,
    /// The path without a slash at its end.
    pub path: String,
}

impl Route {
    fn new(host: &str, path: &str) -> Self {
        Self { host: host.to_owned(), path: path.trim_end_matches('/').to_owned() }
    }
}

/// Reduces an Ingress of the host.
#[must_use]
pub fn reduce(ingress: Ingress) -> HostIngress {
    let Ingress { metadata: meta, spec, status } = ingress;
    let spec = normalize(spec.unwrap_or_default());
    let created = meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    HostIngress {
        resource_version: meta.resource_version.clone().unwrap_or_default(),
        age: (created, meta.uid.clone().unwrap_or_default()),
        routes: routes(&spec),
        twin: twin::marks(&meta, Resource::Ingresses)
            .map(|marks| Box::new(Twin::new(meta, marks, spec, addresses(&status.unwrap_or_default()), Vec::new()))),
    }
}

/// One spelling for each meaning, as [`twin::normalize`] gives it to Services.
#[must_use]
pub fn normalize(mut spec: IngressSpec) -> IngressSpec {
    spec.rules = spec.rules.filter(|rules| !rules.is_empty());
    spec.tls = spec.tls.filter(|tls| !tls.is_empty());
    for rule in spec.rules.iter_mut().flatten() {
        rule.host = rule.host.take().filter(|host| !host.is_empty());
        rule.http = rule.http.take().filter(|http| !http.paths.is_empty());
        for path in rule.http.iter_mut().flat_map(|http| &mut http.paths) {
            path.path = path.path.take().filter(|path| !path.is_empty());
        }
    }
    for tls in spec.tls.iter_mut().flatten() {
        tls.hosts = tls.hosts.take().filter(|hosts| !hosts.is_empty());
        tls.secret_name = tls.secret_name.take().filter(|name| !name.is_empty());
    }
    spec
}

/// Every host and path that a spec asks for. A default backend has what no rule has.
#[must_use]
pub fn routes(spec: &IngressSpec) -> BTreeSet<Route> {
    let mut routes = BTreeSet::new();
    if spec.default_backend.is_some() {
        routes.insert(Route::new("", ""));
    }
    for rule in spec.rules.iter().flatten() {
        let host = rule.host.as_deref().unwrap_or_default();
        let paths = rule.http.as_ref().map(|http| http.paths.as_slice()).unwrap_or_default();
        if paths.is_empty() {
            routes.insert(Route::new(host, ""));
        }
        routes.extend(paths.iter().map(|path| Route::new(host, path.path.as_deref().unwrap_or_default())));
    }
    routes
}

fn addresses(status: &IngressStatus) -> Vec<Address> {
    let entries = status.load_balancer.as_ref().and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
    let port = |port: &k8s_openapi::api::networking::v1::IngressPortStatus| {
        let (number, protocol) = (twin::number(port.port)?, twin::protocol(&port.protocol)?);
        Some(IngressPort { port: number, protocol, error: port.error.clone() })
    };
    let entry = |entry: &k8s_openapi::api::networking::v1::IngressLoadBalancerIngress| Address {
        ip: entry.ip.as_deref().and_then(|ip| ip.parse().ok()),
        hostname: entry.hostname.clone(),
        ip_mode: None,
        ports: entry.ports.iter().flatten().filter_map(port).collect(),
    };
    entries.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(json: serde_json::Value) -> IngressSpec {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn routes_are_those_of_every_rule_and_of_the_default_backend() {
        let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
        let path = |path: &str, kind: &str| json!({"path": path, "pathType": kind, "backend": backend});
        let asked = spec(json!({
            "defaultBackend": backend,
            "rules": [
                {"host": "a.example", "http": {"paths": [path("/x/", "Prefix"), path("/x", "Exact"), path("/y", "Exact")]}},
                {"host": "b.example"},
            ],
        }));
        let routes: Vec<_> = routes(&asked).into_iter().map(|route| format!("{}{}", route.host, route.path)).collect();
        assert_eq!(routes, ["", "a.example/x", "a.example/y", "b.example"]);
    }

    #[test]
    fn what_is_empty_is_absent() {
        let empty = json!({"rules": [{"host": "", "http": {"paths": []}}], "tls": [{"hosts": [], "secretName": ""}]});
        assert_eq!(normalize(spec(empty)), spec(json!({"rules": [{}], "tls": [{}]})));
        assert_eq!(normalize(spec(json!({"rules": [], "tls": []}))), IngressSpec::default());
    }
}
