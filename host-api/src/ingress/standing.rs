//! From a twin that stands back to what it asks for, so that policy can judge it without its agent. Pure.
//!
//! Only what policy looks at comes back: backends have the names of twins by now, and whether these stand is not policy.

use k3k_expose_proto::ingress::{Backend, BackendPort, Ingress, Path, PathType, Rule, Tls};
use k8s_openapi::api::networking::v1::{HTTPIngressPath, IngressSpec};

use super::policy::Policy;
use super::secret;
use crate::twin::{TLS_SECRETS, Twin, VIRTUAL_CLUSTER, VIRTUAL_NAME, VIRTUAL_NAMESPACE, VIRTUAL_UID};

/// Whether policy admits a twin as it stands.
#[must_use]
pub fn is_admitted(policy: &Policy, twin: &Twin<IngressSpec>) -> bool {
    policy.judge(&asked(twin, policy.own_secrets())).is_ok()
}

/// `own_secrets`: twins of the tenant's own Secrets may be named.
fn asked(twin: &Twin<IngressSpec>, own_secrets: bool) -> Ingress {
    let marks = [VIRTUAL_NAME, VIRTUAL_NAMESPACE, VIRTUAL_UID, VIRTUAL_CLUSTER, TLS_SECRETS];
    let own = twin.own_annotations.iter().filter(|key| !marks.contains(&key.as_str()));
    let spec = &twin.spec;
    let secrets = secret::listed(Some(&twin.annotations).filter(|_| own_secrets));
    let rules = spec.rules.iter().flatten().map(|rule| Rule {
        host: rule.host.clone().unwrap_or_default(),
        paths: rule.http.iter().flat_map(|http| &http.paths).map(path).collect(),
    });
    let tls = spec.tls.iter().flatten().map(|tls| Tls {
        hosts: tls.hosts.clone().unwrap_or_default(),
        secret_name: tls.secret_name.clone().filter(|name| !secrets.contains(name)),
    });
    Ingress {
        ingress_class_name: spec.ingress_class_name.clone(),
        default_backend: spec.default_backend.as_ref().map(|_| backend()),
        rules: rules.collect(),
        tls: tls.collect(),
        labels: Default::default(),
        annotations: own.filter_map(|key| Some((key.clone(), twin.annotations.get(key)?.clone()))).collect(),
    }
}

fn path(of: &HTTPIngressPath) -> Path {
    let path_type = match of.path_type.as_str() {
        "Exact" => PathType::Exact,
        "Prefix" => PathType::Prefix,
        _ => PathType::ImplementationSpecific,
    };
    Path { path: of.path.clone().unwrap_or_default(), path_type, backend: backend() }
}

/// Any Service.
fn backend() -> Backend {
    Backend::Service { name: String::new(), port: BackendPort::Name(String::new()) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::ingress::host::reduce;
    use crate::name;

    fn is_admitted_after(change: impl FnOnce(&mut Value)) -> bool {
        let backend = json!({"service": {"name": "any", "port": {"number": 80}}});
        let fields = json!({"f:metadata": {"f:annotations": {"f:example.com/a": {}, "f:k3k.io/name": {}}}});
        let mut ingress = json!({
            "metadata": {"name": name::twin("shop", "default", "mine"), "namespace": "ns", "uid": "u", "resourceVersion": "1",
                "labels": {"k3k.io/clusterName": "mine", "app.kubernetes.io/managed-by": "k3k-expose"},
                "annotations": {"k3k.io/name": "shop", "k3k.io/namespace": "default", "example.com/a": "x", "theirs": "y"},
                "managedFields": [{"manager": "k3k-expose", "operation": "Update", "fieldsV1": fields}],
                "ownerReferences": [{"apiVersion": "k3k.io/v1beta1", "kind": "Cluster", "name": "mine", "uid": "t"}]},
            "spec": {"ingressClassName": "public", "tls": [{"hosts": ["a.example"], "secretName": "cert"}],
                "rules": [{"host": "a.example", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]},
        });
        change(&mut ingress);
        let twin = reduce(serde_json::from_value(ingress).unwrap()).twin.unwrap();
        let policy =
            Policy::for_test(json!({"classes": ["public"], "hostSuffixes": ["example"], "tlsSecrets": ["cert"],
            "annotations": [{"key": "example.com/a", "value": "x"}]}));
        is_admitted(&policy, &twin)
    }

    #[test]
    fn a_twin_is_judged_by_what_it_has() {
        assert!(is_admitted_after(|_| {}), "annotations of others are nobody's wish");
        for (pointer, value) in [
            ("/spec/ingressClassName", json!("internal")),
            ("/spec/rules/0/host", json!("other.example.com")),
            ("/spec/rules/0/host", Value::Null),
            ("/spec/rules/0/http/paths/0/path", json!("/(.*)")),
            ("/spec/tls/0/hosts/0", json!("*.example")),
            ("/spec/tls/0/secretName", json!("other")),
            ("/metadata/annotations/example.com~1a", json!("z")),
        ] {
            assert!(!is_admitted_after(|ingress| *ingress.pointer_mut(pointer).unwrap() = value), "{pointer}");
        }
        let everywhere = json!({"service": {"name": "any", "port": {"number": 80}}});
        assert!(!is_admitted_after(|ingress| ingress["spec"]["defaultBackend"] = everywhere));
    }
}
