//! The ground that is measured on: two control planes, one tenant, and the programs when a measurement wants them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{Namespace, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::IPAddress;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Usage;
use super::bodies::{self, Fingerprints, VIRTUAL_NAMESPACE};
use super::programs::{self, Programs};
use super::service_watch::ServiceWatch;
use super::spending::{Spending, Written};
use crate::access::{Access, Credential};
use crate::audit::{AuditLog, Entry};
use crate::eventually::eventually;
use crate::k3k::{Tenant, TenantOptions};
use crate::plane::{ControlPlane, PlaneOptions};
use crate::product::{AGENT_USER, HOST_API_ACCOUNT, HOST_API_NAMESPACE, HostApi, HostApiOptions, apply_rbac};
use crate::progress::say;
use crate::rig::{self, virtual_options};
use crate::token;

/// The host namespace of the tenant.
const NAMESPACE: &str = "bench";
/// The account of the plain client.
const PLAIN: &str = "bench-plain";

/// DESIGN 11: memory counts half a minute after the sync, when what was needed only for it has been given back.
pub(super) const SETTLE: Duration = Duration::from_secs(30);

/// For thousands of objects to be made or collected by controllers of at most 100 calls a second.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

pub(super) struct Field {
    programs: Option<Programs>,
    watch: ServiceWatch,
    tenant: Tenant,
    plain: Access,
    virtual_uid: String,
    /// Cluster IPs that the host holds by itself.
    addresses: usize,
    virtual_cluster: ControlPlane,
    host: ControlPlane,
}

/// What a sync was like.
pub(super) struct Synced {
    /// From before the agent's start until the host's watch told of the last twin.
    pub(super) took: Duration,
    pub(super) written: Written,
    pub(super) usage: Usage,
}

impl Field {
    /// With half of the host's range for the tenant: what the bench takes of the other half is never in its way.
    pub(super) async fn boot() -> anyhow::Result<Self> {
        Self::boot_with(virtual_options("virtual").with_service_cidr("10.43.0.0/17")).await
    }

    /// With the host's whole range for the tenant, as k3k gives it: what the host draws, the tenant can have.
    pub(super) async fn boot_equal() -> anyhow::Result<Self> {
        Self::boot_with(virtual_options("virtual")).await
    }

    async fn boot_with(virtual_options: PlaneOptions) -> anyhow::Result<Self> {
        let (host, virtual_cluster) =
            tokio::try_join!(rig::host(PlaneOptions::new("host")), ControlPlane::start(virtual_options))?;
        let client = host.client().await?;
        apply_rbac(&client).await?;
        let tenant = Tenant::create(&client, NAMESPACE, "bench", TenantOptions::default()).await?;
        // Its agent runs beside the bench: that its pod has none is not to be told with each start of host-api.
        let opt_out = Patch::Merge(json!({"metadata": {"annotations": {"expose.k3k.io/inject": "disabled"}}}));
        Api::<Namespace>::all(client.clone()).patch(NAMESPACE, &PatchParams::default(), &opt_out).await?;
        let token = plain_account(&client).await?;
        let namespaces: Api<Namespace> = Api::all(virtual_cluster.client().await?);
        let virtual_uid = namespaces.get("kube-system").await?.uid();
        Ok(Self {
            programs: None,
            watch: ServiceWatch::start(tenant.host_services()).await?,
            plain: host.access().with(Credential::Token(token)),
            virtual_uid: virtual_uid.context("a namespace has a UID")?,
            addresses: count(&Api::<IPAddress>::all(client)).await?,
            tenant,
            virtual_cluster,
            host,
        })
    }

    pub(super) fn namespace(&self) -> &'static str {
        NAMESPACE
    }

    pub(super) fn virtual_uid(&self) -> &str {
        &self.virtual_uid
    }

    pub(super) fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// Another tenant of the same host.
    pub(super) async fn another_tenant(&self, namespace: &str) -> anyhow::Result<Tenant> {
        Tenant::create(&self.host.client().await?, namespace, "another", TenantOptions::default()).await
    }

    pub(super) fn watch(&self) -> &ServiceWatch {
        &self.watch
    }

    pub(super) async fn plain_client(&self) -> anyhow::Result<Client> {
        self.plain.client().await
    }

    /// A plain client with host-api's own account, within the fence that is around it: it may make nothing but twins.
    pub(super) async fn fenced_client(&self) -> anyhow::Result<Client> {
        self.host.client_for_service_account(HOST_API_NAMESPACE, HOST_API_ACCOUNT).await
    }

    /// A client of the platform team's.
    pub(super) async fn host_client(&self) -> anyhow::Result<Client> {
        self.host.client().await
    }

    /// A client that is the agent: same rights to check, same place in the server's queues. Only once an agent has run.
    pub(super) async fn agents_client(&self) -> anyhow::Result<Client> {
        let (_, account) = AGENT_USER.rsplit_once(':').context("a user name of an account")?;
        self.virtual_cluster.client_for_service_account("kube-system", account).await
    }

    pub(super) async fn virtual_client(&self) -> anyhow::Result<Client> {
        self.virtual_cluster.client().await
    }

    pub(super) fn audits(&self) -> (AuditLog, AuditLog) {
        (self.host.audit(), self.virtual_cluster.audit())
    }

    /// Says what events were among the writes: they are counted, and nobody expects any here.
    pub(super) fn tell(&self, user: &str, events: &[Entry]) {
        if let Some(event) = events.first() {
            say(&format!("{} Events by {user}, the first in {}", events.len(), event.namespace));
        }
    }

    /// Makes Services in the virtual cluster until there are this many.
    pub(super) async fn fill(&self, services: usize) -> anyhow::Result<()> {
        let api: Api<Service> = Api::namespaced(self.virtual_client().await?, VIRTUAL_NAMESPACE);
        let made = self.tenants().await?.len();
        let missing: Vec<Service> =
            (made..services).map(|index| bodies::tenants(&format!("service-{index:05}"))).collect::<Result<_, _>>()?;
        let missing = Arc::new(missing);
        let mut tasks = JoinSet::new();
        for worker in 0..8 {
            let (api, missing) = (api.clone(), Arc::clone(&missing));
            tasks.spawn(async move {
                for service in missing.iter().skip(worker).step_by(8) {
                    api.create(&PostParams::default(), service).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.context("a worker died")??;
        }
        Ok(())
    }

    /// The twins of all Services of the tenant, as a plain client would post them.
    pub(super) async fn twin_bodies(&self) -> anyhow::Result<Vec<Service>> {
        let services = self.tenants().await?;
        let bodies = services.iter().map(|service| bodies::twin(&self.tenant, &self.virtual_uid, service));
        bodies.collect()
    }

    /// What stands on the host.
    pub(super) async fn fingerprints(&self) -> anyhow::Result<Fingerprints> {
        let services = self.tenant.host_services().list(&ListParams::default()).await?;
        Ok(Fingerprints::of(&services.items))
    }

    /// Starts host-api, then the agent, and measures until 30 s after all Services have their twin.
    pub(super) async fn sync(&mut self, services: usize) -> anyhow::Result<Synced> {
        let spending = Spending::of_writes(self).await?;
        let began = self.start().await?;
        self.watch.wait("a twin for every Service", PATIENCE, |seen| (seen.count() >= services).then_some(())).await?;
        let took = began.elapsed();
        self.programs()?.agent.wait_ok("/syncz", PATIENCE).await?;
        self.slices(services).await?;
        tokio::time::sleep(SETTLE).await;
        Ok(Synced { took, written: spending.writes(self).await?, usage: self.programs()?.usage().await? })
    }

    /// Starts host-api, then the agent, and gives the moment before the latter.
    pub(super) async fn start(&mut self) -> anyhow::Result<Instant> {
        self.start_with(Vec::new()).await
    }

    /// The same with further variables for the agent.
    pub(super) async fn start_with(&mut self, of_agent: Vec<(String, String)>) -> anyhow::Result<Instant> {
        let host_api = HostApi::start(&self.host, HostApiOptions::default()).await?;
        let token = self.tenant.server_pod_token(0).await?;
        let began = Instant::now();
        let agent = programs::start_agent(&self.virtual_cluster, &self.tenant, &host_api, &token, of_agent).await?;
        self.programs = Some(Programs { agent, host_api: Arc::new(host_api) });
        Ok(began)
    }

    /// Ends the programs, deletes all Services on the host, and returns when no trace is left.
    pub(super) async fn clear(&mut self, services: usize) -> anyhow::Result<()> {
        if let Some(programs) = self.programs.take() {
            programs.stop().await?;
        }
        // Before that the controllers would still be at work for the run that is over.
        self.slices(services).await?;
        let client = self.host.client().await?;
        let every = (DeleteParams::default(), ListParams::default());
        let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), NAMESPACE);
        self.tenant.host_services().delete_collection(&every.0, &every.1).await?;
        slices.delete_collection(&every.0, &every.1).await?;
        let gone = |seen: &super::service_watch::Seen| (seen.count() == 0).then_some(());
        self.watch.wait("no Service", PATIENCE, gone).await?;
        self.slices(0).await?;
        let addresses: Api<IPAddress> = Api::all(client);
        eventually("no cluster IP held", PATIENCE, async || match count(&addresses).await? {
            held if held == self.addresses => Ok(()),
            held => bail!("{held}"),
        })
        .await?;
        self.watch.forget_gone();
        Ok(())
    }

    /// Bytes of a reconnect with nothing changed; the agent is another one afterwards.
    pub(super) async fn reconnect_bytes(&mut self) -> anyhow::Result<u64> {
        let token = self.tenant.server_pod_token(0).await?;
        let programs = self.programs.take().context("the programs do not run")?;
        let (programs, bytes) = programs.reconnect(&self.virtual_cluster, &self.tenant, &token).await?;
        self.programs = Some(programs);
        Ok(bytes)
    }

    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(programs) = self.programs.take() {
            programs.stop().await?;
        }
        self.virtual_cluster.stop().await?;
        self.host.stop().await
    }

    pub(super) fn programs(&self) -> anyhow::Result<&Programs> {
        self.programs.as_ref().context("the programs do not run")
    }

    /// The tenant's Services, without the cluster's own.
    pub(super) async fn tenants(&self) -> anyhow::Result<Vec<Service>> {
        let api: Api<Service> = Api::namespaced(self.virtual_client().await?, VIRTUAL_NAMESPACE);
        let mut services = api.list(&ListParams::default()).await?.items;
        services.retain(|service| service.name_any() != "kubernetes");
        Ok(services)
    }

    /// Waits until the host's controllers have caught up with the tenant's Services.
    pub(super) async fn settled(&self) -> anyhow::Result<()> {
        self.slices(self.tenants().await?.len()).await
    }

    /// Waits until there are exactly this many EndpointSlices of the tenant.
    async fn slices(&self, expected: usize) -> anyhow::Result<()> {
        let slices: Api<EndpointSlice> = Api::namespaced(self.host.client().await?, NAMESPACE);
        eventually("the EndpointSlices", PATIENCE, async || match count(&slices).await? {
            found if found == expected => Ok(()),
            found => bail!("{found} instead of {expected}"),
        })
        .await
    }
}

/// How many there are, without reading them all.
pub(super) async fn count<K>(api: &Api<K>) -> anyhow::Result<usize>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let list = api.list_metadata(&ListParams::default().limit(1)).await?;
    let more = list.metadata.remaining_item_count.unwrap_or_default();
    Ok(list.items.len() + usize::try_from(more)?)
}

/// A token of the plain client: an account with host-api's rights, so that the API server checks as much and queues it in the
/// same place. Not host-api itself, since the fence around that one admits nothing but twins.
async fn plain_account(host: &Client) -> anyhow::Result<String> {
    let documents = json!([
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": PLAIN, "namespace": HOST_API_NAMESPACE}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": PLAIN},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": HOST_API_ACCOUNT},
            "subjects": [{"kind": "ServiceAccount", "name": PLAIN, "namespace": HOST_API_NAMESPACE}]},
    ]);
    let [account, binding] = [0, 1].map(|index| documents[index].clone());
    let accounts: Api<ServiceAccount> = Api::namespaced(host.clone(), HOST_API_NAMESPACE);
    accounts.create(&PostParams::default(), &serde_json::from_value(account)?).await?;
    let bindings: Api<ClusterRoleBinding> = Api::all(host.clone());
    bindings.create(&PostParams::default(), &serde_json::from_value(binding)?).await?;
    token::for_api_server(host, HOST_API_NAMESPACE, PLAIN).await
}
