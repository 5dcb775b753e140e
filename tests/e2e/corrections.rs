//! A tenant that thinks again while host-api still writes what it wanted before.

use anyhow::Result;
use k3k_expose_proto::message::Put;
use k3k_expose_proto::service::ServiceType;
use k3k_expose_proto::{FromAgent, Outcome};
use k3k_expose_tests::rig::Rig;
use k3k_expose_tests::wire::{WireSession, cluster_ip_service, hello, put};

use crate::world::{CLUSTER, tenant};

/// More than host-api writes side by side, so that some corrections fall into a write under way.
const SERVICES: u16 = 40;

#[tokio::test]
async fn a_wish_that_is_corrected_while_the_host_refuses_it_is_not_lost() -> Result<()> {
    let rig = Rig::shared();
    let tenant = tenant(&rig.host().await?.client().await?, "host-corrected", CLUSTER).await?;
    let mut refused = Vec::new();
    for number in 0..SERVICES {
        let mut outside = cluster_ip_service("web", 80)?;
        outside.service_type = ServiceType::NodePort;
        // Below the host's range: the host refuses it, which host-api cannot know before.
        outside.ports[0].node_port = Some(outside.ports[0].port);
        refused.push(put("shop", &format!("web-{number}"), &format!("uid-{number}"), outside)?);
    }
    let corrected =
        refused.iter().map(|put_| put("shop", put_.key.name(), put_.uid.as_str(), cluster_ip_service("web", 81)?));
    let corrected = corrected.collect::<Result<Vec<Put>>>()?;
    let token = tenant.server_pod_token(0).await?;
    let (mut session, _) = WireSession::open(rig.host_api().await?, &token, hello("cluster", &corrected)?).await?;
    // While the first ones are written, a few at a time, the corrections of all arrive.
    for wish in refused.iter().chain(&corrected) {
        session.send(&FromAgent::Put(wish.clone())).await?;
    }
    for wish in &corrected {
        let answer = session.settled(wish).await?;
        assert_eq!(answer.outcome, Outcome::Applied, "what was refused was another wish: {answer:?}");
        let twin = tenant.host_services().get(&tenant.twin_name(wish.key.name(), "shop")).await?;
        assert_eq!(twin.spec.and_then(|spec| spec.type_).as_deref(), Some("ClusterIP"));
    }
    Ok(())
}
