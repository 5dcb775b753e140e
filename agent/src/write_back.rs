//! What of the host's answers still has to be written into the virtual cluster: per Service what stands, what was answered,
//! and what became of earlier writes. Pure: time is passed in, one write at a time is handed out for each Service.

mod decide;
mod refusal;
mod results;
mod standing;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::time::Duration;

use k3k_expose_process::contest::Contest;
use k3k_expose_proto::message::{Answer, Condition, HostBeat, Ingress, Numbers, Role, Unusable};
use k3k_expose_proto::{Hash, Key, Outcome, Reason, Resource, Uid};

pub(crate) use decide::{Status, Step};
pub(crate) use refusal::Refusal;
pub(crate) use standing::ingress::{K3K_INGRESS_FINALIZER, SYNCED_ANNOTATION};
pub(crate) use standing::{Held, K3K_FINALIZER, Standing, Wish};
pub use words::EVENT_REASONS;
pub(crate) use words::Event;

use decide::Decision;
use standing::Number;

use crate::renumber::Ask;

/// Type of the condition that says whether host and virtual cluster agree about a Service.
pub(crate) const SYNCED: &str = "expose.k3k.io/Synced";

/// So many times within a minute must the status be overwritten by somebody else …
const CONTESTED: usize = 5;
/// … to be left alone for this long. Also the delay before a write that the virtual cluster denies is tried again.
const SLOW: Duration = Duration::from_secs(300);
/// Reasons that say of a pinned number that it is left alone.
const LEFT: [&str; 4] = ["NodePortTaken", "NodePortOutOfRange", "ClusterIPTaken", "ClusterIPOutOfRange"];

/// Everything that may have to be written.
#[derive(Debug)]
pub(crate) struct WriteBack {
    entries: BTreeMap<Key, Entry>,
    dirty: BTreeSet<Key>,
    due: BTreeSet<(Duration, Key)>,
    busy: BTreeSet<Key>,
    /// Unknown until host-api says so, and then nothing of k3k's is touched.
    k3k: HostBeat,
    /// The first snapshot is acknowledged: until then puts have the right of way.
    may_reflect: bool,
    /// What this agent is in the open session. Only the active one writes: another may know better.
    role: Option<Role>,
}

/// One object.
#[derive(Debug)]
struct Entry {
    standing: Standing,
    answer: Option<Answered>,
    pending_since: Duration,
    /// When the answer came that the status does not show yet.
    answered_at: Option<Duration>,
    /// Pinned numbers that were replaced by the host's once. Whoever puts one back means it.
    replaced: Vec<Number>,
    /// Numbers of the host's that are of no use here.
    unusable: Unusable,
    /// When they are worth another try.
    unusable_until: Duration,
    /// Which numbers the second update of a move asks for.
    ask: Ask,
    /// Why the numbers cannot be written.
    trouble: Option<Trouble>,
    failures: u32,
    /// No write of anything but status before this time.
    spec_due: Duration,
    /// No write of status before this time.
    status_due: Duration,
    /// The status was in place, so that a difference is somebody else's doing.
    in_place: bool,
    contest: Contest,
}

/// What is kept of an answer.
#[derive(Debug)]
struct Answered {
    hash: Hash,
    outcome: Outcome,
    reason: Reason,
    message: Box<str>,
    numbers: Option<Numbers>,
    ingress: Box<[Ingress]>,
    conditions: Vec<Condition>,
}

/// Why a write of numbers was refused, in words for the tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trouble {
    reason: Reason,
    message: &'static str,
}

/// A write to carry out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Job {
    pub(crate) key: Key,
    pub(crate) uid: Uid,
    /// The revision that the step was decided on. A status is written on that one only: another server pod's agent, or
    /// this one before it was cut off, may have written what the watch does not show yet.
    pub(crate) revision: u64,
    pub(crate) step: Step,
    /// Pinned numbers that the step replaces, as they stood when it was decided: the watch may overtake its answer.
    replaces: Vec<Number>,
}

/// What follows from a write.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Outcomes {
    /// Host-api must be told that these of its numbers are of no use.
    pub(crate) unusable: Option<Unusable>,
    /// What to tell about the Service.
    pub(crate) events: Vec<Event>,
    /// How long the answer waited that the status shows now.
    pub(crate) reflected: Option<Duration>,
}

impl Default for WriteBack {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            dirty: BTreeSet::new(),
            due: BTreeSet::new(),
            busy: BTreeSet::new(),
            k3k: HostBeat { k3k_syncs: true, k3k_syncs_ingresses: true, ingress_classes: None },
            may_reflect: false,
            role: None,
        }
    }
}

/// News.
impl WriteBack {
    /// A Service as the watch, or the answer to a write, shows it. They overtake each other, so the newer one counts.
    pub(crate) fn seen(&mut self, key: &Key, standing: Standing) {
        match self.entries.get_mut(key) {
            Some(entry) if entry.standing.uid == standing.uid => {
                if entry.standing.revision > standing.revision {
                    return;
                }
                entry.in_place &= entry.standing.wish == standing.wish;
                if entry.standing.is_moving && !standing.is_moving {
                    // The move is over whoever ended it: the answer to our own write may be lost.
                    entry.ask = Ask::TheHosts;
                    entry.trouble = None;
                }
                entry.standing = standing;
            }
            _ => {
                self.entries.insert(key.clone(), Entry::new(standing));
            }
        }
        self.dirty.insert(key.clone());
    }

    /// A Service as the answer to a write shows it: one that has gone meanwhile does not come back.
    fn answered_by_server(&mut self, key: &Key, standing: Standing) {
        if self.entries.get(key).is_some_and(|entry| entry.standing.uid == standing.uid) {
            self.seen(key, standing);
        }
    }

    /// A Service is gone.
    pub(crate) fn gone(&mut self, key: &Key, uid: &Uid) {
        if self.entries.get(key).is_some_and(|entry| entry.standing.uid == *uid) {
            self.entries.remove(key);
        }
    }

    /// All objects of that kind in the virtual cluster are these.
    pub(crate) fn listed(&mut self, resource: Resource, all: Vec<(Key, Standing)>) {
        let present: BTreeSet<Key> = all.iter().map(|(key, _)| key.clone()).collect();
        self.entries.retain(|key, _| key.resource() != resource || present.contains(key));
        for (key, standing) in all {
            self.seen(&key, standing);
        }
    }

    /// Host-api's newest answer about a Service.
    pub(crate) fn answered(&mut self, answer: Answer, now: Duration) {
        let Some(entry) = self.entries.get_mut(&answer.key).filter(|entry| entry.standing.uid == answer.uid) else {
            return;
        };
        let was_pending = entry.answer.as_ref().is_some_and(|old| old.outcome == Outcome::Pending);
        if !was_pending {
            entry.pending_since = now;
        }
        let old = entry.answer.as_ref();
        if old.is_none_or(|old| old.numbers != answer.numbers || old.hash != answer.hash) && !entry.standing.is_moving {
            // Other numbers deserve a try of their own.
            entry.trouble = None;
            entry.spec_due = Duration::ZERO;
        }
        entry.in_place = false;
        entry.answered_at = Some(now);
        entry.answer = Some(Answered {
            hash: answer.hash,
            outcome: answer.outcome,
            reason: answer.reason,
            message: answer.message.into_boxed_str(),
            numbers: answer.numbers,
            ingress: answer.load_balancer.into_boxed_slice(),
            conditions: answer.conditions,
        });
        self.dirty.insert(answer.key);
    }

    /// What k3k's own syncer does.
    pub(crate) fn k3k(&mut self, k3k: &HostBeat) {
        if std::mem::replace(&mut self.k3k, k3k.clone()) != *k3k {
            self.dirty.extend(self.entries.keys().cloned());
        }
    }

    /// The role of this agent; `None` without a session.
    pub(crate) fn role(&mut self, role: Option<Role>) {
        if std::mem::replace(&mut self.role, role) != role {
            self.dirty.extend(self.entries.keys().cloned());
        }
    }

    /// The first snapshot is acknowledged.
    pub(crate) fn may_reflect(&mut self) {
        if !std::mem::replace(&mut self.may_reflect, true) {
            self.dirty.extend(self.entries.keys().cloned());
        }
    }
}

/// Writes.
impl WriteBack {
    /// The next write, to be given back by [`Self::done`].
    pub(crate) fn next(&mut self, now: Duration) -> Option<Job> {
        while let Some((time, _)) = self.due.first()
            && *time <= now
        {
            self.dirty.extend(self.due.pop_first().map(|(_, key)| key));
        }
        if self.role == Some(Role::Standby) {
            return None;
        }
        loop {
            let key = self.dirty.iter().find(|key| !self.busy.contains(*key))?.clone();
            self.dirty.remove(&key);
            if let Some(step) = self.step(&key, now) {
                let entry = self.entries.get(&key)?;
                let replaces = entry.held().map(|held| replaced(held, &step)).unwrap_or_default();
                let (uid, revision) = (entry.standing.uid.clone(), entry.standing.revision);
                self.busy.insert(key.clone());
                return Some(Job { key, uid, revision, step, replaces });
            }
        }
    }

    /// When [`Self::next`] may find something that it does not find now.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.due.first().map(|(time, _)| *time)
    }

    /// Nobody carries out a write any more.
    pub(crate) fn nobody_writes(&mut self) {
        let cut_off = std::mem::take(&mut self.busy);
        self.dirty.extend(cut_off);
    }

    /// Whether another virtual Service holds a node port now.
    pub(crate) fn is_held_by_another(&self, key: &Key, port: NonZeroU16) -> bool {
        self.entries.iter().any(|(other, entry)| {
            let Wish::Wanted(_, held) = &entry.standing.wish else { return false };
            let ports = &held.numbers.node_ports;
            other != key
                && (ports.iter().any(|other| other.node_port == port)
                    || held.numbers.health_check_node_port == Some(port))
        })
    }

    fn step(&mut self, key: &Key, now: Duration) -> Option<Step> {
        let entry = self.entries.get_mut(key)?;
        if entry.unusable_until <= now {
            entry.unusable = Unusable::default();
        }
        let may_reflect = self.may_reflect && self.role == Some(Role::Active);
        let k3k_syncs = match key.resource() {
            Resource::Services => self.k3k.k3k_syncs,
            // Nothing is written to Secrets: what became of one is told of the Ingress that names it.
            Resource::Secrets => return None,
            Resource::Ingresses => self.k3k.k3k_syncs_ingresses,
        };
        let status = match decide::decide(entry, k3k_syncs, may_reflect, now) {
            Decision::Do(Step::Status(status)) => status,
            Decision::Do(step) => return Some(step),
            rest => {
                entry.in_place = rest == Decision::InPlace;
                entry.answered_at = entry.answered_at.filter(|_| !entry.in_place);
                let times = [entry.spec_due, entry.status_due, entry.unusable_until];
                let grace = if let Decision::Wait(until) = rest { Some(until) } else { None };
                let times = times.into_iter().chain(grace).filter(|time| *time > now);
                self.due.extend(times.map(|time| (time, key.clone())));
                return None;
            }
        };
        if std::mem::take(&mut entry.in_place) && entry.contest.undone(now) {
            entry.status_due = now + SLOW;
            return Some(Step::Tell(Event::contested()));
        }
        Some(Step::Status(status))
    }
}

impl Entry {
    fn new(standing: Standing) -> Self {
        // What an earlier process of ours has said outlives it in the condition.
        let is_left = standing.synced.as_ref().is_some_and(|synced| LEFT.contains(&synced.reason.as_str()));
        let replaced = match &standing.wish {
            Wish::Wanted(_, held) if is_left => held.pinned.clone(),
            _ => Vec::new(),
        };
        Self {
            standing,
            answer: None,
            pending_since: Duration::ZERO,
            answered_at: None,
            replaced,
            unusable: Unusable::default(),
            unusable_until: Duration::ZERO,
            ask: Ask::TheHosts,
            trouble: None,
            failures: 0,
            spec_due: Duration::ZERO,
            status_due: Duration::ZERO,
            in_place: false,
            contest: Contest::new(CONTESTED),
        }
    }

    /// The numbers of the virtual Service, as host-api hears of them.
    fn held(&self) -> Option<&Held> {
        match &self.standing.wish {
            Wish::Wanted(_, held) => Some(held),
            _ => None,
        }
    }
}

/// The pinned numbers that a step replaces by others.
fn replaced(held: &Held, step: &Step) -> Vec<Number> {
    let (numbers, node_ports) = match step {
        Step::Leave(numbers, _) => (Some(numbers), &numbers.node_ports),
        Step::NodePorts(node_ports, _) => (None, node_ports),
        _ => return Vec::new(),
    };
    let is_replaced = |number: &&Number| match number {
        Number::ClusterIp(ip) => numbers.is_some_and(|numbers| !numbers.cluster_ips.contains(ip)),
        Number::HealthCheck(port) => numbers.is_some_and(|numbers| numbers.health_check_node_port != Some(*port)),
        Number::NodePort(own) => node_ports.iter().any(|target| {
            (target.port, target.protocol) == (own.port, own.protocol) && target.node_port != own.node_port
        }),
    };
    held.pinned.iter().filter(is_replaced).copied().collect()
}

#[cfg(test)]
mod tests;
