//! Endpoints as somebody writes them, to the EndpointSlices that a virtual cluster would make of them. Pure.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointSubset, Endpoints as Mirrored};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort as Port, EndpointSlice};

/// Label of Endpoints that the virtual cluster makes no slices of.
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";

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

#[cfg(test)]
mod tests {
    use k3k_expose_projection::endpoints::endpoints;
    use k3k_expose_proto::endpoints::Endpoints;
    use k3k_expose_proto::service::IpFamily;
    use serde_json::{Value, json};

    use super::*;

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
