//! What is admitted of an Ingress, and by which rule.

use k3k_expose_proto::ingress::{BackendPort, Path, PathType, Rule, Tls};
use serde_json::{Value, json};

use super::*;
use crate::policy::keys::VALUE;

impl Policy {
    /// What an `ExposurePolicy` of name `p` admits that says this of Ingresses.
    pub(crate) fn for_test(allow: Value) -> Self {
        Self::read(Some(("p", &serde_json::from_value(allow).unwrap()))).0
    }
}

fn policy() -> Policy {
    Policy::for_test(allow())
}

fn allow() -> Value {
    json!({"classes": ["public", "more"], "hostSuffixes": ["all.example", "mine.example"], "tlsSecrets": ["wildcard"],
        "annotations": [{"key": "example.com/timeout", "value": "[0-9]{1,3}s"}, {"key": "example.com/note", "value": "x*"},
            {"prefix": "k"}]})
}

fn of_host(host: &str) -> Ingress {
    Ingress {
        ingress_class_name: Some("public".to_owned()),
        rules: vec![Rule { host: host.to_owned(), paths: Vec::new() }],
        ..Ingress::default()
    }
}

fn annotated(key: &str, value: &str) -> Ingress {
    Ingress { annotations: [(key.to_owned(), value.to_owned())].into(), ..of_host("mine.example") }
}

fn with_secret(name: &str) -> Ingress {
    Ingress { tls: vec![Tls { hosts: Vec::new(), secret_name: Some(name.to_owned()) }], ..of_host("mine.example") }
}

fn with_default_backend() -> Ingress {
    Ingress { default_backend: Some(backend()), ..of_host("mine.example") }
}

fn backend() -> Backend {
    Backend::Service { name: "web".to_owned(), port: BackendPort::Name("http".to_owned()) }
}

fn reason(policy: &Policy, ingress: &Ingress) -> Option<Reason> {
    policy.judge(ingress).err().map(|denial| denial.reason)
}

/// What decided.
fn rule(policy: &Policy, ingress: &Ingress) -> Option<String> {
    policy.judge(ingress).unwrap_err().rule.map(|rule| rule.to_string())
}

#[test]
fn hosts_are_admitted_by_suffix() {
    let no = Some(Reason::HostNotAdmitted);
    for (host, expected) in [
        ("mine.example", None),
        ("a.b.mine.example", None),
        ("shop.all.example", None),
        ("notmine.example", no),
        ("mine.example.com", no),
        ("a.other.example", no),
        ("", no),
        ("*", no),
        ("*.mine.example", no),
    ] {
        assert_eq!(reason(&policy(), &of_host(host)), expected, "{host}");
    }
    let tls = Ingress {
        tls: vec![Tls { hosts: vec!["a.other.example".to_owned()], secret_name: None }],
        ..of_host("mine.example")
    };
    assert_eq!(reason(&policy(), &tls), no, "names of certificates are names too");
}

#[test]
fn paths_are_plain_whatever_their_type() {
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
            let path = Path { path: path.to_owned(), path_type, backend: backend() };
            let rules = vec![Rule { host: "mine.example".to_owned(), paths: vec![path] }];
            let ingress = Ingress { rules, ..of_host("mine.example") };
            assert_eq!(reason(&policy(), &ingress), expected, "{ingress:?}");
        }
    }
}

#[test]
fn a_default_backend_has_to_be_admitted_by_itself() {
    let admitted = Policy { default_backend: true, ..policy() };
    assert_eq!(reason(&admitted, &with_default_backend()), None);
    assert_eq!(reason(&policy(), &with_default_backend()), Some(Reason::HostNotAdmitted));
    let decided = rule(&policy(), &with_default_backend());
    assert_eq!(decided.as_deref(), Some("ExposurePolicy p, spec.allow.ingresses.defaultBackend"));
}

#[test]
fn classes_annotations_secrets_and_backends_are_refused_each_for_its_own_reason() {
    let good = of_host("mine.example");
    let path = Path { path: String::new(), path_type: PathType::Exact, backend: Backend::Resource };
    let resource = Ingress { rules: vec![Rule { host: "mine.example".to_owned(), paths: vec![path] }], ..good.clone() };
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
        (annotated("meta.helm.sh/release-name", "{}"), None),
        (with_secret("wildcard"), None),
        (with_secret("k3k-mine-kubeconfig"), Some(Reason::TlsNotAdmitted)),
        (resource, Some(Reason::BackendNotSynced)),
    ] {
        assert_eq!(reason(&policy(), &ingress), expected, "{ingress:?}");
    }
}

#[test]
fn a_secret_of_the_tenant_is_admitted_where_certificates_cross_and_one_of_the_host_where_it_is_named() {
    let admitted = Policy { own_secrets: true, ..policy() };
    assert_eq!(reason(&admitted, &with_secret("own")), None);
    assert_eq!(reason(&policy(), &with_secret("own")), Some(Reason::TlsNotAdmitted));
    for (name, literal) in [("wildcard", true), ("own", false)] {
        assert_eq!(admitted.is_literal(name), literal);
    }
}

#[test]
fn without_a_policy_nothing_is_admitted() {
    let none = Policy::default();
    assert_eq!(reason(&none, &of_host("mine.example")), Some(Reason::ClassNotAdmitted));
    let decided = rule(&none, &of_host("mine.example"));
    assert_eq!(decided.as_deref(), Some("the safe default of spec.allow.ingresses.classes"));
    assert_eq!(reason(&Policy::for_test(json!({})), &of_host("mine.example")), Some(Reason::ClassNotAdmitted));
}

#[test]
fn only_annotations_that_are_named_cross() {
    let mut ingress = of_host("mine.example");
    let keys = ["example.com/timeout", "meta.helm.sh/x", "k3k.io/name"];
    ingress.annotations.extend(keys.map(|key| (key.to_owned(), String::new())));
    let policy = policy();
    let crossing: Vec<_> = policy.crossing(&ingress).map(|(key, _)| key.as_str()).collect();
    assert_eq!(crossing, ["example.com/timeout"], "and no prefix admits a mark");
}

#[test]
fn a_mistake_admits_nothing() {
    let allow = json!({"classes": ["public", "../x"], "hostSuffixes": ["*.example", ""],
        "annotations": [{"key": "a", "value": "("}], "tlsSecrets": ["a/b"]});
    let (policy, mistakes) = Policy::read(Some(("p", &serde_json::from_value(allow).unwrap())));
    assert_eq!(mistakes.len(), 5, "{mistakes:?}");
    assert_eq!(policy.classes(), ["public"]);
    assert_eq!(reason(&policy, &of_host("a.example")), Some(Reason::HostNotAdmitted));
    let bare = Ingress { rules: Vec::new(), ..annotated("a", "(") };
    assert_eq!(reason(&policy, &bare), Some(Reason::AnnotationNotAdmitted));
}
