//! The command lines of one plane's servers. The ports and folders are claimed once and stay.

use std::path::{Path, PathBuf};

use super::files::Files;
use super::options::PlaneOptions;
use crate::port::Port;
use crate::supervisor::{Launch, Rank};
use crate::toolchain::ControlPlaneBinaries;

/// What the three servers are started with.
#[derive(Debug)]
pub(super) struct Commands {
    options: PlaneOptions,
    folder: PathBuf,
    etcd_client: Port,
    etcd_peer: Port,
    api_server: Port,
}

impl Commands {
    pub(super) fn new(options: &PlaneOptions, folder: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            options: options.clone(),
            folder: folder.to_owned(),
            etcd_client: Port::claim()?,
            etcd_peer: Port::claim()?,
            api_server: Port::claim()?,
        })
    }

    pub(super) fn url(&self) -> String {
        format!("https://{}", self.api_server.address())
    }

    pub(super) fn options(&self) -> &PlaneOptions {
        &self.options
    }

    pub(super) fn audit_log(&self) -> PathBuf {
        self.folder.join("audit.log")
    }

    pub(super) fn etcd_data(&self) -> PathBuf {
        self.folder.join("etcd-data")
    }

    pub(super) fn etcd(&self) -> anyhow::Result<Launch> {
        let client = format!("http://{}", self.etcd_client.address());
        let peer = format!("http://{}", self.etcd_peer.address());
        let flags = vec![
            "--name=rig".to_owned(),
            format!("--data-dir={}", self.etcd_data().display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=rig={peer}"),
            // A killed etcd loses nothing that the kernel has; only a killed machine would.
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ];
        self.launch("etcd", Rank::Etcd, flags)
    }

    pub(super) fn api_server(&self, files: &Files) -> anyhow::Result<Launch> {
        let key = files.service_account_key.display();
        let mut flags = vec![
            format!("--etcd-servers=http://{}", self.etcd_client.address()),
            "--bind-address=127.0.0.1".to_owned(),
            // Loopback cannot be advertised; an address for documentation spares a look at the machine's interfaces.
            "--advertise-address=192.0.2.1".to_owned(),
            format!("--secure-port={}", self.api_server.number()),
            format!("--tls-cert-file={}", files.serving.certificate.display()),
            format!("--tls-private-key-file={}", files.serving.key.display()),
            format!("--client-ca-file={}", files.serving.ca.display()),
            format!("--cert-dir={}", self.folder.join("generated").display()),
            format!("--token-auth-file={}", files.tokens.display()),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={key}"),
            format!("--service-account-signing-key-file={key}"),
            "--authorization-mode=RBAC".to_owned(),
            format!("--audit-policy-file={}", files.audit_policy.display()),
            format!("--audit-log-path={}", self.audit_log().display()),
            format!("--service-cluster-ip-range={}", self.options.service_cidr),
        ];
        flags.extend(self.options.node_port_range.as_ref().map(|range| format!("--service-node-port-range={range}")));
        flags.extend(self.options.api_server_flags.iter().cloned());
        self.launch("kube-apiserver", Rank::ApiServer, flags)
    }

    /// Nothing when the options name no controller.
    pub(super) fn controllers(&self, files: &Files) -> anyhow::Result<Option<Launch>> {
        if self.options.controllers.is_empty() {
            return Ok(None);
        }
        let flags = vec![
            format!("--kubeconfig={}", files.controller_kubeconfig.display()),
            format!("--controllers={}", self.options.controllers.join(",")),
            "--leader-elect=false".to_owned(),
            // Its own port would be one more to find free, and nobody asks it anything.
            "--secure-port=0".to_owned(),
            // The default of 20 a second would make a thousand Services wait 50 s for their endpoints.
            "--kube-api-qps=100".to_owned(),
            "--kube-api-burst=200".to_owned(),
        ];
        self.launch("kube-controller-manager", Rank::Controller, flags).map(Some)
    }

    fn launch(&self, component: &str, rank: Rank, flags: Vec<String>) -> anyhow::Result<Launch> {
        let binary = ControlPlaneBinaries::ensure()?.component(component);
        let mut args = binary.prefix;
        args.extend(flags);
        Ok(Launch {
            name: format!("{component} of {}", self.options.name),
            rank,
            program: binary.program,
            args,
            env: Vec::new(),
            log: self.folder.join(format!("{component}.log")),
        })
    }
}
