//! Certificates of Ingresses: that they cross with the Ingress, follow it and go with it, which do not, and that their keys
//! are nowhere else.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k3k_expose_proto::message::{ByeReason, Object, Put, Unusable};
use k3k_expose_proto::secret::{Pair, PrivateKey, Secret as Said};
use k3k_expose_proto::{FromAgent, Key, Reason, Resource, Uid};
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::product::AGENT_USER;
use k3k_expose_tests::tls::{Authority, Leaf};
use k3k_expose_tests::took;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::stage::{Actor, NAMESPACE, Stage, answered, ingress, no_twin, said, twins};
use crate::observe::{headless, outcomes, writes};
use crate::world::SOON;

/// A Secret by hand, of `kubernetes.io/tls` unless changed.
fn secret(name: &str, leaf: &Leaf) -> Value {
    json!({"metadata": {"name": name}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": leaf.certificate, "tls.key": leaf.key}})
}

/// An Ingress for a host below its own name, with a certificate.
fn secured(name: &str, domain: &str, secret: &str) -> Value {
    let host = format!("{name}.{domain}");
    let mut ingress = ingress(name, &host, "/", "web");
    ingress["spec"]["tls"] = json!([{"hosts": [host], "secretName": secret}]);
    ingress
}

fn leaf() -> Result<Leaf> {
    Authority::new("tenant")?.loopback_leaf()
}

impl Actor {
    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    async fn keep(&self, secret: &Value) -> Result<()> {
        let secret: Secret = serde_json::from_value(secret.clone())?;
        self.secrets().create(&PostParams::default(), &secret).await?;
        Ok(())
    }

    /// Puts another certificate into a Secret.
    async fn rotate(&self, name: &str, leaf: &Leaf) -> Result<()> {
        let patch = Patch::Merge(json!({"stringData": {"tls.crt": leaf.certificate, "tls.key": leaf.key}}));
        self.secrets().patch(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Waits until exactly these certificates stand on the host, and gives their twins.
    async fn stand(&self, host: &Client, certificates: &[&str]) -> Result<Vec<Secret>> {
        let secrets: Api<Secret> = Api::namespaced(host.clone(), &self.tenant.namespace);
        let ours = ListParams::default().labels("app.kubernetes.io/managed-by=k3k-expose");
        eventually(&format!("{} twins of Secrets", certificates.len()), SOON, async || {
            let found = secrets.list(&ours).await?.items;
            let names: Vec<_> = found.iter().map(ResourceExt::name_any).collect();
            let has = |wanted: &&str| found.iter().any(|secret| part(secret, "tls.crt") == **wanted);
            ensure!(found.len() == certificates.len() && certificates.iter().all(has), "{names:?}");
            anyhow::Ok(found)
        })
        .await
    }

    /// The name of the Secret that the twin of an Ingress names.
    async fn named(&self, name: &str) -> Result<String> {
        let twin = self.twin(name, |_| true).await?;
        Ok(json!(twin.spec)["tls"][0]["secretName"].as_str().context("a Secret")?.to_owned())
    }
}

fn part(secret: &Secret, name: &str) -> String {
    let bytes = secret.data.as_ref().and_then(|data| data.get(name)).map(|bytes| bytes.0.clone());
    String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
}

#[tokio::test]
async fn a_certificate_crosses_with_its_ingress_follows_a_rotation_and_goes_with_the_last_that_names_it() -> Result<()>
{
    let domain = "host-tls.example";
    let stage = Stage::with_tls(&[]).await?;
    let actor = Actor::new(&stage, "tls").await?;
    actor.serve(&["web"]).await?;
    let (first, second, unnamed) = (leaf()?, leaf()?, leaf()?);
    actor.keep(&secret("cert", &first)).await?;
    actor.keep(&secret("unnamed", &unnamed)).await?;
    let began = Instant::now();
    actor.create(&secured("shop", domain, "cert")).await?;
    actor.told("shop", "True/Applied").await?;
    took("Ingress with a certificate", began.elapsed(), Duration::from_secs(1));
    let found = actor.stand(&stage.host, &[&first.certificate]).await?.remove(0);
    assert_eq!(actor.named("shop").await?, found.name_any());
    assert!(found.name_any().starts_with(&format!("{}-", actor.tenant.twin_name("cert", NAMESPACE))));
    assert_eq!(part(&found, "tls.key"), first.key);
    assert_eq!((found.type_.as_deref(), found.immutable), (Some("kubernetes.io/tls"), Some(true)));
    let labels = json!({"k3k.io/clusterName": "mine", "app.kubernetes.io/managed-by": "k3k-expose"});
    assert_eq!(json!(found.labels()), labels);
    assert_eq!(found.annotations()["k3k.io/name"], "cert");
    let owner = &found.owner_references()[0];
    assert_eq!((owner.uid.as_str(), owner.controller), (actor.tenant.cluster_uid.as_str(), None));

    let before = actor.twin("shop", |_| true).await?;
    let began = Instant::now();
    actor.rotate("cert", &second).await?;
    let rotated = actor.stand(&stage.host, &[&second.certificate]).await?.remove(0);
    took("rotation of a certificate", began.elapsed(), Duration::from_secs(1));
    assert_eq!(part(&rotated, "tls.key"), second.key);
    let after =
        actor.twin("shop", |twin| twin.annotations()["expose.k3k.io/tls-secrets"] == rotated.name_any()).await?;
    assert_eq!((after.uid(), actor.named("shop").await?), (before.uid(), rotated.name_any()));
    actor.told("shop", "True/Applied").await?;

    actor.create(&secured("more", domain, "cert")).await?;
    actor.told("more", "True/Applied").await?;
    actor.ingresses().delete("shop", &DeleteParams::default()).await?;
    no_twin(&actor.tenant, "shop").await?;
    actor.stand(&stage.host, &[&second.certificate]).await?;

    // Lost and found again: the Ingress keeps its host, and its certificate is nowhere meanwhile.
    actor.secrets().delete("cert", &DeleteParams::default()).await?;
    actor.stand(&stage.host, &[]).await?;
    actor.told("more", "False/WaitingForSecret").await?;
    actor.twin("more", |twin| !twin.annotations().contains_key("expose.k3k.io/tls-secrets")).await?;
    actor.keep(&secret("cert", &second)).await?;
    actor.told("more", "True/Applied").await?;
    assert_eq!(actor.stand(&stage.host, &[&second.certificate]).await?.remove(0).name_any(), rotated.name_any());

    actor.ingresses().delete("more", &DeleteParams::default()).await?;
    no_twin(&actor.tenant, "more").await?;
    actor.stand(&stage.host, &[]).await?;
    Ok(())
}

#[tokio::test]
async fn what_is_no_certificate_with_its_key_is_refused_until_it_is_one() -> Result<()> {
    let domain = "host-tls-refused.example";
    let stage = Stage::with_tls(&[]).await?;
    let actor = Actor::new(&stage, "tls-refused").await?;
    actor.serve(&["web"]).await?;
    let (good, other) = (leaf()?, leaf()?);
    let mixed = Leaf { certificate: good.certificate.clone(), key: other.key };
    let large = Leaf { certificate: good.certificate.repeat(32 * 1024 / good.certificate.len() + 1), ..good.clone() };
    let mut opaque = secret("type", &good);
    opaque["type"] = json!("Opaque");
    let mut empty = secret("empty", &good);
    empty["stringData"] = json!({"tls.crt": "", "tls.key": ""});
    let cases = [
        (opaque, "is not of type kubernetes.io/tls"),
        (secret("key", &mixed), "is not that of its certificate"),
        (secret("large", &large), "32 KiB"),
        (empty, "can be read"),
    ];
    for (secret, _) in &cases {
        actor.keep(secret).await?;
        let name = secret["metadata"]["name"].as_str().context("a name")?;
        actor.create(&secured(name, domain, name)).await?;
    }
    actor.create(&secured("absent", domain, "absent")).await?;
    for (secret, words) in &cases {
        let name = secret["metadata"]["name"].as_str().context("a name")?;
        let told = actor.told(name, "False/TlsSecretUnfit").await?;
        let text = &told.annotations()[super::stage::SYNCED];
        ensure!(text.contains(words) && text.contains(name), "{text}");
        actor.warned(&told, "TlsSecretUnfit").await?;
    }
    actor.told("absent", "False/WaitingForSecret").await?;
    actor.stand(&stage.host, &[]).await?;
    let standing = twins(&actor.tenant, &stage.host).list(&ListParams::default()).await?.items;
    ensure!(standing.is_empty(), "{:?}", standing.iter().map(ResourceExt::name_any).collect::<Vec<_>>());

    actor.rotate("key", &good).await?;
    actor.told("key", "True/Applied").await?;
    actor.keep(&secret("absent", &good)).await?;
    actor.told("absent", "True/Applied").await?;
    actor.stand(&stage.host, &[&good.certificate, &good.certificate]).await?;
    // And back: what stood goes with its certificate.
    actor.rotate("key", &mixed).await?;
    actor.told("key", "False/TlsSecretUnfit").await?;
    no_twin(&actor.tenant, "key").await?;
    actor.stand(&stage.host, &[&good.certificate]).await?;
    Ok(())
}

#[tokio::test]
async fn a_restart_of_either_side_writes_nothing_about_certificates_and_none_crosses_once_it_is_switched_off()
-> Result<()> {
    let (namespace, domain) = ("host-tls-restart", "host-tls-restart.example");
    let stage = Stage::with_tls(&[]).await?;
    let mut actor = Actor::new(&stage, "tls-restart").await?;
    actor.serve(&["web"]).await?;
    let leaf = leaf()?;
    actor.keep(&secret("cert", &leaf)).await?;
    for name in ["one", "two"] {
        actor.create(&secured(name, domain, "cert")).await?;
        actor.told(name, "True/Applied").await?;
    }
    let host = stage.plane.audit();
    let inside = actor.plane.audit();
    for restart in ["agent", "host-api"] {
        let (on_host, in_virtual) = (host.mark().await?, inside.mark().await?);
        actor.session_after_restart(&stage, restart).await?;
        outcomes(&actor.agent, "applied", 4, SOON).await?;
        assert_eq!(writes(&host, on_host, namespace).await?, [], "restart of {restart}");
        let told = inside.writes_since(in_virtual, |user| user == AGENT_USER).await?.counted;
        assert!(!told.iter().any(|entry| entry.namespace == NAMESPACE), "restart of {restart}: {told:?}");
    }

    actor.agent_without_tls(&stage).await?;
    for name in ["one", "two"] {
        actor.told(name, "False/TlsNotAdmitted").await?;
        no_twin(&actor.tenant, name).await?;
    }
    actor.stand(&stage.host, &[]).await?;
    Ok(())
}

#[tokio::test]
async fn an_agent_that_sends_what_it_should_not_gets_no_secret_onto_the_host() -> Result<()> {
    let (namespace, off) = ("host-tls-hostile", "host-tls-off");
    let stage = Stage::with_tls(&[]).await?;
    let tenant = stage.by_hand(namespace).await?;
    let (one, two) = (leaf()?, leaf()?);
    let put = |name: &str, certificate: &str, key: &str| {
        let pair = Pair { certificate: certificate.to_owned(), key: PrivateKey::new(key.to_owned()) };
        let object = Object::Secret(Box::new(Said::Pair(pair)));
        let key = Key::of(Resource::Secrets, NAMESPACE, name)?;
        let (uid, hash, unusable) = (Uid::parse(&format!("uid-{name}"))?, object.hash(), Unusable::default());
        anyhow::Ok(Put { key, uid, hash, seen: 0, unusable, object })
    };
    let named = |name: &str, secret: &str| {
        let put = said(name, &format!("{name}.{namespace}.example"), "/", "web")?;
        super::stage::with_secret(put, secret)
    };
    let mixed = put("mixed", &one.certificate, &two.key)?;
    let words = put("words", "no certificate", "no key")?;
    let unnamed = put("unnamed", &one.certificate, &one.key)?;
    let (of_mixed, of_words) = (named("mixed", "mixed")?, named("words", "words")?);
    let web = headless("web")?;
    let mut session = stage.say_with_secrets(&tenant, std::slice::from_ref(&web)).await?;
    session.settled(&web).await?;
    for (put, reason) in [
        (mixed, Reason::TlsSecretUnfit),
        (words, Reason::TlsSecretUnfit),
        (unnamed.clone(), Reason::WaitingForIngress),
        (of_mixed, Reason::TlsSecretUnfit),
        (of_words, Reason::TlsSecretUnfit),
    ] {
        session.send(&FromAgent::Put(put.clone())).await?;
        answered(&mut session, &put, reason).await?;
    }
    let secrets: Api<Secret> = Api::namespaced(stage.host.clone(), namespace);
    let ours = ListParams::default().labels("app.kubernetes.io/managed-by=k3k-expose");
    assert_eq!(secrets.list(&ours).await?.items.len(), 0);
    drop(session);

    // In a session that does not speak of Secrets there are none.
    let mut session = stage.say(&tenant, true, &[]).await?;
    session.send(&FromAgent::Put(unnamed.clone())).await?;
    assert_eq!(session.bye().await?.reason, ByeReason::Malformed);

    // Nor where the platform team has not switched it on.
    let stage = Stage::new().await?;
    let tenant = stage.by_hand(off).await?;
    let shop = said("shop", &format!("shop.{off}.example"), "/", "web")?;
    let shop = super::stage::with_secret(shop, "unnamed")?;
    let mut session = stage.say_with_secrets(&tenant, &[headless("web")?, unnamed.clone(), shop.clone()]).await?;
    answered(&mut session, &unnamed, Reason::TlsNotAdmitted).await?;
    answered(&mut session, &shop, Reason::TlsNotAdmitted).await?;
    let secrets: Api<Secret> = Api::namespaced(stage.host.clone(), off);
    assert_eq!(secrets.list(&ours).await?.items.len(), 0);
    Ok(())
}

#[tokio::test]
async fn keys_are_in_no_log_no_metric_and_no_event() -> Result<()> {
    let domain = "host-tls-silent.example";
    let stage = Stage::with_tls(&[("K3K_EXPOSE_LOG", "trace")]).await?;
    let actor = Actor::new(&stage, "tls-silent").await?;
    actor.serve(&["web"]).await?;
    let (first, second, third) = (leaf()?, leaf()?, leaf()?);
    let mixed = Leaf { certificate: first.certificate.clone(), key: third.key.clone() };
    actor.keep(&secret("cert", &first)).await?;
    actor.keep(&secret("mixed", &mixed)).await?;
    actor.create(&secured("shop", domain, "cert")).await?;
    actor.create(&secured("mixed", domain, "mixed")).await?;
    actor.told("shop", "True/Applied").await?;
    actor.rotate("cert", &second).await?;
    actor.stand(&stage.host, &[&second.certificate]).await?;
    let told = actor.told("mixed", "False/TlsSecretUnfit").await?;
    actor.warned(&told, "TlsSecretUnfit").await?;

    let mut texts = vec![
        ("agent's log", actor.agent.log_lines()?.join("\n")),
        ("host-api's log", stage.host_api.log_lines()?.join("\n")),
        ("agent's metrics", actor.agent.metrics().await?),
        ("host-api's metrics", stage.host_api.metrics().await?),
    ];
    for (place, client) in [("virtual Events", &actor.client), ("host's Events", &stage.host)] {
        let events: Api<Event> = Api::all(client.clone());
        texts.push((place, serde_json::to_string(&events.list(&ListParams::default()).await?.items)?));
    }
    ensure!(texts[0].1.contains("DEBUG") && texts[1].1.contains("DEBUG"), "the logs are not talkative");
    for leaf in [&first, &second, &third] {
        let body: Vec<&str> = leaf.key.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = STANDARD.decode(body.concat())?;
        // As PEM, as base64 of PEM in a Secret, and as numbers in a debug print.
        let whole = STANDARD.encode(&leaf.key);
        let numbers: Vec<String> = der.iter().skip(40).take(12).map(ToString::to_string).collect();
        let traces =
            [body[0][20..60].to_owned(), body[1][..40].to_owned(), whole[80..140].to_owned(), numbers.join(", ")];
        for (place, text) in &texts {
            for trace in &traces {
                ensure!(!text.contains(trace.as_str()), "a key is in the {place}");
            }
            ensure!(!text.contains("PRIVATE KEY"), "a key is in the {place}");
        }
    }
    Ok(())
}
