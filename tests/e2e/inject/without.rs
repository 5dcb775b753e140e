//! While host-api is down pods start as they are, and what it missed is put right and told when it is back.

use anyhow::{Result, ensure};
use k3k_expose_tests::{eventually, took};
use kube::api::ListParams;
use tokio::time::{Duration, Instant};

use super::stage;
use crate::world::SOON;

/// Pods of the burst.
const BURST: usize = 20;

#[tokio::test]
async fn pods_start_while_host_api_is_down_and_are_put_right_and_told_when_it_is_back() -> Result<()> {
    let stage = stage::boot("inject-without").await?;
    let client = stage.host.client().await?;
    stage.host_api.kill().await?;
    let tenant = stage::tenant(&client, "without", "mine").await?;
    let server = stage::server_pod(&client, &tenant).await?;
    assert!(stage::sidecar(&server).is_none());
    for number in 0..BURST {
        let name = format!("web-{number}");
        tenant.tenant_pod(&name, "shop", &[("app", "web"), ("k3k.io/namespace", "bank")], false).await?;
    }
    let pods = stage::pods(&client, "without");
    let right = ListParams::default().labels("app=web,k3k.io/clusterName=mine,k3k.io/namespace=shop");
    assert_eq!(pods.list(&right).await?.items.len(), 0, "nobody was there to put them right");

    stage.host_api.restart().await?;
    stage.host_api.wait_ready().await?;
    let began = Instant::now();
    eventually("all labels right", Duration::from_secs(50), async || {
        let count = pods.list(&right).await?.items.len();
        ensure!(count == BURST, "{count} are right");
        anyhow::Ok(())
    })
    .await?;
    took("labels of a burst put right after host-api is back", began.elapsed(), Duration::from_secs(5));

    let event = stage::told(&client, &tenant, "AgentMissing").await?;
    let message = event.message.unwrap_or_default();
    let line = format!("kubectl delete pod --namespace without {}", tenant.server_pod_name(0));
    assert!(message.contains(&line), "{message}");
    let count = async || stage.host_api.metric("k3k_expose_host_api_uninjected_server_pods").await.ok().flatten();
    assert_eq!(count().await, Some(1.0));

    tenant.delete_pod(&tenant.server_pod_name(0)).await?;
    eventually("the agent in the pod that was made again, and nothing more to tell", SOON, async || {
        let pod = pods.get_opt(&tenant.server_pod_name(0)).await.ok().flatten();
        pod.is_some_and(|pod| stage::sidecar(&pod).is_some()) && count().await == Some(0.0)
    })
    .await
}
