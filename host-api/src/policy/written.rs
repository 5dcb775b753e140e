//! A Service as somebody writes it, to the Service that an agent would say of it. Pure.
//!
//! Agents read Services that an API server has completed; what it would fill in here is what is left open. A number that is
//! written is one that was asked for.

pub mod endpoints;

use k3k_expose_proto::service::Service;
use k8s_openapi::api::core::v1;
use serde_json::{Map, Value, json};

/// The Service, or why there is none.
///
/// # Errors
/// What no agent could carry.
pub fn service(written: &v1::Service) -> Result<Service, serde_json::Error> {
    let mut spec = written.spec.clone().unwrap_or_default();
    // An API server takes 0 for a number that is left open.
    spec.health_check_node_port.take_if(|number| *number == 0);
    for port in spec.ports.iter_mut().flatten() {
        port.node_port.take_if(|number| *number == 0);
    }
    let ips = spec.cluster_ips.clone().or_else(|| spec.cluster_ip.clone().map(|ip| vec![ip])).unwrap_or_default();
    let ips: Vec<String> = ips.into_iter().filter(|ip| !ip.is_empty()).collect();
    let headless = ips == ["None"];
    let mut fields = match json!(spec) {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    fields.retain(|_, value| !value.is_null() && value.as_str() != Some(""));
    fields.remove("clusterIP");
    fields.entry("type").or_insert_with(|| json!("ClusterIP"));
    fields.insert("clusterIPs".to_owned(), if headless { json!("headless") } else { json!({"addresses": ips}) });
    fields.insert("clusterIPPinned".to_owned(), json!(!headless && !ips.is_empty()));
    fields.insert("healthCheckNodePortPinned".to_owned(), json!(spec.health_check_node_port.is_some()));
    let timeout = spec.session_affinity_config.and_then(|config| config.client_ip?.timeout_seconds);
    let affinity = match spec.session_affinity.as_deref() {
        Some("ClientIP") => json!({"clientIp": timeout}),
        _ => json!("none"),
    };
    fields.insert("sessionAffinity".to_owned(), affinity);
    let ports = spec.ports.iter().flatten().map(|port| {
        let mut fields = json!(port);
        fields["protocol"] = json!(port.protocol.as_deref().unwrap_or("TCP"));
        fields["nodePortPinned"] = json!(port.node_port.is_some());
        if port.target_port.is_none() {
            fields["targetPort"] = json!(port.port);
        }
        fields
    });
    fields.insert("ports".to_owned(), ports.collect());
    fields.insert("labels".to_owned(), json!(written.metadata.labels.clone().unwrap_or_default()));
    fields.insert("annotations".to_owned(), json!(written.metadata.annotations.clone().unwrap_or_default()));
    serde_json::from_value(Value::Object(fields))
}

#[cfg(test)]
mod tests {
    use k3k_expose_proto::service::{ClusterIps, ServiceType, SessionAffinity, TargetPort};

    use super::*;

    fn of(written: Value) -> Service {
        service(&serde_json::from_value(written).unwrap()).unwrap()
    }

    #[test]
    fn what_is_written_is_asked_for_and_the_rest_left_open() {
        let service = of(json!({"metadata": {"annotations": {"a": "b"}}, "spec": {"type": "LoadBalancer",
            "clusterIP": "10.43.0.7", "loadBalancerIP": "192.0.2.1", "externalIPs": ["192.0.2.2"],
            "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
            "ports": [{"port": 80, "nodePort": 30_001}, {"port": 81, "protocol": "UDP", "targetPort": "dns"}]}}));
        assert_eq!(service.service_type, ServiceType::LoadBalancer);
        assert!(service.cluster_ip_pinned && service.ports[0].node_port_pinned && !service.ports[1].node_port_pinned);
        assert_eq!(service.ports[0].target_port, TargetPort::Number(80.try_into().unwrap()));
        assert_eq!(service.ports[1].target_port, TargetPort::Name("dns".to_owned()));
        assert_eq!(service.session_affinity, SessionAffinity::ClientIp(Some(60)));
        assert_eq!((service.external_ips.len(), service.annotations["a"].as_str()), (1, "b"));
    }

    #[test]
    fn a_number_that_is_zero_is_left_open() {
        let ports = json!([{"port": 80, "nodePort": 0}]);
        let service = of(json!({"spec": {"type": "NodePort", "healthCheckNodePort": 0, "ports": ports}}));
        assert!(!service.ports[0].node_port_pinned && !service.health_check_node_port_pinned);
        assert_eq!((service.ports[0].node_port, service.health_check_node_port), (None, None));
    }

    #[test]
    fn a_plain_and_a_headless_service_are_read() {
        let plain = of(json!({"spec": {"ports": [{"port": 80}]}}));
        assert_eq!((plain.service_type, plain.cluster_ips), (ServiceType::ClusterIP, ClusterIps::default()));
        assert_eq!(of(json!({"spec": {"clusterIP": "None"}})).cluster_ips, ClusterIps::Headless);
    }
}
