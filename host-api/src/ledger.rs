//! What one tenant wants and what it was answered. Pure.
//!
//! No object of a tenant is kept: a record has the hash of what was said, and the object itself only until it is
//! answered. Whoever needs it again asks the agent.

mod record;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use k3k_expose_proto::message::{Answer, Put};
use k3k_expose_proto::{Key, Reason, Resource, Tally, Uid};

use crate::bounds::Bounds;
use crate::bucket::Bucket;
use crate::contest::Contest;
use crate::notice::NoticeKind;
use crate::numbers::History;
use crate::policy::Usage;
use crate::session::{Phase, SessionId, Speaks};
use crate::tenant::Tenant;

pub use record::{Record, Shown, answer};

/// One tenant's records.
#[derive(Debug)]
pub struct Ledger {
    /// Whose they are.
    pub tenant: Tenant,
    /// UID of the virtual cluster that speaks for the tenant.
    pub virtual_cluster: Uid,
    /// Version of the agent's projection.
    pub projection: u32,
    /// What else than Services the agent speaks for.
    pub speaks: Speaks,
    /// A complete snapshot of that virtual cluster has been taken in by this process.
    pub complete: bool,
    /// The last complete snapshot was empty where too much stands.
    pub emptied: bool,
    /// A twin of k3k's has been adopted: this is the virtual cluster that k3k served.
    pub adopted: bool,
    /// The last notice of each kind about this tenant, so that none is given twice in a row.
    pub noticed: Vec<NoticeKind>,
    /// The session that counts.
    pub session: Option<SessionId>,
    /// The newest session of each server pod.
    pub members: BTreeMap<Uid, SessionId>,
    /// UID of the pod whose agent speaks for the tenant, and since when.
    pub elected: Option<(Uid, Duration)>,
    /// When sessions were taken over lately.
    pub takeovers: VecDeque<Duration>,
    /// When it was last seen whether all host pods of the tenant carry our labels, and the answer.
    pub pods_labeled: Option<(Duration, bool)>,
    /// Failed writes in a row, by object.
    pub failures: BTreeMap<Key, u32>,
    /// When an object is looked at again by itself.
    pub due: BTreeMap<Key, Duration>,
    /// What the tenant may use up.
    pub bounds: Bounds,
    /// Writes on the host lately.
    pub writes: Bucket,
    /// What its agents have said lately, in whichever session.
    pub said: Bucket,
    /// Objects whose twin is being made.
    pub creating: BTreeSet<Key>,
    /// Objects that were said when there was no room for them.
    pub owed: BTreeSet<Key>,
    /// When the agent was asked last to say everything again.
    pub asked_all: Option<Duration>,
    at_hand: usize,
    /// What the twins that are being written will take up.
    pub claims: BTreeMap<Key, Usage>,
    /// Objects that were asked for again because something that they waited for became free.
    pub offered: BTreeSet<Key>,
    records: BTreeMap<Key, Record>,
    tally: Tally,
    by_version: BTreeMap<u64, Key>,
}

/// What a `put` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It must be looked at.
    New,
    /// The same as before, and its twin is as it should be.
    Known,
}

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub fn new(tenant: Tenant, virtual_cluster: Uid, projection: u32) -> Self {
        Self {
            tenant,
            virtual_cluster,
            projection,
            speaks: Speaks::default(),
            complete: false,
            emptied: false,
            adopted: false,
            noticed: Vec::new(),
            session: None,
            members: BTreeMap::new(),
            elected: None,
            takeovers: VecDeque::new(),
            pods_labeled: None,
            failures: BTreeMap::new(),
            due: BTreeMap::new(),
            bounds: Bounds::default(),
            writes: Bucket::default(),
            said: Bucket::default(),
            creating: BTreeSet::new(),
            owed: BTreeSet::new(),
            asked_all: None,
            at_hand: 0,
            claims: BTreeMap::new(),
            offered: BTreeSet::new(),
            records: BTreeMap::new(),
            tally: Tally::default(),
            by_version: BTreeMap::new(),
        }
    }

    /// Forgets everything that another virtual cluster, or another projection of it, has said.
    pub fn reset(&mut self, virtual_cluster: Uid, projection: u32) {
        let takeovers = std::mem::take(&mut self.takeovers);
        let (session, members, elected) = (self.session, std::mem::take(&mut self.members), self.elected.take());
        *self = Self {
            session,
            members,
            elected,
            takeovers,
            bounds: self.bounds,
            writes: self.writes,
            said: self.said,
            creating: std::mem::take(&mut self.creating),
            asked_all: self.asked_all,
            claims: std::mem::take(&mut self.claims),
            ..Self::new(self.tenant.clone(), virtual_cluster, projection)
        };
    }

    /// Whether the agent speaks for objects of this kind. If not, their absence means nothing.
    #[must_use]
    pub const fn speaks_for(&self, resource: Resource) -> bool {
        self.speaks.is_for(resource)
    }

    /// Count and root of everything wanted.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of the objects that wait for their answer.
    #[must_use]
    pub const fn at_hand(&self) -> usize {
        self.at_hand
    }

    /// The record of a key.
    #[must_use]
    pub fn record(&self, key: &Key) -> Option<&Record> {
        self.records.get(key)
    }

    /// The record of a key, to change what is not identity.
    pub fn record_mut(&mut self, key: &Key) -> Option<&mut Record> {
        self.records.get_mut(key)
    }

    /// All records.
    pub fn records(&self) -> impl Iterator<Item = (&Key, &Record)> {
        self.records.iter()
    }

    /// What was told and tried about the numbers of all records.
    pub fn histories(&mut self) -> impl Iterator<Item = &mut History> {
        self.records.values_mut().map(|record| &mut record.history)
    }

    /// Takes in an object.
    pub fn put(&mut self, put: Put, phase: &mut Phase) -> Said {
        let Put { key, uid, hash, seen, unusable, object } = put;
        let (number, said) = match phase {
            Phase::Snapshot { number, said } => (*number, Some(said)),
            Phase::Changes => (0, None),
        };
        let old = self.records.remove(&key);
        if let Some(old) = &old {
            self.tally.remove(&key, &old.uid, old.hash);
            self.at_hand -= old.bytes;
        }
        self.owed.remove(&key);
        self.tally.add(&key, &uid, hash);
        if let Some(said) = said {
            if let Some(old) = old.as_ref().filter(|old| old.said_in == number) {
                said.remove(&key, &old.uid, old.hash);
            }
            said.add(&key, &uid, hash);
        }
        let same = old.as_ref().is_some_and(|old| old.uid == uid && old.hash == hash && old.stands(Reason::Applied));
        // A wish that was outdated counts once the agent has seen what it was told.
        let counts = |seen| old.as_ref().and_then(|old| old.history.given).is_none_or(|given| seen >= given);
        let same = same && unusable.is_empty() && counts(seen) == counts(old.as_ref().map_or(0, |old| old.seen));
        let object = (!same).then_some(object);
        let bytes = object.as_ref().map_or(0, record::bytes);
        self.at_hand += bytes;
        let record = match old {
            Some(old) => {
                let history = if old.uid == uid { old.history } else { History::default() };
                Record { uid, hash, object, bytes, stale: false, seen, unusable, history, said_in: number, ..old }
            }
            None => Record {
                uid,
                hash,
                object,
                bytes,
                answer: None,
                stale: false,
                contest: Contest::default(),
                blockers: Vec::new(),
                waits_since: None,
                seen,
                unusable,
                history: History::default(),
                said_in: number,
            },
        };
        self.records.insert(key, record);
        if same { Said::Known } else { Said::New }
    }

    /// Lets go of an object for which there is no room, to ask for it again.
    pub fn put_off(&mut self, key: &Key) {
        if let Some(record) = self.records.get_mut(key) {
            self.at_hand -= record.put_off();
            self.owed.insert(key.clone());
        }
    }

    /// Lets go of all objects that wait for their answer.
    pub fn put_all_off(&mut self) {
        for (key, record) in self.records.iter_mut().filter(|(_, record)| record.object.is_some()) {
            self.at_hand -= record.put_off();
            self.owed.insert(key.clone());
        }
    }

    /// Takes it that an object is gone. Gives its record if it was that very object.
    pub fn delete(&mut self, key: &Key, uid: &Uid, phase: &mut Phase) -> Option<Record> {
        self.records.get(key).filter(|record| record.uid == *uid)?;
        let record = self.forget(key)?;
        if let Phase::Snapshot { number, said } = phase
            && record.said_in == *number
        {
            said.remove(key, uid, record.hash);
        }
        Some(record)
    }

    /// Takes a snapshot as complete: whatever was not said in it is not wanted. Gives what went.
    pub fn complete(&mut self, number: u64) -> Vec<(Key, Record)> {
        let unsaid = self.records.iter().filter(|(_, record)| record.said_in != number);
        let unsaid: Vec<Key> = unsaid.map(|(key, _)| key.clone()).collect();
        self.complete = true;
        unsaid.into_iter().filter_map(|key| self.forget(&key).map(|record| (key, record))).collect()
    }

    /// Replaces the answer of a key. Its object is not needed any more.
    pub fn answer(&mut self, key: &Key, version: u64, answer: impl FnOnce(&Record) -> Answer) {
        let Some(record) = self.records.get_mut(key) else {
            return;
        };
        if let Some(old) = &record.answer {
            self.by_version.remove(&old.version);
        }
        record.answer = Some(answer(record));
        record.object = None;
        self.at_hand -= std::mem::take(&mut record.bytes);
        record.stale = false;
        self.by_version.insert(version, key.clone());
    }

    /// Tells once more what was answered, with what has changed on the host since. Whether the object is needed stays as it is.
    pub fn tell_again(&mut self, key: &Key, version: u64, change: impl FnOnce(&mut Answer)) {
        let Some(answer) = self.records.get_mut(key).and_then(|record| record.answer.as_mut()) else {
            return;
        };
        self.by_version.remove(&answer.version);
        answer.version = version;
        change(answer);
        self.by_version.insert(version, key.clone());
    }

    /// The oldest answer that is newer than `version`.
    #[must_use]
    pub fn answer_after(&self, version: u64) -> Option<&Answer> {
        let (_, key) = self.by_version.range(version.saturating_add(1)..).next()?;
        self.records.get(key)?.answer.as_ref()
    }

    fn forget(&mut self, key: &Key) -> Option<Record> {
        let record = self.records.remove(key)?;
        self.tally.remove(key, &record.uid, record.hash);
        self.at_hand -= record.bytes;
        self.owed.remove(key);
        if let Some(answer) = &record.answer {
            self.by_version.remove(&answer.version);
        }
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k3k_expose_proto::message::{Object, Unusable};
    use k3k_expose_proto::service::ServiceType;
    use k3k_expose_proto::{Hash, Service};

    fn uid(text: &str) -> Uid {
        Uid::parse(text).unwrap()
    }

    fn key(name: &str) -> Key {
        Key::service("n", name).unwrap()
    }

    fn put(name: &str, id: &str, content: &str) -> Put {
        let mut service = Service::new(ServiceType::ClusterIP);
        service.traffic_distribution = Some(content.to_owned());
        let hash = Hash::of(&service);
        Put {
            key: key(name),
            uid: uid(id),
            hash,
            seen: 0,
            unusable: Unusable::default(),
            object: Object::Service(Box::new(service)),
        }
    }

    fn ledger() -> Ledger {
        Ledger::new(Tenant::for_test("t", "ns", "mine"), uid("vc"), 1)
    }

    fn settle(ledger: &mut Ledger, name: &str, version: u64, reason: Reason) {
        ledger.answer(&key(name), version, |record| answer(&key(name), record, version, reason, String::new(), None));
    }

    #[test]
    fn a_snapshot_adds_up_whatever_is_said_twice_or_taken_back() {
        let mut ledger = ledger();
        ledger.put(put("old", "1", "x"), &mut Phase::Changes);
        let mut phase = Phase::Snapshot { number: 1, said: Tally::default() };
        for said in [put("a", "1", "x"), put("b", "2", "x"), put("a", "1", "y"), put("c", "3", "x")] {
            ledger.put(said, &mut phase);
        }
        assert!(ledger.delete(&key("c"), &uid("3"), &mut phase).is_some());
        assert!(ledger.delete(&key("old"), &uid("1"), &mut phase).is_some(), "not said in this snapshot");
        ledger.put(put("old", "1", "x"), &mut Phase::Changes);
        let Phase::Snapshot { said, .. } = phase else { panic!() };
        let mut expected = Tally::default();
        for said in [put("a", "1", "y"), put("b", "2", "x")] {
            expected.add(&said.key, &said.uid, said.hash);
        }
        assert_eq!(said, expected);
        let gone: Vec<_> = ledger.complete(1).into_iter().map(|(key, _)| key).collect();
        assert_eq!(gone, [key("old")]);
        assert_eq!(ledger.tally(), expected);
    }

    #[test]
    fn only_that_very_object_can_be_deleted() {
        let mut ledger = ledger();
        ledger.put(put("a", "1", "x"), &mut Phase::Changes);
        assert!(ledger.delete(&key("a"), &uid("2"), &mut Phase::Changes).is_none());
        assert!(ledger.delete(&key("b"), &uid("1"), &mut Phase::Changes).is_none());
        assert_eq!(ledger.tally().count, 1);
    }

    #[test]
    fn a_put_is_known_only_while_its_answer_stands() {
        let mut ledger = ledger();
        assert_eq!(ledger.put(put("a", "1", "x"), &mut Phase::Changes), Said::New);
        settle(&mut ledger, "a", 1, Reason::Applied);
        assert_eq!(ledger.put(put("a", "1", "x"), &mut Phase::Changes), Said::Known);
        assert_eq!(ledger.put(put("a", "1", "y"), &mut Phase::Changes), Said::New);
        settle(&mut ledger, "a", 2, Reason::NodePortTaken);
        assert_eq!(ledger.put(put("a", "1", "y"), &mut Phase::Changes), Said::New);
        settle(&mut ledger, "a", 3, Reason::Applied);
        ledger.record_mut(&key("a")).unwrap().stale = true;
        assert_eq!(ledger.put(put("a", "1", "y"), &mut Phase::Changes), Said::New);
    }

    #[test]
    fn the_newest_answer_of_a_key_is_told_once() {
        let mut ledger = ledger();
        for name in ["a", "b"] {
            ledger.put(put(name, "1", "x"), &mut Phase::Changes);
        }
        settle(&mut ledger, "a", 1, Reason::TwinTerminating);
        settle(&mut ledger, "b", 2, Reason::Applied);
        settle(&mut ledger, "a", 3, Reason::Applied);
        assert_eq!(ledger.answer_after(0).unwrap().key, key("b"));
        assert_eq!(ledger.answer_after(2).unwrap().reason, Reason::Applied);
        assert_eq!(ledger.answer_after(3), None);
    }
}
