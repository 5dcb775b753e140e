//! Whose turn it is: one object of each tenant in turn, each object with one worker at a time. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use k3k_expose_proto::{Key, Uid};

/// Objects to look at, in fair turns between tenants.
#[derive(Debug, Default)]
pub struct Queue {
    turns: VecDeque<Uid>,
    tenants: BTreeMap<Uid, Line>,
}

/// What one tenant has waiting.
#[derive(Debug, Default)]
struct Line {
    order: VecDeque<Key>,
    queued: BTreeSet<Key>,
    busy: BTreeSet<Key>,
    // Named again while a worker had them: to be looked at once more.
    again: BTreeSet<Key>,
}

impl Queue {
    /// Asks for an object to be looked at. Asking twice is asking once.
    pub fn add(&mut self, tenant: &Uid, key: Key) {
        let line = self.tenants.entry(tenant.clone()).or_default();
        if line.busy.contains(&key) {
            line.again.insert(key);
        } else if line.queued.insert(key.clone()) {
            line.order.push_back(key);
            if line.order.len() == 1 {
                self.turns.push_back(tenant.clone());
            }
        }
    }

    /// The next object, which is its taker's until [`Queue::done`]. No tenant has more taken at once than its `most`.
    pub fn take(&mut self, most: impl Fn(&Uid) -> usize) -> Option<(Uid, Key)> {
        let free = |tenant: &Uid| self.tenants.get(tenant).is_some_and(|line| line.busy.len() < most(tenant));
        let turn = self.turns.iter().position(free)?;
        let tenant = self.turns.remove(turn)?;
        let line = self.tenants.get_mut(&tenant)?;
        let key = line.order.pop_front()?;
        line.queued.remove(&key);
        line.busy.insert(key.clone());
        if !line.order.is_empty() {
            self.turns.push_back(tenant.clone());
        }
        Some((tenant, key))
    }

    /// Gives an object back.
    pub fn done(&mut self, tenant: &Uid, key: &Key) {
        let Some(line) = self.tenants.get_mut(tenant) else {
            return;
        };
        line.busy.remove(key);
        if line.again.remove(key) {
            self.add(tenant, key.clone());
        } else if line.busy.is_empty() && line.order.is_empty() {
            self.tenants.remove(tenant);
        }
    }

    /// Number of objects that wait or are being worked on.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tenants.values().map(|line| line.order.len() + line.busy.len()).sum()
    }

    /// Whether objects of those tenants that `may` wait and nobody has taken them.
    #[must_use]
    pub fn has_waiting(&self, may: impl Fn(&Uid) -> bool) -> bool {
        self.turns.iter().any(may)
    }

    /// Whether there is nothing to do and nobody at work.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tenants.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            queue.add(&uid("loud"), key(name));
        }
        queue.add(&uid("quiet"), key("z"));
        let order: Vec<_> = std::iter::from_fn(|| queue.take(|_| 9)).map(|(tenant, _)| tenant.to_string()).collect();
        assert_eq!(order, ["loud", "quiet", "loud", "loud"]);
    }

    #[test]
    fn an_object_has_one_worker_and_is_seen_again_if_named_meanwhile() {
        let mut queue = Queue::default();
        queue.add(&uid("t"), key("a"));
        queue.add(&uid("t"), key("a"));
        assert!(queue.take(|_| 9).is_some() && queue.take(|_| 9).is_none());
        queue.add(&uid("t"), key("a"));
        assert!(queue.take(|_| 9).is_none());
        queue.done(&uid("t"), &key("a"));
        assert!(queue.take(|_| 9).is_some());
        queue.done(&uid("t"), &key("a"));
        assert!(queue.is_empty() && queue.turns.is_empty());
    }

    #[test]
    fn a_tenant_whose_writes_hang_leaves_room_for_others() {
        let mut queue = Queue::default();
        for name in ["a", "b", "c"] {
            queue.add(&uid("stuck"), key(name));
        }
        assert!(queue.take(|_| 2).is_some() && queue.take(|_| 2).is_some() && queue.take(|_| 2).is_none());
        assert!(queue.has_waiting(|_| true));
        queue.add(&uid("other"), key("z"));
        assert_eq!(queue.take(|_| 2), Some((uid("other"), key("z"))));
        queue.done(&uid("stuck"), &key("a"));
        assert_eq!(queue.take(|_| 2), Some((uid("stuck"), key("c"))));
        assert!(!queue.has_waiting(|_| true));
    }

    #[test]
    fn a_tenant_that_may_not_is_passed_over_and_keeps_its_place() {
        let mut queue = Queue::default();
        queue.add(&uid("paused"), key("a"));
        queue.add(&uid("other"), key("b"));
        let may = |tenant: &Uid| *tenant != uid("paused");
        let most = |tenant: &Uid| if may(tenant) { 9 } else { 0 };
        assert_eq!(queue.take(most), Some((uid("other"), key("b"))));
        assert!(queue.take(most).is_none() && !queue.has_waiting(may) && queue.has_waiting(|_| true));
        assert_eq!(queue.take(|_| 9), Some((uid("paused"), key("a"))));
    }
}
