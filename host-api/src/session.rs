//! One open session: what has been said in it and what is still to be told. Pure.
//!
//! Nothing is queued here. What to tell is derived from the ledger (the newest answer of each key) and from sets of keys,
//! so a slow agent costs no memory.

use std::collections::BTreeSet;

use k3k_expose_proto::message::{Bye, ByeReason, Hello, HostBeat};
use k3k_expose_proto::{Key, Resource, Tally, Uid};

use crate::tenant::ServerPod;

/// Names a session within the process.
pub type SessionId = u64;

/// The state of one session.
#[derive(Debug)]
pub struct Session {
    /// The tenant that it speaks for.
    pub tenant: Uid,
    /// The pod that holds it.
    pub pod: ServerPod,
    /// UID of the virtual cluster that its hello named.
    pub virtual_cluster: Uid,
    /// Version of its agent's projection.
    pub projection: u32,
    /// What else than Services its agent speaks for.
    pub speaks: Speaks,
    /// Whether that pod's API server is ready, by what its agent says.
    pub ready: bool,
    /// What is being said: the whole set, or changes to it.
    pub phase: Phase,
    /// Version of the newest answer that has been told.
    pub told: u64,
    /// Keys to ask for.
    pub wants: BTreeSet<Key>,
    /// Ask for everything.
    pub wants_all: bool,
    /// What was told last of k3k's own sync.
    pub told_beat: HostBeat,
    /// Its agent is to be told that it speaks from now on.
    pub promoted: bool,
    /// It is over, for this reason.
    pub bye: Option<Bye>,
}

/// What else than Services an agent speaks for. Of what it does not speak for, absence means nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speaks {
    /// Ingresses.
    pub ingresses: bool,
    /// The Secrets that they name.
    pub secrets: bool,
}

/// What an agent is saying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Everything it wants: nothing may be concluded from what is absent yet.
    Snapshot {
        /// Marks the records that were said in this snapshot.
        number: u64,
        /// What has been said so far.
        said: Tally,
    },
    /// Changes only.
    Changes,
}

impl Speaks {
    /// What a `hello` says.
    #[must_use]
    pub const fn of(hello: &Hello) -> Self {
        Self { ingresses: hello.ingresses, secrets: hello.secrets }
    }

    /// Whether that is among it.
    #[must_use]
    pub const fn is_for(self, resource: Resource) -> bool {
        match resource {
            Resource::Services => true,
            Resource::Secrets => self.secrets,
            Resource::Ingresses => self.ingresses,
        }
    }
}

impl Session {
    /// Ends the session. The first reason stays.
    pub fn end(&mut self, reason: ByeReason, message: &str, retry_after_s: Option<u32>) {
        self.bye.get_or_insert_with(|| bye(reason, message, retry_after_s));
    }
}

/// A last line.
#[must_use]
pub fn bye(reason: ByeReason, message: &str, retry_after_s: Option<u32>) -> Bye {
    Bye { reason, message: message.to_owned(), retry_after_s }
}
