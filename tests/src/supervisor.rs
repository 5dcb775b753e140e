//! Starting, signaling and surely ending processes, by way of one supervisor process per test process.
//!
//! The supervisor (a subcommand of the control-plane binary) holds the other end of a pipe: when this process ends in any
//! way, `kill -9` included, the pipe closes and the supervisor ends its tree, highest [`Rank`] first. It also sends the
//! signals, because only the parent knows that a process number still belongs to its child.

mod channel;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;

pub use channel::keep_files;

use crate::usage;

/// Who ends first when everything ends: the highest. An API server without its etcd hangs in its own shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Storage ends last.
    Etcd = 0,
    /// API servers.
    ApiServer = 1,
    /// Clients of API servers that belong to a control plane.
    Controller = 2,
    /// What is under test.
    Product = 3,
}

/// A process to be started; kept to start it again in the same way.
#[derive(Clone, Debug)]
pub struct Launch {
    /// For messages.
    pub name: String,
    /// Its turn when everything ends.
    pub rank: Rank,
    /// The program, by path.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment: nothing leaks in from the shell that runs the tests.
    pub env: Vec<(String, String)>,
    /// Receives standard output and error, appended over restarts.
    pub log: PathBuf,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// What can be sent to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Run on after `Stop`.
    Continue,
    /// Ctrl-C.
    Interrupt,
    /// `kill -9`.
    Kill,
    /// Freeze, without a chance to notice.
    Stop,
    /// Please end.
    Terminate,
}

/// A started process; clones are handles on the same one, and dropping them ends nothing.
#[derive(Clone, Debug)]
pub struct Process {
    id: u64,
    pid: u32,
    name: String,
    log: PathBuf,
    status: watch::Receiver<Option<Exit>>,
}

impl Launch {
    /// Starts the process and returns when it has a number; whether it works is for its readiness to tell.
    ///
    /// # Errors
    /// When the program or its log file cannot be opened, or the supervisor is gone.
    pub async fn start(&self) -> anyhow::Result<Process> {
        let channel = channel::open()?;
        let (id, started, status) = channel.expect_child();
        let env: Vec<String> = self.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
        channel.send(&json!({
            "do": "start", "id": id, "rank": self.rank as i32, "command": self.program,
            "args": self.args, "env": env, "log": self.log,
        }))?;
        let pid = started
            .await
            .context("the supervisor ended")?
            .map_err(|error| anyhow!("starting {}: {error}", self.name))?;
        Ok(Process { id, pid, name: self.name.clone(), log: self.log.clone(), status })
    }
}

impl Process {
    /// Its process number, the real one of the program.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        *self.status.borrow()
    }

    /// Sends a signal; to a process that has ended this does nothing.
    pub fn signal(&self, signal: Signal) {
        let name = match signal {
            Signal::Continue => "CONT",
            Signal::Interrupt => "INT",
            Signal::Kill => "KILL",
            Signal::Stop => "STOP",
            Signal::Terminate => "TERM",
        };
        // Without a supervisor the process has died with it.
        if let Ok(channel) = channel::open() {
            let _ = channel.send(&json!({"do": "signal", "id": self.id, "signal": name}));
        }
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// When it still runs at the deadline, or the supervisor is gone.
    pub async fn wait(&self, deadline: Duration) -> anyhow::Result<Exit> {
        let mut status = self.status.clone();
        let ended = timeout(deadline, status.wait_for(Option::is_some))
            .await
            .with_context(|| format!("{} (process {}) still runs after {deadline:?}", self.name, self.pid))?
            .context("the supervisor ended")?;
        ended.context("a status that is some")
    }

    /// Ends it at once, without a chance to clean up.
    ///
    /// # Errors
    /// As [`Process::wait`].
    pub async fn kill(&self) -> anyhow::Result<Exit> {
        self.signal(Signal::Kill);
        self.wait(Duration::from_secs(10)).await
    }

    /// Asks it to end, and kills it when it does not within `grace`.
    ///
    /// # Errors
    /// As [`Process::wait`].
    pub async fn stop(&self, grace: Duration) -> anyhow::Result<Exit> {
        self.signal(Signal::Terminate);
        match self.wait(grace).await {
            Ok(exit) => Ok(exit),
            Err(_) => self.kill().await,
        }
    }

    /// The last lines that it wrote, for error messages.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let text = fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// The file that holds its output.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Resident memory in KiB.
    ///
    /// # Errors
    /// When it has ended.
    pub fn rss_kib(&self) -> anyhow::Result<u64> {
        usage::rss_kib(self.pid)
    }

    /// The most resident memory that it ever had, in KiB.
    ///
    /// # Errors
    /// When it has ended.
    pub fn peak_rss_kib(&self) -> anyhow::Result<u64> {
        usage::peak_rss_kib(self.pid)
    }

    /// CPU seconds so far.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        usage::cpu_seconds(self.pid)
    }
}
