//! Hand-made EndpointSlices of the virtual cluster, joined with the Services that have no selector. Pure.
//!
//! Of a slice addresses and ports are taken, nothing else. Which of them may cross is host-api's to judge.

use std::collections::BTreeMap;

use k3k_expose_projection::endpoints as projection;
use k3k_expose_proto::endpoints::{self, Endpoints, LeftOut};
use k3k_expose_proto::{Key, Service};
use k8s_openapi::api::core::v1;
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Slices that name a Service, but not those that the endpointslice-controller makes for a selector.
pub(crate) const SELECTOR: &str =
    "kubernetes.io/service-name,endpointslice.kubernetes.io/managed-by!=endpointslice-controller.k8s.io";
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// All slices, by the Service that they name, and the Services that they are for.
#[derive(Debug, Default)]
pub(crate) struct Join {
    slices: BTreeMap<Key, BTreeMap<String, Slice>>,
    bare: BTreeMap<Key, Box<v1::Service>>,
}

/// What matters of a slice: its endpoints, if it has any, or why none cross.
type Slice = Result<Option<Endpoints>, LeftOut>;

/// A slice with its name and that of its Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) key: Key,
    name: String,
    slice: Slice,
}

impl Join {
    /// The Service as it stands, if it has no selector.
    pub(crate) fn set_bare(&mut self, key: &Key, service: Option<Box<v1::Service>>) {
        match service {
            Some(service) => self.bare.insert(key.clone(), service),
            None => self.bare.remove(key),
        };
    }

    /// All Services without a selector are these.
    pub(crate) fn replace_bare(&mut self, all: BTreeMap<Key, Box<v1::Service>>) {
        self.bare = all;
    }

    /// The Service without a selector, as it was seen last.
    pub(crate) fn bare(&self, key: &Key) -> Option<&v1::Service> {
        self.bare.get(key).map(Box::as_ref)
    }

    /// All Services without a selector.
    pub(crate) fn all_bare(&self) -> impl Iterator<Item = &Key> {
        self.bare.keys()
    }

    /// Takes in a slice.
    pub(crate) fn set(&mut self, named: Named) {
        self.slices.entry(named.key).or_default().insert(named.name, named.slice);
    }

    /// Takes it that a slice is gone.
    pub(crate) fn remove(&mut self, named: &Named) {
        if let Some(slices) = self.slices.get_mut(&named.key) {
            slices.remove(&named.name);
            if slices.is_empty() {
                self.slices.remove(&named.key);
            }
        }
    }

    /// All slices are these.
    pub(crate) fn replace(&mut self, all: Vec<Named>) {
        self.slices.clear();
        all.into_iter().for_each(|named| self.set(named));
    }

    /// Puts the endpoints of a Service without a selector to it.
    pub(crate) fn join(&self, key: &Key, service: &mut Service) {
        let Some(slices) = self.slices.get(key).filter(|_| service.is_bare()) else {
            return;
        };
        (service.endpoints, service.endpoints_left_out) = endpoints::join(slices.values());
    }
}

/// Reduces a slice. `None` for one that names no Service.
pub(crate) fn reduce(slice: &EndpointSlice) -> Option<Named> {
    let meta = &slice.metadata;
    let service = meta.labels.as_ref()?.get(SERVICE_NAME)?;
    let key = Key::service(meta.namespace.as_deref()?, service).ok()?;
    Some(Named {
        key,
        name: meta.name.clone()?,
        slice: if meta.deletion_timestamp.is_some() { Ok(None) } else { projection::endpoints(slice) },
    })
}

#[cfg(test)]
mod tests {
    use k3k_expose_proto::service::{IpFamily, ServiceType};
    use serde_json::{Value, json};

    use super::*;

    fn slice(name: &str, family: &str, endpoints: &Value, port: u16) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "labels": {SERVICE_NAME: "db"}},
            "addressType": family,
            "endpoints": endpoints,
            "ports": [{"name": "sql", "port": port}],
        }))
        .unwrap()
    }

    fn joined(slices: &[EndpointSlice]) -> Service {
        let mut join = Join::default();
        join.replace(slices.iter().filter_map(reduce).collect());
        let mut service = Service::new(ServiceType::ClusterIP);
        join.join(&Key::service("default", "db").unwrap(), &mut service);
        service
    }

    #[test]
    fn ready_addresses_are_joined_by_family_and_ports_and_nothing_else_is_taken() {
        let endpoints = json!([
            {"addresses": ["10.0.0.2"], "conditions": {"ready": true}, "nodeName": "n", "zone": "z", "hostname": "h",
             "targetRef": {"kind": "Pod", "name": "p"}},
            {"addresses": ["10.0.0.1"]},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": false}},
        ]);
        let more = json!([{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.9"]}]);
        let service = joined(&[
            slice("a", "IPv4", &endpoints, 5432),
            slice("b", "IPv4", &more, 5432),
            slice("c", "IPv6", &json!([{"addresses": ["fd00::1"]}]), 5432),
        ]);
        let sets: Vec<_> = service.endpoints.iter().map(|set| (set.family, set.addresses.len())).collect();
        assert_eq!(sets, [(IpFamily::IPv4, 3), (IpFamily::IPv6, 1)]);
        let wire = serde_json::to_string(&service.endpoints).unwrap();
        for word in ["zone", "node", "host", "target", "10.0.0.3"] {
            assert!(!wire.contains(word), "{word} in {wire}");
        }
    }

    #[test]
    fn what_is_too_much_or_has_no_address_is_said_to_be_left_out() {
        let names = joined(&[slice("a", "FQDN", &json!([{"addresses": ["db.example.com"]}]), 1)]);
        assert_eq!((names.endpoints.len(), names.endpoints_left_out), (0, Some(LeftOut::Names)));
        let addresses = |range: std::ops::Range<u8>| {
            Value::Array(range.map(|n| json!({"addresses": [format!("10.0.0.{n}")]})).collect())
        };
        let full = joined(&[slice("a", "IPv4", &addresses(0..100), 1)]);
        assert_eq!((full.endpoints[0].addresses.len(), full.endpoints_left_out), (100, None));
        let many = joined(&[slice("a", "IPv4", &addresses(0..60), 1), slice("b", "IPv4", &addresses(60..101), 1)]);
        assert_eq!((many.endpoints[0].addresses.len(), many.endpoints_left_out), (100, Some(LeftOut::TooMany)));
        let sets: Vec<_> = (1..=5).map(|n| slice(&n.to_string(), "IPv4", &addresses(0..1), n)).collect();
        assert_eq!((joined(&sets).endpoints.len(), joined(&sets).endpoints_left_out), (4, Some(LeftOut::TooMany)));
    }

    #[test]
    fn a_service_with_a_selector_gets_no_endpoints() {
        let mut join = Join::default();
        join.replace(reduce(&slice("a", "IPv4", &json!([{"addresses": ["10.0.0.1"]}]), 1)).into_iter().collect());
        let mut service = Service::new(ServiceType::ClusterIP);
        service.selector.insert("app".to_owned(), "db".to_owned());
        join.join(&Key::service("default", "db").unwrap(), &mut service);
        assert!(service.endpoints.is_empty());
    }

    #[test]
    fn a_slice_that_goes_takes_its_addresses_along() {
        let mut join = Join::default();
        let named = reduce(&slice("a", "IPv4", &json!([{"addresses": ["10.0.0.1"]}]), 1)).unwrap();
        join.set(named.clone());
        join.remove(&named);
        assert!(join.slices.is_empty());
    }
}
