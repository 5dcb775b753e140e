//! Keys that wait to be said, oldest first, each at most once. Pure.
//!
//! Two lanes keep what may always be said from waiting behind what needs a free slot. A key that changes again while
//! it waits keeps its place, so that no key starves.

use std::collections::{BTreeMap, HashMap};

use k3k_expose_proto::Key;

/// Whether saying a key needs one of the slots for unanswered puts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// It does.
    Slotted,
    /// It does not: a delete, or a put that takes no slot of its own.
    Free,
}

/// Places are handed out in rising order and never again.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    next: u64,
    places: HashMap<Key, (u64, Lane)>,
    slotted: BTreeMap<u64, Key>,
    free: BTreeMap<u64, Key>,
}

impl Queue {
    /// Queues a key, or moves it to the other lane at its old place.
    pub(crate) fn push(&mut self, key: &Key, lane: Lane) {
        let place = self.remove(key).unwrap_or_else(|| self.next_place());
        self.places.insert(key.clone(), (place, lane));
        self.lane(lane).insert(place, key.clone());
    }

    /// Takes a key out, wherever it is.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<u64> {
        let (place, lane) = self.places.remove(key)?;
        self.lane(lane).remove(&place);
        Some(place)
    }

    /// Takes out the oldest key, only among the free ones unless there is a slot.
    pub(crate) fn pop(&mut self, slot: bool) -> Option<Key> {
        let free = self.free.first_key_value();
        let slotted = self.slotted.first_key_value().filter(|_| slot);
        let (_, key) = match (free, slotted) {
            (Some(free), Some(slotted)) => free.min(slotted),
            (one, other) => one.or(other)?,
        };
        let key = key.clone();
        self.remove(&key);
        Some(key)
    }

    /// Whether [`Self::pop`] would find a key.
    pub(crate) fn has_next(&self, slot: bool) -> bool {
        !self.free.is_empty() || (slot && !self.slotted.is_empty())
    }

    /// Whether every key that was queued before this place has left.
    pub(crate) fn has_passed(&self, place: u64) -> bool {
        let past = |lane: &BTreeMap<u64, Key>| lane.first_key_value().is_none_or(|(first, _)| *first >= place);
        past(&self.free) && past(&self.slotted)
    }

    /// A place behind every key that waits now.
    pub(crate) fn next_place(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.places.contains_key(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    fn lane(&mut self, lane: Lane) -> &mut BTreeMap<u64, Key> {
        match lane {
            Lane::Slotted => &mut self.slotted,
            Lane::Free => &mut self.free,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::service("default", name).unwrap()
    }

    #[test]
    fn the_oldest_key_comes_first_across_lanes_and_keeps_its_place_when_it_changes_lane() {
        let mut queue = Queue::default();
        queue.push(&key("a"), Lane::Slotted);
        queue.push(&key("b"), Lane::Free);
        queue.push(&key("a"), Lane::Free);
        queue.push(&key("a"), Lane::Slotted);
        assert_eq!(queue.len(), 2);
        assert_eq!(queue.pop(true), Some(key("a")));
        assert_eq!(queue.pop(true), Some(key("b")));
        assert_eq!(queue.pop(true), None);
    }

    #[test]
    fn without_a_slot_only_free_keys_leave() {
        let mut queue = Queue::default();
        queue.push(&key("a"), Lane::Slotted);
        queue.push(&key("b"), Lane::Free);
        assert_eq!(queue.pop(false), Some(key("b")));
        assert!(!queue.has_next(false) && queue.has_next(true));
        assert_eq!(queue.pop(false), None);
    }

    #[test]
    fn a_place_is_passed_when_all_before_it_have_left() {
        let mut queue = Queue::default();
        queue.push(&key("a"), Lane::Slotted);
        let place = queue.next_place();
        queue.push(&key("b"), Lane::Free);
        assert!(!queue.has_passed(place));
        assert_eq!(queue.remove(&key("a")), Some(1));
        assert!(queue.has_passed(place));
    }
}
