//! Refusals that end by an event: quotas, selectors, two writers; and what goes wrong with load balancers.

use k3k_expose_proto::message::Condition;

use super::*;
use crate::notice::{NoticeKind, TWO_WRITERS};

const ON: ClusterState = ClusterState {
    revision: 0,
    k3k_syncs: true,
    mass_delete: None,
    selector: BTreeMap::new(),
    ingresses: SyncIngresses { enabled: false, selector: BTreeMap::new() },
    namespace: String::new(),
    name: String::new(),
    labels: BTreeMap::new(),
};

fn quota(used: u32) -> k8s_openapi::api::core::v1::ResourceQuota {
    serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": "q"},
        "status": {"hard": {"services": "2"}, "used": {"services": used.to_string()}}}))
    .unwrap()
}

fn at() -> HostName {
    HostName { namespace: "ns".to_owned(), name: crate::name::twin("web", "default", "mine") }
}

/// A registry with a twin of type LoadBalancer.
fn balanced() -> (Registry, SessionId, k8s_openapi::api::core::v1::Service) {
    let (mut registry, id) = synced(vec![put("web", 30_080)], OFF);
    let mut twin = stored(&task(&mut registry).unwrap(), 1);
    twin.spec.as_mut().unwrap().type_ = Some("LoadBalancer".to_owned());
    registry.service_answered(twin.clone(), NOW);
    registry.line(id, FromAgent::Put(balancer()), NOW).unwrap();
    while let Some(task) = task(&mut registry) {
        assert_eq!(task, Task::Settled);
    }
    told(&mut registry, id);
    (registry, id, twin)
}

fn balancer() -> Put {
    let Object::Service(mut service) = put("web", 30_080).object else { panic!() };
    service.service_type = ServiceType::LoadBalancer;
    Put { hash: Hash::of(&service), object: Object::Service(service), ..put("web", 30_080) }
}

fn conditions(registry: &mut Registry, id: SessionId) -> Vec<Vec<Condition>> {
    let of = |line| if let FromHost::Answer(answer) = line { Some(answer.conditions) } else { None };
    told(registry, id).into_iter().filter_map(of).collect()
}

#[test]
fn a_refusal_by_quota_ends_when_something_is_freed() {
    let (mut registry, id) = synced(vec![put("web", 30_080)], OFF);
    registry.quota_seen(&quota(2));
    let create = task(&mut registry).unwrap();
    registry.refused(&uid("t"), &key("web"), Refusal::Quota, &create.asked(), NOW);
    assert_eq!(reasons(&told(&mut registry, id)), [Reason::QuotaExceeded]);
    registry.quota_seen(&quota(2));
    assert_eq!(told(&mut registry, id), []);
    registry.quota_seen(&quota(1));
    assert_eq!(told(&mut registry, id), [FromHost::Want(Want::Keys(vec![key("web")]))]);
}

#[test]
fn a_quota_that_has_just_been_freed_and_is_refused_all_the_same_is_tried_again_soon_and_not_for_ever() {
    let (mut registry, id) = synced(vec![put("web", 30_080)], OFF);
    registry.quota_seen(&quota(2));
    registry.quota_seen(&quota(1));
    let mut now = NOW;
    let mut waits = Vec::new();
    for _ in 0..5 {
        registry.refused(&uid("t"), &key("web"), Refusal::Quota, &Held::default(), now);
        let due = registry.tick(now).unwrap();
        waits.push((due - now) < Duration::from_secs(10));
        now = due;
    }
    assert_eq!(waits, [true, true, true, true, false]);
    assert_eq!(reasons(&told(&mut registry, id)), [Reason::QuotaExceeded]);
}

#[test]
fn every_refusal_has_its_reason_and_is_tried_again() {
    let table = [
        (Refusal::Quota, Reason::QuotaExceeded),
        (Refusal::Admission, Reason::AdmissionDenied),
        (Refusal::Denied, Reason::HostRefused),
        (Refusal::Immutable, Reason::HostRefused),
        (Refusal::Family, Reason::IPFamilyUnavailable),
        (Refusal::Unavailable, Reason::HostUnavailable),
        (Refusal::Overloaded, Reason::HostUnavailable),
        (Refusal::Conflict, Reason::HostUnavailable),
    ];
    for (refusal, reason) in table {
        let (mut registry, id) = synced(vec![put("web", 30_080)], OFF);
        let create = task(&mut registry).unwrap();
        registry.refused(&uid("t"), &key("web"), refusal, &create.asked(), NOW);
        assert_eq!(reasons(&told(&mut registry, id)), [reason], "{refusal:?}");
        assert_eq!(registry.retries.len(), 1, "{refusal:?}");
    }
}

#[test]
fn a_rejection_counts_once_for_each_reason_and_each_retry_counts() {
    let (mut registry, id) = synced(vec![put("web", 30_080)], OFF);
    let refused = |registry: &mut Registry, refusal| {
        let create = task(registry).unwrap();
        registry.refused(&uid("t"), &key("web"), refusal, &create.asked(), NOW);
        let due = registry.tick(NOW).expect("a retry");
        registry.tick(due);
        registry.line(id, FromAgent::Put(put("web", 30_080)), NOW).unwrap();
    };
    for refusal in [Refusal::Quota, Refusal::Quota, Refusal::Unavailable, Refusal::Denied, Refusal::Quota] {
        refused(&mut registry, refusal);
    }
    let totals = registry.census().totals;
    assert_eq!(totals.rejections, [(Reason::QuotaExceeded, 2), (Reason::HostRefused, 1)].into());
    assert_eq!((totals.retries, totals.repairs), (5, 0));
}

#[test]
fn only_selected_services_have_a_twin_and_a_change_of_the_selector_is_followed() {
    let selecting = ClusterState { selector: [("expose".to_owned(), "yes".to_owned())].into(), ..OFF };
    let (mut registry, id) = synced(vec![put("web", 30_080)], selecting.clone());
    assert_eq!(task(&mut registry), Some(Task::Settled));
    assert_eq!(reasons(&told(&mut registry, id)), [Reason::NotSelected]);
    registry.cluster_seen(&uid("t"), OFF);
    assert_eq!(told(&mut registry, id), [FromHost::Want(Want::Keys(vec![key("web")]))]);
    registry.line(id, FromAgent::Put(put("web", 30_080)), NOW).unwrap();
    let create = task(&mut registry).unwrap();
    registry.service_answered(stored(&create, 1), NOW);
    look_again(&mut registry, "web");
    registry.cluster_seen(&uid("t"), selecting);
    registry.line(id, FromAgent::Put(put("web", 30_080)), NOW).unwrap();
    assert!(matches!(task(&mut registry), Some(Task::Delete { .. })));
}

#[test]
fn two_writers_are_told_to_everybody_once_each_time() {
    let (mut registry, id) = synced(vec![], OFF);
    let flips = |registry: &mut Registry, state: ClusterState| {
        registry.cluster_seen(&uid("t"), state);
        let notices = registry.effects().notices;
        (told(registry, id), notices.iter().filter(|notice| notice.kind == NoticeKind::TwoWriters).count())
    };
    let beat =
        |k3k_syncs| vec![FromHost::Beat(HostBeat { k3k_syncs, k3k_syncs_ingresses: false, ingress_classes: None })];
    assert_eq!(registry.census().two_writers, 0);
    assert_eq!(flips(&mut registry, ON), (beat(true), 1));
    assert_eq!(registry.census().two_writers, 1);
    assert_eq!(flips(&mut registry, ClusterState { revision: 1, ..ON }), (Vec::new(), 0));
    assert_eq!(registry.host_beat(id), beat(true)[0]);
    assert_eq!(flips(&mut registry, ClusterState { revision: 2, ..OFF }), (beat(false), 0));
    assert_eq!(flips(&mut registry, ClusterState { revision: 3, ..ON }), (beat(true), 1));
    registry.close(id, NOW);
    assert_eq!(registry.census().two_writers, 0);
    let state = ClusterState { revision: 3, ..ON };
    let (_, welcome) = registry.open(&tenant(), state, server(0), &hello(Tally::default()), NOW).unwrap();
    assert!(welcome.k3k_syncs && welcome.warnings == [TWO_WRITERS]);
}

#[test]
fn a_warning_about_a_load_balancer_is_told_as_a_condition_until_it_has_an_address() {
    let (mut registry, id, mut twin) = balanced();
    registry.warned(&at(), "another", "SyncLoadBalancerFailed", "e", NOW);
    registry.warned(&at(), "host-uid", "TenantMade", "e", NOW);
    assert_eq!(conditions(&mut registry, id), Vec::<Vec<Condition>>::new());
    registry.warned(&at(), "host-uid", "SyncLoadBalancerFailed", "e", NOW);
    registry.warned(&at(), "host-uid", "SyncLoadBalancerFailed", "e", NOW);
    let told_once = conditions(&mut registry, id);
    assert!(told_once.len() == 1 && told_once[0][0].reason == "SyncLoadBalancerFailed", "{told_once:?}");
    twin.status = serde_json::from_value(json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}})).unwrap();
    twin.metadata.resource_version = Some("2".to_owned());
    registry.service_seen(twin, NOW);
    assert_eq!(registry.tick(NOW), Some(Duration::from_secs(10)));
    registry.tick(Duration::from_secs(10));
    assert_eq!(conditions(&mut registry, id).last(), Some(&Vec::new()));
}

#[test]
fn a_status_that_changes_while_the_object_is_awaited_does_not_pass_for_the_object() {
    let (mut registry, id) = synced(vec![put("web", 30_080)], OFF);
    let mut twin = stored(&task(&mut registry).unwrap(), 1);
    registry.service_answered(twin.clone(), NOW);
    look_again(&mut registry, "web");
    twin.spec.as_mut().unwrap().external_ips = Some(vec!["192.0.2.1".to_owned()]);
    twin.metadata.resource_version = Some("2".to_owned());
    registry.service_seen(twin.clone(), NOW);
    twin.status = serde_json::from_value(json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}})).unwrap();
    twin.metadata.resource_version = Some("3".to_owned());
    registry.service_seen(twin, NOW);
    told(&mut registry, id);
    registry.line(id, FromAgent::Put(put("web", 30_080)), NOW).unwrap();
    assert!(matches!(task(&mut registry), Some(Task::Patch(..))));
}
