//! k3k's `Cluster` (`k3k.io/v1beta1`), reduced to the fields that decide about a tenant. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k3k_expose_proto::{Resource as Kind, Uid};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::NamespaceResourceScope;
use serde::{Deserialize, Serialize};

/// API group of k3k.
pub const GROUP: &str = "k3k.io";
/// Annotation by which the platform team lets a mass deletion through; its value is the virtual cluster's UID.
pub const ALLOW_MASS_DELETE: &str = "expose.k3k.io/allow-mass-delete";

/// A k3k Cluster as the API server gives it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Cluster {
    /// Name, namespace, UID and annotations.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What was asked of k3k.
    #[serde(default)]
    pub spec: ClusterSpec,
}

/// The fields of `spec` that host-api reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// How the virtual cluster's pods run.
    #[serde(default)]
    pub mode: Mode,
    /// What k3k itself synchronizes.
    #[serde(default)]
    pub sync: Sync,
}

/// `spec.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Tenant pods run as pods of the host: the one mode in which a twin can reach them.
    #[default]
    Shared,
    /// Tenant pods run inside the server pods.
    Virtual,
    /// Only the control plane runs on the host.
    Hcp,
    /// A mode that k3k grew later.
    #[serde(other)]
    Unknown,
}

/// `spec.sync`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sync {
    /// `spec.sync.services`.
    #[serde(default)]
    pub services: SyncServices,
    /// `spec.sync.ingresses`.
    #[serde(default)]
    pub ingresses: SyncIngresses,
}

/// `spec.sync.services`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncServices {
    /// Whether k3k's own syncer writes twins. k3k's default is on.
    #[serde(default = "on")]
    pub enabled: bool,
    /// Labels that a Service must have, to be exposed.
    #[serde(default)]
    pub selector: BTreeMap<String, String>,
}

/// `spec.sync.ingresses`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncIngresses {
    /// Whether k3k's own syncer writes twins. k3k's default is off.
    #[serde(default)]
    pub enabled: bool,
    /// Labels that an Ingress must have, to be exposed.
    #[serde(default)]
    pub selector: BTreeMap<String, String>,
}

/// What a tenant's Cluster says now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterState {
    /// How new this is: the Cluster's `resourceVersion`, which API servers compare as a number.
    pub revision: u64,
    /// k3k's own Service sync is on.
    pub k3k_syncs: bool,
    /// The virtual cluster for which a mass deletion is let through.
    pub mass_delete: Option<Uid>,
    /// Labels that a Service must have, to be exposed.
    pub selector: BTreeMap<String, String>,
    /// The same two of Ingresses.
    pub ingresses: SyncIngresses,
    /// The Cluster's namespace.
    pub namespace: String,
    /// The Cluster's name.
    pub name: String,
    /// The Cluster's own labels, by which policies select.
    pub labels: BTreeMap<String, String>,
}

impl ClusterState {
    /// Whether k3k's own syncer writes twins of this kind.
    #[must_use]
    pub const fn k3k_writes(&self, kind: Kind) -> bool {
        match kind {
            Kind::Services => self.k3k_syncs,
            // Our twins of Secrets have other names than k3k's.
            Kind::Secrets => false,
            Kind::Ingresses => self.ingresses.enabled,
        }
    }

    /// Whether the platform team exposes objects of this kind with these labels.
    #[must_use]
    pub fn selects(&self, kind: Kind, labels: &BTreeMap<String, String>) -> bool {
        let selector = match kind {
            Kind::Services => &self.selector,
            Kind::Secrets => return true,
            Kind::Ingresses => &self.ingresses.selector,
        };
        selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    /// Whether both lead to the same decisions, those of policies apart.
    #[must_use]
    pub fn says_same_as(&self, other: &Self) -> bool {
        *self == Self { revision: self.revision, labels: self.labels.clone(), ..other.clone() }
    }
}

impl From<&Cluster> for ClusterState {
    fn from(cluster: &Cluster) -> Self {
        let allowed = cluster.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ALLOW_MASS_DELETE));
        let revision = cluster.metadata.resource_version.as_deref();
        Self {
            revision: revision.and_then(|revision| revision.parse().ok()).unwrap_or_default(),
            k3k_syncs: cluster.spec.sync.services.enabled,
            mass_delete: allowed.and_then(|uid| Uid::parse(uid).ok()),
            selector: cluster.spec.sync.services.selector.clone(),
            ingresses: cluster.spec.sync.ingresses.clone(),
            namespace: cluster.metadata.namespace.clone().unwrap_or_default(),
            name: cluster.metadata.name.clone().unwrap_or_default(),
            labels: cluster.metadata.labels.clone().unwrap_or_default(),
        }
    }
}

impl Default for SyncServices {
    fn default() -> Self {
        Self { enabled: on(), selector: BTreeMap::new() }
    }
}

const fn on() -> bool {
    true
}

impl Resource for Cluster {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Cluster".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1beta1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "clusters".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_spec_has_the_defaults_of_k3k() {
        let cluster: Cluster = serde_json::from_str(r#"{"metadata":{"name":"c"},"spec":{}}"#).unwrap();
        assert_eq!(cluster.spec.mode, Mode::Shared);
        assert!(ClusterState::from(&cluster).k3k_syncs);
        assert!(!ClusterState::from(&cluster).k3k_writes(Kind::Ingresses));
        let cluster: Cluster =
            serde_json::from_str(r#"{"spec":{"mode":"hcp","sync":{"services":{"enabled":false}}}}"#).unwrap();
        assert_eq!(cluster.spec.mode, Mode::Hcp);
        assert!(!ClusterState::from(&cluster).k3k_syncs);
    }

    #[test]
    fn a_selector_asks_for_every_one_of_its_labels() {
        let cluster: Cluster =
            serde_json::from_str(r#"{"spec":{"sync":{"services":{"selector":{"a":"1","b":"2"}}}}}"#).unwrap();
        let state = ClusterState::from(&cluster);
        let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        assert!(state.selects(Kind::Services, &labels(&[("a", "1"), ("b", "2"), ("c", "3")])));
        assert!(
            !state.selects(Kind::Services, &labels(&[("a", "1"), ("b", "3")]))
                && !state.selects(Kind::Services, &labels(&[]))
        );
        let other = ClusterState { selector: BTreeMap::new(), ..state.clone() };
        assert!(other.selects(Kind::Services, &labels(&[])) && !other.says_same_as(&state));
    }

    #[test]
    fn a_mode_that_is_not_known_is_not_shared() {
        let cluster: Cluster = serde_json::from_str(r#"{"spec":{"mode":"shared-ish"}}"#).unwrap();
        assert_eq!(cluster.spec.mode, Mode::Unknown);
    }
}
