//! When the host's watch told of what: the clock that stops every measurement.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Everything that a watch has told so far.
#[derive(Default)]
pub(super) struct Seen {
    alive: HashMap<String, Alive>,
    gone: HashMap<String, Instant>,
}

/// A Service that stands.
struct Alive {
    since: Instant,
    port: i32,
    port_since: Instant,
}

/// A watch on Services; it ends when this value is dropped.
pub(super) struct HostWatch {
    seen: Arc<Mutex<Seen>>,
    events: watch::Receiver<u64>,
    _task: JoinSet<()>,
}

impl HostWatch {
    /// Begins to watch and returns when everything has been listed.
    pub(super) async fn start(services: Api<Service>) -> anyhow::Result<Self> {
        let (counter, events) = watch::channel(0);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut task = JoinSet::new();
        task.spawn(follow(services, Arc::clone(&seen), counter));
        let started = Self { seen, events, _task: task };
        started.wait("the first list", Duration::from_secs(30), |_| Some(())).await?;
        Ok(started)
    }

    /// Waits until `found` finds what it looks for.
    pub(super) async fn wait<T>(
        &self,
        what: &str,
        deadline: Duration,
        found: impl Fn(&Seen) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut events = self.events.clone();
        let look = async {
            loop {
                // The first event is the end of the list.
                if *events.borrow_and_update() > 0
                    && let Some(value) = found(&self.seen())
                {
                    return Ok(value);
                }
                events.changed().await.context("the watch ended")?;
            }
        };
        timeout(deadline, look)
            .await
            .with_context(|| format!("{what}: not within {deadline:?}, {} Services stand", self.seen().alive.len()))?
    }

    /// Forgets the times of what is gone, so that a name can be used again.
    pub(super) fn forget_gone(&self) {
        self.seen().gone.clear();
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// How many stand.
    pub(super) fn count(&self) -> usize {
        self.alive.len()
    }

    /// When a Service was first seen.
    pub(super) fn made(&self, name: &str) -> Option<Instant> {
        self.alive.get(name).map(|alive| alive.since)
    }

    /// When a Service was first seen with this port.
    pub(super) fn has_port(&self, name: &str, port: i32) -> Option<Instant> {
        let alive = self.alive.get(name)?;
        (alive.port == port).then_some(alive.port_since)
    }

    /// When a Service was seen to be gone.
    pub(super) fn gone(&self, name: &str) -> Option<Instant> {
        self.gone.get(name).copied()
    }

    fn apply(&mut self, service: &Service, now: Instant) {
        let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
        let port = ports.and_then(|ports| ports.first()).map_or(0, |port| port.port);
        let alive = self.alive.entry(service.name_any()).or_insert(Alive { since: now, port, port_since: now });
        if alive.port != port {
            alive.port = port;
            alive.port_since = now;
        }
    }
}

async fn follow(services: Api<Service>, seen: Arc<Mutex<Seen>>, counter: watch::Sender<u64>) {
    let mut events = pin!(watcher(services, watcher::Config::default()));
    // Errors are told again and again by the stream itself; a measurement that misses events ends at its deadline.
    while let Some(event) = events.next().await {
        let now = Instant::now();
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Ok(Event::InitApply(service) | Event::Apply(service)) => seen.apply(&service, now),
            Ok(Event::Delete(service)) => {
                seen.alive.remove(&service.name_any());
                seen.gone.insert(service.name_any(), now);
            }
            Ok(Event::Init) | Err(_) => continue,
            Ok(Event::InitDone) => {}
        }
        drop(seen);
        counter.send_modify(|events| *events += 1);
    }
}
