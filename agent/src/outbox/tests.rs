//! The outbox by example: one situation a test.

use k3k_expose_proto::message::{Answer, Object, Resume, Role, Want, Welcome};
use k3k_expose_proto::message::{Limits, Seen};
use k3k_expose_proto::service::ServiceType;
use k3k_expose_proto::{FromAgent, Resource, Service};

use super::*;
use crate::project::Projected;

mod ingress;

pub(super) fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}

pub(super) fn key(name: &str) -> Key {
    Key::service("default", name).unwrap()
}

pub(super) fn wanted(name: &str, object: &str, content: &str) -> Change {
    let mut service = Service::new(ServiceType::ClusterIP);
    service.labels.insert("content".to_owned(), content.to_owned());
    Change::of(Projected::Wanted { key: key(name), uid: uid(object), object: Object::Service(Box::new(service)) })
        .unwrap()
}

pub(super) fn welcome(epoch: &str, resume: Resume, in_flight: u32) -> Welcome {
    Welcome {
        version: 1,
        session: uid("s"),
        epoch: uid(epoch),
        role: Role::Active,
        limits: Limits { in_flight, annotations: Vec::new() },
        resume,
        ends_in_s: 3600,
        k3k_syncs: false,
        k3k_syncs_ingresses: false,
        ingress_classes: None,
        warnings: Vec::new(),
    }
}

fn listed(names: &[&str]) -> Outbox {
    let mut outbox = Outbox::default();
    outbox.replace(Resource::Services, &uid("cluster"), names.iter().map(|name| wanted(name, "u", "1")).collect());
    outbox
}

fn open(outbox: &mut Outbox, resume: Resume, in_flight: u32) -> u64 {
    outbox.hello().unwrap();
    outbox.welcome(&welcome("epoch", resume, in_flight))
}

/// The lines that leave at once, in short: `put a`, `delete a`, `end 2`.
fn lines(outbox: &mut Outbox, generation: u64) -> Vec<String> {
    std::iter::from_fn(|| {
        let had_next = outbox.has_next(generation);
        let line = outbox.next(generation);
        assert_eq!(had_next, line.is_some());
        line
    })
    .map(|line| match line {
        FromAgent::Put(put) => format!("put {}", put.key.name()),
        FromAgent::Delete(delete) => format!("delete {}", delete.key.name()),
        FromAgent::End(end) => format!("end {}", end.count),
        other => format!("{other:?}"),
    })
    .collect()
}

fn answer_to(outbox: &Outbox, name: &str, version: u64, reason: Reason) -> Answer {
    let entry = &outbox.entries[&key(name)];
    Answer {
        key: key(name),
        uid: entry.uid.clone(),
        hash: entry.object.hash(),
        version,
        outcome: reason.outcome(),
        reason,
        message: String::new(),
        numbers: None,
        load_balancer: Vec::new(),
        conditions: Vec::new(),
    }
}

fn answer(outbox: &mut Outbox, generation: u64, name: &str, version: u64) {
    let answer = answer_to(outbox, name, version, Reason::Applied);
    outbox.answer(generation, answer);
}

#[test]
fn a_snapshot_says_everything_and_then_its_end() {
    let mut outbox = listed(&["a", "b"]);
    let generation = open(&mut outbox, Resume::Snapshot, 8);
    assert_eq!(lines(&mut outbox, generation), ["put a", "put b", "end 2"]);
    assert_eq!(outbox.in_sync(), Err(Behind::Unanswered(2)));
    answer(&mut outbox, generation, "a", 1);
    answer(&mut outbox, generation, "b", 2);
    assert_eq!(outbox.in_sync(), Ok(()));
}

#[test]
fn an_empty_snapshot_is_just_its_end() {
    let mut outbox = listed(&[]);
    let generation = open(&mut outbox, Resume::Snapshot, 8);
    assert_eq!(lines(&mut outbox, generation), ["end 0"]);
    assert_eq!(outbox.in_sync(), Ok(()));
}

#[test]
fn a_resumed_session_says_only_what_changed_since_its_hello() {
    let mut outbox = listed(&["a", "b", "c"]);
    outbox.hello().unwrap();
    outbox.apply(wanted("a", "u", "2"));
    outbox.apply(Change::Gone(key("b"), uid("u")));
    outbox.apply(wanted("d", "u", "1"));
    outbox.apply(wanted("e", "u", "1"));
    outbox.apply(Change::Gone(key("e"), uid("u")));
    let generation = outbox.welcome(&welcome("epoch", Resume::Nothing, 8));
    assert_eq!(lines(&mut outbox, generation), ["put a", "delete b", "put d"]);
    assert_eq!(outbox.session.as_ref().unwrap().sent(), outbox.wanted);
}

#[test]
fn many_changes_between_two_lines_are_one_line() {
    let mut outbox = listed(&["a"]);
    let generation = open(&mut outbox, Resume::Nothing, 8);
    for content in ["2", "3", "4"] {
        outbox.apply(wanted("a", "u", content));
    }
    outbox.apply(Change::Gone(key("a"), uid("u")));
    outbox.apply(wanted("a", "v", "1"));
    let Some(FromAgent::Put(put)) = outbox.next(generation) else {
        panic!("no put");
    };
    assert_eq!(put.uid, uid("v"));
    assert_eq!(lines(&mut outbox, generation), [""; 0]);
}

#[test]
fn a_key_deleted_before_the_snapshot_came_to_it_is_not_said_and_one_said_already_is_deleted() {
    let mut outbox = listed(&["a", "b", "c"]);
    let generation = open(&mut outbox, Resume::Snapshot, 8);
    assert!(matches!(outbox.next(generation), Some(FromAgent::Put(_))));
    outbox.apply(Change::Gone(key("a"), uid("u")));
    outbox.apply(Change::Gone(key("b"), uid("u")));
    assert_eq!(lines(&mut outbox, generation), ["put c", "end 2", "delete a"]);
}

#[test]
fn unanswered_puts_are_throttled_and_deletes_and_superseding_puts_are_not() {
    let mut outbox = listed(&["a", "b", "c", "d"]);
    let generation = open(&mut outbox, Resume::Snapshot, 2);
    assert_eq!(lines(&mut outbox, generation), ["put a", "put b"]);
    outbox.apply(wanted("a", "u", "2"));
    outbox.apply(Change::Gone(key("b"), uid("u")));
    assert_eq!(lines(&mut outbox, generation), ["put a", "delete b", "put c"]);
    assert_eq!(outbox.session.as_ref().unwrap().in_flight(), 2);
}

#[test]
fn only_the_answer_to_the_state_that_was_said_frees_its_slot() {
    let mut outbox = listed(&["a", "b"]);
    let generation = open(&mut outbox, Resume::Snapshot, 1);
    let early = answer_to(&outbox, "a", 1, Reason::Adopting);
    assert_eq!(lines(&mut outbox, generation), ["put a"]);
    outbox.apply(wanted("a", "u", "2"));
    assert_eq!(lines(&mut outbox, generation), ["put a"]);
    outbox.answer(generation, early);
    assert_eq!(lines(&mut outbox, generation), [""; 0]);
    outbox.answer(generation, answer_to(&outbox, "a", 2, Reason::Adopting));
    assert_eq!(lines(&mut outbox, generation), ["put b", "end 2"]);
}

#[test]
fn a_waiting_change_needs_a_slot_of_its_own_once_the_earlier_state_is_answered() {
    let mut outbox = listed(&["a", "b"]);
    let generation = open(&mut outbox, Resume::Snapshot, 1);
    assert_eq!(lines(&mut outbox, generation), ["put a"]);
    let first = answer_to(&outbox, "a", 1, Reason::Applied);
    outbox.apply(wanted("a", "u", "2"));
    outbox.answer(generation, first);
    // `b` is older and takes the one slot.
    assert_eq!(lines(&mut outbox, generation), ["put b", "end 2"]);
    answer(&mut outbox, generation, "b", 2);
    assert_eq!(lines(&mut outbox, generation), ["put a"]);
}

#[test]
fn a_snapshot_within_an_epoch_does_not_wait_for_answers_that_are_known() {
    let mut outbox = listed(&["a", "b", "c"]);
    let generation = open(&mut outbox, Resume::Snapshot, 1);
    for (version, name) in (1..).zip(["a", "b", "c"]) {
        assert_eq!(lines(&mut outbox, generation)[0], format!("put {name}"));
        answer(&mut outbox, generation, name, version);
    }
    outbox.want(generation, &Want::All);
    assert_eq!(lines(&mut outbox, generation), ["put a", "put b", "put c", "end 3"]);
}

#[test]
fn wanted_keys_are_said_again_and_unknown_ones_are_ignored() {
    let mut outbox = listed(&["a", "b"]);
    let generation = open(&mut outbox, Resume::Nothing, 8);
    outbox.want(generation, &Want::Keys(vec![key("b"), key("z")]));
    assert_eq!(lines(&mut outbox, generation), ["put b"]);
}

#[test]
fn a_snapshot_wanted_in_the_middle_also_says_the_deletes_that_wait() {
    let mut outbox = listed(&["a", "b"]);
    let generation = open(&mut outbox, Resume::Nothing, 8);
    outbox.apply(Change::Gone(key("a"), uid("u")));
    outbox.want(generation, &Want::All);
    assert_eq!(lines(&mut outbox, generation), ["delete a", "put b", "end 1"]);
}

#[test]
fn an_object_that_vanished_without_an_event_breaks_the_session_and_is_never_deleted() {
    let mut outbox = listed(&["a", "b"]);
    let generation = open(&mut outbox, Resume::Nothing, 8);
    outbox.replace(Resource::Services, &uid("cluster"), vec![wanted("a", "u", "2")]);
    assert!(outbox.is_broken(generation));
    assert_eq!(lines(&mut outbox, generation), [""; 0]);
    assert_eq!(outbox.hello().unwrap().count, 1);
}

#[test]
fn another_cluster_breaks_the_session_and_the_offer_too() {
    let mut outbox = listed(&["a"]);
    let generation = open(&mut outbox, Resume::Nothing, 8);
    outbox.hello().unwrap();
    outbox.replace(Resource::Services, &uid("other"), vec![wanted("a", "v", "1")]);
    assert!(outbox.is_broken(generation));
    let renewed = outbox.welcome(&welcome("epoch", Resume::Snapshot, 8));
    assert!(outbox.is_broken(renewed));
    assert_eq!(outbox.hello().unwrap().virtual_cluster, uid("other"));
}

#[test]
fn a_list_that_changes_nothing_says_nothing() {
    let mut outbox = listed(&["a"]);
    let generation = open(&mut outbox, Resume::Nothing, 8);
    outbox.replace(Resource::Services, &uid("cluster"), vec![wanted("a", "u", "1")]);
    assert!(!outbox.is_broken(generation));
    assert_eq!(lines(&mut outbox, generation), [""; 0]);
}

#[test]
fn a_late_event_about_an_earlier_object_of_the_same_name_changes_nothing() {
    let mut outbox = listed(&["a"]);
    outbox.apply(Change::Gone(key("a"), uid("older")));
    assert_eq!(outbox.wanted.count, 1);
}

#[test]
fn what_the_agent_refuses_is_outside_the_count_and_told_once() {
    let mut outbox = listed(&["a"]);
    let generation = open(&mut outbox, Resume::Nothing, 8);
    let refused = || Change::Refused(key("a"), uid("u"), "too large");
    assert!(outbox.apply(refused()).is_some());
    assert_eq!(outbox.apply(refused()), None);
    assert_eq!(outbox.wanted, Tally::default());
    assert_eq!(lines(&mut outbox, generation), ["delete a"]);
    assert_eq!(outbox.counts().rejected, 1);
    outbox.apply(wanted("a", "u", "1"));
    assert_eq!(outbox.counts().rejected, 0);
    assert_eq!(lines(&mut outbox, generation), ["put a"]);
}

#[test]
fn what_is_unusable_is_said_with_the_object_until_another_takes_its_place() {
    let mut outbox = listed(&["a"]);
    let generation = open(&mut outbox, Resume::Snapshot, 8);
    assert!(!outbox.is_acknowledged());
    lines(&mut outbox, generation);
    assert!(!outbox.is_acknowledged(), "the answer is missing");
    answer(&mut outbox, generation, "a", 1);
    assert!(outbox.is_acknowledged());
    let unusable = Unusable { cluster_ips: vec!["10.43.0.9".parse().unwrap()], node_ports: Vec::new() };
    outbox.unusable(&key("a"), &uid("other"), unusable.clone());
    assert!(!outbox.has_next(generation), "another object is meant");
    outbox.unusable(&key("a"), &uid("u"), unusable.clone());
    let said = |outbox: &mut Outbox| match outbox.next(generation) {
        Some(FromAgent::Put(put)) => put.unusable,
        other => panic!("{other:?}"),
    };
    assert_eq!(said(&mut outbox), unusable);
    outbox.apply(wanted("a", "u", "2"));
    assert_eq!(said(&mut outbox), unusable);
    outbox.apply(wanted("a", "new", "2"));
    assert_eq!(said(&mut outbox), Unusable::default());
}

#[test]
fn answers_count_by_uid_and_version_and_a_refusal_is_news_once() {
    let mut outbox = listed(&["a"]);
    let generation = open(&mut outbox, Resume::Nothing, 8);
    let taken = answer_to(&outbox, "a", 5, Reason::NodePortTaken);
    let refused_anew = |news: Option<News>| news.unwrap().is_new_refusal;
    assert!(refused_anew(outbox.answer(generation, taken.clone())));
    let again = Answer { version: 6, ..taken };
    assert!(!refused_anew(outbox.answer(generation, again.clone())));
    assert_eq!(outbox.answer(generation, again.clone()), None, "told twice");
    let stale = Answer { version: 4, ..answer_to(&outbox, "a", 4, Reason::Applied) };
    outbox.answer(generation, stale);
    let foreign = Answer { uid: uid("other"), version: 9, ..again };
    outbox.answer(generation, foreign);
    assert_eq!(outbox.counts().rejected, 1);
    let seen = outbox.hello().unwrap().seen;
    assert_eq!(seen, Some(Seen { epoch: uid("epoch"), version: 9 }));
}

#[test]
fn a_put_names_the_answer_that_was_known_when_its_object_was_read() {
    let mut outbox = listed(&["a"]);
    let generation = open(&mut outbox, Resume::Nothing, 8);
    let seen = |outbox: &mut Outbox| match outbox.next(generation) {
        Some(FromAgent::Put(put)) => put.seen,
        other => panic!("{other:?}"),
    };
    outbox.apply(wanted("a", "u", "2"));
    answer(&mut outbox, generation, "a", 7);
    assert_eq!(seen(&mut outbox), 0);
    outbox.apply(wanted("a", "u", "3"));
    assert_eq!(seen(&mut outbox), 7);
    outbox.apply(wanted("a", "v", "1"));
    assert_eq!(seen(&mut outbox), 0);
}

#[test]
fn another_epoch_makes_every_answer_unknown() {
    let mut outbox = listed(&["a"]);
    let generation = open(&mut outbox, Resume::Nothing, 8);
    answer(&mut outbox, generation, "a", 7);
    outbox.hello().unwrap();
    let generation = outbox.welcome(&welcome("newer", Resume::Nothing, 8));
    assert_eq!(outbox.in_sync(), Err(Behind::Unanswered(1)));
    answer(&mut outbox, generation, "a", 1);
    assert_eq!(outbox.in_sync(), Ok(()));
}

#[test]
fn a_standby_says_nothing() {
    let mut outbox = listed(&["a"]);
    outbox.hello().unwrap();
    let generation = outbox.welcome(&Welcome { role: Role::Standby, ..welcome("epoch", Resume::Snapshot, 8) });
    assert_eq!(lines(&mut outbox, generation), [""; 0]);
    assert_eq!(outbox.in_sync(), Err(Behind::Standby));
}
