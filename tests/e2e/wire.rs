//! The hand-spoken wire: what it opens is a session like any agent's, and a refusal comes with its words.

use std::time::Duration;

use k3k_expose_proto::message::{Resume, Role};
use k3k_expose_proto::{FromAgent, Outcome, Reason};
use k3k_expose_tests::k3k::{Tenant, TenantOptions};
use k3k_expose_tests::wire::{self, WireSession};
use k3k_expose_tests::{Rig, eventually};

const VIRTUAL_CLUSTER: &str = "0d1c0c1e-1111-4222-8333-5a8a3a1f2b3c";

#[tokio::test]
async fn a_session_spoken_by_hand_makes_a_twin_and_takes_it_back() -> anyhow::Result<()> {
    let host = Rig::shared().host().await?.client().await?;
    let host_api = Rig::shared().host_api().await?;
    let tenant = Tenant::create(&host, "wire-by-hand", "one", TenantOptions::default()).await?;
    let token = tenant.server_pod_token(0).await?;

    let put = wire::put("default", "web", "uid-1", wire::cluster_ip_service("web", 80)?)?;
    let wanted = std::slice::from_ref(&put);
    let hello = wire::hello(VIRTUAL_CLUSTER, wanted)?;
    let (mut session, welcome) = WireSession::open(host_api, &token, hello.clone()).await?;
    assert_eq!((welcome.role, welcome.resume), (Role::Active, Resume::Snapshot));
    session.send_snapshot(wanted).await?;
    let answer = session.settled(&put).await?;
    assert_eq!((answer.outcome, answer.reason), (Outcome::Applied, Reason::Applied));
    let twin = tenant.host_services().get(&tenant.twin_name("web", "default")).await?;
    let address = twin.spec.unwrap_or_default().cluster_ip.unwrap_or_default();
    let numbers = answer.numbers.unwrap_or_default();
    assert_eq!(numbers.cluster_ips.first().map(ToString::to_string), Some(address));

    // A set that has been compared needs no snapshot, not even in another session of the same pod.
    let (next, welcome) = WireSession::open(host_api, &token, hello).await?;
    assert_eq!(welcome.resume, Resume::Nothing);
    session.bye().await?;
    next.send(&FromAgent::Delete(wire::delete(&put))).await?;
    eventually("the twin gone", Duration::from_secs(20), async || {
        let twin = tenant.host_services().get_opt(&tenant.twin_name("web", "default")).await;
        matches!(twin, Ok(None))
    })
    .await
}

#[tokio::test]
async fn a_refusal_has_status_reason_and_words() -> anyhow::Result<()> {
    let host_api = Rig::shared().host_api().await?;
    let refused = WireSession::open(host_api, "", wire::hello(VIRTUAL_CLUSTER, &[])?).await;
    let problem = refused.err().unwrap_or_default();
    assert_eq!((problem.status, problem.reason.as_str()), (401, "TokenMissing"));
    assert!(problem.detail.contains("k3k-expose"), "{problem}");
    assert_eq!(problem.retry_after, None);
    Ok(())
}
