//! Host Services as k3k's own syncer makes them, for tests of take-over.

use anyhow::Context;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::{Tenant, host_name};

/// k3k's field manager on the host.
const FIELD_MANAGER: &str = "k3k-kubelet";

/// What k3k's syncer puts on virtual Services.
const FINALIZER: &str = "service.k3k.io/finalizer";

impl Tenant {
    /// The name of a twin on the host.
    #[must_use]
    pub fn twin_name(&self, name: &str, virtual_namespace: &str) -> String {
        host_name(name, virtual_namespace, &self.cluster)
    }

    /// The host Services of this tenant's namespace.
    #[must_use]
    pub fn host_services(&self) -> Api<Service> {
        Api::namespaced(self.host.clone(), &self.namespace)
    }

    /// The twin that k3k's syncer would have made: a copy with the selector unchanged and the numbers asked for.
    ///
    /// # Errors
    /// When a number is taken on the host.
    pub async fn create_twin_as_k3k(&self, service: &Service) -> anyhow::Result<Service> {
        let name = service.name_any();
        let namespace = service.namespace().unwrap_or_default();
        let mut twin = Service { spec: service.spec.clone(), ..Service::default() };
        twin.metadata.name = Some(self.twin_name(&name, &namespace));
        twin.metadata.labels = Some(service.labels().clone());
        twin.metadata.annotations = Some(service.annotations().clone());
        twin.metadata.owner_references = Some(vec![self.owner_reference(false)]);
        twin.labels_mut().insert("k3k.io/clusterName".to_owned(), self.cluster.clone());
        twin.annotations_mut().insert("k3k.io/name".to_owned(), name.clone());
        twin.annotations_mut().insert("k3k.io/namespace".to_owned(), namespace);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        self.host_services().create(&params, &twin).await.with_context(|| format!("making k3k's twin of {name}"))
    }
}

/// Puts k3k's finalizer on a virtual Service, as its syncer does.
///
/// # Errors
/// When the Service does not exist.
pub async fn add_finalizer(virtual_cluster: &Client, service: &Service) -> anyhow::Result<()> {
    let services: Api<Service> =
        Api::namespaced(virtual_cluster.clone(), &service.namespace().unwrap_or_else(|| "default".to_owned()));
    let patch = Patch::Merge(json!({"metadata": {"finalizers": [FINALIZER]}}));
    services.patch(&service.name_any(), &PatchParams::default(), &patch).await?;
    Ok(())
}
