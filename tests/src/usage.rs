//! What a process costs, read from `/proc`.

use std::fs;

use anyhow::Context;

/// The unit of the CPU fields: the kernel fixes it at 100 a second for every user-space interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// Resident memory in KiB (`VmRSS`).
///
/// # Errors
/// When the process is gone.
pub fn rss_kib(pid: u32) -> anyhow::Result<u64> {
    memory(pid, "VmRSS:")
}

/// The most resident memory that it ever had, in KiB.
///
/// # Errors
/// When the process is gone.
pub fn peak_rss_kib(pid: u32) -> anyhow::Result<u64> {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, what: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} is gone"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)).context("a zombie has no memory")?;
    let number = line.split_whitespace().next().with_context(|| format!("{what} without a number"))?;
    Ok(number.parse()?)
}

/// CPU seconds so far, in user and kernel mode together.
///
/// # Errors
/// When the process is gone.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let fields = stat_after_name(pid)?;
    // `utime` and `stime` are fields 14 and 15; the list starts at field 3.
    let ticks: u64 = fields.iter().skip(11).take(2).map(|field| field.parse::<u64>()).sum::<Result<_, _>>()?;
    #[expect(clippy::cast_precision_loss, reason = "2^52 ticks are a million years")]
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// Whether the process exists and has not ended; a zombie has ended.
#[must_use]
pub fn is_running(pid: u32) -> bool {
    stat_after_name(pid).is_ok_and(|fields| !matches!(fields.first().map(String::as_str), Some("Z" | "X") | None))
}

/// The fields after the process name, which may itself contain spaces and brackets.
fn stat_after_name(pid: u32) -> anyhow::Result<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    let (_, fields) = stat.rsplit_once(')').context("stat without a name")?;
    Ok(fields.split_whitespace().map(str::to_owned).collect())
}
