//! What is known of the host around server pods, fed by watches and reduced to what decisions read. I/O.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{LimitRange, Namespace, PodTemplateSpec, ResourceQuota};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::cluster::Cluster;

/// Labels and annotations of a namespace.
pub type NamespaceMeta = PartialObjectMeta<Namespace>;

/// The readers' side.
#[derive(Clone)]
pub struct Stores {
    sets: Store<StatefulSet>,
    clusters: Store<Cluster>,
    namespaces: Store<NamespaceMeta>,
    ranges: Store<LimitRange>,
    quotas: Store<ResourceQuota>,
}

/// The watches' side.
#[derive(Default)]
pub struct Writers {
    /// StatefulSets, without their templates.
    pub sets: Writer<StatefulSet>,
    /// Clusters.
    pub clusters: Writer<Cluster>,
    /// Labels and annotations of namespaces.
    pub namespaces: Writer<NamespaceMeta>,
    /// LimitRanges.
    pub ranges: Writer<LimitRange>,
    /// ResourceQuotas.
    pub quotas: Writer<ResourceQuota>,
}

impl Writers {
    /// What is read from them.
    #[must_use]
    pub fn stores(&self) -> Stores {
        Stores {
            sets: self.sets.as_reader(),
            clusters: self.clusters.as_reader(),
            namespaces: self.namespaces.as_reader(),
            ranges: self.ranges.as_reader(),
            quotas: self.quotas.as_reader(),
        }
    }
}

impl Stores {
    /// A StatefulSet, without its template.
    #[must_use]
    pub fn set(&self, namespace: &str, name: &str) -> Option<StatefulSet> {
        self.sets.get(&ObjectRef::new(name).within(namespace)).map(|set| (*set).clone())
    }

    /// A Cluster.
    #[must_use]
    pub fn cluster(&self, namespace: &str, name: &str) -> Option<Cluster> {
        self.clusters.get(&ObjectRef::new(name).within(namespace)).map(|cluster| (*cluster).clone())
    }

    /// Every Cluster.
    #[must_use]
    pub fn clusters(&self) -> Vec<Arc<Cluster>> {
        self.clusters.state()
    }

    /// Labels and annotations of a namespace.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<ObjectMeta> {
        self.namespaces.get(&ObjectRef::new(name)).map(|namespace| namespace.metadata.clone())
    }

    /// The LimitRanges of a namespace.
    #[must_use]
    pub fn ranges(&self, namespace: &str) -> Vec<LimitRange> {
        let all = self.ranges.state();
        all.iter().filter(|it| it.metadata.namespace.as_deref() == Some(namespace)).map(|it| (**it).clone()).collect()
    }

    /// The ResourceQuotas of a namespace.
    #[must_use]
    pub fn quotas(&self, namespace: &str) -> Vec<ResourceQuota> {
        let all = self.quotas.state();
        all.iter().filter(|it| it.metadata.namespace.as_deref() == Some(namespace)).map(|it| (**it).clone()).collect()
    }
}

impl Stores {
    /// Waits until every watch has listed.
    pub async fn ready(&self) {
        // A writer that is dropped ends the process anyway.
        let _ = self.sets.wait_until_ready().await;
        let _ = self.clusters.wait_until_ready().await;
        let _ = self.namespaces.wait_until_ready().await;
    }
}

/// A StatefulSet without what no decision reads.
pub fn reduce(set: &mut StatefulSet) {
    set.metadata.managed_fields = None;
    set.metadata.annotations = None;
    set.status = None;
    if let Some(spec) = &mut set.spec {
        spec.template = PodTemplateSpec::default();
        spec.volume_claim_templates = None;
    }
}
