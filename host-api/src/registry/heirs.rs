//! Who gets a host that somebody has let go of: whoever has waited longest for it, not whoever is fastest. Pure.
//!
//! As with ingress controllers, the oldest wins; but the time that counts is the one at which host-api first refused the host,
//! since an agent could make up any other. Who lost a twin to somebody on the host, and still asks for it, comes before all.
//! The heir has the host to itself for a moment only, so that one that does not answer keeps nobody waiting for long.

use std::time::Duration;

use k3k_expose_proto::{Key, Uid};

use super::Registry;
use crate::ingress::host::HostIngress;
use crate::ingress::store::Change;
use crate::services::{Blocker, HostName};

/// How long an heir has a host to itself.
const ALONE: Duration = Duration::from_secs(5);

impl Registry {
    /// Takes in which hosts an Ingress of the host has let go of, and which it has now.
    pub(super) fn bequeath(&mut self, at: &HostName, change: &Change, now: Duration) {
        let after = self.ingresses.get(at);
        let holder = after.and_then(|after| after.twin.as_ref()).map(|twin| &twin.marks.tenant);
        let hosts = after.map(|after| &after.hosts);
        self.heirs.retain(|host, (heir, _)| Some(&*heir) != holder || !hosts.is_some_and(|hosts| hosts.contains(host)));
        let loser = change.before.as_ref().filter(|_| after.is_none()).and_then(|before| self.loser(before));
        for host in &change.freed {
            let heir = loser.clone().or_else(|| self.longest_waiting(host));
            if let Some(heir) = heir.filter(|_| !self.ingresses.is_had(host)) {
                self.heirs.insert(host.clone(), (heir, now + ALONE));
                self.effects.work = true;
            }
            self.wake(&Blocker::Host(host.clone()));
        }
    }

    /// Whether a host is kept for another tenant.
    pub(super) fn is_kept_for_another(&self, tenant: &Uid, host: &str, now: Duration) -> bool {
        self.heirs.get(host).is_some_and(|(heir, until)| heir != tenant && now < *until)
    }

    /// Lets everybody at the hosts that their heirs did not take, and tells when the next ones are due.
    pub(super) fn disinherit(&mut self, now: Duration) -> Option<Duration> {
        let late = self.heirs.iter().filter(|(_, (_, until))| *until <= now).map(|(host, _)| host.clone());
        for host in late.collect::<Vec<_>>() {
            self.heirs.remove(&host);
            self.wake(&Blocker::Host(host));
        }
        self.heirs.values().map(|(_, until)| *until).min()
    }

    /// The tenant of an Ingress that is gone from the host though it is still wanted, just as it was.
    fn loser(&self, before: &HostIngress) -> Option<Uid> {
        let marks = &before.twin.as_ref()?.marks;
        let record = self.tenants.get(&marks.tenant)?.record(&marks.key)?;
        record.is_kept().then(|| marks.tenant.clone())
    }

    fn longest_waiting(&self, host: &str) -> Option<Uid> {
        let waiting = self.waiting.get(&Blocker::Host(host.to_owned()))?;
        let since = |(tenant, key): &(Uid, Key)| {
            let record = self.tenants.get(tenant)?.record(key)?;
            Some((record.waits_since?, tenant.clone()))
        };
        waiting.iter().filter_map(since).min().map(|(_, tenant)| tenant)
    }
}
