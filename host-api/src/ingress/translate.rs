//! From a virtual Ingress to the twin that the host should have. Pure, and built by allow-list as for Services.

use std::collections::{BTreeMap, BTreeSet};

use k3k_expose_proto::ingress::{Backend, BackendPort, Ingress, Path, Rule, Tls};
use k3k_expose_proto::{Key, Reason, Uid};
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec, IngressTLS,
    ServiceBackendPort,
};

use super::policy::Policy;
use super::secret;
use crate::name;
use crate::policy::Refusal;
use crate::syntax::{is_annotation_key, is_label, is_word};
use crate::tenant::Tenant;
use crate::translate::{Desired, frame};
use crate::twin::TLS_SECRETS;

/// Translates an Ingress of a tenant, as far as policy admits it.
///
/// # Errors
/// Why there can be no twin.
pub fn translate(
    policy: &Policy,
    tenant: &Tenant,
    virtual_cluster: &Uid,
    key: &Key,
    uid: &Uid,
    ingress: &Ingress,
) -> Result<Desired<IngressSpec>, Refusal> {
    policy.judge(ingress)?;
    let is_port = |backend: &Backend| match backend {
        Backend::Service { port: BackendPort::Name(name), .. } => is_word(name),
        Backend::Service { port: BackendPort::Number(_), .. } | Backend::Resource => true,
    };
    let annotations = || ingress.annotations.keys().all(|key| is_annotation_key(key));
    if !ingress.labels.iter().all(is_label) || !annotations() || !ingress.backends().all(is_port) {
        let message = "a label, an annotation's key, or the name of a port is none that an API server takes".to_owned();
        return Err(Refusal::new(Reason::HostRefused, message));
    }
    let spec = spec(tenant, key, ingress)
        .ok_or_else(|| Refusal::new(Reason::BackendNotSynced, "a backend is no Service".to_owned()))?;
    let mut desired = frame(tenant, virtual_cluster, key, uid, &ingress.labels, spec);
    let admitted = policy.crossing(ingress).map(|(key, value)| (key.clone(), value.clone()));
    // The marks win: no policy may admit a key that claims a twin.
    let marks = std::mem::take(&mut desired.annotations);
    desired.annotations = admitted.chain(marks).collect();
    Ok(desired)
}

/// Calls the tenant's own Secrets by the names of their twins, and lists those of the host's that stand for the twin.
pub fn name_secrets<'a>(
    desired: &mut Desired<IngressSpec>,
    names: &'a BTreeMap<String, String>,
    outlived: impl IntoIterator<Item = &'a String>,
) {
    for tls in desired.spec.tls.iter_mut().flatten() {
        if let Some(twin) = tls.secret_name.as_ref().and_then(|name| names.get(name)) {
            tls.secret_name = Some(twin.clone());
        }
    }
    let standing: BTreeSet<&String> = names.values().chain(outlived).collect();
    if let Some(list) = secret::list(standing) {
        desired.annotations.insert(TLS_SECRETS.to_owned(), list);
    }
}

/// The Services that an Ingress names, in its own namespace.
#[must_use]
pub fn backends(key: &Key, ingress: &Ingress) -> BTreeSet<Option<Key>> {
    let service = |backend: &Backend| match backend {
        Backend::Service { name, .. } => Key::service(key.namespace(), name).ok(),
        Backend::Resource => None,
    };
    ingress.backends().map(service).collect()
}

fn spec(tenant: &Tenant, key: &Key, ingress: &Ingress) -> Option<IngressSpec> {
    let default_backend = match &ingress.default_backend {
        Some(asked) => Some(backend(tenant, key, asked)?),
        None => None,
    };
    let rules: Option<Vec<_>> = ingress.rules.iter().map(|asked| rule(tenant, key, asked)).collect();
    let rules = rules?;
    let tls: Vec<_> = ingress.tls.iter().map(tls).collect();
    Some(IngressSpec {
        ingress_class_name: ingress.ingress_class_name.clone(),
        default_backend,
        rules: Some(rules).filter(|rules| !rules.is_empty()),
        tls: Some(tls).filter(|tls| !tls.is_empty()),
    })
}

fn rule(tenant: &Tenant, key: &Key, asked: &Rule) -> Option<IngressRule> {
    let paths: Option<Vec<_>> = asked.paths.iter().map(|asked| path(tenant, key, asked)).collect();
    Some(IngressRule {
        host: Some(asked.host.clone()).filter(|host| !host.is_empty()),
        http: Some(paths?).filter(|paths| !paths.is_empty()).map(|paths| HTTPIngressRuleValue { paths }),
    })
}

fn path(tenant: &Tenant, key: &Key, asked: &Path) -> Option<HTTPIngressPath> {
    Some(HTTPIngressPath {
        path: Some(asked.path.clone()).filter(|path| !path.is_empty()),
        path_type: asked.path_type.as_str().to_owned(),
        backend: backend(tenant, key, &asked.backend)?,
    })
}

/// The twin of the backend's Service. Its ports are those of the Service, by number and by name.
fn backend(tenant: &Tenant, key: &Key, asked: &Backend) -> Option<IngressBackend> {
    let Backend::Service { name, port } = asked else { return None };
    let (number, port_name) = match port {
        BackendPort::Number(number) => (Some(i32::from(number.get())), None),
        BackendPort::Name(name) => (None, Some(name.clone())),
    };
    let service = IngressServiceBackend {
        name: name::twin(name, key.namespace(), tenant.cluster()),
        port: Some(ServiceBackendPort { name: port_name, number }),
    };
    Some(IngressBackend { resource: None, service: Some(service) })
}

fn tls(asked: &Tls) -> IngressTLS {
    IngressTLS {
        hosts: Some(asked.hosts.clone()).filter(|hosts| !hosts.is_empty()),
        // Of the host's as it is; see `name_secrets` for the tenant's own.
        secret_name: asked.secret_name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use k3k_expose_proto::Resource;
    use k3k_expose_proto::ingress::PathType;
    use serde_json::json;

    use super::*;
    use crate::ingress::host::normalize;

    fn translated(ingress: &Ingress) -> Result<Desired<IngressSpec>, Refusal> {
        let tenant = Tenant::for_test("t", "ns", "mine");
        let key = Key::of(Resource::Ingresses, "default", "shop").unwrap();
        let uid = |text| Uid::parse(text).unwrap();
        let policy =
            Policy::for_test(json!({"classes": ["public"], "hostSuffixes": ["example"], "tlsSecrets": ["cert"],
            "defaultBackend": true, "annotations": [{"key": "example.com/a", "value": "x"}, {"key": "k3k.io/name"}]}));
        translate(&policy, &tenant, &uid("vc"), &key, &uid("v"), ingress)
    }

    fn backend(name: &str, port: BackendPort) -> Backend {
        Backend::Service { name: name.to_owned(), port }
    }

    fn full() -> Ingress {
        let number = BackendPort::Number(NonZeroU16::new(80).unwrap());
        let path = Path { path: "/x".to_owned(), path_type: PathType::Exact, backend: backend("web", number) };
        Ingress {
            ingress_class_name: Some("public".to_owned()),
            default_backend: Some(backend("rest", BackendPort::Name("http".to_owned()))),
            rules: vec![
                Rule { host: "a.example".to_owned(), paths: vec![path] },
                Rule { host: "b.example".to_owned(), paths: Vec::new() },
            ],
            tls: vec![Tls { hosts: vec!["a.example".to_owned()], secret_name: Some("cert".to_owned()) }],
            annotations: [("example.com/a", "x"), ("k3k.io/name", "forged")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            ..Ingress::default()
        }
    }

    #[test]
    fn backends_get_the_names_of_their_twins_and_all_else_stays() {
        let desired = translated(&full()).unwrap();
        let named = |service: &str| name::twin(service, "default", "mine");
        let expected = json!({
            "ingressClassName": "public",
            "defaultBackend": {"service": {"name": named("rest"), "port": {"name": "http"}}},
            "rules": [
                {"host": "a.example", "http": {"paths": [{"path": "/x", "pathType": "Exact",
                    "backend": {"service": {"name": named("web"), "port": {"number": 80}}}}]}},
                {"host": "b.example"},
            ],
            "tls": [{"hosts": ["a.example"], "secretName": "cert"}],
        });
        assert_eq!(json!(desired.spec), expected);
        assert_eq!(normalize(desired.spec.clone()), desired.spec, "in the spelling that is compared");
        assert_eq!(desired.name, name::twin("shop", "default", "mine"));
        assert_eq!(desired.annotations["example.com/a"], "x");
        assert_eq!(desired.annotations["k3k.io/name"], "shop", "no annotation of a tenant's is a mark");
    }

    #[test]
    fn what_policy_refuses_has_no_twin() {
        let reason = |ingress: &Ingress| translated(ingress).unwrap_err().reason;
        assert_eq!(reason(&Ingress { default_backend: Some(Backend::Resource), ..full() }), Reason::BackendNotSynced);
        assert_eq!(reason(&Ingress { ingress_class_name: None, ..full() }), Reason::ClassNotAdmitted);
    }
}
