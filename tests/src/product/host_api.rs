//! host-api on a host control plane, as its own ServiceAccount.

use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

use super::Product;
use crate::access::Credential;
use crate::eventually::eventually;
use crate::plane::ControlPlane;
use crate::port::Port;
use crate::supervisor::{Launch, Rank};
use crate::tls::{Authority, ServerFiles};
use crate::toolchain::product_binaries;
use crate::{manifest, scratch, token};

/// The namespace of host-api.
pub const NAMESPACE: &str = "k3k-expose";
/// Its ServiceAccount.
pub const ACCOUNT: &str = "k3k-expose-host-api";
/// The image that stands for the agent's binary.
pub const AGENT_IMAGE: &str = "k3k-expose.test/agent";
/// Its user name in audit logs.
pub const USER: &str = "system:serviceaccount:k3k-expose:k3k-expose-host-api";

/// How one host-api differs from another.
#[derive(Clone, Debug, Default)]
pub struct HostApiOptions {
    /// Further variables; these win over the rig's.
    pub env: Vec<(String, String)>,
    /// Whether it makes its own certificates; then [`HostApi::trust`] says whom agents are to trust.
    pub own_certificates: bool,
}

/// A running host-api.
#[derive(Debug)]
pub struct HostApi {
    product: Product,
    listen: Port,
    admission: Port,
    files: ServerFiles,
}

impl HostApi {
    /// Applies its account, starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready; with the end of its log.
    pub async fn start(host: &ControlPlane, options: HostApiOptions) -> anyhow::Result<Self> {
        let host_api = Self::start_unready(host, options).await?;
        host_api.wait_ready().await?;
        Ok(host_api)
    }

    /// Starts it without waiting, for tests of how it comes up.
    ///
    /// # Errors
    /// When its account is refused, or it cannot be started.
    pub async fn start_unready(host: &ControlPlane, options: HostApiOptions) -> anyhow::Result<Self> {
        let program = product_binaries()?.host_api.clone();
        let client = host.client().await?;
        apply_rbac(&client).await?;
        let folder = scratch::folder("host-api")?;
        let kubeconfig = folder.join("kubeconfig");
        let token = token::for_api_server(&client, NAMESPACE, ACCOUNT).await?;
        host.access().with(Credential::Token(token)).write_kubeconfig_in(&kubeconfig, NAMESPACE)?;
        let authority = Authority::new("k3k-expose rig host-api")?;
        let files = authority.write_server_files(&folder)?;
        let (listen, admission, admin) = (Port::claim()?, Port::claim()?, Port::claim()?);
        let mut env: Vec<(String, String)> = [
            ("K3K_EXPOSE_KUBECONFIG", kubeconfig.display().to_string()),
            ("K3K_EXPOSE_LISTEN_ADDRESS", listen.address()),
            ("K3K_EXPOSE_ADMISSION_ADDRESS", admission.address()),
            ("K3K_EXPOSE_ADMIN_ADDRESS", admin.address()),
            ("K3K_EXPOSE_AGENT_IMAGE", AGENT_IMAGE.to_owned()),
            ("K3K_EXPOSE_HOST_API_URL", format!("https://{}", listen.address())),
            ("K3K_EXPOSE_LOG", "info".to_owned()),
            // Tests kill it and want it back at once; those of several replicas say otherwise.
            ("K3K_EXPOSE_LEADER_ELECTION", "false".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        if !options.own_certificates {
            let paths = [("CERT", &files.certificate), ("KEY", &files.key), ("CA", &files.ca)];
            env.extend(paths.map(|(kind, path)| (format!("K3K_EXPOSE_TLS_{kind}_FILE"), path.display().to_string())));
        }
        // Of two entries with one key the last one counts.
        env.extend(options.env);
        let log = folder.join("host-api.log");
        let launch = Launch { name: "host-api".to_owned(), rank: Rank::Product, program, args: Vec::new(), env, log };
        Ok(Self { product: Product::start(launch, admin).await?, listen, admission, files })
    }

    /// `https://127.0.0.1:<port>`, for agents.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.listen.address())
    }

    /// `127.0.0.1:<port>`, for tests that speak the wire by hand.
    #[must_use]
    pub fn address(&self) -> String {
        self.listen.address()
    }

    /// `https://127.0.0.1:<port>`, for the API server's reviews.
    #[must_use]
    pub fn admission_url(&self) -> String {
        format!("https://{}", self.admission.address())
    }

    /// The authority of its certificate.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.files.ca.clone()
    }

    /// Puts the authorities that host-api keeps in its Secret where agents read them, as kubelet would.
    ///
    /// # Errors
    /// When there is no such Secret, or the file cannot be written.
    pub async fn trust(&self, client: &Client) -> anyhow::Result<()> {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
        let data = secrets.get("k3k-expose-host-api-tls").await?.data.unwrap_or_default();
        let bundle = data.get("ca.crt").context("the Secret has a bundle")?;
        scratch::replace_file(&self.files.ca, std::str::from_utf8(&bundle.0)?)
    }

    /// Its files: who replaces them plays cert-manager.
    #[must_use]
    pub fn files(&self) -> &ServerFiles {
        &self.files
    }

    /// The same as PEM.
    #[must_use]
    pub fn ca_pem(&self) -> String {
        std::fs::read_to_string(&self.files.ca).expect("the rig has written it")
    }
}

impl Deref for HostApi {
    type Target = Product;

    fn deref(&self) -> &Product {
        &self.product
    }
}

/// What the platform team of the rig admits of every tenant: tests of policies select theirs more closely.
const POLICY: &str = "
apiVersion: expose.k3k.io/v1alpha1
kind: ExposurePolicy
metadata:
  name: rig
spec:
  allow:
    nodePorts: {most: 10000}
    loadBalancers: {most: 10000, classes: [example.com/lb, example.com/fast, example.com/one, example.com/two, example.com/three]}
";

/// Applies host-api's account as it is shipped: what it may do, and the fence around that; and what the platform team admits.
///
/// # Errors
/// When the API server refuses.
pub async fn apply_rbac(client: &Client) -> anyhow::Result<()> {
    for file in [
        "base/namespace.yaml",
        "base/exposure-policy.yaml",
        "base/rbac.yaml",
        "base/fence.yaml",
        "overlays/ingress-tls/rbac.yaml",
    ] {
        manifest::apply_file(client, &manifest::folder().join(file)).await?;
    }
    let served = async || manifest::apply(client, POLICY).await;
    eventually("the rig's policy is taken", Duration::from_secs(30), served).await
}
