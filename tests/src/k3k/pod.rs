//! Pods on the host as objects: no kubelet runs them, so their status is what a test says it is.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

/// The Node that tenant pods are bound to.
pub const NODE: &str = "rig-node";

static NEXT_ADDRESS: AtomicU16 = AtomicU16::new(1);

/// A pod to be made.
#[derive(Clone, Debug, Default)]
pub struct HostPod {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its owners.
    pub owners: Vec<OwnerReference>,
    /// Named container ports, for Services with a named target port.
    pub ports: Vec<(String, i32)>,
    /// Whether it is bound to [`NODE`] and ready, with an address of its own.
    pub ready: bool,
    /// Where it really runs, if it does; it is made ready by itself then.
    pub place: Option<Place>,
}

/// Where a pod really runs.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The name of its node.
    pub node: &'static str,
    /// The address of that node.
    pub node_address: Ipv4Addr,
    /// Its own address.
    pub address: Ipv4Addr,
}

impl HostPod {
    /// Makes the pod and brings its status to Running.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn create(&self, host: &Client, namespace: &str) -> anyhow::Result<Pod> {
        let pods: Api<Pod> = Api::namespaced(host.clone(), namespace);
        let ports: Vec<_> =
            self.ports.iter().map(|(name, number)| json!({"name": name, "containerPort": number})).collect();
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {
                "name": self.name, "labels": self.labels, "annotations": self.annotations,
                "ownerReferences": self.owners,
            },
            "spec": {
                "containers": [{"name": "main", "image": "example.com/none", "ports": ports}],
                // A bound pod is gone only when its kubelet says so, and there is none; with 0 it goes at once.
                "terminationGracePeriodSeconds": 0,
            },
        }))?;
        let node = self.place.map(|place| place.node).or(self.ready.then_some(NODE));
        if let Some(spec) = &mut pod.spec {
            spec.node_name = node.map(str::to_owned);
        }
        pods.create(&PostParams::default(), &pod).await.with_context(|| format!("making pod {}", self.name))?;
        let status = match self.place {
            Some(place) => running(&place.address.to_string(), Some(place.node_address)),
            None if self.ready => running(&address(), None),
            None => json!({"status": {"phase": "Running"}}),
        };
        let changed = pods.patch_status(&self.name, &PatchParams::default(), &Patch::Merge(status)).await;
        changed.with_context(|| format!("status of pod {}", self.name))
    }
}

/// The status of a ready pod, on either side.
pub(crate) fn running(address: &str, node: Option<Ipv4Addr>) -> Value {
    json!({"status": {
        "phase": "Running", "hostIP": node, "podIP": address, "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}],
    }})
}

/// An address of k3s's pod range, another one each time.
fn address() -> String {
    let number = NEXT_ADDRESS.fetch_add(1, Ordering::Relaxed);
    let [high, low] = number.to_be_bytes();
    format!("10.42.{high}.{low}")
}
