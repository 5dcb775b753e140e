//! Endpoints made by hand for Services without a selector: which of them stand on the host, and how fast that changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use k3k_expose_proto::Reason;
use k3k_expose_proto::endpoints::{EndpointPort, Endpoints, LeftOut};
use k3k_expose_proto::message::Put;
use k3k_expose_proto::service::{IpFamily, Protocol, ServiceType};
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::k3k::{self, Tenant, TenantOptions};
use k3k_expose_tests::product::{AGENT_USER, HOST_API_USER, HostApi, HostApiOptions};
use k3k_expose_tests::rig::virtual_options;
use k3k_expose_tests::{ControlPlane, PlaneOptions, took};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use crate::observe::{session_up, world};
use crate::policy::stage::{apply, delete, governs, of_namespace};
use crate::spoken::{Spoken, changed, numbered, put};
use crate::world::{SOON, World, create, delete as delete_service, service};

/// What a change may take until it counts.
const AT_ONCE: Duration = Duration::from_secs(2);

fn database() -> Service {
    service("db", json!({"ports": [{"name": "sql", "port": 5432}]}))
}

/// Makes, or makes anew, the slice of `db` with these addresses.
async fn hand_made(virtual_cluster: &Client, addresses: &[&str]) -> Result<()> {
    let slices: Api<EndpointSlice> = Api::namespaced(virtual_cluster.clone(), "shop");
    let endpoints: Vec<Value> = addresses
        .iter()
        .map(|address| json!({"addresses": [address], "nodeName": "theirs", "zone": "theirs", "conditions": {}}))
        .collect();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "by-hand", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "sql", "port": 5432}],
    });
    slices.patch("by-hand", &PatchParams::apply("tenant").force(), &Patch::Apply(slice)).await?;
    Ok(())
}

fn slices_of(tenant: &Tenant, host: &Client) -> Api<EndpointSlice> {
    Api::namespaced(host.clone(), &tenant.namespace)
}

/// The slices of a twin.
async fn slices(tenant: &Tenant, host: &Client, name: &str, namespace: &str) -> Result<Vec<EndpointSlice>> {
    let of_twin = format!("kubernetes.io/service-name={}", tenant.twin_name(name, namespace));
    Ok(slices_of(tenant, host).list(&ListParams::default().labels(&of_twin)).await?.items)
}

/// Waits until these addresses stand beside the twin, and gives its slices.
async fn stand(
    (tenant, host): (&Tenant, &Client),
    (name, namespace): (&str, &str),
    expected: &[&str],
) -> Result<Vec<EndpointSlice>> {
    let expected: BTreeSet<&str> = expected.iter().copied().collect();
    eventually(&format!("endpoints {expected:?} of {name}"), SOON, async || {
        let slices = slices(tenant, host, name, namespace).await?;
        let stand: BTreeSet<&str> = slices
            .iter()
            .flat_map(|slice| &slice.endpoints)
            .flat_map(|endpoint| endpoint.addresses.iter().map(String::as_str))
            .collect();
        ensure!(stand == expected, "{stand:?}");
        anyhow::Ok(slices)
    })
    .await
}

fn address(pod: &Pod) -> Result<String> {
    pod.status.as_ref().and_then(|status| status.pod_ip.clone()).context("an address")
}

#[tokio::test]
async fn endpoints_made_by_hand_cross_for_own_pods_and_what_a_policy_names_and_for_as_long() -> Result<()> {
    let world = world("endpoints", TenantOptions::default()).await?;
    let other = Tenant::create(&world.host, "host-endpoints-other", "other", TenantOptions::default()).await?;
    let own = address(&world.tenant.tenant_pod("db-0", "shop", &[], true).await?)?;
    let foreign = address(&other.tenant_pod("db-0", "shop", &[], true).await?)?;
    let services = world.namespace("shop").await?;
    let db = create(&services, &database()).await?;
    hand_made(&world.virtual_cluster, &[&own]).await?;
    let on_host = (&world.tenant, &world.host);
    let standing = stand(on_host, ("db", "shop"), &[&own]).await?;
    world.applied(&db).await?;
    let twin = world.twin(&db, |_| true).await?;
    let slice = standing.first().context("a slice")?;
    assert_eq!(
        slice.owner_references().iter().map(|owner| owner.uid.clone()).collect::<Vec<_>>(),
        twin.uid().into_iter().collect::<Vec<_>>()
    );
    let endpoint = &slice.endpoints[0];
    assert!(endpoint.node_name.is_none() && endpoint.zone.is_none() && endpoint.target_ref.is_none(), "{endpoint:?}");

    hand_made(&world.virtual_cluster, &[&own, &foreign]).await?;
    world.refused(&db, "EndpointNotAdmitted").await?;
    stand(on_host, ("db", "shop"), &[&own]).await?;

    hand_made(&world.virtual_cluster, &[&own, "203.0.113.9"]).await?;
    world.refused(&db, "EndpointNotAdmitted").await?;
    let start = Instant::now();
    apply(&world.host, "endpoints", &of_namespace(&world.tenant.namespace, json!({"endpoints": ["203.0.113.0/24"]})))
        .await?;
    stand(on_host, ("db", "shop"), &[&own, "203.0.113.9"]).await?;
    took("an endpoint that a policy admits", start.elapsed(), AT_ONCE);
    world.applied(&db).await?;

    let name = slice.name_any();
    let edit =
        json!({"endpoints": [{"addresses": ["203.0.113.66"]}], "metadata": {"labels": {"k3k.io/clusterName": null}}});
    slices_of(&world.tenant, &world.host).patch(&name, &PatchParams::default(), &Patch::Merge(edit)).await?;
    let start = Instant::now();
    let repaired = stand(on_host, ("db", "shop"), &[&own, "203.0.113.9"]).await?;
    took("repair of a slice", start.elapsed(), AT_ONCE);
    assert_eq!(repaired[0].labels().get("k3k.io/clusterName").map(String::as_str), Some("mine"));
    slices_of(&world.tenant, &world.host).delete(&name, &DeleteParams::default()).await?;
    stand(on_host, ("db", "shop"), &[&own, "203.0.113.9"]).await?;

    let start = Instant::now();
    delete(&world.host, "endpoints").await?;
    stand(on_host, ("db", "shop"), &[&own]).await?;
    took("an endpoint that no policy admits any more", start.elapsed(), AT_ONCE);
    world.refused(&db, "EndpointNotAdmitted").await?;
    hand_made(&world.virtual_cluster, &[&own]).await?;
    world.applied(&db).await?;

    let start = Instant::now();
    world.tenant.delete_pod(&world.tenant.synced_pod("db-0", "shop", Default::default()).name).await?;
    stand(on_host, ("db", "shop"), &[]).await?;
    took("an endpoint whose pod is gone", start.elapsed(), AT_ONCE);
    world.refused(&db, "EndpointNotAdmitted").await?;
    let back = address(&world.tenant.tenant_pod("db-1", "shop", &[], true).await?)?;
    hand_made(&world.virtual_cluster, &[&back]).await?;
    stand(on_host, ("db", "shop"), &[&back]).await?;
    delete_service(&services, "db").await?;
    stand(on_host, ("db", "shop"), &[]).await?;
    Ok(())
}

/// A Service without a selector, with these endpoints.
fn with_endpoints(name: &str, addresses: &[&str]) -> Result<Put> {
    let ports =
        vec![EndpointPort { name: String::new(), protocol: Protocol::TCP, port: 80.try_into()?, app_protocol: None }];
    let addresses = addresses.iter().map(|address| address.parse()).collect::<Result<_, _>>()?;
    let mut service = numbered(ServiceType::ClusterIP, "", 0)?;
    service.endpoints = vec![Endpoints { family: IpFamily::IPv4, ports, addresses }];
    put(name, service)
}

#[tokio::test]
async fn each_endpoint_that_may_not_cross_has_its_reason_and_a_silent_agent_keeps_none() -> Result<()> {
    let mut spoken = Spoken::start("endpoints-spoken").await?;
    let pod = spoken.tenant.tenant_pod("db-0", "default", &[], true).await?;
    let own = address(&pod)?;
    let nodes: Api<Node> = Api::all(spoken.host.clone());
    let fence = json!({"metadata": {"name": "endpoints-node"}});
    let node = nodes.create(&PostParams::default(), &serde_json::from_value(fence)?).await?;
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "203.0.113.200"}]}});
    nodes.patch_status(&node.name_any(), &PatchParams::default(), &Patch::Merge(status)).await?;
    apply(&spoken.host, "endpoints-spoken", &of_namespace("endpoints-spoken", json!({"endpoints": ["0.0.0.0/0"]})))
        .await?;
    for (bad, reason) in [
        ("127.0.0.1", Reason::EndpointForbidden),
        ("169.254.169.254", Reason::EndpointForbidden),
        ("224.0.0.1", Reason::EndpointForbidden),
        ("0.0.0.0", Reason::EndpointForbidden),
        ("10.43.0.1", Reason::EndpointForbidden),
        ("203.0.113.200", Reason::EndpointForbidden),
        ("::1", Reason::EndpointForbidden),
    ] {
        let db = with_endpoints("db", &[&own, bad])?;
        assert_eq!(spoken.say(&db).await?.reason, reason, "{bad}");
        stand((&spoken.tenant, &spoken.host), ("db", "default"), &[&own]).await?;
    }
    let many: Vec<String> = (0..101).map(|n| format!("203.0.113.{n}")).collect();
    let many = with_endpoints("db", &many.iter().map(String::as_str).collect::<Vec<_>>())?;
    assert_eq!(spoken.say(&many).await?.reason, Reason::TooManyEndpoints);
    let named = changed(&with_endpoints("db", &[])?, |service| {
        service.endpoints.clear();
        service.endpoints_left_out = Some(LeftOut::Names);
    });
    assert_eq!(spoken.say(&named).await?.reason, Reason::EndpointNameNotExposed);

    let db = with_endpoints("db", &[&own, "203.0.113.9"])?;
    assert_eq!(spoken.say(&db).await?.reason, Reason::Applied);
    // From here on the agent says nothing, whatever host-api wants.
    let start = Instant::now();
    delete(&spoken.host, "endpoints-spoken").await?;
    stand((&spoken.tenant, &spoken.host), ("db", "default"), &[&own]).await?;
    took("an endpoint of a silent agent without its policy", start.elapsed(), AT_ONCE);
    let start = Instant::now();
    spoken.tenant.set_pod_phase(&pod.name_any(), "Succeeded").await?;
    stand((&spoken.tenant, &spoken.host), ("db", "default"), &[]).await?;
    took("an endpoint of a silent agent without its pod", start.elapsed(), AT_ONCE);
    nodes.delete(&node.name_any(), &DeleteParams::default()).await?;
    Ok(())
}

#[tokio::test]
async fn a_restart_with_endpoints_in_sync_writes_nothing() -> Result<()> {
    // A host of its own: its host-api is restarted.
    let (host, plane) = tokio::try_join!(
        ControlPlane::start(PlaneOptions::new("endpoints-host").without_controllers()),
        ControlPlane::start(virtual_options("endpoints-restart").without_controllers()),
    )?;
    k3k::install(&host.client().await?).await?;
    let host_api = HostApi::start(&host, HostApiOptions::default()).await?;
    let plane = Arc::new(plane);
    let world = World::on(&host, &host_api, Arc::clone(&plane), "endpoints-restart", TenantOptions::default()).await?;
    let own = address(&world.tenant.tenant_pod("db-0", "shop", &[], true).await?)?;
    let services = world.namespace("shop").await?;
    let db = create(&services, &database()).await?;
    hand_made(&world.virtual_cluster, &[&own]).await?;
    stand((&world.tenant, &world.host), ("db", "shop"), &[&own]).await?;
    world.applied(&db).await?;
    governs(&world.host, "rig", 1).await?;

    let (on_host, on_virtual) = (host.audit(), plane.audit());
    let marks = (on_host.mark().await?, on_virtual.mark().await?);
    for product in ["agent", "host-api"] {
        if product == "agent" {
            world.agent.restart().await?
        } else {
            host_api.restart().await?
        }
        session_up(&world.agent).await?;
        world.agent.wait_ok("/syncz", SOON).await?;
        let fence = create(&services, &service(&format!("fence-{product}"), json!({"ports": [{"port": 80}]}))).await?;
        world.applied(&fence).await?;
    }
    let written = async |audit: &k3k_expose_tests::audit::AuditLog, mark| {
        let ours = |user: &str| [HOST_API_USER, AGENT_USER].contains(&user);
        let mut entries = audit.writes_since(mark, ours).await?.counted;
        entries.retain(|entry| !entry.name.starts_with("fence"));
        anyhow::Ok(entries)
    };
    assert_eq!(written(&on_host, marks.0).await?, [], "on the host");
    assert_eq!(written(&on_virtual, marks.1).await?, [], "in the virtual cluster");
    stand((&world.tenant, &world.host), ("db", "shop"), &[&own]).await?;
    Ok(())
}
