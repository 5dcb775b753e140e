//! Whether a ResourceQuota admits a pod with the sidecar in it. Pure.
//!
//! The trap: a pod that asks for nothing is BestEffort, and with the sidecar it is not. So a quota that never counted it may begin
//! to for the sidecar's sake, with all that its other containers lack.

use k8s_openapi::api::core::v1::{PodSpec, ResourceQuota};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::asks::{Asks, Unreadable};
use crate::inject::quantity::Amount;

/// Resources that every container must ask for where a quota limits them.
const REQUIRED: [&str; 2] = ["cpu", "memory"];

/// What a quota tells pods apart by, as one requirement.
struct Scope<'a> {
    name: &'a str,
    operator: &'a str,
    values: &'a [String],
}

/// What a key of a quota limits.
enum Limited<'a> {
    Requests(&'a str),
    Limits(&'a str),
    Pods,
    Other,
}

/// The key of the quota that would be exceeded.
pub(super) fn exceeded(
    quota: &ResourceQuota,
    spec: &PodSpec,
    agent: &Asks,
    pod: &Asks,
) -> Result<Option<String>, Unreadable> {
    let scopes = scopes(quota);
    if !scopes.iter().all(|scope| scope.holds(spec)) {
        return Ok(None);
    }
    let begins = scopes.iter().any(|scope| scope.name == "NotBestEffort") && is_best_effort(spec)?;
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    let used = quota.status.as_ref().and_then(|status| status.used.as_ref());
    for (key, hard) in hard.into_iter().flatten() {
        // What the sidecar does not ask for is as it is without it.
        let (more, required) = match Limited::by(key) {
            Limited::Requests(resource) if agent.requests.contains_key(resource) => {
                (pod.requests.get(resource), REQUIRED.contains(&resource))
            }
            Limited::Limits(resource) if agent.limits.contains_key(resource) => {
                (pod.limits.get(resource), REQUIRED.contains(&resource))
            }
            Limited::Pods if begins => (Some(&Amount::ONE), false),
            _ => continue,
        };
        let used = used.and_then(|used| used.get(key)).map(read).transpose()?.unwrap_or_default();
        let more = more.copied().unwrap_or_default();
        if begins && required || used.plus(more) > read(hard)? {
            return Ok(Some(key.clone()));
        }
    }
    Ok(None)
}

impl<'a> Limited<'a> {
    fn by(key: &'a str) -> Self {
        match key.split_once('.') {
            None if matches!(key, "pods" | "count/pods") => Self::Pods,
            None => Self::Requests(key),
            Some(("requests", resource)) => Self::Requests(resource),
            Some(("limits", resource)) => Self::Limits(resource),
            Some(_) => Self::Other,
        }
    }
}

/// All scopes of a quota, in the form of the newer field.
fn scopes(quota: &ResourceQuota) -> Vec<Scope<'_>> {
    let Some(spec) = &quota.spec else { return Vec::new() };
    let plain = spec.scopes.iter().flatten().map(|name| Scope { name, operator: "Exists", values: &[] });
    let selected = spec.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten());
    let selected = selected.map(|one| Scope {
        name: &one.scope_name,
        operator: &one.operator,
        values: one.values.as_deref().unwrap_or_default(),
    });
    plain.chain(selected).collect()
}

impl Scope<'_> {
    /// Whether a pod with the sidecar in it is of this scope.
    fn holds(&self, spec: &PodSpec) -> bool {
        match self.name {
            "Terminating" => spec.active_deadline_seconds.is_some(),
            "NotTerminating" => spec.active_deadline_seconds.is_none(),
            "NotBestEffort" => true,
            "PriorityClass" => {
                let class = spec.priority_class_name.as_ref().filter(|class| !class.is_empty());
                let listed = class.is_some_and(|class| self.values.contains(class));
                match self.operator {
                    "Exists" => class.is_some(),
                    "DoesNotExist" => class.is_none(),
                    "In" => listed,
                    _ => !listed,
                }
            }
            // Which namespaces it names is of no matter: a quota too many leaves the agent out, one too few k3s.
            "CrossNamespacePodAffinity" => spec.affinity.is_some(),
            _ => false,
        }
    }
}

/// Whether a pod asks for nothing that counts, without the sidecar.
fn is_best_effort(spec: &PodSpec) -> Result<bool, Unreadable> {
    let asks = Asks::of_pod(spec, &Asks::default())?;
    let counts = |resource: &str| {
        [&asks.requests, &asks.limits].iter().any(|asked| asked.get(resource).is_some_and(|it| *it > Amount::default()))
    };
    Ok(spec.resources.is_none() && !REQUIRED.into_iter().any(counts))
}

fn read(quantity: &Quantity) -> Result<Amount, Unreadable> {
    Amount::parse(&quantity.0).ok_or(Unreadable)
}
