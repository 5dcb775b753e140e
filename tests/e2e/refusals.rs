//! Refusals that end by an event, and what goes wrong beside them, spoken by hand.

use anyhow::{Context, Result, ensure};
use k3k_expose_proto::Reason;
use k3k_expose_proto::message::{FromAgent, FromHost, HostBeat};
use k3k_expose_proto::service::ServiceType;
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::{Rig, cloud, took, wire};
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::{Event, ResourceQuota, Service};
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::observe::{event, metric};
use crate::spoken::{Spoken, changed, numbered, put};
use crate::world::SOON;

#[tokio::test]
async fn a_service_that_a_quota_refuses_comes_when_another_goes() -> Result<()> {
    let mut spoken = Spoken::start("refused-quota").await?;
    let quotas: Api<ResourceQuota> = Api::namespaced(spoken.host.clone(), &spoken.tenant.namespace);
    let quota = serde_json::from_value(json!({"metadata": {"name": "few"},
        "spec": {"hard": {"services.loadbalancers": "2"}}}))?;
    quotas.create(&PostParams::default(), &quota).await?;
    eventually("the quota counts", SOON, async || {
        let status = quotas.get("few").await?.status.and_then(|status| status.used);
        ensure!(status.is_some_and(|used| used.contains_key("services.loadbalancers")));
        anyhow::Ok(())
    })
    .await?;
    let puts = ["a", "b", "c"].map(|name| numbered(ServiceType::LoadBalancer, "", 0).and_then(|it| put(name, it)));
    let [a, b, c] = puts;
    let (a, b, c) = (a?, b?, c?);
    assert_eq!(spoken.say(&a).await?.reason, Reason::Applied);
    assert_eq!(spoken.say(&b).await?.reason, Reason::Applied);
    let refused = spoken.say(&c).await?;
    assert_eq!((refused.reason, &refused.numbers), (Reason::QuotaExceeded, &None));
    assert!(!refused.message.contains("few"), "{}", refused.message);
    spoken.session.send(&FromAgent::Delete(wire::delete(&a))).await?;
    let (_, elapsed) = spoken.asked_again(&c, Reason::Applied).await?;
    took("a Service after its quota was freed", elapsed, SOON);
    Ok(())
}

#[tokio::test]
async fn a_policy_of_the_host_is_named_as_one_and_says_nothing_else() -> Result<()> {
    let mut spoken = Spoken::start("refused-admission").await?;
    let policy: ValidatingAdmissionPolicy = serde_json::from_value(json!({"metadata": {"name": "refused-admission"},
        "spec": {"matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
            "operations": ["CREATE", "UPDATE"], "resources": ["services"]}]},
            "validations": [{"expression": "object.spec.type != 'NodePort'", "message": "internal-words"}]}}))?;
    let binding: ValidatingAdmissionPolicyBinding =
        serde_json::from_value(json!({"metadata": {"name": "refused-admission"},
        "spec": {"policyName": "refused-admission", "validationActions": ["Deny"], "matchResources":
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": spoken.tenant.namespace}}}}}))?;
    Api::all(spoken.host.clone()).create(&PostParams::default(), &policy).await?;
    Api::all(spoken.host.clone()).create(&PostParams::default(), &binding).await?;
    let probe: Service = serde_json::from_value(json!({"metadata": {"name": "probe"},
        "spec": {"type": "NodePort", "ports": [{"port": 80}]}}))?;
    eventually("the policy works", SOON, async || {
        let params = PostParams { dry_run: true, ..PostParams::default() };
        ensure!(spoken.tenant.host_services().create(&params, &probe).await.is_err());
        anyhow::Ok(())
    })
    .await?;
    let denied = put("web", numbered(ServiceType::NodePort, "", 0)?)?;
    let answer = spoken.say(&denied).await?;
    assert_eq!(answer.reason, Reason::AdmissionDenied);
    assert!(!answer.message.contains("internal-words"), "{}", answer.message);
    let allowed = changed(&denied, |service| service.service_type = ServiceType::ClusterIP);
    assert_eq!(spoken.say(&allowed).await?.reason, Reason::Applied);
    Ok(())
}

#[tokio::test]
async fn services_that_the_cluster_does_not_select_have_no_twin_until_it_does() -> Result<()> {
    let tenant = Spoken::tenant("refused-selector").await?;
    tenant.select_services(json!({"expose": "yes"})).await?;
    let mut spoken = Spoken::on(Rig::shared().host_api().await?, tenant).await?;
    let plain = put("plain", numbered(ServiceType::ClusterIP, "", 0)?)?;
    let labeled = put("labeled", numbered(ServiceType::ClusterIP, "", 0)?)?;
    let labeled = changed(&labeled, |service| _ = service.labels.insert("expose".to_owned(), "yes".to_owned()));
    assert_eq!(spoken.say(&plain).await?.reason, Reason::NotSelected);
    assert_eq!(spoken.say(&labeled).await?.reason, Reason::Applied);
    assert!(!spoken.has_twin(&plain).await?);
    spoken.tenant.select_services(json!({"expose": null})).await?;
    spoken.asked_again(&plain, Reason::Applied).await?;
    spoken.tenant.select_services(json!({"expose": "yes"})).await?;
    spoken.asked_again(&plain, Reason::NotSelected).await?;
    assert!(!spoken.has_twin(&plain).await? && spoken.has_twin(&labeled).await?);
    Ok(())
}

#[tokio::test]
async fn two_writers_are_told_in_the_session_at_once() -> Result<()> {
    let mut spoken = Spoken::start("two-writers").await?;
    for on in [true, false] {
        spoken.tenant.set_sync_services(on).await?;
        let told = async {
            loop {
                match spoken.session.next().await?.context("the session ended")? {
                    FromHost::Beat(HostBeat { k3k_syncs, .. }) if k3k_syncs == on => return anyhow::Ok(()),
                    _ => {}
                }
            }
        };
        // Far less than the time between two beats.
        tokio::time::timeout(std::time::Duration::from_secs(5), told).await??;
        if on {
            let note = event(&spoken.host, &spoken.tenant, "TwoWriters").await?;
            assert!(note.contains("spec.sync.services.enabled"), "{note}");
            let host_api = Rig::shared().host_api().await?;
            assert!(metric(host_api, "k3k_expose_host_api_two_writers").await? >= 1.0);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_warning_about_a_load_balancer_arrives_as_a_closed_word() -> Result<()> {
    let mut spoken = Spoken::start("warned").await?;
    let wish = put("web", numbered(ServiceType::LoadBalancer, "", 0)?)?;
    let answer = spoken.say(&wish).await?;
    let twin = spoken.holds(&wish, &answer).await?;
    let warning: Event = serde_json::from_value(json!({
        "metadata": {"generateName": "warning-"}, "type": "Warning", "reason": "SyncLoadBalancerFailed",
        "message": "cannot reach cloud.internal", "involvedObject": {"apiVersion": "v1", "kind": "Service",
            "namespace": spoken.tenant.namespace, "name": twin.name_any(), "uid": twin.uid()}}))?;
    let events: Api<Event> = Api::namespaced(spoken.host.clone(), &spoken.tenant.namespace);
    events.create(&PostParams::default(), &warning).await?;
    let warned = spoken.hear(&wish, |answer| !answer.conditions.is_empty()).await?;
    let [condition] = warned.conditions.as_slice() else { panic!("{warned:?}") };
    assert_eq!(condition.condition_type, "expose.k3k.io/LoadBalancerReady");
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "SyncLoadBalancerFailed"));
    assert_eq!((warned.reason, warned.message.as_str()), (answer.reason, answer.message.as_str()));
    cloud::set_ingress(&spoken.tenant.host_services(), &twin.name_any(), &json!([{"ip": "192.0.2.1"}])).await?;
    let over =
        |answer: &k3k_expose_proto::message::Answer| answer.conditions.is_empty() && answer.load_balancer.len() == 1;
    spoken.hear(&wish, over).await?;
    Ok(())
}
