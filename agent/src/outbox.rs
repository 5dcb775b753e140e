//! The latest state of every key, and what of it host-api has yet to hear. Pure.
//!
//! State travels, never events: a key that changes ten times between two lines is said once, so memory is bounded by the
//! number of objects whatever host-api does. A deletion is said only when an event said it. An object that merely is not
//! there after a new list breaks the session instead: the next `hello` has another root, and host-api judges the complete
//! snapshot with its own guards.

mod exchange;

use std::collections::{BTreeMap, BTreeSet};

use k3k_expose_proto::message::{Answer, Unusable};
use k3k_expose_proto::{Hash, Key, Outcome, Reason, Resource, Tally, Uid};

use crate::ledger::{Ledger, Told};
use crate::packed::{Change, Packed};

/// Everything wanted, and the session in which it is said.
#[derive(Debug, Default)]
pub struct Outbox {
    virtual_cluster: Option<Uid>,
    admitted: BTreeSet<String>,
    /// What else than Services is said.
    more: BTreeSet<Resource>,
    /// Of what there is a complete set, projected with the admitted keys.
    listed: BTreeSet<Resource>,
    entries: BTreeMap<Key, Entry>,
    refused: BTreeMap<Key, (Uid, &'static str)>,
    wanted: Tally,
    offer: Option<Offer>,
    session: Option<Ledger>,
    generation: u64,
    epoch: Option<Uid>,
    newest: u64,
}

#[derive(Debug)]
struct Entry {
    uid: Uid,
    object: Packed,
    /// Version of the last answer when the object was read.
    seen: u64,
    verdict: Option<Verdict>,
    /// Numbers of the host's that the virtual cluster cannot give it.
    unusable: Unusable,
}

/// What is kept of an answer.
#[derive(Clone, Copy, Debug)]
struct Verdict {
    hash: Hash,
    version: u64,
    outcome: Outcome,
    reason: Reason,
}

/// What a `hello` stood for. Only the keys that changed since are noted, with what the `hello` had for them.
#[derive(Debug)]
struct Offer {
    tally: Tally,
    before: BTreeMap<Key, Option<Told>>,
    broken: bool,
}

/// Objects by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Their twin is as they ask.
    pub applied: u64,
    /// Host-api goes on with them.
    pub pending: u64,
    /// Refused by host-api, or by this agent.
    pub rejected: u64,
    /// Their present state has no answer.
    pub unanswered: u64,
}

/// What keeps the outbox from being in sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Behind {
    /// The virtual cluster's Services were never listed.
    #[error("the virtual cluster's services have not been listed")]
    Unlisted,
    /// No session is open.
    #[error("no session is open")]
    NoSession,
    /// Another agent of the tenant is the active one.
    #[error("another agent of this virtual cluster is active")]
    Standby,
    /// Lines wait to be said.
    #[error("{0} lines wait to be said")]
    Waiting(usize),
    /// Objects wait for their answer.
    #[error("{0} services wait for an answer")]
    Unanswered(u64),
}

/// An answer that is news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The answer.
    pub answer: Answer,
    /// Whether it refuses the object, and for another reason than before.
    pub is_new_refusal: bool,
}

/// A refusal that is new, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The object.
    pub key: Key,
    /// Why, as a word of the closed list.
    pub reason: &'static str,
    /// Why, in words.
    pub message: String,
}

impl Entry {
    fn is_answered(&self) -> bool {
        self.verdict.is_some_and(|verdict| verdict.hash == self.object.hash())
    }

    fn told(&self) -> Told {
        Told::new(self.uid.clone(), self.object.hash())
    }
}

/// What the watch says.
impl Outbox {
    /// Takes in one change, and gives the refusal if it is one and new.
    pub fn apply(&mut self, change: Change) -> Option<Refusal> {
        match change {
            Change::Wanted(key, uid, object) => {
                self.refused.remove(&key);
                self.put(&key, uid, object);
                None
            }
            Change::Gone(key, uid) => {
                if self.refused.get(&key).is_some_and(|(refused, _)| *refused == uid) {
                    self.refused.remove(&key);
                }
                if self.entries.get(&key).is_some_and(|entry| entry.uid == uid) {
                    self.remove(&key);
                }
                None
            }
            Change::Refused(key, uid, why) => {
                // Outside of count and root, so host-api must no longer count an earlier state of it.
                self.remove(&key);
                let known = self.refused.insert(key.clone(), (uid.clone(), why));
                (known != Some((uid, why))).then(|| Refusal { key, reason: "NotCarried", message: why.to_owned() })
            }
        }
    }

    /// The same that says these, too.
    #[must_use]
    pub fn with(self, more: impl IntoIterator<Item = Resource>) -> Self {
        Self { more: more.into_iter().collect(), ..self }
    }

    /// The Secrets that Ingresses name.
    #[must_use]
    pub fn named_secrets(&self) -> BTreeSet<Key> {
        let named = |(key, entry): (&Key, &Entry)| {
            let names = entry.object.secrets().iter();
            names.filter_map(|name| Key::of(Resource::Secrets, key.namespace(), name).ok()).collect::<Vec<_>>()
        };
        self.entries.iter().flat_map(named).collect()
    }

    /// Takes it that everything of that kind has been taken in, change by change.
    pub fn complete(&mut self, resource: Resource) {
        self.listed.insert(resource);
    }

    /// Takes in a complete list of one kind of one virtual cluster, and gives the refusals that are new. Of another virtual
    /// cluster than before nothing stays.
    pub fn replace(&mut self, resource: Resource, virtual_cluster: &Uid, listed: Vec<Change>) -> Vec<Refusal> {
        let is_other = self.virtual_cluster.as_ref().is_some_and(|known| known != virtual_cluster);
        let stays =
            |key: &Key, present: &BTreeSet<Key>| present.contains(key) || (!is_other && key.resource() != resource);
        let present: BTreeSet<Key> = listed.iter().map(|change| change.key().clone()).collect();
        let vanished: Vec<Key> = self.entries.keys().filter(|key| !stays(key, &present)).cloned().collect();
        if is_other || !vanished.is_empty() {
            self.break_sessions();
        }
        for key in &vanished {
            self.remove(key);
        }
        self.refused.retain(|key, _| stays(key, &present));
        self.virtual_cluster = Some(virtual_cluster.clone());
        if is_other {
            self.listed.clear();
        }
        self.listed.insert(resource);
        listed.into_iter().filter_map(|change| self.apply(change)).collect()
    }

    /// Annotation keys that may cross.
    #[must_use]
    pub const fn admitted(&self) -> &BTreeSet<String> {
        &self.admitted
    }

    /// Whether there is a complete set, projected as host-api admits, to open a session with.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.has_listed(Resource::Services) && self.more.iter().all(|resource| self.has_listed(*resource))
    }

    /// Whether there is one of that kind.
    #[must_use]
    pub fn has_listed(&self, resource: Resource) -> bool {
        self.listed.contains(&resource)
    }

    fn put(&mut self, key: &Key, uid: Uid, object: Packed) {
        let old = self.entries.get(key).filter(|old| old.uid == uid);
        let verdict = old.and_then(|old| old.verdict);
        let unusable = old.map(|old| old.unusable.clone()).unwrap_or_default();
        let seen = verdict.map_or(0, |verdict| verdict.version);
        if let Some(old) = self.entries.get_mut(key)
            && old.uid == uid
            && old.object.hash() == object.hash()
        {
            old.seen = seen;
            return;
        }
        self.note_before(key);
        self.wanted.add(key, &uid, object.hash());
        let entry = Entry { uid, object, seen, verdict, unusable };
        if let Some(ledger) = &mut self.session {
            ledger.put_later(key, entry.is_answered());
        }
        if let Some(old) = self.entries.insert(key.clone(), entry) {
            self.wanted.remove(key, &old.uid, old.object.hash());
        }
    }

    fn remove(&mut self, key: &Key) {
        self.note_before(key);
        let Some(old) = self.entries.remove(key) else {
            return;
        };
        self.wanted.remove(key, &old.uid, old.object.hash());
        if let Some(ledger) = &mut self.session {
            ledger.delete_later(key);
        }
    }

    fn note_before(&mut self, key: &Key) {
        if let Some(offer) = &mut self.offer {
            let entry = self.entries.get(key);
            offer.before.entry(key.clone()).or_insert_with(|| entry.map(Entry::told));
        }
    }

    fn break_sessions(&mut self) {
        if let Some(offer) = &mut self.offer {
            offer.broken = true;
        }
        if let Some(ledger) = &mut self.session {
            ledger.broken = true;
        }
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
