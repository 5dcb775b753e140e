//! Which numbers of a Service somebody asked for, read from its `managedFields`. Pure.
//!
//! A number that the API server drew belongs to no manager's fields; one that was asked for is in the fields of whoever
//! asked. So a number is pinned when any manager but the agent owns it.

use k3k_expose_proto::service::Protocol;
use k8s_openapi::api::core::v1::Service;
use serde::Deserialize;
use serde_json::Value;

/// The agent's own field manager. What it wrote is the host's number, not the tenant's wish.
pub(crate) const MANAGER: &str = "k3k-expose-agent";

/// Numbers of one Service that a manager owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pins {
    pub(crate) cluster_ip: bool,
    pub(crate) health_check_node_port: bool,
    node_ports: Vec<(u16, Protocol)>,
}

/// The part of a list entry's key that tells ports apart: `k:{"port":80,"protocol":"TCP"}`.
#[derive(Deserialize)]
struct PortKey {
    port: u16,
    #[serde(default = "tcp")]
    protocol: Protocol,
}

const fn tcp() -> Protocol {
    Protocol::TCP
}

impl Pins {
    pub(crate) fn of(service: &Service) -> Self {
        let mut pins = Self::default();
        let managers = service.metadata.managed_fields.iter().flatten();
        let others = managers.filter(|entry| entry.manager.as_deref() != Some(MANAGER));
        for spec in others.filter_map(|manager| manager.fields_v1.as_ref()?.0.get("f:spec")) {
            pins.cluster_ip |= spec.get("f:clusterIP").is_some() || spec.get("f:clusterIPs").is_some();
            pins.health_check_node_port |= spec.get("f:healthCheckNodePort").is_some();
            let ports = spec.get("f:ports").and_then(Value::as_object);
            pins.node_ports.extend(
                ports
                    .into_iter()
                    .flatten()
                    .filter(|(_, fields)| fields.get("f:nodePort").is_some())
                    .filter_map(|(key, _)| serde_json::from_str::<PortKey>(key.strip_prefix("k:")?).ok())
                    .map(|key| (key.port, key.protocol)),
            );
        }
        pins
    }

    pub(crate) fn node_port(&self, port: u16, protocol: Protocol) -> bool {
        self.node_ports.contains(&(port, protocol))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pins(fields: &[Value]) -> Pins {
        let managed: Vec<Value> = fields.iter().map(|fields| json!({"fieldsV1": fields})).collect();
        let service = serde_json::from_value(json!({"metadata": {"managedFields": managed}})).unwrap();
        Pins::of(&service)
    }

    #[test]
    fn a_number_in_nobodys_fields_was_drawn() {
        let drawn = json!({"f:spec": {"f:type": {}, "f:ports": {
            ".": {}, r#"k:{"port":80,"protocol":"TCP"}"#: {".": {}, "f:port": {}}
        }}});
        assert_eq!(pins(&[drawn]), Pins::default());
        assert_eq!(pins(&[]), Pins::default());
    }

    #[test]
    fn a_number_in_any_managers_fields_is_pinned() {
        let one = json!({"f:spec": {"f:clusterIP": {}, "f:healthCheckNodePort": {}}});
        let other = json!({"f:spec": {"f:ports": {
            r#"k:{"port":80,"protocol":"UDP"}"#: {"f:nodePort": {}},
            r#"k:{"port":81}"#: {"f:nodePort": {}},
            "k:broken": {"f:nodePort": {}}
        }}});
        let pins = pins(&[one, other]);
        assert!(pins.cluster_ip && pins.health_check_node_port);
        assert!(pins.node_port(80, Protocol::UDP) && pins.node_port(81, Protocol::TCP));
        assert!(!pins.node_port(80, Protocol::TCP));
    }

    #[test]
    fn fields_of_another_shape_pin_nothing() {
        for fields in [json!(null), json!([]), json!({"f:spec": 1}), json!({"f:spec": {"f:ports": []}})] {
            assert_eq!(pins(&[fields]), Pins::default());
        }
    }
}
