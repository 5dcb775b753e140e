//! From the slices that should stand beside a twin and those that do to the next write. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::slice::{HostSlice, endpoint, reduce};
use super::store::HostSlices;
use crate::services::HostName;

/// The next write.
#[derive(Clone, Debug, PartialEq)]
pub enum SlicePlan {
    /// None: all is as it should be.
    Nothing,
    /// Create this one.
    Create(HostName, Box<EndpointSlice>),
    /// Apply this merge patch.
    Patch(HostName, Value),
    /// Delete it, if it still has this UID and resourceVersion.
    Delete(HostName, String, String),
    /// Wait until it is gone.
    Wait(HostName),
    /// Somebody else's has its name.
    NameTaken(HostName),
}

/// Plans the next step for the slices of the Service at `at`. What is taken away goes first.
#[must_use]
pub fn plan(at: &HostName, wanted: &[EndpointSlice], standing: &HostSlices) -> SlicePlan {
    let wanted: BTreeMap<HostName, &EndpointSlice> =
        wanted.iter().map(|slice| (HostName::of(&slice.metadata), slice)).collect();
    let ours = || standing.of(at).filter(|(_, slice)| slice.ours && !slice.terminating);
    if let Some((name, slice)) = ours().find(|(name, _)| !wanted.contains_key(*name)) {
        return delete(name, slice);
    }
    for (name, want) in wanted {
        match standing.get(&name) {
            None => return SlicePlan::Create(name, Box::new(want.clone())),
            Some(slice) if slice.terminating => return SlicePlan::Wait(name),
            Some(slice) if !slice.ours => return SlicePlan::NameTaken(name),
            Some(slice) if slice.is_as(want) => {}
            // The family of a slice cannot change; one of ours has another only if somebody made it.
            Some(slice) if !slice.is_of_family(want) => return delete(&name, slice),
            Some(slice) => return SlicePlan::Patch(name.clone(), patch(slice, want)),
        }
    }
    SlicePlan::Nothing
}

/// Leaves a slice these addresses only.
#[must_use]
pub fn keep_only(at: &HostName, slice: &HostSlice, addresses: &[IpAddr]) -> SlicePlan {
    if addresses.is_empty() {
        return delete(at, slice);
    }
    let endpoints: Vec<_> = addresses.iter().copied().map(endpoint).collect();
    let metadata = json!({"uid": slice.uid, "resourceVersion": slice.resource_version});
    SlicePlan::Patch(at.clone(), json!({"metadata": metadata, "endpoints": endpoints}))
}

fn delete(at: &HostName, slice: &HostSlice) -> SlicePlan {
    SlicePlan::Delete(at.clone(), slice.uid.clone(), slice.resource_version.clone())
}

fn patch(slice: &HostSlice, want: &EndpointSlice) -> Value {
    let mut patch = json!({"metadata": {
        "uid": slice.uid,
        "resourceVersion": slice.resource_version,
        "labels": want.metadata.labels,
        "annotations": want.metadata.annotations,
        "ownerReferences": want.metadata.owner_references,
    }});
    if !slice.same_content(&reduce(want.clone())) {
        patch["endpoints"] = json!(want.endpoints);
        patch["ports"] = json!(want.ports);
    }
    patch
}

#[cfg(test)]
mod tests;
