//! Every kind of Service there is: made, changed and deleted.

use std::time::Duration;

use anyhow::Result;
use futures::future::try_join_all;
use k3k_expose_tests::took;
use kube::ResourceExt;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::world::{CLUSTER, World, change, create, delete, service};

/// For all kinds together, side by side.
const FIGURE: Duration = Duration::from_millis(500);

#[tokio::test]
async fn every_kind_of_service_is_made_changed_and_deleted_with_its_twin() -> Result<()> {
    let world = World::shared("follow", CLUSTER).await?;
    let services = world.namespace("kinds").await?;
    let start = Instant::now();
    let twins = kinds(&world.spare_ip(2)).into_iter().map(async |(name, spec)| {
        let made = create(&services, &service(name, spec)).await?;
        anyhow::Ok((name, world.follows(&made).await?.uid()))
    });
    let twins = try_join_all(twins).await?;
    took("all kinds to be made", start.elapsed(), FIGURE);

    let start = Instant::now();
    let changed = twins.iter().map(async |(name, uid)| {
        let patch = json!({"metadata": {"labels": {"changed": "yes"}}, "spec": {"publishNotReadyAddresses": true}});
        let changed = change(&services, name, patch).await?;
        let twin = world.follows(&changed).await?;
        assert_eq!(twin.uid(), *uid, "{name} has another twin");
        anyhow::Ok(())
    });
    try_join_all(changed).await?;
    took("all kinds to be changed", start.elapsed(), FIGURE);

    let start = Instant::now();
    let gone = twins.iter().map(async |(name, _)| {
        delete(&services, name).await?;
        world.no_twin(name, "kinds").await
    });
    try_join_all(gone).await?;
    took("all kinds to be deleted", start.elapsed(), FIGURE);
    Ok(())
}

/// Names and specs.
fn kinds(spare_ip: &str) -> Vec<(&'static str, Value)> {
    let web = || json!([{"port": 80, "targetPort": 8080}]);
    let app = || json!({"app": "web"});
    let both = json!([
        {"name": "tcp", "port": 53, "protocol": "TCP"}, {"name": "udp", "port": 53, "protocol": "UDP"},
    ]);
    vec![
        ("cluster-ip", json!({"selector": app(), "ports": web()})),
        ("node-port", json!({"type": "NodePort", "selector": app(), "ports": web()})),
        ("load-balancer", json!({"type": "LoadBalancer", "selector": app(), "ports": web()})),
        (
            "balancer-of-a-class",
            json!({"type": "LoadBalancer", "selector": app(), "ports": web(), "loadBalancerClass": "example.com/lb",
                "loadBalancerSourceRanges": ["192.0.2.0/24"], "externalTrafficPolicy": "Local"}),
        ),
        (
            "balancer-without-node-ports",
            json!({"type": "LoadBalancer", "selector": app(), "ports": web(), "allocateLoadBalancerNodePorts": false}),
        ),
        ("headless", json!({"clusterIP": "None", "selector": app(), "ports": web()})),
        ("headless-without-ports", json!({"clusterIP": "None", "selector": app()})),
        ("headless-without-selector", json!({"clusterIP": "None", "ports": web()})),
        ("without-selector", json!({"ports": web()})),
        ("preferring-two-families", json!({"selector": app(), "ports": web(), "ipFamilyPolicy": "PreferDualStack"})),
        (
            "many-ports",
            json!({"type": "NodePort", "selector": app(), "ports": [
                {"name": "http", "port": 80, "targetPort": "web", "appProtocol": "http"},
                {"name": "https", "port": 443, "targetPort": "web-tls", "appProtocol": "https"},
                {"name": "metrics", "port": 9090, "targetPort": 9091}]}),
        ),
        ("tcp-and-udp", json!({"selector": app(), "ports": both.clone()})),
        ("tcp-and-udp-outside", json!({"type": "NodePort", "selector": app(), "ports": both})),
        (
            "sctp",
            json!({"type": "NodePort", "selector": app(), "ports": [{"port": 36412, "protocol": "SCTP"}],
                "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 30}}}),
        ),
        ("pinned", json!({"type": "NodePort", "clusterIP": spare_ip, "selector": app(), "ports": web()})),
    ]
}
