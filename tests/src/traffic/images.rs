//! Which program an image stands for, and the processes of one pod. Images are not pulled: these three are known.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{Container, PodSpec};
use tokio::net::TcpStream;

use super::fabric::{Fabric, Node};
use super::isolate::environment;
use super::needs::Tools;
use super::{Namespace, kube_proxy};
use crate::eventually::eventually;
use crate::plane::ControlPlane;
use crate::scratch;
use crate::supervisor::{Exit, Launch, Process, Rank, Signal};

/// The web server of Kubernetes' network tests.
pub const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:";
/// Contour.
pub const CONTOUR: &str = "ghcr.io/projectcontour/contour:";
/// Envoy.
pub const ENVOY: &str = "docker.io/envoyproxy/envoy:";

/// Where manifests mount the one volume that is played.
const VOLUME: &str = "/config/";

/// Until a server listens, or an init container has ended.
const UP: Duration = Duration::from_secs(30);

/// A pod as it runs; dropping it ends it.
#[derive(Debug)]
pub struct Running {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its address.
    pub address: Ipv4Addr,
    processes: Vec<Process>,
}

impl Running {
    /// Starts the containers of a pod on a node and waits until their first ports answer.
    ///
    /// `plane` is the cluster that the pod belongs to: the one whose API server its ServiceAccount reaches.
    ///
    /// # Errors
    /// When an image is not known, or a program does not come up.
    pub async fn start(
        tools: &Tools,
        node: &Node,
        name: &str,
        spec: &PodSpec,
        plane: &ControlPlane,
    ) -> anyhow::Result<Self> {
        let folder = scratch::folder("pod")?;
        let (namespace, address) = node.pod(name, &folder).await?;
        let mut running = Self { namespace, address, processes: Vec::new() };
        let kubeconfig = folder.join("kubeconfig");
        kube_proxy::write_kubeconfig(plane, &kubeconfig)?;
        for container in spec.init_containers.iter().flatten() {
            let process = running.launch(tools, name, container, &folder).await?;
            match process.wait(UP).await? {
                Exit::Code(0) => {}
                exit => bail!("{} of {name} ended with {exit:?}: {}", container.name, process.log_tail(5)),
            }
        }
        for container in &spec.containers {
            let process = running.launch(tools, name, container, &folder).await?;
            running.processes.push(process.clone());
            for port in container.ports.iter().flatten().filter(|port| port.protocol.as_deref() != Some("UDP")) {
                let what = format!("{} of {name} listens:\n{}", container.name, process.log_tail(5));
                let port = u16::try_from(port.container_port)?;
                eventually(&what, UP, async || TcpStream::connect((address, port)).await.map(drop)).await?;
            }
        }
        Ok(running)
    }

    async fn launch(&self, tools: &Tools, pod: &str, container: &Container, folder: &Path) -> anyhow::Result<Process> {
        let (program, args) = program(tools, container, folder)?;
        let mut env: BTreeMap<String, String> = environment().into_iter().collect();
        env.insert("HOSTNAME".to_owned(), pod.to_owned());
        for variable in container.env.iter().flatten() {
            env.insert(variable.name.clone(), variable.value.clone().unwrap_or_default());
        }
        let launch = Launch {
            name: format!("{} of pod {pod}", container.name),
            rank: Rank::Product,
            program,
            args,
            env: env.into_iter().collect(),
            log: folder.join(format!("{}.log", container.name)),
        };
        self.namespace.inside(launch)?.start().await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for process in &self.processes {
            process.signal(Signal::Kill);
        }
    }
}

/// The node of a fabric that has the turn, one after the other.
pub fn in_turn<'a>(fabric: &'a Fabric, turn: &mut usize) -> &'a Node {
    *turn += 1;
    &fabric.nodes[*turn % fabric.nodes.len()]
}

fn program(tools: &Tools, container: &Container, folder: &Path) -> anyhow::Result<(PathBuf, Vec<String>)> {
    let image = container.image.as_deref().unwrap_or_default();
    let mut words: Vec<String> = container.command.iter().chain(&container.args).flatten().cloned().collect();
    let has_command = container.command.as_ref().is_some_and(|command| !command.is_empty());
    if has_command {
        words.remove(0);
    }
    let volume = format!("{}/", folder.display());
    let words = words.iter().map(|word| word.replace(VOLUME, &volume)).collect();
    let program = if image.starts_with(AGNHOST) {
        std::env::current_exe().context("the path of this program")?
    } else if image.starts_with(CONTOUR) {
        tools.contour.clone()
    } else if image.starts_with(ENVOY) {
        tools.envoy.clone()
    } else {
        bail!("image {image} is not played");
    };
    Ok((program, words))
}
