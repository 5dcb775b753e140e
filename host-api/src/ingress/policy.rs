//! What the platform team admits of tenants' Ingresses: the one place of that decision. Pure.
//!
//! Nothing is admitted that is not named. Who has a host first, and whether a backend is exposed, is not policy.

use std::collections::{BTreeMap, BTreeSet};

use k3k_expose_process::quote::quote;
use k3k_expose_proto::Reason;
use k3k_expose_proto::ingress::{Backend, Ingress};
use k3k_expose_proto::key::is_dns_subdomain;
use k3k_expose_proto::limits::INGRESS_CLASSES;
use serde::Deserialize;

use crate::policy::grant::annotation_may_cross;
use crate::policy::keys::Keys;
use crate::policy::resource::{Ingresses, KeyRule};
use crate::tenant::Tenant;

/// Annotations that steer no controller, by the prefix of their keys: they stay behind and refuse nothing.
const IGNORED: [&str; 5] =
    ["kubectl.kubernetes.io/", "meta.helm.sh/", "expose.k3k.io/", "field.cattle.io/", "argocd.argoproj.io/"];

/// What is admitted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    classes: BTreeSet<String>,
    annotations: Vec<Keys>,
    tenants: Vec<Grant>,
    /// What is admitted of whoever asks: who that may be is known elsewhere.
    all: Option<Grant>,
    syncs_tls: bool,
}

/// What is admitted of one tenant, or of all tenants in a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Grant {
    namespace: String,
    /// The Cluster's name; absent for all in the namespace.
    #[serde(default)]
    cluster: Option<String>,
    /// Domains: each admits itself and every name below it.
    #[serde(default)]
    host_suffixes: Vec<String>,
    /// Secrets of that namespace that may be named as they are.
    #[serde(default)]
    tls_secrets: BTreeSet<String>,
    /// Requests that no other Ingress of the host wants may go to the tenant.
    #[serde(default)]
    default_backend: bool,
}

/// The policy as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    #[serde(default)]
    classes: BTreeSet<String>,
    /// Patterns of values by key. A pattern is of the whole value.
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    tenants: Vec<Grant>,
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// It is not YAML of the right shape.
    #[error("not a policy: {0}")]
    Shape(String),
    /// A pattern is no regular expression, or too large a one.
    #[error("the pattern of annotation {key} is no regular expression")]
    Pattern {
        /// The annotation.
        key: String,
    },
    /// A class has no name that could be one, or there are too many.
    #[error("classes has more than {INGRESS_CLASSES} names, or one that is none")]
    Classes,
    /// A suffix would admit more than one domain.
    #[error("{0:?} is no domain: write example.com, without a dot or a star in front")]
    Suffix(String),
}

/// Why an Ingress is not admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// As a word.
    pub reason: Reason,
    /// In words, for the tenant.
    pub message: String,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let written: Written = serde_saphyr::from_str(text).map_err(|error| Invalid::Shape(error.to_string()))?;
        let mut annotations = Vec::new();
        for (key, pattern) in written.annotations {
            let rule = KeyRule { key: Some(key.clone()), prefix: None, value: Some(pattern) };
            match Keys::parse(&rule) {
                (keys, None) => annotations.push(keys),
                (_, Some(_)) => return Err(Invalid::Pattern { key }),
            }
        }
        if written.classes.len() > INGRESS_CLASSES || !written.classes.iter().all(|class| is_dns_subdomain(class)) {
            return Err(Invalid::Classes);
        }
        let suffixes = written.tenants.iter().flat_map(|grant| &grant.host_suffixes);
        if let Some(suffix) = suffixes.into_iter().find(|suffix| !is_dns_subdomain(suffix)) {
            return Err(Invalid::Suffix(suffix.clone()));
        }
        Ok(Self { classes: written.classes, annotations, tenants: written.tenants, all: None, syncs_tls: false })
    }

    /// The same that admits tenants' own certificates, or does not.
    #[must_use]
    pub fn with_tls(self, syncs_tls: bool) -> Self {
        Self { syncs_tls, ..self }
    }

    /// Whether certificates of tenants' own may cross.
    #[must_use]
    pub const fn syncs_tls(&self) -> bool {
        self.syncs_tls
    }

    /// Whether a Secret is named as it is: one of the host's, which the platform team has named itself.
    #[must_use]
    pub fn is_literal(&self, tenant: &Tenant, name: &str) -> bool {
        self.of(tenant).any(|grant| grant.tls_secrets.contains(name))
    }

    /// Reads what an `ExposurePolicy` admits of the tenants that it decides about, and what of that cannot be used: a mistake
    /// admits nothing.
    #[must_use]
    pub fn of_all(allow: &Ingresses) -> (Self, Vec<String>) {
        let mut mistakes = Vec::new();
        let mut names = |names: &[String], what: &str| -> Vec<String> {
            let (good, bad): (Vec<_>, Vec<_>) = names.iter().cloned().partition(|name| is_dns_subdomain(name));
            mistakes.extend(bad.iter().map(|name| format!("{name:?} is no {what}")));
            good
        };
        let classes = names(&allow.classes, "class").into_iter().take(INGRESS_CLASSES).collect();
        let host_suffixes = names(&allow.host_suffixes, "domain");
        let tls_secrets = names(&allow.tls_secrets, "Secret").into_iter().collect();
        let (annotations, mistaken): (Vec<_>, Vec<_>) = allow.annotations.iter().map(Keys::parse).unzip();
        mistakes.extend(mistaken.into_iter().flatten());
        let all = Grant { host_suffixes, tls_secrets, default_backend: allow.default_backend, ..Grant::default() };
        (Self { classes, annotations, tenants: Vec::new(), all: Some(all), syncs_tls: allow.own_secrets }, mistakes)
    }

    /// The classes that are admitted.
    #[must_use]
    pub fn classes(&self) -> Vec<String> {
        self.classes.iter().cloned().collect()
    }

    /// Judges an Ingress of a tenant.
    ///
    /// # Errors
    /// The first [`Denial`], in the order in which a tenant would mend them.
    pub fn judge(&self, tenant: &Tenant, ingress: &Ingress) -> Result<(), Denial> {
        self.class(ingress)?;
        self.hosts(tenant, ingress)?;
        paths(ingress)?;
        self.annotations(ingress)?;
        self.secrets(tenant, ingress)?;
        if ingress.backends().any(|backend| *backend == Backend::Resource) {
            return deny(Reason::BackendNotSynced, "a backend is no Service");
        }
        Ok(())
    }

    /// The annotations that cross, once [`Self::judge`] has admitted the Ingress.
    pub fn crossing<'a>(&'a self, ingress: &'a Ingress) -> impl Iterator<Item = (&'a String, &'a String)> {
        ingress.annotations.iter().filter(|(key, _)| annotation_may_cross(key) && self.rule(key).is_some())
    }

    fn rule(&self, key: &str) -> Option<&Keys> {
        self.annotations.iter().find(|keys| keys.name().admits(key))
    }

    fn class(&self, ingress: &Ingress) -> Result<(), Denial> {
        match &ingress.ingress_class_name {
            Some(class) if self.classes.contains(class) => Ok(()),
            Some(class) => deny(Reason::ClassNotAdmitted, &format!("ingress class {} is not admitted", quote(class))),
            None => deny(Reason::ClassNotAdmitted, "ingressClassName is missing"),
        }
    }

    fn hosts(&self, tenant: &Tenant, ingress: &Ingress) -> Result<(), Denial> {
        let suffixes = || self.of(tenant).flat_map(|grant| &grant.host_suffixes);
        if ingress.default_backend.is_some() && !self.of(tenant).any(|grant| grant.default_backend) {
            return deny(Reason::HostNotAdmitted, "a default backend would be for every host, which is not admitted");
        }
        let hosts = ingress.rules.iter().map(|rule| &rule.host).chain(ingress.tls.iter().flat_map(|tls| &tls.hosts));
        for host in hosts {
            if host.is_empty() {
                return deny(Reason::HostNotAdmitted, "a rule without a host would be for every host");
            }
            if host.contains('*') {
                return deny(Reason::HostNotAdmitted, &format!("host {} is a wildcard", quote(host)));
            }
            if !suffixes().any(|suffix| is_within(host, suffix)) {
                return deny(Reason::HostNotAdmitted, &format!("host {} is not admitted", quote(host)));
            }
        }
        Ok(())
    }

    fn annotations(&self, ingress: &Ingress) -> Result<(), Denial> {
        for (key, value) in &ingress.annotations {
            match self.rule(key) {
                Some(keys) if keys.admits(value) => {}
                Some(_) => {
                    let message = format!("the value of annotation {} is not admitted", quote(key));
                    return deny(Reason::AnnotationNotAdmitted, &message);
                }
                None if IGNORED.iter().any(|prefix| key.starts_with(prefix)) => {}
                None => {
                    let message = format!("annotation {} is not admitted", quote(key));
                    return deny(Reason::AnnotationNotAdmitted, &message);
                }
            }
        }
        Ok(())
    }

    fn secrets(&self, tenant: &Tenant, ingress: &Ingress) -> Result<(), Denial> {
        let mut named = ingress.tls.iter().filter_map(|tls| tls.secret_name.as_ref());
        match named.find(|name| !self.syncs_tls && !self.is_literal(tenant, name)) {
            Some(name) => deny(Reason::TlsNotAdmitted, &format!("Secret {} is not admitted", quote(name))),
            // Whether it is there, and fit for use, is not policy.
            None => Ok(()),
        }
    }

    fn of<'a>(&'a self, tenant: &'a Tenant) -> impl Iterator<Item = &'a Grant> {
        let named = self.tenants.iter().filter(|grant| {
            grant.namespace == tenant.namespace()
                && grant.cluster.as_ref().is_none_or(|cluster| cluster == tenant.cluster())
        });
        named.chain(&self.all)
    }
}

/// A controller puts paths into a configuration language of its own, where a quote or a bracket could speak for other hosts.
fn paths(ingress: &Ingress) -> Result<(), Denial> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%".contains(&byte);
    // An empty path means every path.
    let admitted = |path: &str| path.is_empty() || (path.starts_with('/') && path.bytes().all(plain));
    let mut paths = ingress.rules.iter().flat_map(|rule| &rule.paths).map(|path| path.path.as_str());
    match paths.find(|path| !admitted(path)) {
        Some(path) => deny(Reason::PathNotAdmitted, &format!("path {} is not admitted", quote(path))),
        None => Ok(()),
    }
}

fn deny(reason: Reason, message: &str) -> Result<(), Denial> {
    Err(Denial { reason, message: message.to_owned() })
}

fn is_within(host: &str, suffix: &str) -> bool {
    host.strip_suffix(suffix).is_some_and(|head| head.is_empty() || head.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use k3k_expose_proto::ingress::{BackendPort, Path, PathType, Rule, Tls};

    use super::*;
    use crate::policy::keys::VALUE;

    const POLICY: &str = "
classes: [public]
annotations:
  example.com/timeout: '[0-9]{1,3}s'
  example.com/note: 'x*'
tenants:
  - {namespace: ns, hostSuffixes: [all.example]}
  - {namespace: ns, cluster: mine, hostSuffixes: [mine.example], tlsSecrets: [wildcard], defaultBackend: true}
  - {namespace: other, cluster: mine, hostSuffixes: [other.example]}
";

    fn mine() -> Tenant {
        Tenant::for_test("t", "ns", "mine")
    }

    fn of_host(host: &str) -> Ingress {
        Ingress {
            ingress_class_name: Some("public".to_owned()),
            rules: vec![Rule { host: host.to_owned(), paths: Vec::new() }],
            ..Ingress::default()
        }
    }

    fn judged(tenant: &Tenant, ingress: &Ingress) -> Option<Reason> {
        Policy::parse(POLICY).unwrap().judge(tenant, ingress).err().map(|denial| denial.reason)
    }

    #[test]
    fn hosts_are_admitted_by_suffix_and_tenant() {
        let neighbor = Tenant::for_test("u", "ns", "neighbor");
        let no = Some(Reason::HostNotAdmitted);
        for (tenant, host, expected) in [
            (&mine(), "mine.example", None),
            (&mine(), "a.b.mine.example", None),
            (&mine(), "shop.all.example", None),
            (&mine(), "notmine.example", no),
            (&mine(), "mine.example.com", no),
            (&mine(), "a.other.example", no),
            (&mine(), "", no),
            (&mine(), "*", no),
            (&mine(), "*.mine.example", no),
            (&neighbor, "shop.all.example", None),
            (&neighbor, "a.mine.example", no),
        ] {
            assert_eq!(judged(tenant, &of_host(host)), expected, "{host}");
        }
        let tls = Ingress {
            tls: vec![Tls { hosts: vec!["a.other.example".to_owned()], secret_name: None }],
            ..of_host("mine.example")
        };
        assert_eq!(judged(&mine(), &tls), no, "names of certificates are names too");
    }

    #[test]
    fn paths_are_plain_whatever_their_type() {
        let port = BackendPort::Name("http".to_owned());
        let backend = Backend::Service { name: "web".to_owned(), port };
        for (path, expected) in [
            ("", None),
            ("/", None),
            ("/shop/a-b_c.d~e/%20", None),
            ("shop", Some(Reason::PathNotAdmitted)),
            ("/`) || Host(`bank.example", Some(Reason::PathNotAdmitted)),
            ("/a;}location /{proxy_pass http://x", Some(Reason::PathNotAdmitted)),
            ("/a\nb", Some(Reason::PathNotAdmitted)),
            ("/(.*)", Some(Reason::PathNotAdmitted)),
        ] {
            for path_type in [PathType::Exact, PathType::Prefix, PathType::ImplementationSpecific] {
                let path = Path { path: path.to_owned(), path_type, backend: backend.clone() };
                let rules = vec![Rule { host: "mine.example".to_owned(), paths: vec![path] }];
                let ingress = Ingress { rules, ..of_host("mine.example") };
                assert_eq!(judged(&mine(), &ingress), expected, "{ingress:?}");
            }
        }
    }

    #[test]
    fn a_default_backend_needs_a_grant_of_its_own() {
        let port = BackendPort::Name("http".to_owned());
        let backend = Backend::Service { name: "web".to_owned(), port };
        let ingress = Ingress { default_backend: Some(backend), ..of_host("shop.all.example") };
        assert_eq!(judged(&mine(), &ingress), None);
        assert_eq!(judged(&Tenant::for_test("u", "ns", "neighbor"), &ingress), Some(Reason::HostNotAdmitted));
    }

    #[test]
    fn classes_annotations_secrets_and_backends_are_refused_each_for_its_own_reason() {
        let good = of_host("mine.example");
        let annotated = |key: &str, value: &str| Ingress {
            annotations: [(key.to_owned(), value.to_owned())].into(),
            ..good.clone()
        };
        let tls = |name: &str| Ingress {
            tls: vec![Tls { hosts: Vec::new(), secret_name: Some(name.to_owned()) }],
            ..good.clone()
        };
        let path = Path { path: String::new(), path_type: PathType::Exact, backend: Backend::Resource };
        let resource =
            Ingress { rules: vec![Rule { host: "mine.example".to_owned(), paths: vec![path] }], ..good.clone() };
        let class = |class: Option<&str>| Ingress { ingress_class_name: class.map(str::to_owned), ..good.clone() };
        let annotation = Some(Reason::AnnotationNotAdmitted);
        for (ingress, expected) in [
            (class(None), Some(Reason::ClassNotAdmitted)),
            (class(Some("internal")), Some(Reason::ClassNotAdmitted)),
            (annotated("example.com/timeout", "30s"), None),
            (annotated("example.com/note", &"x".repeat(VALUE)), None),
            (annotated("example.com/note", &"x".repeat(VALUE + 1)), annotation),
            (annotated("example.com/timeout", "30s; evil"), annotation),
            (annotated("example.com/timeout", "30s\nevil"), annotation),
            (annotated("nginx.ingress.kubernetes.io/server-snippet", "x"), annotation),
            (annotated("nginx.ingress.kubernetes.io/auth-tls-secret", "other/secret"), annotation),
            (annotated("kubernetes.io/ingress.class", "internal"), annotation),
            (annotated("kubectl.kubernetes.io/last-applied-configuration", "{}"), None),
            (tls("wildcard"), None),
            (tls("k3k-mine-kubeconfig"), Some(Reason::TlsNotAdmitted)),
            (resource, Some(Reason::BackendNotSynced)),
        ] {
            assert_eq!(judged(&mine(), &ingress), expected, "{ingress:?}");
        }
    }

    #[test]
    fn a_secret_of_the_tenant_is_admitted_where_certificates_cross_and_one_of_the_host_where_it_is_named() {
        let tls = Tls { hosts: Vec::new(), secret_name: Some("own".to_owned()) };
        let ingress = Ingress { tls: vec![tls], ..of_host("mine.example") };
        let policy = |syncs_tls| Policy::parse(POLICY).unwrap().with_tls(syncs_tls);
        assert_eq!(policy(true).judge(&mine(), &ingress), Ok(()));
        assert_eq!(policy(false).judge(&mine(), &ingress).unwrap_err().reason, Reason::TlsNotAdmitted);
        for (name, literal) in [("wildcard", true), ("own", false)] {
            assert_eq!(policy(true).is_literal(&mine(), name), literal);
        }
    }

    #[test]
    fn without_a_policy_nothing_is_admitted() {
        let denial = Policy::default().judge(&mine(), &of_host("mine.example")).unwrap_err();
        assert_eq!(denial.reason, Reason::ClassNotAdmitted);
        assert_eq!(Policy::parse("{}").unwrap().judge(&mine(), &of_host("mine.example")), Err(denial));
    }

    #[test]
    fn only_annotations_that_are_named_cross() {
        let mut ingress = of_host("mine.example");
        ingress
            .annotations
            .extend(["example.com/timeout", "meta.helm.sh/x"].map(|key| (key.to_owned(), String::new())));
        let policy = Policy::parse(POLICY).unwrap();
        let keys: Vec<_> = policy.crossing(&ingress).map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["example.com/timeout"]);
    }

    fn of_all(allow: serde_json::Value) -> (Policy, Vec<String>) {
        Policy::of_all(&serde_json::from_value(allow).unwrap())
    }

    #[test]
    fn a_policy_of_the_host_admits_whoever_it_is_about() {
        let (policy, mistakes) = of_all(serde_json::json!({"classes": ["public"], "hostSuffixes": ["mine.example"],
            "annotations": [{"prefix": "example.com/", "value": "[0-9]+s"}, {"prefix": "k"}], "tlsSecrets": ["wildcard"]}));
        assert_eq!(mistakes, Vec::<String>::new());
        let judged = |ingress: &Ingress| policy.judge(&mine(), ingress).err().map(|denial| denial.reason);
        let mut good = of_host("shop.mine.example");
        good.annotations = ["example.com/a", "k3k.io/name"].map(|key| (key.to_owned(), "1s".to_owned())).into();
        good.tls = vec![Tls { hosts: Vec::new(), secret_name: Some("wildcard".to_owned()) }];
        assert_eq!(judged(&good), None);
        let crossing: Vec<_> = policy.crossing(&good).map(|(key, _)| key.as_str()).collect();
        assert_eq!(crossing, ["example.com/a"], "no prefix admits a mark");
        good.annotations.insert("example.com/b".to_owned(), "evil".to_owned());
        assert_eq!(judged(&good), Some(Reason::AnnotationNotAdmitted));
        assert_eq!(judged(&of_host("shop.all.example")), Some(Reason::HostNotAdmitted));
        let class = Ingress { ingress_class_name: Some("internal".to_owned()), ..of_host("mine.example") };
        assert_eq!(judged(&class), Some(Reason::ClassNotAdmitted));
    }

    #[test]
    fn what_of_a_policy_of_the_host_is_mistaken_admits_nothing() {
        let (policy, mistakes) =
            of_all(serde_json::json!({"classes": ["public", "../x"], "hostSuffixes": ["*.example", ""],
            "annotations": [{"key": "a", "value": "("}], "tlsSecrets": ["a/b"]}));
        assert_eq!(mistakes.len(), 5, "{mistakes:?}");
        assert_eq!(policy.classes(), ["public"]);
        let judged = |ingress: &Ingress| policy.judge(&mine(), ingress).err().map(|denial| denial.reason);
        assert_eq!(judged(&of_host("a.example")), Some(Reason::HostNotAdmitted));
        let annotated =
            Ingress { annotations: [("a".to_owned(), "(".to_owned())].into(), rules: Vec::new(), ..of_host("a") };
        assert_eq!(judged(&annotated), Some(Reason::AnnotationNotAdmitted));
    }

    #[test]
    fn a_policy_with_a_mistake_is_no_policy() {
        for text in [
            "classes: public",
            "clases: [public]",
            "classes: ['../x']",
            "annotations: {a: '('}",
            "annotations: {a: 'x)|(y'}",
            "tenants: [{namespace: ns, hostSuffixes: ['*.example']}]",
            "tenants: [{namespace: ns, hostSuffixes: ['.example']}]",
            "tenants: [{namespace: ns, hostSuffixes: ['']}]",
            "tenants: [{cluster: mine}]",
        ] {
            assert!(Policy::parse(text).is_err(), "{text}");
        }
    }
}
