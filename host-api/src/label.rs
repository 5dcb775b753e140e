//! Which labels a tenant's pod must carry on the host, so that selectors tell tenants and namespaces apart. Pure.
//!
//! The trap: a tenant's own labels reach the host, and so do its annotations. So the cluster comes from the controller
//! reference, and the namespace that an annotation claims is believed only if k3k's name function makes the pod's own
//! name of it. The MutatingAdmissionPolicy of the manifests says the same in CEL.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

use crate::twin::{CLUSTER_NAME, VIRTUAL_NAME, VIRTUAL_NAMESPACE};
use crate::{name, tenant};

/// The labels of a tenant's pod by key; `None` where the label must not be. `None` for a pod that no Cluster controls.
#[must_use]
pub fn labels(meta: &ObjectMeta) -> Option<[(&'static str, Option<&str>); 2]> {
    let cluster = tenant::cluster_that_controls(meta)?;
    let annotation = |key: &str| meta.annotations.as_ref().and_then(|all| all.get(key)).map(String::as_str);
    let claimed = annotation(VIRTUAL_NAMESPACE).zip(annotation(VIRTUAL_NAME));
    let namespace = claimed.and_then(|(namespace, own)| {
        (meta.name.as_deref() == Some(name::twin(own, namespace, &cluster.name).as_str())).then_some(namespace)
    });
    // Server pods are controlled by a StatefulSet; what a Cluster controls and cannot be named is nobody's to select.
    Some([(CLUSTER_NAME, namespace.map(|_| cluster.name.as_str())), (VIRTUAL_NAMESPACE, namespace)])
}

/// What must change of a pod's labels: `null` takes one away. Empty when they are right, or when the pod is no tenant's.
#[must_use]
pub fn changes(meta: &ObjectMeta) -> Map<String, Value> {
    let none = BTreeMap::new();
    let there = meta.labels.as_ref().unwrap_or(&none);
    let wanted = labels(meta).into_iter().flatten();
    let wrong = wanted.filter(|(key, value)| there.get(*key).map(String::as_str) != *value);
    wrong.map(|(key, value)| (key.to_owned(), json!(value))).collect()
}

/// The changes as a JSON patch (RFC 6902) of that pod; `None` when there are none.
#[must_use]
pub fn patch(meta: &ObjectMeta) -> Option<Value> {
    let changes = changes(meta);
    if changes.is_empty() {
        return None;
    }
    let mut patch = Vec::new();
    if meta.labels.is_none() {
        patch.push(json!({"op": "add", "path": "/metadata/labels", "value": {}}));
    }
    patch.extend(changes.into_iter().map(|(key, value)| {
        // "/" is spelled "~1" in a JSON pointer (RFC 6901).
        let path = format!("/metadata/labels/{}", key.replace('/', "~1"));
        if value.is_null() {
            json!({"op": "remove", "path": path})
        } else {
            json!({"op": "add", "path": path, "value": value})
        }
    }));
    Some(patch.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(change: &dyn Fn(&mut Value)) -> ObjectMeta {
        let mut meta = json!({
            "name": name::twin("web-1", "shop", "mine"), "namespace": "ns",
            "annotations": {"k3k.io/name": "web-1", "k3k.io/namespace": "shop"},
            "labels": {"app": "web", "k3k.io/clusterName": "mine", "k3k.io/namespace": "shop"},
            "ownerReferences": [
                {"apiVersion": "k3k.io/v1beta1", "kind": "Cluster", "name": "mine", "uid": "c", "controller": true}],
        });
        change(&mut meta);
        serde_json::from_value(meta).unwrap()
    }

    #[test]
    fn right_labels_need_no_change_and_others_pods_none_either() {
        assert_eq!(patch(&meta(&|_| {})), None);
        assert_eq!(patch(&meta(&|meta| meta["ownerReferences"] = json!([]))), None);
        let not_controlled = meta(&|meta| meta["ownerReferences"][0]["controller"] = json!(false));
        assert_eq!(changes(&not_controlled), Map::new());
    }

    #[test]
    fn missing_and_forged_values_are_put_right() {
        let forged = meta(&|meta| {
            meta["labels"] = json!({"k3k.io/clusterName": "other", "k3k.io/namespace": "kube-system"});
        });
        assert_eq!(json!(changes(&forged)), json!({"k3k.io/clusterName": "mine", "k3k.io/namespace": "shop"}));
        let bare = meta(&|meta| meta["labels"] = Value::Null);
        let expected = json!([
            {"op": "add", "path": "/metadata/labels", "value": {}},
            {"op": "add", "path": "/metadata/labels/k3k.io~1clusterName", "value": "mine"},
            {"op": "add", "path": "/metadata/labels/k3k.io~1namespace", "value": "shop"},
        ]);
        assert_eq!(patch(&bare), Some(expected));
    }

    #[test]
    fn a_namespace_that_the_name_contradicts_is_not_believed() {
        for claim in [
            json!({"k3k.io/name": "web-1", "k3k.io/namespace": "bank"}),
            json!({"k3k.io/namespace": "shop"}),
            json!({}),
        ] {
            let liar = meta(&|meta| meta["annotations"] = claim.clone());
            assert_eq!(json!(changes(&liar)), json!({"k3k.io/clusterName": null, "k3k.io/namespace": null}), "{claim}");
        }
    }
}
