//! What arbitrary bytes are put to: one function for each reader that meets strangers. None may panic, and what each lets
//! through must hold. Pure; `tests/fuzz` calls them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use clap::Parser as _;
use k3k_expose_proto::ingress::Ingress as Asked;
use k3k_expose_proto::message::{FromAgent, Object, Put};
use k3k_expose_proto::secret::Secret;
use k3k_expose_proto::{Key, Reason, Resource, Service, Uid, line};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{self, Pod};
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::json;

use crate::admission::pod_of_review;
use crate::cluster::Cluster;
use crate::config::{Config, Raw};
use crate::ingress::policy::Policy;
use crate::ingress::{self, secret};
use crate::inject::{Settings, Surroundings, inject};
use crate::label;
use crate::policy::grant::{Grant, annotation_may_cross};
use crate::policy::resource::{DeniedIngresses, DeniedKey, ExposurePolicySpec};
use crate::policy::select::{Labels, Selected, selects};
use crate::policy::{Policies, service, standing};
use crate::services::HostName;
use crate::tenant::{Tenant, tenant_of};
use crate::translate::{Desired, label_may_cross, translate};
use crate::twin::{CLUSTER_NAME, MANAGED_BY, VIRTUAL_NAMESPACE};

/// What [`exposure`] reads.
#[derive(Deserialize)]
struct Exposure {
    policies: BTreeMap<String, ExposurePolicySpec>,
    namespace: Labels,
    cluster: Labels,
    service: Service,
    #[serde(default)]
    ingress: Asked,
}

/// What did not hold.
pub type Broken = &'static str;

/// The body of an API server's question about a pod.
///
/// # Errors
/// [`Broken`].
pub fn review(bytes: &[u8]) -> Result<(), Broken> {
    let Some((pod, creator)) = pod_of_review(bytes) else {
        return Ok(());
    };
    let settings = Settings {
        image: "agent".into(),
        host_api_url: "https://h".into(),
        sync_ingresses: false,
        sync_ingress_tls: false,
    };
    let around = Surroundings { set: None, cluster: None, namespace: None, ranges: &[], quotas: &[] };
    if inject(&pod, &creator, around, &settings).is_ok() {
        return Err("a pod without a StatefulSet and a Cluster got the agent");
    }
    let patch = label::patch(&pod.metadata);
    let paths = patch.iter().flat_map(|patch| patch.as_array().into_iter().flatten());
    let labels_only = |path: &str| path.starts_with("/metadata/labels");
    let only = paths.into_iter().all(|step| step["path"].as_str().is_some_and(labels_only));
    if only { Ok(()) } else { Err("something else than labels is changed") }
}

/// Policies, labels, and a Service and an Ingress of a tenant, in one JSON text: who decides, what of it, and what the twins
/// then have.
///
/// # Errors
/// [`Broken`].
pub fn exposure(bytes: &[u8]) -> Result<(), Broken> {
    let Ok(Exposure { policies: written, namespace, cluster, service: asked, ingress }) = serde_json::from_slice(bytes)
    else {
        return Ok(());
    };
    let selecting = written.values().filter(|spec| selects(spec, &namespace, &cluster) != Selected::No);
    let denied: Vec<_> = selecting.filter_map(|spec| spec.deny.as_ref()?.ingresses.clone()).collect();
    let mut policies = Policies::default();
    for (name, spec) in written {
        policies.set(&name, Some(spec));
    }
    let grant = policies.grant(&namespace, &cluster);
    let reach = policies.reach(std::iter::once((&namespace, &cluster)));
    if reach.values().map(|reach| reach.governs).sum::<usize>() != usize::from(grant.policy.is_some()) {
        return Err("not one policy decides, or another than is told");
    }
    route(&grant.ingresses, &denied, &ingress)?;
    let tenant = tenant().ok_or("the tenant of this test is none")?;
    let (Ok(key), Ok(uid)) = (Key::service("default", "web"), Uid::parse("v")) else { return Ok(()) };
    let Ok(mut desired) = translate(&tenant, &uid, &key, &uid, &asked) else {
        return Ok(());
    };
    if service::judge(&grant, &asked).is_err() {
        return Ok(());
    }
    let marks = desired.annotations.clone();
    service::shape(&grant, &asked, &mut desired);
    let own = |(key, value): &(&String, &String)| {
        marks.get(*key) == Some(*value)
            || grant.default_annotations.get(*key) == Some(*value)
            || grant.annotation(key).is_some_and(|keys| keys.admits(value))
    };
    if !desired.annotations.iter().all(|pair| own(&pair))
        || marks.iter().any(|(key, value)| desired.annotations.get(key) != Some(value))
    {
        return Err("an annotation that nobody admitted, or a mark that is forged");
    }
    if desired.labels.get(CLUSTER_NAME).map(String::as_str) != Some("mine") {
        return Err("a label of another Cluster");
    }
    let ips = desired.spec.external_ips.iter().flatten().chain(&desired.spec.load_balancer_ip);
    let mut ips = ips.filter_map(|ip| ip.parse::<IpAddr>().ok());
    let admits = |ip: IpAddr| grant.external_ips.iter().chain(&grant.addresses).any(|cidr| cidr.contains(ip));
    if ips.any(|ip| !admits(ip) || grant.denies_address(ip).is_some()) {
        return Err("an address that nobody admitted");
    }
    // Else host-api would delete what it has just made.
    standing::judge(&grant, &desired.spec).map_err(|_| "what is admitted may not stand")
}

/// An Ingress that is admitted has nothing that is denied, and may stand.
fn route(policy: &Policy, denied: &[DeniedIngresses], asked: &Asked) -> Result<(), Broken> {
    let Ok(key) = Key::of(Resource::Ingresses, "default", "shop") else { return Ok(()) };
    let Ok(ingress) = twin_of_ingress(policy, &key, asked) else { return Ok(()) };
    let class = asked.ingress_class_name.as_deref().unwrap_or_default();
    let hosts = || asked.rules.iter().map(|rule| &rule.host).chain(asked.tls.iter().flat_map(|tls| &tls.hosts));
    let below = |suffix: &String| hosts().any(|host| host == suffix || host.ends_with(&format!(".{suffix}")));
    let keys = ingress.metadata.annotations.iter().flat_map(BTreeMap::keys).filter(|key| annotation_may_cross(key));
    let keys: Vec<&String> = keys.collect();
    let means = |denied: &DeniedKey| {
        let by = |prefix: &String| keys.iter().any(|key| key.starts_with(prefix));
        denied.key.as_ref().is_some_and(|key| keys.contains(&key)) || denied.prefix.as_ref().is_some_and(by)
    };
    let is_denied = |denied: &DeniedIngresses| {
        denied.classes.iter().any(|denied| denied == class)
            || denied.host_suffixes.iter().any(below)
            || denied.annotations.iter().any(means)
            || asked.default_backend.is_some() && !denied.host_suffixes.is_empty()
    };
    if denied.iter().any(is_denied) {
        return Err("an Ingress with something that is denied");
    }
    // Else host-api would delete what it has just made.
    let twin = ingress::host::reduce(ingress).twin.ok_or("a twin that is none")?;
    if ingress::standing::is_admitted(policy, &twin) { Ok(()) } else { Err("what is admitted may not stand") }
}

/// A line of an agent, and what becomes of the object in it.
///
/// # Errors
/// [`Broken`].
pub fn translation(bytes: &[u8]) -> Result<(), Broken> {
    let Ok(FromAgent::Put(Put { key, uid, object, .. })) = line::decode(bytes) else {
        return Ok(());
    };
    let tenant = tenant().ok_or("the tenant of this test is none")?;
    let service = match object {
        Object::Service(service) => service,
        // What is believed of it is a pair, or says why not.
        Object::Secret(secret) => {
            let pair = matches!(secret::vetted(*secret), Secret::Pair(pair) if pair.key.expose().is_empty());
            return if pair { Err("a pair without a key") } else { Ok(()) };
        }
        Object::Ingress(ingress) => {
            let admitted = Policy::default().judge(&ingress).is_ok();
            return if admitted { Err("an Ingress that nobody admitted") } else { Ok(()) };
        }
    };
    let Ok(virtual_cluster) = Uid::parse("vc") else { return Ok(()) };
    let Ok(desired) = translate(&tenant, &virtual_cluster, &key, &uid, &service) else {
        return Ok(());
    };
    let selector = desired.spec.selector.unwrap_or_default();
    let bound = |label: &str, value: &str| selector.get(label).is_some_and(|there| there == value);
    let bound_to_tenant = bound(CLUSTER_NAME, "mine") && bound(VIRTUAL_NAMESPACE, key.namespace());
    if !selector.is_empty() && !bound_to_tenant {
        return Err("a selector that is not bound to its tenant");
    }
    if selector.is_empty() != service.selector.is_empty() {
        return Err("a selector that came or went");
    }
    let own = [CLUSTER_NAME, MANAGED_BY];
    if !desired.labels.keys().all(|label| own.contains(&label.as_str()) || label_may_cross(label)) {
        return Err("a label that may not cross");
    }
    let [ips, address] =
        [desired.spec.external_ips.is_some_and(|ips| !ips.is_empty()), desired.spec.load_balancer_ip.is_some()];
    if ips || address { Err("an address that nobody admitted") } else { Ok(()) }
}

/// The twin that a Service would be created as, or why there would be none.
///
/// # Errors
/// The reason that its tenant would be told.
pub fn twin_of_service(grant: &Grant, key: &Key, asked: &Service) -> Result<v1::Service, Reason> {
    let (tenant, uid) = tenant().zip(Uid::parse("v").ok()).ok_or(Reason::HostUnavailable)?;
    let mut desired = translate(&tenant, &uid, key, &uid, asked)?;
    service::judge(grant, asked).map_err(|refusal| refusal.reason)?;
    service::shape(grant, asked, &mut desired);
    Ok(v1::Service { metadata: metadata(&tenant, key, &desired), spec: Some(desired.spec), status: None })
}

/// The same of an Ingress whose backends all have twins.
///
/// # Errors
/// The reason that its tenant would be told.
pub fn twin_of_ingress(policy: &Policy, key: &Key, asked: &Asked) -> Result<Ingress, Reason> {
    let (tenant, uid) = tenant().zip(Uid::parse("v").ok()).ok_or(Reason::HostUnavailable)?;
    let desired = ingress::translate::translate(policy, &tenant, &uid, key, &uid, asked).map_err(|no| no.reason)?;
    Ok(Ingress { metadata: metadata(&tenant, key, &desired), spec: Some(desired.spec), status: None })
}

/// Without a namespace: whoever tries these out has one of its own.
fn metadata<S>(tenant: &Tenant, key: &Key, desired: &Desired<S>) -> ObjectMeta {
    let at = HostName::of_twin(tenant.namespace(), tenant.cluster(), key);
    ObjectMeta { namespace: None, ..desired.metadata(&at) }
}

/// Flags, one a line.
///
/// # Errors
/// [`Broken`].
pub fn configuration(bytes: &[u8]) -> Result<(), Broken> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Ok(());
    };
    let Ok(raw) = Raw::try_parse_from(std::iter::once("host-api").chain(text.lines())) else {
        return Ok(());
    };
    match Config::try_from(raw) {
        Err(invalid) if invalid.0.is_empty() => Err("a refusal that names no mistake"),
        _ => Ok(()),
    }
}

fn tenant() -> Option<Tenant> {
    let owner = |api: &str, kind: &str, name: &str, uid: &str| json!([{"apiVersion": api, "kind": kind, "name": name, "uid": uid, "controller": true}]);
    let pod: Pod =
        serde_json::from_value(json!({"metadata": {"name": "k3k-mine-server-0", "namespace": "ns", "uid": "p",
        "ownerReferences": owner("apps/v1", "StatefulSet", "k3k-mine-server", "s")}}))
        .ok()?;
    let set: StatefulSet = serde_json::from_value(json!({
        "metadata": {"name": "k3k-mine-server", "namespace": "ns", "uid": "s",
            "ownerReferences": owner("k3k.io/v1beta1", "Cluster", "mine", "c")},
        "spec": {"replicas": 1, "serviceName": "", "template": {},
            "selector": {"matchLabels": {"cluster": "mine", "role": "server"}}}}))
    .ok()?;
    let cluster: Cluster = serde_json::from_value(json!({"apiVersion": "k3k.io/v1beta1", "kind": "Cluster",
        "metadata": {"name": "mine", "namespace": "ns", "uid": "c"}, "spec": {"mode": "shared"}}))
    .ok()?;
    tenant_of(&pod, Some(&set), Some(&cluster)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tenant_that_lines_are_put_to_is_one() {
        assert_eq!(tenant().unwrap().cluster(), "mine");
    }
}
