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

/// Files of the kustomize base, in its order.
///
/// # Errors
/// When its `kustomization.yaml` cannot be read.
pub fn base() -> anyhow::Result<Vec<PathBuf>> {
    let folder = folder().join("base");
    let kustomization: Value = serde_saphyr::from_str(&text("base/kustomization.yaml")?)?;
    let files = kustomization["resources"].as_array().context("a base has resources")?;
    files.iter().map(|file| Ok(folder.join(file.as_str().context("a resource is a file")?))).collect()
}

/// Text of a manifest, by its path below the folder of manifests.
///
/// # Errors
/// When it cannot be read.
pub fn text(path: &str) -> anyhow::Result<String> {
    let path = folder().join(path);
    std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// Documents of a YAML text.
///
/// # Errors
/// When it is no YAML, or a document is no object of an API server.
pub fn documents(text: &str) -> anyhow::Result<Vec<DynamicObject>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
    let documents = documents.into_iter().filter(|document| !document.is_null());
    documents.map(|document| Ok(serde_json::from_value(document)?)).collect()
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
    for object in documents(text)? {
        apply_one(client, &object).await?;
    }
    Ok(())
}

/// Applies one document.
///
/// # Errors
/// When the API server refuses.
pub async fn apply_one(client: &Client, object: &DynamicObject) -> anyhow::Result<()> {
    apply_object(client, object, false).await.with_context(|| object.name_any())
}

/// Asks what applying an object would do, and does it not: the API server's validation and admission without the write.
///
/// # Errors
/// When the API server would refuse.
pub async fn dry_run(client: &Client, object: &DynamicObject) -> anyhow::Result<()> {
    apply_object(client, object, true).await.with_context(|| object.name_any())
}

/// Where objects of that object's kind are read and written.
///
/// # Errors
/// When the API server does not serve the kind.
pub async fn api_of(client: &Client, object: &DynamicObject) -> anyhow::Result<Api<DynamicObject>> {
    let types = object.types.as_ref().context("a manifest has apiVersion and kind")?;
    let kind = GroupVersionKind::try_from(types)?;
    let (resource, capabilities) = pinned_kind(client, &kind).await?;
    Ok(match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => {
            let namespace = object.namespace().unwrap_or_else(|| "default".to_owned());
            Api::namespaced_with(client.clone(), &namespace, &resource)
        }
    })
}

async fn apply_object(client: &Client, object: &DynamicObject, dry_run: bool) -> anyhow::Result<()> {
    let api = api_of(client, object).await?;
    let mut params = PatchParams::apply("k3k-expose-rig").force();
    params.dry_run = dry_run;
    api.patch(&object.name_any(), &params, &Patch::Apply(object)).await?;
    Ok(())
}
