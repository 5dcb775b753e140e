//! Certificates of somebody else, such as cert-manager: read from files, and again when their bytes change. I/O.
//!
//! The trap: a mounted Secret changes by a swapped symbolic link, which file notifications do not see; so the bytes are looked
//! at now and then. What cannot be used, as while one file of two is replaced, leaves everything as it was.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use super::material::Showable;
use super::shown::Shown;
use crate::metrics::Metrics;

/// Time between two looks.
const PERIOD: Duration = Duration::from_secs(10);

/// Where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The certificate with its chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities that agents are to trust.
    pub authorities: Option<PathBuf>,
}

/// The files, and their bytes of the last look.
pub struct Files {
    paths: Paths,
    read: Bytes,
}

#[derive(PartialEq, Eq)]
struct Bytes {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Option<String>,
}

impl Files {
    /// Reads the files for the first time, and shows what they hold.
    ///
    /// # Errors
    /// When they cannot be read or used.
    pub fn open(
        paths: Paths,
        shown: &Shown,
        bundle: &watch::Sender<Option<String>>,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let files = Self { read: read(&paths)?, paths };
        files.take(shown, bundle, metrics)?;
        Ok(files)
    }

    /// Follows the files. Never ends.
    pub async fn follow(mut self, shown: &Shown, bundle: &watch::Sender<Option<String>>, metrics: &Metrics) {
        loop {
            sleep(PERIOD).await;
            let taken = match read(&self.paths) {
                Ok(same) if same == self.read => continue,
                Ok(other) => {
                    self.read = other;
                    self.take(shown, bundle, metrics)
                }
                Err(error) => Err(error),
            };
            match taken {
                Ok(()) => info!("files of the certificate were read again"),
                Err(error) => warn!(error = format!("{error:#}"), "files of the certificate cannot be used yet"),
            }
        }
    }

    fn take(&self, shown: &Shown, bundle: &watch::Sender<Option<String>>, metrics: &Metrics) -> anyhow::Result<()> {
        let showable = Showable::read(&self.read.certificate, &self.read.key)
            .context("cannot use K3K_EXPOSE_TLS_CERT_FILE with K3K_EXPOSE_TLS_KEY_FILE")?;
        // Whoever is to trust the new certificate is told first.
        bundle.send_if_modified(|bundle| {
            let changed = *bundle != self.read.authorities;
            bundle.clone_from(&self.read.authorities);
            changed
        });
        shown.show(showable, metrics);
        Ok(())
    }
}

fn read(paths: &Paths) -> anyhow::Result<Bytes> {
    let bytes = |setting: &str, path: &Path| {
        std::fs::read(path).with_context(|| format!("cannot read {setting}={}", path.display()))
    };
    let authorities = paths.authorities.as_deref().map(|path| bytes("K3K_EXPOSE_TLS_CA_FILE", path)).transpose()?;
    Ok(Bytes {
        certificate: bytes("K3K_EXPOSE_TLS_CERT_FILE", &paths.certificate)?,
        key: bytes("K3K_EXPOSE_TLS_KEY_FILE", &paths.key)?,
        authorities: authorities.map(String::from_utf8).transpose().context("K3K_EXPOSE_TLS_CA_FILE is no text")?,
    })
}
