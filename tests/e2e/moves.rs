//! Moves that something in the virtual cluster stands in the way of: they end in a working Service, or in one that is
//! refused clearly, and never in a stranded one.

use anyhow::{Context, Result, ensure};
use k3k_expose_tests::PlaneOptions;
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::product::HostApiOptions;
use k3k_expose_tests::rig::{Pair, virtual_options};
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::{ResourceQuota, Service};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::renumber::fence;
use crate::world::answer::numbers;
use crate::world::{SOON, World, change, create, delete, replace, service};

const PAIR: &str = "moves";
const NAME: &str = "renumber.expose.k3k.io.invalid";

/// A policy of the virtual cluster that denies updates of Services in one namespace.
struct Policy<'a> {
    world: &'a World,
    name: String,
}

impl<'a> Policy<'a> {
    /// Denies updates for which this CEL expression is true, and waits until it does.
    async fn denies(world: &'a World, namespace: &str, expression: &str) -> Result<Self> {
        let name = format!("deny-{namespace}");
        let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
                    "operations": ["UPDATE"], "resources": ["services"]}]},
                "validations": [{"message": "not in this shop",
                    "expression": format!("object.metadata.name != 'probe' && !({expression})")}],
            },
        }))?;
        let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"], "matchResources": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}},
        }))?;
        let client = &world.virtual_cluster;
        Api::all(client.clone()).create(&PostParams::default(), &policy).await?;
        Api::all(client.clone()).create(&PostParams::default(), &binding).await?;
        // Its policy denies every change of this one, which tells when it is in force.
        let services = world.services(namespace);
        let probe = json!({"type": "ExternalName", "externalName": "probe.example.com"});
        create(&services, &service("probe", probe)).await?;
        eventually("the policy is in force", SOON, async || {
            let patch = json!({"metadata": {"labels": {"probe": fastrand::u32(..).to_string()}}});
            ensure!(change(&services, "probe", patch).await.is_err(), "it lets the probe through");
            anyhow::Ok(())
        })
        .await?;
        Ok(Self { world, name })
    }

    async fn lift(self) -> Result<()> {
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(self.world.virtual_cluster.clone());
        bindings.delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }
}

/// Second updates come from an ExternalName.
const SECOND: &str = "oldObject.spec.type == 'ExternalName' && object.spec.type != 'ExternalName'";
/// First updates lead to an ExternalName.
const FIRST: &str = "object.spec.type == 'ExternalName'";

/// A Service whose address is held on the host.
async fn blocked(world: &World, services: &Api<Service>, number: u8, mut spec: Value) -> Result<Service> {
    let ip = world.spare_ip(number);
    world.holder_of_ips(&[&ip]).await?;
    fence(world, services, "fence").await?;
    spec["clusterIP"] = ip.into();
    create(services, &service("web", spec)).await
}

/// The Service while its move stands between the two updates.
async fn between(services: &Api<Service>) -> Result<Service> {
    eventually("the move is half done", SOON, async || {
        let now = services.get("web").await?;
        let alias = now.spec.as_ref().and_then(|spec| spec.external_name.clone());
        ensure!(alias.as_deref() == Some(NAME), "it is {alias:?}");
        anyhow::Ok(now)
    })
    .await
}

/// The Service agrees, as the object that it was, with an address that it did not have.
async fn arrives(world: &World, made: &Service) -> Result<Service> {
    let (now, twin) = world.agrees(made).await?;
    assert_eq!((now.uid(), numbers(&now)), (made.uid(), numbers(&twin)));
    assert_ne!(numbers(&now).cluster_ips, numbers(made).cluster_ips);
    assert!(!now.annotations().contains_key("expose.k3k.io/renumber"));
    Ok(now)
}

fn balancer() -> Value {
    json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "loadBalancerSourceRanges": ["192.0.2.0/24"],
        "ports": [{"port": 80}]})
}

#[tokio::test]
async fn a_second_update_that_is_denied_is_told_and_outlives_the_agent() -> Result<()> {
    let pair = Pair::dual_stack("moves-crash", HostApiOptions::default()).await?;
    let world = World::of_pair(&pair, "moves-crash").await?;
    let services = world.namespace("crash").await?;
    let policy = Policy::denies(&world, "crash", SECOND).await?;
    let made = blocked(&world, &services, 50, balancer()).await?;
    between(&services).await?;
    world.refused(&made, "Renumbering").await?;
    world.agent.kill().await?;
    policy.lift().await?;
    world.agent.restart().await?;
    let now = arrives(&world, &made).await?;
    let spec = now.spec.context("a spec")?;
    assert_eq!(spec.load_balancer_source_ranges, Some(vec!["192.0.2.0/24".to_owned()]));
    assert_eq!(spec.external_traffic_policy.as_deref(), Some("Local"));
    Ok(())
}

#[tokio::test]
async fn a_first_update_that_is_denied_leaves_the_service_as_it_is() -> Result<()> {
    let world = World::paired(PAIR).await?;
    let services = world.namespace("first").await?;
    let _policy = Policy::denies(&world, "first", FIRST).await?;
    let made = blocked(&world, &services, 51, json!({"ports": [{"port": 80}]})).await?;
    let now = world.refused(&made, "ClusterIPTaken").await?;
    assert_eq!(json!(now.spec), json!(made.spec));
    Ok(())
}

#[tokio::test]
async fn numbers_that_are_stolen_in_between_are_replaced_by_others() -> Result<()> {
    let world = World::paired(PAIR).await?;
    let services = world.namespace("stolen").await?;
    let policy = Policy::denies(&world, "stolen", SECOND).await?;
    let made = blocked(&world, &services, 52, json!({"type": "NodePort", "ports": [{"port": 80}]})).await?;
    between(&services).await?;
    let twin = world.twin(&made, |_| true).await?;
    let (ip, port) = (numbers(&twin).cluster_ips[0].clone(), numbers(&twin).node_ports[0].2);
    let elsewhere = world.namespace("thieves").await?;
    let thief = json!({"type": "NodePort", "clusterIP": ip, "ports": [{"port": 80, "nodePort": port}]});
    // A second update that is denied holds its numbers for a moment.
    let thief =
        eventually("the numbers are stolen", SOON, async || create(&elsewhere, &service("thief", thief.clone())).await)
            .await?;
    policy.lift().await?;
    let now = arrives(&world, &made).await?;
    assert_ne!(numbers(&now), numbers(&thief));
    world.agrees(&thief).await?;
    Ok(())
}

#[tokio::test]
async fn a_quota_that_is_used_up_in_between_is_waited_for() -> Result<()> {
    let world = World::paired(PAIR).await?;
    let services = world.namespace("quota").await?;
    let quotas: Api<ResourceQuota> = Api::namespaced(world.virtual_cluster.clone(), "quota");
    let quota: ResourceQuota = serde_json::from_value(
        json!({"metadata": {"name": "one"}, "spec": {"hard": {"services.loadbalancers": "1"}}}),
    )?;
    let quota = quotas.create(&PostParams::default(), &quota).await?;
    eventually("the quota counts", SOON, async || {
        let status = quotas.get(&quota.name_any()).await?.status;
        ensure!(status.is_some_and(|status| status.used.is_some()), "not yet");
        anyhow::Ok(())
    })
    .await?;
    let policy = Policy::denies(&world, "quota", SECOND).await?;
    let made = blocked(&world, &services, 53, balancer()).await?;
    between(&services).await?;
    eventually("the quota is free", SOON, async || {
        create(&services, &service("thief", balancer())).await?;
        anyhow::Ok(())
    })
    .await?;
    policy.lift().await?;
    world.refused(&made, "Renumbering").await?;
    delete(&services, "thief").await?;
    arrives(&world, &made).await.map(drop)
}

#[tokio::test]
async fn a_tenants_edit_in_between_is_kept() -> Result<()> {
    let world = World::paired(PAIR).await?;
    let services = world.namespace("edited").await?;
    let policy = Policy::denies(&world, "edited", SECOND).await?;
    let made = blocked(&world, &services, 54, json!({"selector": {"app": "a"}, "ports": [{"port": 80}]})).await?;
    between(&services).await?;
    change(&services, "web", json!({"metadata": {"labels": {"edited": "yes"}}, "spec": {"selector": {"app": "b"}}}))
        .await?;
    policy.lift().await?;
    let now = arrives(&world, &made).await?;
    assert_eq!(now.labels().get("edited").map(String::as_str), Some("yes"));
    assert_eq!(now.spec.and_then(|spec| spec.selector).and_then(|it| it.get("app").cloned()).as_deref(), Some("b"));
    Ok(())
}

#[tokio::test]
async fn a_forged_annotation_changes_nothing() -> Result<()> {
    let world = World::paired(PAIR).await?;
    let services = world.namespace("forged").await?;
    let intent = json!({"type": "LoadBalancer", "clusterIPs": [world.spare_ip(55)]}).to_string();
    let made = create(&services, &service("web", json!({"ports": [{"port": 80}]}))).await?;
    let (before, _) = world.agrees(&made).await?;
    change(&services, "web", json!({"metadata": {"annotations": {"expose.k3k.io/renumber": intent}}})).await?;
    let mut alias = service("alias", json!({"type": "ExternalName", "externalName": NAME}));
    alias.metadata.annotations = Some([("expose.k3k.io/renumber".to_owned(), intent)].into());
    let alias = create(&services, &alias).await?;
    world.refused(&alias, "ExternalNameNotExposed").await?;
    let (now, _) = world.agrees(&made).await?;
    assert_eq!(json!(now.spec), json!(before.spec));
    assert_eq!(json!(services.get("alias").await?.spec), json!(alias.spec));
    Ok(())
}

#[tokio::test]
async fn with_report_nothing_moves_and_the_twin_comes_when_the_address_is_free() -> Result<()> {
    let env = vec![("K3K_EXPOSE_CLUSTER_IP_CONFLICT".to_owned(), "report".to_owned())];
    let pair = Pair::dual_stack("report", HostApiOptions { env, ..HostApiOptions::default() }).await?;
    let world = World::of_pair(&pair, "report").await?;
    let services = world.namespace("shop").await?;
    let ip = world.spare_ip(56);
    let holder = world.holder_of_ips(&[&ip]).await?;
    fence(&world, &services, "fence").await?;
    let made = create(&services, &service("web", json!({"clusterIP": ip, "ports": [{"port": 80}]}))).await?;
    let now = world.refused(&made, "ClusterIPTaken").await?;
    assert_eq!(json!(now.spec), json!(made.spec));
    world.no_twin("web", "shop").await?;
    holder.release().await?;
    let (now, _) = world.agrees(&made).await?;
    assert_eq!(json!(now.spec), json!(made.spec));
    Ok(())
}

#[tokio::test]
async fn addresses_outside_the_virtual_range_end_in_a_refusal_and_not_in_a_move() -> Result<()> {
    let pair = Pair::boot(
        PlaneOptions::new("apart-host").without_controllers(),
        virtual_options("apart").without_controllers().with_service_cidr("10.99.0.0/16"),
        HostApiOptions::default(),
    )
    .await?;
    let world = World::of_pair(&pair, "apart").await?;
    let services = world.namespace("shop").await?;
    let made = create(&services, &service("web", json!({"type": "NodePort", "ports": [{"port": 80}]}))).await?;
    let now = world.refused(&made, "ClusterIPOutOfRange").await?;
    assert_eq!(numbers(&now).cluster_ips, numbers(&made).cluster_ips);
    let twin = world.twin(&made, |_| true).await?;
    assert_eq!(numbers(&twin).node_ports, numbers(&now).node_ports, "its node port works all the same");
    replace(&services, "web", json!({"metadata": {"labels": {"a": "b"}}})).await?;
    world.refused(&made, "ClusterIPOutOfRange").await?;
    Ok(())
}
