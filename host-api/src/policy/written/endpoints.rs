//! EndpointSlices as somebody writes them, to the endpoints that an agent would say of their Service. Pure.

use std::net::IpAddr;
use std::num::NonZeroU16;

use k3k_expose_proto::endpoints::{EndpointPort, Endpoints, LeftOut};
use k3k_expose_proto::service::{IpFamily, Protocol};
use k8s_openapi::api::core::v1::{EndpointSubset, Endpoints as Mirrored};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort as Port, EndpointSlice};

/// Label of Endpoints that the virtual cluster makes no slices of.
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";

/// The ready addresses of a slice, if there are any; or why none of it cross.
///
/// # Errors
/// [`LeftOut`].
pub fn endpoints(slice: &EndpointSlice) -> Result<Option<Endpoints>, LeftOut> {
    let family = match slice.address_type.as_str() {
        "IPv4" => IpFamily::IPv4,
        "IPv6" => IpFamily::IPv6,
        _ => return Err(LeftOut::Names),
    };
    // Not ready is said; of what nothing is said is ready.
    let is_ready =
        |endpoint: &&Endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
    let ready = slice.endpoints.iter().filter(is_ready).flat_map(|endpoint| &endpoint.addresses);
    let mut addresses: Vec<IpAddr> = ready.filter_map(|address| address.parse().ok()).collect();
    addresses.sort_unstable();
    let mut ports: Vec<EndpointPort> = slice.ports.iter().flatten().filter_map(port).collect();
    ports.sort_unstable();
    ports.dedup();
    Ok(Some(Endpoints { family, ports, addresses }).filter(|endpoints| !endpoints.addresses.is_empty()))
}

/// The slices that a virtual cluster makes of Endpoints: one for each family of each subset.
#[must_use]
pub fn mirrored(of: &Mirrored) -> Vec<EndpointSlice> {
    let skipped = of.metadata.labels.as_ref().and_then(|labels| labels.get(SKIP_MIRROR)).is_some_and(|it| it == "true");
    let subsets = of.subsets.iter().flatten().filter(|_| !skipped);
    subsets.flat_map(|subset| ["IPv4", "IPv6"].map(|family| of_family(subset, family))).collect()
}

fn of_family(subset: &EndpointSubset, family: &str) -> EndpointSlice {
    let is_of = |ip: &str| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4() == (family == "IPv4"));
    let endpoint = |ip: &str, ready| Endpoint {
        addresses: vec![ip.to_owned()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        ..Endpoint::default()
    };
    let ready = subset.addresses.iter().flatten().map(|address| (address, true));
    let all = ready.chain(subset.not_ready_addresses.iter().flatten().map(|address| (address, false)));
    let ports = subset.ports.iter().flatten().map(|port| Port {
        name: port.name.clone(),
        protocol: port.protocol.clone(),
        port: Some(port.port),
        app_protocol: port.app_protocol.clone(),
    });
    EndpointSlice {
        address_type: family.to_owned(),
        endpoints: all.filter(|(at, _)| is_of(&at.ip)).map(|(at, ready)| endpoint(&at.ip, ready)).collect(),
        ports: Some(ports.collect()),
        ..EndpointSlice::default()
    }
}

/// A port without a number is none that a Service's port leads to.
fn port(port: &Port) -> Option<EndpointPort> {
    let protocol = match port.protocol.as_deref() {
        None | Some("" | "TCP") => Protocol::TCP,
        Some("UDP") => Protocol::UDP,
        Some("SCTP") => Protocol::SCTP,
        Some(_) => return None,
    };
    Some(EndpointPort {
        name: port.name.clone().unwrap_or_default(),
        protocol,
        port: NonZeroU16::new(u16::try_from(port.port?).ok()?)?,
        app_protocol: port.app_protocol.clone().filter(|text| !text.is_empty()),
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

    #[test]
    fn endpoints_are_mirrored_by_family_unless_they_say_otherwise() {
        let written = |labels: Value| {
            json!({"metadata": {"name": "db", "labels": labels}, "subsets": [{"ports": [{"port": 80}],
                "addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "notReadyAddresses": [{"ip": "10.0.0.2"}]}]})
        };
        let sets = |labels: Value| -> Vec<Endpoints> {
            let slices = mirrored(&serde_json::from_value(written(labels)).unwrap());
            slices.iter().filter_map(|slice| endpoints(slice).unwrap()).collect()
        };
        let families: Vec<_> = sets(json!({})).iter().map(|set| (set.family, set.addresses.len())).collect();
        assert_eq!(families, [(IpFamily::IPv4, 1), (IpFamily::IPv6, 1)]);
        assert_eq!(sets(json!({SKIP_MIRROR: "true"})), []);
    }
}
