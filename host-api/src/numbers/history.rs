//! What was told and tried about the numbers of one object, as long as it is the same object. Pure: time is passed in.

use std::time::Duration;

use k3k_expose_proto::message::{Numbers, Unusable};

use crate::services::Blocker;

/// So often the host tries another number when the virtual cluster cannot give the object the one that it has.
const OTHERS: usize = 3;
/// So many refusals in a row, with growing delays between them, are no race any more.
const REFUSALS: u32 = 5;

/// Why the host refused a number, though nothing is known of a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It said so again and again.
    Held,
    /// It lies outside its ranges.
    OutOfRange,
}

/// What was told and tried.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Version of the answer that first told numbers other than the wished ones.
    pub given: Option<u64>,
    /// Numbers of the twin that nobody wished, as of the last answer.
    pub unwished: Vec<Blocker>,
    refused: Vec<(Blocker, Why, Duration)>,
    let_go: Vec<Vec<Blocker>>,
    in_a_row: u32,
}

impl History {
    /// Whether, and why, the host has refused a number. With `for_good` also when that was long ago.
    #[must_use]
    pub fn refused(&self, number: &Blocker, for_good: bool, now: Duration) -> Option<Why> {
        let refused = self.refused.iter().find(|(of, _, until)| of == number && (for_good || now < *until));
        refused.map(|(_, why, _)| *why)
    }

    /// Notes that the host refuses numbers.
    pub fn refuse(&mut self, numbers: impl IntoIterator<Item = Blocker>, why: Why, until: Duration) {
        for number in numbers {
            self.refused.retain(|(of, _, _)| *of != number);
            self.refused.push((number, why, until));
        }
        self.in_a_row = 0;
    }

    /// Forgets what lay outside of ranges that have changed.
    pub fn ranges_changed(&mut self) {
        self.refused.retain(|(of, why, _)| !matches!((of, why), (Blocker::ClusterIp(_), Why::OutOfRange)));
    }

    /// Notes that the host called a number held whose holder is not known, and tells whether that is to be believed. The API
    /// server frees numbers a moment after their Service is gone, and two creates may race.
    pub fn held_by_nobody(&mut self) -> bool {
        self.in_a_row += 1;
        self.in_a_row >= REFUSALS
    }

    /// Notes that the host gave another answer, so that what comes next is not in a row.
    pub fn other_answer(&mut self) {
        self.in_a_row = 0;
    }

    /// Which of the twin's numbers of one kind it should let go of, because the virtual cluster cannot give them to the
    /// object; `None` when all can be had. Empty when others were tried often enough.
    #[must_use]
    pub fn misfits(&self, own: &[Blocker], unusable: &[Blocker]) -> Option<Vec<Blocker>> {
        let misfits: Vec<Blocker> = own.iter().filter(|number| unusable.contains(number)).cloned().collect();
        let kind = misfits.first().map(std::mem::discriminant)?;
        let rounds = self.let_go.iter().filter(|round| round.first().map(std::mem::discriminant) == Some(kind)).count();
        // A patch that lost a race is the same round once more.
        let again = self.let_go.contains(&misfits);
        Some(if again || rounds < OTHERS { misfits } else { Vec::new() })
    }

    /// Notes that the twin lets go of numbers.
    pub fn let_go(&mut self, numbers: Vec<Blocker>) {
        if !self.let_go.contains(&numbers) {
            self.let_go.push(numbers);
        }
    }
}

/// Cluster IPs of a twin.
#[must_use]
pub fn cluster_ips(own: &Numbers) -> Vec<Blocker> {
    own.cluster_ips.iter().map(|ip| Blocker::ClusterIp(*ip)).collect()
}

/// Node ports of a twin, the health-check node port among them.
#[must_use]
pub fn node_ports(own: &Numbers) -> Vec<Blocker> {
    let ports = own.node_ports.iter().map(|own| own.node_port).chain(own.health_check_node_port);
    ports.map(|port| Blocker::NodePort(port.get())).collect()
}

/// Numbers that a virtual cluster cannot give.
#[must_use]
pub fn unusable(unusable: &Unusable) -> Vec<Blocker> {
    let ports = unusable.node_ports.iter().map(|port| Blocker::NodePort(port.get()));
    unusable.cluster_ips.iter().map(|ip| Blocker::ClusterIp(*ip)).chain(ports).collect()
}
