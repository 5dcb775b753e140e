//! What a tenant's twins take up of what is counted. Pure.

use k8s_openapi::api::core::v1::ServiceSpec;

use crate::twin::{has_health_check, has_node_ports, is_balancer};

/// Counts of what there may be only so much of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Node ports, health-check node ports among them.
    pub node_ports: usize,
    /// Load balancers.
    pub load_balancers: usize,
}

impl Usage {
    /// What a Service has.
    #[must_use]
    pub fn of(spec: &ServiceSpec) -> Self {
        let ports = spec.ports.iter().flatten().filter(|port| port.node_port.is_some()).count();
        Self {
            node_ports: ports + usize::from(spec.health_check_node_port.is_some()),
            load_balancers: usize::from(is_balancer(spec)),
        }
    }

    /// What a Service will have, once the host has given what it leaves open.
    #[must_use]
    pub fn asked(spec: &ServiceSpec) -> Self {
        let every = has_node_ports(spec);
        let wished = |port: &&k8s_openapi::api::core::v1::ServicePort| every || port.node_port.is_some();
        let ports = spec.ports.iter().flatten().filter(wished).count();
        Self { node_ports: ports + usize::from(has_health_check(spec)), load_balancers: usize::from(is_balancer(spec)) }
    }

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            node_ports: self.node_ports.saturating_add(other.node_ports),
            load_balancers: self.load_balancers.saturating_add(other.load_balancers),
        }
    }

    /// Whichever is more of each.
    #[must_use]
    pub fn most(self, other: Self) -> Self {
        Self {
            node_ports: self.node_ports.max(other.node_ports),
            load_balancers: self.load_balancers.max(other.load_balancers),
        }
    }

    /// This without that.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self {
            node_ports: self.node_ports.saturating_sub(other.node_ports),
            load_balancers: self.load_balancers.saturating_sub(other.load_balancers),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_left_to_the_host_counts_before_it_is_given() {
        for (spec, node_ports, load_balancers) in [
            (json!({"type": "ClusterIP", "ports": [{"port": 80}]}), 0, 0),
            (json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 81, "nodePort": 30_001}]}), 2, 0),
            (json!({"type": "LoadBalancer", "ports": [{"port": 80}]}), 1, 1),
            (json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]}), 2, 1),
            (json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}]}), 0, 1),
        ] {
            let spec: ServiceSpec = serde_json::from_value(spec).unwrap();
            assert_eq!(Usage::asked(&spec), Usage { node_ports, load_balancers }, "{spec:?}");
        }
    }

    #[test]
    fn what_stands_counts_as_it_is() {
        let spec: ServiceSpec = serde_json::from_value(json!({"type": "LoadBalancer", "healthCheckNodePort": 30_009,
            "ports": [{"port": 80, "nodePort": 30_001}, {"port": 81}]}))
        .unwrap();
        assert_eq!(Usage::of(&spec), Usage { node_ports: 2, load_balancers: 1 });
    }
}
