//! Who is speaking: from a pod, its StatefulSet and its Cluster to a [`Tenant`]. Pure.
//!
//! A `Tenant` is made here only. Pod labels are never believed, since tenant pods keep their own labels on the host; what
//! counts are controller references, compared by UID.

use std::collections::BTreeMap;

use k3k_expose_proto::Uid;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::cluster::{self, Cluster, Mode};
use crate::name;

/// A server pod that speaks for a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerPod {
    /// Its UID.
    pub uid: Uid,
    /// Its number within its StatefulSet.
    pub ordinal: u32,
}

/// One virtual cluster, as proven by the pod that speaks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    id: Uid,
    namespace: String,
    cluster: String,
}

impl Tenant {
    /// UID of the Cluster: the tenant's identity.
    #[must_use]
    pub const fn id(&self) -> &Uid {
        &self.id
    }

    /// The Cluster's namespace, where its twins go.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The Cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// A tenant as the host's Cluster has it, that nobody has proven to be: it has no session.
    #[must_use]
    pub fn of_cluster(id: Uid, namespace: &str, cluster: &str) -> Self {
        Self { id, namespace: namespace.to_owned(), cluster: cluster.to_owned() }
    }

    #[cfg(test)]
    pub(crate) fn for_test(id: &str, namespace: &str, cluster: &str) -> Self {
        Self { id: Uid::parse(id).unwrap(), namespace: namespace.to_owned(), cluster: cluster.to_owned() }
    }
}

/// Why a caller is nobody's server pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotATenant {
    /// The pod of the token does not live any more.
    #[error("the pod of this token is gone")]
    PodGone,
    /// A link between pod and Cluster is missing or wrong.
    #[error("this pod is not a server pod of a k3k Cluster: {0}")]
    NotAServerPod(&'static str),
    /// Exposure needs tenant pods that run on the host.
    #[error("exposure is not available for a Cluster in {0} mode: only shared mode runs tenant pods on the host")]
    UnsupportedMode(&'static str),
}

/// Checks that the pod is the one that the token was bound to, and that it lives.
///
/// # Errors
/// [`NotATenant::PodGone`].
pub fn living<'a>(pod: Option<&'a Pod>, uid: &str) -> Result<&'a Pod, NotATenant> {
    let pod = pod.filter(|pod| pod.metadata.uid.as_deref() == Some(uid)).ok_or(NotATenant::PodGone)?;
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let done = matches!(phase, Some("Succeeded" | "Failed")) || pod.metadata.deletion_timestamp.is_some();
    if done { Err(NotATenant::PodGone) } else { Ok(pod) }
}

/// The StatefulSet that controls a pod.
///
/// # Errors
/// [`NotATenant::NotAServerPod`] when something else does, or nothing.
pub fn stateful_set_of(pod: &Pod) -> Result<&OwnerReference, NotATenant> {
    controller(&pod.metadata, "apps", "StatefulSet").ok_or(NotATenant::NotAServerPod("no StatefulSet controls it"))
}

/// The Cluster that controls a StatefulSet of this pod, once pod and StatefulSet are shown to belong together.
///
/// # Errors
/// [`NotATenant::NotAServerPod`] with the link that is broken.
pub fn cluster_of<'a>(pod: &Pod, set: Option<&'a StatefulSet>) -> Result<&'a OwnerReference, NotATenant> {
    let claimed = stateful_set_of(pod)?;
    let set = set
        .filter(|set| set.metadata.uid.as_deref() == Some(claimed.uid.as_str()))
        .ok_or(NotATenant::NotAServerPod("its StatefulSet does not exist"))?;
    if ordinal(pod, set).is_none() || is_beyond(pod, set) {
        return Err(NotATenant::NotAServerPod("its name is no ordinal of its StatefulSet"));
    }
    controller(&set.metadata, cluster::GROUP, "Cluster")
        .ok_or(NotATenant::NotAServerPod("no Cluster controls its StatefulSet"))
}

/// Whether a pod's number is beyond those that its StatefulSet asks for. The trap: what is known of a StatefulSet that was scaled up
/// a moment ago says so of a pod that is none too many.
#[must_use]
pub fn is_beyond(pod: &Pod, set: &StatefulSet) -> bool {
    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    ordinal(pod, set).is_some_and(|ordinal| ordinal >= u32::try_from(replicas).unwrap_or_default())
}

/// The number of a pod within a StatefulSet, if its name has one.
#[must_use]
pub fn ordinal(pod: &Pod, set: &StatefulSet) -> Option<u32> {
    let name = pod.metadata.name.as_deref()?;
    let digits = name.strip_prefix(set.metadata.name.as_deref()?)?.strip_prefix('-')?;
    let ordinal: u32 = digits.parse().ok()?;
    (ordinal.to_string() == digits).then_some(ordinal)
}

/// The tenant, once every link has been looked up.
///
/// # Errors
/// [`NotATenant::NotAServerPod`] with the link that is broken, [`NotATenant::UnsupportedMode`] for every mode but shared.
pub fn tenant_of(pod: &Pod, set: Option<&StatefulSet>, cluster: Option<&Cluster>) -> Result<Tenant, NotATenant> {
    let claimed = cluster_of(pod, set)?;
    let cluster = cluster
        .filter(|cluster| cluster.metadata.uid.as_deref() == Some(claimed.uid.as_str()))
        .filter(|cluster| cluster.metadata.deletion_timestamp.is_none())
        .ok_or(NotATenant::NotAServerPod("its Cluster does not exist"))?;
    let set = set.ok_or(NotATenant::NotAServerPod("its StatefulSet does not exist"))?;
    let name = cluster.metadata.name.clone().unwrap_or_default();
    if set.metadata.name.as_deref() != Some(name::server(&name).as_str()) {
        return Err(NotATenant::NotAServerPod("its StatefulSet is not the Cluster's server set"));
    }
    let servers = BTreeMap::from([("cluster".to_owned(), name.clone()), ("role".to_owned(), "server".to_owned())]);
    if set.spec.as_ref().and_then(|spec| spec.selector.match_labels.as_ref()) != Some(&servers) {
        return Err(NotATenant::NotAServerPod("its StatefulSet selects other pods than the Cluster's servers"));
    }
    supported(cluster.spec.mode)?;
    let id = Uid::parse(&claimed.uid).map_err(|_| NotATenant::NotAServerPod("its Cluster has no usable uid"))?;
    let namespace = cluster.metadata.namespace.clone().unwrap_or_default();
    if pod.metadata.namespace.as_deref() != Some(namespace.as_str()) {
        return Err(NotATenant::NotAServerPod("it is in another namespace than its Cluster"));
    }
    Ok(Tenant { id, namespace, cluster: name })
}

/// Whether a Cluster's tenant pods run on the host.
///
/// # Errors
/// [`NotATenant::UnsupportedMode`] for every mode but shared.
pub const fn supported(mode: Mode) -> Result<(), NotATenant> {
    match mode {
        Mode::Shared => Ok(()),
        Mode::Virtual => Err(NotATenant::UnsupportedMode("virtual")),
        Mode::Hcp => Err(NotATenant::UnsupportedMode("hcp")),
        Mode::Unknown => Err(NotATenant::UnsupportedMode("an unknown")),
    }
}

/// The Cluster that controls an object directly, as it controls its tenants' pods.
#[must_use]
pub fn cluster_that_controls(meta: &ObjectMeta) -> Option<&OwnerReference> {
    controller(meta, cluster::GROUP, "Cluster")
}

/// The controlling owner, when it is of that kind.
fn controller<'a>(meta: &'a ObjectMeta, group: &str, kind: &str) -> Option<&'a OwnerReference> {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    owners
        .iter()
        .find(|owner| owner.controller == Some(true))
        .filter(|owner| owner.kind == kind && owner.api_version.split('/').next() == Some(group))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn chain() -> (Value, Value, Value) {
        let pod = json!({
            "metadata": {"name": "k3k-mine-server-0", "namespace": "ns", "uid": "pod-uid", "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "k3k-mine-server", "uid": "set-uid", "controller": true}]},
            "status": {"phase": "Running"}
        });
        let set = json!({
            "metadata": {"name": "k3k-mine-server", "namespace": "ns", "uid": "set-uid", "ownerReferences": [
                {"apiVersion": "k3k.io/v1beta1", "kind": "Cluster", "name": "mine", "uid": "cluster-uid", "controller": true}]},
            "spec": {"replicas": 1, "serviceName": "s", "template": {}, "selector": {"matchLabels": {"cluster": "mine", "role": "server"}}}
        });
        let cluster =
            json!({"metadata": {"name": "mine", "namespace": "ns", "uid": "cluster-uid"}, "spec": {"mode": "shared"}});
        (pod, set, cluster)
    }

    fn judge((pod, set, cluster): (Value, Value, Value)) -> Result<Tenant, NotATenant> {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let set: StatefulSet = serde_json::from_value(set).unwrap();
        let cluster: Cluster = serde_json::from_value(cluster).unwrap();
        tenant_of(living(Some(&pod), "pod-uid")?, Some(&set), Some(&cluster))
    }

    #[test]
    fn a_whole_chain_is_a_tenant() {
        assert_eq!(judge(chain()).unwrap(), Tenant::for_test("cluster-uid", "ns", "mine"));
    }

    #[test]
    fn every_broken_link_is_refused() {
        let broken: &[(&str, &str, Value)] = &[
            ("pod", "/metadata/uid", json!("other")),
            ("pod", "/status/phase", json!("Succeeded")),
            ("pod", "/status/phase", json!("Failed")),
            ("pod", "/metadata/namespace", json!("other")),
            ("pod", "/metadata/name", json!("k3k-mine-server-1")),
            ("pod", "/metadata/name", json!("k3k-mine-server-00")),
            ("pod", "/metadata/name", json!("k3k-mine-server--0")),
            ("pod", "/metadata/name", json!("k3k-mine-server-+0")),
            ("pod", "/metadata/name", json!("k3k-mine-server")),
            ("pod", "/metadata/name", json!("other-0")),
            ("pod", "/metadata/ownerReferences", json!([])),
            ("pod", "/metadata/ownerReferences/0/controller", json!(false)),
            ("pod", "/metadata/ownerReferences/0/kind", json!("ReplicaSet")),
            ("pod", "/metadata/ownerReferences/0/apiVersion", json!("evil.io/v1")),
            ("pod", "/metadata/ownerReferences/0/uid", json!("other")),
            ("set", "/metadata/name", json!("k3k-other-server")),
            ("set", "/metadata/ownerReferences", json!([])),
            ("set", "/metadata/ownerReferences/0/controller", json!(false)),
            ("set", "/metadata/ownerReferences/0/apiVersion", json!("evil.io/v1")),
            ("set", "/metadata/ownerReferences/0/uid", json!("other")),
            ("set", "/spec/replicas", json!(0)),
            ("set", "/spec/selector/matchLabels", json!({"cluster": "other", "role": "server"})),
            ("set", "/spec/selector/matchLabels", json!({"cluster": "mine"})),
            ("cluster", "/metadata/uid", json!("other")),
            ("cluster", "/metadata/name", json!("other")),
            ("cluster", "/spec/mode", json!("virtual")),
            ("cluster", "/spec/mode", json!("hcp")),
            ("cluster", "/spec/mode", json!("new")),
        ];
        for (object, path, value) in broken {
            let (mut pod, mut set, mut cluster) = chain();
            let target = match *object {
                "pod" => &mut pod,
                "set" => &mut set,
                _ => &mut cluster,
            };
            *target.pointer_mut(path).unwrap() = value.clone();
            assert!(judge((pod, set, cluster)).is_err(), "{object} {path} = {value}");
        }
    }

    #[test]
    fn a_pod_or_cluster_on_its_way_out_is_gone() {
        for target in 0..2 {
            let (mut pod, set, mut cluster) = chain();
            let object = if target == 0 { &mut pod } else { &mut cluster };
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            assert!(judge((pod, set, cluster)).is_err());
        }
    }
}
