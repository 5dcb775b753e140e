//! What stands in the way of a pod, or of its agent, never keeps the control plane from starting, and is told.

use anyhow::{Context, Result, bail, ensure};
use k3k_expose_tests::eventually;
use k3k_expose_tests::k3k::Tenant;
use k3k_expose_tests::kubelet::{Kubelet, Step};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{LimitRange, Pod, ResourceQuota};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::stage::{self, SIDECAR};
use crate::world::SOON;

/// What a platform team gives containers that ask for nothing, so that a quota admits them.
fn defaults() -> Value {
    json!({"type": "Container", "default": {"cpu": "200m", "memory": "256Mi"},
        "defaultRequest": {"cpu": "100m", "memory": "128Mi"}})
}

async fn limit(client: &Client, namespace: &str, item: Value) -> Result<()> {
    let range = json!({"metadata": {"name": "limits"}, "spec": {"limits": [item]}});
    let ranges: Api<LimitRange> = Api::namespaced(client.clone(), namespace);
    ranges.create(&PostParams::default(), &serde_json::from_value(range)?).await?;
    Ok(())
}

async fn quota(client: &Client, namespace: &str, hard: Value) -> Result<()> {
    let quotas: Api<ResourceQuota> = Api::namespaced(client.clone(), namespace);
    let quota = json!({"metadata": {"name": "team"}, "spec": {"hard": hard}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota)?).await?;
    // Until the controller has counted, the API server lets nothing in.
    let counted = async || quotas.get("team").await.ok().and_then(|quota| quota.status?.used);
    eventually("the quota counted", SOON, counted).await?;
    Ok(())
}

#[tokio::test]
async fn requests_rise_to_the_minimum_of_a_limit_range() -> Result<()> {
    let (_, client) = stage::shared().await?;
    stage::namespace(&client, "inject-minimum", json!({})).await?;
    let mut item = defaults();
    item["min"] = json!({"cpu": "100m", "memory": "128Mi"});
    limit(&client, "inject-minimum", item).await?;
    let tenant = stage::tenant(&client, "inject-minimum", "mine").await?;
    let pod = stage::server_pod(&client, &tenant).await?;
    let resources = stage::sidecar(&pod).context("no agent")?.resources.clone().unwrap_or_default();
    // 128Mi in bytes.
    assert_eq!(json!(resources.requests), json!({"cpu": "100m", "memory": "134217728"}));
    Ok(())
}

#[tokio::test]
async fn a_quota_without_room_lets_the_server_pod_in_without_the_agent_and_that_is_told() -> Result<()> {
    let (_, client) = stage::shared().await?;
    stage::namespace(&client, "inject-full", json!({})).await?;
    limit(&client, "inject-full", defaults()).await?;
    // Room for k3s alone.
    quota(&client, "inject-full", json!({"requests.cpu": "100m", "requests.memory": "1Gi"})).await?;
    let tenant = stage::tenant(&client, "inject-full", "mine").await?;
    let pod = stage::server_pod(&client, &tenant).await?;
    assert!(stage::sidecar(&pod).is_none());
    let event = stage::told(&client, &tenant, "AgentNotInjected").await?;
    let message = event.message.unwrap_or_default();
    assert!(message.contains("ResourceQuota team has no room for the agent's requests.cpu"), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_restricted_namespace_with_a_quota_admits_the_injected_pod() -> Result<()> {
    let (_, client) = stage::shared().await?;
    let name = "inject-restricted";
    stage::namespace(&client, name, json!({"pod-security.kubernetes.io/enforce": "restricted"})).await?;
    quota(
        &client,
        name,
        json!({"requests.cpu": "1", "requests.memory": "1Gi", "limits.cpu": "2", "limits.memory": "2Gi"}),
    )
    .await?;
    let tenant = stage::tenant(&client, name, "mine").await?;
    // As k3k runs a server where a VirtualClusterPolicy asks for it. Without this the pod is refused for k3s's own sake.
    let container = json!({"name": tenant.stateful_set,
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
        "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}});
    template(&client, &tenant, json!({"containers": [container]})).await?;
    let pod = stage::server_pod(&client, &tenant).await?;
    assert!(stage::sidecar(&pod).is_some());
    Ok(())
}

#[tokio::test]
async fn an_agent_with_a_broken_variable_or_an_unknown_host_lets_k3s_start_and_says_why() -> Result<()> {
    let (stage, client) = stage::shared().await?;
    let tenant = stage::tenant(&client, "inject-broken", "mine").await?;
    let pod = stage::server_pod(&client, &tenant).await?;
    for (name, url, why) in [
        ("broken", "http://host-api", "[-]configuration failed"),
        ("unknown", "https://host-api.k3k-expose.invalid:8443", "[-]session failed"),
    ] {
        let copy = with_url(&pod, name, url)?;
        let pods = stage::pods(&client, &tenant.namespace);
        pods.create(&PostParams::default(), &copy).await?;
        let kubelet = Kubelet::new(&client, &tenant.namespace, name, &stage.host)?;
        let seen = async {
            eventually("k3s may start and the pod is Ready", SOON, async || {
                kubelet.steps().contains(&Step::Ready(true))
            })
            .await?;
            assert!(kubelet.steps().contains(&Step::Started(tenant.stateful_set.clone())));
            let (_, text) = kubelet.get("/syncz?verbose").await?;
            ensure!(text.contains(why), "{text}");
            anyhow::Ok(())
        };
        tokio::select! {
            ended = kubelet.run() => bail!("kubelet ended: {ended:?}"),
            outcome = seen => outcome?,
        }
        assert!(!kubelet.steps().iter().any(|step| matches!(step, Step::Restarted(..))), "{:?}", kubelet.steps());
    }
    Ok(())
}

#[tokio::test]
async fn a_pod_that_has_the_agent_already_gets_no_second_one() -> Result<()> {
    let (_, client) = stage::shared().await?;
    let tenant = stage::tenant(&client, "inject-twice", "mine").await?;
    let spec = stage::server_pod(&client, &tenant).await?.spec.unwrap_or_default();
    let ours = spec.volumes.iter().flatten().filter(|volume| volume.name.starts_with("k3k-expose-"));
    let ours: Vec<_> = ours.collect();
    assert_eq!(ours.len(), 2);
    template(&client, &tenant, json!({"initContainers": spec.init_containers, "volumes": ours})).await?;
    let pods = stage::pods(&client, &tenant.namespace);
    let name = tenant.server_pod_name(0);
    let first = pods.get(&name).await?;
    tenant.delete_pod(&name).await?;
    let again = eventually("the pod made again", SOON, async || {
        pods.get_opt(&name).await.ok().flatten().filter(|pod| pod.uid() != first.uid())
    })
    .await?;
    assert_eq!(json!(again.spec.unwrap_or_default().init_containers), json!(spec.init_containers));
    Ok(())
}

async fn template(client: &Client, tenant: &Tenant, spec: Value) -> Result<()> {
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &tenant.namespace);
    let patch = json!({"spec": {"template": {"spec": spec}}});
    sets.patch(&tenant.stateful_set, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    Ok(())
}

/// A pod with the same spec, but for where the agent finds host-api.
fn with_url(pod: &Pod, name: &str, url: &str) -> Result<Pod> {
    let mut spec = json!(pod.spec);
    let init = spec["initContainers"].as_array_mut().context("init containers")?;
    let agent = init.iter_mut().find(|container| container["name"] == SIDECAR).context("the agent")?;
    let env = agent["env"].as_array_mut().context("its variables")?;
    let variable = env.iter_mut().find(|variable| variable["name"] == "K3K_EXPOSE_HOST_API_URL").context("the URL")?;
    variable["value"] = json!(url);
    Ok(serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))?)
}
