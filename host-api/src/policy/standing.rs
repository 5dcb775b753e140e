//! A twin as it stands against what its tenant may have, without a word of the tenant's. Pure.

use std::net::IpAddr;

use k3k_expose_proto::service::{Service, ServiceType};
use k8s_openapi::api::core::v1::ServiceSpec;

use super::Refusal;
use super::grant::{Grant, annotation_may_cross};
use crate::translate::label_may_cross;
use crate::twin::Twin;

/// Keys of a twin that it may not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnfitKeys {
    /// Of labels.
    pub labels: Vec<String>,
    /// Of annotations.
    pub annotations: Vec<String>,
}

impl UnfitKeys {
    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty()
    }
}

/// Judges the spec of a twin.
///
/// # Errors
/// Why the twin may not stand.
pub fn judge(grant: &Grant, spec: &ServiceSpec) -> Result<(), Refusal> {
    super::service::judge(grant, &asked(spec))
}

/// The Service that would have asked for this, as far as policy looks at it.
fn asked(spec: &ServiceSpec) -> Service {
    let service_type = match spec.type_.as_deref() {
        Some("NodePort") => ServiceType::NodePort,
        Some("LoadBalancer") => ServiceType::LoadBalancer,
        // On its walk over ExternalName a twin exposes nothing.
        Some("ExternalName") => ServiceType::ExternalName,
        _ => ServiceType::ClusterIP,
    };
    let mut asked = Service::new(service_type);
    let external = spec.external_ips.iter().flatten();
    asked.external_ips = external.filter_map(|text| text.parse::<IpAddr>().ok()).collect();
    asked.load_balancer_ip = spec.load_balancer_ip.as_deref().and_then(|text| text.parse().ok());
    asked.load_balancer_class.clone_from(&spec.load_balancer_class);
    asked.load_balancer_source_ranges = spec.load_balancer_source_ranges.clone().unwrap_or_default();
    asked
}

/// The keys that we put on a twin for its tenant and that may not cross any more.
#[must_use]
pub fn unfit_keys<S>(grant: &Grant, twin: &Twin<S>) -> UnfitKeys {
    let annotation = |key: &&String| {
        let value = twin.annotations.get(*key)?;
        let fits = grant.annotation(key).is_some_and(|keys| keys.admits(value))
            || grant.default_annotations.get(*key) == Some(value);
        (annotation_may_cross(key) && !fits).then_some(())
    };
    let label = |key: &&String| {
        let value = twin.labels.get(*key)?;
        let fits = grant.admits_label(key, value) || grant.default_labels.get(*key) == Some(value);
        (label_may_cross(key) && !fits).then_some(())
    };
    UnfitKeys {
        labels: twin.own_labels.iter().filter(|key| label(key).is_some()).cloned().collect(),
        annotations: twin.own_annotations.iter().filter(|key| annotation(key).is_some()).cloned().collect(),
    }
}
