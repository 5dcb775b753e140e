//! What a tenant is told: the condition on every Service, written once, and an Event for each refusal, told once.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k3k_expose_proto::line;
use k3k_expose_proto::message::{FromHost, HostBeat};
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::product::{AGENT_USER, HOST_API_USER};
use k3k_expose_tests::rig::Rig;
use k3k_expose_tests::{k3k, told, took};
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::observe::create_all;
use crate::world::{SOON, World, change, create, delete, service};

const PAIR: &str = "words";
const REFUSED: usize = 50;
const STUCK: usize = 100;
/// Beats of a minute, in which whoever wants to write has had the time to.
const BEATS: u64 = 4;

fn alias(name: &str) -> Service {
    service(name, json!({"type": "ExternalName", "externalName": "example.com"}))
}

#[tokio::test]
async fn every_type_carries_the_condition_and_costs_one_write() -> Result<()> {
    let world = World::paired(PAIR).await?;
    let services = world.namespace("types").await?;
    let audit = Rig::shared().pair(PAIR).await?.virtual_cluster.audit();
    let mark = audit.mark().await?;
    for (name, spec) in [
        ("inside", json!({"ports": [{"port": 80}]})),
        ("nodes", json!({"type": "NodePort", "ports": [{"port": 80}]})),
        ("balancer", json!({"type": "LoadBalancer", "ports": [{"port": 80}]})),
        ("headless", json!({"clusterIP": "None", "ports": [{"port": 80}]})),
    ] {
        let made = create(&services, &service(name, spec)).await?;
        let (now, _) = world.agrees(&made).await?;
        let said = told::synced(&now).context("a condition")?;
        assert_eq!((said.status.as_str(), said.reason.as_str()), ("True", "Applied"));
        assert!(now.finalizers().is_empty(), "{:?}", now.finalizers());
        let writes = audit.writes_since(mark, |user| user == AGENT_USER).await?.counted;
        let of_it: Vec<_> = writes.iter().filter(|entry| entry.namespace == "types" && entry.name == name).collect();
        assert!(of_it.len() == 1 && of_it[0].resource == "services/status", "{of_it:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_refusal_is_told_in_the_condition_and_by_one_event() -> Result<()> {
    let world = World::paired(PAIR).await?;
    let services = world.namespace("refused").await?;
    let made = create(&services, &alias("elsewhere")).await?;
    let now = world.refused(&made, "ExternalNameNotExposed").await?;
    world.event(&made, "ExternalNameNotExposed").await?;
    let since = told::synced(&now).context("a condition")?.last_transition_time.clone();
    change(&services, "elsewhere", json!({"metadata": {"labels": {"a": "b"}}})).await?;
    let fence = create(&services, &service("fence", json!({"ports": [{"port": 80}]}))).await?;
    world.applied(&fence).await?;
    let now = world.refused(&made, "ExternalNameNotExposed").await?;
    assert_eq!(told::synced(&now).context("a condition")?.last_transition_time, since);
    let events = world.events(&made).await?;
    assert_eq!(events.len(), 1);
    let said = format!("{}{:?}", json!(now.status), events[0].message);
    let hosts = [world.tenant.namespace.as_str(), world.tenant.cluster_uid.as_str(), "k3k-mine-server"];
    assert!(hosts.iter().all(|word| !said.contains(word)), "{said}");
    Ok(())
}

#[tokio::test]
async fn refused_services_with_conditions_of_others_rest_and_go_with_their_namespace() -> Result<()> {
    let world = World::paired(PAIR).await?;
    let services = world.namespace("crowd").await?;
    let made = create_all(&services, (0..REFUSED).map(|number| alias(&format!("alias-{number}"))).collect()).await?;
    for one in &made {
        let own = json!({"status": {"conditions": [{"type": "example.com/Own", "status": "True", "reason": "Mine",
            "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        services.patch_status(&one.name_any(), &PatchParams::default(), &Patch::Strategic(&own)).await?;
        world.refused(one, "ExternalNameNotExposed").await?;
        world.event(one, "ExternalNameNotExposed").await?;
    }
    let pair = Rig::shared().pair(PAIR).await?;
    let (here, there) = (pair.virtual_cluster.audit(), pair.host.audit());
    let marks = (here.mark().await?, there.mark().await?);
    let beats = async || {
        let bytes = world.agent.metric("k3k_expose_agent_stream_bytes_total{direction=\"received\"}").await?;
        anyhow::Ok(bytes.unwrap_or_default())
    };
    let before = beats().await?;
    let beat = FromHost::Beat(HostBeat { k3k_syncs: false, k3k_syncs_ingresses: false, ingress_classes: None });
    let minute = BEATS * u64::try_from(line::encode(&beat)?.len())?;
    eventually("a minute's beats of host-api", Duration::from_secs(120), async || {
        let received = beats().await? - before;
        ensure!(received >= f64::from(u32::try_from(minute)?), "{received} of {minute}");
        anyhow::Ok(())
    })
    .await?;
    let ours = here.writes_since(marks.0, |user| user == AGENT_USER).await?.counted;
    let ours: Vec<_> = ours.iter().filter(|entry| entry.namespace == "crowd").collect();
    let hosts = there.writes_since(marks.1, |user| user == HOST_API_USER).await?.counted;
    let hosts: Vec<_> = hosts.iter().filter(|entry| entry.name.starts_with("alias-")).collect();
    assert!(ours.is_empty() && hosts.is_empty(), "{ours:?} {hosts:?}");
    for one in services.list(&ListParams::default()).await?.items {
        let conditions = one.status.clone().and_then(|status| status.conditions).unwrap_or_default();
        assert!(conditions.iter().any(|condition| condition.type_ == "example.com/Own"), "{conditions:?}");
        assert!(one.finalizers().is_empty());
    }

    let namespaces: Api<Namespace> = Api::all(world.virtual_cluster.clone());
    namespaces.delete("crowd", &DeleteParams::default()).await?;
    eventually("the namespace is gone", SOON, async || {
        ensure!(namespaces.get_opt("crowd").await?.is_none(), "it stands");
        anyhow::Ok(())
    })
    .await
}

#[tokio::test]
async fn a_deleted_service_goes_at_once_whatever_its_twin_does() -> Result<()> {
    let world = World::paired(PAIR).await?;
    let services = world.namespace("going").await?;
    let web = json!({"ports": [{"port": 80}]});
    let applied = create(&services, &service("applied", web.clone())).await?;
    let held = create(&services, &service("held", web)).await?;
    let refused = create(&services, &alias("refused")).await?;
    world.applied(&applied).await?;
    world.refused(&refused, "ExternalNameNotExposed").await?;
    let twin = world.twin(&held, |_| true).await?.name_any();
    let twins = world.tenant.host_services();
    let finalizers = |list: Value| json!({"metadata": {"finalizers": list}});
    let params = PatchParams::default();
    twins.patch(&twin, &params, &Patch::Merge(&finalizers(json!(["example.com/hold"])))).await?;
    for name in ["applied", "held", "refused"] {
        delete(&services, name).await?;
        assert!(services.get_opt(name).await?.is_none(), "{name} waits for something");
    }
    world.no_twin("applied", "going").await?;
    twins.patch(&twin, &params, &Patch::Merge(&finalizers(json!([])))).await?;
    world.no_twin("held", "going").await
}

#[tokio::test]
async fn the_agents_role_is_the_shipped_one() -> Result<()> {
    let world = World::paired(PAIR).await?;
    // Its first session comes after its account.
    crate::observe::session_up(&world.agent).await?;
    let roles: Api<ClusterRole> = Api::all(world.virtual_cluster.clone());
    let role = json!(roles.get("k3k-expose-agent").await?.rules);
    let expected = json!([
        {"apiGroups": [""], "resources": ["services"], "verbs": ["get", "list", "watch", "patch"]},
        {"apiGroups": [""], "resources": ["services/status"], "verbs": ["patch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]},
        {"apiGroups": ["networking.k8s.io"], "resources": ["servicecidrs"], "verbs": ["list"]},
        {"apiGroups": ["networking.k8s.io"], "resources": ["ipaddresses"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["namespaces"], "resourceNames": ["kube-system"], "verbs": ["get"]},
    ]);
    assert_eq!(role, expected);
    Ok(())
}

#[tokio::test]
async fn k3ks_finalizer_stays_while_k3k_syncs_and_goes_after_also_from_what_is_being_deleted() -> Result<()> {
    let options = k3k::TenantOptions { sync_services: true, ..k3k::TenantOptions::default() };
    let world = crate::observe::world("finalizers", options).await?;
    let services = world.namespace("first").await?;
    for name in ["live", "leaving"] {
        let made = create(&services, &service(name, json!({"clusterIP": "None", "ports": [{"port": 80}]}))).await?;
        k3k::add_finalizer(&world.virtual_cluster, &made).await?;
    }
    delete(&services, "leaving").await?;
    let live = services.get("live").await?;
    world.refused(&live, "Adopting").await?;
    assert_eq!(services.get("live").await?.finalizers(), ["service.k3k.io/finalizer"]);
    assert_eq!(services.get("leaving").await?.finalizers(), ["service.k3k.io/finalizer"]);
    crate::observe::event(&world.host, &world.tenant, "TwoWriters").await?;

    world.tenant.set_sync_services(false).await?;
    world.applied(&live).await?;
    eventually("k3k's finalizers are gone", SOON, async || {
        ensure!(services.get("live").await?.finalizers().is_empty(), "the live one has it");
        ensure!(services.get_opt("leaving").await?.is_none(), "the other waits");
        anyhow::Ok(())
    })
    .await
}

#[tokio::test]
async fn a_hundred_stuck_services_do_not_slow_the_next_one() -> Result<()> {
    let world = World::paired(PAIR).await?;
    let services = world.namespace("stuck").await?;
    let web = |name: &str| service(name, json!({"clusterIP": "None", "ports": [{"port": 80}]}));
    let next = async |name: &str| {
        let began = Instant::now();
        let made = create(&services, &web(name)).await?;
        world.twin(&made, |_| true).await?;
        anyhow::Ok(began.elapsed())
    };
    next("warm").await?;
    let undisturbed = next("before").await?;
    let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({
        "metadata": {"name": "no-stuck"},
        "spec": {"matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
            "operations": ["CREATE"], "resources": ["services"]}]},
            "validations": [{"expression": "!has(object.metadata.labels) || !('stuck' in object.metadata.labels)"}]},
    }))?;
    let binding: ValidatingAdmissionPolicyBinding = serde_json::from_value(
        json!({"metadata": {"name": "no-stuck"}, "spec": {"policyName": "no-stuck", "validationActions": ["Deny"]}}),
    )?;
    Api::all(world.host.clone()).create(&PostParams::default(), &policy).await?;
    Api::all(world.host.clone()).create(&PostParams::default(), &binding).await?;
    let stuck = |number: usize| {
        let mut one = web(&format!("stuck-{number}"));
        one.metadata.labels = Some([("stuck".to_owned(), "yes".to_owned())].into());
        one
    };
    // A policy is in force a moment after it was made; what slips through before is no part of the hundred.
    let mut number = STUCK;
    eventually("the policy is in force", SOON, async || {
        number += 1;
        let made = create(&services, &stuck(number)).await?;
        let said = eventually("an answer", SOON, async || {
            told::synced(&services.get(&made.name_any()).await?).map(|said| said.reason.clone()).context("none")
        })
        .await?;
        ensure!(said == "AdmissionDenied", "{said}");
        anyhow::Ok(())
    })
    .await?;
    let made = create_all(&services, (0..STUCK).map(stuck).collect()).await?;
    for one in &made {
        let now = world.refused(one, "AdmissionDenied").await?;
        let said = json!(now.status).to_string();
        assert!(!said.contains("no-stuck") && !said.contains(&world.tenant.namespace), "{said}");
    }
    let beside = next("after").await?;
    let ratio = beside.as_secs_f64() / undisturbed.as_secs_f64();
    println!("a Service beside {STUCK} stuck ones: {beside:?}, {ratio:.2} times undisturbed (at most 1.5)");
    took("a Service beside a hundred stuck ones", beside, undisturbed.mul_f64(1.5));
    Ok(())
}
