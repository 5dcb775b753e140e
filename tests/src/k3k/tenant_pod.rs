//! The pods of a tenant on the host: its servers with their tokens, and those of its workloads.

use std::collections::BTreeMap;

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{HostPod, Tenant, composed_name, host_name};
use crate::token::{self, AUDIENCE, BoundPod, TokenWish};

impl Tenant {
    /// The name of a server pod.
    #[must_use]
    pub fn server_pod_name(&self, ordinal: u32) -> String {
        format!("{}-{ordinal}", self.stateful_set)
    }

    /// Makes a server pod as the StatefulSet controller would, again after a deletion too.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn create_server_pod(&self, ordinal: u32) -> anyhow::Result<Pod> {
        let owner = Self::stateful_set_reference(&self.stateful_set, &self.stateful_set_uid);
        self.create_pod(HostPod {
            name: self.server_pod_name(ordinal),
            labels: self.server_labels(),
            owners: vec![owner],
            ..HostPod::default()
        })
        .await
    }

    /// Makes any pod in the tenant's host namespace, for example one that only looks like a server.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn create_pod(&self, pod: HostPod) -> anyhow::Result<Pod> {
        pod.create(&self.host, &self.namespace).await
    }

    /// A ready pod of a virtual workload, as k3k-kubelet makes it on the host.
    ///
    /// `labeled` adds the namespace label that k3k itself does not write, and without which a twin cannot tell
    /// the tenant's namespaces apart.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn tenant_pod(
        &self,
        name: &str,
        virtual_namespace: &str,
        labels: &[(&str, &str)],
        labeled: bool,
    ) -> anyhow::Result<Pod> {
        let mut pod = self.synced_pod(name, virtual_namespace, strings(labels));
        if labeled {
            pod.labels.insert("k3k.io/namespace".to_owned(), virtual_namespace.to_owned());
        }
        pod.ready = true;
        self.create_pod(pod).await
    }

    /// The pod that k3k-kubelet makes on the host of one in the virtual cluster, without k3k-expose's label.
    #[must_use]
    pub fn synced_pod(&self, name: &str, virtual_namespace: &str, labels: BTreeMap<String, String>) -> HostPod {
        let mut all = labels;
        all.extend(strings(&[
            ("k3k.io/clusterName", &self.cluster),
            ("k3k.io/agentName", &composed_name(&["k3k", &self.cluster, "kubelet"])),
        ]));
        HostPod {
            name: host_name(name, virtual_namespace, &self.cluster),
            labels: all,
            annotations: strings(&[("k3k.io/name", name), ("k3k.io/namespace", virtual_namespace)]),
            owners: vec![self.owner_reference(true)],
            ..HostPod::default()
        }
    }

    /// The token that a server pod has mounted: our audience, one hour, bound to the pod.
    ///
    /// # Errors
    /// When the pod does not exist.
    pub async fn server_pod_token(&self, ordinal: u32) -> anyhow::Result<String> {
        self.pod_token(&self.server_pod_name(ordinal), AUDIENCE).await
    }

    /// A token bound to any pod of the namespace, for any audience.
    ///
    /// # Errors
    /// When the pod does not exist.
    pub async fn pod_token(&self, pod: &str, audience: &str) -> anyhow::Result<String> {
        let found = self.pods().get(pod).await.with_context(|| format!("pod {pod}"))?;
        let pod = BoundPod { name: pod.to_owned(), uid: found.uid().context("an object has a UID")? };
        let wish = TokenWish { audiences: vec![audience.to_owned()], seconds: 3600, pod: Some(pod) };
        token::request(&self.host, &self.namespace, "default", wish).await
    }

    /// Deletes a pod; it is gone when this returns.
    ///
    /// # Errors
    /// When it does not exist.
    pub async fn delete_pod(&self, name: &str) -> anyhow::Result<()> {
        self.pods().delete(name, &DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }

    /// Sets the phase of a pod: `Pending`, `Running`, `Succeeded`, `Failed`.
    ///
    /// # Errors
    /// When it does not exist.
    pub async fn set_pod_phase(&self, name: &str, phase: &str) -> anyhow::Result<()> {
        let patch = Patch::Merge(json!({"status": {"phase": phase}}));
        self.pods().patch_status(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.host.clone(), &self.namespace)
    }
}

fn strings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
