//! From an object that wants a look to the writer's next call, and from that call's result to an answer. Pure.
//!
//! The writer asks again after every call, with what stands then, until nothing is left to do. The answer is given in
//! the same step that finds nothing to do, so `Applied` is never said of what was not compared.

use std::time::Duration;

use k3k_expose_proto::message::Numbers;
use k3k_expose_proto::{Hash, Key, Outcome, Reason, Resource, Uid};

use super::Registry;
use super::judge::{Task, Verdict};
use super::words;
use crate::ledger;
use crate::notice::NoticeKind;
use crate::plan::Road;
use crate::services::Blocker;

/// Delay before the labels of pods are looked at again.
const PODS_AGAIN: Duration = Duration::from_secs(2);
/// Delay before a contested twin is put right again, and before an object that the host refuses is tried again.
pub(super) const SLOW: Duration = Duration::from_secs(300);

impl Registry {
    /// The next call for an object that was taken from the queue.
    pub fn decide(&mut self, tenant: &Uid, key: &Key, road: Road, now: Duration) -> Task {
        self.want_addresses_for(tenant, key);
        match self.judge(tenant, key, road, now) {
            Verdict::Do(Task::Create(..) | Task::CreateIngress(..) | Task::CreateSecret(..))
                if !self.has_room(tenant, key) =>
            {
                self.conclude(tenant, key, Reason::TooManyObjects, vec![Blocker::Room(tenant.clone())]);
                Task::Settled
            }
            Verdict::Do(task) => {
                self.spends(tenant, key, &task, now);
                self.claim(tenant, key, &task);
                task
            }
            Verdict::LetGo(task, numbers) => {
                if let Some(record) = self.tenants.get_mut(tenant).and_then(|ledger| ledger.record_mut(key)) {
                    record.history.let_go(numbers);
                }
                self.spends(tenant, key, &task, now);
                task
            }
            Verdict::Nothing => {
                if let Some(ledger) = self.tenants.get_mut(tenant) {
                    ledger.failures.remove(key);
                }
                Task::Settled
            }
            Verdict::Deny(refusal, blockers) => {
                let reason = refusal.reason;
                self.tell(tenant, key, reason, blockers, refusal.message);
                if reason == Reason::WaitingForSecret {
                    self.ask_for_secrets(tenant, key);
                }
                if let Some(ledger) = self.tenants.get_mut(tenant) {
                    ledger.failures.remove(key);
                }
                Task::Settled
            }
            Verdict::Answer(reason, blockers) => {
                let unheard = self.is_unheard_of(reason, &blockers);
                let nothing_frees = blockers.is_empty();
                let slice = blockers.iter().find_map(|blocker| match blocker {
                    Blocker::Slice(at) if reason == Reason::NameTaken => Some(at.clone()),
                    _ => None,
                });
                self.conclude(tenant, key, reason, blockers);
                if let Some(ledger) = self.tenants.get_mut(tenant) {
                    ledger.failures.remove(key);
                }
                match reason {
                    Reason::Adopting if !self.k3k_writes(tenant, key.resource()) => {
                        self.retry_after(tenant, key, now, PODS_AGAIN)
                    }
                    Reason::WrongVirtualCluster => self.report_stranger(tenant),
                    Reason::Applied => self.note_adoption(tenant, key),
                    // Slices of others are not watched.
                    Reason::NameTaken if slice.is_some() => {
                        slice.iter().for_each(|at| self.forget_slice(at));
                        self.retry_after(tenant, key, now, SLOW);
                    }
                    // Whose ports fill the band is not known.
                    Reason::TooManyNodePorts if nothing_frees => self.retry_after(tenant, key, now, SLOW),
                    // No event will tell when the number can be had.
                    _ if unheard => self.retry_after(tenant, key, now, SLOW),
                    _ => {}
                }
                Task::Settled
            }
        }
    }

    /// How often in a row the host has failed to take an object.
    #[must_use]
    pub fn failures(&self, tenant: &Uid, key: &Key) -> u32 {
        self.tenants.get(tenant).and_then(|ledger| ledger.failures.get(key).copied()).unwrap_or_default()
    }

    /// Which object, in which state, the tenant wants at a key.
    #[must_use]
    pub fn wish(&self, tenant: &Uid, key: &Key) -> Option<(Uid, Hash)> {
        let record = self.tenants.get(tenant)?.record(key)?;
        Some((record.uid.clone(), record.hash))
    }

    /// Looks at an object once more, after others had their turn, if the tenant wants it otherwise than before.
    ///
    /// Gives whether it does.
    pub fn again_if_other(&mut self, tenant: &Uid, key: &Key, before: Option<&(Uid, Hash)>) -> bool {
        let is_other = self.wish(tenant, key).as_ref() != before;
        if is_other {
            self.need(tenant, key);
        }
        is_other
    }

    /// Takes in which labels the tenant's host pods carry.
    pub fn pods_inspected(&mut self, tenant: &Uid, labeled: bool, now: Duration) {
        if let Some(ledger) = self.tenants.get_mut(tenant) {
            ledger.pods_labeled = Some((now, labeled));
        }
    }

    /// Takes in that the host has accepted the deletion of a twin, by its UID. It may stand for a while yet, so what follows
    /// waits, and it is not deleted once more.
    ///
    /// Gives whether the writer is done with the object for now.
    pub fn deleted(&mut self, tenant: &Uid, key: &Key, uid: &str) -> bool {
        let Some(ledger) = self.tenants.get(tenant) else {
            return true;
        };
        let at = Self::place(ledger, key);
        let wanted = ledger.record(key).is_some();
        match key.resource() {
            Resource::Services => self.services.goes(&at, uid),
            Resource::Ingresses => self.ingresses.goes(&at, uid),
            // Theirs go by another call.
            Resource::Secrets => {}
        }
        self.wake(&Blocker::Backend(tenant.clone(), key.clone()));
        if wanted {
            let (stands, name) = match key.resource() {
                Resource::Services => (self.services.get(&at).is_some(), Blocker::Name(at)),
                Resource::Ingresses => (self.ingresses.get(&at).is_some(), Blocker::IngressName(at)),
                Resource::Secrets => return true,
            };
            if !stands {
                return false;
            }
            self.conclude(tenant, key, Reason::TwinTerminating, vec![name]);
        }
        true
    }

    /// Takes it that somebody on the host keeps undoing a twin.
    pub fn contested(&mut self, tenant: &Uid, key: &Key, now: Duration) {
        self.conclude(tenant, key, Reason::Contested, Vec::new());
        self.retry_after(tenant, key, now, SLOW);
    }

    /// Gives an object its answer. Its own content is forgotten with that.
    pub(super) fn conclude(&mut self, tenant: &Uid, key: &Key, reason: Reason, blockers: Vec<Blocker>) {
        let message = words::message(key.resource(), reason, &blockers);
        self.tell(tenant, key, reason, blockers, message);
    }

    /// The same, in words of its own.
    fn tell(&mut self, tenant: &Uid, key: &Key, reason: Reason, blockers: Vec<Blocker>, message: String) {
        let shown = self.shown(tenant, key);
        let Some(ledger) = self.tenants.get_mut(tenant) else {
            return;
        };
        self.last_version += 1;
        let version = self.last_version;
        let (mut waited, mut is_news) = (Vec::new(), true);
        if let Some(record) = ledger.record_mut(key) {
            waited = std::mem::replace(&mut record.blockers, blockers.clone());
            record.waits_since = (reason == Reason::HostTaken).then(|| {
                // Whoever asks for another host queues anew.
                record.waits_since.filter(|_| waited == blockers).unwrap_or(version)
            });
            let own = shown.as_ref().map(|shown| &shown.numbers);
            record.told(reason, own.unwrap_or(&Numbers::default()), version);
            let was = record.answer.as_ref().map(|answer| answer.reason);
            is_news = record.answer.as_ref().map(|answer| (answer.reason, answer.hash)) != Some((reason, record.hash));
            if reason.outcome() == Outcome::Rejected && was != Some(reason) {
                *self.totals.rejections.entry(reason).or_default() += 1;
            }
        }
        ledger.answer(key, version, |record| ledger::answer(key, record, version, reason, message, shown));
        self.unblock(&waited, tenant, key);
        if self.declines_room(tenant, key, &waited, reason) {
            self.offer_room(tenant);
        }
        self.pass_on(tenant, key, &waited, &blockers);
        for blocker in blockers {
            self.waiting.entry(blocker).or_default().insert((tenant.clone(), key.clone()));
        }
        self.look_at_secrets_of(&waited);
        self.wake_of(tenant);
        self.wake_siblings(tenant, key);
        if reason.outcome() == Outcome::Rejected || (key.resource() == Resource::Secrets && is_news) {
            self.wake(&Blocker::Backend(tenant.clone(), key.clone()));
        }
    }

    /// Whether numbers are refused of which nobody is known to hold them.
    fn is_unheard_of(&self, reason: Reason, blockers: &[Blocker]) -> bool {
        let number = |blocker: &&Blocker| matches!(blocker, Blocker::ClusterIp(_) | Blocker::NodePort(_));
        let is_heard_of = |number| self.services.holder(number).is_some() || self.services.is_reserved(number);
        reason.outcome() == Outcome::Rejected && blockers.iter().filter(number).any(|number| !is_heard_of(number))
    }

    /// The first adopted twin shows that this is the virtual cluster that k3k served, so what else k3k left may go.
    fn note_adoption(&mut self, tenant: &Uid, key: &Key) {
        let Some(ledger) = self.tenants.get(tenant) else {
            return;
        };
        if ledger.adopted {
            return;
        }
        let made_by_k3k = match key.resource() {
            Resource::Services => self.standing(tenant, key).is_some_and(|twin| twin.made_by_k3k),
            Resource::Ingresses => self.standing_ingress(tenant, key).is_some_and(|twin| twin.made_by_k3k),
            Resource::Secrets => false,
        };
        if made_by_k3k && let Some(ledger) = self.tenants.get_mut(tenant) {
            ledger.adopted = true;
            self.collect(tenant);
        }
    }

    fn report_stranger(&mut self, tenant: &Uid) {
        if let Some(speaks) = self.tenants.get(tenant).map(|ledger| ledger.virtual_cluster.clone()) {
            self.notify(tenant, NoticeKind::WrongVirtualCluster { speaks });
        }
    }
}
