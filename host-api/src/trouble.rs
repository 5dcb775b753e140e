//! What goes wrong with a load balancer on the host, from the warning Events on its Service, as a closed word. Pure: time is
//! passed in.
//!
//! The words of an Event are the host's own and never reach a tenant; only its reason does, and only when it is one of a
//! closed list. A twin's trouble changes at most every ten seconds, whatever the host repeats.

use std::collections::HashMap;
use std::time::Duration;

use k3k_expose_proto::message::Condition;

use crate::services::HostName;

/// Least time between two changes of one twin's trouble.
const PACE: Duration = Duration::from_secs(10);
/// Type of the condition; no other one under this domain may come from the host.
const CONDITION: &str = "expose.k3k.io/LoadBalancerReady";

/// Reasons that load-balancer controllers give in warnings: the first four come from the service controller of
/// `k8s.io/cloud-provider` and those built on it (kube-vip's among them), the last from MetalLB.
const REASONS: &[&str] = &[
    "SyncLoadBalancerFailed",
    "UpdateLoadBalancerFailed",
    "DeleteLoadBalancerFailed",
    "UnAvailableLoadBalancer",
    "AllocationFailed",
];

/// The trouble of all twins that have some.
#[derive(Debug, Default)]
pub struct Troubles {
    of: HashMap<HostName, Trouble>,
}

#[derive(Debug, Default)]
struct Trouble {
    /// What is told.
    told: Option<&'static str>,
    /// What is the case, and the Event that says so.
    is: Option<(&'static str, String)>,
    /// When what is told was changed.
    changed: Option<Duration>,
}

/// The closed word of an Event's reason.
#[must_use]
pub fn word(reason: &str) -> Option<&'static str> {
    REASONS.iter().find(|known| **known == reason).copied()
}

impl Troubles {
    /// Takes in a warning about a twin.
    pub fn warned(&mut self, at: &HostName, word: &'static str, event: &str) {
        self.of.entry(at.clone()).or_default().is = Some((word, event.to_owned()));
    }

    /// Takes it that an Event is gone.
    pub fn event_gone(&mut self, at: &HostName, event: &str) {
        if let Some(trouble) = self.of.get_mut(at) {
            trouble.is.take_if(|(_, by)| by == event);
        }
    }

    /// Takes it that a twin's load balancer works.
    pub fn over(&mut self, at: &HostName) {
        if let Some(trouble) = self.of.get_mut(at) {
            trouble.is = None;
        }
    }

    /// Forgets a twin.
    pub fn forget(&mut self, at: &HostName) {
        self.of.remove(at);
    }

    /// Brings what is told to what is the case where it is time, and gives the twins for which that changed something.
    pub fn due(&mut self, now: Duration) -> Vec<HostName> {
        let mut changed = Vec::new();
        for (at, trouble) in &mut self.of {
            let is = trouble.is.as_ref().map(|(word, _)| *word);
            if is != trouble.told && trouble.changed.is_none_or(|changed| now >= changed + PACE) {
                (trouble.told, trouble.changed) = (is, Some(now));
                changed.push(at.clone());
            }
        }
        let old = |changed: Option<Duration>| changed.is_none_or(|changed| now >= changed + PACE);
        self.of.retain(|_, trouble| trouble.is.is_some() || trouble.told.is_some() || !old(trouble.changed));
        changed
    }

    /// When [`Troubles::due`] may have something.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        let differs = |trouble: &&Trouble| trouble.is.as_ref().map(|(word, _)| *word) != trouble.told;
        self.of.values().filter(differs).map(|trouble| trouble.changed.map_or(Duration::ZERO, |at| at + PACE)).min()
    }

    /// The condition that tells of a twin's trouble.
    #[must_use]
    pub fn condition(&self, at: &HostName) -> Option<Condition> {
        let word = self.of.get(at)?.told?;
        Some(Condition { condition_type: CONDITION.to_owned(), status: "False".to_owned(), reason: word.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> HostName {
        HostName { namespace: "ns".to_owned(), name: "web".to_owned() }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_warning_is_told_at_once_and_changes_at_most_every_ten_seconds() {
        let mut troubles = Troubles::default();
        let word = |troubles: &Troubles| troubles.condition(&at()).map(|condition| condition.reason);
        troubles.warned(&at(), "SyncLoadBalancerFailed", "e1");
        assert_eq!(troubles.due(seconds(1)), [at()]);
        assert_eq!(word(&troubles).as_deref(), Some("SyncLoadBalancerFailed"));
        troubles.warned(&at(), "UnAvailableLoadBalancer", "e2");
        troubles.event_gone(&at(), "e1");
        assert!(troubles.due(seconds(10)).is_empty());
        assert_eq!(troubles.next(), Some(seconds(11)));
        assert_eq!(troubles.due(seconds(11)), [at()]);
        assert_eq!(word(&troubles).as_deref(), Some("UnAvailableLoadBalancer"));
        assert_eq!(troubles.next(), None);
        troubles.event_gone(&at(), "e2");
        assert_eq!(troubles.due(seconds(30)), [at()]);
        assert_eq!(word(&troubles), None);
        assert!(troubles.due(seconds(41)).is_empty() && troubles.of.is_empty(), "nothing is kept of what is over");
    }

    #[test]
    fn only_words_of_the_closed_list_count() {
        assert_eq!(word("AllocationFailed"), Some("AllocationFailed"));
        assert_eq!(word("tenant-made"), None);
    }
}
