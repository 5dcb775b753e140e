//! Clusters and virtual namespaces of one host namespace stay apart though their pods wear the same labels.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use k3k_expose_proto::Reason;
use k3k_expose_proto::message::Put;
use k3k_expose_tests::eventually;
use k3k_expose_tests::k3k::Tenant;
use k3k_expose_tests::wire::{WireSession, cluster_ip_service, hello, put};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client};

use super::stage;
use crate::world::SOON;

#[tokio::test]
async fn equal_pod_labels_give_disjoint_endpoints_and_no_one_selects_a_server() -> Result<()> {
    let (stage, client) = stage::shared().await?;
    let mut every = BTreeSet::new();
    for cluster in ["left", "right"] {
        let tenant = stage::tenant(&client, "inject-apart", cluster).await?;
        stage::server_pod(&client, &tenant).await?;
        let mut wanted: Vec<Put> = Vec::new();
        for namespace in ["one", "two"] {
            let uid = format!("{cluster}-{namespace}");
            wanted.push(put(namespace, "web", &uid, cluster_ip_service("web", 80)?)?);
        }
        let mut servers = cluster_ip_service("web", 80)?;
        servers.selector = [("role".to_owned(), "server".to_owned())].into();
        wanted.push(put("one", "servers", &format!("{cluster}-servers"), servers)?);
        let token = tenant.server_pod_token(0).await?;
        let (mut session, _) = WireSession::open(&stage.host_api, &token, hello(cluster, &wanted)?).await?;
        session.send_snapshot(&wanted).await?;
        for put in &wanted {
            assert_eq!(session.settled(put).await?.reason, Reason::Applied);
        }
        for put in &wanted[..2] {
            // As k3k makes it: without the label of its namespace.
            let pod = tenant.tenant_pod("web-1", put.key.namespace(), &[("app", "web")], false).await?;
            let ip = pod.status.and_then(|status| status.pod_ip).unwrap_or_default();
            leads_to(&client, &tenant, put, &[&ip]).await?;
            assert!(every.insert(ip), "an address of another's");
        }
        // A tenant pod may say what it likes, and is the tenant's own to select; the server pod is not.
        leads_to(&client, &tenant, &wanted[2], &[]).await?;
    }
    assert_eq!(every.len(), 4);
    Ok(())
}

/// The twin's endpoints, made by the real controller, are exactly these.
async fn leads_to(client: &Client, tenant: &Tenant, put: &Put, wanted: &[&str]) -> Result<()> {
    let twin = tenant.twin_name(put.key.name(), put.key.namespace());
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), &tenant.namespace);
    let of_twin = ListParams::default().labels(&format!("kubernetes.io/service-name={twin}"));
    eventually(&format!("{twin} leads to {wanted:?}"), SOON, async || {
        let slices = slices.list(&of_twin).await?;
        // The controller has looked once there is a slice.
        ensure!(!slices.items.is_empty(), "no slice");
        let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
        let addresses: Vec<_> = endpoints.flat_map(|endpoint| &endpoint.addresses).collect();
        ensure!(addresses == wanted, "{addresses:?}");
        anyhow::Ok(())
    })
    .await
}
