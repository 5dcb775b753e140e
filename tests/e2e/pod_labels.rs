//! The MutatingAdmissionPolicy on pods, with no host-api anywhere: labels are right at every moment.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::k3k::{self, HostPod, Tenant, TenantOptions};
use k3k_expose_tests::{ControlPlane, PlaneOptions, manifest};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::time::timeout;

/// A policy is compiled and takes effect about a second after it was applied.
const EFFECTIVE: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(20);

/// A host of its own: others make pods whose labels are wrong on purpose.
async fn host() -> Result<&'static ControlPlane> {
    static HOST: OnceCell<ControlPlane> = OnceCell::const_new();
    HOST.get_or_try_init(async || {
        let host = ControlPlane::start(PlaneOptions::new("pod-labels")).await?;
        let client = host.client().await?;
        k3k::install(&client).await?;
        manifest::apply_file(&client, &manifest::folder().join("base/pod-labels.yaml")).await?;
        let tenant = Tenant::create(&client, "labels-probe", "mine", TenantOptions::default()).await?;
        let probe = async || {
            let name = format!("probe-{}", tenant.cluster_uid);
            let pod = tenant.tenant_pod(&name, "shop", &[], false).await?;
            let pods: Api<Pod> = Api::namespaced(client.clone(), "labels-probe");
            tenant.delete_pod(&pod.name_any()).await?;
            ensure!(pods.get_opt(&pod.name_any()).await?.is_none(), "the probe is still there");
            ensure!(pod.labels().contains_key("k3k.io/namespace"), "{:?}", pod.labels());
            anyhow::Ok(())
        };
        eventually("the policy", EFFECTIVE, probe).await?;
        anyhow::Ok(host)
    })
    .await
}

async fn tenant(client: &Client, namespace: &str, cluster: &str) -> Result<Tenant> {
    Tenant::create(client, namespace, cluster, TenantOptions::default()).await
}

/// The two labels of a pod.
fn labels(pod: &Pod) -> [Option<&str>; 2] {
    ["k3k.io/clusterName", "k3k.io/namespace"].map(|key| pod.labels().get(key).map(String::as_str))
}

/// A pod of a virtual cluster with these labels and annotations on the host.
fn pod(tenant: &Tenant, name: &str, namespace: &str, labels: Value, annotations: Value) -> Result<HostPod> {
    let strings = |value| serde_json::from_value::<BTreeMap<String, String>>(value);
    Ok(HostPod {
        name: k3k::host_name(name, namespace, &tenant.cluster),
        labels: strings(labels)?,
        annotations: strings(annotations)?,
        owners: vec![tenant.owner_reference(true)],
        ports: Vec::new(),
        ready: true,
        place: None,
    })
}

#[tokio::test]
async fn forged_labels_are_put_right_on_create() -> Result<()> {
    let client = host().await?.client().await?;
    // The first name is short enough to be kept whole, the others are cut.
    for (namespace, cluster, name) in [
        ("labels-whole", "c", "w"),
        ("labels-cut", "mine", "web-7d9f8c6b5d-x2x4z"),
        ("labels-long", "mine", "a-pod-with-a-name-so-long-that-nothing-else-is-left-of-it-at-all"),
    ] {
        let tenant = tenant(&client, namespace, cluster).await?;
        let truth = json!({"k3k.io/name": name, "k3k.io/namespace": "shop"});
        let forged = json!({"k3k.io/clusterName": "other", "k3k.io/namespace": "kube-system", "app": "web"});
        let made = tenant.create_pod(pod(&tenant, name, "shop", forged, truth)?).await?;
        assert_eq!(labels(&made), [Some(cluster), Some("shop")], "{name}");
        assert_eq!(made.labels()["app"], "web");
    }
    Ok(())
}

#[tokio::test]
async fn a_claim_that_the_name_contradicts_gets_no_label() -> Result<()> {
    let client = host().await?.client().await?;
    let tenant = tenant(&client, "labels-claims", "mine").await?;
    let long = "x".repeat(300);
    for (number, claim) in [
        json!({"k3k.io/namespace": "bank"}),
        json!({}),
        json!({"k3k.io/name": "web", "k3k.io/namespace": "bank"}),
        json!({"k3k.io/name": long, "k3k.io/namespace": "shop"}),
        json!({"k3k.io/name": "", "k3k.io/namespace": "Not A Label"}),
    ]
    .into_iter()
    .enumerate()
    {
        let forged = json!({"k3k.io/clusterName": "mine", "k3k.io/namespace": "bank"});
        let made = tenant.create_pod(pod(&tenant, &format!("web-{number}"), "shop", forged, claim.clone())?).await?;
        assert_eq!(labels(&made), [None, None], "{claim}");
    }
    Ok(())
}

#[tokio::test]
async fn updates_neither_forge_nor_erase_labels() -> Result<()> {
    let client = host().await?.client().await?;
    let params = PatchParams::default();
    for (namespace, cluster, name) in
        [("labels-update", "c", "w"), ("labels-update-cut", "mine", "web-7d9f8c6b5d-x2x4z")]
    {
        let tenant = tenant(&client, namespace, cluster).await?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let made = tenant.tenant_pod(name, "shop", &[("app", "web")], false).await?;
        let right = [Some(cluster), Some("shop")];
        assert_eq!(labels(&made), right);
        for change in [
            json!({"labels": {"k3k.io/clusterName": "other", "k3k.io/namespace": "bank"}}),
            json!({"labels": {"k3k.io/clusterName": null, "k3k.io/namespace": null}}),
            // As k3k 1.1 does when the virtual pod is updated.
            json!({"labels": null}),
            json!({"labels": {"k3k.io/namespace": ""}}),
        ] {
            let patch = Patch::Merge(json!({"metadata": change}));
            let after = pods.patch(&made.name_any(), &params, &patch).await?;
            assert_eq!(labels(&after), right, "{change}");
            let after = pods.patch_status(&made.name_any(), &params, &patch).await?;
            assert_eq!(labels(&after), right, "{change} by status");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_forged_annotation_never_leads_to_another_label() -> Result<()> {
    let client = host().await?.client().await?;
    for (namespace, cluster, name, left) in [
        ("labels-annotation", "c", "w", [None, None]),
        ("labels-annotation-cut", "mine", "web-7d9f8c6b5d-x2x4z", [Some("mine"), Some("shop")]),
    ] {
        let tenant = tenant(&client, namespace, cluster).await?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let made = tenant.tenant_pod(name, "shop", &[], false).await?;
        let forged = Patch::Merge(json!({"metadata": {"annotations": {"k3k.io/namespace": "bank"}}}));
        let after = pods.patch(&made.name_any(), &PatchParams::default(), &forged).await?;
        assert_eq!(labels(&after), left, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn pods_that_no_cluster_controls_stay_as_they_are() -> Result<()> {
    let client = host().await?.client().await?;
    let tenant = tenant(&client, "labels-others", "mine").await?;
    let server: Api<Pod> = Api::namespaced(client.clone(), "labels-others");
    let server = server.get(&tenant.server_pod_name(0)).await?;
    assert_eq!(labels(&server), [None, None]);
    let mut not_controlled = pod(&tenant, "web", "shop", json!({"k3k.io/namespace": "x"}), json!({}))?;
    not_controlled.owners = vec![tenant.owner_reference(false)];
    assert_eq!(labels(&tenant.create_pod(not_controlled).await?), [None, Some("x")]);
    Ok(())
}

#[tokio::test]
async fn a_service_is_never_without_endpoints_while_all_its_pods_are_replaced() -> Result<()> {
    let client = host().await?.client().await?;
    let tenant = tenant(&client, "labels-replaced", "mine").await?;
    let twin: Service = serde_json::from_value(json!({
        "metadata": {"name": "twin"},
        "spec": {
            "selector": {"app": "web", "k3k.io/clusterName": "mine", "k3k.io/namespace": "shop"}, "ports": [{"port": 80}],
        },
    }))?;
    tenant.host_services().create(&PostParams::default(), &twin).await?;
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "labels-replaced");
    let selected = ListParams::default().labels("kubernetes.io/service-name=twin");
    let endpoints = async |pods: &[String]| {
        let mut found: Vec<String> = slices
            .list(&selected)
            .await?
            .items
            .into_iter()
            .flat_map(|slice| slice.endpoints)
            .filter_map(|endpoint| endpoint.target_ref?.name)
            .collect();
        found.sort_unstable();
        ensure!(found == pods, "{found:?}");
        anyhow::Ok(())
    };
    let mut old: Vec<String> = Vec::new();
    let mut first = None;
    for generation in 0..3 {
        let mut new = Vec::new();
        for number in 0..3 {
            let name = format!("web-{generation}-{number}");
            // Equal labels in another virtual namespace are another matter.
            tenant.tenant_pod(&name, "bank", &[("app", "web")], false).await?;
            new.push(tenant.tenant_pod(&name, "shop", &[("app", "web")], false).await?.name_any());
            if let Some(gone) = old.pop() {
                tenant.delete_pod(&gone).await.context("replacing a pod")?;
            }
        }
        new.sort_unstable();
        eventually("endpoints of the new pods", SOON, async || endpoints(&new).await).await?;
        if first.is_none() {
            first = slices.list(&selected).await?.metadata.resource_version;
        }
        old = new;
    }
    let last = slices.list(&selected).await?.items.remove(0).metadata.resource_version;
    let from = first.context("the first generation had endpoints")?;
    let params = WatchParams::default().labels("kubernetes.io/service-name=twin");
    let mut states = Box::pin(slices.watch(&params, &from).await?);
    let mut seen = 0;
    loop {
        let event = timeout(SOON, states.next()).await?.context("the watch ended")??;
        let WatchEvent::Modified(slice) = event else { bail!("no change of the one slice: {event:?}") };
        ensure!(!slice.endpoints.is_empty(), "without endpoints after {seen} changes");
        seen += 1;
        if slice.metadata.resource_version == last {
            break;
        }
    }
    ensure!(seen > 2, "{seen} changes");
    Ok(())
}
