//! The projected Ingress: the fields of a virtual Ingress that cross, and nothing else. Pure.
//!
//! As for Services, names and defaults are those of the API (`networking.k8s.io/v1`), and the JSON is canonical. The agent
//! sends every annotation but a few that are nobody's business, so that host-api can say which one it refuses.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use crate::limits::{INGRESS_HOST, INGRESS_PATH, INGRESS_PATHS, INGRESS_RULES};
use crate::unique;

/// A virtual Ingress as host-api sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ingress {
    /// `spec.ingressClassName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_class_name: Option<String>,
    /// `spec.defaultBackend`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_backend: Option<Backend>,
    /// `spec.rules`, in the tenant's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// `spec.tls`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tls: Vec<Tls>,
    /// `metadata.labels`, all but the reserved ones.
    #[serde(default, deserialize_with = "unique::map", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`, for host-api to admit or refuse.
    #[serde(default, deserialize_with = "unique::map", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// One entry of `spec.rules`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// `host`, empty when the rule is for every host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// `http.paths`; none sends the whole host to the default backend.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<Path>,
}

/// One entry of `http.paths`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Path {
    /// `path`, empty when there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// `pathType`.
    pub path_type: PathType,
    /// `backend`.
    pub backend: Backend,
}

/// `pathType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathType {
    /// The path alone.
    Exact,
    /// The path and all below it.
    Prefix,
    /// As the controller pleases.
    ImplementationSpecific,
}

impl PathType {
    /// The word of the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "Exact",
            Self::Prefix => "Prefix",
            Self::ImplementationSpecific => "ImplementationSpecific",
        }
    }
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Backend {
    /// A Service of the Ingress' own namespace.
    Service {
        /// Its name.
        name: String,
        /// Its port.
        port: BackendPort,
    },
    /// An object of another kind, which never crosses.
    Resource,
}

/// `service.port` of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BackendPort {
    /// `number`.
    Number(NonZeroU16),
    /// `name`.
    Name(String),
}

/// One entry of `spec.tls`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// `hosts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// `secretName`, absent when the controller's own certificate serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
}

impl Ingress {
    /// Every backend, the default one first.
    pub fn backends(&self) -> impl Iterator<Item = &Backend> {
        let paths = self.rules.iter().flat_map(|rule| &rule.paths);
        self.default_backend.iter().chain(paths.map(|path| &path.backend))
    }

    /// Checks counts and lengths, which the types alone do not bound.
    ///
    /// # Errors
    /// What there is too much of.
    pub fn check(&self) -> Result<(), &'static str> {
        let hosts = self.rules.iter().map(|rule| &rule.host).chain(self.tls.iter().flat_map(|tls| &tls.hosts));
        let mut paths = self.rules.iter().flat_map(|rule| &rule.paths);
        if self.rules.len() > INGRESS_RULES {
            return Err("rules has too many entries");
        }
        if paths.clone().count() > INGRESS_PATHS {
            return Err("rules has too many paths");
        }
        if paths.any(|path| path.path.len() > INGRESS_PATH) {
            return Err("rules has a path that is too long");
        }
        if self.tls.len() > INGRESS_RULES || self.tls.iter().any(|tls| tls.hosts.len() > INGRESS_RULES) {
            return Err("tls has too many entries");
        }
        if hosts.into_iter().any(|host| host.len() > INGRESS_HOST) {
            return Err("a host name is too long");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(path: &str) -> Path {
        Path { path: path.to_owned(), path_type: PathType::Prefix, backend: Backend::Resource }
    }

    fn rule(host: &str, paths: Vec<Path>) -> Rule {
        Rule { host: host.to_owned(), paths }
    }

    #[test]
    fn counts_and_lengths_are_bounded() {
        let of = |rules: Vec<Rule>| Ingress { rules, ..Ingress::default() };
        let tls = |hosts: usize| Tls { hosts: vec!["a".to_owned(); hosts], secret_name: None };
        let fits = of(vec![rule(&"h".repeat(INGRESS_HOST), vec![path(&"p".repeat(INGRESS_PATH))]); INGRESS_RULES]);
        assert_eq!(fits.check(), Ok(()));
        for ingress in [
            of(vec![rule("a", Vec::new()); INGRESS_RULES + 1]),
            of(vec![rule("a", vec![path("/"); INGRESS_PATHS + 1])]),
            of(vec![rule("a", vec![path(&"p".repeat(INGRESS_PATH + 1))])]),
            of(vec![rule(&"h".repeat(INGRESS_HOST + 1), Vec::new())]),
            Ingress { tls: vec![tls(1); INGRESS_RULES + 1], ..Ingress::default() },
            Ingress { tls: vec![tls(INGRESS_RULES + 1)], ..Ingress::default() },
        ] {
            assert!(ingress.check().is_err());
        }
    }
}
