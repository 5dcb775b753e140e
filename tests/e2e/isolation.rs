//! Tenants and namespaces stay apart, by names, by pods, and against an agent that lies.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use k3k_expose_proto::message::Put;
use k3k_expose_proto::{FromAgent, Reason};
use k3k_expose_tests::eventually;
use k3k_expose_tests::k3k::Tenant;
use k3k_expose_tests::rig::Rig;
use k3k_expose_tests::wire::{WireSession, cluster_ip_service, delete as gone, end, hello, put};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::world::{CLUSTER, SOON, World, create, delete, service, tenant};

#[tokio::test]
async fn equal_names_in_two_namespaces_and_two_tenants_of_one_host_namespace_stay_apart() -> Result<()> {
    let mine = World::shared("follow", CLUSTER).await?;
    let other = World::shared("names", "mycluster").await?;
    assert_eq!(mine.tenant.namespace, other.tenant.namespace);
    let mut twins = Vec::new();
    for (world, namespace) in [(&mine, "left"), (&mine, "right"), (&other, "left"), (&other, "right")] {
        let services = world.namespace(namespace).await?;
        let pod = world.tenant.tenant_pod("web", namespace, &[("app", "web")], true).await?;
        let ip = pod.status.and_then(|status| status.pod_ip).unwrap_or_default();
        let web = json!({"selector": {"app": "web"}, "ports": [{"port": 80}]});
        let web = create(&services, &service("web", web)).await?;
        twins.push((world, services, world.follows(&web).await?, ip));
    }
    let names: BTreeSet<_> = twins.iter().map(|(_, _, twin, _)| twin.name_any()).collect();
    assert_eq!(names.len(), 4);
    for (world, _, twin, ip) in &twins {
        leads_to(world, twin, ip).await?;
    }

    // One goes, the others do not notice.
    let (world, services, _, _) = twins.remove(0);
    delete(&services, "web").await?;
    world.no_twin("web", "left").await?;
    for (world, services, twin, ip) in &twins {
        let web = services.get("web").await?;
        assert_eq!(world.follows(&web).await?.resource_version(), twin.resource_version());
        leads_to(world, twin, ip).await?;
    }
    Ok(())
}

/// The twin's endpoints, made by the real controller, are exactly this one address.
async fn leads_to(world: &World, twin: &Service, ip: &str) -> Result<()> {
    let slices: Api<EndpointSlice> = Api::namespaced(world.host.clone(), &world.tenant.namespace);
    let of_twin = ListParams::default().labels(&format!("kubernetes.io/service-name={}", twin.name_any()));
    eventually(&format!("{} leads to {ip}", twin.name_any()), SOON, async || {
        let slices = slices.list(&of_twin).await?;
        let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
        let addresses: Vec<_> = endpoints.flat_map(|endpoint| &endpoint.addresses).collect();
        ensure!(addresses == [ip], "{addresses:?}");
        anyhow::Ok(())
    })
    .await
}

#[tokio::test]
async fn a_token_of_one_tenant_never_changes_anothers_twins() -> Result<()> {
    let rig = Rig::shared();
    let host = rig.host().await?.client().await?;
    let host_api = rig.host_api().await?;
    let victim = tenant(&host, "host-by-hand", "victim").await?;
    let liar = tenant(&host, "host-by-hand", "liar").await?;
    let theirs = (0..12).map(|number| {
        put("shop", &format!("web-{number}"), &format!("uid-{number}"), cluster_ip_service("web", 80 + number)?)
    });
    let theirs = theirs.collect::<Result<Vec<Put>>>()?;
    let (mut session, welcome) = open(&victim, &theirs).await?;
    session.send_snapshot(&theirs).await?;
    for put in &theirs {
        assert_eq!(session.settled(put).await?.reason, Reason::Applied);
    }
    let before = twins_of(&victim, &theirs).await?;

    // Their virtual cluster, their epoch, nothing wanted: as if everything of theirs were to go.
    let mut lie = hello("theirs", &[])?;
    lie.seen = Some(k3k_expose_proto::message::Seen { epoch: welcome.epoch.clone(), version: 1 });
    let (mut by_liar, _) = WireSession::open(host_api, &liar.server_pod_token(0).await?, lie).await?;
    by_liar.send(&FromAgent::End(end(&[]))).await?;
    for put in &theirs {
        by_liar.send(&FromAgent::Delete(gone(put))).await?;
    }
    // Their keys and UIDs, other contents; then taken back.
    let forged =
        theirs.iter().map(|put_| put("shop", put_.key.name(), put_.uid.as_str(), cluster_ip_service("evil", 666)?));
    let forged = forged.collect::<Result<Vec<Put>>>()?;
    for put in &forged {
        by_liar.send(&FromAgent::Put(put.clone())).await?;
    }
    for put in &forged {
        assert_eq!(by_liar.settled(put).await?.reason, Reason::Applied);
    }
    let own = twins_of(&liar, &forged).await?;
    assert!(own.iter().all(|twin| twin.owner_references()[0].uid == liar.cluster_uid));
    assert_eq!(twins_of(&victim, &theirs).await?, before, "puts of their keys");

    for put in &forged {
        by_liar.send(&FromAgent::Delete(gone(put))).await?;
    }
    let gone = forged.iter().map(async |put| {
        let name = liar.twin_name(put.key.name(), put.key.namespace());
        eventually("the liar's own twin gone", SOON, async || {
            Ok::<_, kube::Error>(liar.host_services().get_opt(&name).await?.is_none())
        })
        .await
    });
    try_join_all(gone).await?;
    by_liar.close();
    // Once more from the start, with an empty snapshot where none of its own stand.
    let (by_liar, _) = WireSession::open(host_api, &liar.server_pod_token(0).await?, hello("theirs", &[])?).await?;
    by_liar.send(&FromAgent::End(end(&[]))).await?;
    drop(by_liar);
    assert_eq!(twins_of(&victim, &theirs).await?, before, "deletes and empty snapshots");

    // The victim's own session still works, and says nothing that it did not ask for.
    let more = put("shop", "more", "uid-more", cluster_ip_service("web", 8080)?)?;
    session.send(&FromAgent::Put(more.clone())).await?;
    assert_eq!(session.settled(&more).await?.reason, Reason::Applied);
    assert_eq!(twins_of(&victim, &theirs).await?, before);
    Ok(())
}

async fn open(tenant: &Tenant, wanted: &[Put]) -> Result<(WireSession, k3k_expose_proto::message::Welcome)> {
    let token = tenant.server_pod_token(0).await?;
    Ok(WireSession::open(Rig::shared().host_api().await?, &token, hello("theirs", wanted)?).await?)
}

/// The twins as they stand, to the last byte.
async fn twins_of(tenant: &Tenant, puts: &[Put]) -> Result<Vec<Service>> {
    let services = tenant.host_services();
    let read = puts.iter().map(|put| tenant.twin_name(put.key.name(), put.key.namespace()));
    let read = read.map(async |name| services.get(&name).await);
    Ok(try_join_all(read).await?)
}
