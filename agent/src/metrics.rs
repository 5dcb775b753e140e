//! Numbers for `/metrics`, as OpenMetrics text. Labels come from closed lists.

use std::fmt;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::outbox::Counts;

/// Content type of the text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Label = [(&'static str, &'static str); 1];
type Labels = [(&'static str, &'static str); 2];

/// The metrics of one process.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    session_up: Gauge,
    services: Family<Label, Gauge>,
    sessions: Family<Label, Counter>,
    received: Counter,
    sent: Counter,
    watch_restarts: Counter,
    writes: Family<Labels, Counter>,
}

impl Metrics {
    /// All at zero.
    #[must_use]
    pub(crate) fn new() -> Self {
        let session_up = Gauge::default();
        let services = Family::<Label, Gauge>::default();
        let sessions = Family::<Label, Counter>::default();
        let bytes = Family::<Label, Counter>::default();
        let watch_restarts = Counter::default();
        let writes = Family::<Labels, Counter>::default();
        let mut registry = Registry::with_prefix("k3k_expose_agent");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of this build", build);
        registry.register("session_up", "Whether a session with host-api is open", session_up.clone());
        registry.register("services", "Services of the virtual cluster by what became of them", services.clone());
        registry.register("sessions", "Sessions by how they ended", sessions.clone());
        registry.register("stream_bytes", "Bytes of lines in sessions, without what TLS and HTTP add", bytes.clone());
        registry.register(
            "watch_restarts",
            "Watches on the virtual cluster begun anew after an error",
            watch_restarts.clone(),
        );
        registry.register("writes", "Writes into the virtual cluster by kind and result", writes.clone());
        Self {
            registry,
            session_up,
            services,
            sessions,
            received: bytes.get_or_create_owned(&[("direction", "received")]),
            sent: bytes.get_or_create_owned(&[("direction", "sent")]),
            watch_restarts,
            writes,
        }
    }

    /// The text of all metrics.
    ///
    /// # Errors
    /// Only what writing into a string could give.
    pub(crate) fn text(&self, counts: Counts) -> Result<String, fmt::Error> {
        for (outcome, count) in [
            ("applied", counts.applied),
            ("pending", counts.pending),
            ("rejected", counts.rejected),
            ("unanswered", counts.unanswered),
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

    pub(crate) fn count_session(&self, result: &'static str) {
        self.sessions.get_or_create(&[("result", result)]).inc();
    }

    pub(crate) fn count_watch_restart(&self) {
        self.watch_restarts.inc();
    }

    /// Counts a write into the virtual cluster by its kind, a word of a closed list.
    pub(crate) fn count_write(&self, kind: &'static str, done: bool) {
        let result = if done { "ok" } else { "refused" };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_every_metric() {
        let metrics = Metrics::new();
        metrics.count_session("lost");
        metrics.count_received(5);
        metrics.sent().inc_by(7);
        metrics.count_watch_restart();
        metrics.count_write("status", true);
        metrics.set_session_up(true);
        let text = metrics.text(Counts { applied: 3, ..Counts::default() }).unwrap();
        for line in [
            concat!("k3k_expose_agent_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "k3k_expose_agent_session_up 1",
            "k3k_expose_agent_services{outcome=\"applied\"} 3",
            "k3k_expose_agent_services{outcome=\"pending\"} 0",
            "k3k_expose_agent_services{outcome=\"rejected\"} 0",
            "k3k_expose_agent_services{outcome=\"unanswered\"} 0",
            "k3k_expose_agent_sessions_total{result=\"lost\"} 1",
            "k3k_expose_agent_stream_bytes_total{direction=\"received\"} 5",
            "k3k_expose_agent_stream_bytes_total{direction=\"sent\"} 7",
            "k3k_expose_agent_watch_restarts_total 1",
            "k3k_expose_agent_writes_total{kind=\"status\",result=\"ok\"} 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }
}
