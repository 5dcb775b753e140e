//! Classification by proof, and the one spelling of a spec.

use k3k_expose_proto::{Key, Uid};
use serde_json::{Value, json};

use super::*;
use crate::name;

fn twin_json() -> Value {
    json!({
        "metadata": {
            "name": name::twin("web", "default", "mine"), "namespace": "ns", "uid": "u", "resourceVersion": "7",
            "labels": {"k3k.io/clusterName": "mine", "app.kubernetes.io/managed-by": "k3k-expose", "a": "1"},
            "annotations": {"k3k.io/name": "web", "k3k.io/namespace": "default", "expose.k3k.io/uid": "v",
                "expose.k3k.io/virtual-cluster": "vc", "foreign": "x", LAST_APPLIED: "{}"},
            "ownerReferences": [{"apiVersion": "k3k.io/v1beta1", "kind": "Cluster", "name": "mine", "uid": "t"}],
            "managedFields": [
                {"manager": "k3k-expose", "operation": "Update", "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:a": {}}}}},
                {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:metadata": {"f:annotations": {"f:foreign": {}}}}},
                {"manager": "k3k-expose", "operation": "Update", "subresource": "status", "fieldsV1": {"f:metadata": {"f:labels": {"f:b": {}}}}}
            ]
        },
        "spec": {"type": "NodePort", "clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.9"],
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80, "nodePort": 30080}], "healthCheckNodePort": 0}
    })
}

fn reduced(json: Value) -> HostService {
    reduce(serde_json::from_value(json).unwrap())
}

fn twin(json: Value) -> Twin {
    match reduced(json) {
        HostService::Twin(twin) => *twin,
        HostService::Foreign(_) => panic!("classified as foreign"),
    }
}

#[test]
fn our_twin_is_known_with_its_marks_and_keys() {
    let twin = twin(twin_json());
    assert!(twin.marks.ours && !twin.made_by_k3k);
    assert_eq!(twin.marks.key, Key::service("default", "web").unwrap());
    assert_eq!(twin.marks.virtual_cluster, Some(Uid::parse("vc").unwrap()));
    assert_eq!(twin.own_labels, ["a"]);
    assert!(twin.own_annotations.is_empty());
    assert!(!twin.annotations.contains_key(LAST_APPLIED));
    assert_eq!(twin.numbers().node_ports.len(), 1);
}

#[test]
fn a_twin_without_our_marks_is_that_of_k3k() {
    let mut json = twin_json();
    json["metadata"]["labels"] = json!({"k3k.io/clusterName": "mine"});
    json["metadata"]["annotations"] = json!({"k3k.io/name": "web", "k3k.io/namespace": "default"});
    json["metadata"]["managedFields"][0]["manager"] = json!("k3k-kubelet");
    let twin = twin(json);
    assert!(!twin.marks.ours && twin.made_by_k3k);
    assert_eq!(twin.own_labels, ["a"], "the fields of k3k become ours");
}

#[test]
fn what_others_do_to_their_own_keys_undoes_nothing() {
    let before = twin(twin_json());
    let after = |path: &str, value: Value| {
        let mut json = twin_json();
        *json.pointer_mut(path).unwrap() = value;
        twin(json)
    };
    let visited = after("/metadata/annotations/foreign", json!("y"));
    assert!(!before.same_as(&visited) && !before.is_undone_in(&visited));
    assert!(before.is_undone_in(&after("/metadata/labels/a", json!("2"))));
    assert!(before.is_undone_in(&after("/spec/clusterIP", json!("10.43.0.8"))));
}

#[test]
fn what_lacks_one_proof_is_foreign_and_still_holds_its_numbers() {
    let broken: &[(&str, Value)] = &[
        ("/metadata/name", json!("other")),
        ("/metadata/annotations", json!({})),
        ("/metadata/annotations/k3k.io~1name", json!("other")),
        ("/metadata/annotations/k3k.io~1namespace", json!("../..")),
        ("/metadata/ownerReferences", json!([])),
        ("/metadata/ownerReferences/0/kind", json!("ReplicaSet")),
        ("/metadata/ownerReferences/0/apiVersion", json!("evil.io/v1")),
        ("/metadata/ownerReferences/0/name", json!("other")),
    ];
    for (path, value) in broken {
        let mut json = twin_json();
        *json.pointer_mut(path).unwrap() = value.clone();
        let HostService::Foreign(foreign) = reduced(json) else { panic!("{path} = {value} is a twin") };
        assert_eq!(foreign.numbers.node_ports, [30080]);
        assert_eq!(foreign.numbers.cluster_ips.len(), 1);
    }
}
