//! Policies of the host as the platform team writes them, and a tenant that answers whatever host-api wants again.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use k3k_expose_host_api::policy::resource::ExposurePolicy;
use k3k_expose_proto::message::{FromAgent, FromHost, Put, Want};
use k3k_expose_proto::{Outcome, Reason};
pub use k3k_expose_tests::admitted::{apply, of_namespace, selecting};
use k3k_expose_tests::eventually::eventually;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::timeout;

use crate::spoken::Spoken;
use crate::world::SOON;

/// The policies of a host.
pub fn policies(host: &Client) -> Api<ExposurePolicy> {
    Api::all(host.clone())
}

/// Takes a policy away.
pub async fn delete(host: &Client, name: &str) -> Result<()> {
    policies(host).delete(name, &DeleteParams::default()).await?;
    Ok(())
}

/// Labels the host namespace of a tenant.
pub async fn label_namespace(spoken: &Spoken, key: &str, value: Option<&str>) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(spoken.host.clone());
    let patch = json!({"metadata": {"labels": {key: value}}});
    namespaces.patch(&spoken.tenant.namespace, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

/// Waits until the status of a policy says that it decides about so many Clusters.
pub async fn governs(host: &Client, name: &str, clusters: i32) -> Result<()> {
    eventually(&format!("policy {name} governs {clusters}"), SOON, async || {
        let status = policies(host).get(name).await?.status.context("no status")?;
        ensure!(status.governs == clusters && status.clusters >= clusters, "{status:?}");
        anyhow::Ok(())
    })
    .await
}

/// Says what host-api wants again, until the last answer of each object is this one.
pub async fn settle(spoken: &mut Spoken, expected: &[(Put, Reason)]) -> Result<()> {
    let puts: Vec<Put> = expected.iter().map(|(put, _)| put.clone()).collect();
    let mut told: BTreeMap<String, Reason> = BTreeMap::new();
    let hears = hear(spoken, &puts, &mut told, |told| {
        expected.iter().all(|(put, reason)| told.get(&put.key.to_string()) == Some(reason))
    });
    match timeout(SOON, hears).await {
        Ok(heard) => heard,
        Err(_) => bail!(
            "told {told:?}, expected {:?}",
            expected.iter().map(|(put, reason)| (&put.key, reason)).collect::<Vec<_>>()
        ),
    }
}

/// Says what host-api wants again and notes what it answers, until that is `enough`.
pub async fn hear(
    spoken: &mut Spoken,
    puts: &[Put],
    told: &mut BTreeMap<String, Reason>,
    enough: impl Fn(&BTreeMap<String, Reason>) -> bool,
) -> Result<()> {
    let by_key: BTreeMap<String, &Put> = puts.iter().map(|put| (put.key.to_string(), put)).collect();
    while !enough(told) {
        match spoken.session.next().await?.context("the session ended")? {
            FromHost::Answer(answer) if answer.outcome != Outcome::Pending => {
                told.insert(answer.key.to_string(), answer.reason);
            }
            FromHost::Want(Want::Keys(keys)) => {
                for put in keys.iter().filter_map(|key| by_key.get(&key.to_string())) {
                    spoken.session.send(&FromAgent::Put((*put).clone())).await?;
                }
            }
            FromHost::Bye(bye) => bail!("{bye:?}"),
            _ => {}
        }
    }
    Ok(())
}
