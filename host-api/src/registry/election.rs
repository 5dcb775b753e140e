//! Which of a tenant's server pods speaks for it: the lowest ordinal whose API server is ready. Pure.
//!
//! All of them hold sessions, so that the next one is there at once: it is welcomed anew in the session that it has. The one
//! that spoke before has to come back to learn its new role.

use std::collections::BTreeSet;
use std::time::Duration;

use k3k_expose_proto::Uid;
use k3k_expose_proto::message::{ByeReason, Hello, HostBeat, Role};

use super::Registry;
use crate::session::{Phase, Session, SessionId, Speaks};
use crate::tenant::ServerPod;

/// Least time between two changes while the one that speaks is there and ready.
const SETTLED: Duration = Duration::from_secs(10);

impl Registry {
    /// Takes in a session as the newest one of its pod, and sees who speaks now.
    pub(super) fn join(&mut self, tenant: &Uid, pod: ServerPod, hello: &Hello, now: Duration) -> SessionId {
        self.last_session += 1;
        let id = self.last_session;
        if let Some(ledger) = self.tenants.get_mut(tenant)
            && let Some(older) = ledger.members.insert(pod.uid.clone(), id)
            && ledger.session == Some(older)
        {
            ledger.session = None;
        }
        let session = Session {
            tenant: tenant.clone(),
            pod,
            virtual_cluster: hello.virtual_cluster.clone(),
            projection: hello.projection,
            speaks: Speaks::of(hello),
            // It has listed its virtual cluster before it said hello.
            ready: true,
            phase: Phase::Changes,
            told: 0,
            wants: BTreeSet::new(),
            wants_all: false,
            told_beat: HostBeat { k3k_syncs: false, k3k_syncs_ingresses: false, ingress_classes: None },
            promoted: false,
            bye: None,
        };
        self.sessions.insert(id, session);
        self.elect(tenant, Some(id), now);
        id
    }

    /// Takes a session out, and sees who speaks now.
    pub(super) fn leave(&mut self, session: &Session, id: SessionId, now: Duration) {
        let Some(ledger) = self.tenants.get_mut(&session.tenant) else {
            return;
        };
        if ledger.members.get(&session.pod.uid) == Some(&id) {
            ledger.members.remove(&session.pod.uid);
        }
        if ledger.session == Some(id) {
            ledger.session = None;
        }
        self.elect(&session.tenant, None, now);
        // With nobody to answer nothing is begun: whoever comes next is asked for it, and a flood ends with its session.
        if let Some(ledger) = self.tenants.get_mut(&session.tenant).filter(|ledger| ledger.session.is_none()) {
            ledger.put_all_off();
        }
    }

    /// Takes in whether the API server beside an agent is ready.
    pub(super) fn is_ready(&mut self, id: SessionId, ready: bool, now: Duration) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.ready = ready;
        let tenant = session.tenant.clone();
        self.elect(&tenant, None, now);
    }

    /// Whether a session speaks for its tenant.
    pub(super) fn is_active(&self, id: SessionId) -> bool {
        let tenant = self.sessions.get(&id).and_then(|session| self.tenants.get(&session.tenant));
        tenant.is_some_and(|ledger| ledger.session == Some(id))
    }

    pub(super) fn role(&self, id: SessionId) -> Role {
        if self.is_active(id) { Role::Active } else { Role::Standby }
    }

    /// Sees who speaks now. `opening` is a session that has not been welcomed yet.
    fn elect(&mut self, tenant: &Uid, opening: Option<SessionId>, now: Duration) {
        let Some(ledger) = self.tenants.get(tenant) else {
            return;
        };
        let members = ledger.members.values().filter_map(|id| Some((*id, self.sessions.get(id)?)));
        let members: Vec<(SessionId, &Session)> = members.collect();
        let rank = |session: &Session| (!session.ready, session.pod.ordinal);
        let Some((best, first)) = members.iter().min_by_key(|(_, session)| rank(session)) else {
            return;
        };
        let present = ledger.elected.as_ref().and_then(|(pod, since)| {
            let member = members.iter().find(|(_, session)| session.pod.uid == *pod);
            member.map(|(id, session)| (*id, *session, *since))
        });
        let stays = present.filter(|(_, session, since)| {
            session.ready == first.ready
                && (session.pod.ordinal <= first.pod.ordinal || now.saturating_sub(*since) < SETTLED)
        });
        let (winner, elected) = match stays {
            Some((id, session, since)) => (id, (session.pod.uid.clone(), since)),
            None => (*best, (first.pod.uid.clone(), now)),
        };
        let Some(ledger) = self.tenants.get_mut(tenant) else {
            return;
        };
        ledger.elected = Some(elected);
        let former = ledger.session.replace(winner);
        if former == Some(winner) {
            return;
        }
        if let Some(former) = former {
            if let Some(session) = self.sessions.get_mut(&former) {
                session.end(ByeReason::Role, "another server pod of this Cluster speaks for it now", None);
            }
            self.effects.wake.insert(former);
        }
        if opening != Some(winner) {
            self.promote(tenant, winner);
        }
    }

    /// Lets the agent of an open session speak from now on, from a snapshot.
    fn promote(&mut self, tenant: &Uid, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let (virtual_cluster, projection, speaks) =
            (session.virtual_cluster.clone(), session.projection, session.speaks);
        self.begin_anew_unless_same(tenant, &virtual_cluster, projection, speaks);
        let (phase, told) = (self.snapshot(), self.last_version);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.promoted = true;
            session.phase = phase;
            session.told = told;
            session.wants.clear();
        }
        self.effects.wake.insert(id);
    }
}
