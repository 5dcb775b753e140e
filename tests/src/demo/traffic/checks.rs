//! Named checks, and the looks that most of them take.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::Service;

use super::super::stage::Stage;
use super::center::{NAMESPACE, SOON};
use crate::eventually::eventually;
use crate::traffic::images::Running;
use crate::traffic::pods::Pods;
use crate::traffic::{Namespace, curl};

/// Prints the name of a check with its figure, or what went wrong; the story goes on either way.
pub(super) async fn check(stage: &mut Stage, name: &str, proof: impl Future<Output = anyhow::Result<String>>) -> bool {
    let outcome = proof.await.with_context(|| format!("check failed: {name}"));
    match &outcome {
        Ok(figure) => stage.check(name, figure),
        Err(error) => stage.fail(error),
    }
    outcome.is_ok()
}

/// The pods of an app by name.
pub(super) async fn pods_of(pods: &Pods<'_>, app: &str) -> anyhow::Result<BTreeMap<String, Rc<Running>>> {
    let found = pods.of_app(NAMESPACE, app).await?;
    ensure!(!found.is_empty(), "{app} has no pods");
    Ok(found)
}

/// A pod of an app, to look from.
pub(super) async fn pod_of(pods: &Pods<'_>, app: &str) -> anyhow::Result<Rc<Running>> {
    pods_of(pods, app).await?.into_values().next().context("there is one")
}

/// Names of the pods of an app.
pub(super) async fn names_of(pods: &Pods<'_>, app: &str) -> anyhow::Result<BTreeSet<String>> {
    Ok(pods_of(pods, app).await?.into_keys().collect())
}

/// Waits until one of these pods answers at `<address>:<port>`, and gives its name.
pub(super) async fn reaches(
    from: &Namespace,
    address: impl std::fmt::Display,
    port: i32,
    pods: &BTreeSet<String>,
) -> anyhow::Result<String> {
    let url = format!("http://{address}:{port}/hostname");
    eventually(&format!("a pod behind {url}"), SOON, async || {
        let name = curl::get(from, &url).await?;
        ensure!(pods.contains(&name), "{name} answered, which is none of {pods:?}");
        Ok(name)
    })
    .await
}

/// Waits until nothing answers there any more.
pub(super) async fn ends(from: &Namespace, address: &str, port: i32) -> anyhow::Result<()> {
    let url = format!("http://{address}:{port}/hostname");
    eventually(&format!("nothing at {url}"), SOON, async || curl::nothing(from, &url).await).await
}

/// The node port of a port, as this Service shows it.
pub(super) fn node_port(service: &Service, name: &str) -> anyhow::Result<i32> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let port = ports.iter().find(|port| port.name.as_deref() == Some(name));
    match port.and_then(|port| port.node_port) {
        Some(number) if number > 0 => Ok(number),
        _ => bail!("port {name} has no node port"),
    }
}

/// The cluster IP, as this Service shows it.
pub(super) fn cluster_ip(service: &Service) -> anyhow::Result<String> {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.clone()).context("it has no cluster IP")
}
