//! How much one tenant may have, and what a policy costs that changes little.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use k3k_expose_proto::Reason;
use k3k_expose_proto::message::{FromAgent, Put};
use k3k_expose_proto::service::ServiceType;
use k3k_expose_tests::k3k::{Tenant, TenantOptions};
use k3k_expose_tests::product::{HOST_API_USER, HostApi, HostApiOptions};
use k3k_expose_tests::{ControlPlane, PlaneOptions, rig, took, wire};
use serde_json::json;
use tokio::sync::OnceCell;
use tokio::time::{Duration, Instant, timeout};

use super::stage::{apply, governs, hear, of_namespace, selecting, settle};
use crate::spoken::{Spoken, numbered, put};
use crate::world::SOON;

/// Far more than these tests take.
const LONG: Duration = Duration::from_secs(120);

/// A host of their own: on the shared one these tests would hold many numbers that other tests' virtual clusters draw.
struct Stage {
    host: ControlPlane,
    host_api: HostApi,
}

impl Stage {
    async fn shared() -> Result<&'static Self> {
        static STAGE: OnceCell<Stage> = OnceCell::const_new();
        let boot = async || {
            let host = rig::host(PlaneOptions::new("policy-counts").without_controllers()).await?;
            let host_api = HostApi::start(&host, HostApiOptions::default()).await?;
            anyhow::Ok(Self { host, host_api })
        };
        STAGE.get_or_try_init(boot).await
    }

    async fn spoken(&self, name: &str) -> Result<Spoken> {
        let tenant = Tenant::create(&self.host.client().await?, name, "spoken", TenantOptions::default()).await?;
        Spoken::on(&self.host_api, tenant).await
    }
}

fn count(told: &BTreeMap<String, Reason>, reason: Reason) -> usize {
    told.values().filter(|told| **told == reason).count()
}

#[tokio::test]
async fn three_thousand_node_ports_of_one_tenant_are_capped_and_others_get_theirs() -> Result<()> {
    const MOST: usize = 40;
    let stage = Stage::shared().await?;
    let mut greedy = stage.spoken("policy-greedy").await?;
    let mut neighbor = stage.spoken("policy-neighbor").await?;
    apply(&greedy.host, "policy-greedy", &of_namespace("policy-greedy", json!({"nodePorts": {"most": MOST}}))).await?;
    governs(&greedy.host, "policy-greedy", 1).await?;
    let puts = (0..3_000).map(|n| put(&format!("web-{n:04}"), numbered(ServiceType::NodePort, "", 0)?));
    let puts = puts.collect::<Result<Vec<Put>>>()?;
    let start = Instant::now();
    for put in &puts {
        greedy.session.send(&FromAgent::Put(put.clone())).await?;
    }
    let mut told = BTreeMap::new();
    let wanted = put("wanted", numbered(ServiceType::NodePort, "", 0)?)?;
    let (all, answer) = tokio::join!(
        timeout(LONG, hear(&mut greedy, &puts, &mut told, |told| told.len() == puts.len())),
        neighbor.say(&wanted)
    );
    all.context("3,000 answers")??;
    assert_eq!(answer?.reason, Reason::Applied);
    took("3,000 Services with a node port, of which 40 are admitted", start.elapsed(), Duration::from_secs(10));
    assert_eq!((count(&told, Reason::Applied), count(&told, Reason::TooManyNodePorts)), (MOST, puts.len() - MOST));

    let has = |key: &Put| told.get(&key.key.to_string()) == Some(&Reason::Applied);
    let gone = puts.iter().find(|put| has(put)).context("one that was admitted")?;
    let refused: Vec<Put> = puts.iter().filter(|put| !has(put)).cloned().collect();
    let start = Instant::now();
    greedy.session.send(&FromAgent::Delete(wire::delete(gone))).await?;
    let mut after = BTreeMap::new();
    let one = |after: &BTreeMap<String, Reason>| count(after, Reason::Applied) == 1;
    timeout(SOON, hear(&mut greedy, &refused, &mut after, one)).await.context("another gets the port")??;
    took("a refused Service after one was deleted", start.elapsed(), Duration::from_secs(2));
    assert_eq!(after.len(), 1, "nobody else was asked: {after:?}");
    Ok(())
}

#[tokio::test]
async fn a_policy_that_concerns_ten_of_a_thousand_services_writes_ten_times() -> Result<()> {
    let stage = Stage::shared().await?;
    let mut spoken = stage.spoken("policy-thousand").await?;
    let kind = |n: usize| if n < 10 { ServiceType::LoadBalancer } else { ServiceType::ClusterIP };
    let puts =
        (0..1_000).map(|n| put(&format!("web-{n:04}"), numbered(kind(n), "", 0)?)).collect::<Result<Vec<_>>>()?;
    for put in &puts {
        spoken.session.send(&FromAgent::Put(put.clone())).await?;
    }
    let mut told = BTreeMap::new();
    timeout(LONG, hear(&mut spoken, &puts, &mut told, |told| told.len() == puts.len()))
        .await
        .context("1,000 answers")??;
    assert_eq!(count(&told, Reason::Applied), puts.len());

    let audit = stage.host.audit();
    let namespace = spoken.tenant.namespace.clone();
    let writes = async |mark| -> Result<usize> {
        let writes = audit.writes_since(mark, |user| user == HOST_API_USER).await?.counted;
        Ok(writes.iter().filter(|entry| entry.namespace == namespace).count())
    };
    let expect = |reason| -> Vec<(Put, Reason)> {
        let of = |n: usize| if n < 10 { reason } else { Reason::Applied };
        puts.iter().enumerate().map(|(n, put)| (put.clone(), of(n))).collect()
    };
    let mark = audit.mark().await?;
    let start = Instant::now();
    let deny = json!({"deny": {"serviceTypes": ["LoadBalancer"]}});
    apply(&spoken.host, "policy-thousand", &selecting(&namespace, deny)).await?;
    settle(&mut spoken, &expect(Reason::TypeNotAdmitted)).await?;
    took("1,000 Services judged by a new policy", start.elapsed(), Duration::from_secs(5));
    assert_eq!(writes(mark).await?, 10, "one deletion each");

    let mark = audit.mark().await?;
    let other = json!({"deny": {"serviceTypes": ["LoadBalancer"], "loadBalancerClasses": ["example.com/none"]}});
    apply(&spoken.host, "policy-thousand", &selecting(&namespace, other)).await?;
    settle(&mut spoken, &expect(Reason::TypeNotAdmitted)).await?;
    assert_eq!(writes(mark).await?, 0, "what changes nothing writes nothing");
    Ok(())
}

#[tokio::test]
async fn a_limit_that_is_lowered_or_raised_counts_at_once_for_what_stands() -> Result<()> {
    let stage = Stage::shared().await?;
    let mut spoken = stage.spoken("policy-limits").await?;
    let puts = ["a", "b", "c", "d"].map(|name| put(name, numbered(ServiceType::ClusterIP, "", 0)?));
    let puts = puts.into_iter().collect::<Result<Vec<Put>>>()?;
    for put in &puts {
        assert_eq!(spoken.say(put).await?.reason, Reason::Applied);
    }
    let limits = |objects: usize| of_namespace("policy-limits", json!({"limits": {"objects": objects}}));
    let expect = |few: usize| -> Vec<(Put, Reason)> {
        let of = |n: usize| if n < few { Reason::Applied } else { Reason::TooManyObjects };
        puts.iter().enumerate().map(|(n, put)| (put.clone(), of(n))).collect()
    };
    let audit = stage.host.audit();
    let mark = audit.mark().await?;
    for (few, what) in [(2, "two of four twins that a lower limit takes"), (4, "two twins that a higher limit lets in")]
    {
        let start = Instant::now();
        apply(&spoken.host, "policy-limits", &limits(few)).await?;
        let changed: Vec<_> = expect(few).split_off(2);
        settle(&mut spoken, &changed).await?;
        took(what, start.elapsed(), Duration::from_secs(2));
        for (n, put) in puts.iter().enumerate() {
            assert_eq!(spoken.has_twin(put).await?, n < few, "{} of {few}", put.key);
        }
    }
    let writes = audit.writes_since(mark, |user| user == HOST_API_USER).await?.counted;
    let own = writes.iter().filter(|entry| entry.namespace == spoken.tenant.namespace).count();
    assert_eq!(own, 4, "two deletions and two creations, and nothing for the two that stay");
    Ok(())
}
