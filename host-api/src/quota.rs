//! What the host's quotas leave to Services, reduced to when something was freed. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ResourceQuota;

/// The quantities that a Service or an Ingress counts against.
const COUNTED: [&str; 5] =
    ["services", "services.loadbalancers", "services.nodeports", "count/services", "count/ingresses.networking.k8s.io"];

/// Namespace and name of a quota.
pub type QuotaName = (String, String);

/// The quotas of the host that limit Services.
#[derive(Clone, Debug, Default)]
pub struct Quotas {
    known: BTreeMap<QuotaName, BTreeMap<&'static str, Room>>,
    /// Namespaces where the newest change left more room, and nobody has taken it yet.
    freed: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Room {
    hard: Option<u64>,
    used: u64,
}

/// Namespace and name of a quota.
#[must_use]
pub fn name(quota: &ResourceQuota) -> QuotaName {
    let meta = &quota.metadata;
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

impl Quotas {
    /// Takes in a quota, and tells whether it leaves more room than before.
    pub fn seen(&mut self, quota: &ResourceQuota) -> bool {
        // Admission goes by the status: the controller takes a new limit over into it.
        let hard = quota.status.as_ref().and_then(|status| status.hard.as_ref());
        let used = quota.status.as_ref().and_then(|status| status.used.as_ref());
        let number = |of: Option<&BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>, key| {
            of.and_then(|of| count(&of.get(key)?.0))
        };
        let room = |key| Room { hard: number(hard, key), used: number(used, key).unwrap_or_default() };
        let now = COUNTED.map(|key| (key, room(key)));
        let name = name(quota);
        let namespace = name.0.clone();
        let before = self.known.insert(name, now.into()).unwrap_or_default();
        let frees = now.iter().any(|(key, now)| before.get(key).is_some_and(|before| now.is_more_than(*before)));
        if frees {
            self.freed.insert(namespace);
        } else if before != now.into() {
            self.freed.remove(&namespace);
        }
        frees
    }

    /// Takes it that a quota is gone, and tells whether it was known.
    pub fn gone(&mut self, name: &QuotaName) -> bool {
        let was_known = self.known.remove(name).is_some();
        if was_known {
            self.freed.insert(name.0.clone());
        }
        was_known
    }

    /// Whether a refusal in this namespace may be out of date: admission looks quotas up in a cache of its own, which may
    /// hear of freed room after we do.
    #[must_use]
    pub fn may_lag(&self, namespace: &str) -> bool {
        self.freed.contains(namespace)
    }

    /// Names of all quotas known, to find those that a new list lacks.
    #[must_use]
    pub fn names(&self) -> Vec<QuotaName> {
        self.known.keys().cloned().collect()
    }
}

impl Room {
    const fn is_more_than(self, before: Self) -> bool {
        let wider = match (self.hard, before.hard) {
            (Some(now), Some(before)) => now > before,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        wider || self.used < before.used
    }
}

/// A count as the API server spells it: `12`, or `1k` for a thousand.
fn count(text: &str) -> Option<u64> {
    let scale = |suffix, by: u64| text.strip_suffix(suffix)?.parse::<u64>().ok()?.checked_mul(by);
    text.parse().ok().or_else(|| scale("k", 1_000)).or_else(|| scale("M", 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn quota(hard: &str, used: &str) -> ResourceQuota {
        serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": "q"},
            "status": {"hard": {"services.loadbalancers": hard, "cpu": "100m"},
                "used": {"services.loadbalancers": used, "cpu": used}}}))
        .unwrap()
    }

    #[test]
    fn only_what_frees_room_for_services_counts() {
        let mut quotas = Quotas::default();
        let table = [
            (quota("2", "2"), false, false),
            (quota("2", "2"), false, false),
            (quota("2", "1"), true, true),
            (quota("2", "1"), false, true),
            (quota("1", "1"), false, false),
            (quota("1k", "1"), true, true),
            (quota("1k", "2"), false, false),
        ];
        for (quota, frees, may_lag) in table {
            assert_eq!((quotas.seen(&quota), quotas.may_lag("ns")), (frees, may_lag), "{quota:?}");
        }
        assert!(quotas.gone(&name(&quota("", ""))) && quotas.may_lag("ns") && !quotas.may_lag("other"));
        assert!(!quotas.gone(&name(&quota("", ""))));
    }
}
