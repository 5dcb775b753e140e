//! A tenant's pod carries its Cluster and its virtual namespace, whatever the tenant says: by the webhook at every moment.

use anyhow::Result;
use k3k_expose_tests::k3k::HostPod;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::stage;

/// The two labels that selectors of twins go by.
fn ours(pod: &Pod) -> Value {
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    json!([labels.get("k3k.io/clusterName"), labels.get("k3k.io/namespace")])
}

#[tokio::test]
async fn forged_and_erased_labels_are_right_in_what_is_stored() -> Result<()> {
    let (_, client) = stage::shared().await?;
    let tenant = stage::tenant(&client, "inject-labels", "mine").await?;
    stage::server_pod(&client, &tenant).await?;
    let pods = stage::pods(&client, "inject-labels");
    let bare = tenant.tenant_pod("bare", "shop", &[("app", "web")], false).await?;
    assert_eq!(ours(&bare), json!(["mine", "shop"]), "k3k itself writes no namespace");
    let name = bare.metadata.name.clone().unwrap_or_default();
    for (what, labels) in [
        ("forged", json!({"k3k.io/clusterName": "other", "k3k.io/namespace": "kube-system"})),
        ("erased", json!({"k3k.io/clusterName": null, "k3k.io/namespace": null})),
    ] {
        let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
        let stored = pods.patch(&name, &PatchParams::default(), &patch).await?;
        assert_eq!(ours(&stored), json!(["mine", "shop"]), "{what} by an update");
        assert_eq!(stored.metadata.labels.unwrap_or_default()["app"], "web");
    }
    // A namespace that the pod's own name contradicts is nobody's.
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"k3k.io/namespace": "bank"}}}));
    let liar = pods.patch(&name, &PatchParams::default(), &patch).await?;
    assert_eq!(ours(&liar), json!([null, null]));
    Ok(())
}

#[tokio::test]
async fn labels_forged_on_create_are_right_in_what_is_stored() -> Result<()> {
    let (_, client) = stage::shared().await?;
    let tenant = stage::tenant(&client, "inject-forged", "mine").await?;
    let strings = |pairs: [(&str, &str); 2]| pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let pod = HostPod {
        name: k3k_expose_tests::k3k::host_name("web-1", "shop", "mine"),
        labels: strings([("k3k.io/clusterName", "other"), ("k3k.io/namespace", "bank")]),
        annotations: strings([("k3k.io/name", "web-1"), ("k3k.io/namespace", "shop")]),
        owners: vec![tenant.owner_reference(true)],
        ..HostPod::default()
    };
    assert_eq!(ours(&pod.create(&client, &tenant.namespace).await?), json!(["mine", "shop"]));
    let server = stage::server_pod(&client, &tenant).await?;
    assert_eq!(ours(&server), json!([null, null]), "a server pod is no tenant's to select");
    let stranger = HostPod { owners: Vec::<_>::new(), name: "stranger".to_owned(), ..pod };
    assert_eq!(
        ours(&stranger.create(&client, &tenant.namespace).await?),
        json!(["other", "bank"]),
        "not ours to judge"
    );
    Ok(())
}
