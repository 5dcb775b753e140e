//! Two tenants with equal names for everything.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;
use serde_json::json;

use super::super::stage::Stage;
use super::center::{Center, Crew};
use super::checks::{check, cluster_ip, names_of, node_port, pod_of, reaches};
use crate::traffic::{Namespace, curl};

/// By four ways at the same time.
const REQUESTS: usize = 10_000;

pub(super) async fn all(stage: &mut Stage, center: &Center, crew: &Crew<'_>) -> anyhow::Result<()> {
    stage.begin(
        "Two tenants",
        "Services, namespaces and labels of both are called the same; only what host-api adds to selectors tells their pods apart.",
    );
    let mut ways: Vec<(std::rc::Rc<crate::traffic::images::Running>, String, String, BTreeSet<String>)> = Vec::new();
    for (side, pods) in [(&center.alpha, &crew.alpha), (&center.beta, &crew.beta)] {
        let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
        let service =
            side.serve("same", json!({"type": "NodePort", "selector": {"app": "web"}, "ports": ports})).await?;
        let web = names_of(pods, "web").await?;
        let from = pod_of(pods, "other").await?;
        let outside = format!("{}:{}", center.fabric.nodes[0].address, node_port(&service, "http")?);
        let inside = format!("{}:80", cluster_ip(&service)?);
        reaches(&center.fabric.client, center.fabric.nodes[0].address, node_port(&service, "http")?, &web).await?;
        reaches(&from.namespace, cluster_ip(&service)?, 80, &web).await?;
        ways.push((from, outside, inside, web));
    }
    check(stage, "No request reaches another tenant's pod", async {
        let quarter = REQUESTS / 4;
        let client = &center.fabric.client;
        let [(from_a, out_a, in_a, web_a), (from_b, out_b, in_b, web_b)] = ways.as_slice() else {
            anyhow::bail!("there are two tenants");
        };
        let answers = tokio::try_join!(
            count(client, out_a, quarter, web_a),
            count(&from_a.namespace, in_a, quarter, web_a),
            count(client, out_b, quarter, web_b),
            count(&from_b.namespace, in_b, quarter, web_b),
        )?;
        let answers = [answers.0, answers.1, answers.2, answers.3];
        let total: usize = answers.iter().map(|(total, _)| total).sum();
        let wrong: usize = answers.iter().map(|(_, wrong)| wrong).sum();
        ensure!(total == REQUESTS, "{total} answers to {REQUESTS} requests");
        ensure!(wrong == 0, "{wrong} of {total} answers were another tenant's");
        Ok(format!("{total} requests, {wrong} wrong"))
    })
    .await;
    Ok(())
}

/// How many answered, and how many of them were not these pods; each of these has to be among them.
async fn count(from: &Namespace, to: &str, requests: usize, pods: &BTreeSet<String>) -> anyhow::Result<(usize, usize)> {
    let lines = curl::many(from, &format!("http://{to}/hostname"), requests).await?;
    let mut tally: BTreeMap<&str, usize> = BTreeMap::new();
    for line in &lines {
        *tally.entry(line).or_default() += 1;
    }
    ensure!(pods.iter().all(|pod| tally.contains_key(pod.as_str())), "{tally:?} is not all of {pods:?}");
    let right: usize = pods.iter().filter_map(|pod| tally.get(pod.as_str())).sum();
    Ok((lines.len(), lines.len() - right))
}
