//! A network namespace, held by a process that does nothing, and the cable to it.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::needs::{PATH, program};
use crate::eventually::eventually;
use crate::supervisor::{Launch, Process, Rank, Signal};

/// A process takes milliseconds to move into its namespace.
const SOON: Duration = Duration::from_secs(10);

/// A namespace; dropping it ends it, with the cables that lead to it.
#[derive(Debug)]
pub struct Namespace {
    holder: Process,
}

impl Namespace {
    /// A new one with nothing in it; the name is for messages and its log.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn open(name: &str, folder: &Path) -> anyhow::Result<Self> {
        let launch = Launch {
            name: format!("namespace {name}"),
            // Last of all, because servers and clients in it end first.
            rank: Rank::Etcd,
            program: program("unshare")?,
            args: ["--net", "/bin/sleep", "infinity"].map(str::to_owned).to_vec(),
            env: Vec::new(),
            log: folder.join(format!("{name}.namespace.log")),
        };
        let namespace = Self { holder: launch.start().await? };
        let ours = std::fs::read_link("/proc/self/ns/net").context("our own namespace")?;
        eventually(&format!("a namespace for {name}"), SOON, async || {
            std::fs::read_link(namespace.path()).is_ok_and(|theirs| theirs != ours)
        })
        .await?;
        Ok(namespace)
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.pid())
    }

    /// Moves what is to be started into it.
    ///
    /// # Errors
    /// When there is no nsenter.
    pub fn inside(&self, launch: Launch) -> anyhow::Result<Launch> {
        let mut args = vec![format!("--net={}", self.path()), "--".to_owned(), launch.program.display().to_string()];
        args.extend(launch.args);
        Ok(Launch { program: program("nsenter")?, args, ..launch })
    }

    /// A command in it that is killed when its future is dropped.
    ///
    /// # Errors
    /// When there is no nsenter.
    pub fn command(&self, name: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(program("nsenter")?);
        command.arg(format!("--net={}", self.path())).arg("--").arg(name);
        command.env("PATH", PATH).kill_on_drop(true).stdin(Stdio::null());
        Ok(command)
    }

    /// Sets a switch of IPv4 in it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn set(&self, name: &str, value: &str) -> anyhow::Result<()> {
        // Only from inside does the path lead to the switches of the namespace.
        let script = format!("echo {value} >/proc/sys/net/ipv4/{name}");
        let output = self.command("/bin/sh")?.args(["-c", &script]).output().await?;
        if !output.status.success() {
            bail!("{script}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Lays a cable from an upper namespace, or from our own, and sends everything over it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn connect(
        &self,
        upper: Option<&Self>,
        cable: &str,
        address: Ipv4Addr,
        gateway: Ipv4Addr,
    ) -> anyhow::Result<()> {
        let holder = self.holder.pid();
        // What a node disguises goes out under its own address, and not under the gateway's, which all nodes have.
        let scope = if upper.is_some() { "link" } else { "global" };
        ip(
            upper,
            &format!(
                "link add {cable} type veth peer name eth0 netns {holder}\n\
                 link set {cable} up\n\
                 addr add {gateway}/32 dev {cable} scope {scope}\n\
                 route add {address}/32 dev {cable}\n"
            ),
        )
        .await?;
        ip(
            Some(self),
            &format!(
                "link set lo up\n\
                 link set eth0 up\n\
                 addr add {address}/32 dev eth0\n\
                 route add {gateway}/32 dev eth0\n\
                 route add default via {gateway}\n"
            ),
        )
        .await
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.holder.signal(Signal::Kill);
    }
}

/// Gives lines to `ip` in a namespace, or in our own.
///
/// # Errors
/// With what `ip` says.
pub async fn ip(namespace: Option<&Namespace>, lines: &str) -> anyhow::Result<()> {
    let mut command = match namespace {
        Some(namespace) => namespace.command("ip")?,
        None => Command::new(program("ip")?),
    };
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().context("running ip")?;
    let mut input = child.stdin.take().context("a piped input")?;
    input.write_all(lines.as_bytes()).await?;
    drop(input);
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        bail!("ip refused:\n{lines}{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
