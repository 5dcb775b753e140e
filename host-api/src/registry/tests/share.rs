//! What one tenant may use up, by example.

use super::*;
use crate::bounds::{Bounds, SAID, SNAPSHOTS_APART};
use crate::bucket::Rate;
use k3k_expose_proto::message::{AgentBeat, ByeReason};

fn headless(name: &str, padding: usize) -> Put {
    let mut service = Service::new(ServiceType::ClusterIP);
    service.cluster_ips = ClusterIps::Headless;
    // It does not cross, but is said.
    service.annotations.insert("example.com/pad".to_owned(), "x".repeat(padding));
    put_of(name, service)
}

/// A session with an empty snapshot, of a tenant with these bounds.
fn bound(bounds: Bounds) -> (Registry, SessionId) {
    let (mut registry, id) = synced(Vec::new(), OFF);
    registry.set_bounds(&uid("t"), bounds);
    told(&mut registry, id);
    (registry, id)
}

fn say(registry: &mut Registry, id: SessionId, put: Put) {
    registry.line(id, FromAgent::Put(put), NOW).unwrap();
}

/// The host takes whatever is created. Gives the number of creates.
fn work(registry: &mut Registry, revision: &mut u32) -> usize {
    let mut created = 0;
    while let Some((tenant, key)) = registry.take(9, NOW) {
        let mut next = registry.decide(&tenant, &key, Road::default(), NOW);
        if matches!(next, Task::Create(..)) {
            *revision += 1;
            created += 1;
            registry.service_answered(stored(&next, *revision), NOW);
            next = registry.decide(&tenant, &key, Road::default(), NOW);
        }
        assert_eq!(next, Task::Settled);
        registry.done(&tenant, &key, NOW);
    }
    created
}

#[test]
fn one_twin_too_many_is_refused_and_has_the_next_place_that_gets_free() {
    let (mut registry, id) = bound(Bounds { objects: 2, ..Bounds::default() });
    for name in ["a", "b", "c", "d"] {
        say(&mut registry, id, headless(name, 0));
    }
    let mut revision = 0;
    assert_eq!(work(&mut registry, &mut revision), 2);
    let reasons = reasons(&told(&mut registry, id));
    assert_eq!(reasons.iter().filter(|reason| **reason == Reason::TooManyObjects).count(), 2, "{reasons:?}");

    let at = HostName { namespace: "ns".to_owned(), name: crate::name::twin("a", "default", "mine") };
    registry.line(id, FromAgent::Delete(Delete { key: key("a"), uid: uid("a") }), NOW).unwrap();
    registry.service_gone(&at, Some("99"), NOW);
    assert_eq!(told(&mut registry, id), [FromHost::Want(Want::Keys(vec![key("c")]))], "one place, one object");
}

#[test]
fn an_object_that_declines_its_place_passes_it_on() {
    let (mut registry, id) = bound(Bounds { objects: 1, ..Bounds::default() });
    for name in ["a", "b", "c"] {
        say(&mut registry, id, headless(name, 0));
    }
    let mut revision = 0;
    assert_eq!(work(&mut registry, &mut revision), 1);
    told(&mut registry, id);
    registry.set_bounds(&uid("t"), Bounds { objects: 2, ..Bounds::default() });
    told(&mut registry, id);
    registry.set_bounds(&uid("t"), Bounds { objects: 1, ..Bounds::default() });
    for name in ["b", "c"] {
        say(&mut registry, id, headless(name, 0));
    }
    assert_eq!(work(&mut registry, &mut revision), 0);
    told(&mut registry, id);
    let at = HostName { namespace: "ns".to_owned(), name: crate::name::twin("a", "default", "mine") };
    registry.line(id, FromAgent::Delete(Delete { key: key("a"), uid: uid("a") }), NOW).unwrap();
    registry.service_gone(&at, Some("99"), NOW);
    assert_eq!(told(&mut registry, id), [FromHost::Want(Want::Keys(vec![key("b")]))]);
    let mut alias = headless("b", 0);
    alias.object = Object::Service(Box::new(Service::new(ServiceType::ExternalName)));
    alias.hash = alias.object.hash();
    say(&mut registry, id, alias);
    work(&mut registry, &mut revision);
    assert!(told(&mut registry, id).contains(&FromHost::Want(Want::Keys(vec![key("c")]))));
}

#[test]
fn twins_that_stand_are_not_refused_whoever_is_said_first() {
    let (mut registry, id) = bound(Bounds { objects: 2, ..Bounds::default() });
    for name in ["c", "d"] {
        say(&mut registry, id, headless(name, 0));
    }
    let mut revision = 0;
    assert_eq!(work(&mut registry, &mut revision), 2);
    registry.begin_anew(uid("next"));
    let (id, _) = registry.open(&tenant(), OFF, server(0), &hello(Tally::default()), NOW).unwrap();
    registry.set_bounds(&uid("t"), Bounds { objects: 2, ..Bounds::default() });
    for name in ["a", "b", "c", "d"] {
        say(&mut registry, id, headless(name, 0));
    }
    assert_eq!(work(&mut registry, &mut revision), 0);
    let mut reasons = reasons(&told(&mut registry, id));
    reasons.sort();
    assert_eq!(reasons, [Reason::Applied, Reason::Applied, Reason::TooManyObjects, Reason::TooManyObjects]);
}

#[test]
fn of_more_twins_than_a_policy_lets_stand_the_first_by_name_stay() {
    let (mut registry, id) = bound(Bounds::default());
    registry.cluster_seen(&uid("t"), ClusterState { revision: 1, ..cluster_of(&tenant()) });
    registry.policies_listed(&BTreeSet::new());
    registry.namespaces_listed(&BTreeSet::new());
    registry.clusters_listed(&[uid("t")].into(), NOW);
    let names = ["d", "c", "b", "a"];
    for name in names {
        say(&mut registry, id, headless(name, 0));
    }
    let mut revision = 0;
    assert_eq!(work(&mut registry, &mut revision), 4);
    told(&mut registry, id);
    let policy =
        |objects: i32| Some(serde_json::from_value(json!({"allow": {"limits": {"objects": objects}}})).unwrap());
    registry.policy_seen("p", policy(2));
    let mut gone = Vec::new();
    while let Some((tenant, taken)) = registry.take(9, NOW) {
        let Task::Delete { at, uid, .. } = registry.decide(&tenant, &taken, Road::default(), NOW) else {
            panic!("{taken}")
        };
        assert!(registry.deleted(&tenant, &taken, &uid));
        registry.done(&tenant, &taken, NOW);
        gone.push((taken, at));
    }
    gone.sort();
    assert_eq!(gone.iter().map(|(key, _)| key.name()).collect::<Vec<_>>(), ["c", "d"], "without a word of the agent");
    for (number, (_, at)) in gone.iter().enumerate() {
        registry.service_gone(at, Some(&(90 + number).to_string()), NOW);
    }
    told(&mut registry, id);
    revision = 100;
    for name in names {
        say(&mut registry, id, headless(name, 0));
    }
    assert_eq!(work(&mut registry, &mut revision), 0);
    let is_too_many = |registry: &Registry, name: &str| {
        registry.record(&uid("t"), &key(name)).unwrap().stands(Reason::TooManyObjects)
    };
    assert_eq!(["a", "b", "c", "d"].map(|name| is_too_many(&registry, name)), [false, false, true, true]);
    registry.policy_seen("p", policy(3));
    told(&mut registry, id);
    for name in ["c", "d"] {
        say(&mut registry, id, headless(name, 0));
    }
    assert_eq!(work(&mut registry, &mut revision), 1, "one more may");
    registry.policy_seen("p", policy(50_000));
    assert_eq!(registry.tenants[&uid("t")].bounds, Bounds::default(), "no policy gives more than there is");
}

#[test]
fn another_rate_holds_at_once() {
    let (mut registry, id) = bound(Bounds::default());
    registry.cluster_seen(&uid("t"), ClusterState { revision: 1, ..cluster_of(&tenant()) });
    let policy = |rate: i32| {
        let limits = json!({"writesPerSecond": rate, "writesAtOnce": rate});
        Some(serde_json::from_value(json!({"allow": {"limits": limits}})).unwrap())
    };
    registry.policy_seen("p", policy(1));
    for number in 0..9 {
        say(&mut registry, id, headless(&format!("web-{number}"), 0));
    }
    let mut revision = 0;
    assert_eq!(work(&mut registry, &mut revision), 2, "one and one on credit");
    assert!(!registry.has_waiting());
    registry.effects();
    registry.policy_seen("p", policy(50));
    assert!(registry.effects().work && registry.has_waiting());
    assert_eq!(work(&mut registry, &mut revision), 7);
}

#[test]
fn who_comes_back_goes_on_where_he_was_with_what_he_may_say() {
    let (mut registry, id) = bound(Bounds::default());
    assert_eq!(registry.said(id, 1_000, NOW), Duration::ZERO);
    let more = usize::try_from(SAID.burst + SAID.per_second).unwrap();
    assert!(registry.said(id, more, NOW) > Duration::from_secs(1));
    registry.close(id, NOW);
    let pod = ServerPod { uid: uid("pod-of-t"), ordinal: 0 };
    let hello = Hello { virtual_cluster: uid("another"), ..hello(Tally::default()) };
    let (id, _) = registry.open(&tenant(), OFF, pod, &hello, NOW).unwrap();
    assert!(registry.said(id, 1, NOW) > Duration::from_secs(1));
    assert_eq!(registry.said(id, 1, NOW + Duration::from_secs(9)), Duration::ZERO);
}

#[test]
fn one_record_too_many_ends_the_session_and_nothing_else() {
    let (mut registry, id) = bound(Bounds { records: 2, ..Bounds::default() });
    for name in ["a", "b", "a"] {
        say(&mut registry, id, headless(name, 0));
    }
    let bye = registry.line(id, FromAgent::Put(headless("c", 0)), NOW).unwrap_err();
    assert_eq!((bye.reason, bye.retry_after_s), (ByeReason::Exceeded, Some(60)));
    assert_eq!(registry.tenants[&uid("t")].len(), 2);
}

#[test]
fn what_there_is_no_room_for_is_asked_for_again_until_all_of_it_stands() {
    let (mut registry, id) = bound(Bounds { bytes: 3_000, ..Bounds::default() });
    let puts: Vec<Put> = (0..9).map(|number| headless(&format!("web-{number}"), 900)).collect();
    for put in &puts {
        say(&mut registry, id, put.clone());
        assert!(registry.tenants[&uid("t")].at_hand() <= 3_000);
    }
    let (mut revision, mut created, mut rounds) = (0, 0, 0);
    while created < puts.len() {
        created += work(&mut registry, &mut revision);
        for line in told(&mut registry, id) {
            let FromHost::Want(Want::Keys(keys)) = line else { continue };
            for key in keys {
                let put = puts.iter().find(|put| put.key == key).unwrap();
                say(&mut registry, id, put.clone());
                assert!(registry.tenants[&uid("t")].at_hand() <= 3_000);
            }
        }
        rounds += 1;
        assert!(rounds < 20, "{created} after {rounds} rounds");
    }
    assert_eq!(registry.tenants[&uid("t")].at_hand(), 0);
    assert!(registry.owing.is_empty() && registry.tenants[&uid("t")].owed.is_empty());
}

#[test]
fn whoever_has_used_up_its_writes_waits_and_others_do_not() {
    let (mut registry, id) = bound(Bounds { writes: Rate { burst: 2, per_second: 1 }, ..Bounds::default() });
    for number in 0..5 {
        say(&mut registry, id, headless(&format!("web-{number}"), 0));
    }
    let mut revision = 0;
    assert_eq!(work(&mut registry, &mut revision), 3, "the third is on credit");
    assert!(!registry.has_waiting());
    let other = Tenant::for_test("o", "ns", "other");
    let pod = ServerPod { uid: uid("pod-of-other"), ordinal: 0 };
    let (id, _) = registry.open(&other, OFF, pod, &hello(Tally::default()), NOW).unwrap();
    say(&mut registry, id, headless("web", 0));
    assert_eq!(work(&mut registry, &mut revision), 1);
    assert_eq!(registry.tick(NOW), Some(Duration::from_secs(1)), "then the first may go on");
    registry.tick(Duration::from_secs(1));
    assert!(registry.has_waiting() && work(&mut registry, &mut revision) >= 1);
}

#[test]
fn what_is_not_admitted_any_more_goes_though_its_tenant_has_used_up_its_writes() {
    let bounds = Bounds { writes: Rate { burst: 1, per_second: 1 }, ..Bounds::default() };
    let (mut registry, id) = bound(bounds);
    registry.set_default_bounds(bounds);
    registry.cluster_seen(&uid("t"), ClusterState { revision: 1, ..cluster_of(&tenant()) });
    registry.policies_listed(&BTreeSet::new());
    registry.namespaces_listed(&BTreeSet::new());
    registry.clusters_listed(&[uid("t")].into(), NOW);
    for name in ["a", "b", "c", "d"] {
        say(&mut registry, id, headless(name, 0));
    }
    assert_eq!(work(&mut registry, &mut 0), 2, "the second is on credit");
    assert!(!registry.has_waiting() && registry.take(9, NOW).is_none());
    registry.policy_seen("p", Some(serde_json::from_value(json!({"deny": {"serviceTypes": ["ClusterIP"]}})).unwrap()));
    for name in ["a", "b"] {
        let (tenant, taken) = registry.take(9, NOW).unwrap();
        assert_eq!(taken, key(name));
        assert!(matches!(registry.decide(&tenant, &taken, Road::default(), NOW), Task::Delete { .. }));
    }
    assert!(registry.take(9, NOW).is_none(), "what only waits goes on waiting");
}

#[test]
fn a_tenant_with_much_to_write_gives_way_while_another_is_at_work() {
    let writes = Rate { burst: 2_000, per_second: 1 };
    let (mut registry, id) = bound(Bounds { writes, ..Bounds::default() });
    for number in 0..60 {
        say(&mut registry, id, headless(&format!("web-{number}"), 0));
    }
    let take = |registry: &mut Registry, now| {
        let taken: Vec<_> = std::iter::from_fn(|| registry.take(24, now)).collect();
        for (tenant, key) in &taken {
            registry.decide(tenant, key, Road::default(), now);
        }
        taken
    };
    let after = |millis| NOW + Duration::from_millis(millis);
    assert_eq!(take(&mut registry, NOW).len(), 24, "nobody else is there");
    let other = Tenant::for_test("o", "ns", "other");
    let pod = ServerPod { uid: uid("pod-of-other"), ordinal: 0 };
    let (next, _) = registry.open(&other, OFF, pod, &hello(Tally::default()), NOW).unwrap();
    for name in ["a", "b", "c"] {
        say(&mut registry, next, headless(name, 0));
    }
    assert_eq!(take(&mut registry, NOW).len(), 3, "whoever had little gives way to nobody");
    for number in 0..23 {
        registry.done(&uid("t"), &key(&format!("web-{number}")), after(4));
    }
    registry.tick(after(7));
    assert_eq!(take(&mut registry, after(7)), [], "it rests for as long as its calls were");
    assert_eq!(registry.tick(after(8)), None);
    let [(_, one)] = take(&mut registry, after(8)).try_into().expect("one at a time");
    registry.tick(after(257));
    assert_eq!(take(&mut registry, after(257)), []);
    registry.tick(after(258));
    let [(_, next)] = take(&mut registry, after(258)).try_into().expect("one that hangs holds up no other");
    registry.done(&uid("t"), &next, after(259));
    registry.tick(after(260));
    assert_eq!(take(&mut registry, after(260)).len(), 1);
    registry.done(&uid("t"), &one, after(9_000));
    registry.tick(after(9_000));
    assert_eq!(take(&mut registry, after(9_000)).len(), 22, "the other has ended its work");
}

#[test]
fn everything_is_asked_for_again_only_so_often() {
    let (mut registry, id) = bound(Bounds::default());
    let wrong = AgentBeat { count: 7, root: Tally::default().root, ready: true };
    let asked = |registry: &mut Registry, now| {
        registry.line(id, FromAgent::Beat(wrong.clone()), now).unwrap();
        told(registry, id).contains(&FromHost::Want(Want::All))
    };
    assert!(asked(&mut registry, NOW));
    let end = |registry: &mut Registry| {
        let Tally { count, root } = Tally::default();
        registry.line(id, FromAgent::End(End { count, root }), NOW).unwrap();
    };
    end(&mut registry);
    assert!(!asked(&mut registry, NOW + SNAPSHOTS_APART / 2));
    assert!(asked(&mut registry, NOW + SNAPSHOTS_APART));
}

#[test]
fn a_tenant_has_so_many_sessions_and_can_renew_each() {
    let (mut registry, _) = bound(Bounds { sessions: 2, ..Bounds::default() });
    let mut open = |ordinal| registry.open(&tenant(), OFF, server(ordinal), &hello(Tally::default()), NOW).err();
    assert_eq!([open(1), open(2), open(1), open(0)], [None, Some(NotOpened::TooManySessions), None, None]);
}

#[test]
fn nothing_is_begun_for_a_tenant_without_a_session_and_the_next_one_is_asked_for_it() {
    let (mut registry, id) = bound(Bounds::default());
    for name in ["a", "b"] {
        say(&mut registry, id, headless(name, 10));
    }
    registry.close(id, NOW);
    assert_eq!(work(&mut registry, &mut 0), 0);
    let census = registry.census();
    assert_eq!(census.queued, 0);
    let puts = [headless("a", 10), headless("b", 10)];
    let mut tally = Tally::default();
    puts.iter().for_each(|put| tally.add(&put.key, &put.uid, put.hash));
    let (id, welcome) = registry.open(&tenant(), OFF, server(0), &hello(tally), NOW).unwrap();
    assert_eq!(welcome.resume, Resume::Nothing);
    assert_eq!(told(&mut registry, id), [FromHost::Want(Want::Keys(vec![key("a"), key("b")]))]);
    puts.into_iter().for_each(|put| say(&mut registry, id, put));
    assert_eq!(work(&mut registry, &mut 0), 2);
}
