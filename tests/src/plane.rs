//! One real control plane: etcd, kube-apiserver and, if wanted, kube-controller-manager, on loopback.
//!
//! Ports, certificates and ServiceAccount keys are drawn once and stay the same whatever is killed, restarted or wiped,
//! so clients and kubeconfigs outlive all of that. Methods take `&self`; a lock inside makes two of them take turns.

mod command;
mod files;
mod lifecycle;
mod options;

use std::path::{Path, PathBuf};

use kube::Client;
use tokio::sync::Mutex;

pub use options::PlaneOptions;

use crate::access::{Access, Credential};
use crate::audit::AuditLog;
use crate::scratch;
use crate::supervisor::{Process, Signal};
use crate::tls::Authority;
use crate::token;
use command::Commands;
use files::Files;

/// The user name of the rig itself in audit logs.
pub const RIG_USER: &str = "rig";

/// A control plane; dropping it kills its processes.
#[derive(Debug)]
pub struct ControlPlane {
    name: String,
    folder: PathBuf,
    files: Files,
    authority: Authority,
    access: Access,
    commands: Commands,
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    etcd: Option<Process>,
    api_server: Option<Process>,
    controllers: Option<Process>,
}

/// The process numbers of what runs now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pids {
    /// etcd.
    pub etcd: Option<u32>,
    /// kube-apiserver.
    pub api_server: Option<u32>,
    /// kube-controller-manager.
    pub controllers: Option<u32>,
}

impl ControlPlane {
    /// Starts a control plane and returns when `/readyz` says 200.
    ///
    /// # Errors
    /// When a server ends or is not ready in time; the message carries the end of its log.
    pub async fn start(options: PlaneOptions) -> anyhow::Result<Self> {
        let folder = scratch::folder(&options.name)?;
        let authority = Authority::new(&format!("k3k-expose rig {}", options.name))?;
        let commands = Commands::new(&options, &folder)?;
        let files = Files::write(&folder, &authority, &commands.url())?;
        let access = Access {
            url: commands.url(),
            ca_pem: authority.pem(),
            credential: Credential::Token(files.rig_token.clone()),
        };
        access.write_kubeconfig(&files.kubeconfig)?;
        let plane = Self {
            name: options.name,
            folder,
            files,
            authority,
            access,
            commands,
            running: Mutex::new(Running::default()),
        };
        plane.start_all().await?;
        Ok(plane)
    }

    /// The name given in the options.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it was made with.
    #[must_use]
    pub fn options(&self) -> &PlaneOptions {
        self.commands.options()
    }

    /// `https://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.access.url
    }

    /// The certificate of the API server's authority.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.access.ca_pem
    }

    /// A kubeconfig of the rig's own user, who is in `system:masters`.
    #[must_use]
    pub fn kubeconfig_path(&self) -> &Path {
        &self.files.kubeconfig
    }

    /// The key that signs ServiceAccount tokens.
    #[must_use]
    pub fn service_account_key_path(&self) -> &Path {
        &self.files.service_account_key
    }

    /// Logs, certificates and data of this plane.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The rig's own way in.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// A client with full rights, for the calling runtime.
    ///
    /// # Errors
    /// When the configuration does not make a client.
    pub async fn client(&self) -> anyhow::Result<Client> {
        self.access.client().await
    }

    /// A client that shows this bearer token.
    ///
    /// # Errors
    /// As [`ControlPlane::client`].
    pub async fn client_with_token(&self, token: &str) -> anyhow::Result<Client> {
        self.access.with(Credential::Token(token.to_owned())).client().await
    }

    /// A client that is this ServiceAccount, by a token for the API server itself.
    ///
    /// # Errors
    /// When the account does not exist.
    pub async fn client_for_service_account(&self, namespace: &str, name: &str) -> anyhow::Result<Client> {
        let token = token::for_api_server(&self.client().await?, namespace, name).await?;
        self.client_with_token(&token).await
    }

    /// A way in by a fresh client certificate, as k3k's kubeconfig has it.
    ///
    /// # Errors
    /// When the crypto library fails.
    pub fn access_by_certificate(&self, user: &str, group: &str) -> anyhow::Result<Access> {
        Ok(self.access.with(Credential::Certificate(self.authority.client_leaf(user, group)?)))
    }

    /// The audit log of the API server.
    #[must_use]
    pub fn audit(&self) -> AuditLog {
        AuditLog::new(self.commands.audit_log(), self.access.clone())
    }

    /// The process numbers of what runs now.
    pub async fn pids(&self) -> Pids {
        let running = self.running.lock().await;
        let pid = |process: &Option<Process>| process.as_ref().filter(|p| p.exit().is_none()).map(Process::pid);
        Pids { etcd: pid(&running.etcd), api_server: pid(&running.api_server), controllers: pid(&running.controllers) }
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        let running = self.running.get_mut();
        for process in [&running.controllers, &running.api_server, &running.etcd].into_iter().flatten() {
            process.signal(Signal::Kill);
        }
    }
}
