//! A real kube-proxy on each node, in nftables mode.

use std::path::Path;

use serde_json::json;

use super::fabric::{Node, PODS, ROUTER};
use super::isolate::environment;
use crate::plane::ControlPlane;
use crate::scratch;
use crate::supervisor::{Launch, Process, Rank};
use crate::toolchain::ControlPlaneBinaries;

/// Starts the kube-proxy of a node.
///
/// # Errors
/// When it cannot be started.
pub async fn start(host: &ControlPlane, node: &Node, folder: &Path) -> anyhow::Result<Process> {
    let kubeconfig = folder.join(format!("{}.kubeconfig", node.name));
    write_kubeconfig(host, &kubeconfig)?;
    // JSON is YAML.
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": node.name,
        "clientConnection": {"kubeconfig": kubeconfig},
        "clusterCIDR": PODS,
        // Sizes of the connection table belong to the whole machine.
        "conntrack": {"maxPerCore": 0, "min": 0},
        "nftables": {"minSyncPeriod": "0.1s"},
    });
    let file = folder.join(format!("{}.kube-proxy.json", node.name));
    scratch::replace_file(&file, &format!("{config:#}\n"))?;
    let binary = ControlPlaneBinaries::ensure()?.component("kube-proxy");
    let mut args = binary.prefix;
    args.push(format!("--config={}", file.display()));
    let launch = Launch {
        name: format!("kube-proxy of {}", node.name),
        rank: Rank::Controller,
        program: binary.program,
        args,
        env: environment(),
        log: folder.join(format!("{}.kube-proxy.log", node.name)),
    };
    node.namespace.inside(launch)?.start().await
}

/// A kubeconfig by which nodes and pods reach an API server: at the router, under the name that its certificate has.
///
/// # Errors
/// When the file cannot be written.
pub fn write_kubeconfig(plane: &ControlPlane, path: &Path) -> anyhow::Result<()> {
    let mut kubeconfig = plane.access().kubeconfig();
    let cluster = &mut kubeconfig["clusters"][0]["cluster"];
    cluster["server"] = json!(plane.url().replace("127.0.0.1", &ROUTER.to_string()));
    cluster["tls-server-name"] = json!("127.0.0.1");
    scratch::replace_file(path, &format!("{kubeconfig:#}\n"))
}
