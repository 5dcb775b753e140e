//! What the parts of the process share: the outbox, what is to be written back, how the two sides fare, and the metrics.
//!
//! Locks are held for single calls only, never while waiting.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use k3k_expose_proto::{Key, Resource, Uid};
use tokio::sync::{Notify, watch};
use tokio::time::{Duration, Instant};

use crate::endpoints::Join;
use crate::lag::Lag;
use crate::metrics::{Metrics, Snapshot};
use crate::outbox::{Outbox, Refusal};
use crate::packed::Change;
use crate::write_back::WriteBack;

/// The shared state.
#[derive(Debug)]
pub(crate) struct Agent {
    outbox: Mutex<Outbox>,
    changes: watch::Sender<()>,
    lag: Mutex<Lag>,
    write_back: Mutex<WriteBack>,
    writes: Notify,
    started: Instant,
    health: Mutex<Health>,
    reproject: watch::Sender<()>,
    classes: watch::Sender<Option<Vec<String>>>,
    join: Mutex<Join>,
    joined: watch::Sender<bool>,
    /// Numbers for `/metrics`.
    pub(crate) metrics: Metrics,
}

/// How the two sides fare; an error says why not well.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    /// The configuration.
    pub(crate) configuration: Result<(), String>,
    /// The watches on the virtual cluster.
    watches: BTreeMap<Resource, Result<(), String>>,
    /// The watch on what hand-made endpoints its Services have.
    endpoints: Result<(), String>,
    /// The session with host-api.
    pub(crate) session: Result<(), String>,
}

impl Agent {
    /// An agent that has neither listed nor connected, and is to speak for these resources.
    #[must_use]
    pub(crate) fn new(watched: &[Resource]) -> Self {
        Self {
            outbox: Mutex::new(Outbox::default().with(watched.iter().copied().filter(|of| *of != Resource::Services))),
            changes: watch::Sender::new(()),
            lag: Mutex::default(),
            write_back: Mutex::default(),
            writes: Notify::new(),
            started: Instant::now(),
            health: Mutex::new(Health {
                configuration: Ok(()),
                watches: watched.iter().map(|of| (*of, Err("not started".to_owned()))).collect(),
                // Services are not listed before it is.
                endpoints: Ok(()),
                session: Err("not started".to_owned()),
            }),
            reproject: watch::Sender::new(()),
            classes: watch::Sender::new(None),
            join: Mutex::default(),
            joined: watch::Sender::new(false),
            metrics: Metrics::new(),
        }
    }

    /// Reads the outbox.
    pub(crate) fn read<R>(&self, f: impl FnOnce(&Outbox) -> R) -> R {
        f(&lock(&self.outbox))
    }

    /// Changes the outbox, and wakes whoever waits for a change.
    pub(crate) fn change<R>(&self, f: impl FnOnce(&mut Outbox) -> R) -> R {
        let result = f(&mut lock(&self.outbox));
        self.changes.send_replace(());
        result
    }

    /// Takes lines out of the outbox: wakes nobody, since only the one who takes them waits for lines.
    pub(crate) fn take<R>(&self, f: impl FnOnce(&mut Outbox) -> R) -> R {
        f(&mut lock(&self.outbox))
    }

    /// Wakes at every change of the outbox from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Takes in an event of the virtual cluster, and gives the refusal if it is one and new.
    pub(crate) fn seen(&self, change: Change) -> Option<Refusal> {
        let key = change.key().clone();
        let (refusal, waits) = self.change(|outbox| (outbox.apply(change), outbox.is_unanswered(&key)));
        lock(&self.lag).seen(&key, waits, self.started.elapsed());
        refusal
    }

    /// Takes in a complete list of one resource, and gives the refusals that are new.
    pub(crate) fn listed(&self, resource: Resource, cluster: &Uid, listed: Vec<Change>) -> Vec<Refusal> {
        let (refusals, waiting) =
            self.change(|outbox| (outbox.replace(resource, cluster, listed), outbox.unanswered()));
        lock(&self.lag).listed(waiting, self.started.elapsed());
        refusals
    }

    /// An answer was taken in.
    pub(crate) fn answered(&self, key: &Key) {
        if !self.read(|outbox| outbox.is_unanswered(key))
            && let Some(lag) = lock(&self.lag).acknowledged(key, self.started.elapsed())
        {
            self.metrics.acknowledged(lag);
        }
    }

    /// This agent speaks for its virtual cluster from now on.
    pub(crate) fn promoted(&self) {
        lock(&self.lag).begin(self.started.elapsed());
    }

    /// How it stands, for metrics.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let (counts, role) = self.read(|outbox| (outbox.counts(), outbox.role()));
        Snapshot { counts, role, oldest: lock(&self.lag).oldest(self.started.elapsed()) }
    }

    /// Changes what is to be written back, at the present time, and wakes whoever writes.
    pub(crate) fn write_back<R>(&self, f: impl FnOnce(&mut WriteBack, Duration) -> R) -> R {
        let result = self.next_write(f);
        self.writes.notify_one();
        result
    }

    /// Takes the next write: wakes nobody.
    pub(crate) fn next_write<R>(&self, f: impl FnOnce(&mut WriteBack, Duration) -> R) -> R {
        f(&mut lock(&self.write_back), self.started.elapsed())
    }

    /// Wakes when there may be something to write.
    pub(crate) const fn writes(&self) -> &Notify {
        &self.writes
    }

    /// Wakes the watches when everything has to be projected anew.
    pub(crate) const fn reproject(&self) -> &watch::Sender<()> {
        &self.reproject
    }

    /// The Ingress classes to show, once host-api has said which; `None` leaves what stands as it is.
    pub(crate) const fn classes(&self) -> &watch::Sender<Option<Vec<String>>> {
        &self.classes
    }

    pub(crate) fn health(&self) -> Health {
        lock(&self.health).clone()
    }

    pub(crate) fn set_configuration(&self, state: Result<(), String>) {
        lock(&self.health).configuration = state;
    }

    pub(crate) fn set_watch(&self, resource: Resource, state: Result<(), String>) {
        if let Some(known) = lock(&self.health).watches.get_mut(&resource) {
            *known = state;
        }
        // The session tells of it.
        self.changes.send_replace(());
    }

    pub(crate) fn set_endpoints_watch(&self, state: Result<(), String>) {
        lock(&self.health).endpoints = state;
        self.changes.send_replace(());
    }

    /// Reads or changes what is known of hand-made endpoints. It may be called where the outbox is read, never the other way round.
    pub(crate) fn join<R>(&self, f: impl FnOnce(&mut Join) -> R) -> R {
        f(&mut lock(&self.join))
    }

    /// Whether all hand-made endpoints are known: a Service that is said without its own would lose them on the host.
    pub(crate) const fn joined(&self) -> &watch::Sender<bool> {
        &self.joined
    }

    pub(crate) fn set_session(&self, state: Result<(), String>) {
        self.metrics.set_session_up(state.is_ok());
        lock(&self.health).session = state;
    }
}

impl Health {
    /// Whether every watch fares well; an error is that of the first that does not.
    pub(crate) fn watch(&self) -> Result<(), String> {
        self.watches.values().chain([&self.endpoints]).cloned().collect()
    }
}

/// A panic ends the process, so that a poisoned lock is never met outside of tests.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
