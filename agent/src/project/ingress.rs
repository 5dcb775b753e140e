//! A virtual Ingress to what its agent says of it. Pure.

use k3k_expose_projection::ingress as projection;
use k3k_expose_proto::message::Object;
use k3k_expose_proto::{Key, Resource, Uid};
use k8s_openapi::api::networking::v1;

use super::Projected;

/// Projects an Ingress as it stands after an addition or a change.
#[must_use]
pub fn project(ingress: &v1::Ingress) -> Projected {
    let Some((key, uid)) = identity(ingress) else {
        return Projected::Skip;
    };
    if ingress.metadata.deletion_timestamp.is_some() {
        return Projected::Gone { key, uid };
    }
    match projection::ingress(ingress) {
        Ok(projected) => Projected::Wanted { key, uid, object: Object::Ingress(Box::new(projected)) },
        Err(why) => Projected::Refused { key, uid, why },
    }
}

/// Projects an Ingress that was deleted.
#[must_use]
pub fn gone(ingress: &v1::Ingress) -> Projected {
    match identity(ingress) {
        Some((key, uid)) => Projected::Gone { key, uid },
        None => Projected::Skip,
    }
}

fn identity(ingress: &v1::Ingress) -> Option<(Key, Uid)> {
    let meta = &ingress.metadata;
    let key = Key::of(Resource::Ingresses, meta.namespace.as_deref()?, meta.name.as_deref()?).ok()?;
    Some((key, Uid::parse(meta.uid.as_deref()?).ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn projected(change: impl FnOnce(&mut Value)) -> Projected {
        let mut ingress = json!({
            "metadata": {"name": "shop.example", "namespace": "default", "uid": "u",
                "labels": {"app": "shop", "k3k.io/clusterName": "forged"},
                "annotations": {"example.com/a": "x", "expose.k3k.io/synced": "True/Applied",
                    "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {
                "ingressClassName": "public",
                "defaultBackend": {"resource": {"kind": "Bucket", "name": "b"}},
                "rules": [{"host": "shop.example", "http": {"paths": [
                    {"path": "/a", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}},
                    {"pathType": "ImplementationSpecific", "backend": {"service": {"name": "web", "port": {"name": "http"}}}},
                ]}}, {"host": "rest.example"}],
                "tls": [{"hosts": ["shop.example"], "secretName": "cert"}, {}],
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
        });
        change(&mut ingress);
        project(&serde_json::from_value(ingress).unwrap())
    }

    #[test]
    fn every_field_that_crosses_is_there_and_no_other() {
        let Projected::Wanted { key, object: Object::Ingress(ingress), .. } = projected(|_| {}) else { panic!() };
        assert_eq!(key.as_str(), "ingresses/default/shop.example");
        let web = |port: Value| json!({"service": {"name": "web", "port": port}});
        let expected = json!({
            "ingressClassName": "public",
            "defaultBackend": "resource",
            "rules": [{"host": "shop.example", "paths": [
                {"path": "/a", "pathType": "Prefix", "backend": web(json!({"number": 80}))},
                {"pathType": "ImplementationSpecific", "backend": web(json!({"name": "http"}))},
            ]}, {"host": "rest.example"}],
            "tls": [{"hosts": ["shop.example"], "secretName": "cert"}, {}],
            "labels": {"app": "shop"},
            "annotations": {"example.com/a": "x"},
        });
        assert_eq!(json!(ingress), expected);
    }

    #[test]
    fn what_is_going_is_gone_and_what_cannot_be_carried_is_refused() {
        let going = projected(|ingress| ingress["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into());
        assert!(matches!(going, Projected::Gone { .. }));
        let odd = projected(|ingress| ingress["spec"]["rules"][0]["http"]["paths"][0]["pathType"] = "Regex".into());
        assert!(matches!(odd, Projected::Refused { why: "a pathType is unknown", .. }));
        let rules = vec![json!({"host": "a.example"}); 65];
        let many = projected(|ingress| ingress["spec"]["rules"] = rules.into());
        assert!(matches!(many, Projected::Refused { why: "rules has too many entries", .. }));
    }
}
