//! The tenant's three Services, and what is promised of their twins.

use std::collections::BTreeMap;

use anyhow::{Context, anyhow, bail};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::DEADLINE;
use super::world::World;
use crate::eventually::eventually;
use crate::k3k::Tenant;

/// The one that is edited.
pub(super) const EDITED: &str = "web";
/// The one that is deleted.
pub(super) const DELETED: &str = "api";
/// The one whose twin somebody deletes on the host.
pub(super) const LOST: &str = "edge";

const VIRTUAL_NAMESPACE: &str = "default";

/// Both sides of the tenant's Services.
pub(super) struct Twins {
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
        Ok(Self {
            virtual_services: Api::namespaced(world.virtual_cluster()?.client().await?, VIRTUAL_NAMESPACE),
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

fn spec(service: &Service) -> ServiceSpec {
    service.spec.clone().unwrap_or_default()
}
