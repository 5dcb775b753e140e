//! An EndpointSlice to what of it crosses: addresses and ports, nothing else. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k3k_expose_proto::endpoints::{EndpointPort, Endpoints, LeftOut};
use k3k_expose_proto::limits::ENDPOINTS;
use k8s_openapi::api::discovery::v1::{EndpointPort as Port, EndpointSlice};

use crate::value::{ip_family, number, protocol, word};

/// The ready addresses of a slice, if there are any; or why none of it cross.
///
/// # Errors
/// [`LeftOut::Names`].
pub fn endpoints(slice: &EndpointSlice) -> Result<Option<Endpoints>, LeftOut> {
    let family = ip_family(&slice.address_type).ok_or(LeftOut::Names)?;
    // Not ready is said; of what nothing is said is ready.
    let ready = slice
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false));
    let addresses: BTreeSet<IpAddr> =
        ready.flat_map(|endpoint| &endpoint.addresses).filter_map(|address| address.parse().ok()).collect();
    let ports: BTreeSet<EndpointPort> = slice.ports.iter().flatten().filter_map(port).collect();
    // One more than cross tells that there are more.
    let addresses: Vec<IpAddr> = addresses.into_iter().take(ENDPOINTS + 1).collect();
    let endpoints = Endpoints { family, ports: ports.into_iter().collect(), addresses };
    Ok(Some(endpoints).filter(|endpoints| !endpoints.addresses.is_empty()))
}

/// A port without a number is none that a Service's port leads to.
fn port(port: &Port) -> Option<EndpointPort> {
    Some(EndpointPort {
        name: port.name.clone().unwrap_or_default(),
        protocol: protocol(port.protocol.as_deref())?,
        port: number(port.port, "").ok()??,
        app_protocol: word(port.app_protocol.as_ref()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(slice: Value) -> Result<Option<Endpoints>, LeftOut> {
        endpoints(&serde_json::from_value(slice).unwrap())
    }

    #[test]
    fn ready_addresses_and_ports_are_read() {
        let slice = of(
            json!({"addressType": "IPv4", "ports": [{"port": 80}, {"port": 0}, {"port": 53, "protocol": "UDP"}],
            "endpoints": [{"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.1", "web"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": false}}]}),
        );
        let read = slice.unwrap().unwrap();
        assert_eq!(read.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>(), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(read.ports.len(), 2);
        assert_eq!(of(json!({"addressType": "IPv6", "endpoints": []})), Ok(None));
        assert_eq!(of(json!({"addressType": "FQDN", "endpoints": [{"addresses": ["a.b"]}]})), Err(LeftOut::Names));
    }
}
