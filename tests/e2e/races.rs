//! "Already allocated" that is no conflict: what the host says to the create of a twin that stands already.

use anyhow::Result;
use futures::future::try_join_all;
use k3k_expose_tests::product::{HOST_API_ACCOUNT, HOST_API_USER, HostApiOptions};
use k3k_expose_tests::rig::Pair;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::world::{World, create, service};

/// host-api learns of Services from its watch, so the race is made certain by taking the watch away: the twin stands, and
/// nothing tells.
#[tokio::test]
async fn a_twin_that_nobody_told_of_is_found_by_its_name_and_never_renumbered() -> Result<()> {
    let pair = Pair::dual_stack("races", HostApiOptions::default()).await?;
    let world = World::of_pair(&pair, "races").await?;
    let services = world.namespace("blind").await?;
    let roles: Api<ClusterRole> = Api::all(world.host.clone());
    let mut role = roles.get(HOST_API_ACCOUNT).await?;
    for rule in
        role.rules.iter_mut().flatten().filter(|rule| rule.resources.as_deref() == Some(&["services".to_owned()]))
    {
        rule.verbs.retain(|verb| !matches!(verb.as_str(), "list" | "watch"));
    }
    roles.patch(HOST_API_ACCOUNT, &PatchParams::default(), &Patch::Merge(json!({"rules": role.rules}))).await?;
    // The watch that is open was allowed when it began.
    pair.host.kill_api_server().await?;
    pair.host.start_api_server().await?;

    world.agent.kill().await?;
    let kinds = ["ClusterIP", "NodePort", "LoadBalancer"].map(|kind| {
        let spec = json!({"type": kind, "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]});
        service(&kind.to_lowercase(), spec)
    });
    let made = try_join_all(kinds.iter().map(|one| create(&services, one))).await?;
    let twins = try_join_all(made.iter().map(|one| world.tenant.create_twin_as_k3k(one))).await?;
    let audit = pair.host.audit();
    let mark = audit.mark().await?;
    world.agent.restart().await?;

    for (wanted, twin) in made.iter().zip(&twins) {
        let found = world.follows(wanted).await?;
        assert_eq!(found.uid(), twin.uid(), "{} was made anew", wanted.name_any());
        let stands = services.get(&wanted.name_any()).await?;
        assert_eq!(stands.spec, wanted.spec, "the tenant's Service was changed");
    }
    let creates = audit
        .since(mark)
        .await?
        .into_iter()
        .filter(|entry| entry.user == HOST_API_USER && entry.verb == "create" && entry.resource == "services");
    let codes: Vec<u16> = creates.map(|entry| entry.code).collect();
    assert!(codes.len() >= made.len() && codes.iter().all(|code| matches!(code, 409 | 422)), "{codes:?}");
    let events: Api<Event> = Api::namespaced(world.virtual_cluster.clone(), "blind");
    let told = events.list(&ListParams::default()).await?.items;
    assert!(told.is_empty(), "{told:?}");
    Ok(())
}
