//! An Ingress to what of it crosses, field by field. Pure.
//!
//! The trap: a field that is not named here does not cross, so whoever adds one raises
//! [`k3k_expose_proto::version::PROJECTION`].

use k3k_expose_proto::ingress::{Backend, BackendPort, Ingress, Path, PathType, Rule, Tls};
use k8s_openapi::api::networking::v1::{self, HTTPIngressPath, IngressBackend, IngressRule, IngressTLS};

use crate::labels;
use crate::value::{number, word};

/// What of an Ingress crosses, or what of it this build cannot carry.
///
/// # Errors
/// The field, and what is wrong with it.
pub fn ingress(ingress: &v1::Ingress) -> Result<Ingress, &'static str> {
    let default = v1::IngressSpec::default();
    let spec = ingress.spec.as_ref().unwrap_or(&default);
    let projected = Ingress {
        ingress_class_name: word(spec.ingress_class_name.as_ref()),
        default_backend: spec.default_backend.as_ref().map(backend).transpose()?,
        rules: spec.rules.iter().flatten().map(rule).collect::<Result<_, _>>()?,
        tls: spec.tls.iter().flatten().map(tls).collect(),
        labels: labels::labels(ingress.metadata.labels.as_ref()),
        annotations: labels::foreign_annotations(ingress.metadata.annotations.as_ref()),
    };
    projected.check().map(|()| projected)
}

fn rule(from: &IngressRule) -> Result<Rule, &'static str> {
    let paths = from.http.iter().flat_map(|http| &http.paths).map(path).collect::<Result<_, _>>()?;
    Ok(Rule { host: from.host.clone().unwrap_or_default(), paths })
}

fn path(from: &HTTPIngressPath) -> Result<Path, &'static str> {
    let path_type = match from.path_type.as_str() {
        "Exact" => PathType::Exact,
        "Prefix" => PathType::Prefix,
        "ImplementationSpecific" => PathType::ImplementationSpecific,
        _ => return Err("a pathType is unknown"),
    };
    Ok(Path { path: from.path.clone().unwrap_or_default(), path_type, backend: backend(&from.backend)? })
}

fn backend(from: &IngressBackend) -> Result<Backend, &'static str> {
    let Some(service) = &from.service else {
        return Ok(Backend::Resource);
    };
    const NO_PORT: &str = "a backend has no port";
    let port = service.port.as_ref().ok_or(NO_PORT)?;
    let port = match word(port.name.as_ref()) {
        Some(name) => BackendPort::Name(name),
        None => BackendPort::Number(number(port.number, NO_PORT)?.ok_or(NO_PORT)?),
    };
    Ok(Backend::Service { name: service.name.clone(), port })
}

fn tls(from: &IngressTLS) -> Tls {
    Tls { hosts: from.hosts.clone().unwrap_or_default(), secret_name: word(from.secret_name.as_ref()) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(written: Value) -> Result<Ingress, &'static str> {
        ingress(&serde_json::from_value(written).unwrap())
    }

    #[test]
    fn what_no_agent_could_carry_is_told() {
        let path = |path_type: &str, port: Value| {
            let backend = json!({"service": {"name": "web", "port": port}});
            json!({"spec": {"rules": [{"http": {"paths": [{"pathType": path_type, "backend": backend}]}}]}})
        };
        assert!(of(path("Exact", json!({"number": 80}))).is_ok());
        for (written, why) in [
            (path("Regex", json!({"number": 80})), "a pathType is unknown"),
            (path("Exact", json!({"number": 70_000})), "a backend has no port"),
            (path("Exact", json!({})), "a backend has no port"),
            (json!({"spec": {"rules": vec![json!({}); 65]}}), "rules has too many entries"),
        ] {
            assert_eq!(of(written), Err(why));
        }
    }
}
