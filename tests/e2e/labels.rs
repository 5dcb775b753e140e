//! Selectors, labels, annotations and finalizers: whose they are, and what never crosses.

use anyhow::{Context, Result, ensure};
use k3k_expose_tests::eventually;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::world::{CLUSTER, SOON, World, change, create, replace, service};

/// A finalizer that is nobody's of ours.
const FINALIZER: &str = "example.com/others";

#[tokio::test]
async fn a_selector_is_bound_to_the_tenant_and_its_namespace_whatever_it_asks_for() -> Result<()> {
    let world = World::shared("follow", CLUSTER).await?;
    let services = world.namespace("selectors").await?;
    let ports = json!([{"port": 80}]);
    // As k3k labels its server pods and a neighbor its own.
    let greedy = json!({"selector": {"cluster": "mine", "role": "server"}, "ports": ports});
    let greedy = create(&services, &service("greedy", greedy)).await?;
    let own = json!({"selector": {"k3k.io/clusterName": "mine", "k3k.io/namespace": "selectors"}, "ports": ports});
    let own = create(&services, &service("own", own)).await?;
    let none = create(&services, &service("none", json!({"ports": ports}))).await?;
    for (wanted, chosen) in
        [(greedy, json!({"cluster": "mine", "role": "server"})), (own, json!({})), (none, Value::Null)]
    {
        let is = world.follows(&wanted).await?.spec.context("a spec")?.selector;
        let mut bound = chosen;
        if !bound.is_null() {
            bound["k3k.io/clusterName"] = "mine".into();
            bound["k3k.io/namespace"] = "selectors".into();
        }
        assert_eq!(json!(is), bound);
    }
    Ok(())
}

#[tokio::test]
async fn a_selector_with_a_reserved_key_is_refused_and_takes_the_twin_along() -> Result<()> {
    let world = World::shared("follow", CLUSTER).await?;
    let services = world.namespace("reserved").await?;
    let reserved = [("k3k.io/clusterName", "other"), ("k3k.io/namespace", "kube-system"), ("k3k.io/agentName", "x")];
    let spec = |selector: Value| json!({"selector": selector, "ports": [{"port": 80}]});
    for (number, (key, value)) in reserved.into_iter().enumerate() {
        let name = format!("refused-{number}");
        create(&services, &service(&name, spec(json!({"app": "web", key: value})))).await?;
        world.told(&name, "reserved", "ReservedSelectorKey").await?;
        world.no_twin(&name, "reserved").await?;
    }
    let turns = create(&services, &service("turns", spec(json!({"app": "web"})))).await?;
    world.follows(&turns).await?;
    replace(&services, "turns", json!({"spec": {"selector": {"k3k.io/clusterName": "other"}}})).await?;
    world.no_twin("turns", "reserved").await?;
    let back = replace(&services, "turns", json!({"spec": {"selector": {"k3k.io/clusterName": null, "app": "web"}}}));
    world.follows(&back.await?).await?;
    Ok(())
}

#[tokio::test]
async fn reserved_labels_and_unlisted_annotations_never_cross() -> Result<()> {
    let world = World::shared("follow", CLUSTER).await?;
    let services = world.namespace("crossing").await?;
    let mut web = service("web", json!({"ports": [{"port": 80}]}));
    let reserved = json!({
        "k3k.io/clusterName": "other", "sub.k3k.io/x": "y", "app.kubernetes.io/managed-by": "Helm",
        "service.kubernetes.io/service-proxy-name": "none", "service.kubernetes.io/headless": "", "x.k8s.io/y": "z",
    });
    let free = json!({"app.kubernetes.io/name": "web", "team": "a", "k3k.io.example.com/x": "y", "notk8s.io/x": "y"});
    let mut labels = reserved.clone();
    labels.as_object_mut().context("an object")?.extend(free.as_object().context("an object")?.clone());
    web.metadata.labels = serde_json::from_value(labels)?;
    web.metadata.annotations = serde_json::from_value(json!({
        "service.beta.kubernetes.io/aws-load-balancer-type": "nlb", "example.com/note": "x",
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
        "k3k.io/name": "other", "k3k.io/namespace": "other", "expose.k3k.io/uid": "0", "expose.k3k.io/virtual-cluster": "0",
    }))?;
    let twin = world.follows(&create(&services, &web).await?).await?;
    let mut expected = free;
    expected["k3k.io/clusterName"] = "mine".into();
    expected["app.kubernetes.io/managed-by"] = "k3k-expose".into();
    assert_eq!(json!(twin.labels()), expected);
    let keys: Vec<_> = twin.annotations().keys().map(String::as_str).collect();
    assert_eq!(keys, ["expose.k3k.io/uid", "expose.k3k.io/virtual-cluster", "k3k.io/name", "k3k.io/namespace"]);
    assert_ne!(twin.annotations()["expose.k3k.io/virtual-cluster"], "0");
    Ok(())
}

#[tokio::test]
async fn what_others_put_on_a_twin_survives_100_updates_of_the_tenant() -> Result<()> {
    let world = World::shared("follow", CLUSTER).await?;
    let services = world.namespace("survival").await?;
    let web = create(&services, &service("web", json!({"ports": [{"port": 80}]}))).await?;
    let name = world.follows(&web).await?.name_any();
    let others = json!({"metadata": {
        "labels": {"example.com/cost": "7", "owner": "platform"}, "annotations": {"example.com/dns": "web.example.com"},
        "finalizers": [FINALIZER],
    }});
    as_another(&world, &name, others).await?;
    for round in 0..100 {
        let patch = json!({
            "metadata": {"labels": {"round": round.to_string(), format!("at-{}", round % 3): "x",
                format!("at-{}", (round + 1) % 3): null}},
            "spec": {"ports": [{"name": "web", "port": 1000 + round}], "selector": {format!("app-{}", round % 2): "web",
                format!("app-{}", (round + 1) % 2): null}},
        });
        let wanted = replace(&services, "web", patch).await?;
        // So fast that host-api hears of the next one while it writes the last.
        if round % 33 == 32 || round == 99 {
            let twin = has_arrived(&world, &wanted).await?;
            assert_eq!(twin.finalizers(), [FINALIZER], "round {round}");
            for (key, value) in [("example.com/cost", "7"), ("owner", "platform")] {
                assert_eq!(twin.labels().get(key).map(String::as_str), Some(value), "round {round}");
            }
            assert_eq!(twin.annotations().get("example.com/dns").map(String::as_str), Some("web.example.com"));
        }
    }
    as_another(&world, &name, json!({"metadata": {"finalizers": null}})).await
}

#[tokio::test]
async fn others_who_write_their_own_keys_on_a_twin_are_no_contest() -> Result<()> {
    let world = World::shared("follow", CLUSTER).await?;
    let services = world.namespace("visitors").await?;
    let web = create(&services, &service("web", json!({"ports": [{"port": 80}]}))).await?;
    let name = world.follows(&web).await?.name_any();
    for round in 0..6 {
        let note = round.to_string();
        as_another(
            &world,
            &name,
            json!({"metadata": {"annotations": {"example.com/seen": note}, "labels": {"example.com/seen": note}}}),
        )
        .await?;
        // A second Service shows that host-api has seen the visit and that what follows from it was told.
        let fence = create(&services, &service(&format!("fence-{round}"), json!({"ports": [{"port": 80}]}))).await?;
        world.follows(&fence).await?;
    }
    let wanted = change(&services, "web", json!({"metadata": {"labels": {"team": "a"}}})).await?;
    has_arrived(&world, &wanted).await?;
    let refused: Vec<_> =
        world.agent.log_lines()?.into_iter().filter(|line| line.contains("services/visitors/web")).collect();
    assert!(refused.is_empty(), "{refused:?}");
    Ok(())
}

/// Patches a twin under a name that is nobody's of ours.
async fn as_another(world: &World, twin: &str, patch: Value) -> Result<()> {
    let params = PatchParams { field_manager: Some("visitor".to_owned()), ..PatchParams::default() };
    world.tenant.host_services().patch(twin, &params, &Patch::Merge(patch)).await?;
    Ok(())
}

/// The twin, once it has the tenant's labels, ports and selector, beside what is others' on it.
async fn has_arrived(world: &World, wanted: &Service) -> Result<Service> {
    let twins = world.tenant.host_services();
    let name = world.tenant.twin_name(&wanted.name_any(), &wanted.namespace().unwrap_or_default());
    eventually(&format!("{name} is up to date"), SOON, async || {
        let twin = twins.get(&name).await?;
        let mut bare = twin.clone();
        bare.metadata.finalizers = None;
        bare.labels_mut().retain(|key, _| !key.starts_with("example.com/") && key != "owner");
        bare.annotations_mut().retain(|key, _| !key.starts_with("example.com/"));
        let differences = crate::same::differences(&world.tenant, wanted, &bare);
        ensure!(differences.is_empty(), "{}", differences.join("; "));
        anyhow::Ok(twin)
    })
    .await
}
