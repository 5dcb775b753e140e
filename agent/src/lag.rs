//! Since when objects wait for host-api to acknowledge them. Pure: time is passed in.
//!
//! An object that changes again while it waits has waited since its first change, so that a busy one does not look fast.

use std::collections::BTreeMap;
use std::time::Duration;

use k3k_expose_proto::Key;

/// Objects that host-api has not acknowledged, and since when. Empty when all is in sync.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    since: BTreeMap<Key, Duration>,
}

impl Lag {
    /// An event was taken in, after which the object waits, or does not.
    pub(crate) fn seen(&mut self, key: &Key, waits: bool, now: Duration) {
        if !waits {
            self.since.remove(key);
        } else if !self.since.contains_key(key) {
            self.since.insert(key.clone(), now);
        }
    }

    /// Everything was listed, after which these wait.
    pub(crate) fn listed(&mut self, waiting: Vec<Key>, now: Duration) {
        let known = std::mem::take(&mut self.since);
        self.since = waiting
            .into_iter()
            .map(|key| {
                let since = known.get(&key).copied().unwrap_or(now);
                (key, since)
            })
            .collect();
    }

    /// The object is acknowledged. Gives how long it waited, unless no change of its own made it wait.
    pub(crate) fn acknowledged(&mut self, key: &Key, now: Duration) -> Option<Duration> {
        self.since.remove(key).map(|since| now.saturating_sub(since))
    }

    /// Whatever waits could not be said before now: another agent spoke for the virtual cluster.
    pub(crate) fn begin(&mut self, now: Duration) {
        self.since.values_mut().for_each(|since| *since = now);
    }

    /// How long the object waits that waits longest.
    pub(crate) fn oldest(&self, now: Duration) -> Duration {
        self.since.values().min().map_or(Duration::ZERO, |since| now.saturating_sub(*since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn key(name: &str) -> Key {
        Key::service("default", name).unwrap()
    }

    #[test]
    fn an_object_waits_from_its_first_unacknowledged_change() {
        let mut lag = Lag::default();
        lag.seen(&key("a"), true, at(1));
        lag.seen(&key("a"), true, at(4));
        lag.seen(&key("b"), true, at(5));
        assert_eq!(lag.oldest(at(6)), at(5));
        assert_eq!(lag.acknowledged(&key("a"), at(7)), Some(at(6)));
        assert_eq!(lag.acknowledged(&key("a"), at(8)), None, "answered again without a change");
        assert_eq!(lag.oldest(at(8)), at(3));
    }

    #[test]
    fn what_is_gone_or_changed_back_waits_no_more() {
        let mut lag = Lag::default();
        lag.seen(&key("a"), true, at(1));
        lag.seen(&key("a"), false, at(2));
        assert_eq!((lag.oldest(at(9)), lag.acknowledged(&key("a"), at(9))), (at(0), None));
    }

    #[test]
    fn a_list_keeps_what_waits_already_and_forgets_what_does_not() {
        let mut lag = Lag::default();
        lag.seen(&key("a"), true, at(1));
        lag.seen(&key("b"), true, at(2));
        lag.listed(vec![key("b"), key("c")], at(5));
        assert_eq!(lag.acknowledged(&key("a"), at(6)), None);
        assert_eq!(lag.acknowledged(&key("b"), at(6)), Some(at(4)));
        assert_eq!(lag.acknowledged(&key("c"), at(6)), Some(at(1)));
    }

    #[test]
    fn a_standby_that_is_promoted_does_not_answer_for_the_time_before() {
        let mut lag = Lag::default();
        lag.seen(&key("a"), true, at(1));
        lag.begin(at(100));
        assert_eq!(lag.acknowledged(&key("a"), at(101)), Some(at(1)));
    }
}
