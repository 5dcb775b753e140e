//! The host's load balancer: gives each LoadBalancer Service an address and leads packets for it to nodes, by routes of the router.
//!
//! As a cloud does it: to every node, or with external traffic policy Local to those only whose health-check port says 200.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Service;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use super::Fabric;
use super::fabric::Node;
use super::namespace::ip;
use crate::cloud;

/// How often Services and health checks are looked at.
const TICK: Duration = Duration::from_millis(100);
/// A health check that takes longer counts as failed.
const PATIENCE: Duration = Duration::from_secs(1);

/// The load balancer of a host.
pub struct Balancer<'a> {
    fabric: &'a Fabric,
    client: Client,
    health: reqwest::Client,
    next: u8,
    routes: BTreeMap<Ipv4Addr, Vec<Ipv4Addr>>,
}

impl<'a> Balancer<'a> {
    /// One that has given no address yet.
    ///
    /// # Errors
    /// When there can be no HTTP client.
    pub fn new(fabric: &'a Fabric, client: Client) -> anyhow::Result<Self> {
        crate::tls::install_provider();
        let health = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build()?;
        Ok(Self { fabric, client, health, next: 10, routes: BTreeMap::new() })
    }

    /// Balances. Ends only when it cannot.
    ///
    /// # Errors
    /// When the API server or the kernel refuses.
    pub async fn run(&mut self) -> anyhow::Result<Infallible> {
        let all: Api<Service> = Api::all(self.client.clone());
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for service in all.list(&ListParams::default()).await.context("listing Services")?.items {
                if service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer") {
                    self.serve(&service).await?;
                }
            }
        }
    }

    async fn serve(&mut self, service: &Service) -> anyhow::Result<()> {
        let Some(address) = address(service) else {
            return self.give(service).await;
        };
        let mut nodes = Vec::new();
        for node in &self.fabric.nodes {
            if self.is_healthy(service, node).await {
                nodes.push(node.address);
            }
        }
        if self.routes.get(&address) != Some(&nodes) {
            ip(None, &route(address, &nodes)).await?;
            self.routes.insert(address, nodes);
        }
        Ok(())
    }

    async fn give(&mut self, service: &Service) -> anyhow::Result<()> {
        let address = Ipv4Addr::new(203, 0, 113, self.next);
        self.next += 1;
        let services = Api::namespaced(self.client.clone(), &service.namespace().unwrap_or_default());
        // It may have gone, or changed its type, since it was listed.
        let _ = cloud::set_ingress(&services, &service.name_any(), &json!([{"ip": address}])).await;
        Ok(())
    }

    async fn is_healthy(&self, service: &Service, node: &Node) -> bool {
        let port = service.spec.as_ref().and_then(|spec| spec.health_check_node_port).filter(|port| *port > 0);
        let Some(port) = port else {
            return true;
        };
        let answer = self.health.get(format!("http://{}:{port}/healthz", node.address)).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    }
}

fn address(service: &Service) -> Option<Ipv4Addr> {
    let entries = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
    entries.first()?.ip.as_deref()?.parse().ok()
}

/// A line for `ip`: each connection goes to one of the nodes, or nowhere.
fn route(address: Ipv4Addr, nodes: &[Ipv4Addr]) -> String {
    if nodes.is_empty() {
        return format!("route replace unreachable {address}/32\n");
    }
    let hops: String = nodes.iter().map(|node| format!(" nexthop via {node} dev {} onlink", cable(*node))).collect();
    format!("route replace {address}/32{hops}\n")
}

fn cable(node: Ipv4Addr) -> &'static str {
    super::fabric::NODES.iter().find(|(_, address)| *address == node).map_or("lo", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_to_healthy_nodes_only() {
        let [address, one, two] = [[203, 0, 113, 10], [192, 0, 2, 11], [192, 0, 2, 12]].map(Ipv4Addr::from);
        assert_eq!(
            route(address, &[one, two]),
            "route replace 203.0.113.10/32 nexthop via 192.0.2.11 dev node-1 onlink nexthop via 192.0.2.12 dev node-2 onlink\n"
        );
        assert_eq!(route(address, &[]), "route replace unreachable 203.0.113.10/32\n");
    }
}
