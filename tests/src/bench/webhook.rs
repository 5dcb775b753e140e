//! What the webhook costs a server pod: creates that it is asked about beside creates that it is not.
//!
//! One host, one moment, the same bodies: the creator alone decides whether the API server asks. Open loop and interleaved, as in
//! [`super::latency`].

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::eventually::eventually;
use crate::k3k::{Tenant, TenantOptions, server_pod_spec};
use crate::plane::{ControlPlane, PlaneOptions};
use crate::product::{HostApi, HostApiOptions};
use crate::{rig, webhook};

/// Creates a second of each kind.
const RATE: u32 = 20;
/// Creates of each kind.
const SAMPLES: u32 = 200;
/// The StatefulSet controller, as the webhook configuration knows it.
const CREATOR: &str = "system:kube-controller-manager";

/// Milliseconds of every create.
pub(super) struct Creates {
    pub(super) asked: Vec<f64>,
    pub(super) plain: Vec<f64>,
}

/// One creator and the tenant whose server pods it makes.
struct Side {
    pods: Api<Pod>,
    tenant: Tenant,
}

pub(super) async fn measure() -> anyhow::Result<Creates> {
    let host = rig::host(PlaneOptions::new("webhook").without_controllers()).await?;
    let client = host.client().await?;
    let host_api = HostApi::start(&host, HostApiOptions::default()).await?;
    webhook::install(&client, &host_api).await?;
    let asked = side(&host, &client, "asked", CREATOR).await?;
    let plain = side(&host, &client, "plain", "somebody").await?;
    eventually("the API server asks", Duration::from_secs(30), async || {
        let pod = asked.create(SAMPLES).await?;
        asked.tenant.delete_pod(&asked.tenant.server_pod_name(SAMPLES)).await?;
        ensure!(is_injected(&pod), "not yet");
        anyhow::Ok(())
    })
    .await?;
    plain.create(SAMPLES).await?;

    let mut calls = JoinSet::new();
    let (began, period) = (Instant::now(), Duration::from_secs(1) / RATE);
    let (asked, plain) = (Arc::new(asked), Arc::new(plain));
    for index in 0..SAMPLES {
        // Second by second in turn, so that both meet the same machine and neither the other's creates.
        let (second, rest) = (index / RATE, index % RATE);
        for (side, turn) in [(&asked, 2 * second), (&plain, 2 * second + 1)] {
            let at = Duration::from_secs(turn.into()) + period * rest;
            let (side, is_asked) = (Arc::clone(side), Arc::ptr_eq(side, &asked));
            calls.spawn(async move {
                sleep_until(began + at).await;
                let start = Instant::now();
                let pod = side.create(index).await?;
                let took = start.elapsed().as_secs_f64() * 1000.0;
                // A create that was let through without an answer would make the figure too good.
                ensure!(is_injected(&pod) == is_asked, "pod {index} of {}", side.tenant.namespace);
                anyhow::Ok((is_asked, took))
            });
        }
    }
    let mut creates = Creates { asked: Vec::new(), plain: Vec::new() };
    while let Some(call) = calls.join_next().await {
        let (is_asked, took) = call.context("a call died")??;
        if is_asked { &mut creates.asked } else { &mut creates.plain }.push(took);
    }
    Ok(creates)
}

async fn side(host: &ControlPlane, client: &Client, namespace: &str, creator: &str) -> anyhow::Result<Side> {
    // Nobody runs the controller here: this is its part.
    let options = TenantOptions { servers: SAMPLES + 1, controlled: true, ..TenantOptions::default() };
    let tenant = Tenant::create(client, namespace, "mine", options).await?;
    let as_creator = host.access_by_certificate(creator, "system:masters")?.client().await?;
    Ok(Side { pods: Api::namespaced(as_creator, namespace), tenant })
}

impl Side {
    async fn create(&self, ordinal: u32) -> anyhow::Result<Pod> {
        let tenant = &self.tenant;
        let owner = Tenant::stateful_set_reference(&tenant.stateful_set, &tenant.stateful_set_uid);
        let pod = json!({
            "metadata": {"name": tenant.server_pod_name(ordinal), "labels": tenant.server_labels(),
                "ownerReferences": [owner]},
            "spec": server_pod_spec(&tenant.stateful_set),
        });
        Ok(self.pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?)
    }
}

fn is_injected(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.init_containers.is_some())
}
