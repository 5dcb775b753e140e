//! One virtual cluster as the host sees it: the Cluster object and the StatefulSet of its servers.

use std::collections::BTreeMap;

use anyhow::Context;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::{cluster_resource, composed_name, ensure_namespace, server_pod_spec};
use crate::plane::ControlPlane;
use crate::product::k3k_kubeconfig;

/// `spec.mode` of a Cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Pods run on the host: what we serve.
    Shared,
    /// Pods run inside the server pods.
    Virtual,
    /// A hosted control plane.
    Hcp,
}

/// What a Cluster is made with.
#[derive(Clone, Copy, Debug)]
pub struct TenantOptions {
    /// Its mode.
    pub mode: Mode,
    /// How many server pods.
    pub servers: u32,
    /// Whether k3k's own Service syncer is on; k3k's default is yes, ours in tests is no.
    pub sync_services: bool,
    /// Whether the host runs the StatefulSet controller, which then makes the server pods.
    pub controlled: bool,
}

impl Default for TenantOptions {
    fn default() -> Self {
        Self { mode: Mode::Shared, servers: 1, sync_services: false, controlled: false }
    }
}

/// A virtual cluster on the host. It holds a client, so it belongs to the runtime that made it.
#[derive(Clone)]
pub struct Tenant {
    pub(super) host: Client,
    /// The host namespace of its objects.
    pub namespace: String,
    /// The name of its Cluster.
    pub cluster: String,
    /// The UID of its Cluster, which is what identifies a tenant.
    pub cluster_uid: String,
    /// The name of the StatefulSet of its servers.
    pub stateful_set: String,
    /// The UID of that StatefulSet.
    pub stateful_set_uid: String,
}

impl Tenant {
    /// Makes the namespace (if absent), the Cluster, its StatefulSet and its server pods.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn create(host: &Client, namespace: &str, cluster: &str, options: TenantOptions) -> anyhow::Result<Self> {
        ensure_namespace(host, namespace).await?;
        let mode = match options.mode {
            Mode::Shared => "shared",
            Mode::Virtual => "virtual",
            Mode::Hcp => "hcp",
        };
        let object: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "k3k.io/v1beta1", "kind": "Cluster",
            "metadata": {"name": cluster},
            "spec": {
                "mode": mode, "servers": options.servers,
                "sync": {"services": {"enabled": options.sync_services}},
            },
        }))?;
        let clusters: Api<DynamicObject> = Api::namespaced_with(host.clone(), namespace, &cluster_resource());
        let made = clusters.create(&PostParams::default(), &object).await.context("making the Cluster")?;
        let mut tenant = Self {
            host: host.clone(),
            namespace: namespace.to_owned(),
            cluster: cluster.to_owned(),
            cluster_uid: made.uid().context("an object has a UID")?,
            stateful_set: composed_name(&["k3k", cluster, "server"]),
            stateful_set_uid: String::new(),
        };
        let owner = tenant.owner_reference(true);
        let set = tenant.create_stateful_set(&tenant.stateful_set, Some(owner), options.servers).await?;
        tenant.stateful_set_uid = set.uid().context("an object has a UID")?;
        if !options.controlled {
            for ordinal in 0..options.servers {
                tenant.create_server_pod(ordinal).await?;
            }
        }
        Ok(tenant)
    }

    /// The client by which it was made.
    #[must_use]
    pub const fn host_client(&self) -> &Client {
        &self.host
    }

    /// The same tenant with another client, for a test with a runtime of its own.
    #[must_use]
    pub fn with_client(&self, host: &Client) -> Self {
        Self { host: host.clone(), ..self.clone() }
    }

    /// A reference to the Cluster; k3k marks itself as controller on what it runs, and not on what it syncs.
    #[must_use]
    pub fn owner_reference(&self, controller: bool) -> OwnerReference {
        OwnerReference {
            api_version: "k3k.io/v1beta1".to_owned(),
            kind: "Cluster".to_owned(),
            name: self.cluster.clone(),
            uid: self.cluster_uid.clone(),
            controller: controller.then_some(true),
            block_owner_deletion: controller.then_some(true),
        }
    }

    /// A controller reference to a StatefulSet.
    #[must_use]
    pub fn stateful_set_reference(name: &str, uid: &str) -> OwnerReference {
        OwnerReference {
            api_version: "apps/v1".to_owned(),
            kind: "StatefulSet".to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }

    /// The labels of a server pod, in every mode.
    #[must_use]
    pub fn server_labels(&self) -> BTreeMap<String, String> {
        [("cluster", self.cluster.as_str()), ("role", "server")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    /// A StatefulSet that selects this tenant's server pods; the owner may be anybody's, for tests of identity.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn create_stateful_set(
        &self,
        name: &str,
        owner: Option<OwnerReference>,
        replicas: u32,
    ) -> anyhow::Result<StatefulSet> {
        let labels = self.server_labels();
        let set: StatefulSet = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": labels, "ownerReferences": owner.into_iter().collect::<Vec<_>>()},
            "spec": {
                "replicas": replicas, "serviceName": name,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": server_pod_spec(name),
                },
            },
        }))?;
        let sets: Api<StatefulSet> = Api::namespaced(self.host.clone(), &self.namespace);
        sets.create(&PostParams::default(), &set).await.with_context(|| format!("making StatefulSet {name}"))
    }

    /// Writes the Secret with the kubeconfig of that virtual cluster, minted anew each time, as k3k does at every reconcile.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn publish_kubeconfig(&self, virtual_cluster: &ControlPlane) -> anyhow::Result<()> {
        let name = composed_name(&["k3k", &self.cluster, "kubeconfig"]);
        let text = serde_json::to_string(&k3k_kubeconfig(virtual_cluster)?.kubeconfig())?;
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "stringData": {"kubeconfig.yaml": text}});
        let secrets: Api<Secret> = Api::namespaced(self.host.clone(), &self.namespace);
        secrets.patch(&name, &PatchParams::apply("k3k").force(), &Patch::Apply(secret)).await?;
        Ok(())
    }

    /// Switches k3k's own Service syncer on or off, as far as the Cluster says.
    ///
    /// # Errors
    /// When the Cluster is gone.
    pub async fn set_sync_services(&self, enabled: bool) -> anyhow::Result<()> {
        self.patch_cluster(json!({"spec": {"sync": {"services": {"enabled": enabled}}}})).await
    }

    /// The same of k3k's own Ingress syncer, which is off by default.
    ///
    /// # Errors
    /// When the Cluster is gone.
    pub async fn set_sync_ingresses(&self, enabled: bool) -> anyhow::Result<()> {
        self.patch_cluster(json!({"spec": {"sync": {"ingresses": {"enabled": enabled}}}})).await
    }

    /// Exposes only Services with these labels; `null` takes one away.
    ///
    /// # Errors
    /// When the Cluster is gone.
    pub async fn select_services(&self, labels: Value) -> anyhow::Result<()> {
        self.patch_cluster(json!({"spec": {"sync": {"services": {"selector": labels}}}})).await
    }

    /// Sets an annotation of the Cluster, or removes it.
    ///
    /// # Errors
    /// When the Cluster is gone.
    pub async fn annotate_cluster(&self, key: &str, value: Option<&str>) -> anyhow::Result<()> {
        self.patch_cluster(json!({"metadata": {"annotations": {key: value}}})).await
    }

    /// Sets a label of the Cluster, or removes it.
    ///
    /// # Errors
    /// When the Cluster is gone.
    pub async fn label_cluster(&self, key: &str, value: Option<&str>) -> anyhow::Result<()> {
        self.patch_cluster(json!({"metadata": {"labels": {key: value}}})).await
    }

    /// Deletes the Cluster; what it owns goes with the garbage collector.
    ///
    /// # Errors
    /// When it is gone already.
    pub async fn delete_cluster(&self) -> anyhow::Result<()> {
        self.clusters().delete(&self.cluster, &DeleteParams::default()).await?;
        Ok(())
    }

    async fn patch_cluster(&self, patch: Value) -> anyhow::Result<()> {
        self.clusters().patch(&self.cluster, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    fn clusters(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.host.clone(), &self.namespace, &cluster_resource())
    }
}
