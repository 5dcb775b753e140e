//! The pipe to the supervisor process: orders go out as JSON lines, reports come back on a thread of their own.
//!
//! A thread and not a task: tests have a runtime each, while the supervisor serves them all until the process ends.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context, anyhow};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use super::Exit;
use crate::progress::say;
use crate::scratch;
use crate::toolchain::ControlPlaneBinaries;

static CHANNEL: OnceLock<Result<Channel, String>> = OnceLock::new();

type Started = oneshot::Receiver<Result<u32, String>>;
type Slots = Arc<Mutex<HashMap<u64, Slot>>>;

pub(super) struct Channel {
    orders: Mutex<ChildStdin>,
    slots: Slots,
    next: AtomicU64,
    kept: AtomicBool,
    /// Never waited for: it outlives this process by design.
    _supervisor: Child,
}

/// Where the reports on one child go.
struct Slot {
    started: Option<oneshot::Sender<Result<u32, String>>>,
    status: watch::Sender<Option<Exit>>,
}

#[derive(Deserialize)]
struct Report {
    id: u64,
    pid: Option<u32>,
    error: Option<String>,
    #[serde(default)]
    ended: bool,
    code: i32,
    signal: Option<i32>,
}

/// The channel of this process; the first call starts the supervisor.
pub(super) fn open() -> anyhow::Result<&'static Channel> {
    let opened = CHANNEL.get_or_init(|| {
        Channel::start().map_err(|error| {
            // Nobody else will remove it, and without a supervisor nothing of interest gets in.
            if let Ok(folder) = scratch::run_folder() {
                let _ = std::fs::remove_dir_all(folder);
            }
            format!("{error:#}")
        })
    });
    opened.as_ref().map_err(|error| anyhow!("starting the supervisor: {error}"))
}

/// Makes the folder of this run outlive it, and says where it is; called for every failure that the rig notices.
pub fn keep_files() {
    if let Some(Ok(channel)) = CHANNEL.get()
        && !channel.kept.swap(true, Ordering::Relaxed)
        && let Ok(folder) = scratch::run_folder()
    {
        let _ = channel.send(&json!({"do": "keep"}));
        say(&format!("a test failed: logs and data are kept in {}", folder.display()));
    }
}

impl Channel {
    fn start() -> anyhow::Result<Self> {
        let binaries = ControlPlaneBinaries::ensure()?;
        let folder = scratch::run_folder()?;
        let log = File::create(folder.join("supervisor.log"))?;
        let mut supervisor = Command::new(binaries.control_plane())
            .arg("supervise")
            .env_clear()
            // Ctrl-C in the terminal goes to the group of the test; the supervisor acts on its closed input.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("running control-plane supervise")?;
        let orders = supervisor.stdin.take().context("a piped input")?;
        let reports = supervisor.stdout.take().context("a piped output")?;
        let slots = Slots::default();
        let receiving = Arc::clone(&slots);
        std::thread::Builder::new().name("supervisor".to_owned()).spawn(move || receive(reports, &receiving))?;
        let channel = Self {
            orders: Mutex::new(orders),
            slots,
            next: AtomicU64::new(1),
            kept: AtomicBool::new(false),
            _supervisor: supervisor,
        };
        if scratch::keep_asked() {
            say(&format!("K3K_EXPOSE_RIG_KEEP: logs and data stay in {}", folder.display()));
        } else {
            channel.send(&json!({"do": "remove", "path": folder}))?;
            let previous = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                keep_files();
                previous(panic);
            }));
        }
        Ok(channel)
    }

    /// Reserves a number for a child and the ends on which its reports arrive.
    pub(super) fn expect_child(&self) -> (u64, Started, watch::Receiver<Option<Exit>>) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (started, is_started) = oneshot::channel();
        let (status, has_status) = watch::channel(None);
        lock(&self.slots).insert(id, Slot { started: Some(started), status });
        (id, is_started, has_status)
    }

    pub(super) fn send(&self, order: &Value) -> anyhow::Result<()> {
        let mut line = order.to_string();
        line.push('\n');
        lock(&self.orders).write_all(line.as_bytes()).context("the supervisor takes no more orders")
    }
}

fn receive(reports: ChildStdout, slots: &Slots) {
    for line in BufReader::new(reports).lines().map_while(Result::ok) {
        let Ok(report) = serde_json::from_str::<Report>(&line) else {
            say(&format!("the supervisor wrote no report: {line}"));
            continue;
        };
        deliver(report, &mut lock(slots));
    }
    // Whoever still waits learns by the closed channels that nothing more will come.
    lock(slots).clear();
}

fn deliver(report: Report, slots: &mut HashMap<u64, Slot>) {
    if report.ended {
        if let Some(slot) = slots.remove(&report.id) {
            let exit = report.signal.map_or(Exit::Code(report.code), Exit::Signal);
            slot.status.send_replace(Some(exit));
        }
        return;
    }
    let outcome = match (report.pid, report.error) {
        (Some(pid), _) => Ok(pid),
        (None, error) => Err(error.unwrap_or_else(|| "no reason given".to_owned())),
    };
    if let Some(started) = slots.get_mut(&report.id).and_then(|slot| slot.started.take()) {
        let _ = started.send(outcome);
    }
}

/// A panic of another test while it held the lock leaves the data whole: every change is one insert or remove.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
