//! Which numbers a twin gets: what the virtual object wishes, what the twin has, and what the host can give. Pure.
//!
//! Cluster IPs are one wish, all or none; every node port is one by port and protocol; the health-check node port is one.
//! A wish that cannot be had is taken out of the spec, and the twin keeps the number that it has or the host draws one.
//! A number is *pinned* when somebody in the virtual cluster asked for it, and *drawn* when its API server chose it.
//!
//! The trap: a number that another twin of the same tenant still holds is no conflict. Inside one virtual cluster numbers
//! are unique, so that twin is about to let go, and both sides would lose their common number for nothing.

pub mod history;

use std::net::IpAddr;
use std::num::NonZeroU16;

use k3k_expose_proto::message::Numbers;
use k3k_expose_proto::service::{ClusterIps, IpFamilyPolicy, Protocol};
use k3k_expose_proto::{Reason, Service};
use k8s_openapi::api::core::v1::ServiceSpec;

use crate::services::Blocker;
use crate::translate::HEADLESS;

pub use history::{History, Why};

/// The answers that come with the numbers that were found for an object.
pub const REASONS: [Reason; 5] = [
    Reason::Applied,
    Reason::ClusterIPTaken,
    Reason::ClusterIPOutOfRange,
    Reason::NodePortTaken,
    Reason::NodePortOutOfRange,
];

/// How a wished number stands on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Nobody else has it.
    Free,
    /// Another twin of the same tenant has it and is about to let go of it.
    Sibling,
    /// Somebody else has it.
    Taken,
    /// It lies outside the host's ranges.
    OutOfRange,
}

/// What is done about a cluster IP that the host cannot give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conflict {
    /// The twin gets another one, and the agent moves the virtual object to it.
    #[default]
    Renumber,
    /// There is no twin until the wished one can be had.
    Report,
}

/// All that counts besides the wishes themselves.
#[derive(Clone, Debug)]
pub struct Stance<'a> {
    /// What the twin of this key has now; empty without one.
    pub own: &'a Numbers,
    /// Version of the answer that first told numbers other than the wished ones.
    pub given: Option<u64>,
    /// Version of the answer that the agent knew when it read the object.
    pub seen: u64,
    /// What is done about cluster IPs.
    pub conflict: Conflict,
    /// The virtual cluster cannot give the object the twin's cluster IPs, and other ones were tried often enough.
    pub stuck_cluster_ips: bool,
    /// The same of the twin's node ports.
    pub stuck_node_ports: bool,
}

/// A wish that is not honored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// What was wished.
    pub wishes: Vec<Blocker>,
    /// Whether the tenant is told that it cannot be had. A drawn number is nobody's wish.
    pub told: bool,
    /// Whether it lies outside the host's ranges.
    pub out_of_range: bool,
}

/// What became of the wishes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Wishes that are not honored, the cluster IP first.
    pub unmet: Vec<Unmet>,
    /// Numbers that are about to be freed by other twins of the tenant: nothing is done until then.
    pub wait: Vec<Blocker>,
    /// There must be no new twin: its cluster IP cannot be had, and it may get no other.
    pub no_twin: bool,
}

/// What becomes of one wish.
enum Fate {
    Honored,
    Wait(Vec<Blocker>),
    Unmet(Unmet),
}

/// Takes the wishes that cannot be had out of `spec`, which is the translated `object`.
#[must_use]
pub fn resolve(
    spec: &mut ServiceSpec,
    object: &Service,
    stance: &Stance<'_>,
    hold: impl Fn(&Blocker) -> Hold,
) -> Resolved {
    let mut resolved = Resolved::default();
    let wishes: Vec<IpAddr> = cluster_ips(spec);
    let own = &stance.own.cluster_ips;
    if !wishes.is_empty() && !same_ips(&wishes, own, spec.ip_family_policy.as_deref() == Some("PreferDualStack")) {
        let report = stance.conflict == Conflict::Report;
        let given = stance.given.filter(|_| !own.is_empty() && !report && !stance.stuck_cluster_ips);
        let told = object.cluster_ip_pinned || stance.stuck_cluster_ips || report;
        let wishes = wishes.into_iter().map(Blocker::ClusterIp).collect();
        match fate(wishes, object.cluster_ip_pinned, told, given, stance.seen, &hold) {
            Fate::Honored => {}
            Fate::Wait(wait) => resolved.wait.extend(wait),
            Fate::Unmet(unmet) => {
                spec.cluster_ip = None;
                spec.cluster_ips = None;
                resolved.no_twin = report && own.is_empty();
                resolved.unmet.push(unmet);
            }
        }
    }
    for (port, asked) in spec.ports.iter_mut().flatten().zip(&object.ports) {
        let own = own_node_port(stance.own, asked.port, asked.protocol);
        let pinned = asked.node_port_pinned;
        one(&mut port.node_port, own, pinned, stance, &hold, &mut resolved);
    }
    let (own, pinned) = (stance.own.health_check_node_port, object.health_check_node_port_pinned);
    one(&mut spec.health_check_node_port, own, pinned, stance, &hold, &mut resolved);
    resolved
}

/// Whether a twin's numbers differ from the wishes of an object, and which of them nobody wished.
#[must_use]
pub fn compare(object: &Service, own: &Numbers) -> (bool, Vec<Blocker>) {
    let ClusterIps::Addresses(wishes) = &object.cluster_ips else {
        return compare_ports(object, own, false, Vec::new());
    };
    let preferred = object.ip_family_policy == Some(IpFamilyPolicy::PreferDualStack);
    let differs = !wishes.is_empty() && !own.cluster_ips.is_empty() && !same_ips(wishes, &own.cluster_ips, preferred);
    let unwished = own.cluster_ips.iter().filter(|ip| !wishes.contains(ip)).map(|ip| Blocker::ClusterIp(*ip));
    compare_ports(object, own, differs, unwished.collect())
}

fn compare_ports(
    object: &Service,
    own: &Numbers,
    mut differs: bool,
    mut unwished: Vec<Blocker>,
) -> (bool, Vec<Blocker>) {
    let ports = object.ports.iter().map(|port| (port.node_port, own_node_port(own, port.port, port.protocol)));
    for (wish, own) in ports.chain([(object.health_check_node_port, own.health_check_node_port)]) {
        differs |= wish.is_some() && own.is_some() && wish != own;
        unwished.extend(own.filter(|_| wish != own).map(|own| Blocker::NodePort(own.get())));
    }
    (differs, unwished)
}

/// The cluster IPs of a spec; none of a headless one.
#[must_use]
pub fn cluster_ips(spec: &ServiceSpec) -> Vec<IpAddr> {
    let ips = spec.cluster_ips.iter().flatten().filter(|ip| *ip != HEADLESS);
    ips.filter_map(|ip| ip.parse().ok()).collect()
}

/// One node port: its wish is taken out when it cannot be had.
fn one(
    wish: &mut Option<i32>,
    own: Option<NonZeroU16>,
    pinned: bool,
    stance: &Stance<'_>,
    hold: &impl Fn(&Blocker) -> Hold,
    resolved: &mut Resolved,
) {
    let Some(number) = wish.and_then(|wish| u16::try_from(wish).ok()) else {
        return;
    };
    if own.is_some_and(|own| own.get() == number) {
        return;
    }
    let given = stance.given.filter(|_| own.is_some() && !stance.stuck_node_ports);
    let told = pinned || stance.stuck_node_ports;
    match fate(vec![Blocker::NodePort(number)], pinned, told, given, stance.seen, hold) {
        Fate::Honored => {}
        Fate::Wait(wait) => resolved.wait.extend(wait),
        Fate::Unmet(unmet) => {
            *wish = None;
            resolved.unmet.push(unmet);
        }
    }
}

fn fate(
    wishes: Vec<Blocker>,
    pinned: bool,
    told: bool,
    given: Option<u64>,
    seen: u64,
    hold: &impl Fn(&Blocker) -> Hold,
) -> Fate {
    let holds: Vec<Hold> = wishes.iter().map(hold).collect();
    let out_of_range = holds.contains(&Hold::OutOfRange);
    let taken = out_of_range || holds.contains(&Hold::Taken);
    // The agent has been told other numbers and is bringing the virtual object to them.
    let outdated = given.is_some_and(|given| !pinned || seen < given);
    if taken || outdated {
        return Fate::Unmet(Unmet { wishes, told: told && taken, out_of_range });
    }
    let held = wishes.into_iter().zip(holds).filter(|(_, hold)| *hold == Hold::Sibling);
    let wait: Vec<Blocker> = held.map(|(wish, _)| wish).collect();
    if wait.is_empty() { Fate::Honored } else { Fate::Wait(wait) }
}

/// A host that expands a preferred dual stack, or lacks a family of it, has given what was asked.
fn same_ips(wishes: &[IpAddr], own: &[IpAddr], preferred: bool) -> bool {
    wishes == own || preferred && !own.is_empty() && wishes.first() == own.first()
}

fn own_node_port(own: &Numbers, port: NonZeroU16, protocol: Protocol) -> Option<NonZeroU16> {
    let own = own.node_ports.iter().find(|own| own.port == port && own.protocol == protocol);
    own.map(|own| own.node_port)
}

#[cfg(test)]
mod tests;
