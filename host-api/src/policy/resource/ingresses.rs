//! What an `ExposurePolicy` says of Ingresses. Pure.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{DeniedKey, KeyRule};

/// Names of classes, and domains.
const DOMAIN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// Ingresses. What is not named is not admitted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ingresses {
    /// Classes that Ingresses may name. Each has to name one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        inner(
            length(min = 1, max = 253),
            regex(pattern = DOMAIN)
        )
    )]
    pub classes: Vec<String>,
    /// Domains, without a dot or a star in front: each admits itself and every name below it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(
            length(min = 1, max = 253),
            regex(pattern = DOMAIN)
        )
    )]
    pub host_suffixes: Vec<String>,
    /// Annotations of Ingresses that cross. Any other that may steer a controller refuses the Ingress.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub annotations: Vec<KeyRule>,
    /// Secrets of the host's namespace that Ingresses may name as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub tls_secrets: Vec<String>,
    /// Whether certificates of the virtual cluster's own may cross, where its agent speaks for them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_secrets: bool,
    /// Whether requests that no other Ingress of the host wants may go to the virtual cluster.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub default_backend: bool,
}

/// What no Ingress may have, whatever any policy allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.classes) || has(self.hostSuffixes) || has(self.annotations)",
    "ingresses without classes, hostSuffixes and annotations denies nothing"))]
pub struct DeniedIngresses {
    /// Classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253), regex(pattern = DOMAIN)))]
    pub classes: Vec<String>,
    /// Domains, without a dot or a star in front: each denies itself and every name below it, and all of them default backends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253), regex(pattern = DOMAIN)))]
    pub host_suffixes: Vec<String>,
    /// Annotations. One that may steer a controller refuses the Ingress.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub annotations: Vec<DeniedKey>,
}
