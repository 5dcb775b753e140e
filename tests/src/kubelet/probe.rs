//! Probes over HTTP, counted as the spec says.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Probe;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::time::Instant;

use super::Network;
use crate::tls;

/// The agent's admin port inside the pod's network namespace.
const ADMIN: i32 = 9464;

/// What enough answers in a row mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passed,
    Failed,
}

/// A probe and its count.
#[derive(Debug)]
pub(super) struct Probed {
    path: String,
    period: Duration,
    patience: Duration,
    most_failures: i32,
    due: Instant,
    delay: Duration,
    failures: i32,
}

impl Probed {
    pub(super) fn new(probe: Option<&Probe>) -> anyhow::Result<Option<Self>> {
        let Some(probe) = probe else { return Ok(None) };
        let get = probe.http_get.as_ref().context("only probes over HTTP are played")?;
        ensure!(get.port == IntOrString::Int(ADMIN), "port {:?} of a probe is not mapped", get.port);
        ensure!(get.scheme.as_deref().is_none_or(|scheme| scheme == "HTTP"), "probes over TLS are not played");
        // The API server has filled in the defaults.
        let seconds = |field: Option<i32>| u64::try_from(field.unwrap_or_default()).map(Duration::from_secs);
        let delay = seconds(probe.initial_delay_seconds)?;
        Ok(Some(Self {
            path: get.path.clone().context("a path")?,
            period: seconds(probe.period_seconds)?,
            patience: seconds(probe.timeout_seconds)?,
            most_failures: probe.failure_threshold.context("a threshold")?,
            due: Instant::now() + delay,
            delay,
            failures: 0,
        }))
    }

    /// Begins to count anew, for a container that has just been started.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
        self.due = Instant::now() + self.delay;
    }

    /// Asks if it is time to; `None` while nothing follows from the answer.
    pub(super) async fn ask(probe: Option<&mut Self>, network: &Network) -> Option<Verdict> {
        let probe = probe.filter(|probe| probe.due <= Instant::now())?;
        let url = format!("http://{}{}", network.admin.address(), probe.path);
        let answer = get(&url, probe.patience).await;
        probe.due = Instant::now() + probe.period;
        if answer.is_ok_and(|(status, _)| (200..400).contains(&status)) {
            probe.failures = 0;
            return Some(Verdict::Passed);
        }
        probe.failures += 1;
        (probe.failures >= probe.most_failures).then_some(Verdict::Failed)
    }
}

/// Status and body of a URL.
pub(super) async fn get(url: &str, patience: Duration) -> anyhow::Result<(u16, String)> {
    tls::install_provider();
    let client = reqwest::Client::builder().pool_max_idle_per_host(0).no_proxy().timeout(patience).build()?;
    let answer = client.get(url).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}
