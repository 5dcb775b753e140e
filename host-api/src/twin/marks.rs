//! By what a twin is known, and whose fields are ours. Pure.

use k3k_expose_proto::{Key, Resource, Uid};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::{CLUSTER_NAME, MANAGED_BY, MANAGER, VIRTUAL_CLUSTER, VIRTUAL_NAME, VIRTUAL_NAMESPACE, VIRTUAL_UID};
use crate::{cluster, name};

/// Field managers of k3k's own syncer, whose fields become ours with its twins.
const K3K_MANAGERS: &[&str] = &["k3k", "k3k-kubelet"];

/// Whose twin it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    /// UID of the owning Cluster.
    pub tenant: Uid,
    /// The virtual object.
    pub key: Key,
    /// We have made or adopted it; otherwise it is k3k's.
    pub ours: bool,
    /// UID of the virtual object, once we have written it.
    pub uid: Option<Uid>,
    /// UID of the virtual cluster, once we have written it.
    pub virtual_cluster: Option<Uid>,
}

impl Marks {
    /// Whether they are those of this object of this tenant.
    #[must_use]
    pub fn is_of(&self, tenant: &Uid, key: &Key) -> bool {
        self.tenant == *tenant && self.key == *key
    }
}

/// The Cluster, key and ownership that the metadata of an object of that kind shows, if it is a twin.
pub(crate) fn marks(meta: &ObjectMeta, resource: Resource) -> Option<Marks> {
    let annotations = meta.annotations.as_ref()?;
    let annotation = |key: &str| annotations.get(key).map(String::as_str);
    let key = Key::of(resource, annotation(VIRTUAL_NAMESPACE)?, annotation(VIRTUAL_NAME)?).ok()?;
    let owner = meta
        .owner_references
        .as_deref()
        .unwrap_or_default()
        .iter()
        .find(|owner| owner.kind == "Cluster" && owner.api_version.split('/').next() == Some(cluster::GROUP))?;
    let derived = name::twin(key.name(), key.namespace(), &owner.name);
    if meta.name.as_deref() != Some(derived.as_str()) {
        return None;
    }
    let label = |key: &str| meta.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
    let uid = annotation(VIRTUAL_UID).and_then(|uid| Uid::parse(uid).ok());
    // Either mark suffices, so that a twin that lost one to a hand edit is still ours to repair.
    let ours = label(MANAGED_BY) == Some(MANAGER) || uid.is_some();
    if !ours && label(CLUSTER_NAME) != Some(owner.name.as_str()) {
        return None;
    }
    Some(Marks {
        tenant: Uid::parse(&owner.uid).ok()?,
        key,
        ours,
        uid,
        virtual_cluster: annotation(VIRTUAL_CLUSTER).and_then(|uid| Uid::parse(uid).ok()),
    })
}

/// Whether k3k's syncer made it: its manager stays in `managedFields` after we have adopted the twin.
pub(super) fn made_by_k3k(meta: &ObjectMeta) -> bool {
    managers(meta).any(|(manager, _)| K3K_MANAGERS.contains(&manager))
}

/// Managers of the object itself (not of its status), each with its fields.
fn managers(meta: &ObjectMeta) -> impl Iterator<Item = (&str, &Value)> {
    let entries = meta.managed_fields.as_deref().unwrap_or_default().iter();
    entries
        .filter(|entry| entry.subresource.as_deref().unwrap_or_default().is_empty())
        .filter_map(|entry| Some((entry.manager.as_deref()?, &entry.fields_v1.as_ref()?.0)))
}

/// Keys of the labels or annotations that we, or k3k before us, have set.
pub(super) fn own_keys(meta: &ObjectMeta, field: &str) -> Vec<String> {
    let ours = managers(meta).filter(|(manager, _)| *manager == MANAGER || K3K_MANAGERS.contains(manager));
    let fields = ours.filter_map(|(_, fields)| fields.get("f:metadata")?.get(field)?.as_object());
    let mut keys: Vec<String> =
        fields.flat_map(|keys| keys.keys()).filter_map(|key| key.strip_prefix("f:")).map(str::to_owned).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}
