//! The way back: what the host's answer makes of a virtual Service, and who on the host causes it.

use anyhow::{Context, Result, ensure};
use k3k_expose_tests::cloud;
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::foreign::Holder;
use k3k_expose_tests::told::{self, Numbers};
use k8s_openapi::api::core::v1::{Event, Service};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::{SOON, World};
use crate::same::differences;

impl World {
    /// Sets the load-balancer status of the twin, as a cloud does: `[{"ip": "192.0.2.1"}]`, or `[]` to take it away.
    pub async fn cloud_gives(&self, service: &Service, entries: Value) -> Result<Service> {
        let twin = self.twin(service, |_| true).await?;
        cloud::set_ingress(&self.tenant.host_services(), &twin.name_any(), &entries).await
    }

    /// Sets a condition of the twin, as a cloud does.
    pub async fn cloud_says(&self, service: &Service, condition: &str, status: &str, reason: &str) -> Result<Service> {
        let twin = self.twin(service, |_| true).await?;
        cloud::set_condition(&self.tenant.host_services(), &twin.name_any(), condition, status, reason).await
    }

    /// The virtual Service, once its load-balancer entries are these, field by field and in this order.
    pub async fn has_ingress(&self, service: &Service, entries: Value) -> Result<Service> {
        let (services, name) = self.handle(service)?;
        eventually(&format!("load-balancer status {entries} of {name}"), SOON, async || {
            let now = services.get(&name).await?;
            let has = ingress(&now);
            ensure!(has == entries, "it is {has}");
            anyhow::Ok(now)
        })
        .await
    }

    /// The virtual Service, once its condition says `True/Applied`.
    pub async fn applied(&self, service: &Service) -> Result<Service> {
        self.synced(service, "True", "Applied").await
    }

    /// The virtual Service, once its condition says `False` for this reason.
    pub async fn refused(&self, service: &Service, reason: &str) -> Result<Service> {
        self.synced(service, "False", reason).await
    }

    /// The virtual Service, once its condition has this status and reason.
    pub async fn synced(&self, service: &Service, status: &str, reason: &str) -> Result<Service> {
        let (services, name) = self.handle(service)?;
        told::wait_synced(&services, &name, status, reason, SOON).await
    }

    /// Both sides as they stand, once they agree in every field that crosses, in the load-balancer status, and in that the
    /// condition says so. Unlike [`World::follows`] this compares with what the virtual Service has become.
    pub async fn agrees(&self, service: &Service) -> Result<(Service, Service)> {
        let (services, name) = self.handle(service)?;
        let twins = self.tenant.host_services();
        let twin = self.tenant.twin_name(&name, &service.namespace().unwrap_or_default());
        eventually(&format!("both sides of {name} agree"), SOON, async || {
            let (now, twin) = (services.get(&name).await?, twins.get_opt(&twin).await?.context("there is no twin")?);
            let differences = differences(&self.tenant, &now, &twin);
            ensure!(differences.is_empty(), "{}", differences.join("; "));
            ensure!(ingress(&now) == ingress(&twin), "{} here and {} on the host", ingress(&now), ingress(&twin));
            let said = told::synced(&now).context("no condition")?;
            ensure!(said.status == "True", "{}: {}", said.reason, said.message);
            anyhow::Ok((now, twin))
        })
        .await
    }

    /// The Events of a virtual Service, by its UID.
    pub async fn events(&self, service: &Service) -> Result<Vec<Event>> {
        told::events(&self.virtual_cluster, service).await
    }

    /// The Events of a virtual Service for this reason, once there is one.
    pub async fn event(&self, service: &Service, reason: &str) -> Result<Vec<Event>> {
        eventually(&format!("an Event {reason} of {}", service.name_any()), SOON, async || {
            let all = self.events(service).await?;
            let reasons: Vec<_> = all.iter().filter_map(|event| event.reason.clone()).collect();
            let of_it: Vec<_> = all.into_iter().filter(|event| event.reason.as_deref() == Some(reason)).collect();
            ensure!(!of_it.is_empty(), "Events for {reasons:?}");
            anyhow::Ok(of_it)
        })
        .await
    }

    /// Somebody else's Service on the host that holds these cluster IPs: one, or one of each family.
    pub async fn holder_of_ips(&self, ips: &[&str]) -> Result<Holder> {
        Holder::of_cluster_ips(&self.host, ips).await
    }

    /// Somebody else's Service on the host that holds this node port, of TCP.
    pub async fn holder_of_port(&self, node_port: u16) -> Result<Holder> {
        Holder::of_node_port(&self.host, node_port, "TCP").await
    }

    fn handle(&self, service: &Service) -> Result<(Api<Service>, String)> {
        Ok((self.services(&service.namespace().context("a stored Service has a namespace")?), service.name_any()))
    }
}

/// The load-balancer entries of a Service on either side; an empty list without any.
pub fn ingress(service: &Service) -> Value {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    json!(status.and_then(|balancer| balancer.ingress.clone()).unwrap_or_default())
}

/// The cluster IPs and node ports of a Service on either side.
pub fn numbers(service: &Service) -> Numbers {
    Numbers::of(service)
}
