//! What `plan` reads of a file, by the projection, is what an agent says of the same object in the end.

use k3k_expose_agent::project::{self, Projected};
use k3k_expose_projection::ingress as projection;
use k3k_expose_proto::ingress::Ingress;
use k3k_expose_proto::message::Object;
use k8s_openapi::api::networking::v1;
use proptest::prelude::*;
use serde_json::{Value, json};

/// A word, or none.
fn word(words: &'static [&'static str]) -> impl Strategy<Value = Option<&'static str>> {
    proptest::option::of(proptest::sample::select(words))
}

fn backend() -> impl Strategy<Value = Value> {
    let named = (proptest::option::of(-1..70_000_i32), word(&["", "http"]))
        .prop_map(|(number, name)| json!({"service": {"name": "web", "port": {"number": number, "name": name}}}));
    prop_oneof![8 => named, 1 => Just(json!({"resource": {"kind": "Bucket", "name": "b"}})), 1 => Just(json!({"service": {"name": "web"}}))]
}

fn ingress() -> impl Strategy<Value = v1::Ingress> {
    const TYPES: &[&str] = &["Exact", "Prefix", "ImplementationSpecific", "Regex"];
    const KEYS: &[&str] = &[
        "app",
        "k3k.io/clusterName",
        "expose.k3k.io/synced",
        "app.kubernetes.io/managed-by",
        "app.kubernetes.io/name",
        "kubectl.kubernetes.io/last-applied-configuration",
        "example.com/a",
    ];
    let path = (word(&["", "/a"]), proptest::sample::select(TYPES), backend())
        .prop_map(|(path, path_type, backend)| json!({"path": path, "pathType": path_type, "backend": backend}));
    let rule = (word(&["", "a.example"]), proptest::option::of(proptest::collection::vec(path, 0..3)))
        .prop_map(|(host, paths)| json!({"host": host, "http": paths.map(|paths| json!({"paths": paths}))}));
    let tls = (proptest::option::of(proptest::collection::vec(Just("a.example"), 0..2)), word(&["", "cert"]))
        .prop_map(|(hosts, secret)| json!({"hosts": hosts, "secretName": secret}));
    let keys = || proptest::collection::btree_map(proptest::sample::select(KEYS), Just("x"), 0..7);
    let lists = (proptest::collection::vec(rule, 0..3), proptest::collection::vec(tls, 0..2));
    (word(&["", "public"]), proptest::option::of(backend()), lists, keys(), keys()).prop_map(
        |(class, default_backend, (rules, tls), labels, annotations)| {
            let spec = json!({"ingressClassName": class, "defaultBackend": default_backend, "rules": rules, "tls": tls});
            let meta = json!({"name": "shop", "namespace": "default", "uid": "u", "labels": labels, "annotations": annotations});
            serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap_or_default()
        },
    )
}

/// What an agent says.
fn said(ingress: &v1::Ingress) -> Option<Ingress> {
    match project::ingress::project(ingress) {
        Projected::Wanted { object: Object::Ingress(ingress), .. } => Some(*ingress),
        _ => None,
    }
}

proptest! {
    #[test]
    fn a_plan_reads_an_ingress_as_an_agent_does(ingress in ingress()) {
        prop_assert!(ingress.metadata.name.is_some(), "the strategy makes an Ingress");
        prop_assert_eq!(projection::ingress(&ingress).ok(), said(&ingress));
    }
}
