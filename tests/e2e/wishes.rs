//! Numbers that the host cannot give, spoken by hand: what the twin gets instead, and when it gets what was wished.

use anyhow::{Context, Result};
use k3k_expose_proto::message::{FromAgent, Put, Unusable};
use k3k_expose_proto::service::{ClusterIps, ServiceType};
use k3k_expose_proto::{Outcome, Reason};
use k3k_expose_tests::foreign::Holder;
use k3k_expose_tests::product::{HOST_API_USER, HostApi, HostApiOptions};
use k3k_expose_tests::{Rig, took};
use k8s_openapi::api::networking::v1::IPAddress;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::numbers::FREED;
use crate::spoken::{Spoken, changed, cluster_ip, node_ports, numbered, put};

#[tokio::test]
async fn drawn_numbers_that_are_held_are_replaced_and_nothing_is_written_after() -> Result<()> {
    let mut spoken = Spoken::start("wishes-drawn").await?;
    let port = Holder::of_node_port(&spoken.host, 30_070, "UDP").await?;
    let ip = Holder::of_cluster_ips(&spoken.host, &["10.43.14.10"]).await?;
    let wish = put("web", numbered(ServiceType::NodePort, "10.43.14.10", 30_070)?)?;
    let answer = spoken.say(&wish).await?;
    assert_eq!(answer.reason, Reason::Applied);
    let twin = spoken.holds(&wish, &answer).await?;
    let found = answer.numbers.clone().context("numbers")?;
    assert!(cluster_ip(&answer) != "10.43.14.10" && node_ports(&found) != [30_070], "{found:?}");
    assert!(port.is_untouched().await? && ip.is_untouched().await?);

    let audit = Rig::shared().host().await?.audit();
    let mark = audit.mark().await?;
    port.release().await?;
    ip.release().await?;
    // What is free now is nobody's wish any more; the virtual cluster comes to the twin.
    let follows = changed(&wish, |service| {
        service.cluster_ips = ClusterIps::Addresses(found.cluster_ips.clone());
        service.ports[0].node_port = Some(found.node_ports[0].node_port);
    });
    let agreed = spoken.say(&Put { seen: answer.version, ..follows }).await?;
    assert_eq!((agreed.reason, agreed.numbers), (Reason::Applied, Some(found)));
    let writes = audit.writes_since(mark, |user| user == HOST_API_USER).await?.counted;
    let writes: Vec<_> = writes.iter().filter(|entry| entry.namespace == spoken.tenant.namespace).collect();
    assert!(writes.is_empty(), "{writes:?}");
    assert_eq!(spoken.twin(&wish).await?.resource_version(), twin.resource_version());
    Ok(())
}

#[tokio::test]
async fn a_pinned_node_port_is_told_and_taken_when_it_is_free() -> Result<()> {
    let mut spoken = Spoken::start("wishes-port").await?;
    let holder = Holder::of_node_port(&spoken.host, 30_071, "TCP").await?;
    let wish = put("web", numbered(ServiceType::NodePort, "", 30_071)?)?;
    let wish = changed(&wish, |service| service.ports[0].node_port_pinned = true);
    let answer = spoken.say(&wish).await?;
    assert_eq!(
        (answer.reason, answer.message.as_str()),
        (Reason::NodePortTaken, "node port 30071 is held on the host")
    );
    let twin = spoken.holds(&wish, &answer).await?;
    holder.release().await?;
    let wish = Put { seen: answer.version, ..wish };
    let (moved, elapsed) = spoken.asked_again(&wish, Reason::Applied).await?;
    took("a pinned node port after its release", elapsed, FREED);
    assert_eq!(node_ports(&moved.numbers.clone().context("numbers")?), [30_071]);
    assert_eq!(spoken.holds(&wish, &moved).await?.uid(), twin.uid());
    Ok(())
}

#[tokio::test]
async fn a_pinned_cluster_ip_is_told_and_taken_in_place_when_it_is_free() -> Result<()> {
    let mut spoken = Spoken::start("wishes-ip").await?;
    let holder = Holder::of_cluster_ips(&spoken.host, &["10.43.14.11"]).await?;
    let wish = put("web", numbered(ServiceType::LoadBalancer, "10.43.14.11", 0)?)?;
    let wish = changed(&wish, |service| service.cluster_ip_pinned = true);
    let answer = spoken.say(&wish).await?;
    assert_eq!(answer.reason, Reason::ClusterIPTaken);
    let twin = spoken.holds(&wish, &answer).await?;
    holder.release().await?;
    let (moved, _) = spoken.asked_again(&Put { seen: answer.version, ..wish.clone() }, Reason::Applied).await?;
    assert_eq!(cluster_ip(&moved), "10.43.14.11");
    assert_eq!(spoken.holds(&wish, &moved).await?.uid(), twin.uid());
    Ok(())
}

#[tokio::test]
async fn a_number_out_of_range_is_replaced_and_told_if_it_was_asked_for() -> Result<()> {
    let mut spoken = Spoken::start("wishes-range").await?;
    let drawn = put("drawn", numbered(ServiceType::NodePort, "10.99.0.7", 20_001)?)?;
    let answer = spoken.say(&drawn).await?;
    assert_eq!(answer.reason, Reason::Applied);
    spoken.holds(&drawn, &answer).await?;
    let port = put("port", numbered(ServiceType::NodePort, "", 20_002)?)?;
    let port = changed(&port, |service| service.ports[0].node_port_pinned = true);
    let answer = spoken.say(&port).await?;
    assert_eq!((answer.outcome, answer.reason), (Outcome::Rejected, Reason::NodePortOutOfRange));
    spoken.holds(&port, &answer).await?;
    let ip = put("ip", numbered(ServiceType::ClusterIP, "10.99.0.8", 0)?)?;
    let ip = changed(&ip, |service| service.cluster_ip_pinned = true);
    let answer = spoken.say(&ip).await?;
    assert_eq!((answer.outcome, answer.reason), (Outcome::Rejected, Reason::ClusterIPOutOfRange));
    spoken.holds(&ip, &answer).await?;
    Ok(())
}

#[tokio::test]
async fn numbers_that_the_virtual_cluster_cannot_give_are_replaced_three_times() -> Result<()> {
    let mut spoken = Spoken::start("wishes-unusable").await?;
    let holder = Holder::of_cluster_ips(&spoken.host, &["10.43.14.12"]).await?;
    let wish = put("web", numbered(ServiceType::NodePort, "10.43.14.12", 0)?)?;
    let mut answer = spoken.say(&wish).await?;
    let twin = spoken.holds(&wish, &answer).await?;
    let mut unusable = Unusable::default();
    for _ in 0..3 {
        assert_eq!(answer.reason, Reason::Applied);
        unusable.cluster_ips.push(cluster_ip(&answer).parse()?);
        answer = spoken.say(&Put { seen: answer.version, unusable: unusable.clone(), ..wish.clone() }).await?;
        assert!(!unusable.cluster_ips.contains(&cluster_ip(&answer).parse()?), "{answer:?}");
        assert_eq!(spoken.holds(&wish, &answer).await?.uid(), twin.uid());
    }
    unusable.cluster_ips.push(cluster_ip(&answer).parse()?);
    let stuck = Put { seen: answer.version, unusable, ..wish.clone() };
    let kept = spoken.say(&stuck).await?;
    assert_eq!((kept.reason, &kept.numbers), (Reason::ClusterIPTaken, &answer.numbers));
    holder.release().await?;
    let (moved, _) = spoken.asked_again(&stuck, Reason::Applied).await?;
    assert_eq!(cluster_ip(&moved), "10.43.14.12");
    Ok(())
}

#[tokio::test]
async fn where_conflicts_are_reported_the_twin_waits_for_its_address() -> Result<()> {
    let env = vec![("K3K_EXPOSE_CLUSTER_IP_CONFLICT".to_owned(), "report".to_owned())];
    let host_api =
        HostApi::start(Rig::shared().host().await?, HostApiOptions { env, ..HostApiOptions::default() }).await?;
    let mut spoken = Spoken::on(&host_api, Spoken::tenant("wishes-report").await?).await?;
    let holder = Holder::of_cluster_ips(&spoken.host, &["10.43.14.13"]).await?;
    let wish = put("web", numbered(ServiceType::ClusterIP, "10.43.14.13", 0)?)?;
    let answer = spoken.say(&wish).await?;
    assert_eq!((answer.reason, &answer.numbers), (Reason::ClusterIPTaken, &None));
    assert!(!spoken.has_twin(&wish).await?);
    holder.release().await?;
    let (made, _) = spoken.asked_again(&wish, Reason::Applied).await?;
    assert_eq!(cluster_ip(&made), "10.43.14.13");
    Ok(())
}

#[tokio::test]
async fn an_address_that_is_held_without_a_service_is_known_and_its_release_is_an_event() -> Result<()> {
    let mut spoken = Spoken::start("wishes-address").await?;
    let addresses: Api<IPAddress> = Api::all(spoken.host.clone());
    let address: IPAddress = serde_json::from_value(json!({"metadata": {"name": "10.43.14.14"},
        "spec": {"parentRef": {"group": "example.com", "resource": "gateways", "namespace": "default", "name": "g"}}}))?;
    addresses.create(&PostParams::default(), &address).await?;
    // Those of Services are known by their Services.
    let foreign = ListParams::default().labels("ipaddress.kubernetes.io/managed-by!=ipallocator.k8s.io");
    let listed: Vec<String> = addresses.list(&foreign).await?.iter().map(ResourceExt::name_any).collect();
    assert_eq!(listed, ["10.43.14.14"]);
    let wish = put("web", numbered(ServiceType::ClusterIP, "10.43.14.14", 0)?)?;
    let wish = changed(&wish, |service| service.cluster_ip_pinned = true);
    let answer = spoken.say(&wish).await?;
    assert_eq!(answer.reason, Reason::ClusterIPTaken);
    spoken.holds(&wish, &answer).await?;
    addresses.delete("10.43.14.14", &DeleteParams::default()).await?;
    let (moved, _) = spoken.asked_again(&Put { seen: answer.version, ..wish }, Reason::Applied).await?;
    assert_eq!(cluster_ip(&moved), "10.43.14.14");
    Ok(())
}

#[tokio::test]
async fn a_number_of_the_same_tenant_is_waited_for() -> Result<()> {
    let mut spoken = Spoken::start("wishes-sibling").await?;
    let first = put("first", numbered(ServiceType::NodePort, "", 30_072)?)?;
    let second = put("second", numbered(ServiceType::NodePort, "", 30_072)?)?;
    spoken.say(&first).await?;
    spoken.session.send(&FromAgent::Put(second.clone())).await?;
    spoken.hear(&second, |answer| answer.reason == Reason::WaitingForNumber).await?;
    assert!(!spoken.has_twin(&second).await?);
    let first = changed(&first, |service| service.ports[0].node_port = 30_073.try_into().ok());
    spoken.session.send(&FromAgent::Put(first)).await?;
    let (made, _) = spoken.asked_again(&second, Reason::Applied).await?;
    assert_eq!(node_ports(&made.numbers.context("numbers")?), [30_072]);
    Ok(())
}
