//! What tenants may have: counted, refused, let in again.

use super::*;

fn reason(registry: &Registry, name: &str) -> Option<Reason> {
    registry.record(&uid("t"), &key(name)).and_then(|record| record.answer.as_ref().map(|answer| answer.reason))
}

#[test]
fn an_unchanged_policy_asks_nobody_again_and_a_changed_one_everybody_it_concerns() {
    let (mut registry, id) = synced(vec![put("web", 30_080)], OFF);
    registry.conclude(&uid("t"), &key("web"), Reason::Applied, Vec::new());
    let wants = |registry: &mut Registry| {
        std::iter::from_fn(|| registry.next_line(id)).filter(|line| matches!(line, FromHost::Want(_))).count()
    };
    registry.policy_seen("p", Some(spec(json!({"allow": {}}))));
    assert_eq!(wants(&mut registry), 0, "it says the same as the safe defaults");
    registry.policies_listed(&["p".to_owned()].into());
    registry.namespaces_listed(&BTreeSet::new());
    assert_eq!(registry.policy_revision(), None, "whom it is about is not known before all Clusters are");
    registry.clusters_listed(&[uid("t")].into(), NOW);
    let revision = registry.policy_revision();
    assert!(revision.is_some());
    registry.policy_seen("p", Some(spec(json!({"allow": {}}))));
    assert_eq!((wants(&mut registry), registry.policy_revision()), (0, revision));
    registry.policy_seen("p", Some(spec(json!({"allow": {"nodePorts": {"most": 3}}}))));
    assert_eq!(wants(&mut registry), 1);
    registry.conclude(&uid("t"), &key("web"), Reason::Applied, Vec::new());
    registry.policies_listed(&BTreeSet::new());
    assert_eq!(wants(&mut registry), 1, "the safe defaults hold again");
    assert_eq!(registry.grant(&uid("t")).policy, None);
}

#[test]
fn labels_of_namespace_and_cluster_decide_which_policy_counts() {
    let labels = |value: &str| [("tier".to_owned(), value.to_owned())].into();
    let (mut registry, _) = synced(vec![], OFF);
    let by = |field: &str| spec(json!({field: {"matchLabels": {"tier": "gold"}}, "allow": {}}));
    registry.policy_seen("by-namespace", Some(by("namespaceSelector")));
    registry.policy_seen("by-cluster", Some(by("clusterSelector")));
    let policy = |registry: &Registry| registry.grant(&uid("t")).policy.clone();
    assert_eq!(policy(&registry), None);
    let state = |revision, labels| ClusterState { revision, namespace: "ns".to_owned(), labels, ..OFF };
    registry.cluster_seen(&uid("t"), state(1, BTreeMap::new()));
    registry.namespace_seen("ns", Some(&labels("gold")));
    assert_eq!(policy(&registry).as_deref(), Some("by-namespace"));
    registry.cluster_seen(&uid("t"), state(2, labels("gold")));
    assert_eq!(policy(&registry).as_deref(), Some("by-cluster"));
    let verdicts = registry.verdicts();
    assert_eq!((verdicts["by-cluster"].reach.governs, verdicts["by-namespace"].reach.clusters), (1, 1));
    registry.cluster_seen(&uid("t"), state(3, labels("silver")));
    registry.namespaces_listed(&BTreeSet::new());
    assert_eq!(policy(&registry), None);
}

#[test]
fn a_type_that_is_denied_has_no_twin_and_the_reason_is_told() {
    let (mut registry, _) = synced(vec![put("web", 30_080)], OFF);
    registry.policy_seen("p", Some(spec(json!({"deny": {"serviceTypes": ["NodePort"]}}))));
    let id = registry.tenants[&uid("t")].session.unwrap();
    registry.line(id, FromAgent::Put(put("late", 30_081)), NOW).unwrap();
    assert_eq!(registry.decide(&uid("t"), &key("late"), Road::Table, NOW), Task::Settled);
    assert_eq!(reason(&registry, "late"), Some(Reason::TypeNotAdmitted));
}

#[test]
fn what_is_deleted_already_is_not_deleted_once_more() {
    let (mut registry, id) = synced(vec![put("web", 30_080)], OFF);
    let create = task(&mut registry).unwrap();
    registry.service_seen(stored(&create, 1), NOW);
    assert_eq!(look_again(&mut registry, "web"), Task::Settled);
    registry.policy_seen("p", Some(spec(json!({"deny": {"serviceTypes": ["NodePort"]}}))));
    registry.line(id, FromAgent::Put(put("web", 30_080)), NOW).unwrap();
    let Some(Task::Delete { uid: deleted, .. }) = task(&mut registry) else { panic!("a deletion") };
    assert!(registry.deleted(&uid("t"), &key("web"), &deleted));
    assert_eq!(reason(&registry, "web"), Some(Reason::TwinTerminating));
    // Asked for and said again before the watch shows that the twin is gone, and older news of it.
    registry.line(id, FromAgent::Put(put("web", 30_080)), NOW).unwrap();
    registry.service_seen(stored(&create, 2), NOW);
    assert_eq!(task(&mut registry), Some(Task::Settled));
    assert_eq!(reason(&registry, "web"), Some(Reason::TypeNotAdmitted));
}

#[test]
fn what_is_being_made_counts_already() {
    let (mut registry, id) = synced(vec![], OFF);
    registry.policy_seen("p", Some(spec(json!({"allow": {"nodePorts": {"most": 1}}}))));
    for (name, port) in [("a", 30_081), ("b", 30_082)] {
        registry.line(id, FromAgent::Put(put(name, port)), NOW).unwrap();
    }
    let tenant = uid("t");
    assert!(matches!(registry.decide(&tenant, &key("a"), Road::Table, NOW), Task::Create(..)));
    assert_eq!(registry.decide(&tenant, &key("b"), Road::Table, NOW), Task::Settled);
    assert_eq!(reason(&registry, "b"), Some(Reason::TooManyNodePorts));
    // The host did not take the first one after all.
    registry.done(&tenant, &key("a"), NOW);
    assert!(registry.record(&tenant, &key("b")).unwrap().stale, "it is asked for again");
}
