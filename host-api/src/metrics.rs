//! Numbers for `/metrics`, as OpenMetrics text. Labels come from closed lists.

use std::sync::atomic::Ordering;

use k3k_expose_proto::message::ByeReason;
use k3k_expose_proto::{Outcome, Reason};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry};

use crate::problem::Problem;
use crate::refusal::{Number, Refusal};
use crate::registry::Census;

type Label = [(&'static str, &'static str); 1];
type Labels = [(&'static str, &'static str); 2];

/// A call to the host's API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// A Service was to be made.
    Create,
    /// A Service was to be changed.
    Patch,
    /// A Service was to be deleted.
    Delete,
    /// A Service was looked at.
    Get,
    /// Pods were looked at.
    List,
}

/// A certificate whose end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Certificate {
    /// The one that agents and the API server see.
    Serving,
    /// The newest authority that vouches for it, where host-api keeps its own.
    Authority,
}

/// The metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    leader: Gauge,
    certificate_expiry: Family<Label, Gauge>,
    sessions: Gauge,
    opened: Counter,
    ended: Family<Label, Counter>,
    refused: Family<Label, Counter>,
    services: Family<Labels, Gauge>,
    queued: Gauge,
    writes: Family<Labels, Counter>,
    reads: Family<Labels, Counter>,
    rejections: Family<Label, Counter>,
    retries: Counter,
    repairs: Counter,
    two_writers: Gauge,
    notices: Family<Label, Counter>,
    reviews: Family<Label, Counter>,
    relabeled: Counter,
    uninjected: Gauge,
}

/// Every metric as a process gives it that has just started, as OpenMetrics.
///
/// # Errors
/// Only what writing into a string could give.
pub fn metrics() -> Result<String, std::fmt::Error> {
    let metrics = Metrics::new();
    metrics.certificate_expires(Certificate::Serving, 0);
    metrics.text(&Census::default())
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("k3k_expose_host_api");
        let build = add(&mut registry, "build_info", "Version of this build", Family::<Label, Gauge>::default());
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        let mut gauge = |name, help| add(&mut registry, name, help, Gauge::default());
        let leader = gauge("leader", "Whether this replica serves sessions and writes, as one of all replicas does");
        let sessions = gauge("sessions", "Open sessions");
        let queued = gauge("queued_services", "Services and Ingresses that wait to be written or are being written");
        let two_writers =
            gauge("two_writers", "Virtual clusters with a session for which k3k's own Service sync is on too");
        let uninjected = gauge("uninjected_server_pods", "Server pods that run without the agent");
        let mut counter = |name, help| add(&mut registry, name, help, Counter::default());
        let opened = counter("sessions_opened", "Sessions opened");
        let retries =
            counter("retries", "Services looked at again after a delay, since they could not be settled before");
        let repairs = counter("repairs", "Services put right after somebody else had changed or deleted them");
        let relabeled = counter("pods_relabeled", "Pods whose labels were put right");
        let mut family = |name, help| add(&mut registry, name, help, Family::<Label, Counter>::default());
        let ended = family("sessions_ended", "Sessions ended by reason");
        let refused = family("sessions_refused", "Sessions refused by reason");
        let rejections =
            family("rejections", "Services that became rejected, or rejected for another reason, by reason");
        let notices = family("notices", "Warnings given to the platform team by reason");
        let reviews = family("pod_reviews", "Pods looked at on their creation by what became of them");
        let mut calls = |name, help| add(&mut registry, name, help, Family::<Labels, Counter>::default());
        let writes = calls("writes", "Writes of Services on the host by verb and result");
        let reads = calls("reads", "Reads of the host before or after a write by verb and result");
        let services = add(
            &mut registry,
            "services",
            "Services and Ingresses of all virtual clusters by outcome and reason of their answer",
            Family::default(),
        );
        let certificate_expiry = add(
            &mut registry,
            "certificate_expiry_timestamp_seconds",
            "When a certificate expires: the one that agents and the API server see, and the authority that vouches for it",
            Family::default(),
        );
        // A counter that begins with its first increase hides that one from rate().
        for verb in [Verb::Create, Verb::Patch, Verb::Delete] {
            writes.get_or_create(&[("verb", verb.word()), ("result", "ok")]).inc_by(0);
        }
        for verb in [Verb::Get, Verb::List] {
            reads.get_or_create(&[("verb", verb.word()), ("result", "ok")]).inc_by(0);
        }
        for reason in Reason::ALL.iter().filter(|reason| reason.outcome() == Outcome::Rejected) {
            rejections.get_or_create(&[("reason", reason.as_str())]).inc_by(0);
        }
        ended.get_or_create(&[("reason", "closed")]).inc_by(0);
        refused.get_or_create(&[("reason", "NotAServerPod")]).inc_by(0);
        notices.get_or_create(&[("reason", "TwoWriters")]).inc_by(0);
        reviews.get_or_create(&[("result", "Injected")]).inc_by(0);
        Self {
            registry,
            leader,
            certificate_expiry,
            sessions,
            opened,
            ended,
            refused,
            services,
            queued,
            writes,
            reads,
            rejections,
            retries,
            repairs,
            two_writers,
            notices,
            reviews,
            relabeled,
            uninjected,
        }
    }

    /// Takes in whether this replica serves sessions and writes.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Takes in when a certificate expires, in seconds since 1970. Until then nothing is told of it.
    pub fn certificate_expires(&self, certificate: Certificate, at: i64) {
        self.certificate_expiry.get_or_create(&[("certificate", certificate.word())]).set(at);
    }

    /// Counts a call, and what became of it.
    pub fn called(&self, verb: Verb, refusal: Option<Refusal>) {
        let calls = match verb {
            Verb::Create | Verb::Patch | Verb::Delete => &self.writes,
            Verb::Get | Verb::List => &self.reads,
        };
        calls.get_or_create(&[("verb", verb.word()), ("result", refusal.map_or("ok", word))]).inc();
    }

    /// Counts an opened session.
    pub fn session_opened(&self) {
        self.opened.inc();
    }

    /// Counts an ended session.
    pub fn session_ended(&self, reason: Option<ByeReason>) {
        let reason = match reason {
            None => "closed",
            Some(ByeReason::Superseded) => "superseded",
            Some(ByeReason::Role) => "role",
            Some(ByeReason::Draining) => "draining",
            Some(ByeReason::Slow) => "slow",
            Some(ByeReason::Expired) => "expired",
            Some(ByeReason::Unsupported) => "unsupported",
            Some(ByeReason::Malformed) => "malformed",
            Some(ByeReason::Exceeded) => "exceeded",
            Some(ByeReason::Unknown) => "unknown",
        };
        self.ended.get_or_create(&[("reason", reason)]).inc();
    }

    /// Counts a refused session.
    pub fn refused(&self, problem: &Problem) {
        self.refused.get_or_create(&[("reason", problem.reason())]).inc();
    }

    /// Counts a warning to the platform team.
    pub fn noticed(&self, reason: &'static str) {
        self.notices.get_or_create(&[("reason", reason)]).inc();
    }

    /// Counts a pod that was looked at on its creation, by a word of a closed list.
    pub fn reviewed(&self, result: &'static str) {
        self.reviews.get_or_create(&[("result", result)]).inc();
    }

    /// Counts a pod whose labels were put right.
    pub fn relabeled(&self) {
        self.relabeled.inc();
    }

    /// Takes in how many server pods run without the agent.
    pub fn uninjected(&self, pods: usize) {
        self.uninjected.set(i64::try_from(pods).unwrap_or(i64::MAX));
    }

    /// The text, with the counts of this moment.
    ///
    /// # Errors
    /// When a metric cannot be written as text.
    pub fn text(&self, census: &Census) -> Result<String, std::fmt::Error> {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.sessions.set(gauge(census.sessions));
        self.queued.set(gauge(census.queued));
        self.two_writers.set(gauge(census.two_writers));
        self.retries.inner().store(census.totals.retries, Ordering::Relaxed);
        self.repairs.inner().store(census.totals.repairs, Ordering::Relaxed);
        for (reason, total) in &census.totals.rejections {
            let counter = self.rejections.get_or_create(&[("reason", reason.as_str())]);
            counter.inner().store(*total, Ordering::Relaxed);
        }
        for reason in std::iter::once(None).chain(Reason::ALL.iter().copied().map(Some)) {
            let outcome = match reason.map(Reason::outcome) {
                None => "unanswered",
                Some(Outcome::Applied) => "applied",
                Some(Outcome::Pending) => "pending",
                Some(Outcome::Rejected) => "rejected",
            };
            let count = census.objects.get(&reason).copied().unwrap_or_default();
            let labels = [("outcome", outcome), ("reason", reason.map_or("Unanswered", Reason::as_str))];
            self.services.get_or_create(&labels).set(gauge(count));
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn add<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

impl Verb {
    const fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::Get => "get",
            Self::List => "list",
        }
    }
}

impl Certificate {
    const fn word(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Authority => "authority",
        }
    }
}

const fn word(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Absent => "absent",
        Refusal::Conflict => "conflict",
        Refusal::Exists => "exists",
        Refusal::Held(Number::ClusterIp) => "cluster_ip_held",
        Refusal::Held(Number::NodePort(_)) => "node_port_held",
        Refusal::OutOfRange(Number::ClusterIp) => "cluster_ip_out_of_range",
        Refusal::OutOfRange(Number::NodePort(_)) => "node_port_out_of_range",
        Refusal::Family => "family",
        Refusal::Immutable => "immutable",
        Refusal::Quota => "quota",
        Refusal::Admission => "admission",
        Refusal::Denied => "denied",
        Refusal::Overloaded => "overloaded",
        Refusal::Unavailable => "unavailable",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::registry::Totals;

    #[test]
    fn the_text_tells_what_was_counted() {
        let metrics = Metrics::new();
        metrics.called(Verb::Create, None);
        metrics.called(Verb::Patch, Some(Refusal::Conflict));
        metrics.called(Verb::Get, Some(Refusal::Absent));
        metrics.leads(true);
        metrics.uninjected(2);
        let census = Census {
            sessions: 1,
            objects: BTreeMap::from([(None, 1), (Some(Reason::NameTaken), 2)]),
            totals: Totals { retries: 3, repairs: 4, rejections: BTreeMap::from([(Reason::NameTaken, 5)]) },
            ..Census::default()
        };
        let text = metrics.text(&census).unwrap();
        for line in [
            concat!("k3k_expose_host_api_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "k3k_expose_host_api_writes_total{verb=\"create\",result=\"ok\"} 1",
            "k3k_expose_host_api_writes_total{verb=\"patch\",result=\"conflict\"} 1",
            "k3k_expose_host_api_writes_total{verb=\"delete\",result=\"ok\"} 0",
            "k3k_expose_host_api_reads_total{verb=\"get\",result=\"absent\"} 1",
            "k3k_expose_host_api_leader 1",
            "k3k_expose_host_api_sessions 1",
            "k3k_expose_host_api_services{outcome=\"unanswered\",reason=\"Unanswered\"} 1",
            "k3k_expose_host_api_services{outcome=\"rejected\",reason=\"NameTaken\"} 2",
            "k3k_expose_host_api_services{outcome=\"applied\",reason=\"Applied\"} 0",
            "k3k_expose_host_api_rejections_total{reason=\"NameTaken\"} 5",
            "k3k_expose_host_api_retries_total 3",
            "k3k_expose_host_api_repairs_total 4",
            "k3k_expose_host_api_uninjected_server_pods 2",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
        let gone = metrics.text(&Census::default()).unwrap();
        assert!(
            gone.contains("reason=\"NameTaken\"} 0\n"),
            "a reason that nothing has any more is told as none: {gone}"
        );
    }

    #[test]
    fn no_certificate_expires_in_1970() {
        let metrics = Metrics::new();
        let series = "\nk3k_expose_host_api_certificate_expiry_timestamp_seconds{certificate=\"serving\"} ";
        assert!(!metrics.text(&Census::default()).unwrap().contains(series));
        metrics.certificate_expires(Certificate::Serving, 1_800_000_000);
        assert!(metrics.text(&Census::default()).unwrap().contains(&format!("{series}1800000000\n")));
    }
}
