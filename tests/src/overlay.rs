//! Overlays of the manifests, on an API server that has the base: it merges their patches itself, so that nothing here has to know
//! how kustomize does it.

use anyhow::{Context, bail, ensure};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams};
use kube::{Client, Error, ResourceExt};
use serde_json::{Value, json};

use crate::manifest;

/// What an overlay does to the base.
pub struct Overlay {
    name: String,
    kustomization: Value,
}

impl Overlay {
    /// Reads one, by the name of its folder.
    ///
    /// # Errors
    /// When there is none.
    pub fn read(name: &str) -> anyhow::Result<Self> {
        let text = manifest::text(&format!("overlays/{name}/kustomization.yaml"))?;
        Ok(Self { name: name.to_owned(), kustomization: serde_saphyr::from_str(&text)? })
    }

    /// The names of all.
    ///
    /// # Errors
    /// When their folder cannot be read.
    pub fn all() -> anyhow::Result<Vec<String>> {
        let folders = std::fs::read_dir(manifest::folder().join("overlays"))?;
        let names = folders.map(|folder| anyhow::Ok(folder?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    /// Applies its own objects, and then its patches: each is tried first.
    ///
    /// # Errors
    /// When the API server refuses, or a patch is of a kind that is not known here.
    pub async fn apply(&self, client: &Client) -> anyhow::Result<()> {
        for file in
            list(&self.kustomization["resources"]).filter_map(Value::as_str).filter(|file| *file != "../../base")
        {
            for object in manifest::documents(&self.text(file)?)? {
                manifest::dry_run(client, &object).await?;
                manifest::apply_one(client, &object).await?;
            }
        }
        for patch in list(&self.kustomization["patches"]) {
            let text = match (patch["patch"].as_str(), patch["path"].as_str()) {
                (Some(text), None) => text.to_owned(),
                (None, Some(file)) => self.text(file)?,
                _ => bail!("a patch with neither or both of text and path"),
            };
            let content: Value = serde_saphyr::from_str(&text)?;
            change(client, &patch["target"], content).await.with_context(|| text)?;
        }
        Ok(())
    }

    fn text(&self, file: &str) -> anyhow::Result<String> {
        manifest::text(&format!("overlays/{}/{file}", self.name))
    }
}

/// Changes an object of the base, after a try.
async fn change(client: &Client, target: &Value, patch: Value) -> anyhow::Result<()> {
    if let Some(operations) = patch.as_array() {
        return append(client, target, operations).await;
    }
    let object: DynamicObject = serde_json::from_value(patch.clone())?;
    let (api, name) = (manifest::api_of(client, &object).await?, object.name_any());
    for dry_run in [true, false] {
        if patch["$patch"] == "delete" {
            let params = DeleteParams { dry_run, ..DeleteParams::default() };
            match api.delete(&name, &params).await {
                Ok(_) => {}
                Err(Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error.into()),
            }
        } else {
            let params = PatchParams { dry_run, ..PatchParams::default() };
            api.patch(&name, &params, &Patch::Strategic(&patch)).await?;
        }
    }
    Ok(())
}

/// Applies the base's object with what JSON patches append to its lists, the only operation that overlays need.
async fn append(client: &Client, target: &Value, operations: &[Value]) -> anyhow::Result<()> {
    let mut found = None;
    for path in manifest::base()? {
        for object in manifest::documents(&std::fs::read_to_string(path)?)? {
            let object = serde_json::to_value(object)?;
            if object["kind"] == target["kind"] && object["metadata"]["name"] == target["name"] {
                found = Some(object);
            }
        }
    }
    let mut object = found.with_context(|| format!("the base has no {target}"))?;
    for operation in operations {
        let path =
            operation["path"].as_str().and_then(|path| path.strip_suffix("/-")).context("a path to append at")?;
        ensure!(operation["op"] == "add", "{operation}");
        let there =
            object.pointer_mut(path).and_then(Value::as_array_mut).with_context(|| format!("no list {path}"))?;
        there.push(operation["value"].clone());
    }
    let object: DynamicObject = serde_json::from_value(object)?;
    manifest::dry_run(client, &object).await?;
    manifest::apply_one(client, &object).await
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A CRD for somebody else's kind, with room for whatever its objects say.
#[must_use]
pub fn any_crd(group: &str, version: &str, kind: &str) -> Value {
    let (singular, open) =
        (kind.to_lowercase(), json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{singular}s.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced", "names": {"kind": kind, "plural": format!("{singular}s"), "singular": singular},
            "versions": [{"name": version, "served": true, "storage": true, "schema": {"openAPIV3Schema": open}}],
        },
    })
}
