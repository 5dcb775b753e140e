//! A tenant at work: its virtual cluster, its agent, and clients for both sides.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::k3k::{Tenant, TenantOptions};
use k3k_expose_tests::plane::ControlPlane;
use k3k_expose_tests::product::{Agent, AgentOptions, HostApi};
use k3k_expose_tests::rig::Rig;
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

/// What a change may take to arrive in a test, far above what it takes.
pub const SOON: Duration = Duration::from_secs(20);

/// A tenant at work.
pub struct World {
    /// The tenant on the host.
    pub tenant: Tenant,
    /// Its virtual cluster.
    pub plane: Arc<ControlPlane>,
    /// Its agent.
    pub agent: Agent,
    /// A client of the host, with all rights.
    pub host: Client,
    /// A client of the virtual cluster, with all rights.
    pub virtual_cluster: Client,
}

impl World {
    /// A tenant with a virtual cluster of its own on the shared host.
    pub async fn start(name: &str) -> Result<Self> {
        let rig = Rig::shared();
        let plane = rig.virtual_cluster(name).await?;
        Self::on(rig.host().await?, rig.host_api().await?, plane, name, TenantOptions::default()).await
    }

    /// A tenant on that host, with that virtual cluster.
    pub async fn on(
        host: &ControlPlane,
        host_api: &HostApi,
        plane: Arc<ControlPlane>,
        name: &str,
        options: TenantOptions,
    ) -> Result<Self> {
        let client = host.client().await?;
        let tenant = Tenant::create(&client, &format!("host-{name}"), "mine", options).await?;
        let token = tenant.server_pod_token(0).await?;
        let agent = Agent::start(&plane, host_api, &token, AgentOptions::in_pod(&tenant.server_pod_name(0))).await?;
        agent.wait_ready().await?;
        let virtual_cluster = plane.client().await?;
        Ok(Self { tenant, plane, agent, host: client, virtual_cluster })
    }

    /// Makes a namespace of the virtual cluster and gives its Services.
    pub async fn namespace(&self, name: &str) -> Result<Api<Service>> {
        let namespaces: Api<Namespace> = Api::all(self.virtual_cluster.clone());
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        namespaces.create(&PostParams::default(), &namespace).await?;
        Ok(Api::namespaced(self.virtual_cluster.clone(), name))
    }

    /// The twin of a virtual Service, once there is one that `holds`.
    pub async fn twin(&self, service: &Service, holds: impl Fn(&Service) -> bool) -> Result<Service> {
        let (name, namespace) = (service.name_any(), service.namespace().unwrap_or_default());
        let twins = self.tenant.host_services();
        let twin = self.tenant.twin_name(&name, &namespace);
        eventually(&format!("the twin of {namespace}/{name}"), SOON, async || {
            let found = twins.get_opt(&twin).await?.context("there is none")?;
            ensure!(holds(&found), "it is {}", serde_json::to_string(&found.spec)?);
            anyhow::Ok(found)
        })
        .await
    }

    /// Waits until a virtual Service has no twin.
    pub async fn no_twin(&self, name: &str, namespace: &str) -> Result<()> {
        let twins = self.tenant.host_services();
        let twin = self.tenant.twin_name(name, namespace);
        eventually(&format!("no twin of {namespace}/{name}"), SOON, async || {
            ensure!(twins.get_opt(&twin).await?.is_none(), "it stands");
            anyhow::Ok(())
        })
        .await
    }
}

/// A Service of the virtual cluster.
#[expect(clippy::needless_pass_by_value, reason = "every caller makes it on the spot by `json!`")]
pub fn service(name: &str, spec: Value) -> Service {
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).expect("a Service")
}

/// Creates a Service.
pub async fn create(services: &Api<Service>, service: &Service) -> Result<Service> {
    Ok(services.create(&PostParams::default(), service).await?)
}
