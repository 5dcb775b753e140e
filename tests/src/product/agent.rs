//! An agent between one virtual control plane and one host-api.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use super::{HostApi, Product};
use crate::access::Access;
use crate::plane::ControlPlane;
use crate::port::Port;
use crate::scratch;
use crate::supervisor::{Launch, Rank};
use crate::token::TokenFile;
use crate::toolchain::product_binaries;

/// The agent's user name in the virtual audit log, once its account stands.
pub const USER: &str = "system:serviceaccount:kube-system:k3k-expose-agent";

/// The user of k3k's kubeconfig in the virtual audit log; the agent is it only while it ensures its own account.
pub const ADMIN_USER: &str = "system:admin";

/// How one agent differs from another.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// `POD_NAME`; without it the agent believes that it is on a terminal.
    pub pod_name: Option<String>,
    /// Further variables; these win over the rig's.
    pub env: Vec<(String, String)>,
}

impl AgentOptions {
    /// An agent in the server pod of this name.
    #[must_use]
    pub fn in_pod(name: &str) -> Self {
        Self { pod_name: Some(name.to_owned()), env: Vec::new() }
    }
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    product: Product,
    token_file: TokenFile,
    kubeconfig: PathBuf,
}

impl Agent {
    /// Starts an agent; waiting for readiness is up to the caller, because a refused agent stays up and never is.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(
        virtual_cluster: &ControlPlane,
        host_api: &HostApi,
        token: &str,
        options: AgentOptions,
    ) -> anyhow::Result<Self> {
        let program = product_binaries()?.agent.clone();
        let folder = scratch::folder("agent")?;
        let kubeconfig = folder.join("kubeconfig.yaml");
        write_k3k_kubeconfig(virtual_cluster, &kubeconfig)?;
        let token_file = TokenFile::create(token)?;
        let admin = Port::claim()?;
        let mut env: Vec<(String, String)> = [
            ("K3K_EXPOSE_HOST_API_URL", host_api.url()),
            ("K3K_EXPOSE_HOST_API_CA_FILE", host_api.ca_file().display().to_string()),
            ("K3K_EXPOSE_TOKEN_FILE", token_file.path().display().to_string()),
            ("K3K_EXPOSE_KUBECONFIG", kubeconfig.display().to_string()),
            ("K3K_EXPOSE_VIRTUAL_SERVER", virtual_cluster.url().to_owned()),
            ("K3K_EXPOSE_ADMIN_ADDRESS", admin.address()),
            ("K3K_EXPOSE_LOG", "info".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        env.extend(options.pod_name.map(|name| ("POD_NAME".to_owned(), name)));
        // Of two entries with one key the last one counts.
        env.extend(options.env);
        let log = folder.join("agent.log");
        let launch = Launch { name: "agent".to_owned(), rank: Rank::Product, program, args: Vec::new(), env, log };
        Ok(Self { product: Product::start(launch, admin).await?, token_file, kubeconfig })
    }

    /// The file with its token for host-api.
    #[must_use]
    pub fn token_file(&self) -> &TokenFile {
        &self.token_file
    }

    /// Mints its kubeconfig anew, as k3k does at every reconcile.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn renew_kubeconfig(&self, virtual_cluster: &ControlPlane) -> anyhow::Result<()> {
        write_k3k_kubeconfig(virtual_cluster, &self.kubeconfig)
    }
}

impl Deref for Agent {
    type Target = Product;

    fn deref(&self) -> &Product {
        &self.product
    }
}

fn write_k3k_kubeconfig(virtual_cluster: &ControlPlane, path: &Path) -> anyhow::Result<()> {
    k3k_kubeconfig(virtual_cluster)?.write_kubeconfig(path)
}

/// As in k3k's Secret: a fresh client certificate of system:masters, and a server URL that only the host could reach.
///
/// # Errors
/// When the crypto library fails.
pub fn k3k_kubeconfig(virtual_cluster: &ControlPlane) -> anyhow::Result<Access> {
    let access = virtual_cluster.access_by_certificate(ADMIN_USER, "system:masters")?;
    Ok(Access { url: "https://192.0.2.1:443".to_owned(), ..access })
}
