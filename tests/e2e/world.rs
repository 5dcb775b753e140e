//! A tenant at work: its virtual cluster, its agent, and clients for both sides.

pub mod answer;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::k3k::{Tenant, TenantOptions};
use k3k_expose_tests::plane::ControlPlane;
use k3k_expose_tests::product::{Agent, AgentOptions, HostApi};
use k3k_expose_tests::rig::{Pair, Rig};
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

pub use answer::{ingress, numbers};

use crate::same::{differences, without_numbers};

/// What a change may take to arrive in a test, far above what it takes.
pub const SOON: Duration = Duration::from_secs(20);

/// The name of a tenant's Cluster where nothing depends on it.
pub const CLUSTER: &str = "mine";

/// A tenant at work.
pub struct World {
    /// The tenant on the host.
    pub tenant: Tenant,
    /// Its virtual cluster.
    pub plane: Arc<ControlPlane>,
    /// Its agent.
    pub agent: Arc<Agent>,
    /// A client of the host, with all rights.
    pub host: Client,
    /// A client of the virtual cluster, with all rights.
    pub virtual_cluster: Client,
}

/// What of a world outlives the runtime of the test that made it.
struct Base {
    tenant: Tenant,
    plane: Arc<ControlPlane>,
    agent: Arc<Agent>,
}

/// One cell for each name, so that what it holds is made once and by whom needs it first.
type Cells = OnceLock<std::sync::Mutex<HashMap<String, Arc<OnceCell<Base>>>>>;

impl World {
    /// The tenant that the tests of one theme share, each with namespaces of its own; started at the first call.
    ///
    /// All of them live in one host namespace, so every test is also one of neighbors; their Clusters' names differ.
    pub async fn shared(name: &str, cluster: &str) -> Result<Self> {
        static BASES: Cells = OnceLock::new();
        let cell = cell(&BASES, name);
        let rig = Rig::shared();
        let site = rig.sliced();
        let client = site.host().await?.client().await?;
        let base = cell
            .get_or_try_init(async || {
                let plane = rig.virtual_cluster(name).await?;
                let tenant = tenant(&client, "host-shared", cluster).await?;
                let agent = Arc::new(agent(&tenant, &plane, site.host_api().await?).await?);
                anyhow::Ok(Base { tenant, plane, agent })
            })
            .await?;
        Self::of(base, client).await
    }

    /// The one tenant of a dual-stack pair, shared like [`World::shared`]: both sides have the same whole ranges.
    ///
    /// The pair itself, for its audit logs: `Rig::shared().pair(name)`.
    pub async fn paired(name: &str) -> Result<Self> {
        static BASES: Cells = OnceLock::new();
        let cell = cell(&BASES, name);
        let pair = Rig::shared().pair(name).await?;
        let client = pair.host.client().await?;
        let base = cell
            .get_or_try_init(async || {
                let plane = Arc::clone(&pair.virtual_cluster);
                let tenant = tenant(&client, "host-paired", CLUSTER).await?;
                let agent = Arc::new(agent(&tenant, &plane, &pair.host_api).await?);
                anyhow::Ok(Base { tenant, plane, agent })
            })
            .await?;
        Self::of(base, client).await
    }

    /// The one tenant of a pair that a test has for itself.
    pub async fn of_pair(pair: &Pair, name: &str) -> Result<Self> {
        let plane = Arc::clone(&pair.virtual_cluster);
        Self::on(&pair.host, &pair.host_api, plane, name, TenantOptions::default()).await
    }

    async fn of(base: &Base, host: Client) -> Result<Self> {
        Ok(Self {
            tenant: base.tenant.with_client(&host),
            plane: Arc::clone(&base.plane),
            agent: Arc::clone(&base.agent),
            host,
            virtual_cluster: base.plane.client().await?,
        })
    }

    /// A tenant on that host, with that virtual cluster, for a test that disturbs either.
    pub async fn on(
        host: &ControlPlane,
        host_api: &HostApi,
        plane: Arc<ControlPlane>,
        name: &str,
        options: TenantOptions,
    ) -> Result<Self> {
        let client = host.client().await?;
        let tenant = Tenant::create(&client, &format!("host-{name}"), CLUSTER, options).await?;
        let agent = Arc::new(agent(&tenant, &plane, host_api).await?);
        let virtual_cluster = plane.client().await?;
        Ok(Self { tenant, plane, agent, host: client, virtual_cluster })
    }

    /// Makes a namespace of the virtual cluster and gives its Services.
    pub async fn namespace(&self, name: &str) -> Result<Api<Service>> {
        let namespaces: Api<Namespace> = Api::all(self.virtual_cluster.clone());
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        namespaces.create(&PostParams::default(), &namespace).await?;
        Ok(self.services(name))
    }

    /// The Services of a namespace of the virtual cluster.
    pub fn services(&self, namespace: &str) -> Api<Service> {
        Api::namespaced(self.virtual_cluster.clone(), namespace)
    }

    /// A cluster IP, from 2 to 255, that no API server draws by itself: the lower 1/16 of a range is for those who ask.
    ///
    /// Of the first family, which is always IPv4.
    pub fn spare_ip(&self, number: u8) -> String {
        let range = &self.plane.options().service_cidr;
        let network = range.rsplit_once('.').map_or(range.as_str(), |(network, _)| network);
        format!("{network}.{number}")
    }

    /// The same of the second family, on a pair.
    pub fn spare_ip6(&self, number: u8) -> String {
        let (_, range) = self.plane.options().service_cidr.split_once(',').expect("two ranges");
        let (network, _) = range.split_once('/').expect("a range has a length");
        format!("{network}{number:x}")
    }

    /// A node port, from 0 to 15, that no API server draws by itself.
    pub fn spare_port(&self, number: u16) -> u16 {
        let range = self.plane.options().node_port_range.as_deref().unwrap_or("30000-32767");
        let first = range.split('-').next().and_then(|first| first.parse::<u16>().ok());
        first.expect("a range has a first port") + number
    }

    /// The twin of a virtual Service, once there is one that `holds`.
    pub async fn twin(&self, service: &Service, holds: impl Fn(&Service) -> bool) -> Result<Service> {
        let (name, namespace) = (service.name_any(), service.namespace().unwrap_or_default());
        let twins = self.tenant.host_services();
        let twin = self.tenant.twin_name(&name, &namespace);
        eventually(&format!("the twin of {namespace}/{name}"), SOON, async || {
            let found = twins.get_opt(&twin).await?.context("there is none")?;
            ensure!(holds(&found), "it is {}", serde_json::to_string(&found.spec)?);
            anyhow::Ok(found)
        })
        .await
    }

    /// The twin, once it is what the virtual Service asks for in every field that crosses, and in no other.
    pub async fn follows(&self, service: &Service) -> Result<Service> {
        eventually(&is_right(service), SOON, async || self.right_twin(service).await).await
    }

    /// The twin, once it is what the virtual Service is by then, which differs from `service` in numbers at most.
    ///
    /// For what happens while the agent is down: a number that the virtual cluster draws then may be another twin's on the
    /// host, and is replaced on both sides.
    pub async fn follows_in_all_but_numbers(&self, service: &Service) -> Result<Service> {
        let services = self.services(&service.namespace().unwrap_or_default());
        eventually(&is_right(service), SOON, async || {
            let stands = services.get(&service.name_any()).await?;
            ensure!(stands.uid() == service.uid(), "it is another Service");
            let (stands_as, wanted) = (without_numbers(&stands), without_numbers(service));
            ensure!(stands_as == wanted, "the virtual Service is {stands_as:?} and not {wanted:?}");
            self.right_twin(&stands).await
        })
        .await
    }

    /// The twin as it is now, if it is what the virtual Service asks for.
    async fn right_twin(&self, service: &Service) -> Result<Service> {
        let twin = self.tenant.twin_name(&service.name_any(), &service.namespace().unwrap_or_default());
        let found = self.tenant.host_services().get_opt(&twin).await?.context("there is none")?;
        let differences = differences(&self.tenant, service, &found);
        ensure!(differences.is_empty(), "{}", differences.join("; "));
        Ok(found)
    }

    /// Waits until a virtual Service has no twin.
    pub async fn no_twin(&self, name: &str, namespace: &str) -> Result<()> {
        let twins = self.tenant.host_services();
        let twin = self.tenant.twin_name(name, namespace);
        eventually(&format!("no twin of {namespace}/{name}"), SOON, async || {
            ensure!(twins.get_opt(&twin).await?.is_none(), "it stands");
            anyhow::Ok(())
        })
        .await
    }

    /// Waits until the agent has logged that host-api refuses a Service for this reason.
    pub async fn told(&self, name: &str, namespace: &str, reason: &str) -> Result<()> {
        let key = format!("services/{namespace}/{name}");
        eventually(&format!("{key} refused as {reason}"), SOON, async || {
            let lines = self.agent.log_lines()?;
            let told = |line: &String| line.contains(&key) && line.contains(reason);
            ensure!(lines.iter().any(told), "{:?}", lines.iter().rfind(|line| line.contains(&key)));
            anyhow::Ok(())
        })
        .await
    }
}

fn is_right(service: &Service) -> String {
    format!("the twin of {}/{} is right", service.namespace().unwrap_or_default(), service.name_any())
}

fn cell(cells: &'static Cells, name: &str) -> Arc<OnceCell<Base>> {
    let cells = cells.get_or_init(std::sync::Mutex::default);
    Arc::clone(cells.lock().expect("no test panics here").entry(name.to_owned()).or_default())
}

/// A tenant with k3k's own syncer off.
pub async fn tenant(host: &Client, namespace: &str, cluster: &str) -> Result<Tenant> {
    Tenant::create(host, namespace, cluster, TenantOptions::default()).await
}

/// The agent of a tenant's first server pod, ready.
pub async fn agent(tenant: &Tenant, plane: &ControlPlane, host_api: &HostApi) -> Result<Agent> {
    let token = tenant.server_pod_token(0).await?;
    let agent = Agent::start(plane, host_api, &token, AgentOptions::in_pod(&tenant.server_pod_name(0))).await?;
    agent.wait_ready().await?;
    Ok(agent)
}

/// A Service of the virtual cluster.
pub fn service(name: &str, spec: Value) -> Service {
    let mut service = json!({"metadata": {"name": name}});
    service["spec"] = spec;
    serde_json::from_value(service).expect("a Service")
}

/// Creates a Service.
pub async fn create(services: &Api<Service>, service: &Service) -> Result<Service> {
    Ok(services.create(&PostParams::default(), service).await?)
}

/// Changes a Service by a strategic merge patch, as kubectl does.
pub async fn change(services: &Api<Service>, name: &str, patch: Value) -> Result<Service> {
    let changed = services.patch(name, &PatchParams::default(), &Patch::Strategic(&patch)).await;
    changed.with_context(|| format!("changing {name} by {patch}"))
}

/// Changes a Service by a merge patch, which replaces lists.
pub async fn replace(services: &Api<Service>, name: &str, patch: Value) -> Result<Service> {
    let changed = services.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await;
    changed.with_context(|| format!("changing {name} by {patch}"))
}

/// Deletes a Service.
pub async fn delete(services: &Api<Service>, name: &str) -> Result<()> {
    services.delete(name, &DeleteParams::default()).await?;
    Ok(())
}
