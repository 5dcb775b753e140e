//! News from agents: sessions that open, speak and close. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use k3k_expose_proto::limits::{IN_FLIGHT, WANT_KEYS};
use k3k_expose_proto::message::{
    AgentBeat, Bye, ByeReason, Delete, End, FromAgent, FromHost, Hello, HostBeat, Limits, Put, Resume, Want, Welcome,
};
use k3k_expose_proto::{Key, Reason, Resource, Tally, Uid};

use super::Registry;
use crate::bounds::SNAPSHOTS_APART;
use crate::cluster::ClusterState;
use crate::guard;
use crate::ledger::{Ledger, Record, Said};
use crate::notice::{NoticeKind, TWO_WRITERS, TWO_WRITERS_OF_INGRESSES};
use crate::services::Blocker;
use crate::session::{Phase, Session, SessionId, Speaks, bye};
use crate::tenant::{ServerPod, Tenant};

/// Most take-overs of a tenant's session …
const TAKEOVERS: usize = 3;
/// … within this long.
const TAKEOVERS_WITHIN: Duration = Duration::from_secs(60);

/// What an object waits for that may turn out not to come once everything is said.
const WAITS: [Reason; 3] = [Reason::WaitingForNumber, Reason::WaitingForBackend, Reason::WaitingForSecret];

/// Why a session is not opened for a pod that was identified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// The tenant's session is being taken over too often.
    #[error(
        "this session was taken over more than {TAKEOVERS} times within a minute: do two agents hold the same token?"
    )]
    TooManyTakeovers,
    /// The tenant, or all of them, have as many sessions as there may be.
    #[error("this virtual cluster, or all of them together, have as many sessions as there may be")]
    TooManySessions,
    /// The pod went while its `hello` was awaited.
    #[error("the pod of this token has just gone")]
    PodGone,
    /// The Cluster went while the `hello` was awaited.
    #[error("the Cluster of this pod has just gone")]
    ClusterGone,
}

impl Registry {
    /// Opens a session for a tenant; an older one of the same pod ends.
    ///
    /// # Errors
    /// [`NotOpened`].
    pub fn open(
        &mut self,
        tenant: &Tenant,
        state: ClusterState,
        pod: ServerPod,
        hello: &Hello,
        now: Duration,
    ) -> Result<(SessionId, Welcome), NotOpened> {
        if self.gone.contains_key(tenant.id()) {
            return Err(NotOpened::ClusterGone);
        }
        if self.gone.contains_key(&pod.uid) {
            return Err(NotOpened::PodGone);
        }
        self.cluster_seen(tenant.id(), state);
        let bounds = self.bounds_of(tenant.id());
        self.tenants.entry(tenant.id().clone()).or_insert_with(|| {
            let mut ledger = Ledger::new(tenant.clone(), hello.virtual_cluster.clone(), hello.projection);
            ledger.bounds = bounds;
            ledger
        });
        if let Some(ledger) = self.tenants.get(tenant.id())
            && !self.has_place(ledger, &pod.uid)
        {
            return Err(NotOpened::TooManySessions);
        }
        let Some(ledger) = self.tenants.get_mut(tenant.id()) else {
            return Err(NotOpened::ClusterGone);
        };
        if let Some(&older) = ledger.members.get(&pod.uid) {
            ledger.takeovers.retain(|&time| now.saturating_sub(time) < TAKEOVERS_WITHIN);
            if ledger.takeovers.len() >= TAKEOVERS {
                return Err(NotOpened::TooManyTakeovers);
            }
            ledger.takeovers.push_back(now);
            if let Some(session) = self.sessions.get_mut(&older) {
                session.end(ByeReason::Superseded, "a newer session of this pod took over", None);
            }
            self.effects.wake.insert(older);
        }
        let id = self.join(tenant.id(), pod, hello, now);
        if !self.is_active(id) {
            return Ok((id, self.welcome(id, Resume::Nothing)));
        }
        self.begin_anew_unless_same(tenant.id(), &hello.virtual_cluster, hello.projection, Speaks::of(hello));
        let Some(ledger) = self.tenants.get_mut(tenant.id()) else {
            return Err(NotOpened::ClusterGone);
        };
        let hello_tally = Tally { count: hello.count, root: hello.root };
        let resumed = ledger.complete && ledger.tally() == hello_tally;
        let told = match (&hello.seen, resumed) {
            // Every put of a snapshot is answered, so nothing older needs to be told.
            (_, false) => self.last_version,
            (Some(seen), true) if seen.epoch == self.epoch => seen.version,
            (_, true) => 0,
        };
        let phase = if resumed { Phase::Changes } else { self.snapshot() };
        let wants = if resumed { self.unsettled(tenant.id()) } else { BTreeSet::new() };
        if let Some(session) = self.sessions.get_mut(&id) {
            session.phase = phase;
            session.told = told;
            session.wants = wants;
        }
        self.watch_for_two_writers(tenant.id());
        self.effects.wake.insert(id);
        let resume = if resumed { Resume::Nothing } else { Resume::Snapshot };
        Ok((id, self.welcome(id, resume)))
    }

    /// `ends_in_s` is for the caller to fill in.
    fn welcome(&mut self, id: SessionId, resume: Resume) -> Welcome {
        let told = self.beat_of(id);
        let HostBeat { k3k_syncs, k3k_syncs_ingresses, ingress_classes } = told.clone();
        let mut warnings = Vec::new();
        let tenant = self.sessions.get(&id).map(|session| &session.tenant);
        let annotations = tenant.map(|tenant| self.grant(tenant).shown_annotations()).unwrap_or_default();
        if let Some(session) = self.sessions.get_mut(&id) {
            session.told_beat = told;
            warnings.extend(k3k_syncs.then(|| TWO_WRITERS.to_owned()));
            warnings
                .extend((k3k_syncs_ingresses && session.speaks.ingresses).then(|| TWO_WRITERS_OF_INGRESSES.to_owned()));
        }
        Welcome {
            version: 1,
            session: self.session_name(id),
            epoch: self.epoch.clone(),
            role: self.role(id),
            limits: Limits { in_flight: IN_FLIGHT, annotations },
            resume,
            ends_in_s: 0,
            k3k_syncs,
            k3k_syncs_ingresses,
            ingress_classes,
            warnings,
        }
    }

    /// Forgets what another virtual cluster, or another projection of it, has said.
    pub(super) fn begin_anew_unless_same(
        &mut self,
        tenant: &Uid,
        virtual_cluster: &Uid,
        projection: u32,
        speaks: Speaks,
    ) {
        let same = |ledger: &Ledger| ledger.virtual_cluster == *virtual_cluster && ledger.projection == projection;
        let anew = !self.tenants.get(tenant).is_some_and(same);
        if anew {
            self.release(tenant);
        }
        if let Some(ledger) = self.tenants.get_mut(tenant) {
            if anew {
                ledger.reset(virtual_cluster.clone(), projection);
            }
            if std::mem::replace(&mut ledger.speaks, speaks) != speaks {
                // An equal set says less, or more, than it did.
                ledger.complete = false;
            }
        }
    }

    /// Closes a session. What the tenant wants stays.
    pub fn close(&mut self, id: SessionId, now: Duration) {
        if let Some(session) = self.sessions.remove(&id) {
            self.leave(&session, id, now);
        }
    }

    /// Takes in a line.
    ///
    /// # Errors
    /// The last line to say, when the session cannot go on.
    pub fn line(&mut self, id: SessionId, line: FromAgent, now: Duration) -> Result<(), Bye> {
        if let FromAgent::Beat(beat) = &line {
            self.is_ready(id, beat.ready, now);
        }
        if !self.is_active(id) {
            return Ok(());
        }
        match line {
            FromAgent::Hello(_) => Err(bye(ByeReason::Malformed, "a session has one hello", None)),
            FromAgent::Put(put) if !self.speaks_for(id, put.key.resource()) => {
                let kind = put.key.resource().kind();
                Err(bye(ByeReason::Malformed, &format!("{kind} in a session that does not speak for them"), None))
            }
            FromAgent::Put(put) => self.put(id, put),
            FromAgent::Delete(delete) => {
                self.delete(id, &delete);
                Ok(())
            }
            FromAgent::End(end) => self.end(id, &end),
            FromAgent::Beat(beat) => {
                self.beat(id, &beat, now);
                Ok(())
            }
        }
    }

    /// The next line to tell in a session. A session whose `bye` was told is over.
    pub fn next_line(&mut self, id: SessionId) -> Option<FromHost> {
        let session = self.sessions.get_mut(&id)?;
        if let Some(bye) = session.bye.take() {
            return Some(FromHost::Bye(bye));
        }
        if std::mem::take(&mut session.promoted) {
            return Some(FromHost::Welcome(self.welcome(id, Resume::Snapshot)));
        }
        let beat = self.beat_of(id);
        let session = self.sessions.get_mut(&id)?;
        if std::mem::replace(&mut session.told_beat, beat.clone()) != beat {
            return Some(FromHost::Beat(beat));
        }
        if std::mem::take(&mut session.wants_all) {
            session.wants.clear();
            let phase = self.snapshot();
            if let Some(session) = self.sessions.get_mut(&id) {
                session.phase = phase;
            }
            return Some(FromHost::Want(Want::All));
        }
        if !session.wants.is_empty() {
            let rest = session.wants.iter().nth(WANT_KEYS).cloned();
            let rest = rest.map(|key| session.wants.split_off(&key)).unwrap_or_default();
            let keys = std::mem::replace(&mut session.wants, rest);
            return Some(FromHost::Want(Want::Keys(keys.into_iter().collect())));
        }
        let ledger = self.tenants.get(&session.tenant).filter(|ledger| ledger.session == Some(id))?;
        let answer = ledger.answer_after(session.told)?;
        session.told = answer.version;
        Some(FromHost::Answer(Box::new(answer.clone())))
    }

    /// A sign of life.
    #[must_use]
    pub fn host_beat(&self, id: SessionId) -> FromHost {
        FromHost::Beat(self.beat_of(id))
    }

    fn beat_of(&self, id: SessionId) -> HostBeat {
        let writes = |resource| self.sessions.get(&id).is_none_or(|session| self.k3k_writes(&session.tenant, resource));
        HostBeat {
            k3k_syncs: writes(Resource::Services),
            k3k_syncs_ingresses: writes(Resource::Ingresses),
            ingress_classes: self
                .sessions
                .get(&id)
                .filter(|_| self.speaks_for(id, Resource::Ingresses))
                .map(|session| self.grant(&session.tenant).ingresses.classes()),
        }
    }

    /// Ends every session that `which` picks.
    pub fn end_sessions(&mut self, reason: ByeReason, message: &str, which: impl Fn(&Session) -> bool) {
        for (id, session) in self.sessions.iter_mut().filter(|(_, session)| which(session)) {
            session.end(reason, message, None);
            self.effects.wake.insert(*id);
        }
    }

    fn put(&mut self, id: SessionId, put: Put) -> Result<(), Bye> {
        let key = put.key.clone();
        let Some(tenant) = self.sessions.get(&id).map(|session| session.tenant.clone()) else {
            return Ok(());
        };
        self.may_record(&tenant, &key)?;
        let Some((session, ledger)) = self.speaking(id) else {
            return Ok(());
        };
        session.wants.remove(&key);
        match ledger.put(put, &mut session.phase) {
            Said::Known => {
                let stands_on = ledger.record(&key).map(|record| record.blockers.clone()).unwrap_or_default();
                self.conclude(&tenant, &key, Reason::Applied, stands_on);
            }
            Said::New => {
                self.put_off_without_room(&tenant, &key);
                if self.tenants.get(&tenant).is_some_and(|ledger| !ledger.owed.contains(&key)) {
                    self.need(&tenant, &key);
                }
            }
        }
        Ok(())
    }

    fn delete(&mut self, id: SessionId, delete: &Delete) {
        let Some((session, ledger)) = self.speaking(id) else {
            return;
        };
        session.wants.remove(&delete.key);
        let tenant = session.tenant.clone();
        if let Some(record) = ledger.delete(&delete.key, &delete.uid, &mut session.phase) {
            self.unwanted(&tenant, &delete.key, &record);
        }
    }

    fn end(&mut self, id: SessionId, end: &End) -> Result<(), Bye> {
        let Some((session, ledger)) = self.speaking(id) else {
            return Ok(());
        };
        let Phase::Snapshot { number, said } = session.phase else {
            return Err(bye(ByeReason::Malformed, "an end without a snapshot", None));
        };
        if said != (Tally { count: end.count, root: end.root }) {
            return Err(bye(ByeReason::Malformed, "the snapshot does not add up to its end", None));
        }
        session.phase = Phase::Changes;
        let tenant = session.tenant.clone();
        let gone = ledger.complete(number);
        for (key, record) in &gone {
            self.unwanted(&tenant, key, record);
        }
        self.weigh(&tenant, end.count);
        self.collect(&tenant);
        self.look_again_at_waiting(&tenant);
        Ok(())
    }

    fn beat(&mut self, id: SessionId, beat: &AgentBeat, now: Duration) {
        let Some((session, ledger)) = self.speaking(id) else {
            return;
        };
        let told = Tally { count: beat.count, root: beat.root };
        let asked = ledger.asked_all.is_some_and(|when| now.saturating_sub(when) < SNAPSHOTS_APART);
        if session.phase == Phase::Changes && ledger.tally() != told && !asked {
            ledger.asked_all = Some(now);
            session.wants_all = true;
            self.effects.wake.insert(id);
        }
    }

    /// Judges a complete snapshot: does it look like that of a virtual cluster that lost its data, or of another one?
    fn weigh(&mut self, tenant: &Uid, count: u64) {
        let Some(ledger) = self.tenants.get(tenant) else {
            return;
        };
        let twins = || self.marks(ledger);
        let standing = twins().count();
        let unwanted = twins().filter(|(marks, _)| ledger.record(&marks.key).is_none()).count();
        let speaks = &ledger.virtual_cluster;
        let strangers = twins().any(|(marks, _)| marks.virtual_cluster.as_ref().is_some_and(|home| home != speaks));
        let adopted = twins()
            .any(|(marks, made_by_k3k)| marks.ours && made_by_k3k && marks.virtual_cluster.as_ref() == Some(speaks));
        let speaks = speaks.clone();
        let let_through = self.clusters.get(tenant).and_then(|state| state.mass_delete.as_ref()) == Some(&speaks);
        // Adoption outlives this process: the twin's managedFields still name k3k.
        let Some(ledger) = self.tenants.get_mut(tenant) else {
            return;
        };
        ledger.adopted |= adopted;
        ledger.emptied = guard::emptied(ledger.emptied, count, standing, unwanted);
        if ledger.emptied && !let_through {
            self.notify(tenant, NoticeKind::Emptied { speaks, standing: unwanted });
        } else if strangers && !let_through {
            self.notify(tenant, NoticeKind::WrongVirtualCluster { speaks });
        }
    }

    /// What follows when an object is not wanted any more.
    fn unwanted(&mut self, tenant: &Uid, key: &Key, record: &Record) {
        self.unblock(&record.blockers, tenant, key);
        self.pass_on(tenant, key, &record.blockers, &[]);
        self.look_at_secrets_of(&record.blockers);
        if let Some(ledger) = self.tenants.get_mut(tenant) {
            ledger.failures.remove(key);
            if let Some(time) = ledger.due.remove(key) {
                self.retries.remove(&(time, tenant.clone(), key.clone()));
            }
        }
        if self.standing(tenant, key).is_none() {
            self.wake(&Blocker::Backend(tenant.clone(), key.clone()));
        }
        self.need(tenant, key);
    }

    /// Now that everything is said it shows which twins will not let go of their numbers, or not come, after all.
    fn look_again_at_waiting(&mut self, tenant: &Uid) {
        let records = self.tenants.get(tenant).into_iter().flat_map(Ledger::records);
        let waiting = records.filter(|(_, record)| WAITS.into_iter().any(|reason| record.stands(reason)));
        let waiting: Vec<Key> = waiting.map(|(key, _)| key.clone()).collect();
        for key in waiting {
            self.need(tenant, &key);
        }
    }

    /// Keys whose object is needed again, because of what happened since it was said.
    fn unsettled(&self, tenant: &Uid) -> BTreeSet<Key> {
        let records = self.tenants.get(tenant).into_iter().flat_map(Ledger::records);
        records.filter(|(_, record)| record.stale).map(|(key, _)| key.clone()).collect()
    }

    fn speaks_for(&self, id: SessionId, resource: Resource) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.speaks.is_for(resource))
    }

    pub(super) fn speaking(&mut self, id: SessionId) -> Option<(&mut Session, &mut Ledger)> {
        let session = self.sessions.get_mut(&id)?;
        let ledger = self.tenants.get_mut(&session.tenant)?;
        Some((session, ledger))
    }

    pub(super) fn snapshot(&mut self) -> Phase {
        self.last_snapshot += 1;
        Phase::Snapshot { number: self.last_snapshot, said: Tally::default() }
    }

    fn session_name(&self, id: SessionId) -> Uid {
        Uid::parse(&format!("{}-{id}", self.epoch)).unwrap_or_else(|_| self.epoch.clone())
    }
}
