//! Carries out what the write-back decides, call by call, on the virtual API server. I/O.
//!
//! The trap: conditions are written by strategic merge, since a merge patch would erase those of others; lists of ports
//! by merge patch, since a strategic merge fails on one port with two protocols.

mod ingress;

use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k3k_expose_process::cidr::Cidr;
use k3k_expose_process::quote::causes;
use k3k_expose_proto::message::{Numbers, Unusable};
use k3k_expose_proto::{Key, Resource};
use k8s_openapi::api::core::v1::{ObjectReference, Service};
use k8s_openapi::api::events::v1::Event as KubeEvent;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};

use crate::account::Account;
use crate::agent::Agent;
use crate::observed::Exposed;
use crate::pins::MANAGER;
use crate::renumber;
use crate::write_back::{Event, Job, K3K_FINALIZER, Outcomes, Refusal, SYNCED, Standing, Status, Step};

/// Writes side by side: enough to keep a small control plane busy, not to choke it.
const AT_ONCE: usize = 4;
/// Longest that a call may take. An admission webhook of the tenant may take 30 s and still let it through.
const CALL: Duration = Duration::from_secs(35);

/// Writes into one virtual cluster.
pub(crate) struct Reflect<'a> {
    agent: &'a Agent,
    account: &'a Account,
    client: Client,
}

impl<'a> Reflect<'a> {
    pub(crate) fn new(agent: &'a Agent, account: &'a Account, client: Client) -> Self {
        Self { agent, account, client }
    }

    /// Writes for as long as it is polled.
    pub(crate) async fn run(&self) {
        self.account.minted().await;
        // Whoever wrote before was cut off in the middle.
        self.agent.next_write(|write_back, _| write_back.nobody_writes());
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < AT_ONCE
                && let Some(job) = self.agent.next_write(|write_back, now| write_back.next(now))
            {
                under_way.push(self.carry_out(job));
            }
            let wait = self.agent.next_write(|write_back, now| {
                write_back.next_due().map_or(Duration::from_secs(3600), |due| due.saturating_sub(now))
            });
            tokio::select! {
                Some(()) = under_way.next(), if !under_way.is_empty() => {}
                () = self.agent.writes().notified() => {}
                () = sleep_until(Instant::now() + wait), if under_way.len() < AT_ONCE => {}
            }
        }
    }

    async fn carry_out(&self, job: Job) {
        let write = async {
            match job.key.resource() {
                Resource::Secrets => Ok(None),
                Resource::Services => self.write(&job).await.map(|service| self.standing(service.as_ref())),
                Resource::Ingresses => self.write_ingress(&job).await.map(|ingress| self.standing(ingress.as_ref())),
            }
        };
        let result = match timeout(CALL, write).await {
            Ok(result) => result,
            Err(_) => Err((Refusal::Unavailable, "no answer in time".to_owned())),
        };
        let word = result.as_ref().err().map_or("ok", |(refusal, _)| refusal.word());
        self.agent.metrics.count_write(job.step.word(), word);
        let Outcomes { unusable, events, reflected } = match result {
            Ok(standing) => self.agent.next_write(|write_back, now| write_back.written(&job, standing, now)),
            Err((refusal, error)) => {
                let (key, step) = (&job.key, job.step.word());
                tracing::debug!(%key, step, ?refusal, error, "write refused by the virtual cluster");
                if refusal == Refusal::Account {
                    self.account.mend();
                }
                let chance = fastrand::f64();
                self.agent.next_write(|write_back, now| write_back.refused(&job, refusal, now, chance))
            }
        };
        if let Some(latency) = reflected {
            self.agent.metrics.reflected(latency);
        }
        if let Some(unusable) = unusable {
            tracing::info!(key = %job.key, ?unusable, "numbers of the host are of no use here");
            self.agent.change(|outbox| outbox.unusable(&job.key, &job.uid, unusable));
        }
        for event in events {
            self.publish(&job, &event).await;
        }
    }

    /// Gives the Service as it is after the write.
    async fn write(&self, job: &Job) -> Result<Option<Service>, (Refusal, String)> {
        let services: Api<Service> = Api::namespaced(self.client.clone(), job.key.namespace());
        match &job.step {
            Step::Tell(_) => Ok(None),
            Step::Status(status) => {
                let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
                let body = status_body(job, status, &Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
                // Addresses alone need no merging by keys, which costs the API server more.
                let patched = if status.has_conditions() {
                    call(services.patch_status(job.key.name(), &params, &Patch::Strategic(&body))).await
                } else {
                    call(services.patch_status(job.key.name(), &params, &Patch::Merge(&body))).await
                };
                patched.map(Some)
            }
            step => {
                let Some(service) = call(services.get_opt(job.key.name())).await? else {
                    return Err((Refusal::Gone, "the Service is gone".to_owned()));
                };
                if service.metadata.uid.as_deref() != Some(job.uid.as_str()) {
                    return Err((Refusal::Gone, "it is another Service".to_owned()));
                }
                let body = match step {
                    Step::StripFinalizer => Some(without_finalizer(&service)),
                    Step::Arrive(ask) => renumber::arrive(&service, *ask),
                    Step::Leave(numbers, _) => {
                        self.inspect(&job.key, &service, numbers).await?;
                        renumber::leave(&service, numbers)
                    }
                    Step::NodePorts(ports, _) => {
                        let numbers = Numbers { node_ports: ports.clone(), ..Numbers::default() };
                        self.inspect(&job.key, &service, &numbers).await?;
                        renumber::with_node_ports(&service, ports)
                    }
                    Step::Status(_) | Step::Tell(_) => None,
                };
                let Some(body) = body else {
                    // It has moved on since it was decided about. What it is now may be told before the watch does.
                    return Ok(Some(service));
                };
                let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
                call(services.patch(job.key.name(), &params, &Patch::Merge(&body))).await.map(Some)
            }
        }
    }

    /// Whether a Service can have these numbers: a dry run does not reveal a held address.
    async fn inspect(&self, key: &Key, service: &Service, numbers: &Numbers) -> Result<(), (Refusal, String)> {
        let own = service.spec.as_ref().and_then(|spec| spec.cluster_ips.clone()).unwrap_or_default();
        let mut held = Unusable::default();
        for ip in numbers.cluster_ips.iter().filter(|ip| !own.contains(&ip.to_string())) {
            if !self.is_in_range(*ip).await? {
                return Err((Refusal::OutOfRange, format!("{ip} lies outside the Service ranges")));
            }
            let addresses: Api<IPAddress> = Api::all(self.client.clone());
            if call(addresses.get_opt(&ip.to_string())).await?.is_some() {
                held.cluster_ips.push(*ip);
            }
        }
        let ports = numbers.node_ports.iter().map(|port| port.node_port).chain(numbers.health_check_node_port);
        held.node_ports = self
            .agent
            .next_write(|write_back, _| ports.filter(|port| write_back.is_held_by_another(key, *port)).collect());
        if held.is_empty() { Ok(()) } else { Err((Refusal::Held(held), "held in the virtual cluster".to_owned())) }
    }

    /// Servers before 1.33 have no such objects; there only the second update of a move can tell.
    async fn is_in_range(&self, ip: IpAddr) -> Result<bool, (Refusal, String)> {
        let ranges: Api<ServiceCIDR> = Api::all(self.client.clone());
        let ranges = match timeout(CALL, ranges.list(&ListParams::default())).await {
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => return Ok(true),
            Ok(result) => result.map_err(|error| (Refusal::read(&error), causes(&error)))?,
            Err(_) => return Err((Refusal::Unavailable, "no answer in time".to_owned())),
        };
        let mut cidrs =
            ranges.items.iter().filter_map(|range| range.spec.as_ref()).flat_map(|spec| spec.cidrs.iter().flatten());
        Ok(cidrs.any(|cidr| Cidr::parse(cidr).is_some_and(|cidr| cidr.contains(ip))))
    }

    fn standing(&self, object: Option<&impl Exposed>) -> Option<Standing> {
        self.agent.read(|outbox| self.agent.join(|join| object?.observe(outbox.admitted(), join)))?.standing
    }

    /// Tells what happened. An Event that does not get through is no reason to tell it again.
    async fn publish(&self, job: &Job, event: &Event) {
        let (namespace, name) = (job.key.namespace(), job.key.name());
        let (reason, note) = (event.reason.as_str(), event.note.as_str());
        tracing::info!(key = %job.key, reason, note, "tenant was told");
        let now = Timestamp::now();
        let object = KubeEvent {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:x}{:04x}", now.as_nanosecond(), fastrand::u16(..))),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            action: Some("Expose".to_owned()),
            reason: Some(reason.to_owned()),
            note: Some(note.to_owned()),
            type_: Some(if event.is_warning { "Warning" } else { "Normal" }.to_owned()),
            reporting_controller: Some(MANAGER.to_owned()),
            reporting_instance: Some(MANAGER.to_owned()),
            regarding: Some(ObjectReference {
                api_version: Some(api_version(job.key.resource()).to_owned()),
                kind: Some(job.key.resource().kind().to_owned()),
                name: Some(name.to_owned()),
                namespace: Some(namespace.to_owned()),
                uid: Some(job.uid.to_string()),
                ..ObjectReference::default()
            }),
            ..KubeEvent::default()
        };
        let events: Api<KubeEvent> = Api::namespaced(self.client.clone(), namespace);
        if let Err((_, error)) = call(events.create(&PostParams::default(), &object)).await {
            tracing::debug!(key = %job.key, error, "event not published");
        }
    }
}

const fn api_version(resource: Resource) -> &'static str {
    match resource {
        Resource::Services | Resource::Secrets => "v1",
        Resource::Ingresses => "networking.k8s.io/v1",
    }
}

async fn call<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, (Refusal, String)> {
    match timeout(CALL, call).await {
        Ok(result) => result.map_err(|error| (Refusal::read(&error), causes(&error))),
        Err(_) => Err((Refusal::Unavailable, "no answer in time".to_owned())),
    }
}

/// A strategic merge patch of the status, for this very object as it was when the patch was decided on. A condition's time moves only when its status turns.
fn status_body(job: &Job, status: &Status, now: &str) -> Value {
    let mut conditions: Vec<Value> = Vec::new();
    conditions.extend(status.gone.iter().map(|gone| json!({"$patch": "delete", "type": gone})));
    conditions.extend(status.set.iter().map(|condition| {
        json!({"type": condition.condition_type, "status": condition.status, "reason": condition.reason,
            "message": "as reported on the host", "lastTransitionTime": now})
    }));
    if let Some((synced, turns)) = &status.synced {
        let mut condition =
            json!({"type": SYNCED, "status": synced.status, "reason": synced.reason, "message": synced.message});
        if *turns {
            condition["lastTransitionTime"] = now.into();
        }
        conditions.push(condition);
    }
    let mut body = json!({"metadata": {"uid": job.uid, "resourceVersion": job.revision.to_string()}, "status": {}});
    if !conditions.is_empty() {
        body["status"]["conditions"] = conditions.into();
    }
    if let Some(ingress) = &status.ingress {
        let ingress = if ingress.is_empty() { Value::Null } else { json!(ingress) };
        body["status"]["loadBalancer"] = json!({"ingress": ingress});
    }
    body
}

fn without_finalizer(service: &Service) -> Value {
    let others: Vec<&String> = service.finalizers().iter().filter(|finalizer| *finalizer != K3K_FINALIZER).collect();
    let meta = &service.metadata;
    json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": others}})
}
