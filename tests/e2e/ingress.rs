//! Ingresses on real API servers: the way there, the way back, what is refused, and what stays. No controller serves them
//! here: the tests write the status that one would write.

mod stage;
mod tls;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k3k_expose_proto::{FromAgent, Reason};
use k3k_expose_tests::audit::Entry;
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::product::AGENT_USER;
use k3k_expose_tests::wire::delete;
use k3k_expose_tests::{Rig, took};
use k8s_openapi::api::core::v1::{ResourceQuota, Service};
use k8s_openapi::api::networking::v1::IngressClass;
use kube::Api;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::observe::{event, headless, outcomes, writes};
use crate::policy::AT_ONCE;
use crate::policy::stage::{apply, delete as delete_policy};
use crate::world::SOON;
use stage::{Actor, NAMESPACE, Stage, answered, ingress, no_twin, said, twin, twins, with_certificate_for};

#[tokio::test]
async fn an_ingress_is_followed_from_its_creation_to_its_end_and_its_address_comes_back() -> Result<()> {
    let stage = Stage::new().await?;
    let actor = Actor::new(&stage, "ingress").await?;
    actor.serve(&["web", "api"]).await?;
    let mut made = ingress("shop", "shop.host-ingress.example", "/", "web");
    made["metadata"]["labels"] = json!({"app": "shop", "k3k.io/clusterName": "forged"});
    made["metadata"]["annotations"] = json!({"example.com/timeout": "30s"});
    let began = Instant::now();
    let made = actor.create(&made).await?;
    let backend = |service: &str| json!({"service": {"name": actor.tenant.twin_name(service, NAMESPACE), "port": {"number": 80}}});
    let rule = |host: &str, path: &str, service: &str| json!([{"host": host, "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend(service)}]}}]);
    let found = actor.twin("shop", |_| true).await?;
    took("twin of an Ingress", began.elapsed(), Duration::from_secs(1));
    let spec = json!({"ingressClassName": "public", "rules": rule("shop.host-ingress.example", "/", "web")});
    assert_eq!(json!(found.spec), spec);
    let labels = json!({"app": "shop", "k3k.io/clusterName": "mine", "app.kubernetes.io/managed-by": "k3k-expose"});
    assert_eq!(json!(found.labels()), labels);
    assert_eq!(found.annotations()["expose.k3k.io/uid"], made.uid().context("a UID")?);
    assert_eq!(found.annotations()["example.com/timeout"], "30s");
    assert_eq!(found.annotations().len(), 5, "{:?}", found.annotations());
    let owner = &found.owner_references()[0];
    assert_eq!((owner.uid.as_str(), owner.controller), (actor.tenant.cluster_uid.as_str(), None));
    let told = actor.told("shop", "True/Applied").await?;
    assert_eq!(told.metadata.finalizers, None);

    address(&actor, &stage, json!([{"ip": "192.0.2.1"}])).await?;
    address(&actor, &stage, json!([{"hostname": "lb.example"}, {"ip": "192.0.2.2"}])).await?;
    address(&actor, &stage, json!([])).await?;

    // Renamed backend, other path, other host; a port by name; no annotation any more.
    let paths =
        json!([{"path": "/v2", "pathType": "Prefix", "backend": {"service": {"name": "api", "port": {"number": 80}}}}]);
    let rules = json!([{"host": "new.host-ingress.example", "http": {"paths": paths}}]);
    let patch = json!({"metadata": {"annotations": {"example.com/timeout": null}}, "spec": {"rules": rules}});
    actor.change("shop", patch).await?;
    let after =
        actor.twin("shop", |twin| json!(twin.spec)["rules"] == rule("new.host-ingress.example", "/v2", "api")).await?;
    assert_eq!(after.uid(), found.uid());
    assert!(!after.annotations().contains_key("example.com/timeout"), "{:?}", after.annotations());

    for damage in [Some(json!({"spec": {"ingressClassName": "internal", "rules": [{"host": "evil.example"}]}})), None] {
        let api = twins(&actor.tenant, &stage.host);
        let began = Instant::now();
        match &damage {
            Some(patch) => drop(api.patch(&after.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?),
            None => drop(api.delete(&after.name_any(), &DeleteParams::default()).await?),
        }
        actor.twin("shop", |twin| twin.spec == after.spec && twin.labels() == after.labels()).await?;
        took("repair of an Ingress", began.elapsed(), Duration::from_secs(1));
    }

    actor.ingresses().delete("shop", &DeleteParams::default()).await?;
    no_twin(&actor.tenant, "shop").await?;
    ensure!(actor.ingresses().get_opt("shop").await?.is_none(), "the virtual Ingress waits for us");
    Ok(())
}

/// Gives the twin an address, as a controller does, and waits until the virtual Ingress shows it.
async fn address(actor: &Actor, stage: &Stage, entries: Value) -> Result<()> {
    let name = actor.tenant.twin_name("shop", NAMESPACE);
    let body = json!({"status": {"loadBalancer": {"ingress": entries}}});
    let began = Instant::now();
    let api = twins(&actor.tenant, &stage.host);
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(body)).await?;
    eventually(&format!("address {entries}"), SOON, async || {
        let status = json!(actor.ingresses().get("shop").await?.status);
        let found = status["loadBalancer"].get("ingress").cloned().unwrap_or_else(|| json!([]));
        ensure!(found == entries, "{found}");
        anyhow::Ok(())
    })
    .await?;
    took("address of an Ingress", began.elapsed(), Duration::from_secs(1));
    Ok(())
}

#[tokio::test]
async fn what_the_platform_team_does_not_admit_is_refused_by_reason_and_nothing_is_on_the_host() -> Result<()> {
    let stage = Stage::new().await?;
    let actor = Actor::new(&stage, "refused-ingress").await?;
    actor.serve(&["web"]).await?;
    let changed = |name: &str, pointer: &str, value: Value| {
        let mut ingress = ingress(name, "a.host-refused-ingress.example", "/", "web");
        let at = ingress.pointer_mut(pointer).expect("a field");
        *at = value;
        ingress
    };
    let spec = |name: &str, field: &str, value: Value| {
        let mut spec = ingress(name, "a.host-refused-ingress.example", "/", "web")["spec"].clone();
        spec[field] = value;
        changed(name, "/spec", spec)
    };
    let annotated =
        |name: &str, key: &str| changed(name, "/metadata", json!({"name": name, "annotations": {key: "anything"}}));
    let host = "/spec/rules/0/host";
    let resource = json!({"resource": {"apiGroup": "example.com", "kind": "Bucket", "name": "b"}});
    let cases = [
        (changed("class", "/spec/ingressClassName", json!("internal")), "ClassNotAdmitted"),
        (changed("no-class", "/spec/ingressClassName", Value::Null), "ClassNotAdmitted"),
        (changed("outside", host, json!("shop.example.com")), "HostNotAdmitted"),
        (changed("wildcard", host, json!("*.host-refused-ingress.example")), "HostNotAdmitted"),
        (changed("every-host", host, Value::Null), "HostNotAdmitted"),
        (
            spec("default-backend", "defaultBackend", json!({"service": {"name": "web", "port": {"number": 80}}})),
            "HostNotAdmitted",
        ),
        (changed("resource", "/spec/rules/0/http/paths/0/backend", resource), "BackendNotSynced"),
        (changed("no-service", "/spec/rules/0/http/paths/0/backend/service/name", json!("absent")), "BackendNotSynced"),
        (annotated("snippet", "nginx.ingress.kubernetes.io/server-snippet"), "AnnotationNotAdmitted"),
        (annotated("auth-secret", "nginx.ingress.kubernetes.io/auth-secret"), "AnnotationNotAdmitted"),
        (annotated("value", "example.com/timeout"), "AnnotationNotAdmitted"),
        (
            spec("secret", "tls", json!([{"hosts": ["a.host-refused-ingress.example"], "secretName": "s"}])),
            "TlsNotAdmitted",
        ),
    ];
    for (ingress, _) in &cases {
        actor.create(ingress).await?;
    }
    for (ingress, reason) in &cases {
        let name = ingress["metadata"]["name"].as_str().context("a name")?;
        let told = actor.told(name, &format!("False/{reason}")).await?;
        actor.warned(&told, reason).await?;
    }
    outcomes(&actor.agent, "rejected", cases.len(), SOON).await?;
    let standing = twins(&actor.tenant, &stage.host).list(&ListParams::default()).await?.items;
    ensure!(standing.is_empty(), "{:?}", standing.iter().map(ResourceExt::name_any).collect::<Vec<_>>());

    // The missing Service comes and goes; the twin follows it.
    actor.serve(&["absent"]).await?;
    actor.twin("no-service", |_| true).await?;
    actor.told("no-service", "True/Applied").await?;
    actor.services().delete("absent", &DeleteParams::default()).await?;
    no_twin(&actor.tenant, "no-service").await?;
    actor.told("no-service", "False/BackendNotSynced").await?;
    Ok(())
}

#[tokio::test]
async fn a_host_stays_with_the_tenant_that_has_it_and_goes_to_the_next_when_it_is_free() -> Result<()> {
    let (one, two) = ("host-route-one", "host-route-two");
    let stage = Stage::new().await?;
    let tenants = [stage.by_hand(one).await?, stage.by_hand(two).await?];
    let service = headless("web")?;
    let route = |path: &str| said("shop", "shop.shared.example", path, "web");
    let shop = route("/")?;
    let both = [service.clone(), shop.clone()];
    let mut first = stage.say(&tenants[0], true, &both).await?;
    answered(&mut first, &shop, Reason::Applied).await?;
    let mut second = stage.say(&tenants[1], true, &both).await?;
    answered(&mut second, &shop, Reason::HostTaken).await?;
    no_twin(&tenants[1], "shop").await?;
    // Nor has it another path of that host, which would share its origin; or a certificate for it.
    let other = route("/other")?;
    second.send(&FromAgent::Put(other.clone())).await?;
    answered(&mut second, &other, Reason::HostTaken).await?;
    let own = said("shop", "own.shared.example", "/", "web")?;
    second.send(&FromAgent::Put(own.clone())).await?;
    answered(&mut second, &own, Reason::Applied).await?;
    let certified = with_certificate_for(own, "shop.shared.example")?;
    second.send(&FromAgent::Put(certified.clone())).await?;
    answered(&mut second, &certified, Reason::HostTaken).await?;
    no_twin(&tenants[1], "shop").await?;
    second.send(&FromAgent::Put(shop.clone())).await?;
    answered(&mut second, &shop, Reason::HostTaken).await?;
    first.send(&FromAgent::Delete(delete(&shop))).await?;
    no_twin(&tenants[0], "shop").await?;
    answered(&mut second, &shop, Reason::Applied).await?;
    twin(&tenants[1], "shop", |_| true).await?;
    Ok(())
}

#[tokio::test]
async fn a_policy_that_changes_lets_in_and_takes_away_at_once_and_its_classes_are_shown_to_the_tenant() -> Result<()> {
    let namespace = "host-policy";
    let stage = Stage::alone().await?;
    let actor = Actor::new(&stage, "policy").await?;
    actor.serve(&["web"]).await?;
    let mut made = ingress("shop", "shop.host-policy.example", "/", "web");
    made["metadata"]["annotations"] = json!({"example.com/timeout": "30s"});
    actor.create(&made).await?;
    actor.told("shop", "True/Applied").await?;
    shown(&actor, &["public"]).await?;
    // A class of the tenant's own is nobody else's business.
    let own = json!({"metadata": {"name": "internal"}, "spec": {"controller": "example.com/own"}});
    let classes: Api<IngressClass> = Api::all(actor.client.clone());
    classes.create(&PostParams::default(), &serde_json::from_value(own)?).await?;
    let began = Instant::now();
    stage.admit(namespace, &["internal"]).await?;
    no_twin(&actor.tenant, "shop").await?;
    took("an Ingress that a policy admits no more", began.elapsed(), AT_ONCE);
    actor.told("shop", "False/ClassNotAdmitted").await?;
    shown(&actor, &[]).await?;
    let began = Instant::now();
    stage.admit(namespace, &["internal", "public"]).await?;
    let twin = actor.twin("shop", |_| true).await?;
    took("an Ingress that a policy lets in", began.elapsed(), AT_ONCE);
    assert_eq!(twin.annotations()["example.com/timeout"], "30s");
    actor.told("shop", "True/Applied").await?;
    shown(&actor, &["public"]).await?;
    let deny = json!({"deny": {"ingresses": {"hostSuffixes": ["shop.host-policy.example"]}}});
    apply(&stage.host, "denies", &deny).await?;
    no_twin(&actor.tenant, "shop").await?;
    actor.told("shop", "False/HostNotAdmitted").await?;
    delete_policy(&stage.host, "denies").await?;
    actor.told("shop", "True/Applied").await?;
    assert_eq!(classes.get("internal").await?.spec.context("a spec")?.controller.as_deref(), Some("example.com/own"));
    Ok(())
}

#[tokio::test]
async fn with_the_last_policy_that_admits_them_the_ingresses_of_an_agent_that_keeps_silent_or_is_away_go_at_once()
-> Result<()> {
    let stage = Stage::new().await?;
    for (namespace, stays) in [("host-mute-ingress", true), ("host-gone-ingress", false)] {
        let tenant = stage.by_hand(namespace).await?;
        let (service, shop) = (headless("web")?, said("shop", &format!("shop.{namespace}.example"), "/", "web")?);
        let mut session = stage.say(&tenant, true, &[service, shop.clone()]).await?;
        answered(&mut session, &shop, Reason::Applied).await?;
        twin(&tenant, "shop", |_| true).await?;
        let _session = stays.then_some(session);
        let began = Instant::now();
        delete_policy(&stage.host, namespace).await?;
        no_twin(&tenant, "shop").await?;
        took("an Ingress that no policy admits any more", began.elapsed(), AT_ONCE);
        let services: Api<Service> = Api::namespaced(stage.host.clone(), namespace);
        assert!(services.get_opt(&tenant.twin_name("web", NAMESPACE)).await?.is_some(), "its Service is admitted");
    }
    Ok(())
}

/// Waits until exactly these classes are shown in the virtual cluster.
async fn shown(actor: &Actor, names: &[&str]) -> Result<()> {
    let classes: Api<IngressClass> = Api::all(actor.client.clone());
    eventually(&format!("classes {names:?}"), SOON, async || {
        let all = classes.list(&ListParams::default()).await?.items;
        let ours = all.iter().filter(|class| class.labels().contains_key("app.kubernetes.io/managed-by"));
        let found: Vec<_> = ours.map(ResourceExt::name_any).collect();
        ensure!(found == names, "{found:?}");
        anyhow::Ok(())
    })
    .await
}

#[tokio::test]
async fn an_agent_that_does_not_speak_for_ingresses_takes_none_away() -> Result<()> {
    let namespace = "host-silent-ingress";
    let stage = Stage::new().await?;
    let tenant = stage.by_hand(namespace).await?;
    let (service, shop) = (headless("web")?, said("shop", "shop.host-silent-ingress.example", "/", "web")?);
    let mut session = stage.say(&tenant, true, &[service.clone(), shop.clone()]).await?;
    answered(&mut session, &shop, Reason::Applied).await?;
    drop(session);
    let audit = Rig::shared().host().await?.audit();
    let mark = audit.mark().await?;
    let mut session = stage.say(&tenant, false, std::slice::from_ref(&service)).await?;
    session.settled(&service).await?;
    // Whatever followed from the snapshot was decided before the twin of this one was written.
    let marker = headless("marker")?;
    session.send(&FromAgent::Put(marker.clone())).await?;
    session.settled(&marker).await?;
    let written = writes(&audit, mark, namespace).await?;
    assert_eq!(written.len(), 1, "only the marker was written: {written:?}");
    twin(&tenant, "shop", |_| true).await?;
    drop(session);
    let _session = stage.say(&tenant, true, &[service, marker]).await?;
    no_twin(&tenant, "shop").await?;
    Ok(())
}

#[tokio::test]
async fn a_taken_name_and_a_used_up_quota_refuse_an_ingress_until_they_are_free() -> Result<()> {
    let namespace = "host-ingress-room";
    let stage = Stage::new().await?;
    let actor = Actor::new(&stage, "ingress-room").await?;
    actor.serve(&["web"]).await?;
    let at = actor.tenant.twin_name("shop", NAMESPACE);
    let api = twins(&actor.tenant, &stage.host);
    let foreign = ingress(&at, "foreign.example", "/", "anything");
    let foreign = api.create(&PostParams::default(), &serde_json::from_value(foreign)?).await?;
    actor.create(&ingress("shop", "shop.host-ingress-room.example", "/", "web")).await?;
    actor.told("shop", "False/NameTaken").await?;
    assert_eq!(api.get(&at).await?.spec, foreign.spec);
    api.delete(&at, &DeleteParams::default()).await?;
    actor.told("shop", "True/Applied").await?;

    let quotas: Api<ResourceQuota> = Api::namespaced(stage.host.clone(), namespace);
    let quota = json!({"metadata": {"name": "few"}, "spec": {"hard": {"count/ingresses.networking.k8s.io": "1"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota)?).await?;
    eventually("the quota counts", SOON, async || {
        let status = quotas.get("few").await?.status.and_then(|status| status.used);
        let used = status.and_then(|mut used| used.remove("count/ingresses.networking.k8s.io"));
        ensure!(used.as_ref().is_some_and(|used| used.0 == "1"), "{used:?}");
        anyhow::Ok(())
    })
    .await?;
    actor.create(&ingress("more", "more.host-ingress-room.example", "/", "web")).await?;
    actor.told("more", "False/QuotaExceeded").await?;
    actor.ingresses().delete("shop", &DeleteParams::default()).await?;
    actor.told("more", "True/Applied").await?;
    Ok(())
}

#[tokio::test]
async fn k3ks_twin_of_an_ingress_is_taken_over_in_place_and_its_finalizer_goes() -> Result<()> {
    let stage = Stage::new().await?;
    let actor = Actor::new(&stage, "ingress-takeover").await?;
    actor.tenant.set_sync_ingresses(true).await?;
    event(&stage.host, &actor.tenant, "TwoWriters").await?;
    actor.serve(&["web"]).await?;
    let mut made = ingress("shop", "shop.host-ingress-takeover.example", "/", "web");
    made["metadata"]["finalizers"] = json!(["ingress.k3k.io/finalizer"]);
    let shop = actor.create(&made).await?;
    let mut copy = made.clone();
    copy["metadata"] = json!({
        "name": actor.tenant.twin_name("shop", NAMESPACE),
        "labels": {"k3k.io/clusterName": actor.tenant.cluster},
        "annotations": {"k3k.io/name": "shop", "k3k.io/namespace": NAMESPACE, "example.com/left-over": "x"},
        "ownerReferences": [actor.tenant.owner_reference(false)],
    });
    let k3k = PostParams { field_manager: Some("k3k-kubelet".to_owned()), ..PostParams::default() };
    let theirs = twins(&actor.tenant, &stage.host).create(&k3k, &serde_json::from_value(copy)?).await?;
    actor.told("shop", "False/Adopting").await?;
    assert!(actor.ingresses().get("shop").await?.finalizers().contains(&"ingress.k3k.io/finalizer".to_owned()));
    actor.tenant.set_sync_ingresses(false).await?;
    actor.told("shop", "True/Applied").await?;
    let ours = actor.twin("shop", |twin| twin.annotations().contains_key("expose.k3k.io/uid")).await?;
    assert_eq!(ours.uid(), theirs.uid());
    assert_eq!(ours.annotations()["expose.k3k.io/uid"], shop.uid().context("a UID")?);
    assert!(!ours.annotations().contains_key("example.com/left-over"), "{:?}", ours.annotations());
    eventually("the finalizer gone", SOON, async || {
        let finalizers = actor.ingresses().get("shop").await?.metadata.finalizers;
        ensure!(finalizers.is_none(), "{finalizers:?}");
        anyhow::Ok(())
    })
    .await
}

#[tokio::test]
async fn a_restart_of_either_side_writes_nothing_about_ingresses() -> Result<()> {
    let namespace = "host-ingress-restart";
    let stage = Stage::new().await?;
    let actor = Actor::new(&stage, "ingress-restart").await?;
    actor.serve(&["web"]).await?;
    for number in 0..10 {
        let host = format!("shop-{number}.host-ingress-restart.example");
        actor.create(&ingress(&format!("shop-{number}"), &host, "/", "web")).await?;
    }
    actor.create(&ingress("refused", "shop.example.com", "/", "web")).await?;
    for number in 0..10 {
        actor.told(&format!("shop-{number}"), "True/Applied").await?;
    }
    actor.told("refused", "False/HostNotAdmitted").await?;
    let host = Rig::shared().host().await?.audit();
    let inside = actor.plane.audit();
    for restart in ["agent", "host-api"] {
        let (on_host, in_virtual) = (host.mark().await?, inside.mark().await?);
        actor.session_after_restart(&stage, restart).await?;
        outcomes(&actor.agent, "applied", 11, SOON).await?;
        outcomes(&actor.agent, "rejected", 1, SOON).await?;
        let written = writes(&host, on_host, namespace).await?;
        assert_eq!(written, [], "restart of {restart}");
        let told = inside.writes_since(in_virtual, |user| user == AGENT_USER).await?.counted;
        let told: Vec<&Entry> = told.iter().filter(|entry| entry.namespace == NAMESPACE).collect();
        assert!(told.is_empty(), "restart of {restart}: {told:?}");
    }
    Ok(())
}
