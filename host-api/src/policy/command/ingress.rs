//! What the host would get for an Ingress. Pure.
//!
//! Who has a host name, and what of the virtual cluster stands, no file says.

use std::collections::BTreeMap;

use k3k_expose_process::quote::quote;
use k3k_expose_projection::ingress as projection;
use k3k_expose_proto::ingress::Ingress as Asked;
use k3k_expose_proto::{Key, Reason, Resource};
use k8s_openapi::api::networking::v1::{Ingress, IngressSpec};

use super::{Judge, Planned, Told};
use crate::ingress::host::hosts;
use crate::ingress::policy::Policy;
use crate::ingress::translate::{backends, translate};
use crate::registry::words;
use crate::translate::Desired;

pub(super) fn planned(judge: &Judge, key: &Key, ingress: &Ingress, told: &BTreeMap<&Key, Told>) -> Planned {
    let mut planned = judge.begin(&format!("Ingress {}/{}", key.namespace(), key.name()));
    let asked = match projection::ingress(ingress) {
        Ok(asked) => asked,
        Err(why) => {
            planned.refuse(Reason::NotCarried, why, None);
            return planned;
        }
    };
    if judge.leaves_out(Resource::Ingresses, &asked.labels, &mut planned) {
        return planned;
    }
    let policy: &Policy = &judge.grant.ingresses;
    let mut desired = match translate(policy, &judge.tenant, &judge.unknown, key, &judge.unknown, &asked) {
        Ok(desired) => desired,
        Err(refusal) => {
            planned.refuse_as(&refusal);
            return planned;
        }
    };
    let named = backends(key, &asked);
    let is_refused = |service: &Key| told.get(service).is_some_and(|told| told.is_refused);
    // What has no name that a Service could have is never exposed either.
    if let Some(service) = named.iter().find(|service| service.as_ref().is_none_or(is_refused)) {
        let rule =
            service.as_ref().map(|service| format!("{}, which this file has and which is refused", place(service)));
        let reason = Reason::BackendNotSynced;
        let message = words::message(Resource::Ingresses, reason, &[]);
        planned.refuse(reason, &message, rule.as_ref().map(|rule| rule as _));
        return planned;
    }
    if judge.has_no_room(&mut planned) {
        return planned;
    }
    judge.admitted(Resource::Ingresses, &mut planned);
    left_behind(&mut planned, judge, ingress, &desired);
    judge.count(&mut planned);
    planned.unknown("whether its agent speaks of Ingresses (K3K_EXPOSE_SYNC_INGRESSES)");
    let hosts = hosts(&desired.spec);
    let had = hosts.iter().map(|host| if host.is_empty() { "the default backend" } else { host });
    planned.unknown(&format!("whether another Ingress of the host has {} already", listed(had)));
    for service in named.iter().flatten().filter(|service| !told.contains_key(*service)) {
        planned.unknown(&format!("whether {} is exposed", place(service)));
    }
    secrets(&mut planned, judge, policy, key, &asked, &mut desired);
    planned.object(&judge.twin("networking.k8s.io/v1", "Ingress", &desired));
    planned
}

/// Says of each Secret where it has to be. The twin of one of the tenant's own is named by its content, which no file has.
fn secrets(
    planned: &mut Planned,
    judge: &Judge,
    policy: &Policy,
    key: &Key,
    asked: &Asked,
    desired: &mut Desired<IngressSpec>,
) {
    let is_literal = |name: &str| policy.is_literal(name);
    for name in asked.tls.iter().filter_map(|tls| tls.secret_name.as_ref()) {
        let (namespace, what, field) = if is_literal(name) {
            (judge.tenant.namespace(), "of the host exists, which is named as it is", "ingresses.tlsSecrets")
        } else {
            (
                key.namespace(),
                "exists and is fit, what its twin is called, and whether the agent speaks of it (K3K_EXPOSE_SYNC_INGRESS_TLS)",
                "ingresses.ownSecrets",
            )
        };
        let rule = judge.grant.rule(field);
        planned.unknown(&format!("whether Secret {namespace}/{} {what} ({rule})", quote(name)));
    }
    for tls in desired.spec.tls.iter_mut().flatten() {
        tls.secret_name = tls.secret_name.take().filter(|name| is_literal(name));
    }
}

/// What the tenant says and the twin will not have. Annotations that would refuse the Ingress are no more among them.
fn left_behind(planned: &mut Planned, judge: &Judge, ingress: &Ingress, desired: &Desired<IngressSpec>) {
    let meta = &ingress.metadata;
    for (key, _) in
        meta.annotations.iter().flatten().filter(|(key, value)| desired.annotations.get(*key) != Some(*value))
    {
        let rule = judge.grant.rule("ingresses.annotations");
        planned.line(&format!("left behind: annotation {} ({rule})", quote(key)));
    }
    for (key, _) in meta.labels.iter().flatten().filter(|(key, value)| desired.labels.get(*key) != Some(*value)) {
        planned.line(&format!("left behind: label {}, whatever policies say", quote(key)));
    }
}

fn place(service: &Key) -> String {
    format!("Service {}/{}", service.namespace(), service.name())
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(quote).collect::<Vec<_>>().join(", ")
}
