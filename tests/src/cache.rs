//! The folder in the user's cache that outlives test runs, and locks between processes that share it.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// `$XDG_CACHE_HOME/k3k-expose`, or the same under `~/.cache`; made if absent.
///
/// # Errors
/// When neither variable is set, or the folder cannot be made.
pub fn folder() -> anyhow::Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => {
            PathBuf::from(std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache")
        }
    };
    let folder = base.join("k3k-expose");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}

/// Opens a file that is only ever locked; the lock goes with the process, however it ends.
///
/// # Errors
/// When the file cannot be made.
pub fn lock_file(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .with_context(|| format!("opening the lock {}", path.display()))
}
