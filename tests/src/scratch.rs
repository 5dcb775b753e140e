//! The folder of this run: data, certificates and logs of everything that the rig starts.
//!
//! One folder per test process, removed by the supervisor when the process has ended, because no destructor runs for the
//! planes that live in statics. It stays when a test panicked, when an `eventually` missed its deadline, or when
//! `K3K_EXPOSE_RIG_KEEP=1` asks for it.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, anyhow};

static RUN: OnceLock<Result<PathBuf, String>> = OnceLock::new();
static NEXT: AtomicU64 = AtomicU64::new(1);

/// The folder of this run, made at the first call.
///
/// # Errors
/// When the system's folder for temporary files cannot be written.
pub fn run_folder() -> anyhow::Result<&'static Path> {
    let made = RUN.get_or_init(|| {
        let name = format!("k3k-expose-rig-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        // Tokens with full rights lie in here, if only for loopback.
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    });
    made.as_deref().map_err(|error| anyhow!("making the folder of this run: {error}"))
}

/// A new folder inside the folder of this run, named for its owner.
///
/// # Errors
/// As [`run_folder`].
pub fn folder(owner: &str) -> anyhow::Result<PathBuf> {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = run_folder()?.join(format!("{number:02}-{owner}"));
    fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
    Ok(path)
}

/// Whether the person running the tests wants to look at the files afterwards.
#[must_use]
pub fn keep_asked() -> bool {
    std::env::var_os("K3K_EXPOSE_RIG_KEEP").is_some_and(|value| value == "1")
}

/// Writes a file so that readers see the old or the new content, never half of it.
///
/// # Errors
/// When the folder cannot be written.
pub fn replace_file(path: &Path, content: &str) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, content).with_context(|| format!("writing {}", new.display()))?;
    fs::rename(&new, path).with_context(|| format!("renaming to {}", path.display()))
}
