//! Table tests of the projection.

#![expect(clippy::needless_pass_by_value, reason = "cases read best when written in place")]

use serde_json::{Value, json};

use super::*;

fn service(metadata: Value, spec: Value) -> v1::Service {
    let mut object = json!({
        "metadata": {"namespace": "default", "name": "web", "uid": "u-1"},
        "spec": spec,
    });
    if let (Some(base), Value::Object(more)) = (object["metadata"].as_object_mut(), metadata) {
        base.extend(more);
    }
    serde_json::from_value(object).unwrap()
}

fn wanted(metadata: Value, spec: Value) -> Service {
    match project(&service(metadata, spec), &BTreeSet::new()) {
        Projected::Wanted { object: Object::Service(service), .. } => *service,
        other => panic!("{other:?}"),
    }
}

fn refused(spec: Value) -> &'static str {
    match project(&service(json!({}), spec), &BTreeSet::new()) {
        Projected::Refused { why, .. } => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_the_clusters_own_two_services_are_skipped() {
    let of = |namespace: &str, name: &str| {
        project(&service(json!({"namespace": namespace, "name": name}), json!({})), &BTreeSet::new())
    };
    assert_eq!(of("default", "kubernetes"), Projected::Skip);
    assert_eq!(of("kube-system", "kube-dns"), Projected::Skip);
    assert!(matches!(of("default", "kube-dns"), Projected::Wanted { .. }));
    assert!(matches!(of("kube-system", "kubernetes"), Projected::Wanted { .. }));
}

#[test]
fn a_service_on_its_way_out_is_gone() {
    let going = service(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), json!({}));
    let expected = Projected::Gone { key: Key::service("default", "web").unwrap(), uid: Uid::parse("u-1").unwrap() };
    assert_eq!(project(&going, &BTreeSet::new()), expected);
    assert_eq!(gone(&service(json!({}), json!({}))), expected);
}

#[test]
fn every_type_and_headless_keep_their_kind() {
    for (word, service_type) in [
        ("ClusterIP", ServiceType::ClusterIP),
        ("NodePort", ServiceType::NodePort),
        ("LoadBalancer", ServiceType::LoadBalancer),
    ] {
        let projected = wanted(json!({}), json!({"type": word, "clusterIPs": ["10.43.0.9"]}));
        assert_eq!(projected.service_type, service_type);
        assert_eq!(projected.cluster_ips, ClusterIps::Addresses(vec!["10.43.0.9".parse().unwrap()]));
    }
    let headless = wanted(json!({}), json!({"clusterIP": "None", "clusterIPs": ["None"]}));
    assert_eq!(headless.cluster_ips, ClusterIps::Headless);
    assert_eq!(wanted(json!({}), json!({})).cluster_ips, ClusterIps::default());
}

#[test]
fn an_external_name_is_just_its_type_and_labels() {
    let projected = wanted(
        json!({"labels": {"app": "web"}}),
        json!({"type": "ExternalName", "externalName": "example.com", "selector": {"a": "b"}, "externalIPs": ["1.2.3.4"]}),
    );
    let mut expected = Service::new(ServiceType::ExternalName);
    expected.labels.insert("app".to_owned(), "web".to_owned());
    assert_eq!(projected, expected);
}

#[test]
fn every_named_field_crosses() {
    let projected = wanted(
        json!({}),
        json!({
            "type": "LoadBalancer",
            "clusterIPs": ["10.43.0.9", "fd00::9"],
            "ipFamilies": ["IPv4", "IPv6"],
            "ipFamilyPolicy": "RequireDualStack",
            "ports": [
                {"name": "web", "port": 80, "targetPort": "http", "nodePort": 30080, "appProtocol": "kubernetes.io/h2c"},
                {"name": "dns", "port": 80, "targetPort": 53, "protocol": "UDP"},
                {"name": "sig", "port": 81, "protocol": "SCTP"},
            ],
            "selector": {"app": "web"},
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
            "externalTrafficPolicy": "Local",
            "internalTrafficPolicy": "Cluster",
            "trafficDistribution": "PreferClose",
            "publishNotReadyAddresses": true,
            "healthCheckNodePort": 30081,
            "loadBalancerClass": "example.com/lb",
            "loadBalancerSourceRanges": ["10.0.0.0/8"],
            "loadBalancerIP": "192.0.2.1",
            "allocateLoadBalancerNodePorts": false,
            "externalIPs": ["192.0.2.2"],
        }),
    );
    let expected = json!({
        "type": "LoadBalancer",
        "clusterIPs": {"addresses": ["10.43.0.9", "fd00::9"]},
        "ipFamilies": ["IPv4", "IPv6"],
        "ipFamilyPolicy": "RequireDualStack",
        "ports": [
            {"name": "web", "protocol": "TCP", "port": 80, "targetPort": "http", "appProtocol": "kubernetes.io/h2c",
                "nodePort": 30080},
            {"name": "dns", "protocol": "UDP", "port": 80, "targetPort": 53},
            {"name": "sig", "protocol": "SCTP", "port": 81, "targetPort": 81},
        ],
        "selector": {"app": "web"},
        "sessionAffinity": {"clientIp": 60},
        "externalTrafficPolicy": "Local",
        "internalTrafficPolicy": "Cluster",
        "trafficDistribution": "PreferClose",
        "publishNotReadyAddresses": true,
        "healthCheckNodePort": 30081,
        "loadBalancerClass": "example.com/lb",
        "loadBalancerSourceRanges": ["10.0.0.0/8"],
        "loadBalancerIP": "192.0.2.1",
        "allocateLoadBalancerNodePorts": false,
        "externalIPs": ["192.0.2.2"],
    });
    assert_eq!(serde_json::to_value(projected).unwrap(), expected);
}

#[test]
fn numbers_that_a_manager_owns_are_pinned() {
    let spec = json!({
        "type": "NodePort",
        "clusterIPs": ["10.43.0.9"],
        "healthCheckNodePort": 30000,
        "ports": [{"name": "a", "port": 80, "nodePort": 30080}, {"name": "b", "port": 80, "protocol": "UDP", "nodePort": 30081}],
    });
    let fields = json!({"f:spec": {
        "f:clusterIPs": {}, "f:healthCheckNodePort": {},
        "f:ports": {r#"k:{"port":80,"protocol":"UDP"}"#: {"f:nodePort": {}}},
    }});
    let projected = wanted(json!({"managedFields": [{"fieldsV1": fields}]}), spec.clone());
    assert!(projected.cluster_ip_pinned && projected.health_check_node_port_pinned);
    let pinned: Vec<bool> = projected.ports.iter().map(|port| port.node_port_pinned).collect();
    assert_eq!(pinned, [false, true]);
    let drawn = wanted(json!({}), spec);
    assert!(!drawn.cluster_ip_pinned && !drawn.health_check_node_port_pinned);
}

#[test]
fn what_was_asked_for_but_is_not_there_is_not_pinned() {
    let fields = json!({"f:spec": {
        "f:clusterIP": {}, "f:healthCheckNodePort": {}, "f:ports": {r#"k:{"port":80,"protocol":"TCP"}"#: {"f:nodePort": {}}},
    }});
    let projected =
        wanted(json!({"managedFields": [{"fieldsV1": fields}]}), json!({"clusterIP": "None", "ports": [{"port": 80}]}));
    assert!(!projected.cluster_ip_pinned && !projected.health_check_node_port_pinned);
    assert!(!projected.ports[0].node_port_pinned);
}

#[test]
fn annotations_cross_when_admitted_and_last_applied_never() {
    let annotated = service(
        json!({"annotations": {
            "example.com/a": "1", "example.com/b": "2", "kubectl.kubernetes.io/last-applied-configuration": "{}",
        }}),
        json!({}),
    );
    let admitted = ["example.com/a", "kubectl.kubernetes.io/last-applied-configuration"].map(str::to_owned);
    let Projected::Wanted { object: Object::Service(service), .. } = project(&annotated, &admitted.into()) else {
        panic!("not wanted");
    };
    assert_eq!(service.annotations.keys().collect::<Vec<_>>(), ["example.com/a"]);
}

#[test]
fn values_that_cannot_be_carried_are_refused_and_never_panic() {
    for spec in [
        json!({"type": "Carrier"}),
        json!({"clusterIPs": ["ten"]}),
        json!({"clusterIPs": ["None", "10.0.0.1"]}),
        json!({"ipFamilies": ["IPv5"]}),
        json!({"ipFamilyPolicy": "Maybe"}),
        json!({"ports": [{"port": 0}]}),
        json!({"ports": [{"port": -1}]}),
        json!({"ports": [{"port": 70000}]}),
        json!({"ports": [{"port": 80, "targetPort": 70000}]}),
        json!({"ports": [{"port": 80, "nodePort": -1}]}),
        json!({"ports": [{"port": 80, "protocol": "ICMP"}]}),
        json!({"sessionAffinity": "Always"}),
        json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": -1}}}),
        json!({"externalTrafficPolicy": "Nearby"}),
        json!({"healthCheckNodePort": 70000}),
        json!({"loadBalancerIP": "somewhere"}),
        json!({"externalIPs": [""]}),
    ] {
        assert!(!refused(spec.clone()).is_empty(), "{spec}");
    }
}

#[test]
fn objects_without_a_usable_name_or_uid_are_skipped() {
    for metadata in [json!({"name": "Not A Label"}), json!({"uid": ""}), json!({"namespace": null})] {
        assert_eq!(project(&service(metadata, json!({})), &BTreeSet::new()), Projected::Skip);
    }
}
