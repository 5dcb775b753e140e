//! Monitors, alerts and dashboard ask for what the two processes tell, and for nothing else.

use std::collections::{BTreeMap, BTreeSet};

use k3k_expose_host_api::inject::{Settings, command};
use k3k_expose_host_api::twin::CLUSTER_NAME;
use k3k_expose_tests::exposed::{self, Metric};
use k3k_expose_tests::{manifest, readme};
use serde_json::{Value, json};

/// Labels that Prometheus adds to every series of ours.
const ADDED: [&str; 5] = ["namespace", "pod", "job", "instance", "le"];

fn yaml(file: &str) -> Value {
    serde_saphyr::from_str(&text(file)).unwrap()
}

fn text(file: &str) -> String {
    std::fs::read_to_string(manifest::folder().join("monitoring").join(file)).unwrap()
}

/// The metric of each sample that either process tells.
fn samples() -> BTreeMap<String, Metric> {
    let all = exposed::by_both().unwrap().into_iter().flatten();
    all.flat_map(|(name, metric)| metric.samples(&name).into_iter().map(move |sample| (sample, metric.clone())))
        .collect()
}

fn rules() -> Vec<Value> {
    let groups = yaml("prometheus-rule.yaml")["spec"]["groups"].as_array().unwrap().clone();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// Every string under a key, wherever it is.
fn all(value: &Value, key: &str) -> Vec<String> {
    match value {
        Value::Object(map) => {
            let own = map.get(key).and_then(Value::as_str).map(str::to_owned);
            own.into_iter().chain(map.values().flat_map(|value| all(value, key))).collect()
        }
        Value::Array(list) => list.iter().flat_map(|value| all(value, key)).collect(),
        _ => Vec::new(),
    }
}

/// What a query asks for: each metric of ours, and the labels that it selects or groups by.
fn asked(query: &str) -> (BTreeSet<&str>, BTreeSet<&str>) {
    let is_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let metrics = query.split(|char| !is_name(char)).filter(|word| word.starts_with("k3k_expose_")).collect();
    let between = |open: &'static str, close: char| {
        let inner = query.split(open).skip(1).map(move |rest| rest.split(close).next().unwrap_or_default());
        inner.flat_map(|labels| labels.split(','))
    };
    let labels = between("{", '}').chain(between("by (", ')'));
    (metrics, labels.map(|label| label.trim().split(['=', '!']).next().unwrap_or_default()).collect())
}

fn assert_exists(query: &str) {
    let samples = samples();
    let (metrics, labels) = asked(query);
    assert!(!metrics.is_empty(), "{query} asks for nothing of ours");
    let mut known: BTreeSet<&str> = ADDED.into_iter().collect();
    for name in metrics {
        let metric = samples.get(name).unwrap_or_else(|| panic!("nobody tells {name}: {query}"));
        known.extend(metric.labels.iter().map(String::as_str));
    }
    assert!(labels.is_subset(&known), "{labels:?} are not all of {known:?}: {query}");
}

#[test]
fn a_query_is_taken_apart_into_metrics_and_labels() {
    let query = "sum by (le, pod) (rate(k3k_expose_a_bucket{verb=\"x\", reason!~\"b|c\"}[5m])) > k3k_expose_b";
    let (metrics, labels) = asked(query);
    assert_eq!(metrics, BTreeSet::from(["k3k_expose_a_bucket", "k3k_expose_b"]));
    assert_eq!(labels, BTreeSet::from(["le", "pod", "verb", "reason"]));
}

#[test]
fn every_alert_asks_for_metrics_that_exist() {
    let rules = rules();
    assert!(rules.len() >= 6, "{}", rules.len());
    rules.iter().for_each(|rule| assert_exists(rule["expr"].as_str().unwrap()));
}

#[test]
fn every_alert_leads_to_a_heading_of_the_readme_that_names_it() {
    let readme = readme::text().unwrap();
    let anchors = readme::anchors(&readme);
    for rule in rules() {
        let name = rule["alert"].as_str().unwrap();
        let url = rule["annotations"]["runbook_url"].as_str().unwrap();
        let (file, anchor) = url.split_once('#').unwrap();
        assert_eq!(file, "README.md", "{name}");
        assert!(anchors.iter().any(|known| known == anchor), "{name} leads to {anchor}, none of {anchors:?}");
        assert!(readme.contains(&format!("\nAlert `{name}`: ")), "the README does not say what {name} means");
        for told in ["summary", "description"] {
            assert!(rule["annotations"][told].is_string(), "{name} has no {told}");
        }
        assert!(matches!(rule["labels"]["severity"].as_str(), Some("critical" | "warning")), "{name}");
    }
}

#[test]
fn every_alert_is_tested_firing_and_silent() {
    let tests = yaml("prometheus-rule-test.yaml");
    let tested: Vec<&Value> = tests["tests"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|test| test["alert_rule_test"].as_array().unwrap())
        .collect();
    for rule in rules() {
        for fires in [true, false] {
            let found = tested.iter().any(|test| {
                test["alertname"] == rule["alert"] && test["exp_alerts"].as_array().unwrap().is_empty() != fires
            });
            assert!(found, "{} is not tested for firing: {fires}", rule["alert"]);
        }
    }
}

#[test]
fn the_dashboard_shows_metrics_that_exist() {
    let dashboard: Value = serde_json::from_str(&text("dashboard.json")).unwrap();
    let queries = all(&dashboard["panels"], "expr");
    assert!(queries.len() >= 20, "{}", queries.len());
    queries.iter().for_each(|query| assert_exists(query));
    let variables = all(&dashboard["templating"], "query");
    let label =
        variables.iter().find_map(|query| query.strip_prefix("label_values(")).expect("a variable of namespaces");
    assert_exists(label.split(',').next().unwrap());
}

#[test]
fn every_metric_is_on_the_dashboard_or_in_an_alert_unless_it_only_explains_another() {
    let dashboard: Value = serde_json::from_str(&text("dashboard.json")).unwrap();
    let queries: Vec<String> =
        rules().iter().flat_map(|rule| all(rule, "expr")).chain(all(&dashboard, "expr")).collect();
    let [agent, host_api] = exposed::by_both().unwrap();
    // These only explain what others show.
    let explain = ["_build_info", "_notices_total", "_reads_total", "_sessions_opened_total"];
    for (name, metric) in agent.into_iter().chain(host_api) {
        let samples = metric.samples(&name);
        let is_shown =
            queries.iter().any(|query| samples.iter().any(|sample| asked(query).0.contains(sample.as_str())));
        let explains = explain.iter().any(|ending| name.ends_with(ending));
        assert!(is_shown || explains, "nobody sees {name}");
    }
}

/// A server pod with its owners, as k3k makes them.
const SERVER_POD: &str = r#"
kind: Pod
metadata:
  name: k3k-mine-server-0
  namespace: team
  labels: {cluster: mine, role: server}
  ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: k3k-mine-server, uid: set, controller: true}]
spec: {containers: [{name: k3k-mine-server}]}
---
kind: StatefulSet
metadata:
  name: k3k-mine-server
  namespace: team
  uid: set
  ownerReferences: [{apiVersion: k3k.io/v1beta1, kind: Cluster, name: mine, uid: cluster, controller: true}]
spec: {replicas: 1, serviceName: x, selector: {matchLabels: {cluster: mine, role: server}}, template: {}}
---
kind: Cluster
metadata: {name: mine, namespace: team, uid: cluster}
spec: {mode: shared}
"#;

#[test]
fn the_monitor_of_the_agents_finds_injected_pods_by_the_port_that_the_sidecar_has() {
    let settings = Settings {
        image: "agent".to_owned(),
        host_api_url: "https://host-api:8443".to_owned(),
        sync_ingresses: true,
        sync_ingress_tls: true,
    };
    let pod = command::injected(SERVER_POD, &settings).unwrap();
    let monitor = yaml("pod-monitor.yaml");
    let port = &monitor["spec"]["podMetricsEndpoints"][0]["port"];
    assert_eq!(*port, pod["spec"]["initContainers"][0]["ports"][0]["name"]);
    for (label, value) in monitor["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(pod["metadata"]["labels"][label], *value, "{label}");
    }
}

#[test]
fn the_monitor_of_the_agents_leaves_the_pods_of_tenants_alone() {
    let excluded = json!([{"key": CLUSTER_NAME, "operator": "DoesNotExist"}]);
    assert_eq!(yaml("pod-monitor.yaml")["spec"]["selector"]["matchExpressions"], excluded);
}

#[test]
fn the_kustomization_names_every_file() {
    let kustomization = text("kustomization.yaml");
    for file in ["service-monitor.yaml", "pod-monitor.yaml", "prometheus-rule.yaml", "dashboard.json"] {
        assert!(kustomization.contains(file) && !text(file).is_empty(), "{file}");
    }
}
