//! Handles on the two products: release binaries, started with nothing but environment variables.

mod agent;
mod host_api;

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::Mutex;

pub use agent::{ADMIN_USER, Agent, AgentOptions, USER as AGENT_USER, k3k_kubeconfig};
pub use host_api::{
    ACCOUNT as HOST_API_ACCOUNT, AGENT_IMAGE, HostApi, HostApiOptions, NAMESPACE as HOST_API_NAMESPACE,
    USER as HOST_API_USER, apply_rbac,
};

use crate::eventually::eventually;
use crate::port::Port;
use crate::supervisor::{Exit, Launch, Process, Signal};
use crate::tls;

/// Until `/readyz` says 200.
const READY: Duration = Duration::from_secs(30);

/// One product, which can be killed and started again with the same settings; dropping it kills it.
#[derive(Debug)]
pub struct Product {
    launch: Launch,
    admin: Port,
    running: Mutex<Process>,
}

impl Product {
    async fn start(launch: Launch, admin: Port) -> anyhow::Result<Self> {
        let process = launch.start().await?;
        Ok(Self { launch, admin, running: Mutex::new(process) })
    }

    /// The base URL of the admin port.
    #[must_use]
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.admin.address())
    }

    /// Status and body of a path on the admin port, for example `/syncz?verbose`.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        tls::install_provider();
        // A pooled connection would outlive the process that it leads to, and its runtime.
        let client = reqwest::Client::builder().pool_max_idle_per_host(0).timeout(Duration::from_secs(5)).build()?;
        let answer = client.get(format!("{}{path}", self.admin_url())).send().await?;
        let status = answer.status().as_u16();
        Ok((status, answer.text().await?))
    }

    /// Waits until a path of the admin port says 200.
    ///
    /// # Errors
    /// When the process ends, or does not say so within the deadline; with the end of its log.
    pub async fn wait_ok(&self, path: &str, deadline: Duration) -> anyhow::Result<()> {
        let process = self.process().await;
        let outcome = eventually(&format!("{path} of {}", self.launch.name), deadline, async || {
            if let Some(exit) = process.exit() {
                return Ok(Err(exit));
            }
            match self.get(path).await? {
                (200, _) => Ok(Ok(())),
                (status, body) => bail!("{status}: {body}"),
            }
        })
        .await;
        let tail = || format!("the log of {} ends:\n{}", self.launch.name, process.log_tail(20));
        match outcome.with_context(tail)? {
            Ok(()) => Ok(()),
            Err(exit) => bail!("{} ended ({exit:?}); {}", self.launch.name, tail()),
        }
    }

    /// Waits until `/readyz` says 200.
    ///
    /// # Errors
    /// As [`Product::wait_ok`].
    pub async fn wait_ready(&self) -> anyhow::Result<()> {
        self.wait_ok("/readyz", READY).await
    }

    /// The text of `/metrics`.
    ///
    /// # Errors
    /// When nobody answers with 200.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        match self.get("/metrics").await? {
            (200, text) => Ok(text),
            (status, text) => bail!("/metrics answered {status}: {text}"),
        }
    }

    /// The sum over all label sets of one metric; nothing if there is no such line.
    ///
    /// # Errors
    /// As [`Product::metrics`].
    pub async fn metric(&self, name: &str) -> anyhow::Result<Option<f64>> {
        Ok(sum_of_metric(&self.metrics().await?, name))
    }

    /// The process as it runs now.
    pub async fn process(&self) -> Process {
        self.running.lock().await.clone()
    }

    /// `kill -9`; returns when it is gone.
    ///
    /// # Errors
    /// When it does not go.
    pub async fn kill(&self) -> anyhow::Result<()> {
        self.process().await.kill().await?;
        Ok(())
    }

    /// SIGTERM; returns how it ended.
    ///
    /// # Errors
    /// When it still runs at the deadline.
    pub async fn terminate(&self, deadline: Duration) -> anyhow::Result<Exit> {
        let process = self.process().await;
        process.signal(Signal::Terminate);
        process.wait(deadline).await
    }

    /// Starts it again with the same settings and ports, killing it first if it runs; does not wait until it is ready.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn restart(&self) -> anyhow::Result<()> {
        let mut running = self.running.lock().await;
        if running.exit().is_none() {
            running.kill().await?;
        }
        *running = self.launch.start().await?;
        Ok(())
    }

    /// All lines of its log, over restarts.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn log_lines(&self) -> anyhow::Result<Vec<String>> {
        let bytes = std::fs::read(&self.launch.log)?;
        Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
    }

    /// Resident memory in KiB.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn rss_kib(&self) -> anyhow::Result<u64> {
        self.process().await.rss_kib()
    }

    /// The most resident memory since its last start, in KiB.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn peak_rss_kib(&self) -> anyhow::Result<u64> {
        self.process().await.peak_rss_kib()
    }

    /// CPU seconds since its last start.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn cpu_seconds(&self) -> anyhow::Result<f64> {
        self.process().await.cpu_seconds()
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        self.running.get_mut().signal(Signal::Kill);
    }
}

fn sum_of_metric(text: &str, name: &str) -> Option<f64> {
    let values: Vec<f64> = text
        .lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with([' ', '{']))
        .filter_map(|rest| rest.rsplit('}').next()?.split_whitespace().next()?.parse().ok())
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_and_not_over_longer_names() {
        let text = "# TYPE writes counter\nwrites_total{verb=\"create\"} 3\nwrites_total{verb=\"a } b\"} 4\n\
            writes_total_more 9\nup 1\n";
        assert_eq!(sum_of_metric(text, "writes_total"), Some(7.0));
        assert_eq!(sum_of_metric(text, "up"), Some(1.0));
        assert_eq!(sum_of_metric(text, "down"), None);
    }
}
