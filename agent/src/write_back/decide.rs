//! From what stands in the virtual cluster and what the host said to the next write. Pure, and level-based: whoever carries
//! out a step asks again with what stands then, until there is nothing left to do.
//!
//! Order: what the agent or k3k left half done, then numbers, then the status, so that `True` is never said of a Service
//! whose numbers differ on the two sides.

use std::time::Duration;

use k3k_expose_proto::message::{Condition, Ingress, NodePort, Numbers};
use k3k_expose_proto::{Outcome, Reason};

use super::standing::{Held, Number, Standing, Synced, Wish, filled};
use super::words::{self, Event};
use super::{Answered, Entry, SYNCED, Trouble};
use crate::renumber::Ask;

/// A pending answer is told after this long: most of them are over sooner.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// The next write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Take k3k's finalizer off: its own sync is off, so nobody else will.
    StripFinalizer,
    /// The second update of a move.
    Arrive(Ask),
    /// The first update of a move to these numbers.
    Leave(Numbers, Event),
    /// Other node ports, in place.
    NodePorts(Vec<NodePort>, Event),
    /// The status, as far as it differs.
    Status(Box<Status>),
    /// Only this Event.
    Tell(Event),
}

impl Step {
    /// The step as a word of a closed list, for metrics and logs.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::StripFinalizer => "strip_finalizer",
            Self::Arrive(_) => "arrive",
            Self::Leave(..) => "leave",
            Self::NodePorts(..) => "node_ports",
            Self::Status(_) => "status",
            Self::Tell(_) => "event",
        }
    }
}

/// What of a status is to be written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Status {
    /// `loadBalancer.ingress`, if it differs.
    pub(crate) ingress: Option<Vec<Ingress>>,
    /// Conditions of the host that are new or differ.
    pub(crate) set: Vec<Condition>,
    /// Types of those that are no more.
    pub(crate) gone: Vec<String>,
    /// Our own condition, if it differs, and whether its status turns.
    pub(crate) synced: Option<(Synced, bool)>,
    /// What is told about it.
    pub(crate) events: Vec<Event>,
}

/// What to do about a Service now.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decision {
    Do(Step),
    /// Nothing before that time.
    Wait(Duration),
    /// Nothing: all is in place.
    InPlace,
    /// Nothing for now: too little is known, or a delay runs.
    Idle,
}

pub(super) fn decide(entry: &Entry, k3k_syncs: bool, may_reflect: bool, now: Duration) -> Decision {
    let standing = &entry.standing;
    let is_due = now >= entry.spec_due;
    if standing.has_k3k_finalizer && !k3k_syncs && is_due {
        return Decision::Do(Step::StripFinalizer);
    }
    if standing.is_leaving {
        return Decision::Idle;
    }
    if standing.is_moving && is_due {
        return Decision::Do(Step::Arrive(entry.ask));
    }
    if !may_reflect {
        return Decision::Idle;
    }
    let wanted = match (&standing.wish, &entry.answer, &entry.trouble) {
        (Wish::Nothing, ..) => return Decision::Idle,
        (Wish::Refused(why), ..) => Wanted::refused(why),
        (Wish::Wanted(hash, held), Some(answer), trouble) if answer.hash == *hash && !standing.is_moving => {
            match (numbers(entry, held, answer), trouble) {
                (Some(step), _) if is_due => return Decision::Do(step),
                (Some(_), None) => return Decision::Idle,
                (_, Some(trouble)) => Wanted::troubled(answer, trouble),
                (None, None) if awaits_others(entry, held, answer) => return Decision::Idle,
                (None, None) => Wanted::answered(answer),
            }
        }
        (Wish::Wanted(..), Some(answer), Some(trouble)) => Wanted::troubled(answer, trouble),
        (Wish::Wanted(..), None, Some(trouble)) => Wanted::troubled_alone(trouble),
        (Wish::Wanted(..), _, None) => return Decision::Idle,
    };
    if wanted.is_pending && now < entry.pending_since + GRACE {
        return Decision::Wait(entry.pending_since + GRACE);
    }
    let status = wanted.compare(standing);
    if status.is_empty() {
        return Decision::InPlace;
    }
    if now < entry.status_due { Decision::Idle } else { Decision::Do(Step::Status(Box::new(status))) }
}

/// The write that brings the virtual Service to the host's numbers, if they differ where we may write.
fn numbers(entry: &Entry, held: &Held, answer: &Answered) -> Option<Step> {
    let given = answer.numbers.as_ref()?;
    let may = |number: Number| !entry.replaced.contains(&number);
    let usable = |port: NodePort| !entry.unusable.node_ports.contains(&port.node_port);
    let mut changes = Vec::new();
    let mut ports = Vec::new();
    for &own in &held.numbers.node_ports {
        let theirs = given.node_ports.iter().find(|other| (other.port, other.protocol) == (own.port, own.protocol));
        let target = theirs.copied().filter(|&theirs| theirs != own && usable(theirs) && may(Number::NodePort(own)));
        changes.extend(target.map(|target| (own, target)));
        ports.push(target.unwrap_or(own));
    }
    let move_ips = !agree(held, given)
        && !given.cluster_ips.iter().any(|ip| entry.unusable.cluster_ips.contains(ip))
        && held.numbers.cluster_ips.iter().all(|&ip| may(Number::ClusterIp(ip)));
    let health = |numbers: &Numbers| numbers.health_check_node_port;
    let move_health = match (health(&held.numbers), health(given)) {
        (Some(own), Some(theirs)) => {
            own != theirs && !entry.unusable.node_ports.contains(&theirs) && may(Number::HealthCheck(own))
        }
        _ => false,
    };
    let mut told: Vec<String> = changes.iter().map(|(own, target)| words::node_port(*own, *target)).collect();
    if move_ips || move_health {
        let source = |moves: bool| if moves { given } else { &held.numbers };
        let numbers = Numbers {
            cluster_ips: source(move_ips).cluster_ips.clone(),
            node_ports: ports,
            health_check_node_port: source(move_health).health_check_node_port,
        };
        told.extend(move_ips.then(|| words::cluster_ip(&held.numbers.cluster_ips, &given.cluster_ips)));
        told.extend(move_health.then(|| words::health_check(&held.numbers, given)));
        return Some(Step::Leave(numbers, Event::renumbered(&told)));
    }
    let targets: Vec<NodePort> = changes.into_iter().map(|(_, target)| target).collect();
    (!targets.is_empty()).then(|| Step::NodePorts(targets, Event::renumbered(&told)))
}

/// Whether numbers differ that the host is to replace, since they are of no use here.
fn awaits_others(entry: &Entry, held: &Held, answer: &Answered) -> bool {
    let Some(given) = answer.numbers.as_ref().filter(|_| answer.outcome == Outcome::Applied) else {
        return false;
    };
    let ports_differ = held.numbers.node_ports.iter().any(|own| {
        given.node_ports.iter().any(|other| (other.port, other.protocol) == (own.port, own.protocol) && other != own)
    });
    let health = |numbers: &Numbers| numbers.health_check_node_port;
    let health_differs = health(given).is_some() && health(&held.numbers).is_some_and(|own| Some(own) != health(given));
    !entry.unusable.is_empty() && (ports_differ || health_differs || !agree(held, given))
}

/// Whether the cluster IPs are the same. A family that only one side has is nobody's mistake.
fn agree(held: &Held, given: &Numbers) -> bool {
    held.numbers.cluster_ips.iter().zip(&given.cluster_ips).all(|(own, theirs)| own == theirs)
}

/// The status that a Service should have.
struct Wanted {
    ingress: Option<Vec<Ingress>>,
    conditions: Option<Vec<Condition>>,
    synced: Synced,
    is_pending: bool,
}

impl Wanted {
    fn answered(answer: &Answered) -> Self {
        Self {
            ingress: Some(answer.ingress.iter().cloned().map(filled).collect()),
            conditions: Some(answer.conditions.clone()),
            synced: synced(answer.reason, &answer.message),
            is_pending: answer.outcome == Outcome::Pending,
        }
    }

    fn troubled(answer: &Answered, trouble: &Trouble) -> Self {
        Self { synced: synced(trouble.reason, trouble.message), is_pending: false, ..Self::answered(answer) }
    }

    /// What the host says is not known yet, so only our own condition is.
    fn troubled_alone(trouble: &Trouble) -> Self {
        let synced = synced(trouble.reason, trouble.message);
        Self { ingress: None, conditions: None, synced, is_pending: false }
    }

    fn refused(why: &str) -> Self {
        let synced = synced(Reason::NotCarried, why);
        Self { ingress: Some(Vec::new()), conditions: Some(Vec::new()), synced, is_pending: false }
    }

    fn compare(self, standing: &Standing) -> Status {
        let ingress = self.ingress.map(|ingress| if standing.is_balancer { ingress } else { Vec::new() });
        let ingress = ingress.filter(|ingress| standing.ingress.as_ref() != Some(ingress));
        let ingress = if is_others(standing, &self.synced) { None } else { ingress };
        let known = |condition_type: &str| {
            standing.conditions.iter().find(|condition| condition.condition_type == condition_type)
        };
        let conditions = self.conditions.unwrap_or_else(|| standing.conditions.clone());
        let conditions: Vec<Condition> = conditions.into_iter().filter_map(presentable).collect();
        let gone = standing.conditions.iter().map(|condition| &condition.condition_type);
        let gone = gone.filter(|known| conditions.iter().all(|condition| condition.condition_type != **known));
        let gone = gone.cloned().collect();
        let set: Vec<Condition> =
            conditions.into_iter().filter(|condition| known(&condition.condition_type) != Some(condition)).collect();
        let turns = standing.synced.as_ref().is_none_or(|known| known.status != self.synced.status);
        let is_new = standing.synced.as_ref() != Some(&self.synced);
        let is_rejected = self.synced.status == "False" && !self.is_pending && self.synced.reason != words::RENUMBERING;
        let mut events: Vec<Event> = set.iter().filter_map(Event::of_condition).collect();
        events.extend((is_new && is_rejected).then(|| Event::refused(&self.synced)));
        Status { ingress, set, gone, synced: is_new.then_some((self.synced, turns)), events }
    }
}

/// Whether the addresses of an Ingress are for a controller in the virtual cluster to write: the host does not serve it, and did
/// not when we wrote last. Two that write one status never come to rest.
fn is_others(standing: &Standing, wanted: &Synced) -> bool {
    let is_unserved = [Reason::ClassNotAdmitted, Reason::NotCarried].iter().any(|no| no.as_str() == wanted.reason);
    let was_served = standing.synced.as_ref().is_some_and(|known| known.status == "True");
    standing.is_ingress && is_unserved && !was_served
}

impl Status {
    fn is_empty(&self) -> bool {
        self.ingress.is_none() && !self.has_conditions()
    }

    /// Whether conditions are to be written.
    pub(crate) const fn has_conditions(&self) -> bool {
        !self.set.is_empty() || !self.gone.is_empty() || self.synced.is_some()
    }
}

fn synced(reason: Reason, message: &str) -> Synced {
    let status = if reason.outcome() == Outcome::Applied { "True" } else { "False" };
    Synced { status: status.to_owned(), reason: reason.as_str().to_owned(), message: message.to_owned() }
}

/// A condition as the API server takes it, unless it is our own or none at all.
fn presentable(mut condition: Condition) -> Option<Condition> {
    if condition.reason.is_empty() {
        "Reported".clone_into(&mut condition.reason);
    }
    let is_status = matches!(condition.status.as_str(), "True" | "False" | "Unknown");
    (is_status && condition.condition_type != SYNCED && !condition.condition_type.is_empty()).then_some(condition)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::networking::v1;
    use serde_json::json;

    use super::*;
    use crate::write_back::SYNCED_ANNOTATION;

    fn unserved(annotation: &str) -> Status {
        let ingress: v1::Ingress = serde_json::from_value(json!({
            "metadata": {"uid": "u", "resourceVersion": "7", "annotations": {SYNCED_ANNOTATION: annotation}},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
        }))
        .unwrap();
        let standing = Standing::of_ingress(&ingress, Wish::Nothing).unwrap();
        let synced = synced(Reason::ClassNotAdmitted, "");
        Wanted { ingress: Some(Vec::new()), conditions: None, synced, is_pending: false }.compare(&standing)
    }

    #[test]
    fn addresses_of_an_ingress_that_the_host_does_not_serve_are_its_own_controllers() {
        assert!(unserved("False/ClassNotAdmitted").is_empty());
        assert_eq!(unserved("").ingress, None);
        assert_eq!(unserved("True/Applied").ingress, Some(Vec::new()), "they were the host's");
    }
}
