//! What the session says and hears. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k3k_expose_proto::message::{AgentBeat, Answer, Delete, Hello, Put, Resume, Role, Seen, Unusable, Want, Welcome};
use k3k_expose_proto::{FromAgent, Key, Outcome, Resource, Tally, Uid, version};

use super::{Behind, Counts, Entry, News, Offer, Outbox, Verdict};
use crate::ledger::{Ledger, Told};

/// Calls with the generation of a session that was taken over do nothing.
impl Outbox {
    /// The first line of a new session. From here on changes are noted, whether or not an older session still runs.
    pub fn hello(&mut self) -> Option<Hello> {
        let virtual_cluster = self.virtual_cluster.clone()?;
        self.offer = Some(Offer { tally: self.wanted, before: BTreeMap::new(), broken: false });
        Some(Hello {
            versions: version::SUPPORTED.to_vec(),
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            projection: version::PROJECTION,
            virtual_cluster,
            count: self.wanted.count,
            root: self.wanted.root,
            ingresses: self.more.contains(&Resource::Ingresses),
            secrets: self.more.contains(&Resource::Secrets),
            seen: self.epoch.clone().map(|epoch| Seen { epoch, version: self.newest }),
        })
    }

    /// The `hello` was not welcomed.
    pub fn withdraw(&mut self) {
        self.offer = None;
    }

    /// Whether host-api admits other annotation keys than the entries were projected with. If so nothing may be said
    /// until the watch has listed everything anew, and the session has to end.
    pub fn admit(&mut self, keys: &[String]) -> bool {
        let keys: BTreeSet<String> = keys.iter().cloned().collect();
        let differs = self.admitted != keys;
        if differs {
            self.admitted = keys;
            self.listed.clear();
        }
        differs
    }

    /// Begins the session that the last `hello` asked for, in place of any older one, and names its generation.
    pub fn welcome(&mut self, welcome: &Welcome) -> u64 {
        self.generation += 1;
        if self.epoch.as_ref() != Some(&welcome.epoch) {
            self.forget_verdicts(&welcome.epoch);
        }
        let offer = self.offer.take();
        let (role, limit) = (welcome.role, welcome.limits.in_flight);
        let mut ledger = match (&offer, welcome.resume) {
            (Some(offer), Resume::Nothing) => {
                let mut told: BTreeMap<Key, Told> =
                    self.entries.iter().map(|(key, entry)| (key.clone(), entry.told())).collect();
                for (key, before) in &offer.before {
                    match before {
                        Some(before) => told.insert(key.clone(), before.clone()),
                        None => told.remove(key),
                    };
                }
                Ledger::new(self.generation, role, limit, told, offer.tally)
            }
            _ => Ledger::new(self.generation, role, limit, BTreeMap::new(), Tally::default()),
        };
        ledger.broken = offer.as_ref().is_none_or(|offer| offer.broken);
        match welcome.resume {
            Resume::Nothing => {
                for key in offer.iter().flat_map(|offer| offer.before.keys()) {
                    Self::queue(&mut ledger, &self.entries, key);
                }
            }
            Resume::Snapshot => Self::queue_all(&mut ledger, &self.entries),
        }
        self.session = Some(ledger);
        self.generation
    }

    /// Begins anew within an open session, from a snapshot. `None` when the session was taken over.
    pub fn promote(&mut self, generation: u64, welcome: &Welcome) -> Option<u64> {
        let broken = self.current(generation)?.broken;
        // The offer of a renewal that is under way stays as it is.
        let renewal = self.offer.take();
        let generation = self.welcome(&Welcome { resume: Resume::Snapshot, ..welcome.clone() });
        self.offer = renewal;
        if let Some(ledger) = &mut self.session {
            ledger.broken = broken;
        }
        Some(generation)
    }

    /// Whether the session is the present one.
    #[must_use]
    pub fn is_current(&self, generation: u64) -> bool {
        self.session.as_ref().is_some_and(|ledger| ledger.generation == generation)
    }

    /// Whether the session can no longer say the truth and has to begin anew.
    #[must_use]
    pub fn is_broken(&self, generation: u64) -> bool {
        self.current(generation).is_some_and(|ledger| ledger.broken)
    }

    /// Ends a session.
    pub fn close(&mut self, generation: u64) {
        if self.is_current(generation) {
            self.session = None;
        }
    }

    /// Whether [`Self::next`] has a line.
    #[must_use]
    pub fn has_next(&self, generation: u64) -> bool {
        self.current(generation).is_some_and(|ledger| Self::may_speak(ledger) && ledger.has_next())
    }

    /// The next line: the oldest change first, at most as many unanswered puts as host-api allows.
    pub fn next(&mut self, generation: u64) -> Option<FromAgent> {
        let ledger = self.session.as_mut()?;
        if ledger.generation != generation || !Self::may_speak(ledger) {
            return None;
        }
        if let Some(end) = ledger.take_end() {
            return Some(FromAgent::End(end));
        }
        let key = ledger.take_key()?;
        let Some(entry) = self.entries.get(&key) else {
            let uid = ledger.unsaid(&key)?;
            return Some(FromAgent::Delete(Delete { key, uid }));
        };
        let object = entry.object.unpack(key.resource())?;
        let hash = entry.object.hash();
        ledger.said(&key, &entry.uid, hash, entry.is_answered());
        Some(FromAgent::Put(Put {
            key,
            uid: entry.uid.clone(),
            hash,
            seen: entry.seen,
            unusable: entry.unusable.clone(),
            object,
        }))
    }

    /// A sign of life with what host-api should hold.
    #[must_use]
    pub fn beat(&self, generation: u64, ready: bool) -> Option<FromAgent> {
        let Tally { count, root } = self.current(generation)?.sent();
        Some(FromAgent::Beat(AgentBeat { count, root, ready }))
    }

    /// Host-api wants to hear keys again. Keys that are not there are ignored.
    pub fn want(&mut self, generation: u64, want: &Want) {
        let Some(ledger) = self.session.as_mut().filter(|ledger| ledger.generation == generation) else {
            return;
        };
        match want {
            Want::All => Self::queue_all(ledger, &self.entries),
            Want::Keys(keys) => {
                for key in keys.iter().filter(|key| self.entries.contains_key(key)) {
                    Self::queue(ledger, &self.entries, key);
                }
            }
        }
    }

    /// Takes in an answer, and gives it back if it is news.
    pub fn answer(&mut self, generation: u64, answer: Answer) -> Option<News> {
        let ledger = self.session.as_mut().filter(|ledger| ledger.generation == generation)?;
        self.newest = self.newest.max(answer.version);
        let waits_again = ledger.answered(&answer.key, &answer.uid, answer.hash);
        let entry = self.entries.get_mut(&answer.key)?;
        let old = entry.verdict;
        let is_news = entry.uid == answer.uid && old.is_none_or(|old| old.version < answer.version);
        if is_news {
            entry.verdict = Some(Verdict {
                hash: answer.hash,
                version: answer.version,
                outcome: answer.outcome,
                reason: answer.reason,
            });
        }
        if waits_again {
            ledger.put_later(&answer.key, entry.is_answered());
        }
        let is_change = old.is_none_or(|old| (old.outcome, old.reason) != (answer.outcome, answer.reason));
        let is_new_refusal = is_change && answer.outcome == Outcome::Rejected;
        is_news.then_some(News { answer, is_new_refusal })
    }

    /// Tells host-api that the virtual cluster cannot give these of its numbers to an object.
    pub fn unusable(&mut self, key: &Key, uid: &Uid, unusable: Unusable) {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.uid == *uid) else {
            return;
        };
        entry.unusable = unusable;
        if let Some(ledger) = &mut self.session {
            ledger.put_later(key, entry.is_answered());
        }
    }

    /// Whether the present state of an object has no answer.
    #[must_use]
    pub fn is_unanswered(&self, key: &Key) -> bool {
        self.entries.get(key).is_some_and(|entry| !entry.is_answered())
    }

    /// Objects whose present state has no answer.
    #[must_use]
    pub fn unanswered(&self) -> Vec<Key> {
        self.entries.iter().filter(|(_, entry)| !entry.is_answered()).map(|(key, _)| key.clone()).collect()
    }

    /// The role of this agent; `None` without a session.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        self.session.as_ref().map(|ledger| ledger.role)
    }

    /// Whether all that was to be said in the present session is said and answered.
    #[must_use]
    pub fn is_acknowledged(&self) -> bool {
        self.session.as_ref().is_some_and(|ledger| {
            ledger.role == Role::Active && !ledger.broken && ledger.waiting() == 0 && ledger.in_flight() == 0
        })
    }

    /// Everything wanted was said in this session and has its answer.
    ///
    /// # Errors
    /// [`Behind`] says what is missing first.
    pub fn in_sync(&self) -> Result<(), Behind> {
        if self.virtual_cluster.is_none() {
            return Err(Behind::Unlisted);
        }
        let ledger = self.session.as_ref().ok_or(Behind::NoSession)?;
        if ledger.role == Role::Standby {
            return Err(Behind::Standby);
        }
        match (ledger.waiting(), self.counts().unanswered) {
            (0, 0) if ledger.broken => Err(Behind::NoSession),
            (0, 0) => Ok(()),
            (0, unanswered) => Err(Behind::Unanswered(unanswered)),
            (waiting, _) => Err(Behind::Waiting(waiting)),
        }
    }

    /// Objects by what became of them.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts =
            Counts { rejected: u64::try_from(self.refused.len()).unwrap_or(u64::MAX), ..Counts::default() };
        for entry in self.entries.values() {
            let count = match entry.verdict.filter(|_| entry.is_answered()) {
                None => &mut counts.unanswered,
                Some(verdict) => match verdict.outcome {
                    Outcome::Applied => &mut counts.applied,
                    Outcome::Pending => &mut counts.pending,
                    Outcome::Rejected => &mut counts.rejected,
                },
            };
            *count += 1;
        }
        counts
    }

    fn current(&self, generation: u64) -> Option<&Ledger> {
        self.session.as_ref().filter(|ledger| ledger.generation == generation)
    }

    fn may_speak(ledger: &Ledger) -> bool {
        ledger.role == Role::Active && !ledger.broken
    }

    /// Versions count within an epoch; an answer of another one says nothing about this one's.
    fn forget_verdicts(&mut self, epoch: &Uid) {
        self.epoch = Some(epoch.clone());
        self.newest = 0;
        for entry in self.entries.values_mut() {
            entry.verdict = None;
            entry.seen = 0;
        }
    }

    fn queue(ledger: &mut Ledger, entries: &BTreeMap<Key, Entry>, key: &Key) {
        match entries.get(key) {
            Some(entry) => ledger.put_later(key, entry.is_answered()),
            None => ledger.delete_later(key),
        }
    }

    fn queue_all(ledger: &mut Ledger, entries: &BTreeMap<Key, Entry>) {
        // What Ingresses name comes first: they wait for it.
        for resource in Resource::ALL {
            for key in entries.keys().filter(|key| key.resource() == resource) {
                Self::queue(ledger, entries, key);
            }
        }
        ledger.end_later();
    }
}
