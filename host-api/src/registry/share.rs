//! What each tenant uses up of host-api and of the host: twins, writes, memory, sessions. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use k3k_expose_proto::limits::WANT_KEYS;
use k3k_expose_proto::message::{Bye, ByeReason};
use k3k_expose_proto::{Key, Reason, Resource, Uid};

use super::Registry;
use super::judge::Task;
use crate::bounds::{BYTES, BYTES_ASSURED, Bounds, LINE_COST, RECORDS, RECORDS_ASSURED, SAID, SESSIONS};
use crate::bucket::Bucket;
use crate::ledger::Ledger;
use crate::queue::Cause;
use crate::services::Blocker;
use crate::session::{SessionId, bye};

/// Writes that a tenant may have had lately and still gives way to nobody.
const LIGHT: f64 = 20.0;
/// A write that takes so long holds up no other of its tenant's, and nobody rests for longer.
const LONG: Duration = Duration::from_millis(250);
/// Whoever was looked at for a shorter time caused no call.
const NO_CALL: Duration = Duration::from_micros(500);
/// Seconds until an agent that said more objects than are kept may try again.
const EXCEEDED_AGAIN: u32 = 60;

/// Whose objects the writer may take now, by those who have used up their writes and those who give way. What policy takes away
/// waits for no writes.
pub(super) fn may_write<'a>(
    paused: &'a BTreeMap<Uid, Duration>,
    resting: &'a BTreeMap<Uid, Duration>,
) -> impl Fn(&Uid, Cause) -> bool + use<'a> {
    |tenant, cause| !resting.contains_key(tenant) && (cause == Cause::Policy || !paused.contains_key(tenant))
}

impl Registry {
    /// What every tenant may use up of which nothing else is said, from its first session on.
    pub fn set_default_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// Counts the bytes of a line. Gives how long the next one has to wait. A new session of the tenant goes on where the last one was:
    /// else whoever comes back again and again would have everything at once each time.
    pub fn said(&mut self, id: SessionId, bytes: usize, now: Duration) -> Duration {
        let Some((_, ledger)) = self.speaking(id) else {
            return Duration::ZERO;
        };
        let cost = u32::try_from(bytes).unwrap_or(u32::MAX).saturating_add(LINE_COST);
        ledger.said.spend(SAID, cost, now);
        ledger.said.wait(SAID, now)
    }

    /// What a tenant may use up from now on. What waits for room is looked at again if there is more of it.
    pub fn set_bounds(&mut self, tenant: &Uid, bounds: Bounds) {
        let Some(ledger) = self.tenants.get_mut(tenant) else {
            return;
        };
        let before = std::mem::replace(&mut ledger.bounds, bounds);
        if before.writes != bounds.writes {
            // What was spent at another rate is no measure of this one.
            ledger.writes = Bucket::default();
            self.paused.remove(tenant);
            self.effects.work = true;
        }
        if before.objects < bounds.objects {
            self.wake(&Blocker::Room(tenant.clone()));
        }
    }

    /// What a tenant may use up as far as is known by now.
    pub(super) fn bounds_of(&self, tenant: &Uid) -> Bounds {
        self.grant(tenant).limits.within(self.bounds)
    }

    /// Whether a twin is one more than a policy lets the tenant have: of too many the first by name stay, and Services before
    /// Ingresses, which are worth nothing without them; certificates go with their Ingresses. What else bounds a tenant takes nothing away that stands.
    pub(super) fn is_beyond(&self, tenant: &Uid, namespace: &str, key: &Key) -> bool {
        let Some(most) = self.grant(tenant).limits.objects else {
            return false;
        };
        if self.standing_of(tenant) <= most {
            return false;
        }
        let services = self.services.twins(namespace).map(|(_, twin)| (&twin.marks, twin.terminating));
        let ingresses = self.ingresses.twins(namespace).map(|twin| (&twin.marks, twin.terminating));
        let standing = services.chain(ingresses).filter(|(marks, goes)| marks.tenant == *tenant && !goes);
        standing.map(|(marks, _)| &marks.key).position(|other| other == key).is_some_and(|place| place >= most)
    }

    /// Whether there is a place for one more session of a tenant.
    pub(super) fn has_place(&self, ledger: &Ledger, pod: &Uid) -> bool {
        let renewed = ledger.members.contains_key(pod);
        renewed || ledger.members.len() < ledger.bounds.sessions && self.sessions.len() < SESSIONS
    }

    /// Whether a record of one more object is kept.
    ///
    /// # Errors
    /// The last line of the session.
    pub(super) fn may_record(&self, tenant: &Uid, key: &Key) -> Result<(), Bye> {
        let Some(ledger) = self.tenants.get(tenant).filter(|ledger| ledger.record(key).is_none()) else {
            return Ok(());
        };
        let all = || self.tenants.values().map(Ledger::len).sum::<usize>();
        let full = ledger.len() >= ledger.bounds.records || ledger.len() >= RECORDS_ASSURED && all() >= RECORDS;
        let too_many =
            "the virtual cluster has more Services, Ingresses and certificates than host-api keeps a record of";
        if full { Err(bye(ByeReason::Exceeded, too_many, Some(EXCEEDED_AGAIN))) } else { Ok(()) }
    }

    /// Lets go of an object that was just said if there is no room for it.
    pub(super) fn put_off_without_room(&mut self, tenant: &Uid, key: &Key) {
        let Some(ledger) = self.tenants.get(tenant) else {
            return;
        };
        let held = ledger.at_hand();
        let all = || self.tenants.values().map(Ledger::at_hand).sum::<usize>();
        if held > ledger.bounds.bytes || held > BYTES_ASSURED && all() > BYTES {
            if let Some(ledger) = self.tenants.get_mut(tenant) {
                ledger.put_off(key);
            }
            self.owing.insert(tenant.clone());
        }
    }

    /// Asks for objects again for which there is room by now.
    pub(super) fn ask_for_owed(&mut self) {
        if self.owing.is_empty() {
            return;
        }
        let all = self.tenants.values().map(Ledger::at_hand).sum::<usize>();
        for tenant in std::mem::take(&mut self.owing) {
            let Some(ledger) = self.tenants.get_mut(&tenant).filter(|ledger| !ledger.owed.is_empty()) else {
                continue;
            };
            let held = ledger.at_hand();
            if held <= ledger.bounds.bytes / 2 && (held <= BYTES_ASSURED || all <= BYTES / 2) {
                let rest = ledger.owed.iter().nth(WANT_KEYS).cloned();
                let rest = rest.map(|key| ledger.owed.split_off(&key)).unwrap_or_default();
                let keys = std::mem::replace(&mut ledger.owed, rest);
                if let Some(session) = ledger.session {
                    if let Some(state) = self.sessions.get_mut(&session) {
                        state.wants.extend(keys);
                    }
                    self.effects.wake.insert(session);
                }
            }
            if self.tenants.get(&tenant).is_some_and(|ledger| !ledger.owed.is_empty()) {
                self.owing.insert(tenant);
            }
        }
    }

    /// Whether a tenant may have this twin too, as far as their number goes.
    pub(super) fn has_room(&self, tenant: &Uid, key: &Key) -> bool {
        let Some(ledger) = self.tenants.get(tenant) else {
            return true;
        };
        // A certificate that is renewed stands twice, for the moment in which its Ingress turns to the new one.
        if key.resource() == Resource::Secrets && self.any_secret_stands(ledger, key) {
            return true;
        }
        let (standing, most) = (self.standing_of(tenant), ledger.bounds.objects);
        let coming = || ledger.creating.iter().filter(|other| *other != key && !self.stands(tenant, other)).count();
        // Mostly there is room for whatever is under way, so that it need not be looked at one by one.
        standing + ledger.creating.len() < most || standing + coming() < most
    }

    /// Takes it that the writer makes this call.
    pub(super) fn spends(&mut self, tenant: &Uid, key: &Key, task: &Task, now: Duration) {
        let Some(ledger) = self.tenants.get_mut(tenant) else {
            return;
        };
        match task {
            Task::Settled | Task::InspectPods { .. } => return,
            Task::Create(..) | Task::CreateIngress(..) | Task::CreateSecret(..) => {
                ledger.creating.insert(key.clone());
            }
            Task::Patch(..)
            | Task::DeleteSecret(_)
            | Task::Delete { .. }
            | Task::CreateSlice(..)
            | Task::PatchSlice(..)
            | Task::DeleteSlice { .. } => {}
        }
        self.wrote.insert(tenant.clone(), now);
        ledger.writes.spend(ledger.bounds.writes, 1, now);
        let wait = ledger.writes.wait(ledger.bounds.writes, now);
        if !wait.is_zero() {
            self.paused.insert(tenant.clone(), now + wait);
        }
    }

    /// Whether a tenant lets others go first: one is at work that had fewer writes lately. Each write makes all others slower,
    /// and those of a tenant that has thousands of them would keep the host busy for seconds.
    fn gives_way(&self, tenant: &Uid, now: Duration) -> bool {
        let had = |tenant: &Uid| {
            self.tenants.get(tenant).map_or(0.0, |ledger| ledger.writes.spent(ledger.bounds.writes, now))
        };
        let own = had(tenant);
        own > LIGHT && self.wrote.keys().any(|other| other != tenant && had(other) < own)
    }

    /// Takes it that the writer begins with an object of a tenant. Whoever gives way has one call at a time.
    pub(super) fn begins(&mut self, tenant: &Uid, now: Duration) {
        if self.gives_way(tenant, now) {
            self.resting.insert(tenant.clone(), now + LONG);
        }
    }

    /// Takes it that the writer has ended with what it took then. Whoever gives way rests for as long as its call was, whatever
    /// that is on this host: half of the time belongs to others.
    pub(super) fn rests(&mut self, tenant: &Uid, taken: Duration, now: Duration) {
        let took = now.saturating_sub(taken).min(LONG);
        if took > NO_CALL && self.gives_way(tenant, now) {
            self.resting.insert(tenant.clone(), now + took);
        } else {
            self.resting.remove(tenant);
        }
    }

    /// Takes it that the writer is done with an object. A place that it did not take after all is another's.
    pub(super) fn created(&mut self, tenant: &Uid, key: &Key) {
        let tried = self.tenants.get_mut(tenant).is_some_and(|ledger| ledger.creating.remove(key));
        if tried && !self.stands(tenant, key) {
            self.offer_room(tenant);
        }
    }

    /// Looks again at one of the objects that wait for room: there is room for one.
    pub(super) fn offer_room(&mut self, tenant: &Uid) {
        if self.tenants.get(tenant).is_none_or(|ledger| self.standing_of(tenant) >= ledger.bounds.objects) {
            return;
        }
        let blocker = Blocker::Room(tenant.clone());
        let Some(waiting) = self.waiting.get_mut(&blocker) else {
            return;
        };
        let next = waiting.pop_first();
        if waiting.is_empty() {
            self.waiting.remove(&blocker);
        }
        if let Some((tenant, key)) = next {
            self.need(&tenant, &key);
        }
    }

    /// Whether an object was offered room and did not take it, so that another can have it.
    pub(super) fn declines_room(&self, tenant: &Uid, key: &Key, waited: &[Blocker], reason: Reason) -> bool {
        let room = Blocker::Room(tenant.clone());
        waited.contains(&room) && reason != Reason::TooManyObjects && !self.stands(tenant, key)
    }

    fn standing_of(&self, tenant: &Uid) -> usize {
        let secrets = self.ingresses.secrets_of(tenant) + self.secrets.made_of(tenant);
        self.services.twins_of(tenant) + self.ingresses.twins_of(tenant) + secrets
    }

    fn stands(&self, tenant: &Uid, key: &Key) -> bool {
        match key.resource() {
            Resource::Services => self.standing(tenant, key).is_some(),
            Resource::Secrets => self.tenants.get(tenant).is_some_and(|ledger| self.any_secret_stands(ledger, key)),
            Resource::Ingresses => self.standing_ingress(tenant, key).is_some(),
        }
    }
}
