//! Table tests of where the sidecar fits.

#![expect(clippy::needless_pass_by_value, reason = "cases read best when written in place")]

use super::*;
use serde_json::{Value, json};

fn spec(resources: Value) -> PodSpec {
    serde_json::from_value(json!({"containers": [{"name": "k3s", "resources": resources}]})).unwrap()
}

fn range(item: Value) -> Vec<LimitRange> {
    vec![serde_json::from_value(json!({"metadata": {"name": "r"}, "spec": {"limits": [item]}})).unwrap()]
}

fn quota(hard: Value, used: Value) -> Vec<ResourceQuota> {
    vec![
        serde_json::from_value(json!({"metadata": {"name": "q"}, "spec": {"hard": hard}, "status": {"used": used}}))
            .unwrap(),
    ]
}

fn found(result: Result<ResourceRequirements, NoRoom>) -> Value {
    json!(result.unwrap())
}

#[test]
fn nothing_in_the_way_gives_the_wishes() {
    let expected = json!({"requests": {"cpu": "10m", "memory": "16777216"},
        "limits": {"cpu": "500m", "memory": "67108864"}});
    assert_eq!(found(room(&spec(json!({})), &[], &[])), expected);
}

#[test]
fn a_limit_range_moves_requests_and_limits_or_refuses() {
    let with = |item| room(&spec(json!({})), &range(item), &[]);
    let higher = found(with(json!({"type": "Container", "min": {"cpu": "50m", "memory": "128Mi"}})));
    assert_eq!(higher["requests"], json!({"cpu": "50m", "memory": "134217728"}));
    assert_eq!(higher["limits"], json!({"cpu": "500m", "memory": "134217728"}));
    let lower = found(with(json!({"type": "Container", "max": {"cpu": "100m"}})));
    assert_eq!(lower["limits"]["cpu"], "100m");
    let ratio = found(with(json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}})));
    assert_eq!(ratio["limits"]["cpu"], "20m");
    let refused = with(json!({"type": "Container", "max": {"memory": "8Mi"}}));
    assert_eq!(refused, Err(NoRoom::LimitRange("r".to_owned(), "memory".to_owned())));
    let pod = room(
        &spec(json!({"limits": {"memory": "100Mi"}})),
        &range(json!({"type": "Pod", "max": {"memory": "128Mi"}})),
        &[],
    );
    assert_eq!(pod, Err(NoRoom::LimitRange("r".to_owned(), "memory".to_owned())));
}

#[test]
fn a_quota_without_room_refuses() {
    let of = |hard: Value, used: Value| {
        room(&spec(json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}})), &[], &quota(hard, used))
    };
    assert!(of(json!({"requests.cpu": "2"}), json!({"requests.cpu": "500m"})).is_ok());
    for (key, hard, used) in [("requests.cpu", "2", "1"), ("cpu", "1", "0"), ("limits.cpu", "2", "0")] {
        assert_eq!(of(json!({key: hard}), json!({key: used})), Err(NoRoom::Quota("q".to_owned(), key.to_owned())));
    }
    assert!(of(json!({"count/pods": "0", "requests.storage": "0"}), json!({})).is_ok(), "others are not ours to judge");
}

#[test]
fn a_quota_of_other_pods_does_not_count() {
    let mut quotas = quota(json!({"cpu": "0"}), json!({}));
    quotas[0].spec.as_mut().unwrap().scopes = Some(vec!["BestEffort".to_owned()]);
    assert!(room(&spec(json!({})), &[], &quotas).is_ok());
    quotas[0].spec.as_mut().unwrap().scopes = Some(vec!["NotBestEffort".to_owned()]);
    assert!(room(&spec(json!({})), &[], &quotas).is_err());
}

#[test]
fn what_a_limit_range_asks_of_whole_pods_is_met_or_refused() {
    let with = |resources: Value, item: Value| room(&spec(resources), &range(item), &[]);
    // The sum of limits must reach the minimum, and k3s has none.
    let raised = with(json!({"requests": {"memory": "1Gi"}}), json!({"type": "Pod", "min": {"memory": "512Mi"}}));
    assert_eq!(found(raised)["limits"]["memory"], "536870912");
    let both = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}});
    let ratio = with(both.clone(), json!({"type": "Pod", "maxLimitRequestRatio": {"cpu": "2"}}));
    assert_eq!(found(ratio)["limits"]["cpu"], "20m");
    let refused = Err(NoRoom::LimitRange("r".to_owned(), "cpu".to_owned()));
    assert_eq!(with(both.clone(), json!({"type": "Pod", "max": {"cpu": "2"}})), refused);
    let requests = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1"}});
    assert_eq!(with(requests, json!({"type": "Pod", "max": {"cpu": "1005m"}})), refused);
}

#[test]
fn every_limit_range_counts_in_any_order() {
    let most = range(json!({"type": "Container", "max": {"cpu": "100m"}}));
    let least = range(json!({"type": "Container", "min": {"cpu": "200m"}}));
    for ranges in [[most.clone(), least.clone()].concat(), [least, most].concat()] {
        assert_eq!(room(&spec(json!({})), &ranges, &[]), Err(NoRoom::LimitRange("r".to_owned(), "cpu".to_owned())));
    }
}

#[test]
fn what_the_api_server_fills_in_counts_too() {
    let filled = range(json!({"type": "Container", "default": {"ephemeral-storage": "2Gi"},
        "defaultRequest": {"ephemeral-storage": "1Gi"}}));
    let resources = found(room(&spec(json!({})), &filled, &[]));
    assert_eq!(resources["requests"]["ephemeral-storage"], "1073741824");
    let full = quota(json!({"requests.ephemeral-storage": "1Gi"}), json!({"requests.ephemeral-storage": "1Mi"}));
    let expected = NoRoom::Quota("q".to_owned(), "requests.ephemeral-storage".to_owned());
    assert_eq!(room(&spec(json!({})), &filled, &full), Err(expected));
    assert!(room(&spec(json!({})), &[], &full).is_ok(), "nobody fills anything in");
}

#[test]
fn what_is_not_understood_keeps_the_agent_out() {
    let odd = |place: &str| NoRoom::Unreadable(place.to_owned());
    for item in [
        json!({"type": "Container", "max": {"cpu": "many"}}),
        json!({"type": "Pod", "min": {"memory": "-1"}}),
        json!({"type": "Container", "default": {"example.com/x": "1e99"}}),
    ] {
        assert_eq!(room(&spec(json!({})), &range(item.clone()), &[]), Err(odd("LimitRange r")), "{item}");
    }
    let quotas = quota(json!({"cpu": "1e99"}), json!({}));
    assert_eq!(room(&spec(json!({})), &[], &quotas), Err(odd("ResourceQuota q")));
    let quotas = quota(json!({"requests.storage": "1e99", "cpu": "1e3"}), json!({}));
    assert!(room(&spec(json!({})), &[], &quotas).is_ok(), "others' are theirs to understand");
    assert_eq!(room(&spec(json!({"limits": {"cpu": "?"}})), &[], &[]), Err(odd("the pod")));
}

#[test]
fn a_quota_that_begins_to_count_the_pod_for_the_sidecars_sake_refuses_what_the_pod_lacks() {
    let scoped = |hard: Value, used: Value| {
        let mut quotas = quota(hard, used);
        quotas[0].spec.as_mut().unwrap().scopes = Some(vec!["NotBestEffort".to_owned()]);
        quotas
    };
    let refused = |key: &str| Err(NoRoom::Quota("q".to_owned(), key.to_owned()));
    let plenty = scoped(json!({"limits.memory": "1Ti"}), json!({}));
    assert_eq!(room(&spec(json!({})), &[], &plenty), refused("limits.memory"), "k3s says no limit");
    assert!(room(&spec(json!({"limits": {"memory": "1Gi"}})), &[], &plenty).is_ok());
    assert_eq!(room(&spec(json!({})), &[], &scoped(json!({"pods": "3"}), json!({"pods": "3"}))), refused("pods"));
    assert!(room(&spec(json!({})), &[], &scoped(json!({"pods": "3"}), json!({"pods": "2"}))).is_ok());
    assert!(room(&spec(json!({})), &[], &quota(json!({"pods": "3"}), json!({"pods": "3"}))).is_ok(), "as without");
}

#[test]
fn a_quota_of_a_priority_class_counts_pods_of_that_class() {
    let mut spec = spec(json!({}));
    spec.priority_class_name = Some("high".to_owned());
    for (operator, values, counts) in [
        ("In", json!(["high"]), true),
        ("In", json!(["low"]), false),
        ("NotIn", json!(["low"]), true),
        ("NotIn", json!(["high"]), false),
        ("Exists", json!([]), true),
        ("DoesNotExist", json!([]), false),
    ] {
        let mut quotas = quota(json!({"cpu": "0"}), json!({}));
        let selector = json!({"matchExpressions":
            [{"scopeName": "PriorityClass", "operator": operator, "values": values}]});
        quotas[0].spec.as_mut().unwrap().scope_selector = Some(serde_json::from_value(selector).unwrap());
        assert_eq!(room(&spec, &[], &quotas).is_err(), counts, "{operator} {values}");
    }
}

#[test]
fn an_init_container_counts_beside_the_sidecars_before_it_and_pods_may_say_their_own_bounds() {
    let mut spec = spec(json!({"requests": {"cpu": "1"}}));
    let init = json!([
        {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}},
        {"name": "once", "resources": {"requests": {"cpu": "3"}}}]);
    spec.init_containers = Some(serde_json::from_value(init).unwrap());
    let quotas = |hard: &str| quota(json!({"cpu": hard}), json!({}));
    assert!(room(&spec, &[], &quotas("4")).is_ok());
    assert!(room(&spec, &[], &quotas("3999m")).is_err());
    spec.init_containers = None;
    let bounds = |cpu: &str| Some(serde_json::from_value(json!({"requests": {"cpu": cpu}})).unwrap());
    spec.resources = bounds("1010m");
    assert!(room(&spec, &[], &[]).is_ok());
    spec.resources = bounds("1009m");
    assert_eq!(room(&spec, &[], &[]), Err(NoRoom::Pod("cpu".to_owned())));
}
