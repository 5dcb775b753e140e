//! One sidecar: its environment, its mounts, its process and what its probes say.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::{Container as Spec, EnvVar, Pod};

use super::Network;
use super::probe::{Probed, Verdict};
use super::volumes::Volumes;
use crate::product::AGENT_IMAGE;
use crate::supervisor::{Launch, Process, Rank, Signal};
use crate::toolchain::product_binaries;

/// Below it every mount must lie: there the namespace has a file system of its own to make mount points in.
const MOUNTS: &str = "/var/run/";
/// Arguments: program, then pairs of what to mount and where.
const MOUNT: &str = r#"set -e
program=$1; shift
mount -t tmpfs pod /var/run/
while [ $# -gt 0 ]; do mkdir -p "$2"; mount --bind "$1" "$2"; shift 2; done
exec "$program""#;

/// A sidecar as it runs.
#[derive(Debug)]
pub(super) struct Container {
    spec: Spec,
    launch: Launch,
    process: Process,
    startup: Option<Probed>,
    liveness: Option<Probed>,
    readiness: Option<Probed>,
    up: bool,
    ready: bool,
    restarts: i32,
}

impl Container {
    pub(super) async fn start(
        spec: Spec,
        pod: &Pod,
        volumes: &Volumes,
        network: &Network,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        ensure!(spec.image.as_deref() == Some(AGENT_IMAGE), "image {:?} is not played", spec.image);
        ensure!(
            spec.env_from.is_none() && spec.command.is_none() && spec.args.is_none(),
            "more than env is not played"
        );
        let mut args =
            ["--user", "--map-root-user", "--mount", "/bin/sh", "-c", MOUNT, "mount"].map(str::to_owned).to_vec();
        args.push(product_binaries()?.agent.display().to_string());
        for mount in spec.volume_mounts.iter().flatten() {
            ensure!(mount.mount_path.starts_with(MOUNTS), "{} does not lie below {MOUNTS}", mount.mount_path);
            ensure!(mount.sub_path.is_none() && mount.sub_path_expr.is_none(), "parts of volumes are not played");
            args.push(volumes.folder(&mount.name)?.display().to_string());
            args.push(mount.mount_path.clone());
        }
        let mut env = Vec::new();
        for variable in spec.env.iter().flatten() {
            env.push((variable.name.clone(), value(variable, pod)?));
        }
        // In place of a network namespace. A variable of the pod's own wins.
        let mapped = [
            ("K3K_EXPOSE_VIRTUAL_SERVER", network.virtual_server.clone()),
            ("K3K_EXPOSE_ADMIN_ADDRESS", network.admin.address()),
        ];
        env.splice(0..0, mapped.map(|(name, value)| (name.to_owned(), value)));
        // What every image has.
        env.push(("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()));
        let launch = Launch {
            name: format!("container {}", spec.name),
            rank: Rank::Product,
            program: "/usr/bin/unshare".into(),
            args,
            env,
            log: folder.join(format!("{}.log", spec.name)),
        };
        let process = launch.start().await?;
        Ok(Self {
            startup: Probed::new(spec.startup_probe.as_ref())?,
            liveness: Probed::new(spec.liveness_probe.as_ref())?,
            readiness: Probed::new(spec.readiness_probe.as_ref())?,
            spec,
            launch,
            process,
            up: false,
            ready: false,
            restarts: 0,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.spec.name
    }

    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    pub(super) fn restarts(&self) -> i32 {
        self.restarts
    }

    pub(super) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Looks at the process and asks the probes that are due; gives the reason when it was started again.
    pub(super) async fn look(&mut self, network: &Network) -> anyhow::Result<Option<&'static str>> {
        if self.process.exit().is_some() {
            return self.start_again("exit").await.map(Some);
        }
        if !self.up {
            match Probed::ask(self.startup.as_mut(), network).await {
                Some(Verdict::Failed) => return self.start_again("startup").await.map(Some),
                verdict => self.up = self.startup.is_none() || verdict == Some(Verdict::Passed),
            }
            return Ok(None);
        }
        if Probed::ask(self.liveness.as_mut(), network).await == Some(Verdict::Failed) {
            return self.start_again("liveness").await.map(Some);
        }
        match Probed::ask(self.readiness.as_mut(), network).await {
            Some(verdict) => self.ready = verdict == Verdict::Passed,
            None => self.ready |= self.readiness.is_none(),
        }
        Ok(None)
    }

    async fn start_again(&mut self, why: &'static str) -> anyhow::Result<&'static str> {
        if self.process.exit().is_none() {
            self.process.kill().await?;
        }
        (self.up, self.ready) = (false, false);
        self.restarts += 1;
        ensure!(
            self.restarts < 20,
            "container {} ends again and again:\n{}",
            self.spec.name,
            self.process.log_tail(20)
        );
        for probe in [&mut self.startup, &mut self.liveness, &mut self.readiness].into_iter().flatten() {
            probe.reset();
        }
        self.process = self.launch.start().await?;
        Ok(why)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.process.signal(Signal::Kill);
    }
}

fn value(variable: &EnvVar, pod: &Pod) -> anyhow::Result<String> {
    let Some(from) = &variable.value_from else {
        return Ok(variable.value.clone().unwrap_or_default());
    };
    let path = from.field_ref.as_ref().map(|field| field.field_path.as_str());
    let meta = &pod.metadata;
    let found = match path {
        Some("metadata.name") => &meta.name,
        Some("metadata.namespace") => &meta.namespace,
        Some("metadata.uid") => &meta.uid,
        _ => bail!("the source of variable {} is not played", variable.name),
    };
    found.clone().context("a stored pod has it")
}
