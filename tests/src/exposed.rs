//! What `/metrics` of a process tells, read from the text format.

use std::collections::{BTreeMap, BTreeSet};

use k3k_expose_process::exposition;

/// One metric.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metric {
    /// What it tells.
    pub help: String,
    /// Counter, gauge or histogram.
    pub kind: String,
    /// Names of its labels.
    pub labels: BTreeSet<String>,
}

/// The metrics of both processes by name, as they are right after a start.
///
/// # Errors
/// Only what writing into a string could give.
pub fn by_both() -> anyhow::Result<[BTreeMap<String, Metric>; 2]> {
    let [agent, host_api] = [k3k_expose_agent::metrics()?, k3k_expose_host_api::metrics::metrics()?];
    Ok([agent, host_api].map(|open_metrics| metrics(&exposition::text(&open_metrics))))
}

/// The metrics in a text by name.
#[must_use]
pub fn metrics(text: &str) -> BTreeMap<String, Metric> {
    let mut metrics: BTreeMap<String, Metric> = BTreeMap::new();
    for line in text.lines() {
        let told = |prefix| line.strip_prefix(prefix).and_then(|rest: &str| rest.split_once(' '));
        if let Some((name, help)) = told("# HELP ") {
            metrics.entry(name.to_owned()).or_default().help = help.trim_end_matches('.').to_owned();
        } else if let Some((name, kind)) = told("# TYPE ") {
            metrics.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else if let Some((sample, rest)) = line.split_once(['{', ' ']) {
            let metric = metrics.iter_mut().find(|(name, metric)| metric.samples(name).iter().any(|own| own == sample));
            let labels = rest.rsplit_once('}').map_or("", |(labels, _)| labels);
            let labels = labels.split(',').filter_map(|label| label.split_once('=')).map(|(label, _)| label.to_owned());
            metric.expect("a sample of a metric that was told").1.labels.extend(labels.filter(|label| label != "le"));
        }
    }
    metrics
}

impl Metric {
    /// Names of the samples of the metric with this name.
    #[must_use]
    pub fn samples(&self, name: &str) -> Vec<String> {
        if self.kind == "histogram" {
            ["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")).to_vec()
        } else {
            vec![name.to_owned()]
        }
    }
}
