//! Which pods get the agent beside them, and how. Pure; [`crate::admission`] does the I/O.
//!
//! A pod that is not a server pod of a shared-mode Cluster beyond doubt stays as it is, byte by byte: the webhook is on
//! the way of other people's pods, and a wrong sidecar would be a credential in the wrong place.

pub mod command;
mod quantity;
mod room;
mod sidecar;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{LimitRange, Pod, ResourceQuota};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

pub use room::NoRoom;
pub use sidecar::{AUTHORITIES, CONTAINER, Settings};

use crate::cluster::Cluster;
use crate::tenant::{self, NotATenant};

/// Label or annotation that keeps the agent out of a namespace's, or a Cluster's, server pods.
pub const INJECT: &str = "expose.k3k.io/inject";
/// Its value.
pub const DISABLED: &str = "disabled";
/// Who creates the pods of a StatefulSet, as kube-controller-manager runs with and without an account for each controller.
pub const CREATORS: [&str; 2] =
    ["system:serviceaccount:kube-system:statefulset-controller", "system:kube-controller-manager"];

/// What is known of a pod's surroundings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings<'a> {
    /// The StatefulSet that the pod names as its controller.
    pub set: Option<&'a StatefulSet>,
    /// The Cluster that the StatefulSet names as its controller.
    pub cluster: Option<&'a Cluster>,
    /// The pod's namespace.
    pub namespace: Option<&'a ObjectMeta>,
    /// LimitRanges of that namespace.
    pub ranges: &'a [LimitRange],
    /// ResourceQuotas of that namespace.
    pub quotas: &'a [ResourceQuota],
}

/// Why a pod stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Left {
    /// The agent is there already.
    #[error("the agent is there already")]
    Present,
    /// It is not said which image to inject.
    #[error("no image of the agent is configured")]
    NotConfigured,
    /// Its creator is not the StatefulSet controller.
    #[error("it was not created by the StatefulSet controller")]
    Creator,
    /// It is nobody's server pod, or one of a mode without exposure.
    #[error(transparent)]
    NotATenant(#[from] NotATenant),
    /// The namespace or the Cluster opted out.
    #[error("{INJECT}={DISABLED} is set on the {0}")]
    OptedOut(&'static str),
    /// The sidecar would make the API server refuse the pod.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
}

impl Left {
    /// The reason as a word of a closed list.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Present => "Present",
            Self::NotConfigured => "NotConfigured",
            Self::Creator => "Creator",
            Self::NotATenant(NotATenant::UnsupportedMode(_)) => "UnsupportedMode",
            Self::NotATenant(_) => "NotAServerPod",
            Self::OptedOut(_) => "OptedOut",
            Self::NoRoom(_) => "NoRoom",
        }
    }
}

/// What is added to a pod. Nothing else of it changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Addition {
    container: Value,
    volumes: [Value; 2],
}

/// What puts the agent into a pod that `creator` creates.
///
/// # Errors
/// Why the pod stays as it is.
pub fn inject(pod: &Pod, creator: &str, around: Surroundings<'_>, settings: &Settings) -> Result<Addition, Left> {
    if !CREATORS.contains(&creator) {
        return Err(Left::Creator);
    }
    let tenant = tenant::tenant_of(pod, around.set, around.cluster)?;
    if is_present(pod) {
        return Err(Left::Present);
    }
    if around.namespace.is_some_and(opts_out) {
        return Err(Left::OptedOut("namespace"));
    }
    if around.cluster.is_some_and(|cluster| opts_out(&cluster.metadata)) {
        return Err(Left::OptedOut("Cluster"));
    }
    let resources = room::room(&pod.spec.clone().unwrap_or_default(), around.ranges, around.quotas)?;
    Ok(Addition { container: sidecar::container(settings, &resources), volumes: sidecar::volumes(tenant.cluster()) })
}

impl Addition {
    /// As a JSON patch (RFC 6902) of that pod.
    #[must_use]
    pub fn patch(&self, pod: &Pod) -> Value {
        let spec = pod.spec.as_ref();
        let mut patch = Vec::new();
        let mut append = |list: &str, exists: bool, values: &[Value]| {
            if exists {
                let one = |value: &Value| json!({"op": "add", "path": format!("{list}/-"), "value": value});
                patch.extend(values.iter().map(one));
            } else {
                patch.push(json!({"op": "add", "path": list, "value": values}));
            }
        };
        let has_init = spec.is_some_and(|spec| spec.init_containers.is_some());
        append("/spec/initContainers", has_init, std::slice::from_ref(&self.container));
        append("/spec/volumes", spec.is_some_and(|spec| spec.volumes.is_some()), &self.volumes);
        Value::Array(patch)
    }

    /// Applied to the pod as JSON.
    pub fn apply(&self, pod: &mut Value) {
        let mut append = |list: &str, values: &[Value]| match &mut pod["spec"][list] {
            Value::Array(there) => there.extend_from_slice(values),
            none => *none = values.into(),
        };
        append("initContainers", std::slice::from_ref(&self.container));
        append("volumes", &self.volumes);
    }
}

/// Whether a pod has the agent.
#[must_use]
pub fn is_present(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    init.iter().any(|container| container.name == CONTAINER)
}

/// Whether an object says that no agent is wanted.
#[must_use]
pub fn opts_out(meta: &ObjectMeta) -> bool {
    [&meta.labels, &meta.annotations]
        .into_iter()
        .flatten()
        .any(|map| map.get(INJECT).is_some_and(|value| value == DISABLED))
}

#[cfg(test)]
mod tests;
