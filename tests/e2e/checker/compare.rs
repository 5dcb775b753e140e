//! Every difference between the two sides that nobody is told of truthfully. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k3k_expose_tests::k3k::Tenant;
use k3k_expose_tests::told::{self, Numbers};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

use crate::same::differences;
use crate::world::answer::ingress;

/// Compares all Services of a virtual namespace with all of the host.
pub fn faults(tenant: &Tenant, wanted: &[Service], there: &[Service]) -> Vec<String> {
    let (twins, foreign): (Vec<&Service>, Vec<&Service>) =
        there.iter().partition(|service| service.namespace().as_deref() == Some(tenant.namespace.as_str()));
    let held = Held::of(&foreign);
    let twins: BTreeMap<String, &Service> = twins
        .into_iter()
        .filter(|service| service.labels().contains_key("k3k.io/clusterName"))
        .map(|twin| (twin.name_any(), twin))
        .collect();
    let mut found = Vec::new();
    let mut names = BTreeSet::new();
    for service in wanted {
        let name = tenant.twin_name(&service.name_any(), &service.namespace().unwrap_or_default());
        let faults = faults_of(tenant, service, twins.get(&name).copied(), &held);
        found.extend(faults.into_iter().map(|fault| format!("{}: {fault}", service.name_any())));
        names.insert(name);
    }
    found.extend(twins.keys().filter(|name| !names.contains(*name)).map(|name| format!("nobody wants {name}")));
    found
}

/// How many Services agree, and how many are refused.
pub fn told(wanted: &[Service]) -> (usize, usize) {
    let agrees = |service: &&Service| told::synced(service).is_some_and(|said| said.status == "True");
    let agreeing = wanted.iter().filter(agrees).count();
    (agreeing, wanted.len() - agreeing)
}

/// Numbers that somebody else holds on the host.
struct Held {
    ips: BTreeSet<String>,
    ports: BTreeSet<i32>,
}

impl Held {
    fn of(services: &[&Service]) -> Self {
        let numbers: Vec<Numbers> = services.iter().map(|service| Numbers::of(service)).collect();
        Self {
            ips: numbers.iter().flat_map(|numbers| numbers.cluster_ips.clone()).collect(),
            ports: numbers
                .iter()
                .flat_map(|numbers| numbers.node_ports.iter().map(|(_, _, port)| *port).chain(numbers.health_check))
                .collect(),
        }
    }
}

fn faults_of(tenant: &Tenant, service: &Service, twin: Option<&Service>, held: &Held) -> Vec<String> {
    let Some(said) = told::synced(service) else {
        return vec!["no condition".to_owned()];
    };
    let is_alias = service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName");
    match (said.reason.as_str(), twin) {
        ("ExternalNameNotExposed", None) if is_alias => Vec::new(),
        ("Applied", Some(twin)) => {
            let mut faults = differences(tenant, service, twin);
            if ingress(service) != ingress(twin) {
                faults.push(format!("addresses {} here and {} there", ingress(service), ingress(twin)));
            }
            faults
        }
        ("NodePortTaken" | "ClusterIPTaken", Some(twin)) => taken(service, twin, &said.reason, held),
        (reason, twin) => vec![format!("{reason}: {} with twin: {}", said.message, twin.is_some())],
    }
}

/// A refusal for a number is true when somebody else holds a number that the Service has and its twin has not.
fn taken(service: &Service, twin: &Service, reason: &str, held: &Held) -> Vec<String> {
    let (wished, is) = (Numbers::of(service), Numbers::of(twin));
    let port = |numbers: &Numbers, of: &(i32, String, i32)| {
        let found = numbers.node_ports.iter().find(|(port, protocol, _)| (port, protocol) == (&of.0, &of.1));
        found.map(|(_, _, number)| *number)
    };
    let mut lacking: Vec<i32> =
        wished.node_ports.iter().filter(|it| port(&is, it) != Some(it.2)).map(|it| it.2).collect();
    lacking.extend(wished.health_check.filter(|port| is.health_check != Some(*port)));
    let ips_taken = wished.cluster_ips != is.cluster_ips && wished.cluster_ips.iter().any(|ip| held.ips.contains(ip));
    let ports_taken = lacking.iter().any(|port| held.ports.contains(port));
    let is_true = if reason == "ClusterIPTaken" { ips_taken } else { ports_taken };
    if is_true { Vec::new() } else { vec![format!("{reason}, but {wished:?} here, {is:?} there, held by nobody else")] }
}
