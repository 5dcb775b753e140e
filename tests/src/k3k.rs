//! The part of k3k that this project meets, played on real API servers: CRD, Cluster, server pods, synced objects.
//!
//! Facts and spellings are k3k's (head of August 2026); no code is shared with host-api, so that a shared mistake shows.

mod crd;
mod name;
mod pod;
mod server_pod;
mod tenant;
mod tenant_pod;
mod twin;

use k8s_openapi::api::core::v1::{Namespace, Node, ServiceAccount};
use kube::api::{ApiResource, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, Error};
use serde_json::json;

pub use crd::install_crds;
pub use name::{composed_name, host_name};
pub(crate) use pod::running;
pub use pod::{HostPod, NODE, Place};
pub use server_pod::server_pod_spec;
pub use tenant::{Mode, Tenant, TenantOptions};
pub use twin::add_finalizer;

/// The `Cluster` kind of k3k.
#[must_use]
pub fn cluster_resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("k3k.io", "v1beta1", "Cluster"), "clusters")
}

/// Makes a host out of a plain control plane: the CRD, and a Node for tenant pods.
///
/// # Errors
/// When the API server refuses, or does not serve the CRD in time.
pub async fn install(host: &Client) -> anyhow::Result<()> {
    install_crds(host).await?;
    // The endpointslice-controller leaves out pods whose Node does not exist.
    let node: Node = serde_json::from_value(json!({"metadata": {"name": NODE}}))?;
    unless_exists(Api::all(host.clone()).create(&PostParams::default(), &node).await)?;
    Ok(())
}

/// A namespace with the account that server pods run as, without waiting for the controller that makes it.
///
/// # Errors
/// When the API server refuses.
pub async fn ensure_namespace(host: &Client, namespace: &str) -> anyhow::Result<()> {
    let object: Namespace = serde_json::from_value(json!({"metadata": {"name": namespace}}))?;
    unless_exists(Api::all(host.clone()).create(&PostParams::default(), &object).await)?;
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "default"}}))?;
    unless_exists(Api::namespaced(host.clone(), namespace).create(&PostParams::default(), &account).await)?;
    Ok(())
}

/// Takes "exists already" for done: several tests share one host.
fn unless_exists<T>(outcome: kube::Result<T>) -> kube::Result<()> {
    match outcome {
        Ok(_) => Ok(()),
        Err(Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error),
    }
}
