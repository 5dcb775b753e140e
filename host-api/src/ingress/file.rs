//! The policy's file: read before anything is judged, and again when its bytes change. I/O.
//!
//! The trap: a mounted ConfigMap changes by a swapped symbolic link, which file notifications do not see; so the bytes are
//! looked at now and then. A file that turns bad leaves the policy as it was: nothing of a tenant's goes by a typing error.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::time::sleep;
use tracing::{error, info};

use super::policy::Policy;
use crate::hub::Hub;

/// Time between two looks.
const PERIOD: Duration = Duration::from_secs(2);

/// The file, and its bytes of the last look.
#[derive(Debug)]
pub struct PolicyFile {
    path: PathBuf,
    text: String,
    syncs_tls: bool,
}

impl PolicyFile {
    /// Reads the file for the first time. `syncs_tls` is no part of it: a setting says so for all.
    ///
    /// # Errors
    /// When it cannot be read or is no policy: nothing may be judged by a policy that is not known.
    pub fn open(path: &Path, syncs_tls: bool) -> anyhow::Result<(Self, Policy)> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read K3K_EXPOSE_INGRESS_POLICY_FILE={}", path.display()))?;
        let policy = Policy::parse(&text)
            .with_context(|| format!("cannot use K3K_EXPOSE_INGRESS_POLICY_FILE={}", path.display()))?;
        Ok((Self { path: path.to_owned(), text, syncs_tls }, policy.with_tls(syncs_tls)))
    }

    /// Follows the file. Never ends.
    pub async fn follow(mut self, hub: Arc<Hub>) {
        let mut told = String::new();
        loop {
            sleep(PERIOD).await;
            let looked = match std::fs::read_to_string(&self.path) {
                Ok(text) if text == self.text => continue,
                Ok(text) => Policy::parse(&text).map(|policy| (text, policy)).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match looked {
                Ok((text, policy)) => {
                    info!("ingress policy changed");
                    self.text = text;
                    told.clear();
                    hub.with(|registry, _| registry.set_ingress_policy(policy.with_tls(self.syncs_tls)));
                }
                Err(error) if error != told => {
                    error!(error, "ingress policy not usable, the last one stays");
                    told = error;
                }
                Err(_) => {}
            }
        }
    }
}
