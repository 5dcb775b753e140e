//! A replica that leads again after another one did.

use super::*;

#[test]
fn who_leads_again_writes_nothing_of_what_agents_said_before_and_believes_no_earlier_answer() {
    let (mut registry, old) = synced(vec![put("web", 30_080), put("other", 30_081)], OFF);
    let tally = registry.tenants[&uid("t")].tally();
    let create = task(&mut registry).unwrap();
    registry.service_seen(stored(&create, 1), NOW);
    registry.begin_anew(uid("later"));
    assert_eq!(task(&mut registry), None, "what waited was forgotten");
    assert_eq!(registry.tick(NOW + Duration::from_secs(3600)), None, "and what was to be tried again");
    assert_eq!(registry.census().sessions, 0);
    // A line of the former session that was under way.
    registry.line(old, FromAgent::Put(put("late", 30_082)), NOW).unwrap();
    registry.close(old, NOW);
    assert_eq!(task(&mut registry), None);

    let seen = Some(k3k_expose_proto::message::Seen { epoch: uid("epoch"), version: 1 });
    let hello = Hello { seen, ..hello(tally) };
    let (id, welcome) = registry.open(&tenant(), OFF, server(0), &hello, NOW).unwrap();
    assert_eq!((welcome.resume, welcome.epoch), (Resume::Snapshot, uid("later")));
    assert!(id > old, "no session has a former one's number");
}

#[test]
fn a_twin_that_stands_already_costs_no_write_in_the_next_term() {
    let (mut registry, _) = synced(vec![put("web", 30_080)], OFF);
    let create = task(&mut registry).unwrap();
    registry.service_seen(stored(&create, 1), NOW);
    registry.begin_anew(uid("later"));
    let (id, _) = registry.open(&tenant(), OFF, server(0), &hello(Tally::default()), NOW).unwrap();
    let web = put("web", 30_080);
    let mut tally = Tally::default();
    tally.add(&web.key, &web.uid, web.hash);
    registry.line(id, FromAgent::Put(web), NOW).unwrap();
    registry.line(id, FromAgent::End(End { count: tally.count, root: tally.root }), NOW).unwrap();
    assert_eq!(task(&mut registry), Some(Task::Settled));
    assert_eq!(reasons(&told(&mut registry, id)), [Reason::Applied]);
}
