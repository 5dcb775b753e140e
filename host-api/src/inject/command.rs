//! `k3k-expose-host-api inject`: what the webhook would make of a pod, from files. Pure but for the caller's reading.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{LimitRange, Namespace, Pod, ResourceQuota};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{CREATORS, Left, Settings, Surroundings, inject};
use crate::cluster::Cluster;

/// Why there is nothing to print.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The text is no YAML.
    #[error("the file is no YAML: {0}")]
    NoYaml(String),
    /// No pod is among the documents.
    #[error(
        "no Pod among the documents: give the pod with its StatefulSet and Cluster, as kubectl get pod,statefulset,cluster \
         --output yaml prints them"
    )]
    NoPod,
    /// A document is not what its kind says.
    #[error("a {0} cannot be read: {1}")]
    Unreadable(&'static str, serde_json::Error),
    /// The pod stays as it is.
    #[error("the pod stays as it is ({word}): {0}", word = .0.word())]
    Left(#[from] Left),
}

/// The pod of these YAML documents as the webhook would leave it, as YAML.
///
/// # Errors
/// [`CommandError`].
pub fn injected(text: &str, settings: &Settings) -> Result<Value, CommandError> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| CommandError::NoYaml(error.to_string()))?;
    let documents: Vec<Value> = documents.into_iter().flat_map(items).collect();
    let mut pod = documents.iter().find(|document| document["kind"] == "Pod").cloned().ok_or(CommandError::NoPod)?;
    let typed: Pod = read("Pod", &pod)?;
    let sets: Vec<StatefulSet> = all("StatefulSet", &documents)?;
    let clusters: Vec<Cluster> = all("Cluster", &documents)?;
    let namespaces: Vec<Namespace> = all("Namespace", &documents)?;
    let ranges: Vec<LimitRange> = all("LimitRange", &documents)?;
    let quotas: Vec<ResourceQuota> = all("ResourceQuota", &documents)?;
    let around = Surroundings {
        set: sets.first(),
        cluster: clusters.first(),
        namespace: namespaces.first().map(|namespace| &namespace.metadata),
        ranges: &ranges,
        quotas: &quotas,
    };
    inject(&typed, CREATORS[0], around, settings)?.apply(&mut pod);
    Ok(pod)
}

/// The documents of a list, or the document itself.
pub(crate) fn items(document: Value) -> Vec<Value> {
    match document {
        Value::Object(mut list) if list.get("kind").is_some_and(|kind| kind == "List") => match list.remove("items") {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        },
        other => vec![other],
    }
}

fn all<T: DeserializeOwned>(kind: &'static str, documents: &[Value]) -> Result<Vec<T>, CommandError> {
    documents.iter().filter(|document| document["kind"] == kind).map(|document| read(kind, document)).collect()
}

fn read<T: DeserializeOwned>(kind: &'static str, document: &Value) -> Result<T, CommandError> {
    serde_json::from_value(document.clone()).map_err(|error| CommandError::Unreadable(kind, error))
}
