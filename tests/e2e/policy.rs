//! ExposurePolicies on a real host: what they refuse and let in, at once, and what the API server says to bad ones.

mod counts;
mod plan;
pub mod stage;

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use k3k_expose_proto::Reason;
use k3k_expose_proto::message::FromAgent;
use k3k_expose_proto::service::{Service, ServiceType};
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::k3k::{Tenant, TenantOptions};
use k3k_expose_tests::product::{HostApi, HostApiOptions};
use k3k_expose_tests::wire::{self, WireSession};
use k3k_expose_tests::{ControlPlane, PlaneOptions, Rig, rig, told, took};
use kube::ResourceExt;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use crate::spoken::{Spoken, changed, numbered, put};
use crate::world::{self, SOON, World};
use stage::{apply, delete, label_namespace, of_namespace, policies, settle};

/// What a change of a policy may take until it counts.
pub const AT_ONCE: Duration = Duration::from_secs(2);

/// Real annotations of cloud load balancers, MetalLB, kube-vip, external-dns and ingress controllers, by their public
/// documentation.
const ANNOTATIONS: &str = include_str!("policy/annotations.txt");

/// A Service for each refusal, and what it is refused for by [`narrow`].
fn refused() -> Result<Vec<(k3k_expose_proto::message::Put, Reason)>> {
    let balancer = |name: &str, change: &dyn Fn(&mut Service)| -> Result<_> {
        let plain = put(name, numbered(ServiceType::LoadBalancer, "", 0)?)?;
        Ok(changed(&plain, |service| {
            service.load_balancer_source_ranges = vec!["192.0.2.0/24".to_owned()];
            change(service);
        }))
    };
    let port = put("port", numbered(ServiceType::NodePort, "", 30_003)?)?;
    let external = put("external", numbered(ServiceType::ClusterIP, "", 0)?)?;
    Ok(vec![
        (changed(&port, |service| service.ports[0].node_port_pinned = true), Reason::NodePortNotAdmitted),
        (
            balancer("class", &|it| it.load_balancer_class = Some("example.com/lb".to_owned()))?,
            Reason::LoadBalancerClassNotAdmitted,
        ),
        (balancer("address", &|it| it.load_balancer_ip = "203.0.113.99".parse().ok())?, Reason::AddressNotAdmitted),
        (
            changed(&external, |it| it.external_ips = "198.51.100.99".parse().into_iter().collect()),
            Reason::ExternalIPNotAdmitted,
        ),
        (balancer("ranges", &|it| it.load_balancer_source_ranges.clear())?, Reason::SourceRangesRequired),
    ])
}

fn narrow() -> Value {
    json!({
        "nodePorts": {"from": 32_600, "to": 32_700},
        "loadBalancers": {"sourceRangesRequired": true, "addresses": ["203.0.113.0/28"]},
        "externalIPs": ["198.51.100.0/28"],
    })
}

fn wide() -> Value {
    json!({
        "loadBalancers": {"classes": ["example.com/lb"], "addresses": ["203.0.113.0/24"]},
        "externalIPs": ["198.51.100.0/24"],
    })
}

#[tokio::test]
async fn each_refusal_has_its_own_reason_and_ends_at_once_when_the_policy_changes() -> Result<()> {
    let mut spoken = Spoken::start("policy-reasons").await?;
    label_namespace(&spoken, "expose.k3k.io/addresses", Some("admitted")).await?;
    apply(&spoken.host, "policy-reasons", &of_namespace("policy-reasons", narrow())).await?;
    stage::governs(&spoken.host, "policy-reasons", 1).await?;
    let refused = refused()?;
    for (put, _) in &refused {
        spoken.session.send(&FromAgent::Put(put.clone())).await?;
    }
    settle(&mut spoken, &refused).await?;
    for (put, _) in &refused {
        assert!(!spoken.has_twin(put).await?, "{}", put.key);
    }
    let applied: Vec<_> = refused.iter().map(|(put, _)| (put.clone(), Reason::Applied)).collect();
    let start = Instant::now();
    apply(&spoken.host, "policy-reasons", &of_namespace("policy-reasons", wide())).await?;
    settle(&mut spoken, &applied).await?;
    took("five refused Services after their policy changed", start.elapsed(), AT_ONCE);
    let twin = spoken.twin(&refused[3].0).await?.spec.context("a spec")?;
    assert_eq!(twin.external_ips, Some(vec!["198.51.100.99".to_owned()]));
    let start = Instant::now();
    apply(&spoken.host, "policy-reasons", &of_namespace("policy-reasons", narrow())).await?;
    settle(&mut spoken, &refused).await?;
    for (put, _) in &refused {
        assert!(!spoken.has_twin(put).await?, "{}", put.key);
    }
    took("five twins that are not admitted any more", start.elapsed(), AT_ONCE);
    Ok(())
}

#[tokio::test]
async fn an_agent_that_keeps_silent_keeps_nothing_that_is_not_admitted_any_more() -> Result<()> {
    let mut spoken = Spoken::start("policy-silent").await?;
    let balancer = put("web", numbered(ServiceType::LoadBalancer, "", 0)?)?;
    let kept = put("kept", numbered(ServiceType::ClusterIP, "", 0)?)?;
    assert_eq!(spoken.say(&balancer).await?.reason, Reason::Applied);
    assert_eq!(spoken.say(&kept).await?.reason, Reason::Applied);
    let deny = json!({"deny": {"serviceTypes": ["LoadBalancer"]}});
    apply(&spoken.host, "policy-silent", &stage::selecting("policy-silent", deny)).await?;
    let start = Instant::now();
    eventually("the twin is gone, without a word of the agent", SOON, async || {
        ensure!(!spoken.has_twin(&balancer).await?);
        anyhow::Ok(())
    })
    .await?;
    took("a twin that a policy denies", start.elapsed(), AT_ONCE);
    assert!(spoken.has_twin(&kept).await?);
    Ok(())
}

#[tokio::test]
async fn node_ports_move_into_the_band_and_nothing_else_of_the_twin_changes() -> Result<()> {
    let mut spoken = Spoken::start("policy-band").await?;
    let drawn = put("drawn", numbered(ServiceType::NodePort, "", 30_004)?)?;
    let first = spoken.say(&drawn).await?;
    let before = spoken.holds(&drawn, &first).await?;
    let band = json!({"nodePorts": {"from": 32_710, "to": 32_711}});
    apply(&spoken.host, "policy-band", &of_namespace("policy-band", band)).await?;
    let (moved, _) = spoken.asked_again(&drawn, Reason::Applied).await?;
    let after = spoken.holds(&drawn, &moved).await?;
    let port = moved.numbers.context("numbers")?.node_ports[0].node_port.get();
    assert!((32_710..=32_711).contains(&port), "{port}");
    assert_eq!(
        (after.uid(), &after.spec.as_ref().and_then(|it| it.cluster_ip.clone())),
        (before.uid(), &before.spec.as_ref().and_then(|it| it.cluster_ip.clone()))
    );
    let others = ["b", "c"].map(|name| numbered(ServiceType::NodePort, "", 0).and_then(|it| put(name, it)));
    let [second, third] = others;
    assert_eq!(spoken.say(&second?).await?.reason, Reason::Applied);
    assert_eq!(spoken.say(&third?).await?.reason, Reason::TooManyNodePorts, "the band is full");
    Ok(())
}

#[tokio::test]
async fn bad_policies_are_refused_by_the_api_server_itself() -> Result<()> {
    let host = Rig::shared().host().await?.client().await?;
    let rules = |rule: Value| json!({"allow": {"annotations": [rule]}});
    let selector = |selector: Value| json!({"namespaceSelector": selector, "allow": {}});
    for (what, spec) in [
        ("nothing at all", json!({})),
        ("an empty selector", selector(json!({}))),
        (
            "an unknown operator",
            selector(json!({"matchExpressions": [{"key": "a", "operator": "Like", "values": ["b"]}]})),
        ),
        ("In without values", selector(json!({"matchExpressions": [{"key": "a", "operator": "In"}]}))),
        (
            "Exists with values",
            selector(json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]})),
        ),
        ("an unknown type", json!({"allow": {"serviceTypes": ["ExternalName"]}})),
        ("half a band", json!({"allow": {"nodePorts": {"from": 30_000}}})),
        ("a band upside down", json!({"allow": {"nodePorts": {"from": 30_001, "to": 30_000}}})),
        ("a port that is none", json!({"allow": {"nodePorts": {"from": 0, "to": 70_000}}})),
        ("a negative count", json!({"allow": {"loadBalancers": {"most": -1}}})),
        ("an address for a CIDR", json!({"allow": {"externalIPs": ["192.0.2.1"]}})),
        ("a length beyond the address", json!({"allow": {"loadBalancers": {"addresses": ["192.0.2.0/33"]}}})),
        ("a denied CIDR that is none", json!({"deny": {"addresses": ["everything"]}})),
        ("neither key nor prefix", rules(json!({}))),
        ("key and prefix", rules(json!({"key": "a", "prefix": "b"}))),
        ("an empty prefix", rules(json!({"prefix": ""}))),
        ("no regular expression", rules(json!({"key": "a", "value": "("}))),
        ("a wildcard for a domain", json!({"allow": {"ingresses": {"hostSuffixes": ["*.example.com"]}}})),
        ("an empty domain", json!({"allow": {"ingresses": {"hostSuffixes": [""]}}})),
        ("a class that is no name", json!({"allow": {"ingresses": {"classes": ["../x"]}}})),
        ("a rule without key", json!({"allow": {"ingresses": {"annotations": [{"value": "x"}]}}})),
        ("a denied wildcard for a domain", json!({"deny": {"ingresses": {"hostSuffixes": ["*.example.com"]}}})),
        ("a denied class that is no name", json!({"deny": {"ingresses": {"classes": ["../x"]}}})),
        ("a denial without key", json!({"deny": {"ingresses": {"annotations": [{}]}}})),
        ("Ingresses of which nothing is denied", json!({"deny": {"ingresses": {}}})),
        ("limits without one", json!({"allow": {"limits": {}}})),
        ("a negative limit", json!({"allow": {"limits": {"objects": -1}}})),
        ("no write at all", json!({"allow": {"limits": {"writesPerSecond": 0}}})),
        ("a burst below the rate", json!({"allow": {"limits": {"writesPerSecond": 9, "writesAtOnce": 8}}})),
        ("an unknown conflict mode", json!({"allow": {"clusterIPConflict": "Fight"}})),
    ] {
        let refused = apply(&host, "policy-bad", &spec).await.err().with_context(|| format!("{what} was taken"))?;
        let status = refused.downcast_ref::<kube::Error>().context("an answer of the API server")?;
        ensure!(matches!(status, kube::Error::Api(status) if status.code == 422), "{what}: {status}");
    }
    Ok(())
}

#[tokio::test]
async fn a_policy_says_whom_it_is_about_and_deleting_the_last_one_leaves_the_safe_defaults() -> Result<()> {
    let host = rig::host(PlaneOptions::new("policy-last")).await?;
    let host_api = HostApi::start(&host, HostApiOptions::default()).await?;
    let client = host.client().await?;
    let tenant = Tenant::create(&client, "policy-last", "spoken", TenantOptions::default()).await?;
    let token = tenant.server_pod_token(0).await?;
    let session = WireSession::open(&host_api, &token, wire::hello("spoken-cluster", &[])?).await?.0;
    session.send_snapshot(&[]).await?;
    let mut spoken = Spoken { tenant, session, host: client.clone() };
    stage::governs(&client, "rig", 1).await?;
    let policy = policies(&client).get("rig").await?;
    let condition = &policy.status.context("a status")?.conditions[0];
    assert_eq!((condition.kind.as_str(), condition.status.as_str()), ("Accepted", "True"));
    let class = put("class", numbered(ServiceType::LoadBalancer, "", 0)?)?;
    let class = changed(&class, |service| service.load_balancer_class = Some("example.com/lb".to_owned()));
    let plain = put("plain", numbered(ServiceType::NodePort, "", 0)?)?;
    assert_eq!(spoken.say(&class).await?.reason, Reason::Applied);
    assert_eq!(spoken.say(&plain).await?.reason, Reason::Applied);
    delete(&client, "rig").await?;
    settle(&mut spoken, &[(class.clone(), Reason::LoadBalancerClassNotAdmitted)]).await?;
    assert!(!spoken.has_twin(&class).await? && spoken.has_twin(&plain).await?);
    Ok(())
}

#[tokio::test]
async fn of_all_provider_annotations_those_cross_that_a_policy_lists_and_no_other() -> Result<()> {
    let keys: Vec<&str> = ANNOTATIONS.lines().collect();
    assert!(keys.len() >= 150, "{}", keys.len());
    let plane = Arc::new(ControlPlane::start(rig::virtual_options("policy")).await?);
    let (host, host_api) = (Rig::shared().host().await?, Rig::shared().host_api().await?);
    let world = World::on(host, host_api, plane, "policy-annotated", TenantOptions::default()).await?;
    let services = world.namespace("annotations").await?;
    let mut service = world::service("web", json!({"selector": {"app": "web"}, "ports": [{"port": 80}]}));
    service.metadata.annotations = Some(keys.iter().map(|key| ((*key).to_owned(), "1".to_owned())).collect());
    let made = world::create(&services, &service).await?;
    let crossing = |twin: &k8s_openapi::api::core::v1::Service| -> Vec<String> {
        twin.annotations().keys().filter(|key| keys.contains(&key.as_str())).cloned().collect()
    };
    let twin = world.twin(&made, |_| true).await?;
    assert_eq!(crossing(&twin), Vec::<String>::new(), "no policy lists one");
    world.tenant.label_cluster("policy", Some("annotated")).await?;
    let allow = json!({"annotations": [{"prefix": "metallb.io/"}, {"key": "external-dns.alpha.kubernetes.io/hostname", "value": "[0-9]"},
        {"prefix": "service.beta.kubernetes.io/aws-load-balancer-"}],
        "defaults": {"annotations": {"example.com/team": "a"}}});
    let spec = json!({"clusterSelector": {"matchLabels": {"policy": "annotated"}}, "allow": allow,
        "deny": {"annotations": [{"key": "service.beta.kubernetes.io/aws-load-balancer-ssl-cert"}]}});
    apply(&world.host, "policy-annotations", &spec).await?;
    let listed = |key: &&str| {
        key.starts_with("metallb.io/")
            || *key == "external-dns.alpha.kubernetes.io/hostname"
            || key.starts_with("service.beta.kubernetes.io/aws-load-balancer-") && !key.ends_with("-ssl-cert")
    };
    let expected: Vec<String> = keys.iter().filter(|key| listed(key)).map(|key| (*key).to_owned()).collect();
    let start = Instant::now();
    let twin = world.twin(&made, |twin| crossing(twin) == expected).await?;
    took("annotations that a policy lists from now on", start.elapsed(), AT_ONCE);
    assert_eq!(twin.annotations().get("example.com/team").map(String::as_str), Some("a"));
    delete(&world.host, "policy-annotations").await?;
    let bare = world.twin(&made, |twin| crossing(twin).is_empty()).await?;
    assert_eq!((bare.uid(), bare.annotations().get("example.com/team")), (twin.uid(), None));
    Ok(())
}

#[tokio::test]
async fn values_that_command_or_hide_are_refused_in_events_that_are_valid_and_readable() -> Result<()> {
    let plane = Arc::new(ControlPlane::start(rig::virtual_options("policy-texts")).await?);
    let (host, host_api) = (Rig::shared().host().await?, Rig::shared().host_api().await?);
    let world = World::on(host, host_api, plane, "policy-texts", TenantOptions::default()).await?;
    let allow = json!({"annotations": [{"prefix": "admitted.example/", "value": "[a-z]*"}]});
    apply(&world.host, "policy-texts", &of_namespace(&world.tenant.namespace, allow)).await?;
    stage::governs(&world.host, "policy-texts", 1).await?;
    let services = world.namespace("texts").await?;
    let long = "x".repeat(10_000);
    let texts = [
        "a\u{1b}[2J\u{1b}]0;owned\u{7}",
        "a\r\n{\"level\":\"ERROR\"}",
        "a\u{202e}txt.exe\u{2066}\u{200b}",
        "\"}],",
        &long,
    ];
    let longest = format!("admitted.example/{}", "k".repeat(63));
    for (number, text) in texts.into_iter().enumerate() {
        let mut service = world::service(&format!("web-{number}"), json!({"ports": [{"port": 80}]}));
        service.metadata.annotations = Some([(longest.clone(), text.to_owned())].into());
        let made = world::create(&services, &service).await?;
        let now = world.refused(&made, "AnnotationNotAdmitted").await?;
        world.event(&made, "AnnotationNotAdmitted").await?;
        let event = world.events(&made).await?.pop().context("an Event")?;
        let told = [event.message.unwrap_or_default(), told::synced(&now).context("a condition")?.message.clone()];
        for message in told {
            let hidden = |char: char| char.is_control() || ('\u{200b}'..='\u{206f}').contains(&char) && char != '…';
            assert!(!message.is_empty() && message.len() <= 1024 && !message.contains(hidden), "{message:?}");
        }
        assert_eq!((event.type_.as_deref(), event.involved_object.uid), (Some("Warning"), made.uid()));
    }
    for line in world.agent.log_lines()? {
        let whole: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        assert!(whole["level"].is_string() && !line.chars().any(char::is_control) && line.len() < 4096, "{line:?}");
    }
    Ok(())
}
