//! All that host-api knows, and what follows from each thing it hears. Pure: time is passed in, effects are handed out.
//!
//! Three kinds of news come in (lines of sessions, events of the host, results of writes) and three kinds of effect go
//! out (sessions to wake, work for the writer, notices for the platform team). The rest is state, rebuilt from the host
//! and from the agents after a restart.

mod band;
mod circle;
mod counts;
mod election;
mod endpoints;
mod events;
mod heirs;
mod ingress;
mod judge;
mod policy;
mod refused;
mod room;
mod secrets;
mod sessions;
mod settle;
mod share;
mod wishes;
pub(crate) mod words;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k3k_expose_proto::{Key, Reason, Resource, Uid};

use crate::bounds::Bounds;
use crate::cluster::ClusterState;
use crate::endpoints::address::Addresses;
use crate::endpoints::store::HostSlices;
use crate::ingress::secret::HostSecrets;
use crate::ingress::store::HostIngresses;
use crate::ledger::Ledger;
use crate::notice::Notice;
use crate::numbers::Conflict;
use crate::policy::Policies;
use crate::policy::grant::Grant;
use crate::policy::select::Labels;
use crate::queue::{Cause, Queue};
use crate::quota::Quotas;
use crate::ranges::Ranges;
use crate::services::{Blocker, HostName, HostServices};
use crate::session::{Session, SessionId};
use crate::trouble::Troubles;

pub use judge::Task;
pub use policy::Verdicts;
pub use sessions::NotOpened;

/// First delay before something that failed is tried again; doubles with each failure.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Whoever had a write within this time is at work.
const AT_WORK: Duration = Duration::from_secs(5);
/// Longest delay before something that failed is tried again.
const RETRY_MOST: Duration = Duration::from_secs(30);

/// Everything that host-api knows.
#[derive(Debug)]
pub struct Registry {
    epoch: Uid,
    conflict: Conflict,
    services: HostServices,
    ingresses: HostIngresses,
    secrets: HostSecrets,
    /// Who may have a host of an Ingress next, and until when nobody else may.
    heirs: BTreeMap<String, (Uid, Duration)>,
    slices: HostSlices,
    addresses: Addresses,
    /// Some Service has hand-made endpoints, so that whose an address is matters.
    addresses_wanted: bool,
    ranges: Ranges,
    quotas: Quotas,
    troubles: Troubles,
    policies: Policies,
    policy_revision: u64,
    /// All policies, the labels of all namespaces, and all Clusters have been listed: only then it is known what is admitted.
    policies_known: bool,
    namespaces_known: bool,
    clusters_known: bool,
    /// What each tenant may have, and what one may that no policy is known about.
    grants: HashMap<Uid, Arc<Grant>>,
    safe: Arc<Grant>,
    /// Labels of the namespaces that have some.
    namespaces: HashMap<String, Labels>,
    clusters: HashMap<Uid, ClusterState>,
    tenants: HashMap<Uid, Ledger>,
    sessions: HashMap<SessionId, Session>,
    queue: Queue,
    waiting: BTreeMap<Blocker, BTreeSet<(Uid, Key)>>,
    retries: BTreeSet<(Duration, Uid, Key)>,
    /// Tenants that had writes lately, and when.
    wrote: BTreeMap<Uid, Duration>,
    /// Tenants that have used up their writes, and until when.
    paused: BTreeMap<Uid, Duration>,
    /// Tenants that give way to others, and until when.
    resting: BTreeMap<Uid, Duration>,
    /// Tenants that have said objects for which there was no room.
    owing: BTreeSet<Uid>,
    /// Pods and Clusters that went lately, and when: whoever was looked up before that must not open a session after it.
    gone: BTreeMap<Uid, Duration>,
    bounds: Bounds,
    random: fastrand::Rng,
    last_session: SessionId,
    last_snapshot: u64,
    last_version: u64,
    totals: Totals,
    effects: Effects,
}

/// What the caller must do after it has let go of the registry.
#[derive(Debug, Default)]
pub struct Effects {
    /// Sessions that have something to tell.
    pub wake: BTreeSet<SessionId>,
    /// There is work for the writer, or an earlier time at which there will be.
    pub work: bool,
    /// What the platform team should know.
    pub notices: Vec<Notice>,
    /// Whose the addresses of the host are must be watched from now on.
    pub addresses: bool,
}

/// Counts for metrics and probes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Open sessions.
    pub sessions: usize,
    /// Objects wanted, by the reason of their newest answer; `None` while they have none.
    pub objects: BTreeMap<Option<Reason>, usize>,
    /// Objects that wait for the writer or are being written.
    pub queued: usize,
    /// Tenants with a session for which k3k's own sync is on too.
    pub two_writers: usize,
    /// What has happened so far.
    pub totals: Totals,
}

/// Counts of what has happened since this registry was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Objects looked at again after a delay, since they could not be settled before.
    pub retries: u64,
    /// Twins that somebody else had changed or deleted.
    pub repairs: u64,
    /// Objects that were rejected, or for another reason than before.
    pub rejections: BTreeMap<Reason, u64>,
}

impl Registry {
    /// An empty registry of a process that calls itself `epoch`. The seed drives nothing but jitter.
    #[must_use]
    pub fn new(epoch: Uid, seed: u64) -> Self {
        Self {
            epoch,
            conflict: Conflict::default(),
            services: HostServices::default(),
            ingresses: HostIngresses::default(),
            secrets: HostSecrets::default(),
            heirs: BTreeMap::new(),
            slices: HostSlices::default(),
            addresses: Addresses::default(),
            addresses_wanted: false,
            ranges: Ranges::default(),
            quotas: Quotas::default(),
            troubles: Troubles::default(),
            policies: Policies::default(),
            policy_revision: 0,
            policies_known: false,
            namespaces_known: false,
            clusters_known: false,
            grants: HashMap::new(),
            safe: Arc::new(Grant::default()),
            namespaces: HashMap::new(),
            clusters: HashMap::new(),
            tenants: HashMap::new(),
            sessions: HashMap::new(),
            queue: Queue::default(),
            waiting: BTreeMap::new(),
            retries: BTreeSet::new(),
            wrote: BTreeMap::new(),
            paused: BTreeMap::new(),
            resting: BTreeMap::new(),
            owing: BTreeSet::new(),
            gone: BTreeMap::new(),
            bounds: Bounds::default(),
            random: fastrand::Rng::with_seed(seed),
            last_session: 0,
            last_snapshot: 0,
            last_version: 0,
            totals: Totals::default(),
            effects: Effects::default(),
        }
    }

    /// The same, with another way to deal with cluster IPs that the host cannot give.
    #[must_use]
    pub fn with_conflict(self, conflict: Conflict) -> Self {
        Self { conflict, ..self }
    }

    /// Forgets what agents have said, as a process that calls itself `epoch` and has just listed the host. Open sessions are
    /// not told: whoever carries them ends them.
    pub fn begin_anew(&mut self, epoch: Uid) {
        self.epoch = epoch;
        self.tenants.clear();
        self.sessions.clear();
        self.queue = Queue::default();
        self.waiting.clear();
        self.retries.clear();
        self.heirs.clear();
        self.secrets = HostSecrets::default();
        self.owing.clear();
        self.enforce_all();
    }

    /// What has to be done since the last call.
    pub fn effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    /// The next object for the writer, its own until [`Registry::done`]. No tenant has more than `most` taken at once, and a busy
    /// one has less while others are at work too.
    pub fn take(&mut self, most: usize, now: Duration) -> Option<(Uid, Key)> {
        let (tenant, key) = self.queue.take(now, most, share::may_write(&self.paused, &self.resting))?;
        self.begins(&tenant, now);
        Some((tenant, key))
    }

    /// Gives an object back.
    pub fn done(&mut self, tenant: &Uid, key: &Key, now: Duration) {
        if let Some(taken) = self.queue.done(tenant, key) {
            self.rests(tenant, taken, now);
        }
        self.created(tenant, key);
        self.ask_for_owed();
        self.unclaim(tenant, key);
        self.effects.work |= !self.queue.is_empty();
    }

    /// Whether objects wait that the writer may take.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        self.queue.has_waiting(share::may_write(&self.paused, &self.resting))
    }

    /// Takes up what is due, and tells when to come again.
    pub fn tick(&mut self, now: Duration) -> Option<Duration> {
        while let Some((time, _, _)) = self.retries.first()
            && *time <= now
        {
            if let Some((_, tenant, key)) = self.retries.pop_first() {
                self.totals.retries += 1;
                if let Some(ledger) = self.tenants.get_mut(&tenant) {
                    ledger.due.remove(&key);
                }
                self.need(&tenant, &key);
                // An agent that keeps silent does not answer, and what is not admitted goes all the same.
                self.enforce_on(&tenant, &key);
            }
        }
        self.tell_troubles(now);
        let heirs = self.disinherit(now);
        self.paused.retain(|_, until| *until > now);
        self.resting.retain(|_, until| *until > now);
        self.wrote.retain(|_, when| now.saturating_sub(*when) < AT_WORK);
        let resumed = self.paused.values().chain(self.resting.values()).min().copied();
        let retry = self.retries.first().map(|(time, _, _)| *time);
        retry.into_iter().chain(self.troubles.next()).chain(resumed).chain(heirs).min()
    }

    /// Counts for metrics and probes.
    #[must_use]
    pub fn census(&self) -> Census {
        let mut census = Census {
            sessions: self.sessions.len(),
            queued: self.queue.len(),
            totals: self.totals.clone(),
            ..Census::default()
        };
        let in_session = self.tenants.iter().filter(|(_, ledger)| ledger.session.is_some());
        census.two_writers = in_session.filter(|(tenant, _)| self.k3k_writes(tenant, Resource::Services)).count();
        for (_, record) in self.tenants.values().flat_map(Ledger::records) {
            *census.objects.entry(record.answer.as_ref().map(|answer| answer.reason)).or_default() += 1;
        }
        census
    }

    /// Sees to it that an object is looked at (again): by the writer if it is at hand, else by asking the agent for it.
    fn need(&mut self, tenant: &Uid, key: &Key) {
        let Some(ledger) = self.tenants.get_mut(tenant) else {
            return;
        };
        let session = ledger.session;
        match ledger.record_mut(key) {
            Some(record) if record.object.is_none() => {
                record.stale = true;
                if let Some(session) = session {
                    if let Some(state) = self.sessions.get_mut(&session) {
                        state.wants.insert(key.clone());
                    }
                    self.effects.wake.insert(session);
                }
            }
            _ => {
                self.queue.add(tenant, key.clone(), Cause::Change);
                self.effects.work = true;
            }
        }
    }

    /// Looks again at every object that waits for this.
    fn wake(&mut self, blocker: &Blocker) {
        for (tenant, key) in self.waiting.remove(blocker).unwrap_or_default() {
            self.need(&tenant, &key);
        }
    }

    /// Looks again at an object after a delay that doubles with each failure, with full jitter.
    fn retry(&mut self, tenant: &Uid, key: &Key, now: Duration) {
        let Some(ledger) = self.tenants.get_mut(tenant) else {
            return;
        };
        let failures = ledger.failures.entry(key.clone()).or_default();
        *failures = failures.saturating_add(1);
        let longest = RETRY_FIRST.saturating_mul(1 << (*failures).min(10)).min(RETRY_MOST);
        let delay = RETRY_FIRST + longest.mul_f64(self.random.f64());
        self.schedule(tenant, key, now + delay);
    }

    /// Looks again at an object after about this long.
    fn retry_after(&mut self, tenant: &Uid, key: &Key, now: Duration, delay: Duration) {
        let delay = delay.mul_f64(0.8 + 0.4 * self.random.f64());
        self.schedule(tenant, key, now + delay);
    }

    /// One time for each object: whoever fails often must not fill the calendar.
    fn schedule(&mut self, tenant: &Uid, key: &Key, time: Duration) {
        let Some(ledger) = self.tenants.get_mut(tenant) else {
            return;
        };
        if let Some(older) = ledger.due.insert(key.clone(), time) {
            self.retries.remove(&(older, tenant.clone(), key.clone()));
        }
        self.retries.insert((time, tenant.clone(), key.clone()));
        self.effects.work = true;
    }

    /// The twin's place on the host.
    fn place(ledger: &Ledger, key: &Key) -> HostName {
        HostName::of_twin(ledger.tenant.namespace(), ledger.tenant.cluster(), key)
    }

    fn wake_of(&mut self, tenant: &Uid) {
        if let Some(session) = self.tenants.get(tenant).and_then(|ledger| ledger.session) {
            self.effects.wake.insert(session);
        }
    }
}

#[cfg(test)]
mod tests;
