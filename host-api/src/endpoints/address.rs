//! Which addresses may be endpoints: those of the tenant's own pods, and those that a policy names, but never one of the
//! cluster itself. Pure.
//!
//! The trap: an address is free for the next pod as soon as its own is gone, so nothing is believed of it from then on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k3k_expose_proto::{Reason, Uid};

use crate::policy::Refusal;
use crate::policy::grant::Grant;
use crate::ranges::Ranges;

/// Whose an address of the host's cluster is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    /// A pod that this Cluster controls.
    Pod(Uid),
    /// A node.
    Node,
    /// The API server.
    Server,
}

/// Where it is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// The watch on pods.
    Pods,
    /// The watch on nodes.
    Nodes,
    /// The watch on the endpoints of the API server.
    Servers,
}

/// The addresses of the host's cluster that matter.
#[derive(Debug, Default)]
pub struct Addresses {
    known: HashMap<(Source, String), (Holder, BTreeSet<IpAddr>)>,
    holders: HashMap<IpAddr, BTreeMap<Holder, usize>>,
    listed: BTreeSet<Source>,
}

impl Addresses {
    /// Takes in what one object has, or that it is gone. Gives the addresses of which something else is known now.
    pub fn set(&mut self, source: Source, name: &str, holds: Option<(Holder, BTreeSet<IpAddr>)>) -> BTreeSet<IpAddr> {
        let id = (source, name.to_owned());
        if self.known.get(&id) == holds.as_ref() {
            return BTreeSet::new();
        }
        let mut changed = BTreeSet::new();
        if let Some((holder, ips)) = self.known.remove(&id) {
            for ip in ips {
                if let Some(holders) = self.holders.get_mut(&ip) {
                    if let Some(count) = holders.get_mut(&holder) {
                        *count -= 1;
                    }
                    holders.retain(|_, count| *count > 0);
                    if holders.is_empty() {
                        self.holders.remove(&ip);
                    }
                }
                changed.insert(ip);
            }
        }
        if let Some((holder, ips)) = holds {
            for ip in &ips {
                *self.holders.entry(*ip).or_default().entry(holder.clone()).or_default() += 1;
            }
            changed.extend(&ips);
            self.known.insert(id, (holder, ips));
        }
        changed
    }

    /// All objects of a source are these. Gives what [`Self::set`] does.
    pub fn listed(&mut self, source: Source, names: &BTreeSet<String>) -> BTreeSet<IpAddr> {
        let gone: Vec<String> = self
            .known
            .keys()
            .filter(|(of, name)| *of == source && !names.contains(name))
            .map(|(_, name)| name.clone())
            .collect();
        self.listed.insert(source);
        gone.iter().flat_map(|name| self.set(source, name, None)).collect()
    }

    /// Whether every source was listed: before that nothing can be judged.
    #[must_use]
    pub fn are_known(&self) -> bool {
        self.listed.len() == 3
    }

    fn holds(&self, ip: IpAddr, holder: &Holder) -> bool {
        self.holders.get(&ip).is_some_and(|holders| holders.contains_key(holder))
    }

    /// Judges an address among the endpoints of a tenant.
    ///
    /// # Errors
    /// Why it may not cross.
    pub fn judge(&self, ip: IpAddr, tenant: &Uid, grant: &Grant, ranges: &Ranges) -> Result<(), Refusal> {
        let forbidden = kind(ip).or_else(|| {
            let kinds = [
                (self.holds(ip, &Holder::Node), "an address of a node"),
                (self.holds(ip, &Holder::Server), "an address of the API server"),
                (ranges.contain(ip), "an address for Services"),
            ];
            kinds.into_iter().find_map(|(is, word)| is.then_some(word))
        });
        if let Some(word) = forbidden {
            let message = format!("endpoint {ip} is {word}, which never crosses");
            return Err(Refusal::new(Reason::EndpointForbidden, message));
        }
        let refuse = |rule, message| Err(Refusal { reason: Reason::EndpointNotAdmitted, message, rule: Some(rule) });
        if let Some(policy) = grant.denies_address(ip) {
            return refuse(Grant::denied(policy, "addresses"), format!("endpoint {ip} is not admitted"));
        }
        if self.holds(ip, &Holder::Pod(tenant.clone())) || grant.endpoints.iter().any(|cidr| cidr.contains(ip)) {
            return Ok(());
        }
        let message = format!("endpoint {ip} is no pod of this cluster, and not an address that is admitted");
        refuse(grant.rule("endpoints"), message)
    }
}

/// What an address is that is none of a single machine elsewhere.
fn kind(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => kind_v4(ip),
        IpAddr::V6(ip) => kind_v6(ip),
    }
}

fn kind_v4(ip: Ipv4Addr) -> Option<&'static str> {
    let first = ip.octets()[0];
    let kinds = [
        (ip.is_unspecified(), "unspecified"),
        (ip.is_loopback(), "a loopback address"),
        (ip.is_link_local(), "a link-local address"),
        (ip.is_multicast(), "a multicast address"),
        // RFC 1122 and RFC 1112; the limited broadcast is among the latter.
        (first == 0 || first >= 240, "a reserved address"),
    ];
    kinds.into_iter().find_map(|(is, word)| is.then_some(word))
}

fn kind_v6(ip: Ipv6Addr) -> Option<&'static str> {
    let segments = ip.segments();
    let kinds = [
        (ip.is_unspecified(), "unspecified"),
        (ip.is_loopback(), "a loopback address"),
        (ip.is_unicast_link_local(), "a link-local address"),
        (ip.is_multicast(), "a multicast address"),
        // Mapped, compatible, translated (RFC 4291, RFC 6052): judged as one address they would be used as another.
        (segments[..5] == [0; 5] || segments[..2] == [0x64, 0xff9b], "an IPv4 address written as an IPv6 one"),
    ];
    kinds.into_iter().find_map(|(is, word)| is.then_some(word))
}

#[cfg(test)]
mod tests;
