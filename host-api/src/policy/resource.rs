//! `ExposurePolicy`, as the platform team writes it. Pure.
//!
//! The CRD is made from these types (`manifests/base/exposure-policy.yaml`, held equal by a test). What CEL cannot see,
//! such as a pattern that is one for the API server and none for us, admits nothing: see [`super::grant`].

#![expect(unreachable_pub, reason = "of what the derive of the schema makes beside each type")]

mod ingresses;

use std::collections::BTreeMap;

use kube::{CustomResource, CustomResourceExt, KubeSchema};
use serde::{Deserialize, Serialize};

pub use ingresses::{DeniedIngresses, Ingresses};

/// What the platform team admits of the tenants that a policy selects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "expose.k3k.io",
    version = "v1alpha1",
    kind = "ExposurePolicy",
    plural = "exposurepolicies",
    shortname = "expol",
    status = "ExposurePolicyStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "What virtual clusters may expose on this host. Of the policies that select a virtual cluster the most specific one with spec.allow decides, and spec.deny of all of them.",
    printcolumn = r#"{"name":"Accepted","type":"string","jsonPath":".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name":"Clusters","type":"integer","jsonPath":".status.clusters"}"#,
    printcolumn = r#"{"name":"Governs","type":"integer","jsonPath":".status.governs"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.allow) || has(self.deny)", "a policy without allow and deny says nothing"))]
pub struct ExposurePolicySpec {
    /// Labels of the namespaces whose Clusters are meant; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<Selector>,
    /// Labels of the Clusters that are meant; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_selector: Option<Selector>,
    /// What is admitted, if no more specific policy says so. A field that is left out keeps its safe default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Allow>,
    /// What is not admitted, whatever any policy allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny: Option<Deny>,
}

/// A label selector. Every requirement has to be met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.matchLabels) && size(self.matchLabels) > 0 || has(self.matchExpressions) && size(self.matchExpressions) > 0",
    "an empty selector would select everybody: leave it out if that is meant"))]
pub struct Selector {
    /// Labels with their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub match_expressions: Vec<Requirement>,
}

/// One requirement of a selector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : !has(self.values) || size(self.values) == 0",
    "In and NotIn need values, Exists and DoesNotExist have none"))]
pub struct Requirement {
    /// Key of a label.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// In, NotIn, Exists or DoesNotExist.
    #[schemars(extend("enum" = ["In", "NotIn", "Exists", "DoesNotExist"]))]
    pub operator: String,
    /// Values for In and NotIn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// What is admitted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Allow {
    /// Types of Services: ClusterIP (headless ones too), NodePort, LoadBalancer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 3), inner(regex(pattern = "^(ClusterIP|NodePort|LoadBalancer)$")))]
    pub service_types: Option<Vec<String>>,
    /// Node ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_ports: Option<NodePorts>,
    /// Load balancers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancers: Option<LoadBalancers>,
    /// CIDRs of the external IPs that Services may have.
    #[serde(default, rename = "externalIPs", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(max = 49)))]
    #[x_kube(validation = ("self.all(cidr, isCIDR(cidr))", "externalIPs has an entry that is no CIDR"))]
    pub external_ips: Option<Vec<String>>,
    /// CIDRs of the addresses that EndpointSlices of Services without a selector may name, besides those of the virtual
    /// cluster's own pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(max = 49)))]
    #[x_kube(validation = ("self.all(cidr, isCIDR(cidr))", "endpoints has an entry that is no CIDR"))]
    pub endpoints: Option<Vec<String>>,
    /// Annotations of Services that cross.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub annotations: Option<Vec<KeyRule>>,
    /// Labels that cross; without it all but those under k3k.io, kubernetes.io and k8s.io, which never do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub labels: Option<Vec<KeyRule>>,
    /// What every twin of a Service gets besides, where the tenant says nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defaults: Option<Defaults>,
    /// What happens when a cluster IP is held on the host: Renumber or Report.
    #[serde(default, rename = "clusterIPConflict", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Renumber", "Report", null]))]
    pub cluster_ip_conflict: Option<String>,
    /// Ingresses; without it none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingresses: Option<Ingresses>,
    /// How much a virtual cluster may use up, within what host-api gives each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// How much a virtual cluster may use up. Nothing here gives more than host-api is set to give each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.objects) || has(self.writesPerSecond) || has(self.writesAtOnce)", "limits without a limit say nothing"))]
#[x_kube(validation = ("!has(self.writesPerSecond) || !has(self.writesAtOnce) || self.writesPerSecond <= self.writesAtOnce",
    "writesAtOnce must not be less than writesPerSecond"))]
pub struct Limits {
    /// Most Services, Ingresses and certificates of one virtual cluster on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 50000))]
    pub objects: Option<i32>,
    /// Writes on the host for one virtual cluster, in each second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub writes_per_second: Option<i32>,
    /// Writes at once, after a rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 50000))]
    pub writes_at_once: Option<i32>,
}

/// Node ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.from) == has(self.to) && (!has(self.from) || self.from <= self.to)", "from and to go together, from first"))]
pub struct NodePorts {
    /// First port of the band; without a band the host's whole range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub from: Option<i32>,
    /// Last port of the band.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub to: Option<i32>,
    /// Most node ports of one virtual cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub most: Option<i32>,
}

/// Load balancers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancers {
    /// Most load balancers of one virtual cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub most: Option<i32>,
    /// Classes that Services may name. Who names none gets the host's default in any case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 317)))]
    pub classes: Vec<String>,
    /// Whether each must say who may connect (loadBalancerSourceRanges).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub source_ranges_required: bool,
    /// CIDRs in which source ranges have to lie; without it any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 49)))]
    #[x_kube(validation = ("self.all(cidr, isCIDR(cidr))", "sourceRanges has an entry that is no CIDR"))]
    pub source_ranges: Vec<String>,
    /// CIDRs of the addresses that Services may ask for (loadBalancerIP).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 49)))]
    #[x_kube(validation = ("self.all(cidr, isCIDR(cidr))", "addresses has an entry that is no CIDR"))]
    pub addresses: Vec<String>,
}

/// Keys of labels or annotations, and the values that they may have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.key) != has(self.prefix)", "either key or prefix"))]
#[x_kube(validation = ("!has(self.value) || ''.matches(self.value) in [true, false]", "value is no regular expression"))]
pub struct KeyRule {
    /// The key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub key: Option<String>,
    /// How the key begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub prefix: Option<String>,
    /// A regular expression for the whole value; without it any value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub value: Option<String>,
}

/// What twins get besides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Defaults {
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub annotations: BTreeMap<String, String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub labels: BTreeMap<String, String>,
}

/// What is not admitted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deny {
    /// Types of Services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), inner(regex(pattern = "^(ClusterIP|NodePort|LoadBalancer)$")))]
    pub service_types: Vec<String>,
    /// Classes of load balancers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 317)))]
    pub load_balancer_classes: Vec<String>,
    /// CIDRs of addresses that no Service may ask for, neither as external IP nor for its load balancer, nor as endpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 49)))]
    #[x_kube(validation = ("self.all(cidr, isCIDR(cidr))", "addresses has an entry that is no CIDR"))]
    pub addresses: Vec<String>,
    /// Annotations of Services that do not cross.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub annotations: Vec<DeniedKey>,
    /// Labels that do not cross.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub labels: Vec<DeniedKey>,
    /// What Ingresses may not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingresses: Option<DeniedIngresses>,
}

/// Keys of labels or annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.key) != has(self.prefix)", "either key or prefix"))]
pub struct DeniedKey {
    /// The key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub key: Option<String>,
    /// How the key begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub prefix: Option<String>,
}

/// What host-api makes of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExposurePolicyStatus {
    /// The generation that this is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// Clusters that it selects.
    #[serde(default)]
    pub clusters: i32,
    /// Of these, the ones for which its spec.allow decides.
    #[serde(default)]
    pub governs: i32,
    /// Accepted: whether all of it can be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<PolicyCondition>,
}

/// A condition, spelled as Kubernetes spells them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyCondition {
    /// Accepted.
    #[serde(rename = "type")]
    pub kind: String,
    /// True or False.
    pub status: String,
    /// Why, as a word.
    pub reason: String,
    /// Why, in words.
    pub message: String,
    /// When it became so.
    pub last_transition_time: String,
    /// The generation that it is about.
    #[serde(default)]
    pub observed_generation: i64,
}

/// The CRD as a manifest.
///
/// # Errors
/// When it is no YAML, which no input can bring about.
pub fn definition() -> Result<String, serde_saphyr::ser_error::Error> {
    let text = serde_saphyr::to_string(&ExposurePolicy::crd())?;
    Ok(format!("# Made from the types in host-api/src/policy/resource.rs; a test says how to make it again.\n{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_is_made_from_these_types() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/base/exposure-policy.yaml");
        let shipped = std::fs::read_to_string(path).unwrap();
        assert!(
            shipped == definition().unwrap(),
            "run: cargo run -p k3k-expose-tests --bin crd > manifests/base/exposure-policy.yaml"
        );
    }
}
