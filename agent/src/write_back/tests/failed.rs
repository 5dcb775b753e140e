//! Writes that fail: numbers that are held in the virtual cluster, moves that stop half way, and lost races.

use super::super::results::{ARRIVE_MOST, HELD_TRIES};
use super::*;

#[test]
fn a_number_that_stays_held_here_is_given_back_to_the_host() {
    let mut desk = Desk::with(&json!({}));
    desk.hears(Reason::Applied, numbers("10.43.0.2", 30_001), T0);
    let held = Refusal::Held(Unusable { cluster_ips: vec!["10.43.0.2".parse().unwrap()], node_ports: Vec::new() });
    let mut now = T0;
    for _ in 0..HELD_TRIES {
        let job = desk.next(now).unwrap();
        assert_eq!(desk.write_back.refused(&job, held.clone(), now, 1.0), Outcomes::default());
        assert_eq!(desk.next(now), None, "not at once");
        now = desk.write_back.next_due().unwrap();
    }
    let job = desk.next(now).unwrap();
    let outcomes = desk.write_back.refused(&job, held, now, 1.0);
    assert_eq!(outcomes.unusable.unwrap().cluster_ips, ["10.43.0.2".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(desk.next(now), None, "it is the host's turn");
    desk.hears(Reason::Applied, numbers("10.43.0.3", 30_001), now);
    assert!(matches!(desk.next(now).unwrap().step, Step::Leave(..)));
}

#[test]
fn a_host_that_has_no_usable_number_is_believed_and_asked_again_after_a_while() {
    let mut desk = Desk::with(&json!({}));
    desk.hears(Reason::Applied, numbers("192.0.2.1", 30_001), T0);
    let job = desk.next(T0).unwrap();
    assert!(desk.write_back.refused(&job, Refusal::OutOfRange, T0, 1.0).unusable.is_some());
    desk.hears(Reason::ClusterIPTaken, numbers("192.0.2.1", 30_001), T0);
    assert_eq!(desk.status(T0).synced.unwrap().0.reason, "ClusterIPTaken");
    desk.sees(&told("False", "ClusterIPTaken"));
    assert_eq!(desk.next(T0), None);
    assert!(matches!(desk.next(SLOW).unwrap().step, Step::Leave(..)));
}

/// The Service between the two updates of a move to 10.43.0.2, as the agent's own first update left it.
fn moving() -> Value {
    let from = service(1, &json!({}));
    let body = renumber_body(&from);
    let intent = body["metadata"]["annotations"]["expose.k3k.io/renumber"].clone();
    json!({
        "metadata": {
            "annotations": {"expose.k3k.io/renumber": intent},
            "managedFields": [{"manager": "k3k-expose-agent", "fieldsV1": {
                "f:metadata": {"f:annotations": {"f:expose.k3k.io/renumber": {}}}}}],
        },
        "spec": {"type": "ExternalName", "externalName": "renumber.expose.k3k.io.invalid", "clusterIP": "",
            "clusterIPs": [], "ports": [{"port": 80}]},
    })
}

fn renumber_body(from: &Service) -> Value {
    crate::renumber::leave(from, &numbers("10.43.0.2", 30_002).unwrap()).unwrap()
}

#[test]
fn a_move_goes_on_after_a_crash_whatever_the_host_says() {
    let mut desk = Desk::with(&moving());
    desk.write_back.may_reflect = false;
    let job = desk.next(T0).unwrap();
    assert_eq!(job.step, Step::Arrive(Ask::TheHosts));
    desk.write_back.written(&job, None, T0);
    desk.sees(&json!({"spec": {"clusterIP": "10.43.0.2", "clusterIPs": ["10.43.0.2"]}}));
    assert_eq!(desk.next(T0), None);
}

#[test]
fn a_move_whose_number_was_stolen_arrives_with_any_and_tells_the_host() {
    let mut desk = Desk::with(&moving());
    let job = desk.next(T0).unwrap();
    let outcomes = desk.write_back.refused(&job, Refusal::Held(Unusable::default()), T0, 1.0);
    assert_eq!(outcomes.unusable.unwrap().cluster_ips, ["10.43.0.2".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(desk.next(T0).unwrap().step, Step::Arrive(Ask::Any));
}

#[test]
fn a_move_that_is_denied_is_told_and_tried_for_ever() {
    let mut desk = Desk::with(&moving());
    let mut now = T0;
    for round in 0..20 {
        let job = desk.next(now).unwrap();
        assert_eq!(job.step, Step::Arrive(Ask::TheHosts), "round {round}");
        desk.write_back.refused(&job, Refusal::Denied, now, 1.0);
        if round == 0 {
            assert_eq!(desk.status(now).synced.unwrap().0.reason, "Renumbering");
            let mut seen = moving();
            merge(&mut seen, &told("False", "Renumbering"));
            seen["status"]["conditions"][0]["message"] = Refusal::Denied.message().into();
            desk.sees(&seen);
        }
        assert_eq!(desk.next(now), None);
        let due = desk.write_back.next_due().unwrap();
        assert!(due > now && due <= now + ARRIVE_MOST, "{due:?}");
        now = due;
    }
}

#[test]
fn a_move_whose_end_only_the_watch_tells_is_over() {
    for refusal in [Refusal::Unavailable, Refusal::Denied] {
        let mut desk = Desk::with(&moving());
        desk.hears(Reason::Applied, numbers("10.43.0.2", 30_002), T0);
        let job = desk.next(T0).unwrap();
        assert_eq!(job.step, Step::Arrive(Ask::TheHosts));
        // Its answer was lost, or somebody else has brought the Service to its numbers since.
        desk.write_back.refused(&job, refusal, T0, 1.0);
        assert_eq!(desk.status(T0).synced.unwrap().0.reason, "Renumbering");
        let before = desk.hash;
        desk.sees(&json!({"spec": {"clusterIP": "10.43.0.2", "clusterIPs": ["10.43.0.2"],
            "ports": [{"port": 80, "nodePort": 30_002}]}}));
        assert_eq!(desk.hash, before, "host-api has nothing to answer");
        assert_eq!(desk.status(T0).synced.unwrap().0.reason, "Applied");
    }
}

#[test]
fn an_annotation_that_a_tenant_wrote_changes_nothing() {
    let mut forged = moving();
    forged["metadata"]["managedFields"][0]["manager"] = "kubectl".into();
    assert!(!standing(&service(1, &forged)).is_moving);
    let annotation = json!({"metadata": {"annotations": forged["metadata"]["annotations"]}});
    let ordinary = service(1, &annotation);
    assert_eq!(crate::renumber::arrive(&ordinary, Ask::TheHosts), None);
    assert_eq!(standing(&ordinary).wish, standing(&service(1, &json!({}))).wish);
}

#[test]
fn a_move_looks_the_same_to_the_host_before_and_after_its_second_update() {
    let moved = json!({"spec": {"clusterIP": "10.43.0.2", "clusterIPs": ["10.43.0.2"],
        "ports": [{"port": 80, "nodePort": 30002}]}});
    assert_eq!(standing(&service(1, &moving())).wish, standing(&service(1, &moved)).wish);
}

#[test]
fn a_status_is_written_on_the_revision_it_was_decided_on_and_a_lost_race_is_looked_at_again() {
    let mut desk = Desk::with(&json!({}));
    desk.hears(Reason::Applied, numbers("10.43.0.1", 30001), T0);
    let lost = desk.next(T0).unwrap();
    assert_eq!(lost.revision, 1);

    // The watch has not told yet what stands: later.
    desk.write_back.refused(&lost, Refusal::Changed, T0, 1.0);
    assert_eq!(desk.next(T0), None);
    let later = desk.write_back.next_due().unwrap();
    let lost = desk.next(later).unwrap();

    // It has told meanwhile: at once, and on what stands now.
    desk.sees(&json!({"metadata": {"labels": {"new": "one"}}}));
    desk.hears(Reason::Applied, numbers("10.43.0.1", 30001), later);
    desk.write_back.refused(&lost, Refusal::Changed, later, 1.0);
    assert_eq!(desk.next(later).map(|job| job.revision), Some(2));
}
