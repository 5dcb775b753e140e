//! What follows when the host refuses a write: for now, until something is freed, or as long as both sides stay as they are.
//! Pure.
//!
//! The trap: "already allocated" is also what a lost race looks like, and the API server frees numbers a moment after it has
//! told that their Service is gone. So a number counts as held only if its holder is known, or after several refusals in a
//! row.

use std::net::IpAddr;
use std::time::Duration;

use k3k_expose_proto::{Key, Reason, Uid};

use super::Registry;
use super::settle::SLOW;
use crate::numbers::{History, Why};
use crate::refusal::{Number, Refusal};
use crate::services::Blocker;
use crate::twin::{Held, Twin};

/// So often is a quota that was used up when room had been freed tried again soon.
const LAG_TRIES: u32 = 4;

impl Registry {
    /// Takes in that the host has refused a write that asked for these numbers.
    pub fn refused(&mut self, tenant: &Uid, key: &Key, refusal: Refusal, asked: &Held, now: Duration) {
        if let Refusal::Held(number) = refusal {
            return self.held(tenant, key, number, asked, now);
        }
        self.history(tenant, key, |history| history.other_answer());
        if let Refusal::OutOfRange(number) = refusal {
            let numbers = self.asked(tenant, key, number, asked);
            if !numbers.is_empty() {
                self.history(tenant, key, |history| history.refuse(numbers, Why::OutOfRange, now + SLOW));
                return self.need(tenant, key);
            }
        }
        let namespace =
            |registry: &Self| registry.tenants.get(tenant).map(|ledger| ledger.tenant.namespace().to_owned());
        let (reason, blocker) = match refusal {
            Refusal::OutOfRange(Number::ClusterIp) => (Reason::ClusterIPOutOfRange, Some(Blocker::Ranges)),
            Refusal::OutOfRange(Number::NodePort(_)) => (Reason::NodePortOutOfRange, None),
            Refusal::Family => (Reason::IPFamilyUnavailable, Some(Blocker::Ranges)),
            Refusal::Quota => (Reason::QuotaExceeded, namespace(self).map(Blocker::Quota)),
            Refusal::Admission => (Reason::AdmissionDenied, None),
            Refusal::Denied | Refusal::Immutable => (Reason::HostRefused, None),
            Refusal::Held(_)
            | Refusal::Absent
            | Refusal::Conflict
            | Refusal::Exists
            | Refusal::Overloaded
            | Refusal::Unavailable => (Reason::HostUnavailable, None),
        };
        self.conclude(tenant, key, reason, blocker.into_iter().collect());
        if reason == Reason::HostUnavailable || reason == Reason::QuotaExceeded && self.quota_may_lag(tenant, key) {
            return self.retry(tenant, key, now);
        }
        if let Some(ledger) = self.tenants.get_mut(tenant).filter(|_| reason == Reason::QuotaExceeded) {
            ledger.failures.remove(key);
        }
        self.retry_after(tenant, key, now, SLOW);
    }

    /// Whether room that was freed may be what this refusal does not know of yet. Believed for a few tries: it is a matter
    /// of milliseconds, or there is a limit that no quota we see shows.
    fn quota_may_lag(&self, tenant: &Uid, key: &Key) -> bool {
        let Some(ledger) = self.tenants.get(tenant) else {
            return false;
        };
        let tries = ledger.failures.get(key).copied().unwrap_or_default();
        tries < LAG_TRIES && self.quotas.may_lag(ledger.tenant.namespace())
    }

    /// Takes in what a read of this moment shows: a cluster IP is held, and not by a Service.
    pub fn address_read(&mut self, tenant: &Uid, key: &Key, ip: IpAddr, now: Duration) {
        self.history(tenant, key, |history| history.refuse([Blocker::ClusterIp(ip)], Why::Held, now + SLOW));
    }

    fn held(&mut self, tenant: &Uid, key: &Key, number: Number, asked: &Held, now: Duration) {
        let numbers = self.asked(tenant, key, number, asked);
        if numbers.iter().any(|number| self.is_held(tenant, key, number, now)) {
            return self.need(tenant, key);
        }
        let mut believed = false;
        self.history(tenant, key, |history| {
            believed = history.held_by_nobody();
            if believed {
                history.refuse(numbers.clone(), Why::Held, now + SLOW);
            }
        });
        if believed && !numbers.is_empty() {
            // The next number is a question of its own, and API servers do lose count of several at once.
            if let Some(ledger) = self.tenants.get_mut(tenant) {
                ledger.failures.remove(key);
            }
            return self.need(tenant, key);
        }
        self.conclude(tenant, key, Reason::HostUnavailable, Vec::new());
        self.retry(tenant, key, now);
    }

    /// Whether it is known by now that a number is held.
    fn is_held(&self, tenant: &Uid, key: &Key, number: &Blocker, now: Duration) -> bool {
        let Some(ledger) = self.tenants.get(tenant) else {
            return false;
        };
        let noted = ledger.record(key).and_then(|record| record.history.refused(number, false, now));
        let at = Self::place(ledger, key);
        noted.is_some() || self.services.other_holder(&at, number).is_some() || self.services.is_reserved(number)
    }

    /// Which of the numbers asked for a refusal is about: those of its kind that the twin does not have already.
    fn asked(&self, tenant: &Uid, key: &Key, number: Number, asked: &Held) -> Vec<Blocker> {
        let own = self.standing(tenant, key).map(Twin::held).unwrap_or_default();
        match number {
            Number::ClusterIp => {
                let new = asked.cluster_ips.iter().filter(|ip| !own.cluster_ips.contains(ip));
                new.map(|ip| Blocker::ClusterIp(*ip)).collect()
            }
            Number::NodePort(named) => {
                let new = asked.node_ports.iter().filter(|port| !own.node_ports.contains(port));
                let named = new.filter(|port| named.is_none_or(|named| named == **port));
                named.map(|port| Blocker::NodePort(*port)).collect()
            }
        }
    }

    fn history(&mut self, tenant: &Uid, key: &Key, note: impl FnOnce(&mut History)) {
        if let Some(record) = self.tenants.get_mut(tenant).and_then(|ledger| ledger.record_mut(key)) {
            note(&mut record.history);
        }
    }
}
