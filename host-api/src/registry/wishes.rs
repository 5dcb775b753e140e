//! The wishes of one object against all that is known of the host. Pure.

use std::time::Duration;

use k3k_expose_proto::message::Numbers;
use k3k_expose_proto::{Key, Outcome, Reason, Service, Uid};
use k8s_openapi::api::core::v1::ServiceSpec;

use super::Registry;
use crate::ledger::{Ledger, Record};
use crate::numbers::{self, Hold, Resolved, Stance, Unmet, Why, history};
use crate::services::{Blocker, HostName};
use crate::twin::{HostService, Twin};

impl Registry {
    /// Takes the wishes that cannot be had out of a translated spec, or names the numbers that the twin must let go of
    /// first.
    pub(super) fn resolve(
        &self,
        ledger: &Ledger,
        record: &Record,
        at: &HostName,
        (spec, object): (&mut ServiceSpec, &Service),
        twin: Option<&Twin>,
        now: Duration,
    ) -> Result<Resolved, Vec<Blocker>> {
        let own = twin.map(Twin::numbers).unwrap_or_default();
        let unusable = history::unusable(&record.unusable);
        let [ips, ports] = [history::cluster_ips(&own), history::node_ports(&own)]
            .map(|own| if unusable.is_empty() { None } else { record.history.misfits(&own, &unusable) });
        if let Some(numbers) = [&ips, &ports].into_iter().flatten().find(|numbers| !numbers.is_empty()) {
            return Err(numbers.clone());
        }
        let stance = Stance {
            own: &own,
            given: record.history.given,
            // Whoever was refused this very wish and says it again has seen why.
            seen: if record.was_refused_number() { u64::MAX } else { record.seen },
            conflict: self.grant(ledger.tenant.id()).conflict.unwrap_or(self.conflict),
            stuck_cluster_ips: ips.is_some(),
            stuck_node_ports: ports.is_some(),
        };
        let hold = |number: &Blocker| self.hold(ledger, record, at, &own, number, now);
        Ok(numbers::resolve(spec, object, &stance, hold))
    }

    /// How a wished number stands on the host.
    fn hold(
        &self,
        ledger: &Ledger,
        record: &Record,
        at: &HostName,
        own: &Numbers,
        number: &Blocker,
        now: Duration,
    ) -> Hold {
        // A twin gives up its address to try another one, so that is not tried on suspicion.
        let for_good = matches!(number, Blocker::ClusterIp(_)) && !own.cluster_ips.is_empty();
        let excluded = matches!(number, Blocker::ClusterIp(ip) if self.ranges.exclude(*ip));
        match record.history.refused(number, for_good, now) {
            _ if excluded => return Hold::OutOfRange,
            Some(Why::OutOfRange) => return Hold::OutOfRange,
            Some(Why::Held) => return Hold::Taken,
            None => {}
        }
        match self.services.other_holder(at, number) {
            Some(holder) if self.lets_go(ledger, holder, number) => Hold::Sibling,
            Some(_) => Hold::Taken,
            None if self.services.is_reserved(number) => Hold::Taken,
            None => Hold::Free,
        }
    }

    /// Whether a holder is a twin of the same tenant that will let go of the number by itself. It will not when the host gave
    /// it the number, or when its own object is refused.
    fn lets_go(&self, ledger: &Ledger, holder: &HostName, number: &Blocker) -> bool {
        let twin = self.services.get(holder).and_then(HostService::twin);
        let Some(twin) = twin.filter(|twin| twin.marks.tenant == *ledger.tenant.id()) else {
            return false;
        };
        if twin.terminating {
            return true;
        }
        match ledger.record(&twin.marks.key) {
            None => !ledger.complete || self.may_go(ledger, &twin.marks.key, &twin.marks),
            Some(record) => {
                let refused = record.object.is_none()
                    && !record.stale
                    && record.answer.as_ref().is_some_and(|answer| answer.outcome == Outcome::Rejected);
                !refused && !record.history.unwished.contains(number)
            }
        }
    }

    /// What a twin has that nobody wished, and that a refused object keeps, is not waited for any more.
    pub(super) fn wake_siblings(&mut self, tenant: &Uid, key: &Key) {
        if self.waiting.is_empty() {
            return;
        }
        let Some((twin, record)) = self.standing(tenant, key).zip(self.record(tenant, key)) else {
            return;
        };
        let rejected = record.answer.as_ref().is_some_and(|answer| answer.outcome == Outcome::Rejected);
        let own = twin.numbers();
        let kept = if rejected { [history::cluster_ips(&own), history::node_ports(&own)].concat() } else { Vec::new() };
        for number in kept.into_iter().chain(record.history.unwished.clone()) {
            let waiting = self.waiting.get(&number).into_iter().flatten();
            let siblings: Vec<Key> =
                waiting.filter(|(of, other)| of == tenant && other != key).map(|(_, key)| key.clone()).collect();
            for sibling in siblings {
                let waits = self.record(tenant, &sibling).is_some_and(|record| record.stands(Reason::WaitingForNumber));
                if waits {
                    self.need(tenant, &sibling);
                }
            }
        }
    }

    pub(super) fn record(&self, tenant: &Uid, key: &Key) -> Option<&Record> {
        self.tenants.get(tenant)?.record(key)
    }
}

/// The reason and the numbers to wait for, when a wish of the tenant's own is not honored.
pub(super) fn refusal(resolved: &Resolved) -> Option<(Reason, Vec<Blocker>)> {
    let told: Vec<&Unmet> = resolved.unmet.iter().filter(|unmet| unmet.told).collect();
    let first = told.first()?;
    let of_ip = first.wishes.iter().any(|wish| matches!(wish, Blocker::ClusterIp(_)));
    let reason = match (of_ip, first.out_of_range) {
        (true, true) => Reason::ClusterIPOutOfRange,
        (true, false) => Reason::ClusterIPTaken,
        (false, true) => Reason::NodePortOutOfRange,
        (false, false) => Reason::NodePortTaken,
    };
    let ranges = if told.iter().any(|unmet| unmet.out_of_range) { Some(Blocker::Ranges) } else { None };
    Some((reason, told.iter().flat_map(|unmet| unmet.wishes.clone()).chain(ranges).collect()))
}
