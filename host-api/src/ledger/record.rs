//! What is known of one virtual object, and the answer that is made of it. Pure.

use std::io::{self, Write};

use k3k_expose_proto::message::{Answer, Condition, Ingress, Numbers, Object, Unusable};
use k3k_expose_proto::{Hash, Key, Outcome, Reason, Uid};

use crate::contest::Contest;
use crate::numbers::{self, History};
use crate::services::Blocker;

/// What is known of one virtual object.
#[derive(Debug)]
pub struct Record {
    /// Which object it is.
    pub uid: Uid,
    /// Hash of what was said last.
    pub hash: Hash,
    /// What was said last, until it is answered.
    pub object: Option<Object>,
    /// How many bytes that is, as it is said.
    pub(super) bytes: usize,
    /// The answer, kept until a newer one replaces it.
    pub answer: Option<Answer>,
    /// Since the answer something happened for which the object is needed again.
    pub stale: bool,
    /// How often the twin was undone.
    pub contest: Contest,
    /// What it waits for: the first of these to go makes it looked at again.
    pub blockers: Vec<Blocker>,
    /// Since when it waits for a host of an Ingress, by the version of the answer that first said so.
    pub waits_since: Option<u64>,
    /// Version of the answer that the agent knew when it said this.
    pub seen: u64,
    /// Numbers that the virtual cluster cannot give.
    pub unusable: Unusable,
    /// What was told and tried about its numbers.
    pub history: History,
    /// The snapshot in which it was said last; 0 for none.
    pub(super) said_in: u64,
}

impl Record {
    /// Lets go of the object, to ask for it again. Gives the bytes that this frees.
    pub(super) fn put_off(&mut self) -> usize {
        self.object = None;
        self.stale = true;
        std::mem::take(&mut self.bytes)
    }

    /// Whether the last answer was this one and still holds.
    #[must_use]
    pub fn stands(&self, reason: Reason) -> bool {
        self.settled().is_some_and(|answer| answer.reason == reason)
    }

    /// Whether the twin was, as of the last answer, as far as it can be what the object asks for.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        let ours = |reason| !matches!(reason, Reason::Contested | Reason::WrongVirtualCluster | Reason::NameTaken);
        self.settled()
            .is_some_and(|answer| answer.outcome != Outcome::Pending && answer.numbers.is_some() && ours(answer.reason))
    }

    /// Whether the last answer refused it and still holds.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.settled().is_some_and(|answer| answer.outcome == Outcome::Rejected)
    }

    /// Whether the last answer refused a number to what is said now too.
    #[must_use]
    pub fn was_refused_number(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| {
            let same = (&answer.uid, answer.hash) == (&self.uid, self.hash);
            same && answer.outcome == Outcome::Rejected && numbers::REASONS.contains(&answer.reason)
        })
    }

    /// Takes in which numbers are told with an answer.
    pub fn told(&mut self, reason: Reason, own: &Numbers, version: u64) {
        let Some(Object::Service(object)) = &self.object else {
            return;
        };
        if reason.outcome() == Outcome::Pending {
            return;
        }
        let (differs, unwished) = numbers::compare(object, own);
        self.history.unwished = unwished;
        // The agent brings the object to numbers that were found for it, not to those of a twin that could not be changed.
        if numbers::REASONS.contains(&reason) {
            self.history.given = differs.then(|| self.history.given.unwrap_or(version));
        }
    }

    /// The last answer, if it still holds.
    #[must_use]
    pub fn settled(&self) -> Option<&Answer> {
        self.answer.as_ref().filter(|_| !self.stale && self.object.is_none())
    }
}

/// Bytes of an object as it is said. In memory it may be eight times as many.
pub(super) fn bytes(object: &Object) -> usize {
    struct Count(usize);

    impl Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut count = Count(0);
    // Counting cannot fail, and whatever is an object can be written.
    let _ = serde_json::to_writer(&mut count, object);
    count.0
}

/// What a tenant may see of its twin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// What it holds.
    pub numbers: Numbers,
    /// Its load balancer's addresses.
    pub load_balancer: Vec<Ingress>,
    /// Its conditions.
    pub conditions: Vec<Condition>,
}

/// An answer about a record, with what stands on the host.
#[must_use]
pub fn answer(
    key: &Key,
    record: &Record,
    version: u64,
    reason: Reason,
    message: String,
    twin: Option<Shown>,
) -> Answer {
    let numbers = twin.as_ref().map(|twin| twin.numbers.clone());
    let Shown { load_balancer, conditions, .. } = twin.unwrap_or_default();
    Answer {
        key: key.clone(),
        uid: record.uid.clone(),
        hash: record.hash,
        version,
        outcome: reason.outcome(),
        reason,
        message,
        numbers,
        load_balancer,
        conditions,
    }
}
