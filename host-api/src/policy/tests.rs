//! Which policy decides, and what each field admits.

use std::collections::BTreeMap;

use k3k_expose_proto::service::{Port, Protocol, Service, ServiceType, TargetPort};
use k3k_expose_proto::{Key, Reason, Uid};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::grant::Grant;
use super::resource::ExposurePolicySpec;
use super::select::Labels;
use super::{Policies, service};
use crate::tenant::Tenant;
use crate::translate::{Desired, label_may_cross, translate};

fn spec(spec: Value) -> ExposurePolicySpec {
    serde_json::from_value(spec).unwrap()
}

fn policies(all: &[(&str, Value)]) -> Policies {
    let mut policies = Policies::default();
    for (name, written) in all {
        policies.set(name, Some(spec(written.clone())));
    }
    policies
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn granted(all: &[(&str, Value)]) -> Grant {
    (*policies(all).grant(&labels(&[("team", "a")]), &labels(&[("tier", "gold")]))).clone()
}

fn allowing(allow: &Value) -> Grant {
    granted(&[("only", json!({"allow": allow}))])
}

fn of(service_type: ServiceType) -> Service {
    Service::new(service_type)
}

fn reason(grant: &Grant, service: &Service) -> Option<Reason> {
    service::judge(grant, service).err().map(|refusal| refusal.reason)
}

fn twin(grant: &Grant, asked: &Service) -> Desired {
    let uid = |text| Uid::parse(text).unwrap();
    let (tenant, key) = (Tenant::for_test("t", "ns", "mine"), Key::service("default", "web").unwrap());
    let mut desired = translate(&tenant, &uid("vc"), &key, &uid("v"), asked).unwrap();
    service::shape(grant, asked, &mut desired);
    desired
}

#[test]
fn the_most_specific_policy_decides_and_ties_go_by_name() {
    let types = |word: &str| json!({"serviceTypes": [word]});
    let all = [
        ("z-everybody", json!({"allow": types("ClusterIP")})),
        ("team", json!({"namespaceSelector": {"matchLabels": {"team": "a"}}, "allow": types("NodePort")})),
        ("gold-b", json!({"clusterSelector": {"matchLabels": {"tier": "gold"}}, "allow": types("NodePort")})),
        ("gold-a", json!({"clusterSelector": {"matchLabels": {"tier": "gold"}}, "allow": types("LoadBalancer")})),
        ("other", json!({"clusterSelector": {"matchLabels": {"tier": "x", "a": "b"}}, "allow": types("ClusterIP")})),
        ("no-allow", json!({"clusterSelector": {"matchLabels": {"tier": "gold"}}, "deny": {}})),
    ];
    let of = |namespace: &Labels, cluster: &Labels| policies(&all).grant(namespace, cluster).policy.clone();
    let (none, team, gold) = (Labels::new(), labels(&[("team", "a")]), labels(&[("tier", "gold")]));
    assert_eq!(of(&team, &gold).as_deref(), Some("gold-a"));
    assert_eq!(of(&team, &none).as_deref(), Some("team"));
    assert_eq!(of(&none, &none).as_deref(), Some("z-everybody"));
    let reach = policies(&all).reach([(&team, &gold), (&team, &none)].into_iter());
    assert_eq!((reach["gold-a"].clusters, reach["gold-a"].governs), (1, 1));
    assert_eq!((reach["gold-b"].clusters, reach["gold-b"].governs), (1, 0));
    assert_eq!((reach["z-everybody"].clusters, reach["team"].governs), (2, 1));
}

#[test]
fn what_any_policy_denies_no_other_admits() {
    let grant = granted(&[
        (
            "broad",
            json!({"deny": {"serviceTypes": ["NodePort"], "loadBalancerClasses": ["example.com/public"],
            "addresses": ["192.0.2.128/25"], "annotations": [{"prefix": "evil.io/"}], "labels": [{"key": "secret"}]}}),
        ),
        (
            "near",
            json!({"clusterSelector": {"matchLabels": {"tier": "gold"}}, "allow": {
            "serviceTypes": ["NodePort", "LoadBalancer"], "externalIPs": ["192.0.2.0/24"],
            "loadBalancers": {"classes": ["example.com/public", "example.com/private"]},
            "annotations": [{"prefix": "evil.io/"}, {"key": "good.io/a"}]}}),
        ),
    ]);
    assert_eq!(reason(&grant, &of(ServiceType::NodePort)), Some(Reason::TypeNotAdmitted));
    let mut balancer = of(ServiceType::LoadBalancer);
    assert_eq!(reason(&grant, &balancer), None);
    balancer.load_balancer_class = Some("example.com/private".to_owned());
    assert_eq!(reason(&grant, &balancer), None);
    balancer.load_balancer_class = Some("example.com/public".to_owned());
    let refusal = service::judge(&grant, &balancer).unwrap_err();
    assert_eq!(refusal.rule.unwrap().to_string(), "ExposurePolicy broad, spec.deny.loadBalancerClasses");
    let mut external = of(ServiceType::LoadBalancer);
    external.external_ips = vec!["192.0.2.1".parse().unwrap()];
    assert_eq!(reason(&grant, &external), None);
    external.external_ips = vec!["192.0.2.129".parse().unwrap()];
    assert_eq!(reason(&grant, &external), Some(Reason::ExternalIPNotAdmitted));
    let mut marked = of(ServiceType::LoadBalancer);
    marked.annotations = labels(&[("evil.io/a", "x"), ("good.io/a", "y")]);
    marked.labels = labels(&[("secret", "x"), ("app", "web")]);
    let twin = twin(&grant, &marked);
    assert!(!twin.annotations.contains_key("evil.io/a") && twin.annotations["good.io/a"] == "y");
    assert!(!twin.labels.contains_key("secret") && twin.labels["app"] == "web");
}

#[test]
fn each_field_refuses_for_its_own_reason() {
    let grant = allowing(&json!({
        "serviceTypes": ["NodePort", "LoadBalancer"],
        "nodePorts": {"from": 30_100, "to": 30_199},
        "loadBalancers": {"classes": ["example.com/lb"], "sourceRangesRequired": true, "sourceRanges": ["192.0.2.0/24"],
            "addresses": ["203.0.113.0/28"]},
        "externalIPs": ["198.51.100.0/24"],
        "annotations": [{"key": "example.com/a", "value": "[a-z]+"}],
    }));
    let node_port = |number: u16, pinned: bool| {
        let mut service = of(ServiceType::NodePort);
        service.ports = vec![Port {
            name: String::new(),
            protocol: Protocol::TCP,
            port: 80.try_into().unwrap(),
            target_port: TargetPort::Number(80.try_into().unwrap()),
            app_protocol: None,
            node_port: number.try_into().ok(),
            node_port_pinned: pinned,
        }];
        service
    };
    let balancer = |change: &dyn Fn(&mut Service)| {
        let mut service = of(ServiceType::LoadBalancer);
        service.load_balancer_source_ranges = vec!["192.0.2.0/25".to_owned()];
        change(&mut service);
        service
    };
    for (service, expected) in [
        (of(ServiceType::ClusterIP), Some(Reason::TypeNotAdmitted)),
        (node_port(30_150, true), None),
        (node_port(30_200, true), Some(Reason::NodePortNotAdmitted)),
        (node_port(30_200, false), None),
        (balancer(&|_| {}), None),
        (balancer(&|it| it.load_balancer_class = Some("example.com/lb".to_owned())), None),
        (
            balancer(&|it| it.load_balancer_class = Some("example.com/other".to_owned())),
            Some(Reason::LoadBalancerClassNotAdmitted),
        ),
        (balancer(&|it| it.load_balancer_source_ranges.clear()), Some(Reason::SourceRangesRequired)),
        (
            balancer(&|it| it.load_balancer_source_ranges = vec!["0.0.0.0/0".to_owned()]),
            Some(Reason::SourceRangeNotAdmitted),
        ),
        (
            balancer(&|it| it.load_balancer_source_ranges.push("nonsense".to_owned())),
            Some(Reason::SourceRangeNotAdmitted),
        ),
        (balancer(&|it| it.load_balancer_ip = Some("203.0.113.15".parse().unwrap())), None),
        (balancer(&|it| it.load_balancer_ip = Some("203.0.113.16".parse().unwrap())), Some(Reason::AddressNotAdmitted)),
        (balancer(&|it| it.external_ips = vec!["198.51.100.7".parse().unwrap()]), None),
        (balancer(&|it| it.external_ips = vec!["198.51.101.7".parse().unwrap()]), Some(Reason::ExternalIPNotAdmitted)),
        (
            balancer(&|it| it.external_ips = vec!["::ffff:198.51.100.7".parse().unwrap()]),
            Some(Reason::ExternalIPNotAdmitted),
        ),
        (balancer(&|it| it.annotations = labels(&[("example.com/a", "abc"), ("example.com/b", "1")])), None),
        (balancer(&|it| it.annotations = labels(&[("example.com/a", "1")])), Some(Reason::AnnotationNotAdmitted)),
    ] {
        assert_eq!(reason(&grant, &service), expected, "{service:?}");
    }
}

#[test]
fn without_a_policy_the_safe_defaults_decide() {
    let grant = granted(&[]);
    assert_eq!(grant, Grant::default());
    for service_type in [ServiceType::ClusterIP, ServiceType::NodePort, ServiceType::LoadBalancer] {
        assert_eq!(reason(&grant, &of(service_type)), None, "{service_type:?}");
    }
    let mut balancer = of(ServiceType::LoadBalancer);
    balancer.load_balancer_class = Some("example.com/lb".to_owned());
    let refusal = service::judge(&grant, &balancer).unwrap_err();
    assert_eq!(refusal.rule.unwrap().to_string(), "the safe default of spec.allow.loadBalancers.classes");
    assert_eq!((grant.node_ports, grant.load_balancers), (100, 10));
    assert!(grant.shown_annotations().is_empty() && grant.band.is_none());
    let left_out = allowing(&json!({"nodePorts": {"most": 7}}));
    assert_eq!((left_out.node_ports, left_out.load_balancers, left_out.types), (7, 10, grant.types));
}

#[test]
fn a_mistake_never_widens_what_a_tenant_may_do() {
    let broken_selector = json!({"matchExpressions": [{"key": "team", "operator": "Like", "values": ["a"]}]});
    let wide = json!({"externalIPs": ["0.0.0.0/0"]});
    for selector in [broken_selector, json!({})] {
        let grant = granted(&[(
            "broken",
            json!({"namespaceSelector": selector, "allow": wide, "deny": {"serviceTypes": ["NodePort"]}}),
        )]);
        assert_eq!(grant.policy, None, "it gives nobody anything");
        assert_eq!(reason(&grant, &of(ServiceType::NodePort)), Some(Reason::TypeNotAdmitted), "and denies everybody");
    }
    let grant = allowing(&json!({"externalIPs": ["198.51.100.0/33"], "nodePorts": {"from": 5, "to": 1},
        "annotations": [{"key": "a", "value": "("}]}));
    let mut service = of(ServiceType::ClusterIP);
    service.external_ips = vec!["198.51.100.1".parse().unwrap()];
    assert_eq!(reason(&grant, &service), Some(Reason::ExternalIPNotAdmitted));
    assert!(!grant.has_in_band(3) && !grant.annotation("a").unwrap().admits("x"));
    let mut policies =
        policies(&[("x", json!({"deny": {"addresses": ["nonsense"]}, "allow": {"externalIPs": ["0.0.0.0/0"]}}))]);
    let denied = policies.grant(&Labels::new(), &Labels::new());
    assert_eq!(reason(&denied, &service), Some(Reason::ExternalIPNotAdmitted));
    assert_eq!(policies.mistakes("x").unwrap().len(), 1);
    assert!(policies.set("x", None) && !policies.set("x", None) && policies.mistakes("x").is_none());
}

#[test]
fn marks_and_reserved_keys_are_nobodys_to_give() {
    let grant = allowing(&json!({
        "annotations": [{"prefix": "k3k.io/"}, {"prefix": "expose.k3k.io/"}, {"prefix": "kubectl.kubernetes.io/"}, {"prefix": "x"}],
        "labels": [{"prefix": "k3k.io/"}, {"prefix": "service.kubernetes.io/"}, {"key": "app"}],
        "defaults": {"annotations": {"k3k.io/name": "forged", "metallb.io/pool": "a", "x.io/a": "platform"},
            "labels": {"k3k.io/clusterName": "other", "tier": "shared", "app": "platform"}},
    }));
    let mut service = of(ServiceType::ClusterIP);
    service.annotations = labels(&[
        ("k3k.io/name", "forged"),
        ("expose.k3k.io/uid", "forged"),
        ("kubectl.kubernetes.io/last-applied-configuration", "{}"),
        ("x.io/a", "tenant"),
    ]);
    service.labels = labels(&[
        ("k3k.io/clusterName", "other"),
        ("service.kubernetes.io/service-proxy-name", "x"),
        ("app", "web"),
        ("y", "z"),
    ]);
    let twin = twin(&grant, &service);
    let own = |map: &BTreeMap<String, String>, key: &str| map.get(key).cloned();
    assert_eq!(own(&twin.annotations, "k3k.io/name").as_deref(), Some("web"));
    assert_eq!(own(&twin.annotations, "expose.k3k.io/uid").as_deref(), Some("v"));
    assert_eq!(own(&twin.annotations, "metallb.io/pool").as_deref(), Some("a"));
    assert_eq!(own(&twin.annotations, "x.io/a").as_deref(), Some("tenant"), "the tenant wins over a default");
    assert_eq!(twin.annotations.len(), 6, "{:?}", twin.annotations);
    let expected = [
        ("app", "web"),
        ("app.kubernetes.io/managed-by", "k3k-expose"),
        ("k3k.io/clusterName", "mine"),
        ("tier", "shared"),
    ];
    assert_eq!(twin.labels, labels(&expected));
}

fn hostile() -> impl Strategy<Value = Service> {
    let text = prop_oneof![
        "[a-z]{1,8}",
        Just("k3k.io/clusterName".to_owned()),
        Just("service.kubernetes.io/service-proxy-name".to_owned()),
        Just("metallb.io/address-pool".to_owned()),
        Just("expose.k3k.io/uid".to_owned()),
        "\\PC{0,40}",
        any::<String>(),
    ];
    let map = prop::collection::btree_map(text.clone(), text.clone(), 0..6);
    let ip = any::<std::net::IpAddr>();
    let types = prop_oneof![
        Just(ServiceType::ClusterIP),
        Just(ServiceType::NodePort),
        Just(ServiceType::LoadBalancer),
        Just(ServiceType::ExternalName)
    ];
    let port = (1u16.., any::<u16>(), any::<bool>(), any::<bool>(), text.clone());
    let fields = (types, map.clone(), map.clone(), map, prop::collection::vec(port, 0..5));
    let more = (
        prop::option::of(text.clone()),
        prop::collection::vec(text, 0..3),
        prop::option::of(ip.clone()),
        prop::collection::vec(ip, 0..3),
    );
    (fields, more).prop_map(
        |((service_type, labels, annotations, selector, ports), (class, ranges, address, external))| {
            let mut service = Service::new(service_type);
            (service.labels, service.annotations, service.selector) = (labels, annotations, selector);
            service.load_balancer_class = class;
            service.load_balancer_source_ranges = ranges;
            (service.load_balancer_ip, service.external_ips) = (address, external);
            let ports = ports.into_iter().map(|(number, node_port, pinned, udp, name)| Port {
                name,
                protocol: if udp { Protocol::UDP } else { Protocol::TCP },
                port: number.try_into().unwrap(),
                target_port: TargetPort::Number(number.try_into().unwrap()),
                app_protocol: None,
                node_port: node_port.try_into().ok(),
                node_port_pinned: pinned,
            });
            service.ports = ports.collect();
            service
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_a_tenant_says_the_twin_has_only_what_is_admitted_or_there_is_none(service in hostile(), wide in any::<bool>()) {
        let grant = if wide {
            allowing(&json!({"externalIPs": ["0.0.0.0/1", "::/1"], "annotations": [{"prefix": "metallb.io/", "value": "[a-z]*"}],
                "loadBalancers": {"addresses": ["0.0.0.0/1"], "classes": ["abc"]}}))
        } else {
            Grant::default()
        };
        let tenant = Tenant::for_test("t", "ns", "mine");
        let uid = |text| Uid::parse(text).unwrap();
        let key = Key::service("default", "web").unwrap();
        let Ok(mut desired) = translate(&tenant, &uid("vc"), &key, &uid("v"), &service) else { return Ok(()) };
        if service::judge(&grant, &service).is_err() {
            return Ok(());
        }
        service::shape(&grant, &service, &mut desired);
        for (key, value) in &desired.annotations {
            let mark = ["k3k.io/name", "k3k.io/namespace", "expose.k3k.io/uid", "expose.k3k.io/virtual-cluster"].contains(&key.as_str());
            prop_assert!(mark || wide && key.starts_with("metallb.io/") && value.bytes().all(|byte| byte.is_ascii_lowercase()));
        }
        prop_assert_eq!(&desired.annotations["k3k.io/name"], "web");
        for key in desired.labels.keys() {
            let mark = ["k3k.io/clusterName", "app.kubernetes.io/managed-by"].contains(&key.as_str());
            prop_assert!(mark || label_may_cross(key));
        }
        let spec = &desired.spec;
        if let Some(selector) = &spec.selector {
            prop_assert_eq!((selector["k3k.io/clusterName"].as_str(), selector["k3k.io/namespace"].as_str()), ("mine", "default"));
        }
        let addresses = spec.external_ips.iter().flatten().chain(&spec.load_balancer_ip);
        for address in addresses {
            let ip: std::net::IpAddr = address.parse().unwrap();
            let low = match ip { std::net::IpAddr::V4(ip) => ip.octets()[0] < 128, std::net::IpAddr::V6(ip) => ip.octets()[0] < 128 };
            prop_assert!(wide && low, "{}", address);
        }
        prop_assert!(spec.load_balancer_class.as_deref().is_none_or(|class| wide && class == "abc"));
        prop_assert_eq!(&spec.external_name, &None);
    }
}
