//! The tenant's Services, and what is promised of their twins.

use std::collections::BTreeMap;

use anyhow::{Context, anyhow, bail};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::DEADLINE;
use super::world::World;
use crate::eventually::eventually;
use crate::k3k::Tenant;
use crate::{cloud, told};

/// The one that is edited.
pub(super) const EDITED: &str = "web";
/// The one that is deleted.
pub(super) const DELETED: &str = "api";
/// The one whose twin somebody deletes on the host.
pub(super) const LOST: &str = "edge";

const VIRTUAL_NAMESPACE: &str = "default";

/// Both sides of the tenant's Services.
pub(super) struct Twins {
    virtual_cluster: Client,
    virtual_services: Api<Service>,
    host_services: Api<Service>,
    tenant: Tenant,
}

/// A Service of each type that is exposed.
pub(super) fn wanted() -> anyhow::Result<Vec<Service>> {
    let services = json!([
        {"metadata": {"name": EDITED},
         "spec": {"type": "ClusterIP", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}},
        {"metadata": {"name": DELETED},
         "spec": {"type": "NodePort", "selector": {"app": "api"}, "ports": [{"port": 443, "targetPort": "https"}]}},
        {"metadata": {"name": LOST},
         "spec": {"type": "LoadBalancer", "selector": {"app": "edge"}, "ports": [
            {"name": "http", "port": 80, "targetPort": 8080},
            {"name": "quic", "port": 443, "targetPort": 8443, "protocol": "UDP"},
         ]}},
    ]);
    Ok(serde_json::from_value(services)?)
}

/// What the tick of a Service says.
pub(super) fn sentence(service: &Service) -> String {
    let kind = spec(service).type_.unwrap_or_default();
    format!("{kind} `{}` and its twin", service.name_any())
}

impl Twins {
    pub(super) async fn of(world: &World) -> anyhow::Result<Self> {
        let tenant = world.tenant()?.clone();
        let virtual_cluster = world.virtual_cluster()?.client().await?;
        Ok(Self {
            virtual_services: Api::namespaced(virtual_cluster.clone(), VIRTUAL_NAMESPACE),
            virtual_cluster,
            host_services: tenant.host_services(),
            tenant,
        })
    }

    /// Makes a Service in the virtual cluster.
    pub(super) async fn make(&self, service: &Service) -> anyhow::Result<Service> {
        Ok(self.virtual_services.create(&PostParams::default(), service).await?)
    }

    /// Gives the edited Service another port and another selector.
    pub(super) async fn edit(&self) -> anyhow::Result<Service> {
        let patch = json!({"spec": {
            "selector": {"app": "web", "track": "stable"},
            "ports": [{"port": 8000, "targetPort": 8080}],
        }});
        let params = PatchParams::default();
        Ok(self.virtual_services.patch(EDITED, &params, &Patch::Merge(patch)).await?)
    }

    /// Deletes a Service and waits until its twin, and no other, is gone.
    pub(super) async fn delete(&self, name: &str) -> anyhow::Result<()> {
        let twin = self.tenant.twin_name(name, VIRTUAL_NAMESPACE);
        self.virtual_services.delete(name, &DeleteParams::default()).await?;
        eventually("the twin gone", DEADLINE, async || match self.host_services.get_opt(&twin).await? {
            Some(_) => bail!("it is still there"),
            None => Ok(()),
        })
        .await?;
        for kept in [EDITED, LOST] {
            self.twin(kept).await?;
        }
        Ok(())
    }

    /// Deletes a twin on the host, as an administrator there, and waits for another that is as right.
    pub(super) async fn lose(&self, name: &str) -> anyhow::Result<()> {
        let service = self.virtual_services.get(name).await?;
        let lost = self.twin(name).await?;
        self.host_services.delete(&lost.name_any(), &DeleteParams::default()).await?;
        eventually("another twin", DEADLINE, async || {
            let twin = self.twin(name).await?;
            if twin.uid() == lost.uid() {
                bail!("the lost one still stands");
            }
            self.compare(&spec(&service), &twin)
        })
        .await
    }

    /// The twin as it stands.
    pub(super) async fn twin(&self, name: &str) -> anyhow::Result<Service> {
        let twin = self.tenant.twin_name(name, VIRTUAL_NAMESPACE);
        let found = self.host_services.get_opt(&twin).await?;
        found.with_context(|| format!("there is no {twin} on the host"))
    }

    /// The twin of a Service, once it is as that Service asks.
    pub(super) async fn follows(&self, service: &Service) -> anyhow::Result<Service> {
        let name = service.name_any();
        eventually(&format!("the twin of {name}"), DEADLINE, async || {
            let twin = self.twin(&name).await?;
            self.compare(&spec(service), &twin).map(|()| twin)
        })
        .await
    }

    /// The virtual Service, once its condition says that its twin is as it asks.
    pub(super) async fn applied(&self, name: &str) -> anyhow::Result<Service> {
        told::wait_synced(&self.virtual_services, name, "True", "Applied", DEADLINE).await
    }

    /// Gives the twin this load-balancer status, as the host's cloud would, and waits until the tenant has it.
    pub(super) async fn cloud_gives(&self, name: &str, entries: &Value) -> anyhow::Result<(Service, Service)> {
        let twin = self.twin(name).await?;
        let twin = cloud::set_ingress(&self.host_services, &twin.name_any(), entries).await?;
        let service = eventually(&format!("the address of {name}"), DEADLINE, async || {
            let service = self.virtual_services.get(name).await?;
            match (ingress(&service), ingress(&twin)) {
                (here, there) if here == there => Ok(service),
                (here, there) => Err(anyhow!("{here} instead of {there}")),
            }
        })
        .await?;
        Ok((service, twin))
    }

    /// A Service and its twin, once they agree on other numbers than those that it was made with.
    pub(super) async fn heals(&self, made: &Service) -> anyhow::Result<(Service, Service)> {
        let name = made.name_any();
        let pair = eventually(&format!("one set of numbers for {name}"), DEADLINE, async || {
            let (service, twin) = (self.virtual_services.get(&name).await?, self.twin(&name).await?);
            if told::Numbers::of(&service) == told::Numbers::of(made) {
                bail!("the tenant's Service keeps numbers that the host has not for it");
            }
            self.compare(&spec(&service), &twin).map(|()| (service, twin))
        })
        .await?;
        if pair.0.uid() != made.uid() {
            bail!("the tenant's Service was made anew instead of moved");
        }
        self.applied(&name).await?;
        Ok(pair)
    }

    /// What an Event of this reason tells the tenant about a Service.
    pub(super) async fn event(&self, service: &Service, reason: &str) -> anyhow::Result<String> {
        eventually(&format!("an Event {reason} for {}", service.name_any()), DEADLINE, async || {
            let events = told::events(&self.virtual_cluster, service).await?;
            let found = events.into_iter().find(|event| event.reason.as_deref() == Some(reason));
            found.and_then(|event| event.message).with_context(|| format!("there is no Event {reason}"))
        })
        .await
    }

    fn compare(&self, asked: &ServiceSpec, twin: &Service) -> anyhow::Result<()> {
        let has = spec(twin);
        let mut selector = asked.selector.clone().unwrap_or_default();
        selector.extend(self.bounds());
        let equal = [
            ("type", asked.type_ == has.type_),
            ("cluster IP", asked.cluster_ips == has.cluster_ips),
            ("ports and node ports", asked.ports == has.ports),
            ("selector", Some(selector) == has.selector),
            ("owner", twin.owner_references() == [self.tenant.owner_reference(false)].as_slice()),
        ];
        match equal.into_iter().find(|(_, equal)| !equal) {
            Some((what, _)) => Err(anyhow!("another {what}: {has:?}")),
            None => Ok(()),
        }
    }

    /// The two keys that keep this tenant's pods, and those of one of its namespaces, apart from all others.
    fn bounds(&self) -> BTreeMap<String, String> {
        [("k3k.io/clusterName", self.tenant.cluster.as_str()), ("k3k.io/namespace", VIRTUAL_NAMESPACE)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }
}

/// The load-balancer entries of either side.
pub(super) fn ingress(service: &Service) -> Value {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    json!(status.and_then(|balancer| balancer.ingress.as_ref()))
}

fn spec(service: &Service) -> ServiceSpec {
    service.spec.clone().unwrap_or_default()
}
