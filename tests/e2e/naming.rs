//! Twins whose names collide, and objects of others that have the name of a twin.
//!
//! Names beyond 63 bytes are cut and keep 20 bits of a hash; these were found by trying.

use std::slice;
use std::time::Duration;

use anyhow::{Result, ensure};
use k3k_expose_proto::{Outcome, Reason};
use k3k_expose_tests::rig::Rig;
use k3k_expose_tests::wire::{WireSession, cluster_ip_service, delete as gone, hello, put};
use k3k_expose_tests::{eventually, took};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use serde_json::json;
use tokio::time::Instant;

use crate::observe::headless;
use crate::same::VIRTUAL_UID;
use crate::world::{SOON, World, change, create, delete, service, tenant};

/// What both twins in `default` of a Cluster called `mycluster` are called.
const TWIN: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-65255";
/// From the end of the first to the twin of the second.
const FREED: Duration = Duration::from_millis(200);

/// A name of 63 bytes with this end.
fn name(tail: &str) -> String {
    format!("{}{tail}", "a".repeat(57))
}

#[tokio::test]
async fn two_services_whose_names_collide_never_share_a_twin() -> Result<()> {
    let world = World::shared("names", "mycluster").await?;
    let (first, second) = (name("00040b"), name("000736"));
    assert_eq!([&first, &second].map(|name| world.tenant.twin_name(name, "default")), [TWIN, TWIN]);
    let services = world.services("default");
    let one = create(&services, &service(&first, json!({"ports": [{"port": 80}]}))).await?;
    let twin = world.follows(&one).await?;
    create(&services, &service(&second, json!({"ports": [{"port": 81}]}))).await?;
    world.told(&second, "default", "NameTaken").await?;
    for round in 0..3 {
        let patch = json!({"metadata": {"labels": {"round": round.to_string()}}});
        change(&services, &second, patch.clone()).await?;
        world.follows(&change(&services, &first, patch).await?).await?;
    }
    assert_eq!(world.twin(&one, |_| true).await?.uid(), twin.uid());

    // A third one of the same name, in another Cluster of the same host namespace, spoken for by hand.
    let host_api = Rig::shared().sliced().host_api().await?;
    let neighbor = tenant(&world.host, &world.tenant.namespace, "other").await?;
    let third = put("default", &name("05aa64"), "third", cluster_ip_service("web", 80)?)?;
    assert_eq!(neighbor.twin_name(third.key.name(), "default"), TWIN);
    let token = neighbor.server_pod_token(0).await?;
    let (mut session, _) = WireSession::open(host_api, &token, hello("another", slice::from_ref(&third))?).await?;
    session.send_snapshot(slice::from_ref(&third)).await?;
    let answer = session.settled(&third).await?;
    assert_eq!((answer.outcome, answer.reason), (Outcome::Rejected, Reason::NameTaken));
    assert!(!answer.message.contains("mycluster") && answer.numbers.is_none(), "{answer:?}");
    assert_eq!(world.twin(&one, |_| true).await?.uid(), twin.uid());
    session.send(&k3k_expose_proto::FromAgent::Delete(gone(&third))).await?;
    // A beat is not answered, so another Service shows that the deletion was taken in.
    let fence = headless("fence")?;
    session.send(&k3k_expose_proto::FromAgent::Put(fence.clone())).await?;
    assert_eq!(session.settled(&fence).await?.reason, Reason::Applied);
    assert_eq!(world.twin(&one, |_| true).await?.uid(), twin.uid(), "it went with a namesake of another tenant");

    let start = Instant::now();
    delete(&services, &first).await?;
    let two = services.get(&second).await?;
    assert_ne!(world.follows(&two).await?.uid(), twin.uid());
    took("the twin of the second after the end of the first", start.elapsed(), FREED);
    delete(&services, &second).await?;
    world.no_twin(&second, "default").await
}

#[tokio::test]
async fn a_foreign_object_with_the_name_of_a_twin_stays_as_it_is() -> Result<()> {
    let world = World::shared("names", "mycluster").await?;
    let services = world.namespace("foreign").await?;
    let hosts = world.tenant.host_services();
    let ip = world.spare_ip(2);
    let table = [
        ("bare", json!({}), world.spare_ip(3)),
        ("same-ip", json!({}), ip.clone()),
        (
            "disguised",
            json!({"labels": {"k3k.io/clusterName": "mycluster", "app.kubernetes.io/managed-by": "k3k-expose"},
                "annotations": {"k3k.io/name": "disguised", "k3k.io/namespace": "foreign", VIRTUAL_UID: "0"}}),
            world.spare_ip(4),
        ),
    ];
    for (name, metadata, holds) in table {
        let foreign = json!({"clusterIP": holds, "selector": {"app": "theirs"}, "ports": [{"port": 1}]});
        let mut foreign: Service = service(&world.tenant.twin_name(name, "foreign"), foreign);
        foreign.metadata.labels = serde_json::from_value(metadata["labels"].clone())?;
        foreign.metadata.annotations = serde_json::from_value(metadata["annotations"].clone())?;
        let foreign = create(&hosts, &foreign).await?;
        let asks = json!({"clusterIP": ip, "ports": [{"port": 80}]});
        create(&services, &service(name, asks)).await?;
        world.told(name, "foreign", "NameTaken").await?;
        change(&services, name, json!({"metadata": {"labels": {"again": "yes"}}})).await?;
        let fence = create(&services, &service(&format!("{name}-fence"), json!({"ports": [{"port": 80}]}))).await?;
        world.follows(&fence).await?;
        assert_eq!(json!(hosts.get(&foreign.name_any()).await?), json!(foreign), "{name}");

        delete(&services, name).await?;
        delete(&services, &fence.name_any()).await?;
        world.no_twin(&fence.name_any(), "foreign").await?;
        assert_eq!(json!(hosts.get(&foreign.name_any()).await?), json!(foreign), "{name}: it went with the Service");

        let again = create(&services, &service(name, json!({"ports": [{"port": 80}]}))).await?;
        let start = Instant::now();
        delete(&hosts, &foreign.name_any()).await?;
        eventually("the name changes hands", SOON, async || {
            let twin = hosts.get(&foreign.name_any()).await?;
            ensure!(twin.uid() != foreign.uid(), "it is still the foreign one");
            anyhow::Ok(())
        })
        .await?;
        took(&format!("the twin after the {name} foreign object"), start.elapsed(), FREED);
        world.follows(&again).await?;
        delete(&services, name).await?;
        world.no_twin(name, "foreign").await?;
    }
    Ok(())
}
