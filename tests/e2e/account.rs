//! Which credential the agent uses where: none for the host, the administrator's for its own account, that account for
//! everything else.

use std::sync::Arc;

use anyhow::{Result, ensure};
use k3k_expose_tests::Rig;
use k3k_expose_tests::audit::Entry;
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::k3k::TenantOptions;
use k3k_expose_tests::product::{ADMIN_USER, AGENT_USER};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Error};
use serde_json::json;

use crate::observe::virtual_cluster;
use crate::world::{SOON, World, create, service};

const NAME: &str = "k3k-expose-agent";

#[tokio::test]
async fn the_host_itself_refuses_the_token_that_the_agent_has() -> Result<()> {
    let host = Rig::shared().host().await?;
    let client = host.client().await?;
    let tenant = k3k_expose_tests::k3k::Tenant::create(&client, "host-token", "mine", TenantOptions::default()).await?;
    let stranger = host.client_with_token(&tenant.server_pod_token(0).await?).await?;
    let namespaces: Api<Namespace> = Api::all(stranger);
    match namespaces.list(&ListParams::default()).await {
        Err(Error::Api(status)) => assert_eq!(status.code, 401),
        other => panic!("{other:?}"),
    }
    Ok(())
}

#[tokio::test]
async fn the_agents_account_does_all_the_work_and_is_mended_when_a_tenant_deletes_it() -> Result<()> {
    let rig = Rig::shared();
    let plane = virtual_cluster("account").await?;
    let start = plane.audit().mark().await?;
    let (host, host_api) = (rig.host().await?, rig.host_api().await?);
    let world = World::on(host, host_api, Arc::clone(&plane), "account", TenantOptions::default()).await?;
    let services = world.namespace("first").await?;
    let headless =
        |name| service(name, json!({"clusterIP": "None", "selector": {"app": "a"}, "ports": [{"port": 80}]}));
    world.twin(&create(&services, &headless("before")).await?, |_| true).await?;

    let accounts: Api<ServiceAccount> = Api::namespaced(world.virtual_cluster.clone(), "kube-system");
    let roles: Api<ClusterRole> = Api::all(world.virtual_cluster.clone());
    let bindings: Api<ClusterRoleBinding> = Api::all(world.virtual_cluster.clone());
    accounts.delete(NAME, &DeleteParams::default()).await?;
    roles.delete(NAME, &DeleteParams::default()).await?;
    bindings.delete(NAME, &DeleteParams::default()).await?;
    // A watch under way is not judged anew, so it has to end before the loss is felt.
    plane.kill_api_server().await?;
    plane.start_api_server().await?;
    eventually("the account, its role and its binding", SOON, async || {
        accounts.get(NAME).await?;
        roles.get(NAME).await?;
        bindings.get(NAME).await
    })
    .await?;
    world.twin(&create(&services, &headless("after")).await?, |_| true).await?;

    let entries = plane.audit().since(start).await?;
    let of = |user: &str| entries.iter().filter(|entry| entry.user == user).collect::<Vec<_>>();
    let (admin, own) = (of(ADMIN_USER), of(AGENT_USER));
    assert!(
        !admin.is_empty()
            && own.iter().any(|entry| (entry.verb.as_str(), entry.resource.as_str()) == ("watch", "services"))
    );
    for entry in admin {
        ensure!(is_upkeep(entry), "the administrator's credential was used for {entry:?}");
    }
    for entry in own {
        let allowed = match (entry.verb.as_str(), entry.resource.as_str()) {
            ("get" | "list" | "watch", "services")
            | ("list" | "watch", "endpointslices")
            | ("patch", "services/status") => true,
            ("get", "namespaces") => entry.name == "kube-system",
            _ => false,
        };
        ensure!(allowed, "the agent's account was used for {entry:?}");
    }
    let minted = entries.iter().filter(|entry| entry.resource == "serviceaccounts/token").count();
    assert_eq!(minted, 2, "one token at the start, one with the mended account");
    Ok(())
}

/// Whether a request ensures or mends the agent's account, or mints its token.
fn is_upkeep(entry: &Entry) -> bool {
    let verbs = ["get", "create", "patch"].contains(&entry.verb.as_str());
    // The name of an object that is being made is in its body only.
    let own = entry.name == NAME || (entry.verb == "create" && entry.name.is_empty());
    let account = entry.namespace == "kube-system"
        && ["serviceaccounts", "serviceaccounts/token"].contains(&entry.resource.as_str());
    verbs && own && (account || ["clusterroles", "clusterrolebindings"].contains(&entry.resource.as_str()))
}
