//! Whose wish counts, row by row.

use std::time::Duration;

use k3k_expose_proto::message::NodePort;
use k3k_expose_proto::service::{Port, ServiceType, TargetPort};
use k8s_openapi::api::core::v1::ServicePort;

use super::*;

const X: u16 = 30_001;
const Y: u16 = 30_002;

fn number(port: u16) -> NonZeroU16 {
    port.try_into().unwrap()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn asked(port: u16, protocol: Protocol, node_port: u16, pinned: bool) -> Port {
    Port {
        name: String::new(),
        protocol,
        port: number(port),
        target_port: TargetPort::Number(number(port)),
        app_protocol: None,
        node_port: NonZeroU16::new(node_port),
        node_port_pinned: pinned,
    }
}

fn object(addresses: &[&str], ports: Vec<Port>) -> Service {
    Service { cluster_ips: ClusterIps::Addresses(ips(addresses)), ports, ..Service::new(ServiceType::NodePort) }
}

fn spec(object: &Service) -> ServiceSpec {
    let ClusterIps::Addresses(addresses) = &object.cluster_ips else { panic!() };
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let ports = object.ports.iter().map(|port| ServicePort {
        port: port.port.get().into(),
        node_port: port.node_port.map(|port| port.get().into()),
        ..ServicePort::default()
    });
    ServiceSpec {
        cluster_ip: texts.first().cloned(),
        cluster_ips: Some(texts).filter(|texts| !texts.is_empty()),
        ports: Some(ports.collect()),
        health_check_node_port: object.health_check_node_port.map(|port| port.get().into()),
        ..ServiceSpec::default()
    }
}

fn own(addresses: &[&str], ports: &[(u16, Protocol, u16)]) -> Numbers {
    let port = |&(port, protocol, node_port): &(u16, Protocol, u16)| NodePort {
        port: number(port),
        protocol,
        node_port: number(node_port),
    };
    Numbers { cluster_ips: ips(addresses), node_ports: ports.iter().map(port).collect(), health_check_node_port: None }
}

fn stance(own: &Numbers) -> Stance<'_> {
    Stance {
        own,
        given: None,
        seen: 0,
        conflict: Conflict::Renumber,
        stuck_cluster_ips: false,
        stuck_node_ports: false,
    }
}

fn all(hold: Hold) -> impl Fn(&Blocker) -> Hold {
    move |_| hold
}

fn port_of(spec: &ServiceSpec) -> Option<i32> {
    spec.ports.as_ref().unwrap()[0].node_port
}

/// What a twin with node port Y (or none) gets for wish X, and whether the tenant is told.
#[test]
fn the_wish_for_a_node_port_counts_by_who_holds_it_and_what_was_told() {
    use Hold::{Free, Sibling, Taken};
    // pinned, twin has Y, given, seen, hold -> (wish stays, told, waits)
    let table = [
        ((false, false, None, 0, Free), (true, false, false)),
        ((false, true, None, 0, Free), (true, false, false)),
        ((false, true, None, 0, Taken), (false, false, false)),
        ((false, false, None, 0, Taken), (false, false, false)),
        ((true, false, None, 0, Taken), (false, true, false)),
        ((true, true, None, 0, Taken), (false, true, false)),
        ((true, true, None, 0, Hold::OutOfRange), (false, true, false)),
        ((false, true, None, 0, Hold::OutOfRange), (false, false, false)),
        ((false, true, None, 0, Sibling), (true, false, true)),
        ((true, false, None, 0, Sibling), (true, false, true)),
        // The agent was told Y in answer 7 and is bringing a drawn number to it, whatever became free since.
        ((false, true, Some(7), 9, Free), (false, false, false)),
        ((false, true, Some(7), 9, Sibling), (false, false, false)),
        // A pinned one counts again once the tenant has seen that answer.
        ((true, true, Some(7), 6, Free), (false, false, false)),
        ((true, true, Some(7), 7, Free), (true, false, false)),
        ((true, true, Some(7), 7, Taken), (false, true, false)),
        ((true, true, Some(7), 6, Taken), (false, true, false)),
        // Without a number of its own there is nothing to be brought to.
        ((false, false, Some(7), 9, Free), (true, false, false)),
    ];
    for ((pinned, has, given, seen, hold), (stays, told, waits)) in table {
        let object = object(&[], vec![asked(80, Protocol::TCP, X, pinned)]);
        let own = own(&[], if has { &[(80, Protocol::TCP, Y)] } else { &[] });
        let mut spec = spec(&object);
        let resolved = resolve(&mut spec, &object, &Stance { given, seen, ..stance(&own) }, all(hold));
        let row = (pinned, has, given, seen, hold);
        assert_eq!(port_of(&spec).is_some(), stays, "{row:?}");
        assert_eq!(resolved.unmet.iter().any(|unmet| unmet.told), told, "{row:?}");
        assert_eq!(!resolved.wait.is_empty(), waits, "{row:?}");
        assert_eq!(resolved.unmet.is_empty(), stays, "{row:?}");
    }
}

#[test]
fn what_the_twin_has_already_is_nobody_elses_business() {
    let object = object(&["10.43.0.9"], vec![asked(80, Protocol::TCP, X, true)]);
    let own = own(&["10.43.0.9"], &[(80, Protocol::TCP, X)]);
    let mut resolved = spec(&object);
    assert_eq!(resolve(&mut resolved, &object, &stance(&own), all(Hold::Taken)), Resolved::default());
    assert_eq!(resolved, spec(&object));
}

#[test]
fn a_node_port_belongs_to_its_port_and_protocol_not_to_its_place() {
    let ports = vec![asked(53, Protocol::UDP, X, false), asked(53, Protocol::TCP, Y, false)];
    let object = object(&[], ports);
    let own = own(&[], &[(53, Protocol::TCP, Y), (53, Protocol::UDP, X)]);
    let mut resolved = spec(&object);
    assert_eq!(resolve(&mut resolved, &object, &stance(&own), all(Hold::Taken)), Resolved::default());
}

#[test]
fn cluster_ips_are_one_wish() {
    let object = object(&["10.43.0.9", "fd00::9"], Vec::new());
    let held = |number: &Blocker| {
        if matches!(number, Blocker::ClusterIp(ip) if ip.is_ipv6()) { Hold::Taken } else { Hold::Free }
    };
    for own in [own(&[], &[]), own(&["10.43.0.9"], &[]), own(&["10.43.0.8", "fd00::8"], &[])] {
        let mut spec = spec(&object);
        spec.ip_family_policy = Some("RequireDualStack".to_owned());
        let resolved = resolve(&mut spec, &object, &stance(&own), held);
        assert_eq!((spec.cluster_ip, spec.cluster_ips), (None, None));
        assert_eq!(resolved.unmet[0].wishes.len(), 2);
        assert!(!resolved.unmet[0].told);
        assert_eq!(spec.ip_family_policy.as_deref(), Some("RequireDualStack"));
    }
    // A preferred second address is the host's to give.
    let mut spec = spec(&object);
    spec.ip_family_policy = Some("PreferDualStack".to_owned());
    let resolved = resolve(&mut spec, &object, &stance(&own(&["10.43.0.9"], &[])), held);
    assert_eq!(resolved, Resolved::default());
}

#[test]
fn where_conflicts_are_reported_no_address_but_the_wished_one_is_taken() {
    let object = object(&["10.43.0.9"], Vec::new());
    let none = own(&[], &[]);
    let report = |own| Stance { conflict: Conflict::Report, ..stance(own) };
    let by = |stance: &Stance<'_>, hold| resolve(&mut spec(&object), &object, stance, all(hold));
    let refused = by(&report(&none), Hold::Taken);
    assert!(refused.no_twin && refused.unmet[0].told);
    let kept = own(&["10.43.0.8"], &[]);
    let kept = by(&report(&kept), Hold::Taken);
    assert!(!kept.no_twin && kept.unmet[0].told, "a twin that stands keeps its own");
    assert_eq!(by(&report(&none), Hold::Sibling).wait.len(), 1);
    assert_eq!(by(&report(&none), Hold::Free), Resolved::default());
    let told = own(&["10.43.0.8"], &[]);
    let freed = by(&Stance { given: Some(3), ..report(&told) }, Hold::Free);
    assert_eq!(freed, Resolved::default(), "nobody was told to move");
    assert!(!by(&stance(&none), Hold::Taken).no_twin);
}

#[test]
fn a_drawn_number_is_told_when_the_virtual_cluster_cannot_give_the_twins() {
    let object = object(&["10.43.0.9"], vec![asked(80, Protocol::TCP, X, false)]);
    let own = own(&["10.43.0.8"], &[(80, Protocol::TCP, Y)]);
    let stuck = Stance { given: Some(3), stuck_cluster_ips: true, stuck_node_ports: true, ..stance(&own) };
    let resolved = resolve(&mut spec(&object), &object, &stuck, all(Hold::Taken));
    assert!(resolved.unmet.len() == 2 && resolved.unmet.iter().all(|unmet| unmet.told));
    let mut freed = spec(&object);
    assert_eq!(resolve(&mut freed, &object, &stuck, all(Hold::Free)), Resolved::default());
    assert_eq!(freed, spec(&object), "it comes to the wish, since the wish cannot come to it");
}

#[test]
fn numbers_that_nobody_wished_are_known_from_the_answer() {
    let object = object(&["10.43.0.9"], vec![asked(80, Protocol::TCP, X, false)]);
    let same = own(&["10.43.0.9"], &[(80, Protocol::TCP, X)]);
    assert_eq!(compare(&object, &same), (false, Vec::new()));
    let other = own(&["10.43.0.9"], &[(80, Protocol::TCP, Y)]);
    assert_eq!(compare(&object, &other), (true, vec![Blocker::NodePort(Y)]));
    assert_eq!(compare(&object, &Numbers::default()), (false, Vec::new()));
}

#[test]
fn a_twin_lets_go_of_what_the_virtual_cluster_cannot_give_three_times() {
    let mut history = History::default();
    let own = |last: u8| vec![Blocker::ClusterIp(format!("10.43.0.{last}").parse().unwrap())];
    let unusable: Vec<Blocker> = (1..9).flat_map(own).collect();
    assert_eq!(history.misfits(&own(99), &unusable), None);
    for last in 1..=3 {
        assert_eq!(history.misfits(&own(last), &unusable), Some(own(last)));
        history.let_go(own(last));
        assert_eq!(history.misfits(&own(last), &unusable), Some(own(last)), "the patch lost a race");
    }
    assert_eq!(history.misfits(&own(4), &unusable), Some(Vec::new()));
    let port = [Blocker::NodePort(Y)];
    assert_eq!(history.misfits(&port, &port), Some(port.to_vec()), "node ports have rounds of their own");
}

#[test]
fn a_refusal_without_a_holder_is_believed_after_several_in_a_row() {
    let mut history = History::default();
    let believed: Vec<bool> = (0..5).map(|_| history.held_by_nobody()).collect();
    assert_eq!(believed, [false, false, false, false, true]);
    history.other_answer();
    assert!(!history.held_by_nobody());
    let port = Blocker::NodePort(X);
    history.refuse([port.clone()], Why::Held, Duration::from_secs(10));
    assert_eq!(history.refused(&port, false, Duration::from_secs(9)), Some(Why::Held));
    assert_eq!(history.refused(&port, false, Duration::from_secs(10)), None);
    assert_eq!(history.refused(&port, true, Duration::from_secs(10)), Some(Why::Held));
}
