//! The played k3k: tokens mean to a real API server what the design says, and synced objects behave like k3k's.

use std::time::Duration;

use k3k_expose_tests::k3k::{Tenant, TenantOptions};
use k3k_expose_tests::token::{self, AUDIENCE};
use k3k_expose_tests::{Rig, eventually};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, Error, ResourceExt};
use serde_json::json;

#[tokio::test]
async fn a_server_pods_token_names_its_pod_and_is_no_credential() -> anyhow::Result<()> {
    let host = Rig::shared().host().await?;
    let client = host.client().await?;
    let tenant = Tenant::create(&client, "rig-token", "one", TenantOptions::default()).await?;
    let token = tenant.server_pod_token(0).await?;

    let status = review(&client, &token).await?;
    assert_eq!(status.authenticated, Some(true), "{:?}", status.error);
    assert_eq!(status.audiences, Some(vec![AUDIENCE.to_owned()]));
    let user = status.user.unwrap_or_default();
    assert_eq!(user.username.as_deref(), Some("system:serviceaccount:rig-token:default"));
    let pod: Pod = Api::namespaced(client.clone(), "rig-token").get(&tenant.server_pod_name(0)).await?;
    let extra = user.extra.unwrap_or_default();
    assert_eq!(extra["authentication.kubernetes.io/pod-name"], [pod.name_any()]);
    assert_eq!(extra["authentication.kubernetes.io/pod-uid"], [pod.uid().unwrap_or_default()]);

    let as_pod = host.client_with_token(&token).await?;
    let refused = Api::<Pod>::default_namespaced(as_pod).list(&ListParams::default()).await;
    assert!(matches!(&refused, Err(Error::Api(status)) if status.code == 401), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn expired_foreign_and_orphaned_tokens_are_refused() -> anyhow::Result<()> {
    let host = Rig::shared().host().await?;
    let client = host.client().await?;
    let tenant = Tenant::create(&client, "rig-refused", "one", TenantOptions::default()).await?;
    let token = tenant.server_pod_token(0).await?;
    assert_eq!(review(&client, &token).await?.authenticated, Some(true));

    let expired = review(&client, &token::expired(host, &token).await?).await?;
    assert_ne!(expired.authenticated, Some(true));
    assert!(expired.error.unwrap_or_default().contains("expired"), "refused for its age, so the signature is right");
    let foreign = tenant.pod_token(&tenant.server_pod_name(0), "somebody-else").await?;
    assert_ne!(review(&client, &foreign).await?.authenticated, Some(true));

    tenant.delete_pod(&tenant.server_pod_name(0)).await?;
    eventually("the token of a deleted pod refused", Duration::from_secs(60), async || {
        review(&client, &token).await.is_ok_and(|status| status.authenticated != Some(true))
    })
    .await?;
    tenant.create_server_pod(0).await?;
    assert_eq!(review(&client, &tenant.server_pod_token(0).await?).await?.authenticated, Some(true));
    Ok(())
}

#[tokio::test]
async fn a_twin_made_as_k3k_gets_the_tenants_pod_as_endpoint_and_goes_with_the_cluster() -> anyhow::Result<()> {
    let client = Rig::shared().host().await?.client().await?;
    let options = TenantOptions { sync_services: true, ..TenantOptions::default() };
    let tenant = Tenant::create(&client, "rig-twin", "one", options).await?;
    let virtual_service: Service = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default", "labels": {"team": "a"}},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    }))?;
    tenant.tenant_pod("web-1", "default", &[("app", "web")], false).await?;
    let twin = tenant.create_twin_as_k3k(&virtual_service).await?;
    assert_eq!(twin.name_any(), "web-default-one-7765622b64656661756c742b6f6e65");

    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "rig-twin");
    let of_twin = ListParams::default().labels(&format!("kubernetes.io/service-name={}", twin.name_any()));
    eventually("the pod in an EndpointSlice", Duration::from_secs(30), async || {
        let slices = slices.list(&of_twin).await?;
        let ready = slices.iter().flat_map(|slice| slice.endpoints.iter());
        let ready = ready.filter(|endpoint| endpoint.conditions.as_ref().is_some_and(|c| c.ready == Some(true)));
        if ready.count() == 1 { Ok(()) } else { Err(anyhow::anyhow!("{} slices", slices.items.len())) }
    })
    .await?;

    tenant.set_sync_services(false).await?;
    tenant.annotate_cluster("example.com/note", Some("kept")).await?;
    tenant.delete_cluster().await?;
    eventually("the twin and the pods collected", Duration::from_secs(60), async || {
        let pods = Api::<Pod>::namespaced(client.clone(), "rig-twin").list(&ListParams::default()).await;
        let twin = tenant.host_services().get_opt(&twin.name_any()).await;
        matches!((pods, twin), (Ok(pods), Ok(None)) if pods.items.is_empty())
    })
    .await?;
    Ok(())
}

async fn review(client: &Client, token: &str) -> anyhow::Result<TokenReviewStatus> {
    let spec = TokenReviewSpec { audiences: Some(vec![AUDIENCE.to_owned()]), token: Some(token.to_owned()) };
    let review = TokenReview { spec, ..TokenReview::default() };
    Ok(Api::all(client.clone()).create(&PostParams::default(), &review).await?.status.unwrap_or_default())
}
