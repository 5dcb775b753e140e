//! What the platform team admits of each tenant: which policy decides about whom, and what it says of an object. Pure, but for
//! [`status`] and [`ask`].
//!
//! Of the policies that select a tenant the most specific one with `spec.allow` decides, ties by name; `spec.deny` counts of
//! all of them. Without a policy, and for every field that the deciding one leaves out, there are safe defaults.

pub mod ask;
pub mod command;
pub mod grant;
pub mod keys;
pub mod limits;
pub mod resource;
pub mod select;
pub mod service;
pub mod standing;
pub mod status;
pub mod usage;
pub mod written;

use std::collections::BTreeMap;
use std::sync::Arc;

use k3k_expose_proto::Reason;

use grant::Grant;
use resource::ExposurePolicySpec;
use select::{Closeness, Labels, Selected};

pub use usage::Usage;

/// Why an object is not admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// As a word.
    pub reason: Reason,
    /// In words, for the tenant.
    pub message: String,
    /// What decided, for the platform team; none where no policy could decide otherwise.
    pub rule: Option<Rule>,
}

impl Refusal {
    /// What no policy could change.
    #[must_use]
    pub const fn new(reason: Reason, message: String) -> Self {
        Self { reason, message, rule: None }
    }
}

/// A field of a policy, or its safe default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The policy; none where the safe default decides.
    pub policy: Option<String>,
    /// The field.
    pub field: String,
}

impl std::fmt::Display for Rule {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.policy {
            Some(policy) => write!(formatter, "ExposurePolicy {policy}, {}", self.field),
            None => write!(formatter, "the safe default of {}", self.field),
        }
    }
}

/// All policies of the host.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    known: BTreeMap<String, Policy>,
}

/// One policy, read.
#[derive(Clone, Debug, PartialEq)]
struct Policy {
    spec: ExposurePolicySpec,
    closeness: Closeness,
    mistakes: Vec<String>,
}

/// Whom a policy is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Clusters that it selects.
    pub clusters: usize,
    /// Of these, the ones for which its `spec.allow` decides.
    pub governs: usize,
}

impl Policies {
    /// Takes in a policy, or that it is gone. Tells whether that changes anything.
    pub fn set(&mut self, name: &str, spec: Option<ExposurePolicySpec>) -> bool {
        let policy =
            spec.map(|spec| Policy { closeness: select::closeness(&spec), mistakes: grant::mistakes(&spec), spec });
        let before = match policy.clone() {
            Some(policy) => self.known.insert(name.to_owned(), policy),
            None => self.known.remove(name),
        };
        before != policy
    }

    /// Names of all policies.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.known.keys().map(String::as_str)
    }

    /// What of a policy cannot be used. `None` if there is no such policy.
    #[must_use]
    pub fn mistakes(&self, name: &str) -> Option<&[String]> {
        self.known.get(name).map(|policy| policy.mistakes.as_slice())
    }

    /// What a Cluster with these labels, in a namespace with those, may have.
    #[must_use]
    pub fn grant(&self, namespace: &Labels, cluster: &Labels) -> Arc<Grant> {
        let selecting = self.selecting(namespace, cluster);
        let deny: Vec<_> = selecting.filter_map(|(name, policy, _)| Some((name, policy.spec.deny.as_ref()?))).collect();
        let decides = self.deciding(namespace, cluster);
        let allow = decides.and_then(|(name, policy)| policy.spec.allow.as_ref().map(|allow| (name, allow)));
        Arc::new(Grant::new(allow, &deny))
    }

    /// Whom each policy is about, of these Clusters, each told by the labels of its namespace and its own.
    #[must_use]
    pub fn reach<'a>(&self, clusters: impl Iterator<Item = (&'a Labels, &'a Labels)>) -> BTreeMap<String, Reach> {
        let mut reach: BTreeMap<String, Reach> =
            self.known.keys().map(|name| (name.clone(), Reach::default())).collect();
        for (namespace, cluster) in clusters {
            let selecting = self.selecting(namespace, cluster).filter(|(_, _, selected)| *selected == Selected::Yes);
            for (name, _, _) in selecting {
                reach.entry(name.to_owned()).or_default().clusters += 1;
            }
            if let Some((name, _)) = self.deciding(namespace, cluster) {
                reach.entry(name.to_owned()).or_default().governs += 1;
            }
        }
        reach
    }

    /// The policies that select a Cluster, or of which nobody knows whether they do.
    fn selecting<'a>(
        &'a self,
        namespace: &'a Labels,
        cluster: &'a Labels,
    ) -> impl Iterator<Item = (&'a str, &'a Policy, Selected)> {
        self.known.iter().filter_map(move |(name, policy)| {
            let selected = select::selects(&policy.spec, namespace, cluster);
            (selected != Selected::No).then_some((name.as_str(), policy, selected))
        })
    }

    /// The policy that decides. A selector that cannot be read gives nobody anything.
    fn deciding<'a>(&'a self, namespace: &'a Labels, cluster: &'a Labels) -> Option<(&'a str, &'a Policy)> {
        let allowing = self
            .selecting(namespace, cluster)
            .filter(|(_, policy, selected)| *selected == Selected::Yes && policy.spec.allow.is_some());
        let by_rank = |(name, policy, _): &(&'a str, &'a Policy, Selected)| {
            (std::cmp::Reverse(policy.closeness), name.to_owned())
        };
        allowing.min_by_key(by_rank).map(|(name, policy, _)| (name, policy))
    }
}

#[cfg(test)]
mod tests;
