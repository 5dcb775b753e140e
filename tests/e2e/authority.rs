//! When the host's API server refuses host-api itself, as it does for a moment after each of its own starts, no Service is
//! to blame.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k3k_expose_proto::message::{FromAgent, Put};
use k3k_expose_proto::{FromHost, Outcome, Reason};
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::k3k::{self, Tenant, TenantOptions};
use k3k_expose_tests::product::{HostApi, HostApiOptions, apply_rbac};
use k3k_expose_tests::wire::{WireSession, delete, hello};
use k3k_expose_tests::{ControlPlane, PlaneOptions, took};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Error};
use tokio::time::Instant;

use crate::observe::{headless, twins};
use crate::world::SOON;

const NAME: &str = "k3k-expose-host-api";

#[tokio::test]
async fn a_refusal_of_host_api_itself_is_soon_tried_again() -> Result<()> {
    let host = ControlPlane::start(PlaneOptions::new("authority").without_controllers()).await?;
    let client = host.client().await?;
    k3k::install(&client).await?;
    let host_api = HostApi::start(&host, HostApiOptions::default()).await?;
    let tenant = Tenant::create(&client, "host-authority", "mine", TenantOptions::default()).await?;
    let token = tenant.server_pod_token(0).await?;
    let mut session = WireSession::open(&host_api, &token, hello("vc", &[])?).await?.0;
    let (old, new) = (headless("old")?, headless("new")?);
    session.send_snapshot(std::slice::from_ref(&old)).await?;
    assert_eq!(session.settled(&old).await?.outcome, Outcome::Applied);

    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    bindings.delete(NAME, &DeleteParams::default()).await?;
    let account = host.client_for_service_account("k3k-expose", NAME).await?;
    let services: Api<k8s_openapi::api::core::v1::Service> = Api::all(account);
    eventually("the loss of the role", SOON, async || match services.list(&ListParams::default()).await {
        Err(Error::Api(status)) if status.code == 403 => Ok(()),
        other => anyhow::bail!("{:?}", other.map(|list| list.items.len())),
    })
    .await?;
    session.send(&FromAgent::Put(new.clone())).await?;
    session.send(&FromAgent::Delete(delete(&old))).await?;
    let answer = session.answer_for(&new.key).await?;
    assert_eq!((answer.outcome, answer.reason), (Outcome::Pending, Reason::HostUnavailable));

    let began = Instant::now();
    apply_rbac(&client).await?;
    assert_eq!(settled_by(&mut session, &new).await?, Reason::Applied);
    eventually("the deletion", SOON, async || {
        let left = twins(&tenant).await?;
        ensure!(left.len() == 1 && left.contains_key(&tenant.twin_name("new", "first")), "{:?}", left.keys());
        anyhow::Ok(())
    })
    .await?;
    took("writes after the role was back", began.elapsed(), Duration::from_secs(3));
    Ok(())
}

/// Says an object again when it is asked for, until it is settled.
async fn settled_by(session: &mut WireSession, put: &Put) -> Result<Reason> {
    loop {
        match session.next().await?.context("the session ended")? {
            FromHost::Want(_) => session.send(&FromAgent::Put(put.clone())).await?,
            FromHost::Answer(answer) if answer.outcome != Outcome::Pending => return Ok(answer.reason),
            _ => {}
        }
    }
}
