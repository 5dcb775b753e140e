//! The binaries that the rig runs: the control planes, built once per user, and the products, built once per process.
//!
//! `cargo test` tells a crate's tests only where that crate's own binaries are, so the products are asked for from cargo.

mod go_build;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, anyhow, bail};
use serde::Deserialize;

/// Where the programs of a control plane are.
#[derive(Clone, Debug)]
pub struct ControlPlaneBinaries {
    control_plane: PathBuf,
    assets: Option<PathBuf>,
}

/// The release builds of what is under test.
#[derive(Clone, Debug)]
pub struct ProductBinaries {
    /// `k3k-expose-agent`.
    pub agent: PathBuf,
    /// `k3k-expose-host-api`.
    pub host_api: PathBuf,
}

/// One of the servers, as a program and the arguments that come before its own.
#[derive(Clone, Debug)]
pub struct Component {
    /// The file to run.
    pub program: PathBuf,
    /// The subcommand, where one file is all the servers.
    pub prefix: Vec<String>,
}

impl ControlPlaneBinaries {
    /// Finds the binaries, building them if this user has never built these sources.
    ///
    /// Blocks for minutes in that case, with progress on standard error.
    ///
    /// # Errors
    /// When Go is missing (the message says what to install) or the build fails.
    pub fn ensure() -> anyhow::Result<&'static Self> {
        static BINARIES: OnceLock<Result<ControlPlaneBinaries, String>> = OnceLock::new();
        let found = BINARIES.get_or_init(|| Self::find().map_err(|error| format!("{error:#}")));
        found.as_ref().map_err(|error| anyhow!("{error}"))
    }

    fn find() -> anyhow::Result<Self> {
        let assets = std::env::var_os("KUBEBUILDER_ASSETS").filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(folder) = &assets {
            for name in ["etcd", "kube-apiserver"] {
                if !folder.join(name).is_file() {
                    bail!("KUBEBUILDER_ASSETS is set to {}, which has no {name}", folder.display());
                }
            }
        }
        Ok(Self { control_plane: go_build::ensure()?, assets })
    }

    /// The binary that is every server, the supervisor and the token signer.
    #[must_use]
    pub fn control_plane(&self) -> &Path {
        &self.control_plane
    }

    /// How to run `etcd`, `kube-apiserver`, `kube-controller-manager` or `kube-proxy`.
    #[must_use]
    pub fn component(&self, name: &str) -> Component {
        match &self.assets {
            Some(folder) if matches!(name, "etcd" | "kube-apiserver") => {
                Component { program: folder.join(name), prefix: Vec::new() }
            }
            _ => Component { program: self.control_plane.clone(), prefix: vec![name.to_owned()] },
        }
    }
}

/// The release builds of agent and host-api, brought up to date by cargo at the first call in this process.
///
/// Blocks while cargo compiles. `K3K_EXPOSE_RIG_PROFILE=dev` takes the builds that compile in seconds instead, for work on
/// behavior; figures of memory and CPU mean nothing with them.
///
/// # Errors
/// When they do not compile.
pub fn product_binaries() -> anyhow::Result<&'static ProductBinaries> {
    static BINARIES: OnceLock<Result<ProductBinaries, String>> = OnceLock::new();
    let built = BINARIES.get_or_init(|| build_products().map_err(|error| format!("{error:#}")));
    built.as_ref().map_err(|error| anyhow!("building the products: {error}"))
}

/// The part of cargo's messages that names a built file.
#[derive(Deserialize)]
struct CargoMessage {
    reason: String,
    target: Option<CargoTarget>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct CargoTarget {
    name: String,
}

fn build_products() -> anyhow::Result<ProductBinaries> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let profile = std::env::var_os("K3K_EXPOSE_RIG_PROFILE").unwrap_or_else(|| "release".into());
    let output = Command::new(cargo)
        .arg("build")
        .arg("--profile")
        .arg(profile)
        .arg("--message-format=json-render-diagnostics")
        .args(["-p", "k3k-expose-agent", "-p", "k3k-expose-host-api"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .context("running cargo")?;
    if !output.status.success() {
        bail!("cargo build ended with {}; its messages are above", output.status);
    }
    let text = String::from_utf8(output.stdout).context("cargo's messages")?;
    let messages: Vec<CargoMessage> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let path = |name: &str| {
        messages
            .iter()
            .filter(|message| message.reason == "compiler-artifact")
            .filter(|message| message.target.as_ref().is_some_and(|target| target.name == name))
            .find_map(|message| message.executable.clone())
            .with_context(|| format!("cargo built no binary called {name}"))
    };
    Ok(ProductBinaries { agent: path("k3k-expose-agent")?, host_api: path("k3k-expose-host-api")? })
}
