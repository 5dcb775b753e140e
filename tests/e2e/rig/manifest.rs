//! Manifests go in as `kubectl apply --server-side` would put them, any number of times.

use k3k_expose_tests::{Rig, manifest};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;

const TEXT: &str = "
apiVersion: v1
kind: Namespace
metadata:
  name: rig-manifest
---
# A comment alone makes an empty document.
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: settings
  namespace: rig-manifest
data:
  answer: \"42\"
";

#[tokio::test]
async fn every_document_is_applied_and_a_second_time_changes_nothing() -> anyhow::Result<()> {
    let client = Rig::shared().host().await?.client().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "rig-manifest");
    manifest::apply(&client, TEXT).await?;
    let first = maps.get("settings").await?;
    assert_eq!(first.data.unwrap_or_default()["answer"], "42");
    manifest::apply(&client, TEXT).await?;
    assert_eq!(maps.get("settings").await?.metadata.resource_version, first.metadata.resource_version);
    Ok(())
}
