//! One host with the StatefulSet controller, one host-api and its webhook for all tests of this theme.

use anyhow::{Context, Result};
use k3k_expose_tests::k3k::{Tenant, TenantOptions};
use k3k_expose_tests::product::{HostApi, HostApiOptions};
use k3k_expose_tests::{ControlPlane, PlaneOptions, eventually, rig, webhook};
use k8s_openapi::api::core::v1::{Container, Event, Namespace, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::world::SOON;

/// Name of the sidecar.
pub(super) const SIDECAR: &str = "k3k-expose-agent";

/// What the tests share.
pub(super) struct Stage {
    pub(super) host: ControlPlane,
    pub(super) host_api: HostApi,
}

/// A host with the StatefulSet controller and a host-api that is asked about pods.
pub(super) async fn boot(name: &str) -> Result<Stage> {
    let options = PlaneOptions::new(name).with_more_controllers(&["statefulset-controller"]);
    let host = rig::host(options).await?;
    let host_api = HostApi::start(&host, HostApiOptions::default()).await?;
    webhook::install_with_labels(&host.client().await?, &host_api).await?;
    Ok(Stage { host, host_api })
}

/// The shared one, with a client for the calling test.
pub(super) async fn shared() -> Result<(&'static Stage, Client)> {
    static STAGE: OnceCell<Stage> = OnceCell::const_new();
    let stage = STAGE.get_or_try_init(async || boot("inject").await).await?;
    let client = stage.host.client().await?;
    asked(&client).await?;
    Ok((stage, client))
}

/// Waits until the API server of the shared stage asks.
async fn asked(client: &Client) -> Result<()> {
    static ASKED: OnceCell<()> = OnceCell::const_new();
    ASKED.get_or_try_init(async || asked_of(client).await).await?;
    Ok(())
}

/// Waits until an API server asks: it learns of a webhook configuration by a watch.
pub(super) async fn asked_of(client: &Client) -> Result<()> {
    let probe = tenant(client, "inject-probe", "probe").await?;
    eventually("the API server asks host-api", SOON, async || {
        // A pod that was made too early is made again.
        let pod = pods(client, "inject-probe").get_opt(&probe.server_pod_name(0)).await?;
        match pod {
            Some(pod) if sidecar(&pod).is_some() => Ok(()),
            Some(_) => {
                probe.delete_pod(&probe.server_pod_name(0)).await?;
                anyhow::bail!("made without the agent")
            }
            None => anyhow::bail!("no pod yet"),
        }
    })
    .await
}

/// A tenant whose server pod the controller makes.
pub(super) async fn tenant(client: &Client, namespace: &str, cluster: &str) -> Result<Tenant> {
    Tenant::create(client, namespace, cluster, TenantOptions { controlled: true, ..TenantOptions::default() }).await
}

/// The first server pod, once the controller has made it.
pub(super) async fn server_pod(client: &Client, tenant: &Tenant) -> Result<Pod> {
    let name = tenant.server_pod_name(0);
    eventually("the server pod", SOON, async || pods(client, &tenant.namespace).get_opt(&name).await.ok().flatten())
        .await
}

/// The sidecar of a pod.
pub(super) fn sidecar(pod: &Pod) -> Option<&Container> {
    pod.spec.as_ref()?.init_containers.as_ref()?.iter().find(|container| container.name == SIDECAR)
}

/// The pods of a namespace.
pub(super) fn pods(client: &Client, namespace: &str) -> Api<Pod> {
    Api::namespaced(client.clone(), namespace)
}

/// A namespace with these labels, before anything is in it.
pub(super) async fn namespace(client: &Client, name: &str, labels: Value) -> Result<()> {
    k3k_expose_tests::k3k::ensure_namespace(client, name).await?;
    let patch = serde_json::json!({"metadata": {"labels": labels}});
    Api::<Namespace>::all(client.clone()).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

/// The Event about a tenant's Cluster with this reason.
pub(super) async fn told(client: &Client, tenant: &Tenant, reason: &str) -> Result<Event> {
    let events: Api<Event> = Api::namespaced(client.clone(), &tenant.namespace);
    eventually(&format!("the Event {reason}"), SOON * 2, async || {
        let all = events.list(&ListParams::default()).await?;
        let mut about =
            all.into_iter().filter(|event| event.involved_object.uid.as_deref() == Some(&tenant.cluster_uid));
        about.find(|event| event.reason.as_deref() == Some(reason)).context("none yet")
    })
    .await
}
