//! Create, change and delete follow.

use anyhow::Result;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::world::{World, create, service};

#[tokio::test]
async fn a_service_gets_its_twin_follows_its_changes_and_goes() -> Result<()> {
    let world = World::start("follow").await?;
    let services = world.namespace("first").await?;
    let spec = json!({"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]});
    let web = create(&services, &service("web", spec)).await?;
    let twin = world.twin(&web, |_| true).await?;
    let (wanted, found) = (web.spec.as_ref().unwrap(), twin.spec.as_ref().unwrap());
    assert_eq!(found.cluster_ip, wanted.cluster_ip);
    assert_eq!(found.ports, wanted.ports);
    assert_eq!(
        serde_json::to_value(&found.selector)?,
        json!({"app": "web", "k3k.io/clusterName": "mine", "k3k.io/namespace": "first"})
    );

    let patch = json!({"spec": {"sessionAffinity": "ClientIP", "selector": {"app": null, "tier": "front"}}});
    let web = services.patch("web", &PatchParams::default(), &Patch::Merge(&patch)).await?;
    let changed = world
        .twin(&web, |twin| twin.spec.as_ref().unwrap().session_affinity.as_deref() == Some("ClientIP"))
        .await?;
    assert_eq!(changed.uid(), twin.uid());
    assert!(!changed.spec.unwrap().selector.unwrap().contains_key("app"));

    services.delete("web", &DeleteParams::default()).await?;
    world.no_twin("web", "first").await
}
