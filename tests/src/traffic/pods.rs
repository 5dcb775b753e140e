//! Runs the pods of one cluster: plays k3k-kubelet for a virtual cluster, and scheduler and kubelet for the host's own pods.
//!
//! A pod that no node has gets one, in turn; a process for each container, in a namespace of the pod's own. One of a virtual cluster
//! gets its pod on the host, as k3k makes it, and both are told ready with the same address. One that is deleted ends and is let go.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Node as KubeNode, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Error, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::Fabric;
use super::images::{Running, in_turn};
use super::needs::Tools;
use crate::k3k::{Place, Tenant, running};
use crate::plane::ControlPlane;
use crate::scratch;

/// How often pods are looked at.
const TICK: Duration = Duration::from_millis(100);

/// Names a namespace and a pod in it.
type Name = (String, String);

/// The pods of one cluster.
pub struct Pods<'a> {
    fabric: &'a Fabric,
    tools: &'a Tools,
    plane: &'a ControlPlane,
    client: Client,
    /// Whose pods they are; without a tenant they are the host's own.
    tenant: Option<Tenant>,
    running: RefCell<HashMap<Name, Rc<Running>>>,
    turn: Cell<usize>,
    /// A file for each pod with the path of its namespace, for `kubectl exec` as it is played.
    folder: PathBuf,
}

impl<'a> Pods<'a> {
    /// Those of a cluster that knows the nodes already.
    ///
    /// # Errors
    /// When the cluster cannot be reached.
    pub async fn new(
        fabric: &'a Fabric,
        tools: &'a Tools,
        plane: &'a ControlPlane,
        tenant: Option<Tenant>,
    ) -> anyhow::Result<Self> {
        let client = plane.client().await?;
        let folder = scratch::folder("pods")?;
        Ok(Self { fabric, tools, plane, client, tenant, running: RefCell::default(), turn: Cell::new(0), folder })
    }

    /// Runs pods as they come and go. Ends only when it cannot.
    ///
    /// # Errors
    /// When a pod cannot be run.
    pub async fn run(&self) -> anyhow::Result<Infallible> {
        let all: Api<Pod> = Api::all(self.client.clone());
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let listed = all.list(&ListParams::default()).await.context("listing pods")?.items;
            for pod in listed.iter().filter(|pod| self.is_ours(pod)) {
                let name = name(pod);
                let runs = self.running.borrow().contains_key(&name);
                if pod.metadata.deletion_timestamp.is_some() {
                    self.end(&name).await?;
                } else if !runs {
                    self.start(pod).await.with_context(|| format!("pod {}/{}", name.0, name.1))?;
                }
            }
            let gone: Vec<Name> = {
                let running = self.running.borrow();
                let is_listed = |known: &Name| listed.iter().any(|pod| name(pod) == *known);
                running.keys().filter(|known| !is_listed(known)).cloned().collect()
            };
            for name in gone {
                self.end(&name).await?;
            }
        }
    }

    /// A pod of this name that runs.
    ///
    /// # Errors
    /// When none does.
    pub fn get(&self, namespace: &str, pod: &str) -> anyhow::Result<Rc<Running>> {
        let found = self.running.borrow().get(&(namespace.to_owned(), pod.to_owned())).cloned();
        found.with_context(|| format!("no pod {namespace}/{pod} runs"))
    }

    /// The ready pods of an app, by name.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn of_app(&self, namespace: &str, app: &str) -> anyhow::Result<BTreeMap<String, Rc<Running>>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let listed = pods.list(&ListParams::default().labels(&format!("app={app}"))).await?.items;
        let alive = listed.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(alive.filter_map(|pod| Some((pod.name_any(), self.get(namespace, &pod.name_any()).ok()?))).collect())
    }

    /// Where the namespaces of pods are told, a file `<namespace>.<pod>` each.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// The host's own pods are those that a Deployment of its own made: k3k's are told by their owner.
    fn is_ours(&self, pod: &Pod) -> bool {
        self.tenant.is_some() || pod.owner_references().iter().any(|owner| owner.kind == "ReplicaSet")
    }

    async fn start(&self, pod: &Pod) -> anyhow::Result<()> {
        let known = name(pod);
        let spec = pod.spec.as_ref().context("a stored pod has a spec")?;
        let mut turn = self.turn.get();
        let node = in_turn(self.fabric, &mut turn);
        self.turn.set(turn);
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &known.0);
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": known.1},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node.name}});
        let bound =
            pods.create_subresource::<Value, Value>("binding", &known.1, &PostParams::default(), &binding).await;
        bound.context("binding it")?;
        let started = Running::start(self.tools, node, &known.1, spec, self.plane).await?;
        let place = Place { node: node.name, node_address: node.address, address: started.address };
        if let Some(tenant) = &self.tenant {
            let labels = pod.labels().clone();
            let synced = tenant.synced_pod(&known.1, &known.0, labels);
            let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
            let ports = ports.filter_map(|port| Some((port.name.clone()?, port.container_port))).collect();
            tenant.create_pod(crate::k3k::HostPod { ports, place: Some(place), ..synced }).await?;
        }
        std::fs::write(self.folder.join(format!("{}.{}", known.0, known.1)), started.namespace.path())?;
        let status = running(&started.address.to_string(), Some(node.address));
        self.running.borrow_mut().insert(known.clone(), Rc::new(started));
        unless_gone(pods.patch_status(&known.1, &PatchParams::default(), &Patch::Merge(status)).await)?;
        Ok(())
    }

    async fn end(&self, name: &Name) -> anyhow::Result<()> {
        // On the host first, so that nobody is sent to a pod that ends.
        if let Some(tenant) = &self.tenant {
            let host_name = tenant.synced_pod(&name.1, &name.0, BTreeMap::new()).name;
            // It may be gone already, after a look that came too late.
            let _ = tenant.delete_pod(&host_name).await;
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &name.0);
        unless_gone(pods.delete(&name.1, &DeleteParams::default().grace_period(0)).await)?;
        self.running.borrow_mut().remove(name);
        let _ = std::fs::remove_file(self.folder.join(format!("{}.{}", name.0, name.1)));
        Ok(())
    }
}

/// Makes the nodes of a host, or of a virtual cluster that mirrors them.
///
/// # Errors
/// When the API server refuses.
pub async fn make_nodes(client: &Client, fabric: &Fabric) -> anyhow::Result<()> {
    let nodes: Api<KubeNode> = Api::all(client.clone());
    for node in &fabric.nodes {
        let object: KubeNode = serde_json::from_value(json!({"metadata": {"name": node.name}}))?;
        nodes.create(&PostParams::default(), &object).await?;
        let status = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": node.address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }});
        nodes.patch_status(node.name, &PatchParams::default(), &Patch::Merge(status)).await?;
    }
    Ok(())
}

fn name(pod: &Pod) -> Name {
    (pod.namespace().unwrap_or_default(), pod.name_any())
}

fn unless_gone<T>(outcome: kube::Result<T>) -> kube::Result<()> {
    match outcome {
        Ok(_) => Ok(()),
        Err(Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}
