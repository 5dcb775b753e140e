//! Ingresses: what they wait for, what they are refused for, and what of them stays.

use k3k_expose_proto::ingress::{Backend, BackendPort, Ingress as Asked, Path, PathType, Rule};
use k3k_expose_proto::message::ByeReason;

use super::*;
use crate::ingress::policy::Policy;

const POLICY: &str = "{classes: [public], tenants: [{namespace: ns, hostSuffixes: [example]}]}";

fn shop(name: &str) -> Key {
    Key::of(Resource::Ingresses, "default", name).unwrap()
}

fn asks(name: &str, service: &str) -> Put {
    let port = BackendPort::Number(std::num::NonZeroU16::new(80).unwrap());
    let backend = Backend::Service { name: service.to_owned(), port };
    let path = Path { path: String::new(), path_type: PathType::Prefix, backend };
    let asked = Asked {
        ingress_class_name: Some("public".to_owned()),
        rules: vec![Rule { host: format!("{name}.example"), paths: vec![path] }],
        ..Asked::default()
    };
    let object = Object::Ingress(Box::new(asked));
    let (hash, unusable) = (object.hash(), Unusable::default());
    Put { key: shop(name), uid: uid(&format!("v-{name}")), hash, seen: 0, unusable, object }
}

/// A registry with that policy, in which these were said and a snapshot was completed.
fn said(puts: Vec<Put>) -> (Registry, SessionId) {
    let mut registry = Registry::new(uid("epoch"), 0);
    registry.set_ingress_policy(Policy::parse(POLICY).unwrap());
    let hello = Hello { ingresses: true, ..hello(Tally::default()) };
    let (id, _) = registry.open(&tenant(), OFF, server(0), &hello, NOW).unwrap();
    end_with(&mut registry, id, puts);
    (registry, id)
}

fn end_with(registry: &mut Registry, id: SessionId, puts: Vec<Put>) {
    let mut tally = Tally::default();
    for put in puts {
        tally.add(&put.key, &put.uid, put.hash);
        registry.line(id, FromAgent::Put(put), NOW).unwrap();
    }
    registry.line(id, FromAgent::End(End { count: tally.count, root: tally.root }), NOW).unwrap();
}

/// Carries out whatever there is to do.
fn work(registry: &mut Registry, revision: &mut u32) {
    while let Some((tenant, key)) = registry.take(9) {
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
                Task::Delete { at, .. } if key.resource() == Resource::Ingresses => {
                    registry.ingress_gone(at, Some(&revision.to_string()), NOW);
                }
                Task::Delete { at, .. } => registry.service_gone(at, Some(&revision.to_string()), NOW),
                Task::Settled => break,
                other => panic!("{other:?}"),
            }
        }
        registry.done(&tenant, &key);
    }
}

fn reason(registry: &Registry, name: &str) -> Option<Reason> {
    Some(registry.tenants[&uid("t")].record(&shop(name))?.answer.as_ref()?.reason)
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
    let mut revision = 0;
    let (mut registry, id) = said(vec![put("web", 30_080), asks("shop", "web")]);
    work(&mut registry, &mut revision);
    registry.line(id, FromAgent::Put(asks("shop", "web")), NOW).unwrap();
    work(&mut registry, &mut revision);
    assert_eq!((reason(&registry, "shop"), registry.ingresses.names().len()), (Some(Reason::Applied), 1));
    told(&mut registry, id);
    registry.set_ingress_policy(Policy::default());
    let lines = told(&mut registry, id);
    let shows = |line: &FromHost| matches!(line, FromHost::Beat(beat) if beat.ingress_classes == Some(Vec::new()));
    assert!(lines.iter().any(shows), "{lines:?}");
    assert!(lines.iter().any(|line| matches!(line, FromHost::Want(_))), "{lines:?}");
    registry.line(id, FromAgent::Put(asks("shop", "web")), NOW).unwrap();
    work(&mut registry, &mut revision);
    assert_eq!((reason(&registry, "shop"), registry.ingresses.names()), (Some(Reason::ClassNotAdmitted), Vec::new()));
}

#[test]
fn what_an_agent_does_not_speak_for_stays_and_cannot_be_said() {
    let mut revision = 0;
    let (mut registry, id) = said(vec![put("web", 30_080), asks("shop", "web")]);
    work(&mut registry, &mut revision);
    registry.line(id, FromAgent::Put(asks("shop", "web")), NOW).unwrap();
    work(&mut registry, &mut revision);
    registry.close(id, NOW);

    let (id, welcome) = registry.open(&tenant(), OFF, server(0), &hello(Tally::default()), NOW).unwrap();
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
    let (id, welcome) = registry.open(&tenant(), OFF, server(0), &hello, NOW).unwrap();
    assert_eq!(welcome.resume, Resume::Snapshot);
    end_with(&mut registry, id, vec![put("web", 30_080)]);
    work(&mut registry, &mut revision);
    assert_eq!(registry.ingresses.names(), []);
}
