//! Go sources in, one cached binary out, compiled at most once per user and version of the sources.
//!
//! The file appears under its final name only when it is whole; a file lock makes parallel test processes wait for the one
//! that builds.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::cache;
use crate::progress::say;

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/control-plane");
const INSTALL: &str = "install Go 1.26 or newer (https://go.dev/dl/, or your system's package `golang`), \
    so that `go` is on the PATH";
const NEWEST_TOO_OLD: (u32, u32) = (1, 25);

/// A line of progress in this rhythm, so that a first run does not look like a hang.
const RHYTHM: Duration = Duration::from_secs(15);

/// The binary, from the cache or freshly built.
pub(super) fn ensure() -> anyhow::Result<PathBuf> {
    let version = go_version()?;
    let folder = cache::folder()?.join(format!("control-plane-{}", fingerprint(&version)?));
    let binary = folder.join("control-plane");
    if binary.is_file() {
        return Ok(binary);
    }
    fs::create_dir_all(&folder)?;
    let lock = cache::lock_file(&folder.join("lock"))?;
    if lock.try_lock().is_err() {
        say("waiting for another process that builds the control plane …");
        lock.lock().context("waiting for the other build")?;
    }
    if !binary.is_file() {
        build(&folder, &binary)?;
    }
    Ok(binary)
}

fn go_version() -> anyhow::Result<String> {
    // An older Go may try to fetch the version that go.mod asks for; asked elsewhere it just tells its own.
    let output = match Command::new("go").args(["env", "GOVERSION"]).current_dir(std::env::temp_dir()).output() {
        Ok(output) => output,
        Err(error) => bail!("the control planes are built with Go, and running `go` failed ({error}): {INSTALL}"),
    };
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || !is_recent(&version) {
        bail!("`go env GOVERSION` answered {version:?}, and 1.26 is needed: {INSTALL}");
    }
    Ok(version)
}

/// Development versions (`devel …`) pass: who builds Go knows what they do.
fn is_recent(version: &str) -> bool {
    let Some(number) = version.strip_prefix("go") else {
        return version.starts_with("devel");
    };
    let mut parts = number.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) > NEWEST_TOO_OLD
}

/// Changes with every input of the build, so that nobody runs yesterday's binary.
fn fingerprint(version: &str) -> anyhow::Result<String> {
    let mut files: Vec<PathBuf> = fs::read_dir(SOURCES)
        .with_context(|| format!("reading {SOURCES}"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| {
        matches!(path.extension().and_then(OsStr::to_str), Some("go" | "mod" | "sum"))
            && !path.to_string_lossy().ends_with("_test.go")
    });
    files.sort();
    let mut hash = Sha256::new();
    hash.update(version);
    for path in &files {
        let content = fs::read(path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        hash.update(format!("\n{name} {}\n", content.len()));
        hash.update(&content);
    }
    Ok(hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

fn build(folder: &Path, binary: &Path) -> anyhow::Result<()> {
    say("building the control plane, once per user and version of its sources: about 6 minutes on 2 cores …");
    let began = Instant::now();
    let unfinished = folder.join(format!("unfinished-{}", std::process::id()));
    let mut go = Command::new("go")
        .args(["build", "-v", "-trimpath", "-ldflags", "-s -w", "-o"])
        .arg(&unfinished)
        .arg(".")
        .current_dir(SOURCES)
        // The binary must run whatever C library the machine has.
        .env("CGO_ENABLED", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("running go build")?;
    let messages = go.stderr.take().context("a piped error output")?;
    let (lines, received) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(messages).lines().map_while(Result::ok) {
            // The receiver lives until this thread has ended.
            let _ = lines.send(line);
        }
    });
    let tail = follow(&received, began);
    let _ = reader.join();
    let status = go.wait()?;
    if !status.success() {
        let _ = fs::remove_file(&unfinished);
        bail!("go build ended with {status}; its last lines:\n{}", tail.join("\n"));
    }
    fs::rename(&unfinished, binary)?;
    say(&format!("built the control plane in {} s", began.elapsed().as_secs()));
    Ok(())
}

/// Counts the packages that `go build -v` names as it compiles them; returns the last lines, for errors.
fn follow(lines: &Receiver<String>, began: Instant) -> Vec<String> {
    let mut tail: Vec<String> = Vec::new();
    let mut packages = 0_u32;
    let mut next_report = began + RHYTHM;
    loop {
        match lines.recv_timeout(next_report.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                packages += u32::from(!line.contains(' '));
                if tail.len() == 20 {
                    tail.remove(0);
                }
                tail.push(line);
            }
            Err(RecvTimeoutError::Timeout) => {
                say(&format!(
                    "building the control plane: compiled {packages} packages, {} s",
                    began.elapsed().as_secs()
                ));
                next_report += RHYTHM;
            }
            Err(RecvTimeoutError::Disconnected) => return tail,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (version, recent) in [
            ("go1.26.0", true),
            ("go1.27rc1", true),
            ("go1.25.9", false),
            ("go1.9", false),
            ("go2.0", true),
            ("", false),
        ] {
            assert_eq!(is_recent(version), recent, "{version}");
        }
    }
}
