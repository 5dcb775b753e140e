//! Generated Services and Ingresses of tenants against a real API server's own validation, by dry run.
//!
//! Some are what a virtual API server would let through; others are anything that can be said on the wire.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use k3k_expose_host_api::fuzz::{twin_of_ingress, twin_of_service};
use k3k_expose_host_api::policy::grant::Grant;
use k3k_expose_host_api::policy::{Policies, select::Labels};
use k3k_expose_host_api::refusal::{self, Refusal};
use k3k_expose_proto::ingress::Ingress;
use k3k_expose_proto::{Key, Reason, Service};
use k3k_expose_tests::Rig;
use k3k_expose_tests::progress::say;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// So many of each kind, always the same ones.
const EACH: usize = 300;
const NAMESPACE: &str = "host-generated";
/// Labels and annotations that we set besides the tenant's.
const MARKS: [&str; 6] = [
    "k3k.io/clusterName",
    "app.kubernetes.io/managed-by",
    "k3k.io/name",
    "k3k.io/namespace",
    "expose.k3k.io/uid",
    "expose.k3k.io/virtual-cluster",
];

/// What became of the generated objects of a kind.
#[derive(Debug, Default)]
struct Became {
    refused: BTreeMap<Reason, usize>,
    taken: usize,
    invalid: Vec<String>,
}

fn word() -> BoxedStrategy<String> {
    "[a-z]([a-z0-9]{0,9}[a-z])?".boxed()
}

/// Text of which nobody knows what it is.
fn hostile() -> BoxedStrategy<String> {
    prop_oneof![
        word(),
        "\\PC{0,40}",
        any::<String>(),
        "[A-Za-z._/-]{60,80}",
        Just("k3k.io/clusterName".to_owned()),
        Just("service.kubernetes.io/service-proxy-name".to_owned()),
        Just("admitted.example/key".to_owned()),
        Just("\u{1b}[31m\u{202e}\0".to_owned()),
    ]
    .boxed()
}

fn key() -> BoxedStrategy<String> {
    prop_oneof![
        word(),
        (word(), word()).prop_map(|(domain, name)| format!("{domain}.example/{name}")),
        Just("k3k.io/name".to_owned()),
        Just("admitted.example/key".to_owned()),
        Just("app.kubernetes.io/name".to_owned())
    ]
    .boxed()
}

fn map(text: BoxedStrategy<String>, values: BoxedStrategy<String>) -> BoxedStrategy<BTreeMap<String, String>> {
    prop::collection::btree_map(text, values, 0..4).boxed()
}

/// A Service, made of texts for keys, for values and for words of a closed set.
fn service(keys: &BoxedStrategy<String>, texts: &BoxedStrategy<String>, sane: bool) -> BoxedStrategy<Service> {
    let port = (1u16..=65_535, any::<bool>(), texts.clone(), any::<bool>(), texts.clone());
    let types = prop_oneof![Just("ClusterIP"), Just("NodePort"), Just("LoadBalancer")];
    let class = if sane { word().prop_map(|word| format!("example.com/{word}")).boxed() } else { texts.clone() };
    let range = if sane { (0u8..=32).prop_map(|bits| format!("0.0.0.0/{bits}")).boxed() } else { texts.clone() };
    let maps = (map(keys.clone(), texts.clone()), map(keys.clone(), texts.clone()), map(keys.clone(), texts.clone()));
    let fields = (
        types,
        any::<bool>(),
        prop::collection::vec(port, 1..4),
        prop::option::of(class),
        prop::collection::vec(range, 0..3),
    );
    let more =
        (prop::option::of(1u32..=86_400), any::<[Option<bool>; 4]>(), prop::option::of(any::<std::net::Ipv4Addr>()));
    (maps, fields, more)
        .prop_map(move |((labels, annotations, selector), (kind, headless, ports, class, ranges), (affinity, flags, ip))| {
            let policy = |flag: Option<bool>| flag.map(|local| if local { "Local" } else { "Cluster" });
            let ports = ports.into_iter().enumerate().map(|(n, (port, udp, name, named, target))| {
                // An API server lets no two ports have one name, or one number and protocol.
                let name = if sane { format!("p{n}-{}", &name[..name.len().min(4)]) } else { name };
                let (port, protocol) = if sane { ((n as u16 + 1) * 100 + port % 100, "TCP") } else { (port, if udp { "UDP" } else { "SCTP" }) };
                json!({"name": name.trim_end_matches('-'), "protocol": protocol, "port": port,
                    "targetPort": if named { json!(target) } else { json!(port) }})
            });
            let balancer = kind == "LoadBalancer";
            let local = kind != "ClusterIP";
            let mut all = json!({"type": kind, "ports": ports.collect::<Vec<Value>>(), "labels": labels, "annotations": annotations,
                "selector": selector, "publishNotReadyAddresses": flags[0].unwrap_or(false),
                "clusterIPs": if headless && kind == "ClusterIP" { json!("headless") } else { json!({"addresses": []}) },
                "sessionAffinity": affinity.map_or(json!("none"), |time| json!({"clientIp": time})),
                "internalTrafficPolicy": policy(flags[1])});
            if !sane || balancer {
                all["loadBalancerClass"] = json!(class);
                all["loadBalancerSourceRanges"] = json!(ranges);
                all["allocateLoadBalancerNodePorts"] = json!(flags[3]);
                all["loadBalancerIP"] = json!(ip);
            }
            if !sane || local {
                all["externalTrafficPolicy"] = json!(policy(flags[2]));
            }
            if !sane {
                all["externalIPs"] = json!(ip.into_iter().collect::<Vec<_>>());
                all["trafficDistribution"] = json!(class);
            }
            serde_json::from_value(all).expect("a Service of the wire")
        })
        .boxed()
}

fn ingress(keys: &BoxedStrategy<String>, texts: &BoxedStrategy<String>, sane: bool) -> BoxedStrategy<Ingress> {
    let host = prop_oneof![word().prop_map(|name| format!("{name}.tenant.example")), texts.clone()];
    let path = prop_oneof![word().prop_map(|name| format!("/{name}")), Just("/".to_owned()), texts.clone()];
    let types = prop_oneof![Just("Exact"), Just("Prefix"), Just("ImplementationSpecific")];
    let backend = (texts.clone(), 1u16..=65_535, prop::option::of(texts.clone()))
        .prop_map(|(name, number, port)| json!({"service": {"name": name, "port": port.map_or(json!({"number": number}), |name| json!({"name": name}))}}));
    let backend = if sane { backend.boxed() } else { prop_oneof![4 => backend, 1 => Just(json!("resource"))].boxed() };
    let path = (path, types, backend.clone())
        .prop_map(|(path, kind, backend)| json!({"path": path, "pathType": kind, "backend": backend}));
    let rule = (host.clone(), prop::collection::vec(path, 0..3))
        .prop_map(|(host, paths)| json!({"host": host, "paths": paths}));
    let tls = (prop::collection::vec(host, 0..3), prop::option::of(texts.clone()))
        .prop_map(|(hosts, secret)| json!({"hosts": hosts, "secretName": secret}));
    let class = prop_oneof![6 => Just("public".to_owned()), 1 => texts.clone()];
    let annotations = prop_oneof![3 => Just(BTreeMap::new()), 1 => map(keys.clone(), texts.clone())];
    let fields = (
        class,
        prop::collection::vec(rule, 1..3),
        prop::collection::vec(tls, 0..2),
        prop::option::weighted(0.2, backend),
    );
    (fields, map(keys.clone(), texts.clone()), annotations)
        .prop_map(|((class, rules, tls, default_backend), labels, annotations)| {
            let all = json!({"ingressClassName": class, "rules": rules, "tls": tls, "defaultBackend": default_backend,
                "labels": labels, "annotations": annotations});
            serde_json::from_value(all).expect("an Ingress of the wire")
        })
        .boxed()
}

/// Always the same values of a strategy.
fn sample<T: std::fmt::Debug>(strategy: &BoxedStrategy<T>) -> Result<Vec<T>> {
    let mut runner = TestRunner::deterministic();
    let one = |_| strategy.new_tree(&mut runner).map(|tree| tree.current()).map_err(|why| anyhow::anyhow!("{why}"));
    (0..EACH).map(one).collect()
}

impl Became {
    /// Tells the figures. Of what a virtual API server would let through, nothing may be invalid.
    fn tell(&self, kind: &str, sane: bool) -> Result<()> {
        let Self { refused, taken, invalid } = self;
        say(&format!("{EACH} generated {kind}, sane: {sane}: {refused:?}, {taken} taken, {} invalid", invalid.len()));
        ensure!(!sane || invalid.is_empty(), "{invalid:#?}");
        Ok(())
    }
}

/// Puts twins to the API server, as if they were to be created.
async fn dry_run<K>(host: &Client, twins: Vec<Result<K, Reason>>, bound: impl Fn(&K) -> Result<()>) -> Result<Became>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
{
    let (api, params) =
        (Api::<K>::namespaced(host.clone(), NAMESPACE), PostParams { dry_run: true, ..PostParams::default() });
    let mut became = Became::default();
    for twin in twins {
        let twin = match twin {
            Ok(twin) => twin,
            Err(reason) => {
                *became.refused.entry(reason).or_default() += 1;
                continue;
            }
        };
        let keys = [&twin.meta().labels, &twin.meta().annotations].into_iter().flatten().flat_map(BTreeMap::keys);
        let foreign = |key: &&String| !MARKS.contains(&key.as_str());
        for key in keys.filter(foreign) {
            let domain = key.split_once('/').map_or("", |(domain, _)| domain);
            ensure!(domain != "k3k.io" && !domain.ends_with(".k3k.io"), "a forged mark: {key}");
            ensure!(domain == "app.kubernetes.io" || !domain.ends_with("kubernetes.io"), "a reserved key: {key}");
        }
        bound(&twin)?;
        match api.create(&params, &twin).await {
            Ok(_) => became.taken += 1,
            Err(error) => {
                let means = refusal::read(&error);
                ensure!(
                    !matches!(means, Refusal::Unavailable | Refusal::Overloaded),
                    "tried again as an outage: {error}"
                );
                became.invalid.push(format!("{means:?}: {error}"));
            }
        }
    }
    Ok(became)
}

async fn namespace(host: &Client) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(host.clone());
    let body: Namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
    match namespaces.create(&PostParams::default(), &body).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(drop).context("a namespace"),
    }
}

/// Everything that can be admitted is.
fn grant() -> Result<Grant> {
    let ingresses = json!({"classes": ["public"], "hostSuffixes": ["tenant.example"], "tlsSecrets": ["a"], "defaultBackend": true,
        "annotations": [{"key": "admitted.example/key", "value": "[a-z]*"}]});
    let spec = json!({"allow": {"externalIPs": ["0.0.0.0/1"], "annotations": [{"prefix": "admitted.example/", "value": "[a-z]*"}],
        "loadBalancers": {"classes": ["example.com/a"], "addresses": ["0.0.0.0/1"]}, "ingresses": ingresses}});
    let mut policies = Policies::default();
    policies.set("wide", Some(serde_json::from_value(spec)?));
    Ok((*policies.grant(&Labels::new(), &Labels::new())).clone())
}

#[tokio::test]
async fn no_generated_service_becomes_a_twin_that_the_api_server_calls_invalid_without_a_reason() -> Result<()> {
    let host = Rig::shared().host().await?.client().await?;
    namespace(&host).await?;
    let (grant, at) = (grant()?, Key::service("default", "web")?);
    let bound = |twin: &k8s_openapi::api::core::v1::Service| -> Result<()> {
        let spec = twin.spec.as_ref().context("a spec")?;
        let selects = |key: &str| spec.selector.as_ref().and_then(|selector| selector.get(key)).map(String::as_str);
        ensure!(
            spec.selector.is_none()
                || (selects("k3k.io/clusterName"), selects("k3k.io/namespace")) == (Some("mine"), Some("default"))
        );
        ensure!(spec.external_name.is_none());
        Ok(())
    };
    for (sane, strategy) in [(true, service(&key(), &word(), true)), (false, service(&hostile(), &hostile(), false))] {
        let twins = sample(&strategy)?.iter().map(|asked| twin_of_service(&grant, &at, asked)).collect();
        let became = dry_run(&host, twins, bound).await?;
        became.tell("Services", sane)?;
        ensure!(became.taken > 0 || !sane, "none was taken");
    }
    Ok(())
}

#[tokio::test]
async fn no_generated_ingress_becomes_a_twin_that_the_api_server_calls_invalid_without_a_reason() -> Result<()> {
    let host = Rig::shared().host().await?.client().await?;
    namespace(&host).await?;
    let policy = grant()?.ingresses;
    let at = Key::of(k3k_expose_proto::Resource::Ingresses, "default", "web")?;
    let bound = |twin: &k8s_openapi::api::networking::v1::Ingress| -> Result<()> {
        let spec = twin.spec.as_ref().context("a spec")?;
        ensure!(spec.ingress_class_name.as_deref() == Some("public"));
        let hosts = spec.rules.iter().flatten().map(|rule| rule.host.as_deref().unwrap_or_default());
        ensure!(
            hosts.into_iter().all(|host| host == "tenant.example" || host.ends_with(".tenant.example")),
            "{spec:?}"
        );
        Ok(())
    };
    for (sane, strategy) in [(true, ingress(&key(), &word(), true)), (false, ingress(&hostile(), &hostile(), false))] {
        let twins = sample(&strategy)?.iter().map(|asked| twin_of_ingress(&policy, &at, asked)).collect();
        let became = dry_run(&host, twins, bound).await?;
        became.tell("Ingresses", sane)?;
    }
    Ok(())
}
