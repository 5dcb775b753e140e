//! Ingresses: what they wait for, what they are refused for, and what of them stays.

use k3k_expose_proto::ingress::{Backend, BackendPort, Ingress as Asked, Path, PathType, Rule};
use k3k_expose_proto::message::ByeReason;

use super::*;
use k8s_openapi::api::networking::v1::Ingress;

/// What an `ExposurePolicy` says that admits hosts below this.
fn admits(suffix: &str) -> Option<ExposurePolicySpec> {
    Some(spec(json!({"allow": {"ingresses": {"classes": ["public"], "hostSuffixes": [suffix]}}})))
}

pub(super) fn shop(name: &str) -> Key {
    Key::of(Resource::Ingresses, "default", name).unwrap()
}

pub(super) fn asks(name: &str, service: &str) -> Put {
    asks_for(name, &format!("{name}.example"), &[service])
}

fn asks_for(name: &str, host: &str, services: &[&str]) -> Put {
    let port = BackendPort::Number(std::num::NonZeroU16::new(80).unwrap());
    let path = |service: &&str| Path {
        path: format!("/{service}"),
        path_type: PathType::Prefix,
        backend: Backend::Service { name: (*service).to_owned(), port: port.clone() },
    };
    let asked = Asked {
        ingress_class_name: Some("public".to_owned()),
        rules: vec![Rule { host: host.to_owned(), paths: services.iter().map(path).collect() }],
        ..Asked::default()
    };
    let object = Object::Ingress(Box::new(asked));
    let (hash, unusable) = (object.hash(), Unusable::default());
    Put { key: shop(name), uid: uid(&format!("v-{name}")), hash, seen: 0, unusable, object }
}

/// A Service without numbers, which nobody else can hold.
fn headless(name: &str) -> Put {
    let mut service = virtual_service(0);
    service.service_type = ServiceType::ClusterIP;
    service.cluster_ips = ClusterIps::Headless;
    let hash = Hash::of(&service);
    Put { hash, object: Object::Service(Box::new(service)), ..put(name, 0) }
}

/// A registry with that policy, in which these were said and a snapshot was completed.
fn said(puts: Vec<Put>) -> (Registry, SessionId) {
    let mut registry = listed();
    registry.policy_seen("p", admits("example"));
    let id = says(&mut registry, &tenant(), puts);
    (registry, id)
}

/// A session of a tenant in which these were said and a snapshot was completed.
fn says(registry: &mut Registry, tenant: &Tenant, puts: Vec<Put>) -> SessionId {
    let hello = Hello { ingresses: true, ..hello(Tally::default()) };
    let pod = ServerPod { uid: uid(&format!("pod-of-{}", tenant.id())), ordinal: 0 };
    let (id, _) = registry.open(tenant, cluster_of(tenant), pod, &hello, NOW).unwrap();
    end_with(registry, id, puts);
    id
}

/// A registry in which an Ingress stands with its Service.
fn standing() -> (Registry, SessionId, u32) {
    let mut revision = 0;
    let (mut registry, id) = said(vec![put("web", 30_080), asks("shop", "web")]);
    work(&mut registry, &mut revision);
    registry.line(id, FromAgent::Put(asks("shop", "web")), NOW).unwrap();
    work(&mut registry, &mut revision);
    assert_eq!((reason(&registry, "shop"), registry.ingresses.names().len()), (Some(Reason::Applied), 1));
    (registry, id, revision)
}

pub(super) fn end_with(registry: &mut Registry, id: SessionId, puts: Vec<Put>) {
    let mut tally = Tally::default();
    for put in puts {
        tally.add(&put.key, &put.uid, put.hash);
        registry.line(id, FromAgent::Put(put), NOW).unwrap();
    }
    registry.line(id, FromAgent::End(End { count: tally.count, root: tally.root }), NOW).unwrap();
}

/// An Ingress of the host after a merge patch, as far as these tests patch one.
fn patched(registry: &Registry, at: &HostName, patch: &serde_json::Value, revision: u32) -> Ingress {
    let twin = registry.ingresses.get(at).unwrap().twin.clone().unwrap();
    let mut annotations = twin.annotations.clone();
    for (key, value) in patch["metadata"]["annotations"].as_object().into_iter().flatten() {
        match value.as_str() {
            Some(value) => drop(annotations.insert(key.clone(), value.to_owned())),
            None => drop(annotations.remove(key)),
        }
    }
    let spec = if patch["spec"].is_null() { json!(twin.spec) } else { patch["spec"].clone() };
    let owner = json!({"apiVersion": "k3k.io/v1beta1", "kind": "Cluster", "name": "mine", "uid": "t"});
    let fields = json!({"f:metadata": {"f:annotations": {"f:expose.k3k.io/tls-secrets": {}}}});
    let metadata = json!({"name": at.name, "namespace": at.namespace, "uid": twin.uid, "labels": twin.labels,
        "resourceVersion": revision.to_string(), "annotations": annotations, "ownerReferences": [owner],
        "managedFields": [{"manager": "k3k-expose", "operation": "Update", "fieldsV1": fields}]});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

/// Carries out whatever there is to do.
pub(super) fn work(registry: &mut Registry, revision: &mut u32) {
    while let Some((tenant, key)) = registry.take(9, NOW) {
        loop {
            let task = registry.decide(&tenant, &key, Road::default(), NOW);
            *revision += 1;
            match &task {
                Task::Create(..) => registry.service_answered(stored(&task, *revision), NOW),
                Task::CreateIngress(_, ingress) => {
                    let mut ingress = ingress.as_ref().clone();
                    ingress.metadata.uid = Some(format!("host-{revision}"));
                    ingress.metadata.resource_version = Some(revision.to_string());
                    registry.ingress_answered(ingress, NOW);
                }
                Task::CreateSecret(at, _) => registry.secret_made(&tenant, at),
                Task::DeleteSecret(at) => registry.secret_deleted(&tenant, &key, at),
                Task::Patch(at, patch) if key.resource() == Resource::Ingresses => {
                    registry.ingress_answered(patched(registry, at, patch, *revision), NOW);
                }
                Task::Delete { at, .. } if key.resource() == Resource::Ingresses => {
                    registry.ingress_gone(at, Some(&revision.to_string()), NOW);
                }
                Task::Delete { at, .. } => registry.service_gone(at, Some(&revision.to_string()), NOW),
                Task::Settled => break,
                other => panic!("{other:?}"),
            }
        }
        registry.done(&tenant, &key, NOW);
    }
}

pub(super) fn reason(registry: &Registry, name: &str) -> Option<Reason> {
    reason_of(registry, "t", name)
}

fn reason_of(registry: &Registry, tenant: &str, name: &str) -> Option<Reason> {
    Some(registry.tenants[&uid(tenant)].record(&shop(name))?.answer.as_ref()?.reason)
}

#[test]
fn an_ingress_waits_for_its_service_and_is_refused_when_there_is_none() {
    let mut revision = 0;
    // Said before its Service, as keys are sorted.
    let (mut registry, id) = said(vec![asks("shop", "web"), asks("lost", "absent"), put("web", 30_080)]);
    work(&mut registry, &mut revision);
    assert_eq!(reason(&registry, "lost"), Some(Reason::BackendNotSynced));
    // host-api keeps no objects, so it asks again for the one that had to wait, if it had to.
    for line in told(&mut registry, id) {
        if let FromHost::Want(k3k_expose_proto::message::Want::Keys(keys)) = line {
            assert_eq!(keys, [shop("shop")]);
            registry.line(id, FromAgent::Put(asks("shop", "web")), NOW).unwrap();
        }
    }
    work(&mut registry, &mut revision);
    assert_eq!(reason(&registry, "shop"), Some(Reason::Applied));

    let gone = k3k_expose_proto::message::Delete { key: key("web"), uid: put("web", 30_080).uid };
    registry.line(id, FromAgent::Delete(gone), NOW).unwrap();
    work(&mut registry, &mut revision);
    registry.line(id, FromAgent::Put(asks("shop", "web")), NOW).unwrap();
    work(&mut registry, &mut revision);
    assert_eq!(reason(&registry, "shop"), Some(Reason::BackendNotSynced));
    assert_eq!(registry.ingresses.names(), []);
}

#[test]
fn a_policy_that_changes_is_asked_anew_about_everything() {
    let (mut registry, id, mut revision) = standing();
    told(&mut registry, id);
    registry.policy_seen("p", None);
    let lines = told(&mut registry, id);
    let shows = |line: &FromHost| matches!(line, FromHost::Beat(beat) if beat.ingress_classes == Some(Vec::new()));
    assert!(lines.iter().any(shows), "{lines:?}");
    assert!(lines.iter().any(|line| matches!(line, FromHost::Want(_))), "{lines:?}");
    registry.line(id, FromAgent::Put(asks("shop", "web")), NOW).unwrap();
    work(&mut registry, &mut revision);
    assert_eq!((reason(&registry, "shop"), registry.ingresses.names()), (Some(Reason::ClassNotAdmitted), Vec::new()));
}

#[test]
fn a_policy_of_the_host_decides_about_ingresses_at_once_also_of_an_agent_that_keeps_silent() {
    let (mut registry, id, mut revision) = standing();
    told(&mut registry, id);
    let more = json!({"allow": {"ingresses": {"classes": ["public", "more"], "hostSuffixes": ["example"]}}});
    registry.policy_seen("p", Some(spec(more)));
    let lines = told(&mut registry, id);
    let classes = Some(vec!["more".to_owned(), "public".to_owned()]);
    assert!(
        lines.iter().any(|line| matches!(line, FromHost::Beat(beat) if beat.ingress_classes == classes)),
        "{lines:?}"
    );
    registry.line(id, FromAgent::Put(asks("shop", "web")), NOW).unwrap();
    work(&mut registry, &mut revision);
    assert_eq!((reason(&registry, "shop"), registry.ingresses.names().len()), (Some(Reason::Applied), 1));
    // Not a word of the agent from here on.
    registry.policy_seen("p", admits("other.example"));
    work(&mut registry, &mut revision);
    assert_eq!(registry.ingresses.names(), []);
    registry.line(id, FromAgent::Put(asks("shop", "web")), NOW).unwrap();
    work(&mut registry, &mut revision);
    assert_eq!(reason(&registry, "shop"), Some(Reason::HostNotAdmitted));
}

#[test]
fn what_an_agent_does_not_speak_for_stays_and_cannot_be_said() {
    let (mut registry, id, mut revision) = standing();
    registry.close(id, NOW);

    let (id, welcome) =
        registry.open(&tenant(), cluster_of(&tenant()), server(0), &hello(Tally::default()), NOW).unwrap();
    assert_eq!((welcome.resume, welcome.ingress_classes), (Resume::Snapshot, None));
    end_with(&mut registry, id, vec![put("web", 30_080)]);
    work(&mut registry, &mut revision);
    assert_eq!(registry.ingresses.names().len(), 1);
    let refused = registry.line(id, FromAgent::Put(asks("shop", "web")), NOW).unwrap_err();
    assert_eq!(refused.reason, ByeReason::Malformed);
    registry.close(id, NOW);

    // The set is the same, but now it says that there is no Ingress.
    let mut tally = Tally::default();
    tally.add(&key("web"), &put("web", 30_080).uid, put("web", 30_080).hash);
    let hello = Hello { ingresses: true, ..hello(tally) };
    let (id, welcome) = registry.open(&tenant(), cluster_of(&tenant()), server(0), &hello, NOW).unwrap();
    assert_eq!(welcome.resume, Resume::Snapshot);
    end_with(&mut registry, id, vec![put("web", 30_080)]);
    work(&mut registry, &mut revision);
    assert_eq!(registry.ingresses.names(), []);
}

#[test]
fn what_policy_admits_no_more_goes_though_its_agent_does_not_answer_or_speaks_of_no_ingress_or_is_away() {
    for agent in ["does not answer", "speaks of no Ingress", "is away", "is away since the start"] {
        let (mut registry, id, mut revision) = standing();
        match agent {
            "does not answer" => {}
            "speaks of no Ingress" => {
                registry.close(id, NOW);
                let (id, _) =
                    registry.open(&tenant(), cluster_of(&tenant()), server(0), &hello(Tally::default()), NOW).unwrap();
                end_with(&mut registry, id, vec![put("web", 30_080)]);
            }
            "is away" => registry.close(id, NOW),
            _ => {
                registry.close(id, NOW);
                registry.tenants.clear();
            }
        }
        work(&mut registry, &mut revision);
        assert_eq!(registry.ingresses.names().len(), 1, "{agent}");
        registry.policy_seen("p", None);
        work(&mut registry, &mut revision);
        assert_eq!(registry.ingresses.names(), [], "{agent}");
    }
}

#[test]
fn what_stood_when_the_process_began_is_judged_once_it_is_known_what_is_admitted_and_not_before() {
    for last in ["policies", "namespaces", "clusters"] {
        for (policy, stays) in [(admits("example"), 1), (admits("other.example"), 0), (None, 0)] {
            let (before, ..) = standing();
            let mut registry = Registry::new(uid("next"), 0);
            registry.ingresses = before.ingresses;
            registry.cluster_seen(tenant().id(), cluster_of(&tenant()));
            let list = |registry: &mut Registry, what: &str| match what {
                "policies" => {
                    registry.policy_seen("p", policy.clone());
                    registry.policies_listed(&["p".to_owned()].into());
                }
                "namespaces" => registry.namespaces_listed(&BTreeSet::new()),
                _ => registry.clusters_listed(&[uid("t")].into(), NOW),
            };
            for what in ["policies", "namespaces", "clusters"].into_iter().filter(|what| *what != last) {
                list(&mut registry, what);
            }
            // A term that begins changes nothing about that.
            registry.begin_anew(uid("term"));
            work(&mut registry, &mut 99);
            assert_eq!(registry.ingresses.names().len(), 1, "{last} are not listed yet");
            list(&mut registry, last);
            registry.begin_anew(uid("term"));
            work(&mut registry, &mut 99);
            assert_eq!(registry.ingresses.names().len(), stays, "{last} {policy:?}");
        }
    }
}

#[test]
fn a_deletion_that_failed_is_tried_again_though_the_agent_keeps_silent() {
    let (mut registry, _, mut revision) = standing();
    registry.policy_seen("p", None);
    let (tenant, key) = registry.take(9, NOW).unwrap();
    assert!(matches!(registry.decide(&tenant, &key, Road::default(), NOW), Task::Delete { .. }));
    registry.refused(&tenant, &key, Refusal::Unavailable, &Held::default(), NOW);
    registry.done(&tenant, &key, NOW);
    while let Some(due) = registry.tick(NOW) {
        registry.tick(due);
        work(&mut registry, &mut revision);
        if registry.ingresses.names().is_empty() {
            return;
        }
    }
    panic!("nothing is due, and it stands");
}

#[test]
fn what_k3k_left_is_not_judged_before_it_is_adopted() {
    let (mut registry, _, mut revision) = standing();
    let at = registry.ingresses.names().remove(0);
    let mut theirs =
        patched(&registry, &at, &json!({"metadata": {"annotations": {"expose.k3k.io/uid": null}}}), revision + 1);
    theirs.metadata.labels.as_mut().unwrap().remove("app.kubernetes.io/managed-by");
    registry.ingress_seen(theirs, NOW);
    registry.policy_seen("p", None);
    work(&mut registry, &mut revision);
    assert_eq!(registry.ingresses.names(), [at]);
}

#[test]
fn an_ingress_waits_for_the_first_service_that_it_lacks_alone_and_for_none_when_it_stands() {
    let mut revision = 0;
    let names: Vec<String> = (0..250).map(|number| format!("web-{number}")).collect();
    let services: Vec<&str> = names.iter().map(String::as_str).collect();
    let (mut registry, id) = said(vec![asks_for("many", "many.example", &services)]);
    work(&mut registry, &mut revision);
    let waits = |registry: &Registry| registry.waiting.values().map(BTreeSet::len).sum::<usize>();
    assert_eq!((reason(&registry, "many"), waits(&registry)), (Some(Reason::BackendNotSynced), 1));
    for name in &services {
        registry.line(id, FromAgent::Put(headless(name)), NOW).unwrap();
    }
    work(&mut registry, &mut revision);
    registry.line(id, FromAgent::Put(asks_for("many", "many.example", &services)), NOW).unwrap();
    work(&mut registry, &mut revision);
    assert_eq!((reason(&registry, "many"), waits(&registry)), (Some(Reason::Applied), 0));

    let gone = Delete { key: key("web-249"), uid: uid("web-249") };
    registry.line(id, FromAgent::Delete(gone), NOW).unwrap();
    work(&mut registry, &mut revision);
    let wants = |line: &FromHost| matches!(line, FromHost::Want(Want::Keys(keys)) if *keys == [shop("many")]);
    assert!(told(&mut registry, id).iter().any(wants));
}

#[test]
fn a_host_that_is_free_again_goes_to_whoever_waited_longest_and_to_others_if_that_one_is_silent() {
    let (mut registry, id, mut revision) = standing();
    let host = "shop.example";
    let [late, early] = ["a", "b"].map(|name| Tenant::for_test(name, "ns", name));
    let mut sessions = BTreeMap::new();
    let wish = |tenant: &Tenant| asks_for(tenant.cluster(), host, &["web"]);
    for tenant in [&early, &late] {
        let session = says(&mut registry, tenant, vec![put("web", 0), wish(tenant)]);
        work(&mut registry, &mut revision);
        sessions.insert(tenant.cluster().to_owned(), session);
    }
    let reasons =
        |registry: &Registry| [&early, &late].map(|tenant| reason_of(registry, tenant.id().as_str(), tenant.cluster()));
    assert_eq!(reasons(&registry), [Some(Reason::HostTaken); 2]);
    registry.line(id, FromAgent::Delete(Delete { key: shop("shop"), uid: uid("v-shop") }), NOW).unwrap();
    work(&mut registry, &mut revision);
    // The later one is faster.
    registry.line(sessions["a"], FromAgent::Put(wish(&late)), NOW).unwrap();
    work(&mut registry, &mut revision);
    assert_eq!(reasons(&registry), [Some(Reason::HostTaken); 2]);
    let due = registry.tick(NOW).unwrap();
    registry.tick(due);
    registry.line(sessions["a"], FromAgent::Put(wish(&late)), due).unwrap();
    let mut other = BTreeMap::new();
    while let Some((tenant, key)) = registry.take(9, NOW) {
        other.insert((tenant.clone(), key.clone()), registry.decide(&tenant, &key, Road::default(), due));
        registry.done(&tenant, &key, NOW);
    }
    assert!(matches!(other[&(uid("a"), shop("a"))], Task::CreateIngress(..)), "{other:?}");

    registry.line(sessions["b"], FromAgent::Put(wish(&early)), NOW).unwrap();
    work(&mut registry, &mut revision);
    assert_eq!(reasons(&registry)[0], Some(Reason::Applied));
}

#[test]
fn whoever_loses_a_twin_to_somebody_on_the_host_loses_no_host() {
    let (mut registry, id, mut revision) = standing();
    let camper = Tenant::for_test("a", "ns", "a");
    let wish = asks_for("a", "shop.example", &["web"]);
    let session = says(&mut registry, &camper, vec![put("web", 0), wish.clone()]);
    work(&mut registry, &mut revision);
    let at = registry.ingresses.names().remove(0);
    registry.ingress_gone(&at, None, NOW);
    registry.line(session, FromAgent::Put(wish), NOW).unwrap();
    work(&mut registry, &mut revision);
    assert_eq!(reason_of(&registry, "a", "a"), Some(Reason::HostTaken));
    registry.line(id, FromAgent::Put(asks("shop", "web")), NOW).unwrap();
    work(&mut registry, &mut revision);
    assert_eq!((reason(&registry, "shop"), registry.ingresses.names()), (Some(Reason::Applied), vec![at]));
}

/// Opens a session as another virtual cluster, which may not change what stands.
fn reopened_as_another(registry: &mut Registry, id: SessionId) -> SessionId {
    registry.close(id, NOW);
    let hello = Hello { ingresses: true, virtual_cluster: uid("another"), ..hello(Tally::default()) };
    let pod = ServerPod { uid: uid("pod-of-t"), ordinal: 0 };
    registry.open(&tenant(), cluster_of(&tenant()), pod, &hello, NOW).unwrap().0
}

#[test]
fn no_answer_keeps_an_ingress_that_no_policy_admits_any_more() {
    let denied = json!({"allow": {"ingresses": {"classes": ["public"], "hostSuffixes": ["example"]}},
        "deny": {"ingresses": {"hostSuffixes": ["shop.example"]}}});
    for another in [false, true] {
        let (mut registry, mut id, mut revision) = standing();
        if another {
            id = reopened_as_another(&mut registry, id);
        }
        registry.policy_seen("p", Some(spec(denied.clone())));
        // Before it is the twin's turn, the agent wants something else there, which waits, or is not its to have.
        registry.line(id, FromAgent::Put(asks_for("shop", "ok.example", &["late"])), NOW).unwrap();
        work(&mut registry, &mut revision);
        assert!(registry.ingresses.names().is_empty(), "another virtual cluster: {another}");
    }
}

#[test]
fn no_answer_keeps_a_service_that_no_policy_admits_any_more() {
    let mut revision = 0;
    let (mut registry, id) = said(vec![put("web", 30_080)]);
    work(&mut registry, &mut revision);
    let id = reopened_as_another(&mut registry, id);
    registry.policy_seen("p", Some(spec(json!({"deny": {"serviceTypes": ["NodePort"]}}))));
    registry.line(id, FromAgent::Put(headless("web")), NOW).unwrap();
    work(&mut registry, &mut revision);
    let twins = registry.services.names();
    let types: Vec<_> = twins.iter().filter_map(|at| registry.services.get(at)?.twin()?.spec.type_.clone()).collect();
    assert_eq!(types, ["ClusterIP"], "the one that was denied went, and what is wanted now was made");
}
