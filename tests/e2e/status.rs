//! The host's answer in the virtual Service's status: addresses and conditions, as the twin has them, and nobody's else.

use anyhow::{Result, ensure};
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::rig::Rig;
use k3k_expose_tests::told;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::world::answer::ingress;
use crate::world::{SOON, World, change, create, delete, replace, service};

/// The agent's account in the virtual cluster.
const AGENT: &str = "system:serviceaccount:kube-system:k3k-expose-agent";
const PAIR: &str = "status";

fn balancer() -> Value {
    json!({"type": "LoadBalancer", "ports": [{"port": 80}]})
}

#[tokio::test]
async fn addresses_follow_the_twin_in_every_shape() -> Result<()> {
    let world = World::paired(PAIR).await?;
    let services = world.namespace("addresses").await?;
    let made = create(&services, &service("web", balancer())).await?;
    for (given, shown) in [
        (json!([{"ip": "192.0.2.1"}]), json!([{"ip": "192.0.2.1", "ipMode": "VIP"}])),
        (json!([{"ip": "192.0.2.2", "ipMode": "Proxy"}]), json!([{"ip": "192.0.2.2", "ipMode": "Proxy"}])),
        (json!([{"hostname": "lb.example.com"}]), json!([{"hostname": "lb.example.com"}])),
        (
            json!([{"ip": "2001:db8::1"}, {"ip": "192.0.2.3"}]),
            json!([{"ip": "2001:db8::1", "ipMode": "VIP"}, {"ip": "192.0.2.3", "ipMode": "VIP"}]),
        ),
        (
            json!([{"ip": "192.0.2.4", "ports": [{"port": 80, "protocol": "TCP", "error": "example.com/InUse"}]}]),
            json!([{"ip": "192.0.2.4", "ipMode": "VIP",
                "ports": [{"port": 80, "protocol": "TCP", "error": "example.com/InUse"}]}]),
        ),
        (json!([]), json!([])),
    ] {
        let twin = world.cloud_gives(&made, given).await?;
        let now = world.has_ingress(&made, shown).await?;
        assert_eq!(ingress(&now), ingress(&twin));
    }
    Ok(())
}

#[tokio::test]
async fn an_address_belongs_to_one_object_and_to_its_type() -> Result<()> {
    let world = World::paired(PAIR).await?;
    let services = world.namespace("belongs").await?;
    let made = create(&services, &service("web", balancer())).await?;
    world.cloud_gives(&made, json!([{"ip": "192.0.2.9"}])).await?;
    let shown = json!([{"ip": "192.0.2.9", "ipMode": "VIP"}]);
    world.has_ingress(&made, shown.clone()).await?;
    let inside = json!({"spec": {"type": "ClusterIP", "externalTrafficPolicy": null,
        "allocateLoadBalancerNodePorts": null, "ports": [{"port": 80, "nodePort": null}]}});
    replace(&services, "web", inside).await?;
    world.has_ingress(&made, json!([])).await?;
    world.agrees(&made).await?;
    replace(&services, "web", json!({"spec": balancer()})).await?;
    world.agrees(&made).await?;

    world.cloud_gives(&made, json!([{"ip": "192.0.2.9"}])).await?;
    world.has_ingress(&made, shown).await?;
    delete(&services, "web").await?;
    let next = create(&services, &service("web", balancer())).await?;
    assert_ne!(next.uid(), made.uid());
    let (now, twin) = world.agrees(&next).await?;
    assert_eq!((now.uid(), ingress(&now)), (next.uid(), ingress(&twin)));
    Ok(())
}

#[tokio::test]
async fn conditions_of_the_host_come_change_and_go_beside_those_of_others() -> Result<()> {
    let world = World::paired(PAIR).await?;
    let services = world.namespace("conditions").await?;
    let made = create(&services, &service("web", balancer())).await?;
    let own = json!({"status": {"conditions": [{"type": "example.com/Own", "status": "True", "reason": "Mine",
        "message": "of the tenant's own controller", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    services.patch_status("web", &PatchParams::default(), &Patch::Strategic(&own)).await?;
    let find = |service: &Service, kind: &str| {
        let conditions = service.status.clone().and_then(|status| status.conditions).unwrap_or_default();
        conditions.into_iter().find(|condition| condition.type_ == kind).map(|it| (it.status, it.reason))
    };
    let shows = async |expected: Option<(&str, &str)>| {
        eventually(&format!("the host's condition is {expected:?}"), SOON, async || {
            let now = services.get("web").await?;
            let is = find(&now, "LoadBalancerPortsError");
            let is = is.as_ref().map(|(status, reason)| (status.as_str(), reason.as_str()));
            ensure!(is == expected, "it is {is:?}");
            ensure!(find(&now, "example.com/Own").is_some(), "that of others is gone");
            anyhow::Ok(())
        })
        .await
    };
    world.cloud_says(&made, "LoadBalancerPortsError", "True", "MixedProtocolNotSupported").await?;
    shows(Some(("True", "MixedProtocolNotSupported"))).await?;
    let told = json!(services.get("web").await?.status).to_string();
    assert!(!told.contains("said by the test"), "the host's own words stay on the host: {told}");
    world.cloud_says(&made, "LoadBalancerPortsError", "False", "AllWell").await?;
    shows(Some(("False", "AllWell"))).await?;
    let gone = json!({"status": {"conditions": [{"$patch": "delete", "type": "LoadBalancerPortsError"}]}});
    let twin = world.tenant.twin_name("web", "conditions");
    world.tenant.host_services().patch_status(&twin, &PatchParams::default(), &Patch::Strategic(&gone)).await?;
    shows(None).await
}

#[tokio::test]
async fn a_status_edited_by_hand_is_put_right_until_it_is_a_contest() -> Result<()> {
    let world = World::paired(PAIR).await?;
    let services = world.namespace("by-hand").await?;
    let made = create(&services, &service("web", balancer())).await?;
    world.cloud_gives(&made, json!([{"ip": "192.0.2.20"}])).await?;
    let right = json!([{"ip": "192.0.2.20", "ipMode": "VIP"}]);
    world.has_ingress(&made, right.clone()).await?;
    let wrong = json!({"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}}});
    let params = PatchParams::default();
    for _ in 0..4 {
        services.patch_status("web", &params, &Patch::Merge(&wrong)).await?;
        world.has_ingress(&made, right.clone()).await?;
        world.applied(&made).await?;
    }
    services.patch_status("web", &params, &Patch::Merge(&wrong)).await?;
    world.event(&made, "StatusContested").await?;
    let audit = Rig::shared().pair(PAIR).await?.virtual_cluster.audit();
    let mark = audit.mark().await?;
    services.patch_status("web", &params, &Patch::Merge(&json!({"status": {"loadBalancer": null}}))).await?;
    // A Service made after it shows that the agent has seen this one.
    let fence = create(&services, &service("fence", balancer())).await?;
    world.applied(&fence).await?;
    let writes = audit.writes_since(mark, |user| user == AGENT).await?.counted;
    let written: Vec<_> = writes.iter().filter(|entry| entry.namespace == "by-hand" && entry.name == "web").collect();
    assert!(written.is_empty(), "{written:?}");
    // Nobody else's status is left alone.
    change(&services, "fence", json!({"metadata": {"labels": {"a": "b"}}})).await?;
    assert!(told::synced(&world.applied(&fence).await?).is_some());
    Ok(())
}
