//! Our slices of the host, and where each address stands. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::slice::{HostSlice, reduce};
use crate::newest::Newest;
use crate::services::HostName;

/// The slices of the host that are ours, and those that are in the way.
#[derive(Debug, Default)]
pub struct HostSlices {
    known: BTreeMap<HostName, HostSlice>,
    by_address: BTreeMap<IpAddr, BTreeSet<HostName>>,
    newest: Newest,
}

/// What an event changed.
pub type Change = (Option<HostSlice>, Option<HostSlice>);

impl HostSlices {
    /// Takes a slice from the watch. Gives `None` when nothing newer is said than what is known.
    pub fn seen(&mut self, slice: EndpointSlice) -> Option<Change> {
        let (at, slice) = (HostName::of(&slice.metadata), reduce(slice));
        let known = version(&self.known, &at);
        self.newest.seen(known, &slice.resource_version).then(|| self.replace(&at, Some(slice)))
    }

    /// Takes a slice that a read has just shown.
    pub fn read(&mut self, slice: EndpointSlice) -> Option<Change> {
        let (at, slice) = (HostName::of(&slice.metadata), reduce(slice));
        let known = version(&self.known, &at);
        Newest::read(known, &slice.resource_version).then(|| self.replace(&at, Some(slice)))
    }

    /// Takes a slice from the answer to a write of ours.
    pub fn answered(&mut self, slice: EndpointSlice) -> Option<Change> {
        let (at, slice) = (HostName::of(&slice.metadata), reduce(slice));
        let known = version(&self.known, &at);
        self.newest.answered(known, &slice.resource_version).then(|| self.replace(&at, Some(slice)))
    }

    /// Takes it that a slice is gone. `resource_version` is that of the event, or `None` for what a call has shown.
    pub fn gone(&mut self, at: &HostName, resource_version: Option<&str>) -> Option<Change> {
        let known = version(&self.known, at);
        self.newest.gone(known, resource_version).then(|| self.replace(at, None))
    }

    /// Names of all slices known.
    #[must_use]
    pub fn names(&self) -> Vec<HostName> {
        self.known.keys().cloned().collect()
    }

    /// The slice of that name.
    #[must_use]
    pub fn get(&self, at: &HostName) -> Option<&HostSlice> {
        self.known.get(at)
    }

    /// The slices of the Service at `at`.
    pub fn of<'a>(&'a self, at: &'a HostName) -> impl Iterator<Item = (&'a HostName, &'a HostSlice)> {
        let first = HostName { namespace: at.namespace.clone(), name: format!("{}-", at.name) };
        let (namespace, prefix) = (first.namespace.clone(), first.name.clone());
        let named = self
            .known
            .range(first..)
            .take_while(move |(name, _)| name.namespace == namespace && name.name.starts_with(&prefix));
        named.filter(move |(name, _)| super::slice::service_of(name).as_ref() == Some(at))
    }

    /// The slices in which an address stands.
    pub fn with(&self, ip: IpAddr) -> impl Iterator<Item = &HostName> {
        self.by_address.get(&ip).into_iter().flatten()
    }

    fn replace(&mut self, at: &HostName, slice: Option<HostSlice>) -> Change {
        let before = match slice.clone() {
            Some(slice) => self.known.insert(at.clone(), slice),
            None => self.known.remove(at),
        };
        for ip in before.iter().flat_map(|before| &before.addresses) {
            if let Some(names) = self.by_address.get_mut(ip) {
                names.remove(at);
                if names.is_empty() {
                    self.by_address.remove(ip);
                }
            }
        }
        for ip in slice.iter().flat_map(|slice| &slice.addresses) {
            self.by_address.entry(*ip).or_default().insert(at.clone());
        }
        (before, slice)
    }
}

fn version<'a>(known: &'a BTreeMap<HostName, HostSlice>, at: &HostName) -> Option<&'a str> {
    known.get(at).map(|known| known.resource_version.as_str())
}
