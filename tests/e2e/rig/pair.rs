//! A pair has two families and the same ranges on both sides, and somebody else can stand in the way there.

use anyhow::{Context, Result, bail};
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::rig::{FAMILIES, Rig};
use k8s_openapi::api::core::v1::ResourceQuota;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::world::{SOON, World, create, service};

/// The pair that the tests of the way back share.
const PAIR: &str = "pair";

#[tokio::test]
async fn a_service_of_two_families_has_the_same_two_addresses_on_both_sides() -> Result<()> {
    let world = World::paired(PAIR).await?;
    let pair = Rig::shared().pair(PAIR).await?;
    assert_eq!([&pair.host, &pair.virtual_cluster].map(|plane| plane.options().service_cidr.as_str()), [FAMILIES; 2]);
    let services = world.namespace("families").await?;
    let asked = json!({"ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 80}],
        "clusterIP": world.spare_ip(2), "clusterIPs": [world.spare_ip(2), world.spare_ip6(2)]});
    let drawn = json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"], "ports": [{"port": 80}]});
    let single = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": world.spare_port(2)}]});
    for (name, spec, families) in [("asked", asked, 2), ("drawn", drawn, 2), ("single", single, 1)] {
        let made = create(&services, &service(name, spec)).await?;
        let twin = world.follows(&made).await?.spec.context("a spec")?;
        let made = made.spec.context("a spec")?;
        assert_eq!(twin.cluster_ips.as_ref().map(Vec::len), Some(families), "{name}");
        assert_eq!((twin.cluster_ips, twin.ip_families), (made.cluster_ips, made.ip_families), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn somebody_else_on_the_host_holds_numbers_until_they_are_released() -> Result<()> {
    let world = World::paired(PAIR).await?;
    let (ips, port) = ([world.spare_ip(3), world.spare_ip6(3)], world.spare_port(3));
    let both = [ips[0].as_str(), ips[1].as_str()];
    let (of_ips, of_port) = (world.holder_of_ips(&both).await?, world.holder_of_port(port).await?);
    assert!(of_ips.is_untouched().await? && of_port.is_untouched().await?);
    for ip in both {
        assert!(world.holder_of_ips(&[ip]).await.is_err(), "{ip} is not held");
    }
    assert!(world.holder_of_port(port).await.is_err(), "{port} is not held");
    of_ips.release().await?;
    of_port.release().await?;
    // The API server frees numbers a moment after the Service is gone.
    let again = eventually("free numbers", SOON, async || {
        Ok::<_, anyhow::Error>((world.holder_of_ips(&both).await?, world.holder_of_port(port).await?))
    });
    let (of_ips, of_port) = again.await?;
    of_ips.release().await?;
    of_port.release().await
}

#[tokio::test]
async fn a_twin_of_a_load_balancer_takes_the_status_that_a_cloud_gives() -> Result<()> {
    let world = World::paired(PAIR).await?;
    let services = world.namespace("cloud").await?;
    let spec = json!({"type": "LoadBalancer", "ports": [{"port": 80}]});
    let made = create(&services, &service("web", spec)).await?;
    let twin = world.cloud_gives(&made, json!([{"ip": "192.0.2.1"}])).await?;
    assert_eq!(crate::world::ingress(&twin), json!([{"ip": "192.0.2.1", "ipMode": "VIP"}]));
    let twin = world.cloud_gives(&made, json!([])).await?;
    assert_eq!(crate::world::ingress(&twin), json!([]));
    let twin =
        world.cloud_says(&made, "LoadBalancerPortsError", "True", "LoadBalancerMixedProtocolNotSupported").await?;
    let conditions = twin.status.and_then(|status| status.conditions).context("conditions")?;
    assert_eq!(conditions[0].type_, "LoadBalancerPortsError");
    Ok(())
}

#[tokio::test]
async fn the_virtual_cluster_of_a_pair_has_endpoints_and_quotas() -> Result<()> {
    let world = World::paired(PAIR).await?;
    let services = world.namespace("controllers").await?;
    let quotas: Api<ResourceQuota> = Api::namespaced(world.virtual_cluster.clone(), "controllers");
    let quota = json!({"metadata": {"name": "one"}, "spec": {"hard": {"services": "1"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota)?).await?;
    // Until the controller has counted, the API server lets nothing in.
    eventually("the quota counted", SOON, async || quotas.get("one").await.ok().and_then(|quota| quota.status?.used))
        .await?;
    let spec = || json!({"selector": {"app": "web"}, "ports": [{"port": 80}]});
    let web = create(&services, &service("web", spec())).await?;
    if create(&services, &service("second", spec())).await.is_ok() {
        bail!("the quota lets two in");
    }
    let slices: Api<EndpointSlice> = Api::namespaced(world.virtual_cluster.clone(), "controllers");
    let of_web = ListParams::default().labels("kubernetes.io/service-name=web");
    eventually("an EndpointSlice", SOON, async || slices.list(&of_web).await.ok()?.items.pop()).await?;
    assert!(world.events(&web).await?.iter().all(|event| event.involved_object.uid == web.uid()));
    Ok(())
}
