//! An Ingress of the host, reduced: whose twin it is, and which hosts it has. Pure.

use std::collections::BTreeSet;

use k3k_expose_proto::Resource;
use k3k_expose_proto::message::{Ingress as Address, IngressPort};
use k8s_openapi::api::networking::v1::{Ingress, IngressSpec, IngressStatus};

use super::secret;
use crate::twin::{self, Twin};

/// An Ingress of the host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostIngress {
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// When it was created, in seconds, and its UID: of two that have a host, the lesser one was first.
    pub age: (i64, String),
    /// The host names that it has, the empty one for all.
    pub hosts: BTreeSet<String>,
    /// Names of the twins of Secrets that stand for it.
    pub secrets: BTreeSet<String>,
    /// It as a twin, if it is one.
    pub twin: Option<Box<Twin<IngressSpec>>>,
}

/// Reduces an Ingress of the host.
#[must_use]
pub fn reduce(ingress: Ingress) -> HostIngress {
    let Ingress { metadata: meta, spec, status } = ingress;
    let spec = normalize(spec.unwrap_or_default());
    let created = meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    let marks = twin::marks(&meta, Resource::Ingresses);
    HostIngress {
        resource_version: meta.resource_version.clone().unwrap_or_default(),
        age: (created, meta.uid.clone().unwrap_or_default()),
        hosts: hosts(&spec),
        secrets: marks.as_ref().map(|_| secret::listed(meta.annotations.as_ref())).unwrap_or_default(),
        twin: marks
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

/// Every host name that a spec asks for: those of rules, and those of certificates, which a controller shows for whatever
/// rule there is. A default backend has what no rule has.
#[must_use]
pub fn hosts(spec: &IngressSpec) -> BTreeSet<String> {
    let rules = spec.rules.iter().flatten().map(|rule| rule.host.clone().unwrap_or_default());
    let certified = spec.tls.iter().flatten().flat_map(|tls| tls.hosts.iter().flatten().cloned());
    rules.chain(certified).chain(spec.default_backend.as_ref().map(|_| String::new())).collect()
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
    fn hosts_are_those_of_rules_of_certificates_and_of_the_default_backend() {
        let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
        let path = json!({"path": "/x", "pathType": "Prefix", "backend": backend});
        let asked = spec(json!({
            "defaultBackend": backend,
            "rules": [{"host": "a.example", "http": {"paths": [path, path]}}, {"host": "b.example"}],
            "tls": [{"hosts": ["b.example", "c.example"]}, {}],
        }));
        assert_eq!(Vec::from_iter(hosts(&asked)), ["", "a.example", "b.example", "c.example"]);
    }

    #[test]
    fn what_is_empty_is_absent() {
        let empty = json!({"rules": [{"host": "", "http": {"paths": []}}], "tls": [{"hosts": [], "secretName": ""}]});
        assert_eq!(normalize(spec(empty)), spec(json!({"rules": [{}], "tls": [{}]})));
        assert_eq!(normalize(spec(json!({"rules": [], "tls": []}))), IngressSpec::default());
    }
}
