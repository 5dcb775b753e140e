//! The kubeconfig of the virtual cluster's administrator, read again whenever its bytes change.
//!
//! k3k writes it only after the server is up, and anew at every reconcile. The trap: the file is a mounted Secret, whose
//! symlink kubelet swaps, so that inotify says nothing; the bytes are compared instead.

use std::path::Path;
use std::time::Duration;

use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig, KubeconfigError};

use k3k_expose_process::quote::causes;

/// How often the file is looked at.
const POLL: Duration = Duration::from_secs(1);

/// A kubeconfig file.
pub(crate) struct KubeconfigFile<'a> {
    path: &'a Path,
    server: &'a http::Uri,
    bytes: Vec<u8>,
    missing_told: bool,
}

/// The two ways into the virtual cluster.
pub(crate) struct Access {
    /// As the administrator.
    pub(crate) admin: kube::Client,
    /// The same server without any credential.
    pub(crate) anonymous: kube::Config,
}

impl<'a> KubeconfigFile<'a> {
    pub(crate) const fn new(path: &'a Path, server: &'a http::Uri) -> Self {
        Self { path, server, bytes: Vec::new(), missing_told: false }
    }

    /// Waits for other bytes than before that make a usable kubeconfig.
    pub(crate) async fn next(&mut self) -> Access {
        loop {
            if let Some(access) = self.poll().await {
                return access;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn poll(&mut self) -> Option<Access> {
        let bytes = match std::fs::read(self.path) {
            Ok(bytes) => bytes,
            Err(error) => {
                if !self.missing_told {
                    tracing::info!(path = %self.path.display(), %error, "kubeconfig not there yet");
                }
                self.missing_told = true;
                return None;
            }
        };
        if bytes == self.bytes {
            return None;
        }
        let access = access(&bytes, self.server).await;
        self.bytes = bytes;
        match access {
            Ok(access) => {
                tracing::info!(path = %self.path.display(), "kubeconfig read");
                Some(access)
            }
            Err(error) => {
                tracing::warn!(path = %self.path.display(), error = causes(&error), "kubeconfig not usable");
                None
            }
        }
    }
}

impl Access {
    /// Whether both name the same server with the same certificate authorities: then only the administrator's
    /// credential was minted anew.
    pub(crate) fn is_same_server(&self, other: &Self) -> bool {
        let (one, other) = (&self.anonymous, &other.anonymous);
        one.cluster_url == other.cluster_url
            && one.root_cert == other.root_cert
            && one.tls_server_name == other.tls_server_name
    }
}

#[derive(Debug, thiserror::Error)]
enum AccessError {
    #[error("not utf-8")]
    NotUtf8,
    #[error("no kubeconfig")]
    Kubeconfig(#[from] KubeconfigError),
    #[error("no client")]
    Client(#[from] kube::Error),
}

async fn access(bytes: &[u8], server: &http::Uri) -> Result<Access, AccessError> {
    let text = std::str::from_utf8(bytes).map_err(|_| AccessError::NotUtf8)?;
    let mut kubeconfig = Kubeconfig::from_yaml(text)?;
    for cluster in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
        cluster.server = Some(server.to_string());
        cluster.proxy_url = None;
    }
    let mut admin = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    // Waits are this crate's own, with their limits.
    admin.default_retry = false;
    let mut anonymous = admin.clone();
    anonymous.auth_info = AuthInfo::default();
    Ok(Access { admin: kube::Client::try_from(admin)?, anonymous })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(server: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: '{server}', insecure-skip-tls-verify: true}}}}]\n\
             users: [{{name: u, user: {{token: secret}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
        )
    }

    #[tokio::test]
    async fn the_server_is_overridden_and_the_credential_stays_with_the_administrator() {
        let server: http::Uri = "https://127.0.0.1:6443".parse().unwrap();
        let access = access(yaml("https://10.0.0.1").as_bytes(), &server).await.unwrap();
        assert_eq!(access.anonymous.cluster_url.authority(), server.authority());
        assert!(access.anonymous.auth_info.token.is_none());
    }

    #[tokio::test]
    async fn what_is_no_kubeconfig_is_an_error() {
        let server = http::Uri::from_static("https://127.0.0.1:6443");
        assert!(access(b"\xff", &server).await.is_err());
        assert!(access(b"", &server).await.is_err());
        assert!(access(b"a: [", &server).await.is_err());
    }
}
