//! The figures of one run, as the JSON object that scripts read.
//!
//! Keys are a contract: they are renamed in no release. Times are seconds unless the key says milliseconds.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::Usage;
use super::crowded::Outcome;
use super::field::Synced;
use super::latency::{Latencies, Pair};
use super::spending::{Spent, Written};
use super::table;
use super::webhook::Creates;

/// All figures. Those that a run does not measure are null.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Services in the virtual cluster.
    pub n: usize,
    /// Load average of the machine before the run: on a busy one the figures say little.
    pub load_before: f64,
    /// Time of the best plain client for the same twins.
    pub limit_s: f64,
    /// Time of every plain client, by its number of workers.
    pub limit_s_by_workers: BTreeMap<usize, f64>,
    /// Time from before the agent's start until the host's watch has told of every twin.
    pub initial_s: f64,
    /// [`Report::initial_s`] over [`Report::limit_s`].
    pub initial_to_limit: f64,
    /// Twins that are stored exactly as the plain client's objects were; less than `n` makes the ratio worthless.
    pub twins_as_plain: usize,
    /// Writes of host-api on the host from the agent's start until 30 s after the sync.
    pub host_writes_initial: usize,
    /// Writes of host-api for a restart of the agent.
    pub host_writes_agent_restart: usize,
    /// Writes of host-api for a restart of its own.
    pub host_writes_host_api_restart: usize,
    /// Writes of the agent in the virtual cluster for the same.
    pub virtual_writes_initial: usize,
    /// See above.
    pub virtual_writes_agent_restart: usize,
    /// See above.
    pub virtual_writes_host_api_restart: usize,
    /// From before the call in the virtual cluster to the event on the host, by `<change>_<rate>`.
    pub latency_ms: BTreeMap<String, Percentiles>,
    /// The same for a call on the host; `<change>` is that at 50/s, `<change>_5` that at 5/s.
    pub direct_ms: BTreeMap<String, Percentiles>,
    /// Writes of the agent in the virtual cluster for each Service of the initial sync, Events left out.
    pub virt_writes_initial: f64,
    /// From before the status of a twin is written on the host to the event in the virtual cluster, at 20/s.
    pub status_ms: Percentiles,
    /// The same for a status that is written in the virtual cluster.
    pub direct_status_ms: Percentiles,
    /// [`Report::status_ms`] over [`Report::direct_status_ms`].
    pub status_to_direct: Percentiles,
    /// A host where others hold every cluster IP of the tenant's.
    pub crowded: Crowded,
    /// From before a Service with a taken number is made until both sides have the same numbers: the median.
    pub conflict_heal_ms: Heal,
    /// The create of a server pod about which the API server asks the webhook, at 20/s.
    pub webhook_ms: Percentiles,
    /// The same where it does not ask.
    pub webhook_plain_ms: Percentiles,
    /// [`Report::webhook_ms`] over [`Report::webhook_plain_ms`].
    pub webhook_to_plain: Percentiles,
    /// Writes of both accounts in 60 s of rest.
    pub idle_writes_60s: usize,
    /// CPU time of each program in those 60 s.
    pub idle_cpu_s: Programs,
    /// Resident memory 30 s after the sync, by `<program>_<services>`, where `n` stands for the number of the run.
    pub rss_mib: BTreeMap<String, Option<f64>>,
    /// CPU time from the start until 30 s after the sync of `n`; with a suffix at other numbers of Services.
    pub cpu_s: BTreeMap<String, Option<f64>>,
    /// The same of Ingresses; null when they were not measured.
    pub ingresses: Option<Ingresses>,
    /// What a tenant that says all it can does to another, and to host-api; empty when it was not measured.
    pub attacks: Vec<Attack>,
    /// Bytes of lines in both directions for a reconnect with nothing changed.
    pub reconnect_bytes: u64,
}

/// What the sync of `n` Ingresses with one Service costs.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Ingresses {
    /// Ingresses in the virtual cluster.
    pub n: usize,
    /// The median time of a plain client.
    pub limit_s: f64,
    /// The same within the fence that is around host-api.
    pub fenced_s: f64,
    /// The median time from before the agent's start until the last twin.
    pub initial_s: f64,
    /// The median of that by the first, each by that of its own round.
    pub initial_to_limit: f64,
    /// The same by the second.
    pub initial_to_fenced: f64,
    /// host-api's writes in the initial sync.
    pub host_writes_initial: usize,
    /// The agent's.
    pub virtual_writes_initial: usize,
    /// Writes of both in a restart of each.
    pub writes_restarts: usize,
    /// Resident memory 30 s after the sync.
    pub rss_mib: Programs,
}

/// One way of being hostile.
#[derive(Debug, Serialize)]
pub struct Attack {
    /// What was said.
    pub name: String,
    /// Lines that host-api took in.
    pub lines: usize,
    /// From before a create in the other's virtual cluster to the event on the host, without the hostile tenant.
    pub undisturbed_ms: Percentiles,
    /// The same beside it.
    pub disturbed_ms: Percentiles,
    /// The second by the first.
    pub disturbed_to_undisturbed: Percentiles,
    /// Most resident memory that host-api ever held until then.
    pub host_api_peak_rss_mib: f64,
    /// From the end until nothing was left to do.
    pub rest_s: f64,
}

impl Ingresses {
    pub(super) fn with_memory(self, usage: &Usage) -> Self {
        let rss_mib = Programs { agent: mib(usage.agent_rss_kib), host_api: mib(usage.host_api_rss_kib) };
        Self { rss_mib, ..self }
    }
}

/// A figure of each program.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Programs {
    /// The agent's.
    pub agent: f64,
    /// host-api's.
    pub host_api: f64,
}

/// What became of `n` Services on a host where others hold all their cluster IPs.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Crowded {
    /// Those whose condition is True.
    pub synced: usize,
    /// Those that have one cluster IP on both sides, and one that was not taken.
    pub same_cluster_ip: usize,
    /// Time from before the agent's start until the last was synced; null if one never was.
    pub s: Option<f64>,
}

/// Milliseconds by what was taken.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Heal {
    /// A node port.
    pub node_port: f64,
    /// A cluster IP.
    pub cluster_ip: f64,
}

/// Half of the samples were at most `p50`, 99 of 100 at most `p99`.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50: f64,
    /// The slow end.
    pub p99: f64,
}

impl Report {
    pub(super) fn new(n: usize, load_before: f64) -> Self {
        let unmeasured: BTreeMap<_, _> = ["agent", "host_api"]
            .into_iter()
            .flat_map(|program| ["0", "1000", "n"].map(|at| (format!("{program}_{at}"), None)))
            .collect();
        Self { n, load_before, rss_mib: unmeasured, ..Self::default() }
    }

    /// One JSON object on one line.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The same for people, beside the figures that are promised.
    #[must_use]
    pub fn table(&self) -> String {
        table::render(self)
    }

    pub(super) fn limit(&mut self, workers: usize, took: Duration) {
        self.limit_s_by_workers.insert(workers, took.as_secs_f64());
        self.limit_s = self.limit_s_by_workers.values().copied().fold(f64::INFINITY, f64::min);
    }

    pub(super) fn initial(&mut self, synced: &Synced) {
        self.initial_s = synced.took.as_secs_f64();
        self.initial_to_limit = self.initial_s / self.limit_s;
        self.host_writes_initial = synced.written.on_host;
        self.virtual_writes_initial = synced.written.in_virtual;
        self.virt_writes_initial = per(synced.written.in_virtual - synced.written.events_in_virtual, self.n);
    }

    pub(super) fn status(&mut self, pair: &Pair) {
        let [ours, direct] = [&pair.ours, &pair.direct].map(|samples| Percentiles::of(samples));
        self.status_to_direct = ours.over(direct);
        (self.status_ms, self.direct_status_ms) = (ours, direct);
    }

    pub(super) fn webhook(&mut self, creates: &Creates) {
        let [asked, plain] = [&creates.asked, &creates.plain].map(|samples| Percentiles::of(samples));
        self.webhook_to_plain = asked.over(plain);
        (self.webhook_ms, self.webhook_plain_ms) = (asked, plain);
    }

    pub(super) fn crowded(&mut self, outcome: &Outcome) {
        self.crowded = outcome.crowded;
        self.conflict_heal_ms = outcome.heal;
    }

    pub(super) fn usage_at(&mut self, services: &str, synced: &Synced) {
        let Usage { agent_rss_kib, host_api_rss_kib, agent_cpu_s, host_api_cpu_s } = synced.usage;
        for (program, rss, cpu) in
            [("agent", agent_rss_kib, agent_cpu_s), ("host_api", host_api_rss_kib, host_api_cpu_s)]
        {
            let key = format!("{program}_{services}");
            self.rss_mib.insert(key.clone(), Some(mib(rss)));
            let key = if services == "n" { program.to_owned() } else { key };
            self.cpu_s.insert(key, Some(cpu));
        }
    }

    pub(super) fn idle(&mut self, spent: &Spent) {
        self.idle_writes_60s = spent.written.on_host + spent.written.in_virtual;
        self.idle_cpu_s = Programs { agent: spent.agent_cpu_s, host_api: spent.host_api_cpu_s };
    }

    pub(super) fn latencies(&mut self, rate: u32, latencies: &Latencies) {
        for (change, pair) in
            [("create", &latencies.create), ("update", &latencies.update), ("delete", &latencies.delete)]
        {
            self.latency_ms.insert(format!("{change}_{rate}"), Percentiles::of(&pair.ours));
            let key = match rate {
                50 => change.to_owned(),
                rate => format!("{change}_{rate}"),
            };
            self.direct_ms.insert(key, Percentiles::of(&pair.direct));
        }
    }

    pub(super) fn restart_of_agent(&mut self, written: &Written) {
        self.host_writes_agent_restart = written.on_host;
        self.virtual_writes_agent_restart = written.in_virtual;
    }

    pub(super) fn restart_of_host_api(&mut self, written: &Written) {
        self.host_writes_host_api_restart = written.on_host;
        self.virtual_writes_host_api_restart = written.in_virtual;
    }
}

impl Heal {
    pub(super) fn of(node_port: &[f64], cluster_ip: &[f64]) -> Self {
        let [node_port, cluster_ip] = [node_port, cluster_ip].map(|samples| Percentiles::of(samples).p50);
        Self { node_port, cluster_ip }
    }
}

impl Percentiles {
    pub(super) fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self { p50: rank(&sorted, 50), p99: rank(&sorted, 99) }
    }

    pub(super) fn over(self, other: Self) -> Self {
        Self { p50: self.p50 / other.p50, p99: self.p99 / other.p99 }
    }
}

/// The nearest-rank percentile: a value that was really measured.
fn rank(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 writes")]
fn per(writes: usize, services: usize) -> f64 {
    writes as f64 / services as f64
}

#[expect(clippy::cast_precision_loss, reason = "a process of 2^52 KiB does not fit")]
pub(super) fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let Percentiles { p50, p99 } = Percentiles::of(&samples);
        assert_eq!((p50, p99), (50.0, 99.0));
        assert_eq!(Percentiles::of(&[7.0]).p99, 7.0);
    }
}
