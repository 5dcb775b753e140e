//! What a tenant reads about its own Service: the condition, the Events, the numbers.

use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{Event, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::eventually::eventually;

/// The condition that says what became of a Service on the host.
pub const SYNCED: &str = "expose.k3k.io/Synced";

/// That condition of a Service, if it has it.
#[must_use]
pub fn synced(service: &Service) -> Option<&Condition> {
    let conditions = service.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == SYNCED)
}

/// The Service, once its condition has this status and reason.
///
/// # Errors
/// At the deadline; with what it said last.
pub async fn wait_synced(
    services: &Api<Service>,
    name: &str,
    status: &str,
    reason: &str,
    deadline: Duration,
) -> anyhow::Result<Service> {
    eventually(&format!("{name} is {status}/{reason}"), deadline, async || {
        let service = services.get(name).await?;
        match synced(&service) {
            Some(said) if said.status == status && said.reason == reason => Ok(service),
            Some(said) => bail!("{}/{}: {}", said.status, said.reason, said.message),
            None => bail!("no condition {SYNCED}"),
        }
    })
    .await
}

/// The Events of one object, by its UID, in no order.
///
/// # Errors
/// When the API server does not answer.
pub async fn events(client: &Client, service: &Service) -> anyhow::Result<Vec<Event>> {
    let uid = service.uid().context("a stored Service has a UID")?;
    let namespace = service.namespace().context("a stored Service has a namespace")?;
    let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let of_it = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
    Ok(events.list(&of_it).await?.items)
}

/// The numbers that both sides are to have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// The primary one first.
    pub cluster_ips: Vec<String>,
    /// By port and protocol, sorted: the order of the list says nothing.
    pub node_ports: Vec<(i32, String, i32)>,
    /// With external traffic policy Local.
    pub health_check: Option<i32>,
}

impl Numbers {
    /// Those of a Service on either side.
    #[must_use]
    pub fn of(service: &Service) -> Self {
        let Some(spec) = &service.spec else {
            return Self::default();
        };
        let ports = spec.ports.iter().flatten().filter_map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            Some((port.port, protocol.to_owned(), port.node_port?))
        });
        let mut node_ports: Vec<_> = ports.collect();
        node_ports.sort();
        Self {
            cluster_ips: spec.cluster_ips.clone().unwrap_or_default(),
            node_ports,
            health_check: spec.health_check_node_port,
        }
    }
}
