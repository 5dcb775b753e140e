//! Numbers for `/metrics`, as OpenMetrics text. Labels come from closed lists.

use k3k_expose_proto::message::ByeReason;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::problem::Problem;
use crate::refusal::{Number, Refusal};
use crate::registry::Census;

/// Content type of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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

/// The metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    sessions: Gauge,
    objects: Family<Label, Gauge>,
    queued: Gauge,
    two_writers: Gauge,
    opened: Counter,
    ended: Family<Label, Counter>,
    refused: Family<Label, Counter>,
    calls: Family<Labels, Counter>,
    notices: Family<Label, Counter>,
    reviews: Family<Label, Counter>,
    relabeled: Counter,
    uninjected: Gauge,
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("k3k_expose_host_api");
        registry.register("build", "Version of this build", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let metrics = Self {
            sessions: Gauge::default(),
            objects: Family::default(),
            queued: Gauge::default(),
            two_writers: Gauge::default(),
            opened: Counter::default(),
            ended: Family::default(),
            refused: Family::default(),
            calls: Family::default(),
            notices: Family::default(),
            reviews: Family::default(),
            relabeled: Counter::default(),
            uninjected: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("sessions", "Open sessions", metrics.sessions.clone());
        registry.register(
            "services",
            "Services and Ingresses of all tenants by the reason of their answer",
            metrics.objects.clone(),
        );
        registry.register(
            "queued",
            "Services and Ingresses that wait to be written or are being written",
            metrics.queued.clone(),
        );
        registry.register(
            "two_writers",
            "Tenants with a session for which k3k's own Service sync is on too",
            metrics.two_writers.clone(),
        );
        registry.register("sessions_opened", "Sessions opened", metrics.opened.clone());
        registry.register("sessions_ended", "Sessions ended by reason", metrics.ended.clone());
        registry.register("sessions_refused", "Sessions refused by reason", metrics.refused.clone());
        registry.register("calls", "Calls to the host's API server by verb and result", metrics.calls.clone());
        registry.register("notices", "Warnings given to the platform team by reason", metrics.notices.clone());
        registry.register(
            "pod_reviews",
            "Pods looked at on their creation by what became of them",
            metrics.reviews.clone(),
        );
        registry.register("pods_relabeled", "Pods whose labels were put right", metrics.relabeled.clone());
        registry.register(
            "uninjected_server_pods",
            "Server pods that run without the agent",
            metrics.uninjected.clone(),
        );
        Self { registry, ..metrics }
    }

    /// Counts a call, and what became of it.
    pub fn write(&self, verb: Verb, refusal: Option<Refusal>) {
        self.calls.get_or_create(&[("verb", verb.word()), ("result", refusal.map_or("ok", word))]).inc();
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
        self.objects.clear();
        for (reason, count) in &census.objects {
            let reason = reason.map_or("Unanswered", k3k_expose_proto::Reason::as_str);
            self.objects.get_or_create(&[("reason", reason)]).set(gauge(*count));
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
