//! Which labels and annotations of a tenant's object cross. Pure.
//!
//! Reserved keys steer the host's own components: `service.kubernetes.io/service-proxy-name` would make the host's
//! kube-proxy ignore a twin, `k3k.io/clusterName` would claim one for another tenant.

use std::collections::{BTreeMap, BTreeSet};

const RESERVED: [&str; 3] = ["k3k.io", "kubernetes.io", "k8s.io"];
/// Recommended labels that people select by; they steer nothing.
const RECOMMENDED: &str = "app.kubernetes.io";
/// Says who writes the twin, which is host-api.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Domain of our own annotations.
const OURS: &str = "expose.k3k.io/";
/// Holds the whole object as the tenant applied it, reserved keys included.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// All labels but those with a reserved key.
#[must_use]
pub fn labels(labels: Option<&BTreeMap<String, String>>) -> BTreeMap<String, String> {
    filter(labels, |key| !is_reserved(key))
}

/// The annotations whose key is admitted: by name, or by its beginning where that is followed by a star, which no key has.
#[must_use]
pub fn annotations(
    annotations: Option<&BTreeMap<String, String>>,
    admitted: &BTreeSet<String>,
) -> BTreeMap<String, String> {
    let begins =
        |key: &str| admitted.iter().filter_map(|admitted| admitted.strip_suffix('*')).any(|p| key.starts_with(p));
    filter(annotations, |key| key != LAST_APPLIED && (admitted.contains(key) || begins(key)))
}

/// All annotations but our own, and the one that holds the whole object.
#[must_use]
pub fn foreign_annotations(annotations: Option<&BTreeMap<String, String>>) -> BTreeMap<String, String> {
    filter(annotations, |key| key != LAST_APPLIED && !key.starts_with(OURS))
}

fn filter(map: Option<&BTreeMap<String, String>>, crosses: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
    map.into_iter().flatten().filter(|(key, _)| crosses(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn is_reserved(key: &str) -> bool {
    let Some((prefix, _)) = key.split_once('/') else {
        return false;
    };
    if prefix == RECOMMENDED {
        return key == MANAGED_BY;
    }
    RESERVED
        .iter()
        .any(|reserved| prefix.strip_suffix(reserved).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(keys: &[&str]) -> BTreeMap<String, String> {
        keys.iter().map(|key| ((*key).to_owned(), "v".to_owned())).collect()
    }

    #[test]
    fn reserved_keys_stay_at_home() {
        let reserved = [
            "k3k.io/clusterName",
            "expose.k3k.io/uid",
            "kubernetes.io/cluster-service",
            "service.kubernetes.io/service-proxy-name",
            "k8s.io/x",
            "endpointslice.k8s.io/managed-by",
            "app.kubernetes.io/managed-by",
            "my.app.kubernetes.io/name",
        ];
        assert_eq!(labels(Some(&map(&reserved))), BTreeMap::new());
    }

    #[test]
    fn keys_that_only_look_reserved_cross() {
        let free = map(&[
            "app",
            "k3k.io",
            "kubernetes.io",
            "notk3k.io/x",
            "mykubernetes.io/x",
            "example.com/k8s.io",
            "app.kubernetes.io/name",
            "k8s.io.example.com/x",
        ]);
        assert_eq!(labels(Some(&free)), free);
        assert_eq!(labels(None), BTreeMap::new());
    }

    #[test]
    fn only_admitted_annotations_cross_and_last_applied_never() {
        let all = map(&["example.com/a", "example.com/b", LAST_APPLIED]);
        let admitted = ["example.com/a", LAST_APPLIED].map(str::to_owned).into();
        assert_eq!(annotations(Some(&all), &admitted), map(&["example.com/a"]));
        assert_eq!(annotations(Some(&all), &BTreeSet::new()), BTreeMap::new());
        let prefix = ["example.com/*", "kubectl.kubernetes.io/*"].map(str::to_owned).into();
        assert_eq!(annotations(Some(&all), &prefix), map(&["example.com/a", "example.com/b"]));
    }
}
