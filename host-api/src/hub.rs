//! The one [`Registry`] of the process, shared by sessions, watches and the writer. I/O: clock and wake-ups.
//!
//! The lock is held for pure steps only, never over an await.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k3k_expose_proto::Uid;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tracing::warn;

use crate::notice::Notice;
use crate::numbers::Conflict;
use crate::registry::Registry;
use crate::session::SessionId;

/// Most notices that wait to be published. More than that tells nobody more.
const NOTICES: usize = 256;

/// Names one time of serving among all that ever answered an agent.
#[must_use]
pub fn new_epoch() -> Uid {
    Uid::from_number(fastrand::u128(..))
}

/// Shared access to the registry.
#[derive(Debug)]
pub struct Hub {
    state: Mutex<State>,
    started: Instant,
    work: Notify,
    notices: mpsc::Sender<Notice>,
    addresses: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    registry: Registry,
    wakers: HashMap<SessionId, Arc<Notify>>,
}

impl Hub {
    /// A hub with the empty registry of `epoch`, and the notices that come out of it.
    #[must_use]
    pub fn new(epoch: Uid, conflict: Conflict) -> (Self, mpsc::Receiver<Notice>) {
        let (notices, published) = mpsc::channel(NOTICES);
        let registry = Registry::new(epoch, fastrand::u64(..)).with_conflict(conflict);
        let state = State { registry, wakers: HashMap::new() };
        (
            Self {
                state: Mutex::new(state),
                started: Instant::now(),
                work: Notify::new(),
                notices,
                addresses: watch::Sender::new(false),
            },
            published,
        )
    }

    /// Runs one step on the registry at the present time, and wakes whoever has something to do after it.
    pub fn with<T>(&self, step: impl FnOnce(&mut Registry, Duration) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = step(&mut state.registry, self.now());
        let effects = state.registry.effects();
        for session in &effects.wake {
            if let Some(waker) = state.wakers.get(session) {
                waker.notify_one();
            }
        }
        drop(state);
        if effects.work {
            self.work.notify_one();
        }
        if effects.addresses {
            self.addresses.send_replace(true);
        }
        for notice in effects.notices {
            self.report(notice);
        }
        outcome
    }

    /// Forgets what agents have said, and calls itself otherwise: to agents this is a process that has just started.
    pub fn begin_anew(&self) {
        self.with(|registry, _| registry.begin_anew(new_epoch()));
    }

    /// Publishes a notice.
    pub fn report(&self, notice: Notice) {
        if self.notices.try_send(notice).is_err() {
            warn!("dropped a notice: too many wait to be published");
        }
    }

    /// Time since the process started.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns when there may be work for the writer.
    pub async fn work(&self) {
        self.work.notified().await;
    }

    /// Returns when it matters whose the addresses of the host are.
    pub async fn addresses(&self) {
        // The sender lives as long as the hub does.
        let _ = self.addresses.subscribe().wait_for(|wanted| *wanted).await;
    }

    /// What wakes a session.
    pub fn waker(&self, session: SessionId) -> Arc<Notify> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waker = Arc::clone(state.wakers.entry(session).or_default());
        // What was there to tell before the waker was must be told too.
        waker.notify_one();
        waker
    }

    /// Closes a session.
    pub fn close(&self, session: SessionId) {
        self.with(|registry, now| registry.close(session, now));
        self.state.lock().unwrap_or_else(PoisonError::into_inner).wakers.remove(&session);
    }
}
