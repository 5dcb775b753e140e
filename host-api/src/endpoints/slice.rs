//! From the endpoints that may cross to the slices beside the twin, and from a slice of the host to what of it matters. Pure.
//!
//! A slice is known by its name, which follows from the twin's and from what cannot change in it or serves to find it: family
//! and ports. Its owner is the twin alone; a second owner would keep it when the twin goes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k3k_expose_proto::endpoints::Endpoints;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use sha2::{Digest, Sha256};

use crate::name::{hex, is_hex};
use crate::services::HostName;
use crate::translate::{Desired, family_word, protocol_word};
use crate::twin::MANAGER;

/// Label by which a slice belongs to a Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label by which other makers of slices leave it alone.
pub const SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Dash and digits behind the twin's name.
const SUFFIX: usize = 9;

/// A slice of the host, reduced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSlice {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// It has a deletionTimestamp.
    pub terminating: bool,
    /// It is one of ours.
    pub ours: bool,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    owners: Vec<(String, String)>,
    family: String,
    ports: Vec<(String, String, i32, Option<String>)>,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// It has addresses and nothing else, each one ready.
    plain: bool,
}

impl HostSlice {
    /// Whether it is a slice as it should be. What others add of labels and annotations is their business.
    #[must_use]
    pub fn is_as(&self, wanted: &EndpointSlice) -> bool {
        let wanted = reduce(wanted.clone());
        let has = |own: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>| {
            wanted.iter().all(|(key, value)| own.get(key) == Some(value))
        };
        self.same_content(&wanted)
            && self.owners == wanted.owners
            && has(&self.labels, &wanted.labels)
            && has(&self.annotations, &wanted.annotations)
    }

    /// Whether its addresses are of the family that a slice has to have.
    #[must_use]
    pub fn is_of_family(&self, wanted: &EndpointSlice) -> bool {
        self.family == wanted.address_type
    }

    /// Whether it leads to the same places.
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        (&self.family, &self.ports, &self.addresses, self.plain)
            == (&other.family, &other.ports, &other.addresses, other.plain)
    }

    /// Whether nothing of it has changed but its revision.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        *self == Self { resource_version: self.resource_version.clone(), ..other.clone() }
    }
}

/// The Service that a slice of that name would belong to.
#[must_use]
pub fn service_of(at: &HostName) -> Option<HostName> {
    let (name, suffix) = at.name.split_at_checked(at.name.len().checked_sub(SUFFIX)?)?;
    let digits = suffix.strip_prefix('-')?;
    is_hex(digits).then(|| HostName { namespace: at.namespace.clone(), name: name.to_owned() })
}

/// The slice that should stand beside a twin of that UID. `frame` has the marks that the twin has, too.
#[must_use]
pub fn desired(frame: &Desired<()>, at: &HostName, twin: &str, endpoints: &Endpoints) -> EndpointSlice {
    let mut labels = frame.labels.clone();
    labels.insert(SERVICE_NAME.to_owned(), at.name.clone());
    labels.insert(SLICE_MANAGED_BY.to_owned(), MANAGER.to_owned());
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Service".to_owned(),
        name: at.name.clone(),
        uid: twin.to_owned(),
        ..OwnerReference::default()
    };
    let ports = endpoints.ports.iter().map(|port| EndpointPort {
        name: Some(port.name.clone()),
        protocol: Some(protocol_word(port.protocol).to_owned()),
        port: Some(i32::from(port.port.get())),
        app_protocol: port.app_protocol.clone(),
    });
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", at.name, digits(endpoints))),
            namespace: Some(at.namespace.clone()),
            labels: Some(labels),
            annotations: Some(frame.annotations.clone()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        address_type: family_word(endpoints.family).to_owned(),
        endpoints: endpoints.addresses.iter().copied().map(endpoint).collect(),
        ports: Some(ports.collect()),
    }
}

/// An endpoint as it stands in a slice of ours.
#[must_use]
pub fn endpoint(ip: IpAddr) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
        ..Endpoint::default()
    }
}

/// Reduces a slice of the host.
#[must_use]
pub fn reduce(slice: EndpointSlice) -> HostSlice {
    let EndpointSlice { metadata: meta, address_type, endpoints, ports } = slice;
    let labels = meta.labels.unwrap_or_default();
    let plain = endpoints.iter().all(|endpoint| {
        let ip = endpoint.addresses.first().and_then(|address| address.parse().ok());
        endpoint.addresses.len() == 1 && ip.is_some_and(|ip| *endpoint == self::endpoint(ip))
    });
    let mut ports: Vec<_> = ports
        .into_iter()
        .flatten()
        .map(|port| {
            let protocol = port.protocol.unwrap_or_else(|| "TCP".to_owned());
            (port.name.unwrap_or_default(), protocol, port.port.unwrap_or_default(), port.app_protocol)
        })
        .collect();
    ports.sort_unstable();
    HostSlice {
        uid: meta.uid.unwrap_or_default(),
        resource_version: meta.resource_version.unwrap_or_default(),
        terminating: meta.deletion_timestamp.is_some(),
        // One mark suffices, so that a slice that lost the other to a hand edit is still ours to repair.
        ours: [SLICE_MANAGED_BY, crate::twin::MANAGED_BY]
            .iter()
            .any(|key| labels.get(*key).is_some_and(|manager| manager == MANAGER)),
        labels,
        annotations: meta.annotations.unwrap_or_default(),
        owners: meta.owner_references.into_iter().flatten().map(|owner| (owner.kind, owner.uid)).collect(),
        family: address_type,
        ports,
        addresses: endpoints.iter().flat_map(|endpoint| &endpoint.addresses).filter_map(|ip| ip.parse().ok()).collect(),
        plain,
    }
}

fn digits(endpoints: &Endpoints) -> String {
    // Writing what was read cannot fail.
    let told = serde_json::to_string(&(endpoints.family, &endpoints.ports)).unwrap_or_default();
    hex(&Sha256::digest(told)).chars().take(SUFFIX - 1).collect()
}
