//! The table, row by row, and what is not ours to write.

use super::*;
use crate::twin::{self, Marks};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

fn spec(json: &Value) -> ServiceSpec {
    let mut base = json!({"type": "ClusterIP", "clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.9"],
        "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
        "sessionAffinity": "None", "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}]});
    for (field, value) in json.as_object().unwrap() {
        base[field] = value.clone();
    }
    twin::normalize(serde_json::from_value(base).unwrap())
}

fn balancer(json: &Value) -> ServiceSpec {
    let mut base = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": true, "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 31000, "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080, "nodePort": 30080}]});
    for (field, value) in json.as_object().unwrap() {
        base[field] = value.clone();
    }
    spec(&base)
}

fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}

fn key() -> Key {
    Key::service("default", "web").unwrap()
}

fn desired(spec: ServiceSpec) -> Desired {
    Desired {
        name: "web".to_owned(),
        uid: uid("v"),
        virtual_cluster: uid("vc"),
        labels: BTreeMap::from([("a".to_owned(), "1".to_owned())]),
        annotations: BTreeMap::new(),
        owner: OwnerReference::default(),
        spec,
    }
}

fn standing(spec: ServiceSpec) -> Twin {
    Twin {
        uid: "u".to_owned(),
        resource_version: "7".to_owned(),
        terminating: false,
        marks: Marks {
            tenant: uid("t"),
            key: key(),
            ours: true,
            uid: Some(uid("v")),
            virtual_cluster: Some(uid("vc")),
        },
        labels: BTreeMap::from([("a".to_owned(), "1".to_owned())]),
        annotations: BTreeMap::new(),
        own_labels: vec!["a".to_owned()],
        own_annotations: Vec::new(),
        made_by_k3k: false,
        spec,
        ingress: Vec::new(),
        conditions: Vec::new(),
    }
}

fn planned(spec: ServiceSpec, twin: Twin) -> Plan {
    plan(&uid("t"), &key(), &desired(spec), Some(&HostService::Twin(Box::new(twin))), Road::Table, None)
}

fn patched(plan: Plan) -> Value {
    match plan {
        Plan::Patch(patch) => patch,
        other => panic!("expected a patch, got {other:?}"),
    }
}

#[test]
fn what_is_right_is_left_alone() {
    assert_eq!(planned(spec(&json!({})), standing(spec(&json!({})))), Plan::Nothing);
    assert_eq!(planned(balancer(&json!({})), standing(balancer(&json!({})))), Plan::Nothing);
}

#[test]
fn numbers_that_the_tenant_left_open_are_the_hosts() {
    let open = json!({"clusterIP": "", "clusterIPs": [], "healthCheckNodePort": 0,
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}]});
    assert_eq!(planned(balancer(&open), standing(balancer(&json!({})))), Plan::Nothing);
}

#[test]
fn a_balancer_that_shall_do_without_node_ports_loses_them() {
    let without = json!({"allocateLoadBalancerNodePorts": false,
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}]});
    let patch = patched(planned(balancer(&without), standing(balancer(&json!({})))));
    assert!(patch["spec"]["ports"][0].get("nodePort").is_none(), "{patch}");
}

#[test]
fn a_patch_names_every_field_and_guards_itself() {
    let mut twin = standing(spec(&json!({"externalIPs": ["192.0.2.1"], "selector": {"app": "x", "evil": "y"}})));
    twin.labels.insert("foreign".to_owned(), "2".to_owned());
    twin.own_labels.push("old".to_owned());
    twin.labels.insert("old".to_owned(), "3".to_owned());
    let patch = patched(planned(spec(&json!({"selector": {"app": "web"}})), twin));
    assert_eq!(patch["metadata"], json!({"uid": "u", "resourceVersion": "7", "labels": {"old": null}}));
    let fields = patch["spec"].as_object().unwrap();
    assert_eq!(fields.len(), FIELDS.len());
    assert_eq!(fields["selector"], json!({"app": "web", "evil": null}));
    assert!(fields["externalIPs"].is_null() && fields["loadBalancerIP"].is_null());
}

#[test]
fn a_selector_that_goes_is_taken_away() {
    let patch = patched(planned(spec(&json!({})), standing(spec(&json!({"selector": {"app": "x"}})))));
    assert!(patch["spec"]["selector"].is_null());
}

#[test]
fn immutable_fields_are_walked_by_the_table() {
    let via = |to: ServiceSpec, from: ServiceSpec| patched(planned(to, standing(from)))["spec"].clone();
    let headless = spec(&json!({"clusterIP": "None", "clusterIPs": ["None"]}));
    assert_eq!(via(headless.clone(), spec(&json!({})))["type"], "ExternalName");
    assert_eq!(via(spec(&json!({})), headless)["type"], "ExternalName");
    assert_eq!(via(spec(&json!({"clusterIP": "10.43.0.8"})), spec(&json!({})))["type"], "ExternalName");

    let class = via(balancer(&json!({"loadBalancerClass": "b"})), balancer(&json!({"loadBalancerClass": "a"})));
    assert_eq!((&class["type"], &class["clusterIP"]), (&json!("ClusterIP"), &json!("10.43.0.9")));
    assert!(class["loadBalancerClass"].is_null());

    let health = via(balancer(&json!({"healthCheckNodePort": 31001})), balancer(&json!({})));
    assert_eq!((&health["externalTrafficPolicy"], &health["type"]), (&json!("Cluster"), &json!("LoadBalancer")));
    assert_eq!(health["ports"][0]["nodePort"], 30080);

    let straight = via(spec(&json!({})), balancer(&json!({})));
    assert_eq!(straight["type"], "ClusterIP");
    assert!(straight["healthCheckNodePort"].is_null() && straight["externalTrafficPolicy"].is_null());
}

#[test]
fn from_the_middle_of_a_walk_the_road_is_straight() {
    let middle = over_external_name(&spec(&json!({})));
    let patch = patched(planned(spec(&json!({"clusterIP": "None", "clusterIPs": ["None"]})), standing(middle)));
    assert_eq!(patch["spec"]["clusterIP"], "None");
    assert!(patch["spec"]["externalName"].is_null());
}

#[test]
fn a_new_object_with_another_address_is_a_new_twin() {
    let mut twin = standing(spec(&json!({})));
    twin.marks.uid = Some(uid("old"));
    assert_eq!(planned(spec(&json!({"clusterIP": "10.43.0.8"})), twin), Plan::Replace);
}

#[test]
fn a_refused_road_leads_to_the_next() {
    let current = HostService::Twin(Box::new(standing(spec(&json!({})))));
    let to = desired(spec(&json!({"sessionAffinity": "ClientIP"})));
    let by = |road| plan(&uid("t"), &key(), &to, Some(&current), road, None);
    assert_eq!(patched(by(Road::Table))["spec"]["type"], "ClusterIP");
    assert_eq!(patched(by(Road::OverExternalName))["spec"]["type"], "ExternalName");
    assert_eq!(by(Road::Replace), Plan::Replace);
}

#[test]
fn what_is_not_ours_to_write_is_not_written() {
    let to = desired(spec(&json!({})));
    let by = |current: Option<HostService>, through: Option<&Uid>| {
        plan(&uid("t"), &key(), &to, current.as_ref(), Road::Table, through)
    };
    let with = |change: &dyn Fn(&mut Twin)| {
        let mut twin = standing(spec(&json!({"sessionAffinity": "ClientIP"})));
        change(&mut twin);
        Some(HostService::Twin(Box::new(twin)))
    };
    assert_eq!(by(None, None), Plan::Create);
    assert_eq!(by(with(&|twin| twin.terminating = true), None), Plan::Wait);
    assert_eq!(by(with(&|twin| twin.marks.tenant = uid("other")), None), Plan::NameTaken);
    assert_eq!(by(with(&|twin| twin.marks.key = Key::service("x", "y").unwrap()), None), Plan::NameTaken);
    let foreign =
        HostService::Foreign(twin::Foreign { resource_version: String::new(), numbers: twin::Held::default() });
    assert_eq!(by(Some(foreign), None), Plan::NameTaken);
    let reset = with(&|twin| twin.marks.virtual_cluster = Some(uid("older")));
    assert_eq!(by(reset.clone(), None), Plan::WrongVirtualCluster);
    assert_eq!(by(reset.clone(), Some(&uid("another"))), Plan::WrongVirtualCluster);
    assert!(matches!(by(reset, Some(&uid("vc"))), Plan::Patch(_)));
}
