//! Whether the sidecar fits into a namespace, and with what requests and limits. Pure.
//!
//! The API server refuses a pod *after* the webhook has changed it, so `failurePolicy: Ignore` is no help: a sidecar that
//! does not fit would keep the control plane from starting. So what would not fit is not injected, and neither is it where
//! that cannot be told.

mod asks;
mod quota;

use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem, PodSpec, ResourceQuota, ResourceRequirements};
use kube::ResourceExt;

use super::quantity::Amount;
use asks::{Asks, Unreadable, amounts};

/// What the sidecar asks for where nothing speaks against it: resource, request, limit.
const WISHES: [(&str, &str, &str); 2] = [("cpu", "10m", "500m"), ("memory", "16Mi", "64Mi")];
/// Less memory than this and the agent would be killed over and over.
const LEAST_MEMORY: &str = "16Mi";

/// Why the sidecar does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// A LimitRange allows less than the agent needs, or asks for more than it may have.
    #[error("LimitRange {0} leaves no room for the agent's {1}")]
    LimitRange(String, String),
    /// A ResourceQuota would be exceeded, or would begin to count a pod that it does not admit.
    #[error("ResourceQuota {0} has no room for the agent's {1}")]
    Quota(String, String),
    /// The pod says itself how much all its containers may have.
    #[error("the pod's own resources leave no room for the agent's {0}")]
    Pod(String),
    /// An amount that this version does not understand, so that nobody knows what the API server would say.
    #[error("an amount of {0} is not understood")]
    Unreadable(String),
}

/// Requests and limits of the sidecar in a namespace, for a pod that has this spec without it.
///
/// # Errors
/// [`NoRoom`] with what stands in the way.
pub(super) fn room(
    spec: &PodSpec,
    ranges: &[LimitRange],
    quotas: &[ResourceQuota],
) -> Result<ResourceRequirements, NoRoom> {
    let mut agent = wishes();
    // All are moved before any is checked: what one range asks for another may rule out.
    for range in ranges {
        let defaults = items(range, "Container").try_for_each(|item| take_defaults(&mut agent, item));
        defaults.map_err(|_| NoRoom::Unreadable(label(range)))?;
    }
    for range in ranges {
        move_into(&mut agent, spec, range).map_err(|_| NoRoom::Unreadable(label(range)))?;
        if let Some(resource) = too_little(&agent) {
            return Err(NoRoom::LimitRange(range.name_any(), resource));
        }
    }
    let pod = Asks::of_pod(spec, &agent).map_err(|_| NoRoom::Unreadable("the pod".to_owned()))?;
    if let Some(resource) = pod.beyond(spec, &agent).map_err(|_| NoRoom::Unreadable("the pod".to_owned()))? {
        return Err(NoRoom::Pod(resource));
    }
    for range in ranges {
        if let Some(resource) = refused(&agent, &pod, range).map_err(|_| NoRoom::Unreadable(label(range)))? {
            return Err(NoRoom::LimitRange(range.name_any(), resource));
        }
    }
    for quota in quotas {
        let exceeded = quota::exceeded(quota, spec, &agent, &pod);
        let exceeded = exceeded.map_err(|_| NoRoom::Unreadable(format!("ResourceQuota {}", quota.name_any())))?;
        if let Some(key) = exceeded {
            return Err(NoRoom::Quota(quota.name_any(), key));
        }
    }
    Ok(agent.requirements())
}

fn wishes() -> Asks {
    let mut agent = Asks::default();
    for (resource, request, limit) in WISHES {
        agent.requests.insert(resource.to_owned(), Amount::parse(request).unwrap_or_default());
        agent.limits.insert(resource.to_owned(), Amount::parse(limit).unwrap_or_default());
    }
    agent
}

/// Takes what a container gets of resources that it does not speak of: the API server would fill it in after us.
fn take_defaults(agent: &mut Asks, item: &LimitRangeItem) -> Result<(), Unreadable> {
    for (asked, defaults) in [(&mut agent.requests, &item.default_request), (&mut agent.limits, &item.default)] {
        for (resource, default) in amounts(defaults.as_ref())? {
            asked.entry(resource).or_insert(default);
        }
    }
    Ok(())
}

/// Moves what the sidecar asks for into what a LimitRange allows a container, and a pod that has it: no more of a limit for each
/// request than the whole pod may have, and a limit that makes up for containers without one, since it is the sum that must reach
/// a minimum.
fn move_into(agent: &mut Asks, spec: &PodSpec, range: &LimitRange) -> Result<(), Unreadable> {
    for item in items(range, "Container") {
        for (resource, min) in amounts(item.min.as_ref())? {
            agent.both(&resource, |asked| asked.max(min));
        }
        for (resource, max) in amounts(item.max.as_ref())? {
            agent.both(&resource, |asked| asked.min(max));
        }
        cap_by_ratio(agent, item)?;
    }
    for item in items(range, "Pod") {
        cap_by_ratio(agent, item)?;
        let pod = Asks::of_pod(spec, agent)?;
        for (resource, min) in amounts(item.min.as_ref())? {
            if let (Some(all), Some(own)) = (pod.limits.get(&resource), agent.limits.get_mut(&resource)) {
                *own = own.plus(min.minus(*all));
            }
        }
    }
    Ok(())
}

fn cap_by_ratio(agent: &mut Asks, item: &LimitRangeItem) -> Result<(), Unreadable> {
    for (resource, ratio) in amounts(item.max_limit_request_ratio.as_ref())? {
        if let (Some(request), Some(limit)) = (agent.requests.get(&resource), agent.limits.get_mut(&resource)) {
            *limit = (*limit).min(request.times(ratio));
        }
    }
    Ok(())
}

/// The resource of which no container may ask for that, or no agent live on it.
fn too_little(agent: &Asks) -> Option<String> {
    let least = Amount::parse(LEAST_MEMORY).unwrap_or_default();
    let mut limits = agent.limits.iter();
    let short = limits.find(|(resource, limit)| {
        let request = agent.requests.get(*resource).copied().unwrap_or_default();
        **limit < request || resource.as_str() == "memory" && **limit < least
    });
    short.map(|(resource, _)| resource.clone())
}

/// The resource for which a LimitRange refuses the sidecar, or the pod with it.
fn refused(agent: &Asks, pod: &Asks, range: &LimitRange) -> Result<Option<String>, Unreadable> {
    for (kind, asks) in [("Container", agent), ("Pod", pod)] {
        for item in items(range, kind) {
            if let Some(resource) = outside(asks, item)? {
                return Ok(Some(resource));
            }
        }
    }
    Ok(None)
}

/// The resource of which more or less is asked for than a LimitRange allows, as the API server judges it.
fn outside(asks: &Asks, item: &LimitRangeItem) -> Result<Option<String>, Unreadable> {
    let of = |resource: &str| (asks.requests.get(resource).copied(), asks.limits.get(resource).copied());
    for (resource, min) in amounts(item.min.as_ref())? {
        let (request, limit) = of(&resource);
        if request.is_none_or(|request| request < min) || limit.is_some_and(|limit| limit < min) {
            return Ok(Some(resource));
        }
    }
    for (resource, max) in amounts(item.max.as_ref())? {
        let (request, limit) = of(&resource);
        if limit.is_none_or(|limit| limit > max) || request.is_some_and(|request| request > max) {
            return Ok(Some(resource));
        }
    }
    for (resource, ratio) in amounts(item.max_limit_request_ratio.as_ref())? {
        let (request, limit) = of(&resource);
        let (request, limit) = (request.unwrap_or_default(), limit.unwrap_or_default());
        if request == Amount::default() || limit == Amount::default() || limit > request.times(ratio) {
            return Ok(Some(resource));
        }
    }
    Ok(None)
}

fn items<'a>(range: &'a LimitRange, kind: &'a str) -> impl Iterator<Item = &'a LimitRangeItem> {
    range.spec.iter().flat_map(|spec| &spec.limits).filter(move |item| item.type_ == kind)
}

fn label(range: &LimitRange) -> String {
    format!("LimitRange {}", range.name_any())
}

#[cfg(test)]
mod tests;
