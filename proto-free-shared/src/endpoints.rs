//! Hand-made endpoints of a Service without a selector, as they cross. Pure.
//!
//! They travel inside their Service, so that one line says all that there is to say about its key. Addresses and ports alone
//! cross: nothing of nodes, zones or pods.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use crate::limits::{ENDPOINT_SETS, ENDPOINTS};
use crate::service::{IpFamily, Protocol};

/// Ready addresses of one family that serve the same ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// The family of all addresses.
    pub family: IpFamily,
    /// Ports, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<EndpointPort>,
    /// Addresses, sorted.
    pub addresses: Vec<IpAddr>,
}

/// A port that endpoints serve.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointPort {
    /// The name of the Service's port.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `protocol`.
    pub protocol: Protocol,
    /// `port`.
    pub port: NonZeroU16,
    /// `appProtocol`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
}

/// Why some endpoints are not among those that cross.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LeftOut {
    /// They are named, not addressed.
    Names,
    /// They are more than [`crate::limits::ENDPOINTS`] of a kind, or of more kinds than [`crate::limits::ENDPOINT_SETS`].
    TooMany,
}

/// The endpoints of one Service from those of its slices, if they have any, as many as cross; and why some do not.
#[must_use]
pub fn join<'a>(
    slices: impl IntoIterator<Item = &'a Result<Option<Endpoints>, LeftOut>>,
) -> (Vec<Endpoints>, Option<LeftOut>) {
    let mut left_out = BTreeSet::new();
    let mut sets: BTreeMap<(IpFamily, Vec<EndpointPort>), BTreeSet<IpAddr>> = BTreeMap::new();
    for slice in slices {
        match slice {
            Ok(Some(Endpoints { family, ports, addresses })) => {
                sets.entry((*family, ports.clone())).or_default().extend(addresses);
            }
            Ok(None) => {}
            Err(why) => {
                left_out.insert(*why);
            }
        }
    }
    if sets.len() > ENDPOINT_SETS || sets.values().any(|addresses| addresses.len() > ENDPOINTS) {
        left_out.insert(LeftOut::TooMany);
    }
    let first = sets.into_iter().take(ENDPOINT_SETS).map(|((family, ports), addresses)| Endpoints {
        family,
        ports,
        addresses: addresses.into_iter().take(ENDPOINTS).collect(),
    });
    (first.collect(), left_out.into_iter().next())
}
