//! A tenant whose agent is spoken by hand, so that a test chooses numbers, and when the virtual cluster follows, itself.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k3k_expose_proto::message::{Answer, FromAgent, FromHost, Numbers, Put, Want};
use k3k_expose_proto::service::{ClusterIps, Service, ServiceType};
use k3k_expose_proto::{Hash, Outcome, Reason};
use k3k_expose_tests::Rig;
use k3k_expose_tests::k3k::{Tenant, TenantOptions};
use k3k_expose_tests::product::HostApi;
use k3k_expose_tests::wire::{self, WireSession, service_port};
use k8s_openapi::api::core::v1::Service as HostService;
use kube::{Client, ResourceExt};
use tokio::time::{Instant, timeout};

use crate::world::SOON;

/// A tenant in a session.
pub struct Spoken {
    /// The tenant.
    pub tenant: Tenant,
    /// Its session.
    pub session: WireSession,
    /// A client of the host, with all rights.
    pub host: Client,
}

impl Spoken {
    /// A tenant of the shared host-api, with nothing in its virtual cluster.
    pub async fn start(name: &str) -> Result<Self> {
        let tenant = Self::tenant(name).await?;
        Self::on(Rig::shared().host_api().await?, tenant).await
    }

    /// A tenant that has no session yet.
    pub async fn tenant(name: &str) -> Result<Tenant> {
        let host = Rig::shared().host().await?.client().await?;
        Tenant::create(&host, name, "spoken", TenantOptions::default()).await
    }

    /// Opens the session with a host-api of the tenant's host.
    pub async fn on(host_api: &HostApi, tenant: Tenant) -> Result<Self> {
        let host = tenant.host_client().clone();
        let token = tenant.server_pod_token(0).await?;
        let session = WireSession::open(host_api, &token, wire::hello("spoken-cluster", &[])?).await?.0;
        session.send_snapshot(&[]).await?;
        Ok(Self { tenant, session, host })
    }

    /// Says an object, again when host-api wants it, until it has an answer that is not pending.
    pub async fn say(&mut self, put: &Put) -> Result<Answer> {
        self.session.send(&FromAgent::Put(put.clone())).await?;
        self.hear(put, |answer| answer.outcome != Outcome::Pending).await
    }

    /// The next answer to this object that `fits`.
    pub async fn hear(&mut self, put: &Put, fits: impl Fn(&Answer) -> bool) -> Result<Answer> {
        let heard = async {
            loop {
                match self.session.next().await?.context("the session ended")? {
                    FromHost::Answer(answer) if answer.key == put.key && answer.hash == put.hash && fits(&answer) => {
                        return Ok(*answer);
                    }
                    FromHost::Want(Want::Keys(keys)) if keys.contains(&put.key) => {
                        self.session.send(&FromAgent::Put(put.clone())).await?;
                    }
                    FromHost::Bye(bye) => bail!("{bye:?}"),
                    _ => {}
                }
            }
        };
        timeout(SOON, heard).await.with_context(|| format!("no such answer for {}", put.key))?
    }

    /// Waits until host-api wants an object again by itself, says it, and gives the answer and how long that took.
    pub async fn asked_again(&mut self, put: &Put, reason: Reason) -> Result<(Answer, Duration)> {
        let start = Instant::now();
        let answer = self.hear(put, |answer| answer.reason == reason).await?;
        Ok((answer, start.elapsed()))
    }

    /// The twin of an object.
    pub async fn twin(&self, put: &Put) -> Result<HostService> {
        let name = self.tenant.twin_name(put.key.name(), put.key.namespace());
        Ok(self.tenant.host_services().get(&name).await?)
    }

    /// Whether an object has a twin.
    pub async fn has_twin(&self, put: &Put) -> Result<bool> {
        let name = self.tenant.twin_name(put.key.name(), put.key.namespace());
        Ok(self.tenant.host_services().get_opt(&name).await?.is_some())
    }

    /// The twin, which has to hold what the answer says.
    pub async fn holds(&self, put: &Put, answer: &Answer) -> Result<HostService> {
        let twin = self.twin(put).await?;
        let spec = twin.spec.as_ref().context("a spec")?;
        let told = answer.numbers.clone().context("numbers")?;
        let ips: Vec<String> = told.cluster_ips.iter().map(ToString::to_string).collect();
        ensure!(spec.cluster_ips.clone().unwrap_or_default() == ips, "{ips:?} is not {:?}", spec.cluster_ips);
        let ports: Vec<i32> = spec.ports.iter().flatten().filter_map(|port| port.node_port).collect();
        ensure!(ports == node_ports(&told), "{ports:?} is not {told:?}");
        ensure!(twin.uid().is_some());
        Ok(twin)
    }
}

/// A Service with one port and these numbers; none where they are empty or 0.
pub fn numbered(service_type: ServiceType, ip: &str, node_port: u16) -> Result<Service> {
    let mut service = Service::new(service_type);
    if !ip.is_empty() {
        service.cluster_ips = ClusterIps::Addresses(vec![ip.parse()?]);
    }
    let mut port = service_port(80)?;
    port.node_port = node_port.try_into().ok();
    service.ports = vec![port];
    Ok(service)
}

/// The `put` of a Service, in a namespace that says nothing.
pub fn put(name: &str, service: Service) -> Result<Put> {
    wire::put("default", name, &format!("uid-of-{name}"), service)
}

/// The same object, changed.
pub fn changed(put: &Put, change: impl FnOnce(&mut Service)) -> Put {
    let mut put = put.clone();
    let k3k_expose_proto::message::Object::Service(service) = &mut put.object else { panic!("a Service") };
    change(service);
    put.hash = Hash::of(service);
    put
}

/// Its first cluster IP.
pub fn cluster_ip(answer: &Answer) -> String {
    let ips = answer.numbers.as_ref().map(|numbers| numbers.cluster_ips.as_slice()).unwrap_or_default();
    ips.first().map(ToString::to_string).unwrap_or_default()
}

/// Its node ports.
pub fn node_ports(numbers: &Numbers) -> Vec<i32> {
    numbers.node_ports.iter().map(|port| port.node_port.get().into()).collect()
}
