//! When a watch of either side told of what: the clock that stops every measurement.

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
use tokio::task::{JoinSet, consume_budget};
use tokio::time::{Instant, timeout};

use crate::told::{self, Numbers};

/// Everything that a watch has told so far.
#[derive(Default)]
pub(super) struct Seen {
    alive: HashMap<String, Alive>,
    gone: HashMap<String, Instant>,
    /// Load-balancer addresses of any Service: those of a bench are each used once.
    addresses: HashMap<String, Instant>,
}

/// A Service that stands.
struct Alive {
    since: Instant,
    port: i32,
    port_since: Instant,
    numbers: Numbers,
    numbers_since: Instant,
    synced: bool,
}

/// A watch on Services; it ends when this value is dropped.
pub(super) struct ServiceWatch {
    seen: Arc<Mutex<Seen>>,
    events: watch::Receiver<u64>,
    _task: JoinSet<()>,
}

impl ServiceWatch {
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
        self.wait_with(self, what, deadline, |seen, _| found(seen)).await
    }

    /// Waits until `found` finds what it looks for in both, this one and another.
    pub(super) async fn wait_with<T>(
        &self,
        other: &Self,
        what: &str,
        deadline: Duration,
        found: impl Fn(&Seen, &Seen) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut events = [self.events.clone(), other.events.clone()];
        let look = async {
            loop {
                // The first event is the end of the list.
                let listed = events.iter_mut().all(|events| *events.borrow_and_update() > 0);
                if listed && let Some(value) = self.look(other, &found) {
                    return Ok(value);
                }
                let [ours, theirs] = &mut events;
                let changed =
                    tokio::select! { changed = ours.changed() => changed, changed = theirs.changed() => changed };
                changed.context("the watch ended")?;
            }
        };
        timeout(deadline, look)
            .await
            .with_context(|| format!("{what}: not within {deadline:?}, {} Services stand", self.seen().alive.len()))?
    }

    fn look<T>(&self, other: &Self, found: impl Fn(&Seen, &Seen) -> Option<T>) -> Option<T> {
        let seen = self.seen();
        // A lock is not taken twice by one task.
        if Arc::ptr_eq(&self.seen, &other.seen) { found(&seen, &seen) } else { found(&seen, &other.seen()) }
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

    /// The numbers of a Service, and since when it has them.
    pub(super) fn numbers(&self, name: &str) -> Option<(&Numbers, Instant)> {
        self.alive.get(name).map(|alive| (&alive.numbers, alive.numbers_since))
    }

    /// Whether a Service says that it is synced.
    pub(super) fn is_synced(&self, name: &str) -> bool {
        self.alive.get(name).is_some_and(|alive| alive.synced)
    }

    /// How many say that they are synced.
    pub(super) fn synced(&self) -> usize {
        self.alive.values().filter(|alive| alive.synced).count()
    }

    /// When a load-balancer address was first seen.
    pub(super) fn has_address(&self, address: &str) -> Option<Instant> {
        self.addresses.get(address).copied()
    }

    fn apply(&mut self, service: &Service, now: Instant) {
        let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
        let port = ports.and_then(|ports| ports.first()).map_or(0, |port| port.port);
        let numbers = Numbers::of(service);
        let alive = self.alive.entry(service.name_any()).or_insert_with(|| Alive {
            since: now,
            port,
            port_since: now,
            numbers: numbers.clone(),
            numbers_since: now,
            synced: false,
        });
        if alive.port != port {
            alive.port = port;
            alive.port_since = now;
        }
        if alive.numbers != numbers {
            alive.numbers = numbers;
            alive.numbers_since = now;
        }
        alive.synced = told::synced(service).is_some_and(|said| said.status == "True");
        let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        for address in
            status.iter().flat_map(|status| status.ingress.iter().flatten()).filter_map(|one| one.ip.as_ref())
        {
            self.addresses.entry(address.clone()).or_insert(now);
        }
    }
}

async fn follow(services: Api<Service>, seen: Arc<Mutex<Seen>>, counter: watch::Sender<u64>) {
    let mut events = pin!(watcher(services, watcher::Config::default()));
    // Errors are told again and again by the stream itself; a measurement that misses events ends at its deadline.
    while let Some(event) = events.next().await {
        let now = Instant::now();
        // A client whose runtime ends fails without waiting for anything, and this task would never end.
        consume_budget().await;
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
