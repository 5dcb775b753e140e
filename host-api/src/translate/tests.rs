use std::num::NonZeroU16;

use k3k_expose_proto::endpoints::{EndpointPort, Endpoints};

use super::*;

fn of(service: &Service) -> Result<Desired, Reason> {
    let tenant = Tenant::for_test("t", "ns", "mine");
    let (cluster, uid) = (Uid::parse("vc").unwrap(), Uid::parse("v").unwrap());
    translate(&tenant, &cluster, &Key::service("default", "web").unwrap(), &uid, service)
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn a_selector_is_bound_to_the_tenant_and_its_namespace() {
    let mut service = Service::new(ServiceType::ClusterIP);
    service.selector = map(&[("app", "web")]);
    let selector = of(&service).unwrap().spec.selector.unwrap();
    assert_eq!(selector, map(&[("app", "web"), ("k3k.io/clusterName", "mine"), ("k3k.io/namespace", "default")]));
    service.selector = map(&[("app", "web"), ("k3k.io/clusterName", "mine")]);
    assert_eq!(of(&service).unwrap().spec.selector.unwrap(), selector, "the tenant's own values are no trespass");
}

#[test]
fn no_selector_stays_no_selector() {
    assert_eq!(of(&Service::new(ServiceType::ClusterIP)).unwrap().spec.selector, None);
}

#[test]
fn a_selector_that_reaches_for_others_is_refused() {
    for (key, value) in [("k3k.io/clusterName", "other"), ("k3k.io/namespace", "kube-system"), ("k3k.io/x", "y")] {
        let mut service = Service::new(ServiceType::ClusterIP);
        service.selector = map(&[(key, value)]);
        assert_eq!(of(&service), Err(Reason::ReservedSelectorKey), "{key}={value}");
    }
}

#[test]
fn reserved_labels_stay_behind_and_marks_are_ours() {
    let mut service = Service::new(ServiceType::ClusterIP);
    service.labels = map(&[
        ("app", "web"),
        ("app.kubernetes.io/name", "web"),
        ("app.kubernetes.io/managed-by", "Helm"),
        ("k3k.io/clusterName", "other"),
        ("x.k3k.io/y", "z"),
        ("service.kubernetes.io/service-proxy-name", "none"),
        ("kubernetes.io/x", "y"),
        ("a.k8s.io/b", "c"),
        ("notk8s.io/b", "c"),
    ]);
    service.annotations = map(&[("service.beta.kubernetes.io/aws-load-balancer-type", "nlb")]);
    let desired = of(&service).unwrap();
    let expected = map(&[
        ("app", "web"),
        ("app.kubernetes.io/name", "web"),
        ("app.kubernetes.io/managed-by", "k3k-expose"),
        ("k3k.io/clusterName", "mine"),
        ("notk8s.io/b", "c"),
    ]);
    assert_eq!(desired.labels, expected);
    assert_eq!(desired.annotations.len(), 4, "only the marks: {:?}", desired.annotations);
    assert_eq!(desired.owner.controller, None);
}

#[test]
fn addresses_of_the_tenants_choice_never_cross() {
    let mut service = Service::new(ServiceType::LoadBalancer);
    service.external_ips = vec!["192.0.2.1".parse().unwrap()];
    service.load_balancer_ip = Some("192.0.2.2".parse().unwrap());
    let spec = of(&service).unwrap().spec;
    assert_eq!((spec.external_ips, spec.load_balancer_ip, spec.external_name), (None, None, None));
}

/// A Service with one port.
fn with_port(service: &mut Service, change: impl FnOnce(&mut Port)) {
    let mut port = Port {
        name: String::new(),
        protocol: Protocol::TCP,
        port: NonZeroU16::MIN,
        target_port: TargetPort::Number(NonZeroU16::MIN),
        app_protocol: None,
        node_port: None,
        node_port_pinned: false,
    };
    change(&mut port);
    service.ports = vec![port];
}

/// Damages a Service by a text that is too long.
type Damage = fn(&mut Service, String);

#[test]
fn texts_that_no_api_server_takes_are_not_put_to_it() {
    let crowds: [(&str, Damage); 4] = [
        ("families", |service, _| service.ip_families = vec![IpFamily::IPv4; 3]),
        ("equal ports", |service, _| {
            with_port(service, |_| ());
            service.ports.push(service.ports[0].clone());
        }),
        ("bad ranges", |service, _| service.load_balancer_source_ranges = vec!["x".to_owned()]),
        ("many ranges", |service, _| service.load_balancer_source_ranges = vec!["192.0.2.0/24".to_owned(); 257]),
    ];
    let damages: [(&str, Damage); 10] = [
        ("annotation", |service, long| service.annotations = map(&[(&long, "")])),
        ("label", |service, long| service.labels = map(&[("app", &long)])),
        ("selector", |service, long| service.selector = map(&[(&long, "")])),
        ("distribution", |service, long| service.traffic_distribution = Some(long)),
        ("class", |service, long| service.load_balancer_class = Some(long)),
        ("range", |service, long| service.load_balancer_source_ranges = vec![long]),
        ("port", |service, long| with_port(service, |port| port.name = long)),
        ("target", |service, long| with_port(service, |port| port.target_port = TargetPort::Name(long))),
        ("protocol", |service, long| with_port(service, |port| port.app_protocol = Some(long))),
        ("endpoints", |service, long| {
            let port = EndpointPort { name: long, protocol: Protocol::TCP, port: NonZeroU16::MIN, app_protocol: None };
            service.endpoints = vec![Endpoints { family: IpFamily::IPv4, ports: vec![port], addresses: Vec::new() }];
        }),
    ];
    for (field, damage) in damages.into_iter().chain(crowds) {
        let mut service = Service::new(ServiceType::LoadBalancer);
        assert!(of(&service).is_ok());
        damage(&mut service, "x".repeat(60_000));
        assert_eq!(of(&service), Err(Reason::HostRefused), "{field}");
    }
}

#[test]
fn fields_of_another_type_are_left_out() {
    let mut service = Service::new(ServiceType::ClusterIP);
    service.external_traffic_policy = Some(TrafficPolicy::Local);
    service.load_balancer_class = Some("x".to_owned());
    service.load_balancer_source_ranges = vec!["192.0.2.0/24".to_owned()];
    service.health_check_node_port = NonZeroU16::new(30_000);
    let spec = of(&service).unwrap().spec;
    assert_eq!(spec.external_traffic_policy, None);
    assert_eq!(spec.load_balancer_class, None);
    assert_eq!(spec.load_balancer_source_ranges, None);
    assert_eq!(spec.health_check_node_port, None);
}

#[test]
fn an_alias_has_nothing_to_expose() {
    assert_eq!(of(&Service::new(ServiceType::ExternalName)), Err(Reason::ExternalNameNotExposed));
}
