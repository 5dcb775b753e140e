//! Whom a policy is about. Pure.

use std::collections::BTreeMap;

use super::resource::{ExposurePolicySpec, Requirement, Selector};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// How closely a policy names whom it is about: what it asks of the Cluster counts before what it asks of the namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Closeness {
    cluster: usize,
    namespace: usize,
}

/// Whether a selector selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selected {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// Nobody knows: an operator is unknown, or lacks its values.
    Unclear,
}

/// How closely a policy names whom it is about.
#[must_use]
pub fn closeness(spec: &ExposurePolicySpec) -> Closeness {
    let requirements = |selector: &Option<Selector>| {
        selector.as_ref().map_or(0, |selector| selector.match_labels.len() + selector.match_expressions.len())
    };
    Closeness { cluster: requirements(&spec.cluster_selector), namespace: requirements(&spec.namespace_selector) }
}

/// Whether a policy selects a Cluster with these labels in a namespace with those.
#[must_use]
pub fn selects(spec: &ExposurePolicySpec, namespace: &Labels, cluster: &Labels) -> Selected {
    let of = |selector: &Option<Selector>, labels| match selector {
        None => Selected::Yes,
        Some(selector) => meets(selector, labels),
    };
    match (of(&spec.namespace_selector, namespace), of(&spec.cluster_selector, cluster)) {
        (Selected::Yes, Selected::Yes) => Selected::Yes,
        (Selected::No, _) | (_, Selected::No) => Selected::No,
        _ => Selected::Unclear,
    }
}

/// Whether the selectors of a policy can be read at all.
#[must_use]
pub fn is_clear(spec: &ExposurePolicySpec) -> bool {
    let clear = |selector: &Option<Selector>| selector.as_ref().is_none_or(|selector| !selector.is_unclear());
    clear(&spec.namespace_selector) && clear(&spec.cluster_selector)
}

fn meets(selector: &Selector, labels: &Labels) -> Selected {
    if selector.is_unclear() {
        return Selected::Unclear;
    }
    let labeled = selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value));
    let met = selector.match_expressions.iter().all(|requirement| requirement.is_met(labels));
    if labeled && met { Selected::Yes } else { Selected::No }
}

impl Selector {
    /// An empty selector is one that lost its requirements: in Kubernetes it selects everything, which nobody wrote here.
    fn is_unclear(&self) -> bool {
        let empty = self.match_labels.is_empty() && self.match_expressions.is_empty();
        empty || self.match_expressions.iter().any(Requirement::is_unclear)
    }
}

impl Requirement {
    fn is_unclear(&self) -> bool {
        match self.operator.as_str() {
            "In" | "NotIn" => self.values.is_empty(),
            "Exists" | "DoesNotExist" => false,
            _ => true,
        }
    }

    /// As Kubernetes has it: `NotIn` is met by an absent label.
    fn is_met(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match self.operator.as_str() {
            "In" => value.is_some_and(|value| self.values.contains(value)),
            "NotIn" => value.is_none_or(|value| !self.values.contains(value)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    fn requirement(key: &str, operator: &str, values: &[&str]) -> Requirement {
        let values = values.iter().map(|&value| value.to_owned()).collect();
        Requirement { key: key.to_owned(), operator: operator.to_owned(), values }
    }

    fn of_namespace(match_labels: Labels, match_expressions: Vec<Requirement>) -> ExposurePolicySpec {
        let selector = Some(Selector { match_labels, match_expressions });
        ExposurePolicySpec { namespace_selector: selector, ..ExposurePolicySpec::default() }
    }

    #[test]
    fn requirements_read_as_in_kubernetes() {
        let team = labels(&[("team", "a"), ("tier", "gold")]);
        for (requirement, expected) in [
            (requirement("team", "In", &["a", "b"]), Selected::Yes),
            (requirement("team", "In", &["b"]), Selected::No),
            (requirement("other", "In", &["b"]), Selected::No),
            (requirement("team", "NotIn", &["a"]), Selected::No),
            (requirement("other", "NotIn", &["a"]), Selected::Yes),
            (requirement("team", "Exists", &[]), Selected::Yes),
            (requirement("other", "Exists", &[]), Selected::No),
            (requirement("other", "DoesNotExist", &[]), Selected::Yes),
            (requirement("team", "DoesNotExist", &[]), Selected::No),
            (requirement("team", "In", &[]), Selected::Unclear),
            (requirement("team", "Gt", &["1"]), Selected::Unclear),
        ] {
            let spec = of_namespace(Labels::new(), vec![requirement]);
            assert_eq!(selects(&spec, &team, &Labels::new()), expected, "{spec:?}");
        }
    }

    #[test]
    fn every_requirement_of_both_selectors_has_to_be_met() {
        let (team, gold) = (labels(&[("team", "a")]), labels(&[("tier", "gold")]));
        let cluster_selector = Some(Selector { match_labels: gold.clone(), ..Selector::default() });
        let spec = ExposurePolicySpec { cluster_selector, ..of_namespace(team.clone(), Vec::new()) };
        assert_eq!(selects(&spec, &team, &gold), Selected::Yes);
        assert_eq!(selects(&spec, &team, &team), Selected::No);
        assert_eq!(selects(&spec, &gold, &gold), Selected::No);
        assert_eq!(selects(&ExposurePolicySpec::default(), &team, &gold), Selected::Yes, "no selector selects all");
    }

    #[test]
    fn an_empty_selector_selects_nobody_for_sure() {
        let spec = of_namespace(Labels::new(), Vec::new());
        assert_eq!(selects(&spec, &labels(&[("team", "a")]), &Labels::new()), Selected::Unclear);
        assert!(!is_clear(&spec) && is_clear(&ExposurePolicySpec::default()));
    }

    #[test]
    fn what_is_asked_of_the_cluster_is_closer_than_what_is_asked_of_its_namespace() {
        let two = labels(&[("team", "a"), ("tier", "gold")]);
        let by_namespace = of_namespace(two.clone(), vec![requirement("x", "Exists", &[])]);
        let selector = Some(Selector { match_labels: labels(&[("team", "a")]), ..Selector::default() });
        let by_cluster = ExposurePolicySpec { cluster_selector: selector, ..ExposurePolicySpec::default() };
        assert!(closeness(&by_cluster) > closeness(&by_namespace));
        assert!(closeness(&by_namespace) > closeness(&of_namespace(two, Vec::new())));
    }
}
