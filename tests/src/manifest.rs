//! Applies manifests of this repository, as `kubectl apply --server-side` would.

use std::path::{Path, PathBuf};

use anyhow::Context;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

/// The repository's folder of manifests.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

/// Applies every document of a YAML file, in its order.
///
/// # Errors
/// When the file cannot be read, or the API server refuses a document.
pub async fn apply_file(client: &Client, path: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    apply(client, &text).await.with_context(|| format!("applying {}", path.display()))
}

/// Applies every document of a YAML text, in its order.
///
/// # Errors
/// When it is no YAML, or the API server refuses a document.
pub async fn apply(client: &Client, text: &str) -> anyhow::Result<()> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
    for document in documents.into_iter().filter(|document| !document.is_null()) {
        let object: DynamicObject = serde_json::from_value(document)?;
        apply_object(client, &object).await.with_context(|| object.name_any())?;
    }
    Ok(())
}

async fn apply_object(client: &Client, object: &DynamicObject) -> anyhow::Result<()> {
    let types = object.types.as_ref().context("a manifest has apiVersion and kind")?;
    let kind = GroupVersionKind::try_from(types)?;
    let (resource, capabilities) = pinned_kind(client, &kind).await?;
    let api: Api<DynamicObject> = match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => {
            let namespace = object.namespace().unwrap_or_else(|| "default".to_owned());
            Api::namespaced_with(client.clone(), &namespace, &resource)
        }
    };
    let params = PatchParams::apply("k3k-expose-rig").force();
    api.patch(&object.name_any(), &params, &Patch::Apply(object)).await?;
    Ok(())
}
