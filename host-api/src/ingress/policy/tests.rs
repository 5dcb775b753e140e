//! What is admitted of an Ingress, and by which rule.

use k3k_expose_proto::ingress::{BackendPort, Path, PathType, Rule, Tls};
use serde_json::{Value, json};

use super::*;
use crate::policy::keys::VALUE;

impl Policy {
    /// What an `ExposurePolicy` of name `p` admits that says this of Ingresses.
    pub(crate) fn for_test(allow: Value) -> Self {
        Self::read(Some(("p", &serde_json::from_value(allow).unwrap())), &[]).0
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

/// The same with something denied by a policy of name `d`.
fn denying(deny: Value) -> (Policy, Vec<String>) {
    let (allow, deny) = (serde_json::from_value(allow()).unwrap(), serde_json::from_value(deny).unwrap());
    Policy::read(Some(("p", &allow)), &[("d", &deny)])
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
    policy.judge(ingress).err().map(|refusal| refusal.reason)
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
fn what_is_denied_no_policy_admits_and_the_rule_says_which_denies() {
    let (denied, mistakes) = denying(json!({"classes": ["more"], "hostSuffixes": ["bank.mine.example"],
        "annotations": [{"key": "example.com/note"}, {"prefix": "kubernetes.io/"}]}));
    assert_eq!((mistakes, denied.classes()), (Vec::new(), vec!["public".to_owned()]));
    let host = |host: &str| of_host(host);
    let class = Ingress { ingress_class_name: Some("more".to_owned()), ..host("mine.example") };
    let tls = Tls { hosts: vec!["a.bank.mine.example".to_owned()], secret_name: None };
    for (ingress, field) in [
        (class, "classes"),
        (host("bank.mine.example"), "hostSuffixes"),
        (host("a.bank.mine.example"), "hostSuffixes"),
        (Ingress { tls: vec![tls], ..host("mine.example") }, "hostSuffixes"),
        (annotated("example.com/note", "x"), "annotations"),
        (annotated("kubernetes.io/ingress.class", "internal"), "annotations"),
    ] {
        assert_eq!(reason(&policy(), &ingress), None, "{ingress:?}");
        let expected = format!("ExposurePolicy d, spec.deny.ingresses.{field}");
        assert_eq!(rule(&denied, &ingress), Some(expected), "{ingress:?}");
    }
    for ingress in [host("mine.example"), host("riverbank.mine.example"), annotated("example.com/timeout", "1s")] {
        assert_eq!(reason(&denied, &ingress), None, "{ingress:?}");
    }
    let everywhere = Policy { default_backend: true, ..denied };
    let decided = rule(&everywhere, &with_default_backend());
    assert_eq!(decided.as_deref(), Some("ExposurePolicy d, spec.deny.ingresses.hostSuffixes"));
}

#[test]
fn a_denied_annotation_that_steers_nothing_stays_behind() {
    let allow =
        json!({"classes": ["public"], "hostSuffixes": ["example"], "annotations": [{"prefix": "meta.helm.sh/"}]});
    let deny = json!({"annotations": [{"prefix": "meta."}]});
    let (allow, deny) = (serde_json::from_value(allow).unwrap(), serde_json::from_value(deny).unwrap());
    let ingress = annotated("meta.helm.sh/release-name", "x");
    for (deny, crossing) in [(vec![], 1), (vec![("d", &deny)], 0)] {
        let (policy, _) = Policy::read(Some(("p", &allow)), &deny);
        assert_eq!((reason(&policy, &ingress), policy.crossing(&ingress).count()), (None, crossing));
    }
}

#[test]
fn a_mistake_admits_nothing_and_denies_everything_of_its_kind() {
    let allow = json!({"classes": ["public", "../x"], "hostSuffixes": ["*.example", ""],
        "annotations": [{"key": "a", "value": "("}], "tlsSecrets": ["a/b"]});
    let (policy, mistakes) = Policy::read(Some(("p", &serde_json::from_value(allow).unwrap())), &[]);
    assert_eq!(mistakes.len(), 5, "{mistakes:?}");
    assert_eq!(policy.classes(), ["public"]);
    assert_eq!(reason(&policy, &of_host("a.example")), Some(Reason::HostNotAdmitted));
    let bare = Ingress { rules: Vec::new(), ..annotated("a", "(") };
    assert_eq!(reason(&policy, &bare), Some(Reason::AnnotationNotAdmitted));
    for (deny, expected) in [
        (json!({"classes": ["../x"]}), Reason::ClassNotAdmitted),
        (json!({"hostSuffixes": ["*.bank.example"]}), Reason::HostNotAdmitted),
        (json!({"annotations": [{}]}), Reason::AnnotationNotAdmitted),
    ] {
        let (denied, mistakes) = denying(deny);
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert_eq!(reason(&denied, &annotated("example.com/note", "x")), Some(expected));
    }
}
