//! From the Ingress that stands and the one that should stand to the next write. Pure.
//!
//! Every field of an Ingress can change in place, so there are no roads to choose from. The trap: a merge patch merges
//! objects, so whatever `defaultBackend` should not have must be nulled within it.

use k3k_expose_proto::{Key, Uid};
use k8s_openapi::api::networking::v1::IngressSpec;
use serde_json::{Map, Value, json};

use super::host::HostIngress;
use crate::plan::{Plan, guarded, metadata, obstacle};
use crate::translate::Desired;
use crate::twin::Twin;

/// Plans the next step for the twin of `key` of the tenant with that UID; `let_through` as in [`crate::plan::plan`].
#[must_use]
pub fn plan(
    tenant: &Uid,
    key: &Key,
    desired: &Desired<IngressSpec>,
    current: Option<&HostIngress>,
    let_through: Option<&Uid>,
) -> Plan {
    let twin = match current {
        None => return Plan::Create,
        Some(HostIngress { twin: Some(twin), .. }) if twin.marks.is_of(tenant, key) => twin,
        Some(_) => return Plan::NameTaken,
    };
    if let Some(plan) = obstacle(desired, twin, let_through) {
        return plan;
    }
    let metadata = metadata(desired, twin);
    if desired.spec == twin.spec && metadata.is_empty() {
        return Plan::Nothing;
    }
    Plan::Patch(patch(twin, &desired.spec, metadata))
}

fn patch(twin: &Twin<IngressSpec>, spec: &IngressSpec, metadata: Map<String, Value>) -> Value {
    let default_backend = spec.default_backend.as_ref().map(|backend| {
        let service = backend.service.as_ref();
        let port = service.and_then(|service| service.port.as_ref());
        let (number, name) = (port.and_then(|port| port.number), port.and_then(|port| port.name.as_ref()));
        let service = service.map(|service| json!({"name": service.name, "port": {"name": name, "number": number}}));
        json!({"resource": null, "service": service})
    });
    let spec = json!({
        "ingressClassName": spec.ingress_class_name,
        "defaultBackend": default_backend,
        "rules": spec.rules,
        "tls": spec.tls,
    });
    guarded(twin, metadata, &spec)
}

#[cfg(test)]
mod tests {
    use k3k_expose_proto::Resource;

    use super::*;
    use crate::ingress::host::reduce;
    use crate::name;
    use crate::tenant::Tenant;
    use crate::translate::frame;

    fn key() -> Key {
        Key::of(Resource::Ingresses, "default", "shop").unwrap()
    }

    fn uid(text: &str) -> Uid {
        Uid::parse(text).unwrap()
    }

    fn spec(json: Value) -> IngressSpec {
        serde_json::from_value(json).unwrap()
    }

    fn of_port(port: &Value) -> IngressSpec {
        spec(json!({"ingressClassName": "public", "defaultBackend": {"service": {"name": "web", "port": port}}}))
    }

    fn desired(spec: IngressSpec) -> Desired<IngressSpec> {
        frame(&Tenant::for_test("t", "ns", "mine"), &uid("vc"), &key(), &uid("v"), &[].into(), spec)
    }

    fn standing(desired: &Desired<IngressSpec>, change: &Value) -> HostIngress {
        let mut object = json!({
            "metadata": {"name": name::twin("shop", "default", "mine"), "namespace": "ns", "uid": "u",
                "resourceVersion": "7", "labels": desired.labels, "annotations": desired.annotations,
                "ownerReferences": [desired.owner]},
            "spec": desired.spec,
        });
        for (key, value) in change.as_object().unwrap() {
            object["metadata"][key] = value.clone();
        }
        reduce(serde_json::from_value(object).unwrap())
    }

    fn planned(desired: &Desired<IngressSpec>, current: &HostIngress) -> Plan {
        plan(&uid("t"), &key(), desired, Some(current), None)
    }

    #[test]
    fn what_is_right_is_left_alone_and_what_is_not_there_is_made() {
        let desired = desired(of_port(&json!({"number": 80})));
        assert_eq!(planned(&desired, &standing(&desired, &json!({}))), Plan::Nothing);
        assert_eq!(plan(&uid("t"), &key(), &desired, None, None), Plan::Create);
    }

    #[test]
    fn a_patch_nulls_what_should_not_be_and_names_the_very_object() {
        let before = desired(of_port(&json!({"number": 80})));
        let after = desired(of_port(&json!({"name": "http"})));
        let Plan::Patch(patch) = planned(&after, &standing(&before, &json!({}))) else { panic!() };
        assert_eq!(patch["metadata"], json!({"uid": "u", "resourceVersion": "7"}));
        let backend = json!({"resource": null, "service": {"name": "web", "port": {"name": "http", "number": null}}});
        let expected = json!({"ingressClassName": "public", "defaultBackend": backend, "rules": null, "tls": null});
        assert_eq!(patch["spec"], expected);
    }

    #[test]
    fn others_and_other_clusters_ingresses_are_not_touched() {
        let desired = desired(of_port(&json!({"number": 80})));
        let foreign = standing(&desired, &json!({"ownerReferences": []}));
        assert_eq!(planned(&desired, &foreign), Plan::NameTaken);
        let going = standing(&desired, &json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}));
        assert_eq!(planned(&desired, &going), Plan::Wait);
        let mut annotations = desired.annotations.clone();
        annotations.insert(crate::twin::VIRTUAL_CLUSTER.to_owned(), "another".to_owned());
        let stranger = standing(&desired, &json!({"annotations": annotations}));
        assert_eq!(planned(&desired, &stranger), Plan::WrongVirtualCluster);
    }
}
