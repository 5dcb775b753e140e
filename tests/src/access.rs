//! A way into one API server as one user: as a client for the calling runtime, or as a kubeconfig file.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::scratch;
use crate::tls::{self, Leaf};

/// Address, authority and user.
#[derive(Clone, Debug)]
pub struct Access {
    /// `https://127.0.0.1:<port>`.
    pub url: String,
    /// The authority of the server's certificate, PEM.
    pub ca_pem: String,
    /// Who asks.
    pub credential: Credential,
}

/// How the user shows who it is.
#[derive(Clone, Debug)]
pub enum Credential {
    /// Not at all.
    Anonymous,
    /// A bearer token.
    Token(String),
    /// A client certificate.
    Certificate(Leaf),
}

impl Access {
    /// The same server, as somebody else.
    #[must_use]
    pub fn with(&self, credential: Credential) -> Self {
        Self { credential, ..self.clone() }
    }

    /// A client; it lives on the calling runtime, so every test makes its own.
    ///
    /// # Errors
    /// When the parts do not make a configuration.
    pub async fn client(&self) -> anyhow::Result<Client> {
        tls::install_provider();
        let kubeconfig: Kubeconfig = serde_json::from_value(self.kubeconfig()).context("reading our own kubeconfig")?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        // A machine of two cores that boots three control planes answers late, and late is not wrong here.
        config.connect_timeout = Some(Duration::from_secs(30));
        config.write_timeout = Some(Duration::from_secs(60));
        // Tests count requests and judge statuses, so none is repeated behind their back.
        config.default_retry = false;
        Ok(Client::try_from(config)?)
    }

    /// The kubeconfig, as JSON: every JSON text is YAML.
    #[must_use]
    pub fn kubeconfig(&self) -> Value {
        let user = match &self.credential {
            Credential::Anonymous => json!({}),
            Credential::Token(token) => json!({"token": token}),
            Credential::Certificate(leaf) => json!({
                "client-certificate-data": BASE64_STANDARD.encode(&leaf.certificate),
                "client-key-data": BASE64_STANDARD.encode(&leaf.key),
            }),
        };
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "default",
                "cluster": {"server": self.url, "certificate-authority-data": BASE64_STANDARD.encode(&self.ca_pem)},
            }],
            "users": [{"name": "default", "user": user}],
            "contexts": [{"name": "default", "context": {"cluster": "default", "user": "default"}}],
            "current-context": "default",
        })
    }

    /// Writes the kubeconfig of a process that lives in a namespace.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write_kubeconfig_in(&self, path: &Path, namespace: &str) -> anyhow::Result<()> {
        let mut kubeconfig = self.kubeconfig();
        kubeconfig["contexts"][0]["context"]["namespace"] = json!(namespace);
        scratch::replace_file(path, &format!("{kubeconfig:#}\n"))
    }

    /// Writes the kubeconfig, atomically, because the agent reads it again whenever it changes.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write_kubeconfig(&self, path: &Path) -> anyhow::Result<()> {
        scratch::replace_file(path, &format!("{:#}\n", self.kubeconfig()))
    }
}
