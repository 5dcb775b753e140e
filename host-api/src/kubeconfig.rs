//! The way to the host's API server outside of a pod. I/O.

use std::path::Path;

use anyhow::{Context, Result};
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// What the current context of this kubeconfig says.
///
/// # Errors
/// When it cannot be read, or does not name a server and a user.
pub(crate) async fn read(path: &Path) -> Result<Config> {
    let cannot =
        |what: &str| format!("cannot {what} kubeconfig {} of K3K_EXPOSE_KUBECONFIG (--kubeconfig)", path.display());
    let kubeconfig = Kubeconfig::read_from(path).with_context(|| cannot("read"))?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.with_context(|| cannot("use"))
}
