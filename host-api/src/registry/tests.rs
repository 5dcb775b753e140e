//! Single situations of the registry. Random ones are in `tests/model`.

use k3k_expose_proto::message::{
    Delete, End, FromAgent, FromHost, Hello, HostBeat, Object, Put, Resume, Unusable, Want,
};
use k3k_expose_proto::service::{ClusterIps, Port, Protocol, Service, ServiceType, TargetPort};
use k3k_expose_proto::{Hash, Tally};
use serde_json::json;

use super::*;
use crate::cluster::SyncIngresses;
use crate::plan::Road;
use crate::policy::resource::ExposurePolicySpec;
use crate::refusal::Refusal;
use crate::tenant::{ServerPod, Tenant};
use crate::twin::{self, Held};

mod anew;
mod election;
mod endpoints;
mod ingress;
mod numbers;
mod policy;
mod room;
mod secrets;
mod share;

const OFF: ClusterState = ClusterState {
    revision: 0,
    k3k_syncs: false,
    mass_delete: None,
    selector: BTreeMap::new(),
    ingresses: SyncIngresses { enabled: false, selector: BTreeMap::new() },
    namespace: String::new(),
    name: String::new(),
    labels: BTreeMap::new(),
};
const NOW: Duration = Duration::ZERO;

fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}

fn key(name: &str) -> Key {
    Key::service("default", name).unwrap()
}

fn tenant() -> Tenant {
    Tenant::for_test("t", "ns", "mine")
}

fn virtual_service(node_port: u16) -> Service {
    let mut service = Service::new(ServiceType::NodePort);
    service.cluster_ips = ClusterIps::Addresses(vec!["10.43.0.9".parse().unwrap()]);
    service.ports = vec![Port {
        name: String::new(),
        protocol: Protocol::TCP,
        port: 80.try_into().unwrap(),
        target_port: TargetPort::Number(80.try_into().unwrap()),
        app_protocol: None,
        node_port: node_port.try_into().ok(),
        node_port_pinned: false,
    }];
    service
}

fn put(name: &str, node_port: u16) -> Put {
    put_of(name, virtual_service(node_port))
}

fn put_of(name: &str, service: Service) -> Put {
    let hash = Hash::of(&service);
    Put {
        key: key(name),
        uid: uid(name),
        hash,
        seen: 0,
        unusable: Unusable::default(),
        object: Object::Service(Box::new(service)),
    }
}

/// A server pod, called by its ordinal.
fn server(ordinal: u32) -> ServerPod {
    ServerPod { uid: uid(&format!("pod-{ordinal}")), ordinal }
}

fn hello(tally: Tally) -> Hello {
    Hello {
        versions: vec![1],
        agent: "test".to_owned(),
        projection: 1,
        virtual_cluster: uid("vc"),
        count: tally.count,
        root: tally.root,
        ingresses: false,
        secrets: false,
        seen: None,
    }
}

/// A registry that knows of no policy, namespace or Cluster, and that there is none.
fn listed() -> Registry {
    let mut registry = Registry::new(uid("epoch"), 0);
    list(&mut registry);
    registry
}

/// Policies, namespaces and Clusters are listed: there is none.
fn list(registry: &mut Registry) {
    registry.policies_listed(&BTreeSet::new());
    registry.namespaces_listed(&BTreeSet::new());
    registry.clusters_listed(&BTreeSet::new(), NOW);
}

/// The Cluster of a tenant.
fn cluster_of(tenant: &Tenant) -> ClusterState {
    ClusterState { namespace: tenant.namespace().to_owned(), name: tenant.cluster().to_owned(), ..OFF }
}

/// What a policy says.
fn spec(spec: serde_json::Value) -> ExposurePolicySpec {
    serde_json::from_value(spec).unwrap()
}

/// A registry with a session in which a snapshot was completed.
fn synced(puts: Vec<Put>, state: ClusterState) -> (Registry, SessionId) {
    let mut registry = Registry::new(uid("epoch"), 0);
    let (id, welcome) = registry.open(&tenant(), state, server(0), &hello(Tally::default()), NOW).unwrap();
    assert_eq!(welcome.resume, Resume::Snapshot);
    let mut tally = Tally::default();
    for put in puts {
        tally.add(&put.key, &put.uid, put.hash);
        registry.line(id, FromAgent::Put(put), NOW).unwrap();
    }
    registry.line(id, FromAgent::End(End { count: tally.count, root: tally.root }), NOW).unwrap();
    (registry, id)
}

/// The writer's next call.
fn task(registry: &mut Registry) -> Option<Task> {
    let (tenant, key) = registry.take(9, NOW)?;
    let task = registry.decide(&tenant, &key, Road::default(), NOW);
    registry.done(&tenant, &key, NOW);
    Some(task)
}

/// The writer's next look at an object that it has not given back yet.
fn look_again(registry: &mut Registry, name: &str) -> Task {
    registry.queue.add(&uid("t"), key(name), Cause::Change);
    task(registry).unwrap()
}

fn told(registry: &mut Registry, id: SessionId) -> Vec<FromHost> {
    std::iter::from_fn(|| registry.next_line(id)).collect()
}

fn reasons(lines: &[FromHost]) -> Vec<Reason> {
    let answer = |line: &FromHost| match line {
        FromHost::Answer(answer) => Some(answer.reason),
        _ => None,
    };
    lines.iter().filter_map(answer).collect()
}

/// A Service of the host, as its API server would store what we create.
fn stored(task: &Task, revision: u32) -> k8s_openapi::api::core::v1::Service {
    let Task::Create(_, service) = task else { panic!("{task:?}") };
    let mut service = service.as_ref().clone();
    service.metadata.uid = Some("host-uid".to_owned());
    service.metadata.resource_version = Some(revision.to_string());
    service
}

fn foreign(node_port: u16, revision: u32) -> k8s_openapi::api::core::v1::Service {
    serde_json::from_value(json!({
        "metadata": {"name": "other", "namespace": "elsewhere", "uid": "o", "resourceVersion": revision.to_string()},
        "spec": {"ports": [{"port": 1, "nodePort": node_port}]}
    }))
    .unwrap()
}

#[test]
fn nothing_is_written_while_k3k_syncs_and_everything_is_asked_for_after() {
    let (mut registry, id) = synced(vec![put("web", 30_080)], ClusterState { k3k_syncs: true, ..OFF });
    assert_eq!(task(&mut registry), Some(Task::Settled));
    assert_eq!(reasons(&told(&mut registry, id)), [Reason::Adopting]);
    registry.cluster_seen(&uid("t"), OFF);
    let switched = FromHost::Beat(HostBeat { k3k_syncs: false, k3k_syncs_ingresses: false, ingress_classes: None });
    assert_eq!(told(&mut registry, id), [switched, FromHost::Want(Want::Keys(vec![key("web")]))]);
}

#[test]
fn a_switch_that_the_next_session_sees_first_is_not_lost() {
    let (mut registry, id) = synced(vec![put("web", 30_080)], ClusterState { k3k_syncs: true, ..OFF });
    task(&mut registry);
    told(&mut registry, id);
    registry.close(id, NOW);
    let tally = registry.tenants[&uid("t")].tally();
    let (id, welcome) = registry.open(&tenant(), OFF, server(0), &hello(tally), NOW).unwrap();
    assert_eq!(welcome.resume, Resume::Nothing);
    registry.cluster_seen(&uid("t"), OFF);
    assert!(told(&mut registry, id).contains(&FromHost::Want(Want::Keys(vec![key("web")]))));
}

#[test]
fn an_empty_snapshot_deletes_nothing_until_it_is_let_through() {
    let (mut registry, id) = synced((0..12).map(|n| put(&format!("web-{n}"), 30_000 + n)).collect(), OFF);
    let mut revision = 0;
    while let Some(task) = task(&mut registry) {
        // Equal cluster IPs would be a conflict on a real host; here only their number matters.
        if matches!(task, Task::Create(..)) {
            revision += 1;
            let mut service = stored(&task, revision);
            service.spec.as_mut().unwrap().cluster_ip = None;
            service.spec.as_mut().unwrap().cluster_ips = None;
            registry.service_answered(service, NOW);
        }
    }
    registry.close(id, NOW);
    registry.effects();
    let (id, _) = registry.open(&tenant(), OFF, server(0), &hello(Tally::default()), NOW).unwrap();
    registry.line(id, FromAgent::End(End { count: 0, root: Tally::default().root }), NOW).unwrap();
    assert!(std::iter::from_fn(|| task(&mut registry)).all(|task| task == Task::Settled));
    let notices = registry.effects().notices;
    let standing = registry.services.twins("ns").count();
    assert!(standing > 10, "{standing}");
    assert!(matches!(&notices[..], [Notice { kind: crate::notice::NoticeKind::Emptied { .. }, .. }]), "{notices:?}");

    registry.cluster_seen(&uid("t"), ClusterState { mass_delete: Some(uid("vc")), ..OFF });
    let tasks: Vec<_> = std::iter::from_fn(|| task(&mut registry)).collect();
    assert_eq!(tasks.len(), standing);
    assert!(tasks.iter().all(|task| matches!(task, Task::Delete { .. })), "{tasks:?}");
}

#[test]
fn an_object_of_the_same_place_but_another_uid_is_not_deleted() {
    let (mut registry, id) = synced(vec![put("web", 30_080)], OFF);
    registry.line(id, FromAgent::Delete(Delete { key: key("web"), uid: uid("older") }), NOW).unwrap();
    assert_eq!(registry.tenants[&uid("t")].tally().count, 1);
}

#[test]
fn a_snapshot_that_does_not_add_up_ends_the_session_and_deletes_nothing() {
    let (mut registry, id) = synced(vec![put("web", 30_080)], OFF);
    let create = task(&mut registry).unwrap();
    registry.service_answered(stored(&create, 1), NOW);
    registry.close(id, NOW);
    let (id, _) = registry.open(&tenant(), OFF, server(0), &hello(Tally::default()), NOW).unwrap();
    let end = End { count: 1, root: Tally::default().root };
    assert!(registry.line(id, FromAgent::End(end), NOW).is_err());
    registry.close(id, NOW);
    assert!(std::iter::from_fn(|| task(&mut registry)).all(|task| !matches!(task, Task::Delete { .. })));
}

#[test]
fn a_twin_that_is_undone_three_times_is_contested() {
    let (mut registry, id) = synced(vec![put("web", 30_080)], OFF);
    let create = task(&mut registry).unwrap();
    let mut service = stored(&create, 1);
    registry.service_answered(service.clone(), NOW);
    registry.queue.add(&uid("t"), key("web"), Cause::Change);
    task(&mut registry);
    assert_eq!(reasons(&told(&mut registry, id)).last(), Some(&Reason::Applied));
    let mut given = Vec::new();
    for revision in 1..=3 {
        let mut damaged = service.clone();
        damaged.spec.as_mut().unwrap().external_ips = Some(vec!["192.0.2.1".to_owned()]);
        damaged.metadata.resource_version = Some((revision * 10).to_string());
        registry.service_seen(damaged, NOW);
        given.extend(reasons(&told(&mut registry, id)));
        registry.line(id, FromAgent::Put(put("web", 30_080)), NOW).unwrap();
        service.metadata.resource_version = Some((revision * 10 + 1).to_string());
        let patch = task(&mut registry);
        if revision < 3 {
            assert!(matches!(patch, Some(Task::Patch(..))), "{patch:?}");
        }
        registry.service_answered(service.clone(), NOW);
        registry.queue.add(&uid("t"), key("web"), Cause::Change);
        task(&mut registry);
        given.extend(reasons(&told(&mut registry, id)));
    }
    assert!(given.contains(&Reason::Contested), "{given:?}");
    let at = HostName { namespace: "ns".to_owned(), name: crate::name::twin("web", "default", "mine") };
    assert!(matches!(registry.services.get(&at), Some(twin::HostService::Twin(_))));
}

#[test]
fn whoever_went_after_the_look_up_gets_no_session() {
    let open = |registry: &mut Registry, now| registry.open(&tenant(), OFF, server(0), &hello(Tally::default()), now);
    let mut registry = Registry::new(uid("epoch"), 0);
    registry.pod_gone(&uid("pod-0"), NOW);
    assert_eq!(open(&mut registry, NOW).unwrap_err(), NotOpened::PodGone);
    registry.cluster_gone(&uid("t"), NOW);
    assert_eq!(open(&mut registry, NOW).unwrap_err(), NotOpened::ClusterGone);
    assert!(registry.census().sessions == 0 && registry.tenants.is_empty());
    // UIDs never come again, so the next to go may take the old ones off the list.
    registry.pod_gone(&uid("another"), Duration::from_secs(61));
    assert_eq!(registry.gone.len(), 1);
}

#[test]
fn an_older_look_at_a_cluster_does_not_replace_a_newer_one() {
    let at = |revision, k3k_syncs| ClusterState { revision, k3k_syncs, ..OFF };
    let (mut registry, id) = synced(vec![put("web", 30_080)], at(7, true));
    task(&mut registry);
    assert_eq!(reasons(&told(&mut registry, id)), [Reason::Adopting]);
    registry.close(id, NOW);
    let (_, _) = registry.open(&tenant(), at(5, false), server(0), &hello(Tally::default()), NOW).unwrap();
    assert!(registry.clusters[&uid("t")].k3k_syncs);
    registry.cluster_seen(&uid("t"), at(8, false));
    assert!(!registry.clusters[&uid("t")].k3k_syncs);
}

#[test]
fn what_a_forgotten_virtual_cluster_waited_for_is_forgotten_too() {
    let (mut registry, id) = synced(vec![], OFF);
    registry.service_seen(foreign(30_080, 5), NOW);
    registry.line(id, FromAgent::Put(numbers::pinned("web", 30_080)), NOW).unwrap();
    let create = task(&mut registry).unwrap();
    registry.service_answered(numbers::given(&create, 6, 31_000), NOW);
    look_again(&mut registry, "web");
    assert_eq!(registry.waiting.len(), 1);
    registry.close(id, NOW);
    let other = Hello { virtual_cluster: uid("another"), ..hello(Tally::default()) };
    registry.open(&tenant(), OFF, server(0), &other, NOW).unwrap();
    assert!(registry.waiting.is_empty() && registry.retries.is_empty());
}

#[test]
fn an_object_that_fails_again_and_again_has_one_time_of_retry() {
    let (mut registry, id) = synced(vec![], OFF);
    for _ in 0..5 {
        registry.line(id, FromAgent::Put(put("web", 30_080)), NOW).unwrap();
        let (tenant, key) = registry.take(9, NOW).unwrap();
        registry.refused(&tenant, &key, Refusal::Denied, &Held::default(), NOW);
        registry.done(&tenant, &key, NOW);
    }
    assert_eq!(registry.retries.len(), 1);
    registry.line(id, FromAgent::Delete(Delete { key: key("web"), uid: uid("web") }), NOW).unwrap();
    assert!(registry.retries.is_empty());
}
