//! Create, change and delete follow, field by field.

use std::time::Duration;

use anyhow::Result;
use k3k_expose_tests::took;
use kube::ResourceExt;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::world::{CLUSTER, World, change, create, delete, replace, service};

/// What one change should take, from before the virtual call until a look at the host shows it.
const FIGURE: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_service_gets_its_twin_follows_its_changes_and_goes() -> Result<()> {
    let world = World::shared("follow", CLUSTER).await?;
    let services = world.namespace("first").await?;
    let spec = json!({"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]});
    let web = create(&services, &service("web", spec)).await?;
    let twin = world.follows(&web).await?;
    let selector = json!({"app": "web", "k3k.io/clusterName": "mine", "k3k.io/namespace": "first"});
    assert_eq!(json!(twin.spec.as_ref().and_then(|spec| spec.selector.clone())), selector);

    let patch = json!({"spec": {"sessionAffinity": "ClientIP", "selector": {"app": null, "tier": "front"}}});
    let web = change(&services, "web", patch).await?;
    assert_eq!(world.follows(&web).await?.uid(), twin.uid());

    delete(&services, "web").await?;
    world.no_twin("web", "first").await
}

#[tokio::test]
async fn every_change_of_a_load_balancer_follows() -> Result<()> {
    let world = World::shared("follow", CLUSTER).await?;
    let services = world.namespace("changes").await?;
    let spec = json!({
        "type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"name": "web", "port": 80, "targetPort": 8080}],
    });
    let web = create(&services, &service("web", spec)).await?;
    let uid = world.follows(&web).await?.uid();
    let mut slowest = Duration::ZERO;
    for patch in changes() {
        let start = Instant::now();
        let web = replace(&services, "web", patch.clone()).await?;
        let twin = world.follows(&web).await.map_err(|error| error.context(patch.to_string()))?;
        slowest = slowest.max(start.elapsed());
        assert_eq!(twin.uid(), uid, "{patch} made another twin");
    }
    took("the slowest of all changes of a load balancer", slowest, FIGURE);
    Ok(())
}

/// Each field is set, changed and taken away again.
fn changes() -> Vec<Value> {
    let spec = [
        json!({"ports": [{"name": "web", "port": 80, "targetPort": "http"}]}),
        json!({"ports": [{"name": "web", "port": 80, "targetPort": "http", "appProtocol": "kubernetes.io/h2c"}]}),
        json!({"ports": [{"name": "web", "port": 80, "targetPort": "http", "appProtocol": "https"},
            {"name": "dns", "port": 53, "protocol": "UDP"}]}),
        json!({"ports": [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "plain", "port": 80}]}),
        json!({"ports": [{"name": "plain", "port": 81}]}),
        json!({"selector": {"app": "other", "tier": "front"}}),
        json!({"selector": {"app": null}}),
        json!({"selector": null}),
        json!({"selector": {"app": "again"}}),
        json!({"externalTrafficPolicy": "Local"}),
        json!({"internalTrafficPolicy": "Local"}),
        json!({"externalTrafficPolicy": "Cluster"}),
        json!({"internalTrafficPolicy": "Cluster"}),
        json!({"sessionAffinity": "ClientIP"}),
        json!({"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}}),
        json!({"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 61}}}),
        json!({"sessionAffinity": "None", "sessionAffinityConfig": null}),
        json!({"trafficDistribution": "PreferClose"}),
        json!({"trafficDistribution": null}),
        json!({"loadBalancerSourceRanges": ["192.0.2.0/24"]}),
        json!({"loadBalancerSourceRanges": ["198.51.100.0/24", "192.0.2.0/25"]}),
        json!({"loadBalancerSourceRanges": null}),
        json!({"publishNotReadyAddresses": true}),
        json!({"publishNotReadyAddresses": null}),
        json!({"allocateLoadBalancerNodePorts": false, "ports": [{"name": "plain", "port": 81, "nodePort": null}]}),
        json!({"allocateLoadBalancerNodePorts": true}),
    ];
    let labels = [json!({"team": "a", "app.kubernetes.io/name": "web"}), json!({"team": "b"}), json!({"team": null})];
    let spec = spec.into_iter().map(|spec| json!({"spec": spec}));
    spec.chain(labels.into_iter().map(|labels| json!({"metadata": {"labels": labels}}))).collect()
}
