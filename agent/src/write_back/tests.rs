//! The write-back by example: what stands, what was answered, and the write that follows.

mod failed;

use std::num::NonZeroU16;

use k3k_expose_proto::message::NodePort;
use k3k_expose_proto::service::Protocol;
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::*;
use crate::observed::Exposed;

const T0: Duration = Duration::ZERO;

fn key() -> Key {
    Key::service("default", "web").unwrap()
}

fn port(port: u16, node_port: u16) -> NodePort {
    let number = |number| NonZeroU16::new(number).unwrap();
    NodePort { port: number(port), protocol: Protocol::TCP, node_port: number(node_port) }
}

/// A Service of the virtual cluster; `more` is merged into it.
fn service(revision: u32, more: &Value) -> Service {
    let mut object = json!({
        "metadata": {"namespace": "default", "name": "web", "uid": "u", "resourceVersion": revision.to_string()},
        "spec": {"type": "LoadBalancer", "clusterIP": "10.43.0.1", "clusterIPs": ["10.43.0.1"],
            "ports": [{"port": 80, "nodePort": 30001}]},
    });
    merge(&mut object, more);
    serde_json::from_value(object).unwrap()
}

fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more.clone(),
    }
}

fn standing(service: &Service) -> Standing {
    service.observe(&BTreeSet::new(), &crate::endpoints::Join::default()).unwrap().standing.unwrap()
}

struct Desk {
    write_back: WriteBack,
    hash: Hash,
    revision: u32,
    version: u64,
}

impl Desk {
    /// With this Service in the virtual cluster, free to write.
    fn with(more: &Value) -> Self {
        let mut write_back = WriteBack::default();
        write_back.may_reflect();
        write_back.role(Some(Role::Active));
        write_back.k3k(&HostBeat { k3k_syncs: false, k3k_syncs_ingresses: true, ingress_classes: None });
        let mut desk = Self { write_back, hash: Hash::of(&()), revision: 0, version: 0 };
        desk.sees(more);
        desk
    }

    fn sees(&mut self, more: &Value) {
        self.revision += 1;
        let standing = standing(&service(self.revision, more));
        if let Wish::Wanted(hash, _) = standing.wish {
            self.hash = hash;
        }
        self.write_back.seen(&key(), standing);
    }

    fn hears(&mut self, reason: Reason, numbers: Option<Numbers>, now: Duration) {
        self.version += 1;
        let answer = Answer {
            key: key(),
            uid: Uid::parse("u").unwrap(),
            hash: self.hash,
            version: self.version,
            outcome: reason.outcome(),
            reason,
            message: "why".to_owned(),
            numbers,
            load_balancer: Vec::new(),
            conditions: Vec::new(),
        };
        self.write_back.answered(answer, now);
    }

    fn next(&mut self, now: Duration) -> Option<Job> {
        self.write_back.next(now)
    }

    fn status(&mut self, now: Duration) -> Status {
        let job = self.next(now).expect("a write");
        let Step::Status(status) = &job.step else { panic!("{job:?}") };
        let status = (**status).clone();
        self.write_back.written(&job, None, now);
        status
    }
}

fn numbers(ip: &str, node_port: u16) -> Option<Numbers> {
    Some(Numbers {
        cluster_ips: vec![ip.parse().unwrap()],
        node_ports: vec![port(80, node_port)],
        health_check_node_port: None,
    })
}

fn same() -> Option<Numbers> {
    numbers("10.43.0.1", 30_001)
}

/// The condition as the API server shows it after a write.
fn told(status: &str, reason: &str) -> Value {
    json!({"status": {"conditions": [{"type": SYNCED, "status": status, "reason": reason, "message": "why",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
}

fn pinned() -> Value {
    json!({"metadata": {"managedFields": [{"manager": "helm", "fieldsV1": {
        "f:spec": {"f:clusterIP": {}, "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {"f:nodePort": {}}}}}}]}})
}

#[test]
fn a_service_that_agrees_gets_one_status_write_and_then_none() {
    let mut desk = Desk::with(&json!({}));
    assert_eq!(desk.next(T0), None, "nothing was answered yet");
    desk.hears(Reason::Applied, same(), T0);
    let status = desk.status(T0);
    assert_eq!(status.synced.map(|(synced, turns)| (synced.status, turns)), Some(("True".to_owned(), true)));
    assert_eq!((status.ingress, status.events), (None, Vec::new()));
    desk.sees(&told("True", "Applied"));
    assert_eq!(desk.next(T0), None);
    desk.hears(Reason::Applied, same(), T0);
    assert_eq!(desk.next(T0), None);
}

#[test]
fn nothing_is_reflected_before_the_first_snapshot_is_acknowledged() {
    let mut desk = Desk::with(&json!({}));
    desk.write_back.may_reflect = false;
    desk.hears(Reason::Applied, same(), T0);
    assert_eq!(desk.next(T0), None);
    desk.write_back.may_reflect();
    assert!(desk.next(T0).is_some());
}

#[test]
fn only_the_agent_that_speaks_for_the_tenant_writes() {
    let mut desk = Desk::with(&json!({}));
    desk.hears(Reason::Applied, same(), T0);
    desk.write_back.role(Some(Role::Standby));
    assert_eq!(desk.next(T0), None);
    desk.write_back.role(None);
    assert_eq!(desk.next(T0), None, "another may speak by now");
    desk.write_back.role(Some(Role::Active));
    assert!(desk.next(T0).is_some());
}

#[test]
fn an_answer_to_an_earlier_state_is_not_reflected() {
    let mut desk = Desk::with(&json!({}));
    desk.hears(Reason::Applied, same(), T0);
    desk.sees(&json!({"spec": {"selector": {"a": "b"}}}));
    assert_eq!(desk.next(T0), None);
}

#[test]
fn a_refusal_is_told_once_and_a_pending_answer_only_when_it_lasts() {
    let mut desk = Desk::with(&json!({}));
    desk.hears(Reason::QuotaExceeded, None, T0);
    let status = desk.status(T0);
    let reasons: Vec<&str> = status.events.iter().map(|event| event.reason.as_str()).collect();
    assert_eq!(reasons, ["QuotaExceeded"]);
    desk.sees(&told("False", "QuotaExceeded"));
    desk.hears(Reason::QuotaExceeded, None, T0);
    assert_eq!(desk.next(T0), None);
    desk.hears(Reason::HostUnavailable, None, T0);
    assert_eq!(desk.next(T0), None);
    assert_eq!(desk.write_back.next_due(), Some(decide::GRACE));
    let status = desk.status(decide::GRACE);
    assert_eq!(status.events, []);
    assert_eq!(status.synced.unwrap().0.reason, "HostUnavailable");
}

#[test]
fn drawn_node_ports_are_replaced_in_place_and_addresses_by_a_move() {
    let mut desk = Desk::with(&json!({}));
    desk.hears(Reason::Applied, numbers("10.43.0.1", 30_002), T0);
    let job = desk.next(T0).unwrap();
    assert!(matches!(&job.step, Step::NodePorts(ports, _) if *ports == [port(80, 30_002)]), "{job:?}");
    assert_eq!(desk.next(T0), None, "one write at a time");
    let events = desk.write_back.written(&job, None, T0).events;
    assert_eq!(events[0].note, "node port 30001 of port 80/TCP is held on the host, 30002 takes its place");

    let mut desk = Desk::with(&json!({}));
    desk.hears(Reason::Applied, numbers("10.43.0.2", 30_002), T0);
    let job = desk.next(T0).unwrap();
    assert!(matches!(&job.step, Step::Leave(to, _) if Some(to) == numbers("10.43.0.2", 30_002).as_ref()), "{job:?}");
}

#[test]
fn a_pinned_number_is_replaced_once_and_then_left_alone() {
    let mut desk = Desk::with(&pinned());
    desk.hears(Reason::NodePortTaken, numbers("10.43.0.1", 30_002), T0);
    let job = desk.next(T0).unwrap();
    assert!(matches!(job.step, Step::NodePorts(..)), "{job:?}");
    // The watch may be faster than the answer to the write.
    desk.sees(&json!({"spec": {"ports": [{"port": 80, "nodePort": 30002}]}}));
    desk.write_back.written(&job, None, T0);
    desk.hears(Reason::Applied, numbers("10.43.0.1", 30_002), T0);
    assert_eq!(desk.status(T0).synced.unwrap().0.status, "True");
    desk.sees(&pinned());
    desk.hears(Reason::NodePortTaken, numbers("10.43.0.1", 30_002), T0);
    assert_eq!(desk.status(T0).synced.unwrap().0.reason, "NodePortTaken");
}

#[test]
fn what_an_earlier_process_left_alone_stays_alone() {
    let mut left = pinned();
    merge(&mut left, &told("False", "NodePortTaken"));
    let mut desk = Desk::with(&left);
    desk.hears(Reason::NodePortTaken, numbers("10.43.0.1", 30_002), T0);
    assert_eq!(desk.next(T0), None);
}

#[test]
fn a_status_that_somebody_keeps_overwriting_is_left_alone_for_a_while() {
    let mut desk = Desk::with(&told("True", "Applied"));
    desk.hears(Reason::Applied, same(), T0);
    for round in 1..CONTESTED {
        assert_eq!(desk.next(T0), None);
        desk.sees(&json!({}));
        desk.status(T0);
        desk.sees(&told("True", "Applied"));
        assert!(round < CONTESTED);
    }
    assert_eq!(desk.next(T0), None);
    desk.sees(&json!({}));
    let job = desk.next(T0).unwrap();
    assert!(matches!(&job.step, Step::Tell(event) if event.reason == "StatusContested"), "{job:?}");
    desk.write_back.written(&job, None, T0);
    assert_eq!(desk.next(T0), None);
    assert_eq!(desk.write_back.next_due(), Some(SLOW));
    desk.status(SLOW);
}

#[test]
fn k3ks_finalizer_goes_when_its_sync_is_off_also_from_what_is_being_deleted() {
    for leaving in [json!({}), json!({"deletionTimestamp": "2026-01-01T00:00:00Z"})] {
        let mut more = json!({"metadata": {"finalizers": [K3K_FINALIZER, "example.com/own"]}});
        merge(&mut more["metadata"], &leaving);
        let mut desk = Desk::with(&more);
        desk.write_back.k3k(&HostBeat { k3k_syncs: true, k3k_syncs_ingresses: true, ingress_classes: None });
        assert_eq!(desk.next(T0), None);
        desk.write_back.k3k(&HostBeat { k3k_syncs: false, k3k_syncs_ingresses: true, ingress_classes: None });
        assert_eq!(desk.next(T0).unwrap().step, Step::StripFinalizer);
    }
}

#[test]
fn conditions_of_others_are_not_ours_to_compare() {
    let mut desk = Desk::with(&json!({"status": {"conditions": [
        {"type": "example.com/Ready", "status": "True", "reason": "R", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"},
        {"type": SYNCED, "status": "True", "reason": "Applied", "message": "why",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}));
    desk.hears(Reason::Applied, same(), T0);
    assert_eq!(desk.next(T0), None);
}

#[test]
fn addresses_come_with_the_mode_that_the_api_server_fills_in_and_go_with_the_type() {
    let address = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}}});
    let mut seen = told("True", "Applied");
    merge(&mut seen, &address);
    let mut desk = Desk::with(&seen);
    desk.hears(Reason::Applied, same(), T0);
    assert_eq!(desk.status(T0).ingress, Some(Vec::new()), "the host has none");
    let mut answer_has = Desk::with(&seen);
    answer_has.hears(Reason::Applied, same(), T0);
    let entry = answer_has.write_back.entries.get_mut(&key()).unwrap();
    let ip = Some("192.0.2.1".parse().unwrap());
    entry.answer.as_mut().unwrap().ingress = [Ingress { ip, ..Ingress::default() }].into();
    assert_eq!(answer_has.next(T0), None);
}

#[test]
fn a_status_that_shows_an_answer_tells_how_long_that_waited_and_a_repaired_one_does_not() {
    let late = Duration::from_secs(3);
    let mut desk = Desk::with(&json!({}));
    let written = |desk: &mut Desk, now| {
        let job = desk.next(now).expect("a write");
        assert!(matches!(job.step, Step::Status(_)), "{job:?}");
        desk.write_back.written(&job, None, now).reflected
    };
    desk.hears(Reason::NameTaken, None, T0);
    assert_eq!(written(&mut desk, late), Some(late));
    assert_eq!(written(&mut desk, late), None, "the watch still shows the Service without the condition");
}
