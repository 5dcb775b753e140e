//! What is of hand-made endpoints alone: news of our slices and of the host's addresses, and what to do about them now. Pure.
//!
//! An address that loses its right is taken away at once by what stands, whether or not the agent says anything.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use k3k_expose_proto::endpoints::{Endpoints, LeftOut};
use k3k_expose_proto::service::Service;
use k3k_expose_proto::{Key, Reason, Uid};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::Registry;
use super::judge::{Task, Verdict};
use crate::endpoints::address::{Holder, Source};
use crate::endpoints::asked::{endpoints, is_of, too_many};
use crate::endpoints::plan::{SlicePlan, keep_only, plan};
use crate::endpoints::slice::{desired, service_of};
use crate::endpoints::store::Change;
use crate::ledger::{Ledger, Record};
use crate::policy::Refusal;
use crate::services::{Blocker, HostName};
use crate::translate::frame;
use crate::twin::{HostService, Twin};

impl Registry {
    /// A slice of the host as the watch shows it.
    pub fn slice_seen(&mut self, slice: EndpointSlice, now: Duration) {
        let at = HostName::of(&slice.metadata);
        if let Some(change) = self.slices.seen(slice) {
            self.slice_changed(&at, &change, now);
        }
    }

    /// A slice of the host as a read of this moment shows it.
    pub fn slice_read(&mut self, slice: EndpointSlice, now: Duration) {
        let at = HostName::of(&slice.metadata);
        if let Some(change) = self.slices.read(slice) {
            self.slice_changed(&at, &change, now);
        }
    }

    /// A slice of the host as the answer to a write shows it.
    pub fn slice_answered(&mut self, slice: EndpointSlice, now: Duration) {
        let at = HostName::of(&slice.metadata);
        if let Some(change) = self.slices.answered(slice) {
            self.slice_changed(&at, &change, now);
        }
    }

    /// A slice of the host is gone.
    pub fn slice_gone(&mut self, at: &HostName, resource_version: Option<&str>, now: Duration) {
        if let Some(change) = self.slices.gone(at, resource_version) {
            self.slice_changed(at, &change, now);
        }
    }

    /// All slices of the host that are ours are these.
    pub fn slices_listed(&mut self, listed: &BTreeSet<HostName>, now: Duration) {
        for at in self.slices.names().into_iter().filter(|at| !listed.contains(at)) {
            self.slice_gone(&at, None, now);
        }
    }

    /// What addresses an object of the host has, or that it is gone.
    pub fn holder_seen(&mut self, source: Source, name: &str, holds: Option<(Holder, BTreeSet<IpAddr>)>) {
        let changed = self.addresses.set(source, name, holds);
        self.addresses_changed(&changed);
    }

    /// All objects of that source are these.
    pub fn holders_listed(&mut self, source: Source, listed: &BTreeSet<String>) {
        let was_known = self.addresses.are_known();
        let changed = self.addresses.listed(source, listed);
        self.addresses_changed(&changed);
        if !was_known && self.addresses.are_known() {
            self.endpoints_anew();
        }
    }

    /// Judges all endpoints again.
    pub(super) fn endpoints_anew(&mut self) {
        let waiting =
            self.waiting.keys().filter(|blocker| matches!(blocker, Blocker::Endpoint(_) | Blocker::Addresses));
        for blocker in waiting.cloned().collect::<Vec<_>>() {
            self.wake(&blocker);
        }
        let services: BTreeSet<HostName> = self.slices.names().iter().filter_map(service_of).collect();
        services.iter().for_each(|at| self.enforce_at(at));
    }

    fn addresses_changed(&mut self, changed: &BTreeSet<IpAddr>) {
        if !self.addresses.are_known() {
            return;
        }
        for ip in changed {
            self.wake(&Blocker::Endpoint(*ip));
            let services: BTreeSet<HostName> = self.slices.with(*ip).filter_map(service_of).collect();
            services.iter().for_each(|at| self.enforce_at(at));
        }
    }

    fn enforce_at(&mut self, at: &HostName) {
        let marks = self.services.get(at).and_then(HostService::twin).map(|twin| twin.marks.clone());
        if let Some(marks) = marks {
            self.enforce_on(&marks.tenant, &marks.key);
        }
    }

    fn slice_changed(&mut self, at: &HostName, (before, after): &Change, now: Duration) {
        if after.is_none() {
            self.wake(&Blocker::Slice(at.clone()));
        }
        self.want_addresses();
        let same = before.as_ref().zip(after.as_ref()).is_some_and(|(before, after)| before.same_as(after));
        let twin = service_of(at).and_then(|at| self.services.get(&at).and_then(HostService::twin));
        let Some(marks) = twin.filter(|twin| !same && !twin.terminating).map(|twin| twin.marks.clone()) else {
            return;
        };
        let (tenant, key) = (&marks.tenant, &marks.key);
        let record = self.tenants.get(tenant).and_then(|ledger| ledger.record(key));
        match record {
            // While the object is at hand the writer works on it and will see what stands by itself.
            Some(record) if record.object.is_some() => {}
            Some(record) if before.is_some() && !record.stale && record.answer.is_some() => {
                self.undone(tenant, key, now)
            }
            Some(_) => self.need(tenant, key),
            None => {}
        }
        self.enforce_on(tenant, key);
    }

    /// From the first endpoints on, whose an address is has to be known.
    fn want_addresses(&mut self) {
        self.effects.addresses |= !std::mem::replace(&mut self.addresses_wanted, true);
    }

    /// Sees to it that it is known whose addresses are when an object has endpoints.
    pub(super) fn want_addresses_for(&mut self, tenant: &Uid, key: &Key) {
        let record = self.tenants.get(tenant).and_then(|ledger| ledger.record(key));
        let object = record.and_then(|record| record.object.as_ref());
        if let Some(k3k_expose_proto::message::Object::Service(service)) = object
            && !endpoints(service).is_empty()
        {
            self.want_addresses();
        }
    }

    /// Whether the addresses of endpoints can be judged.
    fn can_judge_addresses(&self) -> bool {
        self.addresses.are_known() && self.ranges.are_known()
    }

    fn may_be_endpoint(&self, tenant: &Uid, ip: IpAddr) -> Result<(), Refusal> {
        self.addresses.judge(ip, tenant, self.grant(tenant), &self.ranges)
    }

    /// What a twin that is right otherwise waits for because of its endpoints.
    ///
    /// # Errors
    /// What is to be done or answered first.
    pub(super) fn judge_endpoints(
        &self,
        ledger: &Ledger,
        key: &Key,
        record: &Record,
        object: &Service,
        twin: Option<&Twin>,
    ) -> Result<Vec<Blocker>, Box<Verdict>> {
        let Some(twin) = twin else {
            return Ok(Vec::new());
        };
        let (tenant, at) = (ledger.tenant.id(), Self::place(ledger, key));
        let asked = endpoints(object);
        if !asked.is_empty() && !self.can_judge_addresses() {
            return Err(Box::new(Verdict::Answer(Reason::HostUnavailable, vec![Blocker::Addresses])));
        }
        let mut refused = too_many(object).then(|| no(Reason::TooManyEndpoints));
        let (mut wanted, mut needs) = (Vec::new(), Vec::new());
        let frame = frame(&ledger.tenant, &ledger.virtual_cluster, key, &record.uid, &Default::default(), ());
        // Who says more than may be said is not served in part: an agent of ours never does.
        for set in asked.iter().filter(|_| refused.is_none()).collect::<Vec<_>>() {
            let mut admitted = Vec::new();
            for ip in &set.addresses {
                needs.push(Blocker::Endpoint(*ip));
                let judged = if is_of(set.family, *ip) {
                    self.may_be_endpoint(tenant, *ip)
                } else {
                    Err(no(Reason::EndpointForbidden))
                };
                match judged {
                    Ok(()) => admitted.push(*ip),
                    Err(refusal) => {
                        refused.get_or_insert(refusal);
                    }
                }
            }
            if !admitted.is_empty() {
                let endpoints = Endpoints { addresses: admitted, ..set.clone() };
                wanted.push(desired(&frame, &at, &twin.uid, &endpoints));
            }
        }
        let first = match plan(&at, &wanted, &self.slices) {
            SlicePlan::Wait(slice) => Some(Verdict::Answer(Reason::TwinTerminating, vec![Blocker::Slice(slice)])),
            SlicePlan::NameTaken(slice) => Some(Verdict::Answer(Reason::NameTaken, vec![Blocker::Slice(slice)])),
            plan => task(plan).map(Verdict::Do),
        };
        if let Some(first) = first {
            return Err(Box::new(first));
        }
        let left_out = object.endpoints_left_out.filter(|_| object.is_bare()).map(|left_out| match left_out {
            LeftOut::Names => no(Reason::EndpointNameNotExposed),
            LeftOut::TooMany => no(Reason::TooManyEndpoints),
        });
        match refused.or(left_out) {
            Some(refusal) => Err(Box::new(Verdict::Deny(refusal, needs))),
            None => Ok(needs),
        }
    }

    /// The next write to slices of a twin whose addresses have lost their right.
    pub(super) fn judge_standing_slices(&self, tenant: &Uid, at: &HostName) -> Option<Task> {
        if !self.can_judge_addresses() {
            return None;
        }
        let ours = self.slices.of(at).filter(|(_, slice)| slice.ours && !slice.terminating);
        ours.into_iter().find_map(|(name, slice)| {
            let fit: Vec<IpAddr> =
                slice.addresses.iter().copied().filter(|ip| self.may_be_endpoint(tenant, *ip).is_ok()).collect();
            (fit.len() < slice.addresses.len()).then(|| task(keep_only(name, slice, &fit)))?
        })
    }

    /// Forgets a slice that is somebody else's, so that it is looked for again.
    pub(super) fn forget_slice(&mut self, at: &HostName) {
        self.slices.gone(at, None);
    }
}

fn no(reason: Reason) -> Refusal {
    Refusal::new(reason, super::words::message(k3k_expose_proto::Resource::Services, reason, &[]))
}

fn task(plan: SlicePlan) -> Option<Task> {
    match plan {
        SlicePlan::Create(at, slice) => Some(Task::CreateSlice(at, slice)),
        SlicePlan::Patch(at, patch) => Some(Task::PatchSlice(at, patch)),
        SlicePlan::Delete(at, uid, resource_version) => Some(Task::DeleteSlice { at, uid, resource_version }),
        SlicePlan::Nothing | SlicePlan::Wait(_) | SlicePlan::NameTaken(_) => None,
    }
}
