//! What one session has said: the set that host-api should hold after the lines so far. Pure.

use std::collections::BTreeMap;

use k3k_expose_proto::message::{End, Role};
use k3k_expose_proto::{Hash, Key, Tally, Uid};

use crate::queue::{Lane, Queue};

/// One session's books.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) generation: u64,
    pub(crate) role: Role,
    /// Set when only another `hello` can tell the truth; nothing more is said then.
    pub(crate) broken: bool,
    limit: usize,
    told: BTreeMap<Key, Told>,
    sent: Tally,
    in_flight: usize,
    queue: Queue,
    end_at: Option<u64>,
}

/// What host-api should hold for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) uid: Uid,
    pub(crate) hash: Hash,
    in_flight: bool,
}

impl Told {
    pub(crate) const fn new(uid: Uid, hash: Hash) -> Self {
        Self { uid, hash, in_flight: false }
    }
}

impl Ledger {
    /// Opens the books. `told` with its tally is what the `hello` stood for and host-api holds already.
    pub(crate) fn new(generation: u64, role: Role, limit: u32, told: BTreeMap<Key, Told>, sent: Tally) -> Self {
        Self {
            generation,
            role,
            broken: false,
            // A limit of none would be a session that never says anything.
            limit: usize::try_from(limit).unwrap_or(usize::MAX).max(1),
            told,
            sent,
            in_flight: 0,
            queue: Queue::default(),
            end_at: None,
        }
    }

    pub(crate) const fn sent(&self) -> Tally {
        self.sent
    }

    /// Queues the object at a key. `answered`: whether its present hash has an answer already.
    pub(crate) fn put_later(&mut self, key: &Key, answered: bool) {
        let holds_slot = self.told.get(key).is_some_and(|told| told.in_flight);
        let lane = if answered || holds_slot { Lane::Free } else { Lane::Slotted };
        self.queue.push(key, lane);
    }

    /// Queues a delete, or forgets a put that was never said.
    pub(crate) fn delete_later(&mut self, key: &Key) {
        if self.told.contains_key(key) {
            self.queue.push(key, Lane::Free);
        } else {
            self.queue.remove(key);
        }
    }

    /// An `end` becomes due when all that waits now has been said.
    pub(crate) fn end_later(&mut self) {
        self.end_at = Some(self.queue.next_place());
    }

    /// Takes the `end` if it is due.
    pub(crate) fn take_end(&mut self) -> Option<End> {
        if !self.end_is_due() {
            return None;
        }
        self.end_at = None;
        Some(End { count: self.sent.count, root: self.sent.root })
    }

    /// Takes the next key to say.
    pub(crate) fn take_key(&mut self) -> Option<Key> {
        self.queue.pop(self.in_flight < self.limit)
    }

    pub(crate) fn has_next(&self) -> bool {
        self.end_is_due() || self.queue.has_next(self.in_flight < self.limit)
    }

    /// Books a put. `answered` as in [`Self::put_later`].
    pub(crate) fn said(&mut self, key: &Key, uid: &Uid, hash: Hash, answered: bool) {
        self.unsaid(key);
        self.sent.add(key, uid, hash);
        self.in_flight += usize::from(!answered);
        let told = Told { uid: uid.clone(), hash, in_flight: !answered };
        self.told.insert(key.clone(), told);
    }

    /// Books a delete, and gives the UID that it is about.
    pub(crate) fn unsaid(&mut self, key: &Key) -> Option<Uid> {
        let told = self.told.remove(key)?;
        self.sent.remove(key, &told.uid, told.hash);
        self.in_flight -= usize::from(told.in_flight);
        Some(told.uid)
    }

    /// Frees the slot of a put that was answered. Gives whether the key waits again and must be queued anew, since it
    /// needs a slot of its own now.
    pub(crate) fn answered(&mut self, key: &Key, uid: &Uid, hash: Hash) -> bool {
        let Some(told) = self.told.get_mut(key) else {
            return false;
        };
        if !told.in_flight || told.uid != *uid || told.hash != hash {
            return false;
        }
        told.in_flight = false;
        self.in_flight -= 1;
        self.queue.contains(key)
    }

    /// Number of lines that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len() + usize::from(self.end_at.is_some())
    }

    /// Number of puts without an answer.
    pub(crate) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn end_is_due(&self) -> bool {
        self.end_at.is_some_and(|place| self.queue.has_passed(place))
    }
}
