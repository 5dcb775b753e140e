//! Stopping, killing, wiping and starting again, one change at a time: each holds the lock on what runs.

use std::fs;
use std::time::Duration;

use anyhow::{Context, bail};

use super::{ControlPlane, Running};
use crate::eventually::eventually;
use crate::supervisor::Process;

/// Booting takes 4 s on an idle machine; three at once on two busy cores take their time.
const READY: Duration = Duration::from_secs(60);

/// What a server gets to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(5);

impl ControlPlane {
    /// `kill -9` of the API server; returns when it is gone.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn kill_api_server(&self) -> anyhow::Result<()> {
        let process = self.running.lock().await.api_server.take().context("the API server is not running")?;
        process.kill().await?;
        Ok(())
    }

    /// Starts the API server again, on its port and over its data, and waits until it is ready.
    ///
    /// # Errors
    /// When it runs already, or does not get ready.
    pub async fn start_api_server(&self) -> anyhow::Result<()> {
        let mut running = self.running.lock().await;
        self.launch_api_server(&mut running).await?;
        // The controller manager ends when it loses its API server for long; it must not stay away then.
        if running.controllers.as_ref().is_some_and(|process| process.exit().is_some()) {
            running.controllers = None;
        }
        self.launch_controllers(&mut running).await
    }

    /// `kill -9` of etcd; the API server stays up and answers errors.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn kill_etcd(&self) -> anyhow::Result<()> {
        let process = self.running.lock().await.etcd.take().context("etcd is not running")?;
        process.kill().await?;
        Ok(())
    }

    /// Starts etcd again over its data, and waits until the API server is ready.
    ///
    /// # Errors
    /// When it runs already, or the API server does not get ready.
    pub async fn start_etcd(&self) -> anyhow::Result<()> {
        let mut running = self.running.lock().await;
        self.launch_etcd(&mut running).await?;
        let api_server = running.api_server.clone().context("the API server is not running")?;
        self.wait_ready(&api_server).await
    }

    /// Wipes all objects: the same address, certificates and keys, another `kube-system` UID.
    ///
    /// # Errors
    /// When the servers do not get ready again.
    pub async fn reset(&self) -> anyhow::Result<()> {
        self.stop().await?;
        fs::remove_dir_all(self.commands.etcd_data()).context("wiping etcd")?;
        self.start_all().await
    }

    /// Stops everything in order: controllers, API server, etcd.
    ///
    /// # Errors
    /// When a process cannot be ended.
    pub async fn stop(&self) -> anyhow::Result<()> {
        let mut running = self.running.lock().await;
        let Running { etcd, api_server, controllers } = std::mem::take(&mut *running);
        for process in [controllers, api_server, etcd].into_iter().flatten() {
            process.stop(GRACE).await?;
        }
        Ok(())
    }

    /// Starts everything that does not run, and waits until the API server is ready.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub async fn start_all(&self) -> anyhow::Result<()> {
        let mut running = self.running.lock().await;
        if running.etcd.is_none() {
            self.launch_etcd(&mut running).await?;
        }
        if running.api_server.is_none() {
            self.launch_api_server(&mut running).await?;
        }
        self.launch_controllers(&mut running).await
    }

    async fn launch_etcd(&self, running: &mut Running) -> anyhow::Result<()> {
        if running.etcd.is_some() {
            bail!("etcd of {} runs already", self.name);
        }
        running.etcd = Some(self.commands.etcd()?.start().await?);
        Ok(())
    }

    async fn launch_api_server(&self, running: &mut Running) -> anyhow::Result<()> {
        if running.api_server.is_some() {
            bail!("the API server of {} runs already", self.name);
        }
        let process = self.commands.api_server(&self.files)?.start().await?;
        running.api_server = Some(process.clone());
        self.wait_ready(&process).await
    }

    async fn launch_controllers(&self, running: &mut Running) -> anyhow::Result<()> {
        if running.controllers.is_none()
            && let Some(launch) = self.commands.controllers(&self.files)?
        {
            running.controllers = Some(launch.start().await?);
        }
        Ok(())
    }

    async fn wait_ready(&self, process: &Process) -> anyhow::Result<()> {
        let client = self.client().await?;
        let outcome = eventually(&format!("the API server of {} ready", self.name), READY, async || {
            if let Some(exit) = process.exit() {
                // An ended server never gets ready, so this look succeeds at finding out.
                return Ok(Err(exit));
            }
            let request = http::Request::get("/readyz").body(Vec::new())?;
            client.request_text(request).await.map(|_| Ok(())).map_err(anyhow::Error::from)
        })
        .await;
        match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(exit)) => {
                bail!("the API server of {} ended ({exit:?}); its log ends:\n{}", self.name, process.log_tail(20))
            }
            Err(error) => Err(error.context(format!("its log ends:\n{}", process.log_tail(20)))),
        }
    }
}
