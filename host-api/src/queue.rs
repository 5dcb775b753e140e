//! Whose turn it is: one object of each tenant in turn, each object with one worker at a time. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use k3k_expose_proto::{Key, Uid};

/// Objects to look at, in fair turns between tenants.
#[derive(Debug, Default)]
pub struct Queue {
    turns: VecDeque<Uid>,
    tenants: BTreeMap<Uid, Line>,
}

/// Why an object is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The tenant or the host has changed something.
    Change,
    /// What stands is not admitted. It waits for nothing else of the tenant's.
    Policy,
}

/// What one tenant has waiting.
#[derive(Debug, Default)]
struct Line {
    first: BTreeSet<Key>,
    queued: BTreeSet<Key>,
    // A key that is not queued any more is passed over.
    order: VecDeque<Key>,
    // Since when.
    busy: BTreeMap<Key, Duration>,
    // Named again while a worker had them: to be looked at once more.
    again: BTreeMap<Key, Cause>,
}

impl Queue {
    /// Asks for an object to be looked at. Asking twice is asking once.
    pub fn add(&mut self, tenant: &Uid, key: Key, cause: Cause) {
        let line = self.tenants.entry(tenant.clone()).or_default();
        if line.busy.contains_key(&key) {
            let again = line.again.entry(key).or_insert(cause);
            *again = cause.max(*again);
            return;
        }
        let waited = line.next().is_some();
        line.push(key, cause);
        if !waited {
            self.turns.push_back(tenant.clone());
        }
    }

    /// The next object that `may` be taken, which is its taker's until [`Queue::done`]. No tenant has more than `most` taken at once.
    pub fn take(&mut self, now: Duration, most: usize, may: impl Fn(&Uid, Cause) -> bool) -> Option<(Uid, Key)> {
        let is_free = |tenant: &Uid| {
            let line = self.tenants.get(tenant).filter(|line| line.busy.len() < most);
            line.and_then(Line::next).is_some_and(|cause| may(tenant, cause))
        };
        let turn = self.turns.iter().position(is_free)?;
        let tenant = self.turns.remove(turn)?;
        let line = self.tenants.get_mut(&tenant)?;
        let key = line.pop()?;
        line.busy.insert(key.clone(), now);
        if line.next().is_some() {
            self.turns.push_back(tenant.clone());
        }
        Some((tenant, key))
    }

    /// Gives an object back. Tells when it was taken.
    pub fn done(&mut self, tenant: &Uid, key: &Key) -> Option<Duration> {
        let line = self.tenants.get_mut(tenant)?;
        let taken = line.busy.remove(key);
        if let Some(cause) = line.again.remove(key) {
            self.add(tenant, key.clone(), cause);
        } else if line.busy.is_empty() && line.next().is_none() {
            self.tenants.remove(tenant);
        }
        taken
    }

    /// Number of objects that wait or are being worked on.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tenants.values().map(|line| line.first.len() + line.queued.len() + line.busy.len()).sum()
    }

    /// Whether objects that `may` be taken wait.
    #[must_use]
    pub fn has_waiting(&self, may: impl Fn(&Uid, Cause) -> bool) -> bool {
        let next = |tenant| self.tenants.get(tenant).and_then(Line::next);
        self.turns.iter().any(|tenant| next(tenant).is_some_and(|cause| may(tenant, cause)))
    }

    /// Whether there is nothing to do and nobody at work.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tenants.is_empty()
    }
}

impl Line {
    /// Why the next object is to be looked at, if there is one.
    fn next(&self) -> Option<Cause> {
        let queued = || self.queued.first().map(|_| Cause::Change);
        self.first.first().map(|_| Cause::Policy).or_else(queued)
    }

    fn push(&mut self, key: Key, cause: Cause) {
        if cause == Cause::Policy {
            self.queued.remove(&key);
            self.first.insert(key);
        } else if !self.first.contains(&key) && self.queued.insert(key.clone()) {
            self.order.push_back(key);
        }
    }

    fn pop(&mut self) -> Option<Key> {
        if let Some(key) = self.first.pop_first() {
            return Some(key);
        }
        while let Some(key) = self.order.pop_front() {
            if self.queued.remove(&key) {
                return Some(key);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;
    const ALL: fn(&Uid, Cause) -> bool = |_, _| true;

    fn uid(text: &str) -> Uid {
        Uid::parse(text).unwrap()
    }

    fn key(name: &str) -> Key {
        Key::service("n", name).unwrap()
    }

    #[test]
    fn tenants_take_turns() {
        let mut queue = Queue::default();
        for name in ["a", "b", "c"] {
            queue.add(&uid("loud"), key(name), Cause::Change);
        }
        queue.add(&uid("quiet"), key("z"), Cause::Change);
        let order: Vec<_> =
            std::iter::from_fn(|| queue.take(NOW, 9, ALL)).map(|(tenant, _)| tenant.to_string()).collect();
        assert_eq!(order, ["loud", "quiet", "loud", "loud"]);
    }

    #[test]
    fn an_object_has_one_worker_and_is_seen_again_if_named_meanwhile() {
        let mut queue = Queue::default();
        queue.add(&uid("t"), key("a"), Cause::Change);
        queue.add(&uid("t"), key("a"), Cause::Change);
        assert!(queue.take(NOW, 9, ALL).is_some() && queue.take(NOW, 9, ALL).is_none());
        queue.add(&uid("t"), key("a"), Cause::Change);
        assert!(queue.take(NOW, 9, ALL).is_none());
        queue.done(&uid("t"), &key("a"));
        assert!(queue.take(NOW, 9, ALL).is_some());
        queue.done(&uid("t"), &key("a"));
        assert!(queue.is_empty() && queue.turns.is_empty());
    }

    #[test]
    fn a_tenant_whose_writes_hang_leaves_room_for_others() {
        let mut queue = Queue::default();
        for name in ["a", "b", "c"] {
            queue.add(&uid("stuck"), key(name), Cause::Change);
        }
        assert!(
            queue.take(NOW, 2, ALL).is_some() && queue.take(NOW, 2, ALL).is_some() && queue.take(NOW, 2, ALL).is_none()
        );
        assert!(queue.has_waiting(ALL));
        queue.add(&uid("other"), key("z"), Cause::Change);
        assert_eq!(queue.take(NOW, 2, ALL), Some((uid("other"), key("z"))));
        queue.done(&uid("stuck"), &key("a"));
        assert_eq!(queue.take(NOW, 2, ALL), Some((uid("stuck"), key("c"))));
        assert!(!queue.has_waiting(ALL));
    }

    #[test]
    fn a_tenant_that_may_not_is_passed_over_and_keeps_its_place() {
        let mut queue = Queue::default();
        queue.add(&uid("paused"), key("a"), Cause::Change);
        queue.add(&uid("other"), key("b"), Cause::Change);
        let may = |tenant: &Uid, _| *tenant != uid("paused");
        assert_eq!(queue.take(NOW, 9, may), Some((uid("other"), key("b"))));
        assert!(queue.take(NOW, 9, may).is_none() && !queue.has_waiting(may) && queue.has_waiting(ALL));
        assert_eq!(queue.take(NOW, 9, ALL), Some((uid("paused"), key("a"))));
    }

    #[test]
    fn what_is_not_admitted_goes_first_even_of_a_tenant_that_may_not_write() {
        let mut queue = Queue::default();
        for name in ["a", "b", "c"] {
            queue.add(&uid("paused"), key(name), Cause::Change);
        }
        queue.add(&uid("paused"), key("b"), Cause::Policy);
        queue.add(&uid("paused"), key("b"), Cause::Change);
        assert_eq!(queue.len(), 3);
        let may = |_: &Uid, cause| cause == Cause::Policy;
        assert_eq!(queue.take(NOW, 9, may), Some((uid("paused"), key("b"))));
        queue.add(&uid("paused"), key("b"), Cause::Policy);
        queue.add(&uid("paused"), key("b"), Cause::Change);
        assert!(queue.take(NOW, 9, may).is_none());
        assert_eq!(queue.done(&uid("paused"), &key("b")), Some(NOW));
        assert_eq!(queue.take(NOW, 9, may), Some((uid("paused"), key("b"))));
        queue.done(&uid("paused"), &key("b"));
        let rest: Vec<_> = std::iter::from_fn(|| queue.take(NOW, 9, ALL)).map(|(_, key)| key).collect();
        assert_eq!(rest, [key("a"), key("c")]);
    }
}
