//! Numbers that the host cannot give: what the twin gets instead, what the tenant is told, and when it is over.

use k3k_expose_proto::message::{Answer, Numbers};

use super::*;
use crate::refusal::Number;

const WISH: u16 = 30_080;
const DRAWN: u16 = 31_000;

/// A put whose node port somebody asked for.
pub(super) fn pinned(name: &str, node_port: u16) -> Put {
    changed(put(name, node_port), |service| service.ports[0].node_port_pinned = true)
}

fn changed(put: Put, change: impl FnOnce(&mut Service)) -> Put {
    let Object::Service(mut service) = put.object else { panic!() };
    change(&mut service);
    Put { hash: Hash::of(&service), object: Object::Service(service), ..put }
}

/// What the host makes of a create or patch that leaves node port and cluster IP to it.
pub(super) fn given(task: &Task, revision: u32, node_port: u16) -> k8s_openapi::api::core::v1::Service {
    let mut service = stored(task, revision);
    fill(&mut service, node_port);
    service
}

fn fill(service: &mut k8s_openapi::api::core::v1::Service, node_port: u16) {
    let spec = service.spec.as_mut().unwrap();
    spec.ports.as_mut().unwrap()[0].node_port.get_or_insert(node_port.into());
    let ip = spec.cluster_ip.get_or_insert("10.43.0.77".to_owned()).clone();
    spec.cluster_ips.get_or_insert(vec![ip]);
}

fn asked(task: &Task) -> Held {
    task.asked()
}

fn answers(registry: &mut Registry, id: SessionId) -> Vec<Answer> {
    let answer = |line| if let FromHost::Answer(answer) = line { Some(*answer) } else { None };
    told(registry, id).into_iter().filter_map(answer).collect()
}

fn last(registry: &mut Registry, id: SessionId) -> Answer {
    answers(registry, id).pop().unwrap()
}

fn say(registry: &mut Registry, id: SessionId, put: Put) -> Task {
    registry.line(id, FromAgent::Put(put), NOW).unwrap();
    task(registry).unwrap()
}

fn node_port(numbers: Option<&Numbers>) -> u16 {
    numbers.unwrap().node_ports[0].node_port.get()
}

fn holder() -> HostName {
    HostName { namespace: "elsewhere".to_owned(), name: "other".to_owned() }
}

/// A registry where somebody holds the wished node port, and the twin that was made for the put all the same.
fn with_twin(put: &Put) -> (Registry, SessionId, k8s_openapi::api::core::v1::Service) {
    let (mut registry, id) = synced(vec![], OFF);
    registry.service_seen(foreign(WISH, 5), NOW);
    let create = say(&mut registry, id, put.clone());
    assert_eq!(asked(&create).node_ports, Vec::<u16>::new(), "no write that could only fail");
    let twin = given(&create, 6, DRAWN);
    registry.service_answered(twin.clone(), NOW);
    assert_eq!(look_again(&mut registry, put.key.name()), Task::Settled);
    (registry, id, twin)
}

#[test]
fn a_drawn_number_that_is_held_is_replaced_and_the_tenant_follows() {
    let (mut registry, id, _) = with_twin(&put("web", WISH));
    let answer = last(&mut registry, id);
    assert_eq!((answer.reason, node_port(answer.numbers.as_ref())), (Reason::Applied, DRAWN));
    // On its way to the new number the object may still be said with the old one, even when that is free by now.
    registry.service_gone(&holder(), Some("7"), NOW);
    assert_eq!(told(&mut registry, id), []);
    let labeled = changed(put("web", WISH), |service| service.traffic_distribution = Some("PreferClose".to_owned()));
    let patch = say(&mut registry, id, Put { seen: answer.version, ..labeled });
    assert_eq!(asked(&patch).node_ports, [DRAWN]);
    // Said with the twin's own number it is as it should be, and what is wished later counts anew.
    let agreed = put("web", DRAWN);
    assert_eq!(say(&mut registry, id, agreed), Task::Settled);
    assert_eq!(last(&mut registry, id).reason, Reason::Applied);
    assert_eq!(asked(&say(&mut registry, id, put("web", WISH))).node_ports, [WISH]);
}

#[test]
fn a_pinned_number_that_is_held_is_told_and_taken_when_it_is_free() {
    let (mut registry, id, twin) = with_twin(&pinned("web", WISH));
    let answer = last(&mut registry, id);
    assert_eq!((answer.reason, node_port(answer.numbers.as_ref())), (Reason::NodePortTaken, DRAWN));
    assert_eq!(answer.message, format!("node port {WISH} is held on the host"));
    assert!(registry.retries.is_empty(), "its release is an event");

    let mut balanced = twin.clone();
    balanced.metadata.resource_version = Some("8".to_owned());
    balanced.status = serde_json::from_value(json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}})).unwrap();
    registry.service_seen(balanced, NOW);
    let again = last(&mut registry, id);
    assert_eq!((again.reason, again.load_balancer.len()), (Reason::NodePortTaken, 1), "its status is told too");

    registry.service_gone(&holder(), Some("9"), NOW);
    assert_eq!(told(&mut registry, id), [FromHost::Want(Want::Keys(vec![key("web")]))]);
    let labeled = changed(pinned("web", WISH), |service| service.traffic_distribution = Some("PreferClose".to_owned()));
    let older = say(&mut registry, id, Put { seen: answer.version - 1, ..labeled });
    assert_eq!(asked(&older).node_ports, [DRAWN], "it was read before the answer");
    let patch = say(&mut registry, id, Put { seen: answer.version, ..pinned("web", WISH) });
    assert_eq!(asked(&patch).node_ports, [WISH]);
}

#[test]
fn a_refused_twin_that_is_edited_by_hand_is_put_right_until_it_is_contested() {
    let (mut registry, id, twin) = with_twin(&pinned("web", WISH));
    let seen = last(&mut registry, id).version;
    let mut given = Vec::new();
    for revision in [10, 20, 30] {
        let mut damaged = twin.clone();
        damaged.spec.as_mut().unwrap().external_ips = Some(vec!["192.0.2.1".to_owned()]);
        damaged.metadata.resource_version = Some(revision.to_string());
        registry.service_seen(damaged, NOW);
        let lines = told(&mut registry, id);
        given.extend(reasons(&lines));
        if lines.contains(&FromHost::Want(Want::Keys(vec![key("web")]))) {
            let patch = say(&mut registry, id, Put { seen, ..pinned("web", WISH) });
            assert!(matches!(patch, Task::Patch(..)), "{patch:?}");
            let mut repaired = twin.clone();
            repaired.metadata.resource_version = Some((revision + 1).to_string());
            registry.service_answered(repaired, NOW);
            look_again(&mut registry, "web");
            given.extend(reasons(&told(&mut registry, id)));
        }
    }
    assert_eq!(given, [Reason::NodePortTaken, Reason::NodePortTaken, Reason::Contested]);
}

#[test]
fn a_number_of_a_sibling_is_waited_for_and_one_that_the_host_gave_is_not() {
    let (mut registry, id, _) = with_twin(&put("a", WISH));
    told(&mut registry, id);
    // The virtual cluster still has WISH for `a` and may draw DRAWN for another.
    let other = |node_port| changed(put("b", node_port), |service| service.cluster_ips = ClusterIps::default());
    let create = say(&mut registry, id, other(DRAWN));
    assert_eq!(asked(&create).node_ports, Vec::<u16>::new());
    registry.service_answered(given(&create, 9, 31_001), NOW);
    look_again(&mut registry, "b");
    assert_eq!(reasons(&told(&mut registry, id)), [Reason::Applied]);

    assert_eq!(say(&mut registry, id, put("a", DRAWN)), Task::Settled);
    told(&mut registry, id);
    let third = changed(put("c", DRAWN), |service| service.cluster_ips = ClusterIps::default());
    assert_eq!(say(&mut registry, id, third), Task::Settled);
    assert_eq!(last(&mut registry, id).reason, Reason::WaitingForNumber);
    // It moves away, and cannot: then the number is not about to be freed after all.
    registry.service_seen(foreign(WISH, 11), NOW);
    assert_eq!(say(&mut registry, id, pinned("a", WISH)), Task::Settled);
    assert_eq!(
        told(&mut registry, id).first(),
        Some(&FromHost::Want(Want::Keys(vec![key("c")]))),
        "whoever waits for it is judged anew"
    );
}

#[test]
fn two_twins_that_swap_their_numbers_wait_for_each_other_and_one_lets_go() {
    let (mut registry, id) = synced(vec![], OFF);
    for (name, node_port, revision) in [("a", 30_001, 1), ("b", 30_002, 2)] {
        let other = changed(put(name, node_port), |service| service.cluster_ips = ClusterIps::default());
        let create = say(&mut registry, id, other);
        let mut service = stored(&create, revision);
        service.metadata.uid = Some(name.to_owned());
        registry.service_answered(service, NOW);
        look_again(&mut registry, name);
    }
    told(&mut registry, id);
    let swapped =
        |name, node_port| changed(put(name, node_port), |service| service.cluster_ips = ClusterIps::default());
    assert_eq!(say(&mut registry, id, swapped("a", 30_002)), Task::Settled);
    assert_eq!(reasons(&told(&mut registry, id)), [Reason::WaitingForNumber]);
    let patch = say(&mut registry, id, swapped("b", 30_001));
    assert_eq!(asked(&patch).node_ports, Vec::<u16>::new(), "it lets go: {patch:?}");
}

#[test]
fn a_refusal_without_a_known_holder_leads_to_another_number_only_after_several() {
    let (mut registry, id) = synced(vec![], OFF);
    let mut now = NOW;
    for round in 1..=5 {
        let create = say(&mut registry, id, put("web", WISH));
        assert_eq!(asked(&create).node_ports, [WISH], "round {round}");
        let refusal = Refusal::Held(Number::NodePort(Some(WISH)));
        registry.refused(&uid("t"), &key("web"), refusal, &asked(&create), now);
        let expected: &[Reason] = if round < 5 { &[Reason::HostUnavailable] } else { &[] };
        assert_eq!(reasons(&told(&mut registry, id)), expected, "round {round}");
        now += Duration::from_secs(60);
        registry.tick(now);
        told(&mut registry, id);
    }
    let create = task(&mut registry).unwrap();
    assert_eq!(asked(&create).node_ports, Vec::<u16>::new(), "{create:?}");
}

#[test]
fn a_holder_that_is_found_after_the_refusal_counts_at_once() {
    let (mut registry, id) = synced(vec![], OFF);
    let create = say(&mut registry, id, put("web", WISH));
    registry.service_read(foreign(WISH, 5), NOW);
    registry.refused(&uid("t"), &key("web"), Refusal::Held(Number::NodePort(None)), &asked(&create), NOW);
    assert_eq!(reasons(&told(&mut registry, id)), []);
    let create = task(&mut registry).unwrap();
    assert_eq!(asked(&create).node_ports, Vec::<u16>::new());
}

#[test]
fn a_number_out_of_range_is_told_only_to_who_asked_for_it() {
    for (put, reason) in [(put("web", WISH), Reason::Applied), (pinned("web", WISH), Reason::NodePortOutOfRange)] {
        let (mut registry, id) = synced(vec![], OFF);
        let create = say(&mut registry, id, put);
        let refusal = Refusal::OutOfRange(Number::NodePort(Some(WISH)));
        registry.refused(&uid("t"), &key("web"), refusal, &asked(&create), NOW);
        let create = task(&mut registry).unwrap();
        registry.service_answered(given(&create, 6, DRAWN), NOW);
        look_again(&mut registry, "web");
        let answer = last(&mut registry, id);
        assert_eq!((answer.reason, node_port(answer.numbers.as_ref())), (reason, DRAWN));
        assert_eq!(registry.retries.len(), usize::from(reason != Reason::Applied));
    }
}

#[test]
fn a_twin_lets_go_of_what_the_virtual_cluster_cannot_give() {
    let (mut registry, id) = synced(vec![], OFF);
    let wish = "10.43.0.9".parse().unwrap();
    registry.address_seen(wish);
    let create = say(&mut registry, id, put("web", WISH));
    assert!(asked(&create).cluster_ips.is_empty());
    let mut twin = given(&create, 6, DRAWN);
    registry.service_answered(twin.clone(), NOW);
    look_again(&mut registry, "web");
    assert_eq!(last(&mut registry, id).reason, Reason::Applied);
    for round in 0..4_u32 {
        let own = format!("10.43.1.{round}");
        let spec = twin.spec.as_mut().unwrap();
        (spec.cluster_ip, spec.cluster_ips) = (Some(own.clone()), Some(vec![own.clone()]));
        twin.metadata.resource_version = Some((10 + round).to_string());
        registry.service_answered(twin.clone(), NOW);
        told(&mut registry, id);
        let unusable = Unusable { cluster_ips: vec![own.parse().unwrap()], node_ports: Vec::new() };
        let next = say(&mut registry, id, Put { unusable, ..put("web", WISH) });
        if round < 3 {
            let Task::Patch(_, patch) = &next else { panic!("{next:?}") };
            assert_eq!(patch["spec"]["type"], "ExternalName");
        } else {
            assert_eq!(next, Task::Settled);
        }
    }
    let answer = last(&mut registry, id);
    assert_eq!(answer.reason, Reason::ClusterIPTaken);
    assert_eq!(answer.message, "cluster IP 10.43.0.9 is held on the host");
    registry.address_gone(wish);
    assert_eq!(told(&mut registry, id), [FromHost::Want(Want::Keys(vec![key("web")]))]);
}

#[test]
fn where_conflicts_are_reported_there_is_no_twin_until_the_address_is_free() {
    let (registry, id) = synced(vec![], OFF);
    let mut registry = registry.with_conflict(Conflict::Report);
    let wish = "10.43.0.9".parse().unwrap();
    registry.address_seen(wish);
    assert_eq!(say(&mut registry, id, put("web", WISH)), Task::Settled);
    let answer = last(&mut registry, id);
    assert_eq!((answer.reason, answer.numbers), (Reason::ClusterIPTaken, None));
    registry.address_gone(wish);
    assert_eq!(told(&mut registry, id), [FromHost::Want(Want::Keys(vec![key("web")]))]);
    assert!(matches!(say(&mut registry, id, put("web", WISH)), Task::Create(..)));
}

#[test]
fn an_address_outside_the_hosts_ranges_is_not_even_tried() {
    let (mut registry, id) = synced(vec![], OFF);
    registry.range_seen("kubernetes", Some(&["10.96.0.0/16".to_owned()]));
    let asked_for = changed(put("web", WISH), |service| service.cluster_ip_pinned = true);
    let create = say(&mut registry, id, asked_for.clone());
    assert!(asked(&create).cluster_ips.is_empty());
    registry.service_answered(given(&create, 6, DRAWN), NOW);
    look_again(&mut registry, "web");
    let answer = last(&mut registry, id);
    assert_eq!(answer.reason, Reason::ClusterIPOutOfRange);
    registry.range_seen("more", Some(&["10.43.0.0/16".to_owned()]));
    assert_eq!(told(&mut registry, id), [FromHost::Want(Want::Keys(vec![key("web")]))]);
    let patch = say(&mut registry, id, Put { seen: answer.version, ..asked_for });
    assert!(matches!(patch, Task::Patch(..)), "{patch:?}");
}
