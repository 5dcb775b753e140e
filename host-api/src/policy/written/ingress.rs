//! An Ingress as somebody writes it, to the Ingress that an agent would say of it. Pure.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use k3k_expose_proto::ingress::{Backend, BackendPort, Ingress, Path, PathType, Rule, Tls};
use k8s_openapi::api::networking::v1::{self, HTTPIngressPath, IngressBackend, IngressRule, IngressTLS};

use crate::policy::grant::LAST_APPLIED;
use crate::translate::label_may_cross;

/// Domain of the agent's own annotations.
const OURS: &str = "expose.k3k.io/";

/// The Ingress, or why there is none.
///
/// # Errors
/// What no agent could carry.
pub fn ingress(written: &v1::Ingress) -> Result<Ingress, &'static str> {
    let spec = written.spec.clone().unwrap_or_default();
    let kept = |map: Option<&BTreeMap<String, String>>, crosses: &dyn Fn(&str) -> bool| {
        let pairs = map.into_iter().flatten().filter(|(key, _)| crosses(key));
        pairs.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let meta = &written.metadata;
    let ingress = Ingress {
        ingress_class_name: word(spec.ingress_class_name),
        default_backend: spec.default_backend.as_ref().map(backend).transpose()?,
        rules: spec.rules.iter().flatten().map(rule).collect::<Result<_, _>>()?,
        tls: spec.tls.into_iter().flatten().map(tls).collect(),
        labels: kept(meta.labels.as_ref(), &label_may_cross),
        annotations: kept(meta.annotations.as_ref(), &|key| key != LAST_APPLIED && !key.starts_with(OURS)),
    };
    ingress.check().map(|()| ingress)
}

fn rule(from: &IngressRule) -> Result<Rule, &'static str> {
    let paths = from.http.iter().flat_map(|http| &http.paths).map(path).collect::<Result<_, _>>()?;
    Ok(Rule { host: from.host.clone().unwrap_or_default(), paths })
}

fn path(from: &HTTPIngressPath) -> Result<Path, &'static str> {
    let types = [PathType::Exact, PathType::Prefix, PathType::ImplementationSpecific];
    let path_type = types.into_iter().find(|path_type| path_type.as_str() == from.path_type);
    let path_type = path_type.ok_or("a pathType is unknown")?;
    Ok(Path { path: from.path.clone().unwrap_or_default(), path_type, backend: backend(&from.backend)? })
}

fn backend(from: &IngressBackend) -> Result<Backend, &'static str> {
    let Some(service) = &from.service else {
        return Ok(Backend::Resource);
    };
    let port = service.port.clone().unwrap_or_default();
    let number = port.number.and_then(|number| NonZeroU16::new(u16::try_from(number).ok()?));
    let port = word(port.name).map(BackendPort::Name).or(number.map(BackendPort::Number));
    Ok(Backend::Service { name: service.name.clone(), port: port.ok_or("a backend has no port")? })
}

fn tls(from: IngressTLS) -> Tls {
    Tls { hosts: from.hosts.unwrap_or_default(), secret_name: word(from.secret_name) }
}

fn word(word: Option<String>) -> Option<String> {
    word.filter(|word| !word.is_empty())
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
