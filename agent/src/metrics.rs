//! Numbers for `/metrics`, as OpenMetrics text. Labels come from closed lists.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use k3k_expose_proto::message::Role;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use crate::outbox::Counts;

type Label = [(&'static str, &'static str); 1];
type Labels = [(&'static str, &'static str); 2];

/// Bounds of latencies in seconds: a write takes some milliseconds, an outage a minute or more.
const LATENCY: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0];

/// The metrics of one process.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    session_up: Gauge,
    active: Gauge,
    services: Family<Label, Gauge>,
    sync_lag: Histogram,
    oldest: Gauge<f64, AtomicU64>,
    sessions: Family<Label, Counter>,
    received: Counter,
    sent: Counter,
    watch_restarts: Counter,
    writes: Family<Labels, Counter>,
    reflection: Histogram,
}

/// How the agent stands at the moment of a scrape.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Snapshot {
    /// Services by what became of them.
    pub(crate) counts: Counts,
    /// The role in the open session.
    pub(crate) role: Option<Role>,
    /// How long the change waits that has waited longest.
    pub(crate) oldest: Duration,
}

/// Every metric as a process gives it that has just started, as OpenMetrics.
///
/// # Errors
/// Only what writing into a string could give.
pub fn metrics() -> Result<String, fmt::Error> {
    Metrics::new().text(Snapshot::default())
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("k3k_expose_agent");
        let build = add(&mut registry, "build_info", "Version of this build", Family::<Label, Gauge>::default());
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        let bytes = Family::<Label, Counter>::default();
        let metrics = Self {
            session_up: add(&mut registry, "session_up", "Whether a session with host-api is open", Gauge::default()),
            active: add(
                &mut registry,
                "active",
                "Whether this agent speaks for its virtual cluster, as one of its agents does",
                Gauge::default(),
            ),
            services: add(
                &mut registry,
                "services",
                "Services of the virtual cluster by what became of them",
                Family::default(),
            ),
            sync_lag: add(
                &mut registry,
                "sync_lag_seconds",
                "Time from the event that changed a Service to the answer of host-api that settles it",
                Histogram::new(LATENCY),
            ),
            oldest: add(
                &mut registry,
                "oldest_unacknowledged_seconds",
                "How long the Service that waits longest has waited for its answer",
                Gauge::default(),
            ),
            sessions: add(&mut registry, "sessions", "Sessions by how they ended", Family::default()),
            watch_restarts: add(
                &mut registry,
                "watch_restarts",
                "Watches on the virtual cluster begun anew after an error",
                Counter::default(),
            ),
            writes: add(
                &mut registry,
                "writes",
                "Writes into the virtual cluster by kind and result; what is not ok and not gone is tried again",
                Family::default(),
            ),
            reflection: add(
                &mut registry,
                "reflection_latency_seconds",
                "Time from an answer of host-api to the status of the Service that shows it",
                Histogram::new(LATENCY),
            ),
            received: bytes.get_or_create_owned(&[("direction", "received")]),
            sent: bytes.get_or_create_owned(&[("direction", "sent")]),
            registry: Registry::default(),
        };
        add(&mut registry, "stream_bytes", "Bytes of lines in sessions, without what TLS and HTTP add", bytes);
        // A counter that begins with its first increase hides that one from rate().
        for result in ["lost", "renewed", "refused", "unreachable"] {
            metrics.sessions.get_or_create(&[("result", result)]).inc_by(0);
        }
        metrics.writes.get_or_create(&[("kind", "status"), ("result", "ok")]).inc_by(0);
        Self { registry, ..metrics }
    }

    /// The text of all metrics.
    ///
    /// # Errors
    /// Only what writing into a string could give.
    pub(crate) fn text(&self, now: Snapshot) -> Result<String, fmt::Error> {
        self.active.set(i64::from(now.role == Some(Role::Active)));
        // Nobody answers a standby, so that nothing can be late there.
        let oldest = if now.role == Some(Role::Standby) { Duration::ZERO } else { now.oldest };
        self.oldest.set(oldest.as_secs_f64());
        for (outcome, count) in [
            ("applied", now.counts.applied),
            ("pending", now.counts.pending),
            ("rejected", now.counts.rejected),
            ("unanswered", now.counts.unanswered),
        ] {
            let gauge = self.services.get_or_create(&[("outcome", outcome)]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    pub(crate) fn set_session_up(&self, up: bool) {
        self.session_up.set(i64::from(up));
    }

    /// Takes in how long a Service had waited for its answer.
    pub(crate) fn acknowledged(&self, lag: Duration) {
        self.sync_lag.observe(lag.as_secs_f64());
    }

    /// Takes in how long after its answer a Service's status was written.
    pub(crate) fn reflected(&self, latency: Duration) {
        self.reflection.observe(latency.as_secs_f64());
    }

    pub(crate) fn count_session(&self, result: &'static str) {
        self.sessions.get_or_create(&[("result", result)]).inc();
    }

    pub(crate) fn count_watch_restart(&self) {
        self.watch_restarts.inc();
    }

    /// Counts a write into the virtual cluster by its kind and result, words of closed lists.
    pub(crate) fn count_write(&self, kind: &'static str, result: &'static str) {
        self.writes.get_or_create(&[("kind", kind), ("result", result)]).inc();
    }

    pub(crate) fn count_received(&self, bytes: usize) {
        self.received.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// The counter of sent bytes, for the body that outlives a borrow.
    pub(crate) fn sent(&self) -> Counter {
        self.sent.clone()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_tells_what_was_counted() {
        let metrics = Metrics::new();
        metrics.count_session("lost");
        metrics.count_received(5);
        metrics.sent().inc_by(7);
        metrics.count_watch_restart();
        metrics.count_write("status", "ok");
        metrics.set_session_up(true);
        metrics.acknowledged(Duration::from_millis(20));
        metrics.reflected(Duration::from_secs(2));
        let counts = Counts { applied: 3, ..Counts::default() };
        let oldest = Duration::from_millis(1500);
        let text = metrics.text(Snapshot { counts, role: Some(Role::Active), oldest }).unwrap();
        for line in [
            concat!("k3k_expose_agent_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "k3k_expose_agent_session_up 1",
            "k3k_expose_agent_active 1",
            "k3k_expose_agent_services{outcome=\"applied\"} 3",
            "k3k_expose_agent_services{outcome=\"pending\"} 0",
            "k3k_expose_agent_services{outcome=\"rejected\"} 0",
            "k3k_expose_agent_services{outcome=\"unanswered\"} 0",
            "k3k_expose_agent_sync_lag_seconds_bucket{le=\"0.01\"} 0",
            "k3k_expose_agent_sync_lag_seconds_bucket{le=\"0.025\"} 1",
            "k3k_expose_agent_oldest_unacknowledged_seconds 1.5",
            "k3k_expose_agent_sessions_total{result=\"lost\"} 1",
            "k3k_expose_agent_sessions_total{result=\"renewed\"} 0",
            "k3k_expose_agent_stream_bytes_total{direction=\"received\"} 5",
            "k3k_expose_agent_stream_bytes_total{direction=\"sent\"} 7",
            "k3k_expose_agent_watch_restarts_total 1",
            "k3k_expose_agent_writes_total{kind=\"status\",result=\"ok\"} 1",
            "k3k_expose_agent_reflection_latency_seconds_sum 2.0",
            "# EOF",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_standby_is_never_late() {
        let oldest = Duration::from_secs(60);
        let text = |role| Metrics::new().text(Snapshot { role, oldest, ..Snapshot::default() }).unwrap();
        assert!(text(Some(Role::Standby)).contains("k3k_expose_agent_oldest_unacknowledged_seconds 0.0\n"));
        for role in [None, Some(Role::Active)] {
            assert!(text(role).contains("k3k_expose_agent_oldest_unacknowledged_seconds 60.0\n"));
        }
    }
}
