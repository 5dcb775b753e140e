//! Who gets no agent, and is otherwise as the API server makes it without any webhook.

use anyhow::Result;
use k3k_expose_tests::k3k::{HostPod, Mode, Tenant, TenantOptions};
use k3k_expose_tests::{eventually, webhook};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use serde_json::{Value, json};

use super::stage;
use crate::world::SOON;

const CONTROLLED: TenantOptions =
    TenantOptions { mode: Mode::Shared, servers: 1, sync_services: false, controlled: true };

/// A pod's spec and labels as text, without what the API server draws at random.
fn text(pod: &Pod) -> String {
    let spec = pod.spec.clone().unwrap_or_default();
    let drawn = spec.volumes.iter().flatten().find(|volume| volume.name.starts_with("kube-api-access-"));
    let drawn = drawn.map_or("-", |volume| volume.name.as_str()).to_owned();
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    // The StatefulSet controller's own, by the hash of the template.
    labels.remove("controller-revision-hash");
    json!({"spec": spec, "labels": labels}).to_string().replace(&drawn, "drawn")
}

async fn made(client: &Client, namespace: &str, mode: Mode, opt_out: Option<&str>) -> Result<Pod> {
    // The opt-out is there before the pod, as it must be.
    let labels = if opt_out == Some("namespace") { json!({"expose.k3k.io/inject": "disabled"}) } else { json!({}) };
    stage::namespace(client, namespace, labels).await?;
    let tenant = Tenant::create(client, namespace, "mine", TenantOptions { mode, ..CONTROLLED }).await?;
    let mut pod = stage::server_pod(client, &tenant).await?;
    if opt_out == Some("Cluster") {
        tenant.annotate_cluster("expose.k3k.io/inject", Some("disabled")).await?;
        let name = tenant.server_pod_name(0);
        pod = eventually("a pod that was made after the opt-out", SOON, async || {
            let pod = stage::pods(client, namespace).get(&name).await?;
            if stage::sidecar(&pod).is_some() {
                // Maybe host-api has not seen the annotation yet.
                tenant.delete_pod(&name).await?;
                anyhow::bail!("it has the agent");
            }
            anyhow::Ok(pod)
        })
        .await?;
    }
    Ok(pod)
}

#[tokio::test]
async fn whoever_gets_no_agent_is_as_without_a_webhook_byte_by_byte() -> Result<()> {
    // It takes the webhook away, so it has a host for itself.
    let stage = stage::boot("inject-left").await?;
    let client = stage.host.client().await?;
    let injected = stage::tenant(&client, "left-injected", "mine").await?;
    eventually("the API server asks host-api", SOON, async || {
        let pod = stage::pods(&client, "left-injected").get(&injected.server_pod_name(0)).await?;
        if stage::sidecar(&pod).is_none() {
            injected.delete_pod(&injected.server_pod_name(0)).await?;
            anyhow::bail!("made too early");
        }
        anyhow::Ok(())
    })
    .await?;

    let mut pods = vec![
        ("virtual mode", made(&client, "left-virtual", Mode::Virtual, None).await?),
        ("hcp mode", made(&client, "left-hcp", Mode::Hcp, None).await?),
        ("opted out namespace", made(&client, "left-namespace", Mode::Shared, Some("namespace")).await?),
        ("opted out Cluster", made(&client, "left-cluster", Mode::Shared, Some("Cluster")).await?),
    ];
    // The same set without an owner; the Cluster of this namespace has none of its own.
    let mut orphan =
        Tenant::create(&client, "left-orphan", "other", TenantOptions { servers: 0, ..CONTROLLED }).await?;
    orphan.cluster = "mine".to_owned();
    orphan.create_stateful_set(&injected.stateful_set, None, 1).await?;
    orphan.stateful_set.clone_from(&injected.stateful_set);
    pods.push(("a set without a Cluster", stage::server_pod(&client, &orphan).await?));

    let worn = HostPod { name: "worn".to_owned(), labels: injected.server_labels(), ..HostPod::default() };
    let wears = HostPod { owners: vec![injected.owner_reference(true)], ..worn.clone() };
    let claims = HostPod {
        owners: vec![Tenant::stateful_set_reference(&injected.stateful_set, &injected.stateful_set_uid)],
        ..worn.clone()
    };
    let mut by_others = Vec::new();
    for (what, pod) in [("a tenant pod with a server's labels", &wears), ("a pod of another creator", &claims)] {
        by_others.push((what, pod.create(&client, "left-injected").await?));
        injected.delete_pod(&pod.name).await?;
    }

    webhook::remove(&client).await?;
    let reference = eventually("a pod that nobody was asked about", SOON, async || {
        let pod = stage::pods(&client, "left-injected").get(&injected.server_pod_name(0)).await?;
        if stage::sidecar(&pod).is_some() {
            injected.delete_pod(&injected.server_pod_name(0)).await?;
            anyhow::bail!("the API server still asks");
        }
        anyhow::Ok(pod)
    })
    .await?;
    for (what, pod) in &pods {
        assert_eq!(text(pod), text(&reference), "{what}");
    }
    for (what, pod) in &by_others {
        let owners: Value = json!(pod.metadata.owner_references);
        let again = HostPod { owners: serde_json::from_value(owners)?, ..worn.clone() };
        let reference = again.create(&client, "left-injected").await?;
        injected.delete_pod("worn").await?;
        assert_eq!(text(pod), text(&reference), "{what}");
    }
    Ok(())
}

#[tokio::test]
async fn a_cluster_in_another_mode_is_told_that_exposure_is_not_available() -> Result<()> {
    let (_, client) = stage::shared().await?;
    let options = TenantOptions { mode: Mode::Virtual, ..CONTROLLED };
    let tenant = Tenant::create(&client, "inject-mode", "mine", options).await?;
    let event = stage::told(&client, &tenant, "UnsupportedMode").await?;
    assert!(event.message.unwrap_or_default().contains("exposure is not available in this mode"));
    Ok(())
}
