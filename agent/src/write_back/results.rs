//! What follows from a write that was carried out, or refused: what to tell, what to try again and when, and which of the
//! host's numbers are of no use here. Pure.

use std::time::Duration;

use k3k_expose_proto::message::{Numbers, Unusable};
use k3k_expose_proto::{Reason, limits};

use super::decide::Step;
use super::standing::Standing;
use super::{Entry, Job, Outcomes, Refusal, SLOW, Trouble, WriteBack};
use crate::renumber::Ask;

/// First delay after a failed write; doubles with each failure.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Longest delay after a failed write.
const RETRY_MOST: Duration = Duration::from_secs(30);
/// Longest delay before a move that stands between its two updates goes on: the Service is out of service meanwhile.
pub(super) const ARRIVE_MOST: Duration = Duration::from_secs(3);
/// So many lost races in a row are looked at again at once.
const RACES: u32 = 8;
/// Most pinned numbers of a Service that are remembered as replaced.
const REPLACED: usize = 64;
/// A number that is held in the virtual cluster is tried again so often before the host is asked for another.
pub(super) const HELD_TRIES: u32 = 2;

impl WriteBack {
    /// Takes in that a write was carried out, with the Service as the API server answered it.
    pub(crate) fn written(&mut self, job: &Job, standing: Option<Standing>, now: Duration) -> Outcomes {
        self.busy.remove(&job.key);
        let mut outcomes = Outcomes::default();
        let entry = self.entries.get_mut(&job.key).filter(|entry| entry.standing.uid == job.uid);
        let Some(entry) = entry else {
            return outcomes;
        };
        entry.failures = 0;
        match &job.step {
            Step::Leave(_, event) | Step::NodePorts(_, event) => {
                add(&mut entry.replaced, job.replaces.clone(), REPLACED);
                entry.trouble = None;
                outcomes.events.push(event.clone());
            }
            Step::Arrive(_) => {
                entry.ask = Ask::TheHosts;
                entry.trouble = None;
            }
            Step::Status(status) => {
                outcomes.events.clone_from(&status.events);
                outcomes.reflected = entry.answered_at.take().map(|answered_at| now.saturating_sub(answered_at));
            }
            Step::Tell(event) => outcomes.events.push(event.clone()),
            Step::StripFinalizer => {}
        }
        if let Some(standing) = standing {
            self.answered_by_server(&job.key, standing);
        }
        self.dirty.insert(job.key.clone());
        outcomes
    }

    /// Takes in that a write was refused, or failed. `chance` from 0 to 1 draws the delay.
    pub(crate) fn refused(&mut self, job: &Job, refusal: Refusal, now: Duration, chance: f64) -> Outcomes {
        self.busy.remove(&job.key);
        let mut outcomes = Outcomes::default();
        let Some(entry) = self.entries.get_mut(&job.key).filter(|entry| entry.standing.uid == job.uid) else {
            return outcomes;
        };
        entry.failures = entry.failures.saturating_add(1);
        let longest = RETRY_FIRST.saturating_mul(1 << entry.failures.min(10));
        let soon = now + RETRY_FIRST / 2 + longest.min(RETRY_MOST).mul_f64(chance);
        match (&job.step, refusal) {
            // The watch tells what became of it.
            (_, Refusal::Gone) => return outcomes,
            (Step::Arrive(_), Refusal::Changed) => {}
            (Step::Arrive(Ask::TheHosts), refusal @ (Refusal::Held(_) | Refusal::OutOfRange)) => {
                let target = entry.held().map(|held| held.numbers.clone()).unwrap_or_default();
                outcomes.unusable = entry.give_up(&target, &refusal, now, soon);
                entry.ask = Ask::Any;
            }
            (Step::Arrive(_), refusal) => {
                entry.trouble = Some(Trouble { reason: Reason::Renumbering, message: refusal.message() });
                entry.spec_due = now + longest.min(ARRIVE_MOST).mul_f64(0.5 + chance / 2.0);
            }
            (Step::Leave(target, _), refusal @ (Refusal::Held(_) | Refusal::OutOfRange)) => {
                outcomes.unusable = entry.give_up(target, &refusal, now, soon);
            }
            (Step::NodePorts(ports, _), refusal @ (Refusal::Held(_) | Refusal::OutOfRange)) => {
                let target = Numbers { node_ports: ports.clone(), ..Numbers::default() };
                outcomes.unusable = entry.give_up(&target, &refusal, now, soon);
            }
            (Step::Leave(..) | Step::NodePorts(..), refusal @ Refusal::Denied) => {
                let own = entry.held().map(|held| held.numbers.cluster_ips.clone());
                let is_ip = matches!(&job.step, Step::Leave(target, _) if own.as_ref() != Some(&target.cluster_ips));
                let reason = if is_ip { Reason::ClusterIPTaken } else { Reason::NodePortTaken };
                entry.trouble = Some(Trouble { reason, message: refusal.message() });
                entry.spec_due = now + SLOW;
            }
            (Step::StripFinalizer, Refusal::Denied) => entry.spec_due = now + SLOW,
            (Step::Status(_) | Step::Tell(_), Refusal::Denied) => entry.status_due = now + SLOW,
            // The watch has told already what it is now.
            (Step::Status(_), Refusal::Changed)
                if entry.standing.revision > job.revision && entry.failures <= RACES => {}
            (Step::Status(_) | Step::Tell(_), _) => entry.status_due = soon,
            _ => entry.spec_due = soon,
        }
        self.dirty.insert(job.key.clone());
        outcomes
    }
}

impl Entry {
    /// Numbers of `target` cannot be had: tries again for a while, then gives them up. Gives all that are given up by now.
    fn give_up(&mut self, target: &Numbers, refusal: &Refusal, now: Duration, soon: Duration) -> Option<Unusable> {
        let named = match refusal {
            Refusal::Held(_) if self.failures <= HELD_TRIES && !self.standing.is_moving => {
                self.spec_due = soon;
                return None;
            }
            Refusal::Held(named) if !named.is_empty() => named.clone(),
            _ => {
                let own = self.held().map(|held| held.numbers.clone()).filter(|_| !self.standing.is_moving);
                differing(target, &own.unwrap_or_default())
            }
        };
        self.failures = 0;
        self.unusable_until = now + SLOW;
        add(&mut self.unusable.cluster_ips, named.cluster_ips, limits::UNUSABLE);
        add(&mut self.unusable.node_ports, named.node_ports, limits::UNUSABLE);
        Some(self.unusable.clone())
    }
}

/// Adds what is new, and forgets the oldest beyond `most`.
fn add<T: PartialEq>(list: &mut Vec<T>, more: Vec<T>, most: usize) {
    for one in more {
        if !list.contains(&one) {
            list.push(one);
        }
    }
    list.drain(..list.len().saturating_sub(most));
}

/// Numbers of `target` that are not among `own`.
fn differing(target: &Numbers, own: &Numbers) -> Unusable {
    let ports = |numbers: &Numbers| {
        let ports = numbers.node_ports.iter().map(|port| port.node_port);
        ports.chain(numbers.health_check_node_port).collect::<Vec<_>>()
    };
    let own_ports = ports(own);
    Unusable {
        cluster_ips: target.cluster_ips.iter().filter(|ip| !own.cluster_ips.contains(ip)).copied().collect(),
        node_ports: ports(target).into_iter().filter(|port| !own_ports.contains(port)).collect(),
    }
}
