//! The files that the servers of one plane read: certificates, keys, tokens, audit policy, kubeconfigs.

use std::fs;
use std::path::{Path, PathBuf};

use crate::access::{Access, Credential};
use crate::plane::RIG_USER;
use crate::tls::{self, Authority, ServerFiles};

/// The controller manager's user; its real one, but with full rights: the split into accounts is not what we test.
const CONTROLLER_USER: &str = "system:kube-controller-manager";

/// Everything at Metadata level, once per request. The API server's own requests to itself would only be noise.
const AUDIT_POLICY: &str = r#"{
  "apiVersion": "audit.k8s.io/v1",
  "kind": "Policy",
  "omitStages": ["RequestReceived"],
  "rules": [{"level": "None", "users": ["system:apiserver"]}, {"level": "Metadata"}]
}
"#;

/// Paths, and the token that the rig itself shows.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) serving: ServerFiles,
    pub(super) service_account_key: PathBuf,
    pub(super) tokens: PathBuf,
    pub(super) audit_policy: PathBuf,
    pub(super) kubeconfig: PathBuf,
    pub(super) controller_kubeconfig: PathBuf,
    pub(super) rig_token: String,
}

impl Files {
    pub(super) fn write(folder: &Path, authority: &Authority, url: &str) -> anyhow::Result<Self> {
        let files = Self {
            serving: authority.write_server_files(folder)?,
            service_account_key: folder.join("service-account-key.pem"),
            tokens: folder.join("tokens.csv"),
            audit_policy: folder.join("audit-policy.json"),
            kubeconfig: folder.join("kubeconfig"),
            controller_kubeconfig: folder.join("controller-kubeconfig"),
            rig_token: token(),
        };
        let controller_token = token();
        let lines = [(&files.rig_token, RIG_USER), (&controller_token, CONTROLLER_USER)]
            .map(|(token, user)| format!("{token},{user},{user},\"system:masters\"\n"));
        fs::write(&files.tokens, lines.concat())?;
        fs::write(&files.service_account_key, tls::service_account_key()?)?;
        fs::write(&files.audit_policy, AUDIT_POLICY)?;
        let controller =
            Access { url: url.to_owned(), ca_pem: authority.pem(), credential: Credential::Token(controller_token) };
        controller.write_kubeconfig(&files.controller_kubeconfig)?;
        Ok(files)
    }
}

/// Nobody guesses it; a server on loopback that lives for minutes needs no better randomness.
fn token() -> String {
    format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..))
}
