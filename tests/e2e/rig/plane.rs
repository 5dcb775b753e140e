//! Control planes boot, come back after a kill, forget on a reset, and leave nothing behind.

use std::time::Duration;

use k3k_expose_tests::plane::RIG_USER;
use k3k_expose_tests::progress::say;
use k3k_expose_tests::{ControlPlane, PlaneOptions, Rig, eventually, took, usage};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

#[tokio::test]
async fn a_plane_boots_comes_back_forgets_and_stops_leaving_no_process() -> anyhow::Result<()> {
    let began = Instant::now();
    let plane = ControlPlane::start(PlaneOptions::new("own")).await?;
    took("boot of a control plane", began.elapsed(), Duration::from_secs(6));
    let first = plane.pids().await;
    let running: Vec<u32> = [first.etcd, first.api_server, first.controllers].into_iter().flatten().collect();
    assert_eq!(running.len(), 3);
    let client = plane.client().await?;
    let uid = kube_system_uid(&client).await?;
    // The controllers are at work once the account of the default namespace stands.
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    eventually("the first account", Duration::from_secs(30), async || accounts.get("default").await).await?;
    for (name, pid) in ["etcd", "kube-apiserver", "kube-controller-manager"].into_iter().zip(&running) {
        say(&format!("memory of {name}: {} MiB", usage::rss_kib(*pid)? / 1024));
    }
    make_config_map(&client, "kept").await?;

    plane.kill_api_server().await?;
    assert!(kube_system_uid(&client).await.is_err(), "a killed API server answered");
    let began = Instant::now();
    plane.start_api_server().await?;
    took("return of a killed API server", began.elapsed(), Duration::from_secs(5));
    assert_eq!(kube_system_uid(&client).await?, uid);

    plane.kill_etcd().await?;
    plane.start_etcd().await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    eventually("the object from before both kills", Duration::from_secs(20), async || maps.get("kept").await).await?;

    let began = Instant::now();
    plane.reset().await?;
    took("reset of a control plane", began.elapsed(), Duration::from_secs(10));
    assert_ne!(kube_system_uid(&client).await?, uid, "a wiped cluster is another cluster");

    let last = plane.pids().await;
    let began = Instant::now();
    plane.stop().await?;
    took("stop of a control plane", began.elapsed(), Duration::from_secs(8));
    for pid in [last.etcd, last.api_server, last.controllers].into_iter().flatten().chain(running) {
        assert!(!usage::is_running(pid), "process {pid} is left");
    }
    Ok(())
}

#[tokio::test]
async fn the_audit_log_counts_exactly_the_writes_since_a_mark() -> anyhow::Result<()> {
    let host = Rig::shared().host().await?;
    let client = host.client().await?;
    let audit = host.audit();
    // Other tests write at the same time, so this one counts as a user of its own.
    let name = "system:serviceaccount:default:audited";
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    accounts.create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": "audited"}}))?).await?;
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": {"name": "audited"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": "audited"}],
    }))?;
    Api::all(client).create(&PostParams::default(), &binding).await?;
    let audited = host.client_for_service_account("default", "audited").await?;
    eventually("the binding in force", Duration::from_secs(10), async || kube_system_uid(&audited).await).await?;

    let mark = audit.mark().await?;
    make_config_map(&audited, "counted").await?;
    kube_system_uid(&audited).await?;
    let pods: Api<Pod> = Api::default_namespaced(audited.clone());
    assert!(pods.delete("absent", &DeleteParams::default()).await.is_err());
    let writes = audit.writes_since(mark, |user| user == name).await?.counted;
    let seen: Vec<_> = writes.iter().map(|w| (w.verb.as_str(), w.resource.as_str(), w.name.as_str(), w.code)).collect();
    assert_eq!(seen, [("create", "configmaps", "counted", 201), ("delete", "pods", "absent", 404)]);
    let later = audit.mark().await?;
    assert!(audit.writes_since(later, |user| user == name).await?.counted.is_empty());
    let everything = audit.since(mark).await?;
    assert!(everything.iter().any(|entry| entry.user == name && entry.verb == "get"), "reads are in the log too");
    assert!(everything.iter().any(|entry| entry.user == RIG_USER));
    Ok(())
}

async fn kube_system_uid(client: &Client) -> anyhow::Result<String> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    Ok(namespaces.get("kube-system").await?.uid().unwrap_or_default())
}

async fn make_config_map(client: &Client, name: &str) -> anyhow::Result<()> {
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": name}}))?;
    Api::default_namespaced(client.clone()).create(&PostParams::default(), &map).await?;
    Ok(())
}
