//! Carries out what the registry decides, call by call, on the host's API server. I/O.
//!
//! The trap: a number is drawn before a name is checked, so a create whose own name is taken fails with "already
//! allocated". The name is therefore read live before a conflict of numbers is believed, and then the holder is looked for.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k3k_expose_process::quote::causes;
use k3k_expose_proto::limits::ENDPOINT_SETS;
use k3k_expose_proto::{Hash, Key, Resource, Uid};
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{IPAddress, Ingress};
use kube::api::{DeleteParams, ListParams, Patch, Preconditions};
use kube::{Api, Client};
use serde_json::Value;
use tokio::task::consume_budget;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::hub::Hub;
use crate::ingress::secret::SecretTwin;
use crate::lease::{Leadership, Term};
use crate::metrics::{Metrics, Verb};
use crate::pace::Pace;
use crate::params;
use crate::plan::Road;
use crate::refusal::{self, Refusal};
use crate::registry::Task;
use crate::services::HostName;
use crate::twin::{CLUSTER_NAME, VIRTUAL_NAMESPACE};

/// Longest that a first call may take: an API server that has just started may hold a request back for a minute.
const CALL: Duration = Duration::from_secs(10);
/// Longest that any call may take: a webhook of the host may take 30 s and still let the call through.
const CALL_MOST: Duration = Duration::from_secs(40);
/// Most calls in a row for one object. A walk takes two and a lost race one more, other endpoints one for each set that goes and
/// comes; beyond that somebody undoes them.
const CALLS: usize = 8 + 2 * ENDPOINT_SETS;

/// Writes in each term of this replica until it is told to stop, then finishes the calls under way. Where a term ends,
/// the calls under way are dropped, and all that agents have said is forgotten: it is said to somebody else by then.
pub async fn in_each_term(
    hub: Arc<Hub>,
    client: Client,
    metrics: Arc<Metrics>,
    leadership: Leadership,
    stop: CancellationToken,
) {
    loop {
        let term = tokio::select! {
            () = stop.cancelled() => return,
            term = leadership.gained() => term,
        };
        metrics.leads(true);
        let ended = term.ended().clone();
        let writer = Writer {
            hub: Arc::clone(&hub),
            client: client.clone(),
            metrics: Arc::clone(&metrics),
            leadership: leadership.clone(),
            term,
        };
        tokio::select! {
            biased;
            () = ended.cancelled() => {}
            () = writer.run(stop.clone()) => return,
        }
        metrics.leads(false);
        // Who leads counts them.
        metrics.uninjected(0);
        hub.begin_anew();
    }
}

struct Writer {
    hub: Arc<Hub>,
    client: Client,
    metrics: Arc<Metrics>,
    leadership: Leadership,
    term: Term,
}

impl Writer {
    /// Writes until it is told to stop, then finishes the calls under way.
    async fn run(&self, stop: CancellationToken) {
        let mut pace = Pace::default();
        let mut under_way = FuturesUnordered::new();
        loop {
            // Thousands of looks in a row may end without a call, and on one thread everybody else would wait for them.
            consume_budget().await;
            let due = self.hub.with(|registry, now| registry.tick(now));
            while !stop.is_cancelled() && under_way.len() < pace.limit() {
                let Some((tenant, key)) = self.hub.with(|registry, now| registry.take(pace.share(), now)) else {
                    break;
                };
                under_way.push(self.settle(tenant, key));
            }
            if stop.is_cancelled() && under_way.is_empty() {
                return;
            }
            let next = due.map_or(Duration::from_secs(3600), |due| due.saturating_sub(self.hub.now()));
            tokio::select! {
                Some(overloaded) = under_way.next(), if !under_way.is_empty() => {
                    if overloaded {
                        pace.overloaded();
                    } else {
                        pace.finished(self.hub.now(), self.hub.with(|registry, _| registry.has_waiting()));
                    }
                }
                () = self.hub.work() => {}
                () = sleep_until(Instant::now() + next) => {}
                () = stop.cancelled(), if !stop.is_cancelled() => {}
            }
        }
    }

    /// Works on one object until it has its answer. Gives whether the API server was overloaded.
    async fn settle(&self, tenant: Uid, key: Key) -> bool {
        let overloaded = self.steps(&tenant, &key).await;
        self.hub.with(|registry, now| registry.done(&tenant, &key, now));
        overloaded
    }

    async fn steps(&self, tenant: &Uid, key: &Key) -> bool {
        let failures = self.hub.with(|registry, _| registry.failures(tenant, key));
        let patience = CALL.saturating_mul(1 << failures.min(2)).min(CALL_MOST);
        let mut road = Road::default();
        let first = self.hub.with(|registry, _| registry.wish(tenant, key));
        for _ in 0..CALLS {
            let (task, wish) = self.hub.with(|registry, now| {
                let task = registry.decide(tenant, key, road, now);
                (task, registry.wish(tenant, key))
            });
            let give_up = |refusal| self.give_up(tenant, key, wish.as_ref(), &task, refusal);
            let (at, refused) = match &task {
                Task::Settled => return false,
                Task::InspectPods { namespace, cluster } => match self.pods_labeled(namespace, cluster).await {
                    Ok(labeled) => {
                        self.hub.with(|registry, now| registry.pods_inspected(tenant, labeled, now));
                        continue;
                    }
                    Err(refusal) => return give_up(refusal),
                },
                Task::Create(at, service) => (at, self.create(at, service, patience).await),
                Task::CreateSecret(at, secret) => match self.create_secret(tenant, at, secret, patience).await {
                    Ok(()) => continue,
                    Err(refusal) => return give_up(refusal),
                },
                Task::DeleteSecret(at) => match self.delete_secret(at, patience).await {
                    Ok(()) => {
                        self.hub.with(|registry, _| registry.secret_deleted(tenant, key, at));
                        continue;
                    }
                    Err(refusal) => return give_up(refusal),
                },
                Task::CreateIngress(at, ingress) => (at, self.create_ingress(at, ingress, patience).await),
                Task::Patch(at, patch) => (at, self.patch(key.resource(), at, patch, patience).await),
                Task::CreateSlice(..) | Task::PatchSlice(..) | Task::DeleteSlice { .. } => {
                    match self.write_slice(&task, patience).await {
                        Ok(()) => continue,
                        Err(refusal) => return give_up(refusal),
                    }
                }
                Task::Delete { at, uid, resource_version } => {
                    let result = self.delete(key.resource(), at, params::only(uid, resource_version), patience).await;
                    if result.is_ok() && self.hub.with(|registry, _| registry.deleted(tenant, key, uid)) {
                        return false;
                    }
                    (at, result)
                }
            };
            match refused {
                Ok(()) => {}
                // A patch has found its Service, so here it is the number that is in the way.
                Err(refusal @ Refusal::Held(_)) if matches!(task, Task::Patch(..)) => {
                    self.look_for_holder(tenant, key, &task).await;
                    return give_up(refusal);
                }
                Err(refusal @ (Refusal::Conflict | Refusal::Exists | Refusal::Absent | Refusal::Held(_))) => {
                    match self.read(key.resource(), at).await {
                        Err(unread) => return give_up(unread),
                        // Only now is it known that the number, not the name, was in the way.
                        Ok(false) if matches!(refusal, Refusal::Held(_)) => {
                            self.look_for_holder(tenant, key, &task).await;
                            return give_up(refusal);
                        }
                        Ok(_) => {}
                    }
                }
                Err(Refusal::Immutable) => match road.next() {
                    Some(next) => road = next,
                    None => return give_up(Refusal::Immutable),
                },
                Err(refusal) => return give_up(refusal),
            }
        }
        // The tenant itself may change an object as fast as it is written. That is no contest, but others have their turn.
        if self.hub.with(|registry, _| registry.again_if_other(tenant, key, first.as_ref())) {
            return false;
        }
        info!(%key, tenant = %tenant, "gave up on an object that changes under our hands");
        self.hub.with(|registry, now| registry.contested(tenant, key, now));
        false
    }

    /// Lets a refusal stand as the answer, unless the tenant wants something else by now than what was tried.
    fn give_up(&self, tenant: &Uid, key: &Key, tried: Option<&(Uid, Hash)>, task: &Task, refusal: Refusal) -> bool {
        self.hub.with(|registry, now| {
            if !registry.again_if_other(tenant, key, tried) {
                registry.refused(tenant, key, refusal, &task.asked(), now);
            }
        });
        refusal == Refusal::Overloaded
    }

    async fn create(&self, at: &HostName, service: &Service, patience: Duration) -> Result<(), Refusal> {
        let created = self.call(Verb::Create, at, patience, self.services(at).create(&params::post(), service)).await?;
        self.hub.with(|registry, now| registry.service_answered(created, now));
        Ok(())
    }

    async fn create_ingress(&self, at: &HostName, ingress: &Ingress, patience: Duration) -> Result<(), Refusal> {
        let created =
            self.call(Verb::Create, at, patience, self.ingresses(at).create(&params::post(), ingress)).await?;
        self.hub.with(|registry, now| registry.ingress_answered(created, now));
        Ok(())
    }

    /// A name says what is in it, so one that is taken has been made before.
    async fn create_secret(
        &self,
        tenant: &Uid,
        at: &HostName,
        secret: &SecretTwin,
        patience: Duration,
    ) -> Result<(), Refusal> {
        match self.call(Verb::Create, at, patience, self.secrets(at).create(&params::post(), &secret.object())).await {
            Ok(_) | Err(Refusal::Exists) => {
                self.hub.with(|registry, _| registry.secret_made(tenant, at));
                Ok(())
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// A refusal that lasts keeps nothing else of the tenant's on the host.
    async fn delete_secret(&self, at: &HostName, patience: Duration) -> Result<(), Refusal> {
        match self.call(Verb::Delete, at, patience, self.secrets(at).delete(&at.name, &DeleteParams::default())).await {
            Ok(_) | Err(Refusal::Absent) => Ok(()),
            Err(refusal @ (Refusal::Overloaded | Refusal::Unavailable | Refusal::Conflict)) => Err(refusal),
            Err(refusal) => {
                warn!(?refusal, namespace = at.namespace, name = at.name, "twin of a Secret left behind");
                Ok(())
            }
        }
    }

    async fn patch(&self, of: Resource, at: &HostName, patch: &Value, patience: Duration) -> Result<(), Refusal> {
        let patch = Patch::Merge(patch);
        match of {
            Resource::Services => {
                let services = self.services(at);
                let patched =
                    self.call(Verb::Patch, at, patience, services.patch(&at.name, &params::patch(), &patch)).await?;
                self.hub.with(|registry, now| registry.service_answered(patched, now));
            }
            Resource::Ingresses => {
                let ingresses = self.ingresses(at);
                let patched =
                    self.call(Verb::Patch, at, patience, ingresses.patch(&at.name, &params::patch(), &patch)).await?;
                self.hub.with(|registry, now| registry.ingress_answered(patched, now));
            }
            Resource::Secrets => return Err(Refusal::Denied),
        }
        Ok(())
    }

    async fn delete(
        &self,
        of: Resource,
        at: &HostName,
        preconditions: Preconditions,
        patience: Duration,
    ) -> Result<(), Refusal> {
        let params = DeleteParams::background().preconditions(preconditions);
        match of {
            Resource::Services => {
                self.call(Verb::Delete, at, patience, self.services(at).delete(&at.name, &params)).await.map(drop)
            }
            Resource::Ingresses => {
                self.call(Verb::Delete, at, patience, self.ingresses(at).delete(&at.name, &params)).await.map(drop)
            }
            Resource::Secrets => Err(Refusal::Denied),
        }
    }

    /// Writes a slice. What has moved on is read live, and planned again.
    async fn write_slice(&self, task: &Task, patience: Duration) -> Result<(), Refusal> {
        let slices = |at: &HostName| Api::<EndpointSlice>::namespaced(self.client.clone(), &at.namespace);
        let answered = |slice| self.hub.with(|registry, now| registry.slice_answered(slice, now));
        let (at, written) = match task {
            Task::CreateSlice(at, slice) => (
                at,
                self.call(Verb::Create, at, patience, slices(at).create(&params::post(), slice)).await.map(answered),
            ),
            Task::PatchSlice(at, patch) => {
                let patch = Patch::Merge(patch);
                (
                    at,
                    self.call(Verb::Patch, at, patience, slices(at).patch(&at.name, &params::patch(), &patch))
                        .await
                        .map(answered),
                )
            }
            Task::DeleteSlice { at, uid, resource_version } => {
                let params = DeleteParams::background().preconditions(params::only(uid, resource_version));
                let deleted = self.call(Verb::Delete, at, patience, slices(at).delete(&at.name, &params)).await;
                (at, deleted.map(|_| self.hub.with(|registry, now| registry.slice_gone(at, None, now))))
            }
            _ => return Ok(()),
        };
        match written {
            Err(Refusal::Conflict | Refusal::Exists | Refusal::Absent) => {
                let found = self.call(Verb::Get, at, CALL, slices(at).get_opt(&at.name)).await?;
                self.hub.with(|registry, now| match found {
                    Some(slice) => registry.slice_read(slice, now),
                    None => registry.slice_gone(at, None, now),
                });
                Ok(())
            }
            written => written,
        }
    }

    /// Reads an object live, and tells whether it is there.
    async fn read(&self, of: Resource, at: &HostName) -> Result<bool, Refusal> {
        match of {
            Resource::Services => {
                let found = self.call(Verb::Get, at, CALL, self.services(at).get_opt(&at.name)).await?;
                let there = found.is_some();
                self.hub.with(|registry, now| match found {
                    Some(service) => registry.service_read(service, now),
                    None => registry.service_gone(at, None, now),
                });
                Ok(there)
            }
            Resource::Ingresses => {
                let found = self.call(Verb::Get, at, CALL, self.ingresses(at).get_opt(&at.name)).await?;
                let there = found.is_some();
                self.hub.with(|registry, now| match found {
                    Some(ingress) => registry.ingress_read(ingress, now),
                    None => registry.ingress_gone(at, None, now),
                });
                Ok(there)
            }
            Resource::Secrets => Err(Refusal::Denied),
        }
    }

    /// Looks live for the holders of the cluster IPs that a refused call asked for, as far as they are not known. A holder that
    /// cannot be found leaves the refusal to be tried again.
    async fn look_for_holder(&self, tenant: &Uid, key: &Key, task: &Task) {
        let addresses: Api<IPAddress> = Api::all(self.client.clone());
        for ip in task.asked().cluster_ips {
            let at = HostName { namespace: String::new(), name: ip.to_string() };
            let held = self.call(Verb::Get, &at, CALL, addresses.get_opt(&at.name)).await;
            let Ok(Some(IPAddress { spec: Some(spec), .. })) = held else {
                continue;
            };
            let parent = spec.parent_ref;
            if parent.resource == "services" && parent.group.unwrap_or_default().is_empty() {
                let parent = HostName { namespace: parent.namespace.unwrap_or_default(), name: parent.name };
                // What is read is known from then on, and its release is an event.
                let _ = self.read(Resource::Services, &parent).await;
            } else {
                self.hub.with(|registry, now| registry.address_read(tenant, key, ip, now));
            }
        }
    }

    /// Whether every host pod that the Cluster controls carries the labels that a narrowed selector asks for.
    async fn pods_labeled(&self, namespace: &str, cluster: &Uid) -> Result<bool, Refusal> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let at = HostName { namespace: namespace.to_owned(), name: String::new() };
        let pods = self.call(Verb::List, &at, CALL, pods.list_metadata(&ListParams::default())).await?;
        Ok(pods.items.iter().map(|pod| &pod.metadata).all(|meta| {
            let owners = meta.owner_references.as_deref().unwrap_or_default();
            let owner = owners.iter().find(|owner| owner.controller == Some(true) && owner.uid == cluster.as_str());
            let label = |key: &str| meta.labels.as_ref().and_then(|labels| labels.get(key));
            let said = meta.annotations.as_ref().and_then(|annotations| annotations.get(VIRTUAL_NAMESPACE));
            owner.is_none_or(|owner| label(CLUSTER_NAME) == Some(&owner.name) && label(VIRTUAL_NAMESPACE) == said)
        }))
    }

    fn services(&self, at: &HostName) -> Api<Service> {
        Api::namespaced(self.client.clone(), &at.namespace)
    }

    fn secrets(&self, at: &HostName) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &at.namespace)
    }

    fn ingresses(&self, at: &HostName) -> Api<Ingress> {
        Api::namespaced(self.client.clone(), &at.namespace)
    }

    async fn call<T>(
        &self,
        verb: Verb,
        at: &HostName,
        patience: Duration,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Refusal> {
        // By the clock: whoever was stopped for a while may not have heard yet.
        if !self.leadership.is_in(&self.term) {
            return Err(Refusal::Unavailable);
        }
        let result = match timeout(patience, call).await {
            Ok(result) => result.map_err(|error| (refusal::read(&error), causes(&error))),
            Err(_) => Err((Refusal::Unavailable, "no answer in time".to_owned())),
        };
        self.metrics.called(verb, result.as_ref().err().map(|(refusal, _)| *refusal));
        result.map_err(|(refusal, error)| {
            debug!(?verb, ?refusal, namespace = at.namespace, name = at.name, error, "call failed");
            refusal
        })
    }
}
