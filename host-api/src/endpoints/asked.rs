//! What a Service asks for in endpoints. Pure.

use std::net::IpAddr;

use k3k_expose_proto::endpoints::Endpoints;
use k3k_expose_proto::limits::{ENDPOINT_SETS, ENDPOINTS};
use k3k_expose_proto::service::{IpFamily, Service};

/// The endpoints that count: those of a Service without a selector.
#[must_use]
pub fn endpoints(object: &Service) -> &[Endpoints] {
    if object.is_bare() { &object.endpoints } else { &[] }
}

/// Whether there are more than cross.
#[must_use]
pub fn too_many(object: &Service) -> bool {
    let sets = endpoints(object);
    sets.len() > ENDPOINT_SETS || sets.iter().any(|set| set.addresses.len() > ENDPOINTS)
}

/// Whether an address is of the family of its set.
#[must_use]
pub fn is_of(family: IpFamily, ip: IpAddr) -> bool {
    (family == IpFamily::IPv4) == ip.is_ipv4()
}
