//! Which server pod speaks for a tenant, by example.

use k3k_expose_proto::message::{AgentBeat, ByeReason, Role, Welcome};

use super::*;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn open(registry: &mut Registry, ordinal: u32, now: Duration) -> (SessionId, Role) {
    let (id, welcome) = registry.open(&tenant(), OFF, server(ordinal), &hello(Tally::default()), now).unwrap();
    (id, welcome.role)
}

fn beat(registry: &mut Registry, id: SessionId, ready: bool, now: Duration) {
    let Tally { count, root } = Tally::default();
    registry.line(id, FromAgent::Beat(AgentBeat { count, root, ready }), now).unwrap();
}

fn lines(registry: &mut Registry, id: SessionId) -> Vec<FromHost> {
    std::iter::from_fn(|| registry.next_line(id)).collect()
}

fn was_promoted(registry: &mut Registry, id: SessionId) -> bool {
    let active = |line: &FromHost| {
        matches!(line, FromHost::Welcome(Welcome { role: Role::Active, resume: Resume::Snapshot, .. }))
    };
    lines(registry, id).iter().any(active)
}

fn was_sent_back(registry: &mut Registry, id: SessionId) -> bool {
    lines(registry, id).iter().any(|line| matches!(line, FromHost::Bye(bye) if bye.reason == ByeReason::Role))
}

#[test]
fn the_first_one_speaks_and_the_next_stand_by() {
    let mut registry = Registry::new(uid("epoch"), 0);
    assert_eq!(open(&mut registry, 1, at(0)).1, Role::Active);
    assert_eq!(open(&mut registry, 2, at(0)).1, Role::Standby);
    let (lowest, role) = open(&mut registry, 0, at(1));
    assert_eq!(role, Role::Standby, "a change so soon would be one too many");
    beat(&mut registry, lowest, true, at(9));
    assert!(!was_promoted(&mut registry, lowest));
}

#[test]
fn the_lowest_ordinal_speaks_in_the_end_and_the_former_comes_back_as_a_standby() {
    let mut registry = Registry::new(uid("epoch"), 0);
    let (former, _) = open(&mut registry, 1, at(0));
    let (lowest, _) = open(&mut registry, 0, at(1));
    beat(&mut registry, lowest, true, at(10));
    assert!(was_promoted(&mut registry, lowest) && was_sent_back(&mut registry, former));
    registry.close(former, at(10));
    assert_eq!(open(&mut registry, 1, at(10)).1, Role::Standby);
}

#[test]
fn when_the_one_that_speaks_goes_or_is_unready_the_next_speaks_at_once() {
    let mut registry = Registry::new(uid("epoch"), 0);
    let (first, _) = open(&mut registry, 0, at(0));
    let (second, _) = open(&mut registry, 1, at(0));
    let (third, _) = open(&mut registry, 2, at(0));
    beat(&mut registry, first, false, at(1));
    assert!(was_promoted(&mut registry, second) && was_sent_back(&mut registry, first));
    registry.close(second, at(2));
    assert!(was_promoted(&mut registry, third));
}

#[test]
fn an_unready_one_speaks_when_there_is_no_other() {
    let mut registry = Registry::new(uid("epoch"), 0);
    let (only, _) = open(&mut registry, 0, at(0));
    beat(&mut registry, only, false, at(1));
    assert!(!was_sent_back(&mut registry, only));
    registry.close(only, at(2));
    assert_eq!(open(&mut registry, 0, at(2)).1, Role::Active);
}

#[test]
fn a_renewed_session_of_the_pod_that_speaks_speaks_on() {
    let mut registry = Registry::new(uid("epoch"), 0);
    let (older, _) = open(&mut registry, 0, at(0));
    open(&mut registry, 1, at(0));
    assert_eq!(open(&mut registry, 0, at(1)).1, Role::Active);
    registry.close(older, at(1));
    assert_eq!(open(&mut registry, 1, at(2)).1, Role::Standby);
}

#[test]
fn what_a_standby_says_about_objects_does_not_count() {
    let mut registry = Registry::new(uid("epoch"), 0);
    open(&mut registry, 0, at(0));
    let (standby, _) = open(&mut registry, 1, at(0));
    registry.line(standby, FromAgent::Put(put("web", 30_080)), at(0)).unwrap();
    assert_eq!(registry.census().objects.values().sum::<usize>(), 0);
}
