//! A Service beside its twin, as rows of a table. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::stage::{Relation, Row};

/// Everything that the two have in common, and what tells them apart.
pub(super) fn rows(service: &Service, twin: &Service) -> Vec<Row> {
    let [asked, has] = [service, twin].map(|service| service.spec.clone().unwrap_or_default());
    let mut rows = vec![
        derived("name", service.name_any(), twin.name_any()),
        derived("namespace", service.namespace().unwrap_or_default(), twin.namespace().unwrap_or_default()),
        row("type", asked.type_.unwrap_or_default(), has.type_.unwrap_or_default()),
        row("cluster IP", asked.cluster_ip.clone().unwrap_or_default(), has.cluster_ip.clone().unwrap_or_default()),
    ];
    rows.extend(changed(service, twin));
    rows
}

/// Only what the demo's edit touches.
pub(super) fn changed(service: &Service, twin: &Service) -> Vec<Row> {
    let [asked, has] = [service, twin].map(|service| service.spec.clone().unwrap_or_default());
    let [ours, theirs] = [asked.ports, has.ports].map(Option::unwrap_or_default);
    let mut rows = paired("port", &ours, &theirs, port);
    rows.extend(
        paired("node port", &ours, &theirs, node_port)
            .into_iter()
            .filter(|row| !row.left.is_empty() || !row.right.is_empty()),
    );
    rows.extend(selector(&asked.selector.unwrap_or_default(), &has.selector.unwrap_or_default()));
    rows
}

/// What a number that somebody else holds must not come between.
pub(super) fn numbers(service: &Service, twin: &Service) -> Vec<Row> {
    let [ours, theirs] = [service, twin].map(|service| service.spec.clone().unwrap_or_default());
    let mut rows = vec![row("cluster IP", ours.cluster_ip.unwrap_or_default(), theirs.cluster_ip.unwrap_or_default())];
    let [ours, theirs] = [ours.ports, theirs.ports].map(Option::unwrap_or_default);
    rows.extend(paired("node port", &ours, &theirs, node_port).into_iter().filter(|row| !row.left.is_empty()));
    rows
}

/// What the host's cloud gave.
pub(super) fn addresses(service: &Service, twin: &Service) -> Vec<Row> {
    let text = |service: &Service| {
        let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let entries = status.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
        entries.iter().filter_map(|entry| entry.ip.clone().or(entry.hostname.clone())).collect::<Vec<_>>().join(", ")
    };
    vec![row("load balancer", text(service), text(twin))]
}

/// The tenant's keys first, then those that only the twin has.
fn selector(asked: &BTreeMap<String, String>, has: &BTreeMap<String, String>) -> Vec<Row> {
    let text = |(key, value): (&String, &String)| format!("{key}={value}");
    let common = asked.iter().map(|(key, value)| {
        let right = has.get_key_value(key).map(text).unwrap_or_default();
        row("selector", text((key, value)), right)
    });
    let added = has.iter().filter(|(key, _)| !asked.contains_key(*key)).map(|pair| Row {
        name: "",
        left: String::new(),
        relation: Relation::Added,
        right: text(pair),
    });
    named_once(common.chain(added).collect())
}

fn paired(
    name: &'static str,
    left: &[ServicePort],
    right: &[ServicePort],
    text: fn(&ServicePort) -> String,
) -> Vec<Row> {
    let rows = left.iter().enumerate().map(|(index, port)| {
        let other = right.get(index).map(text).unwrap_or_default();
        row(name, text(port), other)
    });
    named_once(rows.collect())
}

fn port(port: &ServicePort) -> String {
    let target = match &port.target_port {
        Some(IntOrString::Int(number)) => number.to_string(),
        Some(IntOrString::String(name)) => name.clone(),
        None => port.port.to_string(),
    };
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    format!("{}/{protocol} to {target}", port.port)
}

fn node_port(port: &ServicePort) -> String {
    port.node_port.map(|number| number.to_string()).unwrap_or_default()
}

fn row(name: &'static str, left: String, right: String) -> Row {
    let relation = if left == right { Relation::Same } else { Relation::Derived };
    Row { name, left, relation, right }
}

fn derived(name: &'static str, left: String, right: String) -> Row {
    Row { name, left, relation: Relation::Derived, right }
}

/// Says what a group of rows is about in its first row only.
fn named_once(mut rows: Vec<Row>) -> Vec<Row> {
    for row in rows.iter_mut().skip(1) {
        row.name = "";
    }
    rows
}
