//! News of what else on the host limits twins, or goes wrong with them: quotas, ranges, addresses that are held without a
//! Service, and warnings about load balancers. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use k3k_expose_proto::{Key, Resource, Uid};
use k8s_openapi::api::core::v1::ResourceQuota;

use super::Registry;
use crate::ledger::Shown;
use crate::numbers::History;
use crate::quota::{self, QuotaName};
use crate::services::{Blocker, HostName};
use crate::trouble;
use crate::twin::{HostService, Twin};

impl Registry {
    /// A quota of the host as the watch shows it.
    pub fn quota_seen(&mut self, quota: &ResourceQuota) {
        if self.quotas.seen(quota) {
            self.wake(&Blocker::Quota(quota::name(quota).0));
        }
    }

    /// A quota of the host is gone.
    pub fn quota_gone(&mut self, name: &QuotaName) {
        if self.quotas.gone(name) {
            self.wake(&Blocker::Quota(name.0.clone()));
        }
    }

    /// All quotas of the host are these. What changed while nobody watched may have freed anything.
    pub fn quotas_listed(&mut self, listed: &BTreeSet<QuotaName>) {
        for name in self.quotas.names().into_iter().filter(|name| !listed.contains(name)) {
            self.quotas.gone(&name);
        }
        let waiting: Vec<Blocker> =
            self.waiting.keys().filter(|blocker| matches!(blocker, Blocker::Quota(_))).cloned().collect();
        waiting.iter().for_each(|blocker| self.wake(blocker));
    }

    /// The host's ranges by the object that names them; `None` for one that is gone.
    pub fn range_seen(&mut self, name: &str, cidrs: Option<&[String]>) {
        if !self.ranges.set(name, cidrs) {
            return;
        }
        for ledger in self.tenants.values_mut() {
            ledger.histories().for_each(History::ranges_changed);
        }
        self.wake(&Blocker::Ranges);
        self.endpoints_anew();
    }

    /// All objects that name ranges are these.
    pub fn ranges_listed(&mut self, listed: &BTreeSet<String>) {
        for name in self.ranges.names().into_iter().filter(|name| !listed.contains(name)) {
            self.range_seen(&name, None);
        }
    }

    /// An address is held without a Service.
    pub fn address_seen(&mut self, ip: IpAddr) {
        self.services.reserve(ip, true);
    }

    /// An address is not held without a Service any more.
    pub fn address_gone(&mut self, ip: IpAddr) {
        if self.services.reserve(ip, false) {
            self.wake(&Blocker::ClusterIp(ip));
        }
    }

    /// All addresses that are held without a Service are these.
    pub fn addresses_listed(&mut self, listed: &BTreeSet<IpAddr>) {
        for ip in self.services.reserved().into_iter().filter(|ip| !listed.contains(ip)) {
            self.address_gone(ip);
        }
    }

    /// A warning about a Service of the host. Nothing is kept of those that are no twin's of type LoadBalancer.
    pub fn warned(&mut self, at: &HostName, uid: &str, reason: &str, event: &str, now: Duration) {
        let balancer = |twin: &Twin| twin.uid == uid && twin.is_balancer() && twin.ingress.is_empty();
        let twin = self.services.get(at).and_then(HostService::twin);
        let Some(word) = trouble::word(reason).filter(|_| twin.is_some_and(balancer)) else {
            return;
        };
        self.troubles.warned(at, word, event);
        self.trouble_changed(now);
    }

    /// A warning about a Service of the host is gone.
    pub fn warning_gone(&mut self, at: &HostName, event: &str, now: Duration) {
        self.troubles.event_gone(at, event);
        self.trouble_changed(now);
    }

    /// Whatever was wrong is over when the load balancer has an address, and with its twin.
    pub(super) fn follow_trouble(&mut self, at: &HostName, twin: Option<&Twin>, now: Duration) {
        match twin {
            Some(twin) if twin.is_balancer() && twin.ingress.is_empty() => return,
            Some(twin) if twin.is_balancer() => self.troubles.over(at),
            _ => self.troubles.forget(at),
        }
        self.trouble_changed(now);
    }

    /// Tells what can be told at once, and sees to it that the writer comes back for the rest.
    fn trouble_changed(&mut self, now: Duration) {
        self.tell_troubles(now);
        self.effects.work |= self.troubles.next().is_some();
    }

    /// Tells what is due to be told of load balancers.
    pub(super) fn tell_troubles(&mut self, now: Duration) {
        for at in self.troubles.due(now) {
            let marks = self.services.get(&at).and_then(HostService::twin).map(|twin| twin.marks.clone());
            if let Some(marks) = marks {
                self.refresh(&marks.tenant, &marks.key);
            }
        }
    }

    /// The twin of an object, if it stands.
    pub(super) fn standing(&self, tenant: &Uid, key: &Key) -> Option<&Twin> {
        let at = Self::place(self.tenants.get(tenant)?, key);
        self.services.get(&at)?.twin().filter(|twin| twin.marks.is_of(tenant, key))
    }

    /// What the tenant may see of it.
    pub(super) fn shown(&self, tenant: &Uid, key: &Key) -> Option<Shown> {
        match key.resource() {
            Resource::Services => {}
            Resource::Secrets => return None,
            Resource::Ingresses => return self.shown_ingress(tenant, key),
        }
        let twin = self.standing(tenant, key)?;
        let trouble = self.troubles.condition(&Self::place(self.tenants.get(tenant)?, key));
        Some(Shown {
            numbers: twin.numbers(),
            load_balancer: twin.ingress.clone(),
            conditions: twin.conditions.iter().cloned().chain(trouble).collect(),
        })
    }
}
