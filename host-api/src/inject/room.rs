//! Whether the sidecar fits into a namespace, and with what requests and limits. Pure.
//!
//! The API server refuses a pod *after* the webhook has changed it, so `failurePolicy: Ignore` is no help: a sidecar that
//! does not fit would keep the control plane from starting. So what would not fit is not injected.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, LimitRange, LimitRangeItem, PodSpec, ResourceQuota, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::quantity::Amount;

type Quantities = BTreeMap<String, Quantity>;

/// What the sidecar asks for where nothing speaks against it: resource, request, limit.
const WISHES: [(&str, &str, &str); 2] = [("cpu", "10m", "500m"), ("memory", "16Mi", "64Mi")];
/// Less memory than this and the agent would be killed over and over.
const LEAST_MEMORY: &str = "16Mi";

/// Why the sidecar does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// A LimitRange allows less than the agent needs.
    #[error("LimitRange {0} leaves no room for the agent's {1}")]
    LimitRange(String, String),
    /// A ResourceQuota would be exceeded.
    #[error("ResourceQuota {0} has no room for the agent's {1}")]
    Quota(String, String),
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
    let mut requests = Quantities::new();
    let mut limits = Quantities::new();
    for (resource, request, limit) in WISHES {
        let (request, limit) = fit(resource, request, limit, ranges)?;
        requests.insert(resource.to_owned(), request.quantity());
        limits.insert(resource.to_owned(), limit.quantity());
    }
    let resources =
        ResourceRequirements { requests: Some(requests), limits: Some(limits), ..ResourceRequirements::default() };
    for range in ranges {
        check_pod(spec, &resources, range)?;
    }
    for quota in quotas.iter().filter(|quota| counts(quota)) {
        check_quota(spec, &resources, quota)?;
    }
    Ok(resources)
}

/// Request and limit of one resource, moved into what every LimitRange allows a container.
fn fit(resource: &str, request: &str, limit: &str, ranges: &[LimitRange]) -> Result<(Amount, Amount), NoRoom> {
    let amount = |text| Amount::parse(text).unwrap_or_default();
    let (mut request, mut limit) = (amount(request), amount(limit));
    let least = if resource == "memory" { amount(LEAST_MEMORY) } else { Amount::default() };
    for (range, item) in items(ranges, "Container") {
        let of = |bounds: &Option<Quantities>| get(bounds.as_ref(), resource);
        let refuse = || Err(NoRoom::LimitRange(name(&range.metadata.name), resource.to_owned()));
        if let Some(min) = of(&item.min) {
            request = request.max(min);
            limit = limit.max(min);
        }
        if let Some(max) = of(&item.max) {
            limit = limit.min(max);
            request = request.min(max);
        }
        if let Some(ratio) = of(&item.max_limit_request_ratio) {
            limit = limit.min(request.times(ratio));
        }
        let within = |bound: Option<Amount>, holds: fn(&Amount, &Amount) -> bool| {
            bound.is_none_or(|bound| holds(&request, &bound) && holds(&limit, &bound))
        };
        if limit < least || limit < request || !within(of(&item.min), Amount::ge) || !within(of(&item.max), Amount::le)
        {
            return refuse();
        }
    }
    Ok((request, limit))
}

/// Whether the pod as a whole stays within what a LimitRange allows a pod.
fn check_pod(spec: &PodSpec, resources: &ResourceRequirements, range: &LimitRange) -> Result<(), NoRoom> {
    for (_, item) in items(std::slice::from_ref(range), "Pod") {
        for (resource, max) in item.max.iter().flatten() {
            let Some(max) = Amount::parse(&max.0) else { continue };
            if total(spec, resources, resource, |resources| resources.limits.as_ref()) > max {
                return Err(NoRoom::LimitRange(name(&range.metadata.name), resource.clone()));
            }
        }
    }
    Ok(())
}

fn check_quota(spec: &PodSpec, resources: &ResourceRequirements, quota: &ResourceQuota) -> Result<(), NoRoom> {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    let used = quota.status.as_ref().and_then(|status| status.used.as_ref());
    for (key, hard) in hard.into_iter().flatten() {
        let (resource, of): (_, fn(&ResourceRequirements) -> Option<&Quantities>) = match key.split_once('.') {
            None => (key.as_str(), |resources| resources.requests.as_ref()),
            Some(("requests", resource)) => (resource, |resources| resources.requests.as_ref()),
            Some(("limits", resource)) => (resource, |resources| resources.limits.as_ref()),
            Some(_) => continue,
        };
        let Some(hard) = Amount::parse(&hard.0).filter(|_| WISHES.iter().any(|(wish, ..)| *wish == resource)) else {
            continue;
        };
        let used = get(used, key).unwrap_or_default();
        if used.plus(total(spec, resources, resource, of)) > hard {
            return Err(NoRoom::Quota(name(&quota.metadata.name), key.clone()));
        }
    }
    Ok(())
}

/// Whether a quota counts a server pod: it runs on, and it asks for resources.
fn counts(quota: &ResourceQuota) -> bool {
    let spec = quota.spec.as_ref();
    let scopes = spec.and_then(|spec| spec.scopes.as_deref()).unwrap_or_default();
    let selected = spec.and_then(|spec| spec.scope_selector.as_ref()).is_some();
    !selected && scopes.iter().all(|scope| matches!(scope.as_str(), "NotTerminating" | "NotBestEffort"))
}

/// What a pod asks for with the sidecar: containers and sidecars add up, and the largest init container counts on its own.
fn total(
    spec: &PodSpec,
    sidecar: &ResourceRequirements,
    resource: &str,
    of: impl Fn(&ResourceRequirements) -> Option<&Quantities>,
) -> Amount {
    let amount = |container: &Container| {
        container.resources.as_ref().and_then(|resources| get(of(resources), resource)).unwrap_or_default()
    };
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let (sidecars, once): (Vec<_>, Vec<_>) =
        init.iter().partition(|container| container.restart_policy.as_deref() == Some("Always"));
    let own = get(of(sidecar), resource).unwrap_or_default();
    let running = spec.containers.iter().chain(sidecars).map(amount).fold(own, Amount::plus);
    once.into_iter().map(amount).fold(running, Amount::max)
}

fn items<'a>(ranges: &'a [LimitRange], kind: &'a str) -> impl Iterator<Item = (&'a LimitRange, &'a LimitRangeItem)> {
    let of_range = move |range: &'a LimitRange| {
        let items = range.spec.as_ref().map(|spec| spec.limits.as_slice()).unwrap_or_default();
        items.iter().filter(move |item| item.type_ == kind).map(move |item| (range, item))
    };
    ranges.iter().flat_map(of_range)
}

fn get(quantities: Option<&Quantities>, resource: &str) -> Option<Amount> {
    Amount::parse(&quantities?.get(resource)?.0)
}

fn name(name: &Option<String>) -> String {
    name.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
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
            serde_json::from_value(
                json!({"metadata": {"name": "q"}, "spec": {"hard": hard}, "status": {"used": used}}),
            )
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
        assert!(
            of(json!({"count/pods": "0", "requests.storage": "0"}), json!({})).is_ok(),
            "others are not ours to judge"
        );
    }

    #[test]
    fn a_quota_of_other_pods_does_not_count() {
        let mut quotas = quota(json!({"cpu": "0"}), json!({}));
        quotas[0].spec.as_mut().unwrap().scopes = Some(vec!["BestEffort".to_owned()]);
        assert!(room(&spec(json!({})), &[], &quotas).is_ok());
        quotas[0].spec.as_mut().unwrap().scopes = Some(vec!["NotBestEffort".to_owned()]);
        assert!(room(&spec(json!({})), &[], &quotas).is_err());
    }
}
