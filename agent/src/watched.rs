//! What a watch does with each kind of object: those with a line of their own go into the outbox and the write-back, and
//! EndpointSlices to the Services that they are for.
//!
//! The trap: a Service without a selector is said again whenever its slices change, as it was seen last; so it is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use k3k_expose_proto::{Key, Resource, Uid};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Resource as Metadata;
use serde::de::DeserializeOwned;

use crate::agent::Agent;
use crate::endpoints::{self, Named};
use crate::observed::{Exposed, Observed};
use crate::outbox::Refusal;
use crate::packed::Change;

/// A kind of object that is watched.
pub(crate) trait Watched:
    Metadata<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
    /// Its name in the log.
    const NAME: &'static str;
    /// Labels of those that matter.
    const SELECTOR: Option<&'static str> = None;
    /// What is kept of each until a list is complete.
    type Item: Send;

    /// One object of a list.
    fn item(&self, agent: &Agent, admitted: &BTreeSet<String>) -> Option<Self::Item>;

    /// Waits until a complete list may be taken in.
    async fn may_be_taken_in(_: &Agent) {}

    /// A list is complete. Gives how many there are.
    fn listed(agent: &Agent, cluster: &Uid, items: Vec<Self::Item>) -> usize;

    /// It was added or has changed.
    fn seen(&self, agent: &Agent);

    /// It was deleted.
    fn gone(&self, agent: &Agent);

    /// Whether what was listed still counts.
    fn has_listed(agent: &Agent) -> bool;

    /// How its watch fares.
    fn fares(agent: &Agent, state: Result<(), String>);
}

impl<K: Exposed> Watched for K {
    const NAME: &'static str = K::RESOURCE.as_str();
    type Item = Observed;

    fn item(&self, agent: &Agent, admitted: &BTreeSet<String>) -> Option<Observed> {
        agent.join(|join| self.observe(admitted, join))
    }

    /// Services are said with their endpoints or not at all, but read at the same time.
    async fn may_be_taken_in(agent: &Agent) {
        if K::RESOURCE == Resource::Services {
            // The sender lives as long as the agent does.
            let _ = agent.joined().subscribe().wait_for(|joined| *joined).await;
        }
    }

    fn listed(agent: &Agent, cluster: &Uid, mut items: Vec<Observed>) -> usize {
        let standing = items.iter_mut().filter_map(|seen| Some((seen.key.clone(), seen.standing.take()?))).collect();
        let bare: BTreeMap<_, _> =
            items.iter_mut().filter_map(|seen| Some((seen.key.clone(), seen.bare.take()?))).collect();
        let mut changes: Vec<Change> = items.into_iter().map(|seen| seen.change).collect();
        changes.retain(|change| !matches!(change, Change::Gone(..)));
        let count = changes.len();
        agent.write_back(|write_back, _| write_back.listed(K::RESOURCE, standing));
        let refusals = agent.listed(K::RESOURCE, cluster, changes);
        refusals.into_iter().for_each(|refusal| tell(Some(refusal)));
        if K::RESOURCE == Resource::Services {
            agent.join(|join| join.replace_bare(bare));
            // Slices may have come or changed while the list was under way.
            join_all_anew(agent);
        }
        count
    }

    fn seen(&self, agent: &Agent) {
        let observed = agent.read(|outbox| agent.join(|join| self.observe(outbox.admitted(), join)));
        if let Some(mut observed) = observed {
            keep(agent, &mut observed);
            take_in(agent, observed);
        }
    }

    fn gone(&self, agent: &Agent) {
        if let Some(mut observed) = self.observe_gone() {
            let Observed { key, uid, .. } = &observed;
            agent.write_back(|write_back, _| write_back.gone(key, uid));
            keep(agent, &mut observed);
            tell(agent.seen(observed.change));
        }
    }

    fn has_listed(agent: &Agent) -> bool {
        agent.read(|outbox| outbox.has_listed(K::RESOURCE))
    }

    fn fares(agent: &Agent, state: Result<(), String>) {
        agent.set_watch(K::RESOURCE, state);
    }
}

impl Watched for EndpointSlice {
    const NAME: &'static str = "endpointslices";
    const SELECTOR: Option<&'static str> = Some(endpoints::SELECTOR);
    type Item = Named;

    fn item(&self, _: &Agent, _: &BTreeSet<String>) -> Option<Named> {
        endpoints::reduce(self)
    }

    fn listed(agent: &Agent, _: &Uid, items: Vec<Named>) -> usize {
        let count = items.len();
        agent.join(|join| join.replace(items));
        join_all_anew(agent);
        agent.joined().send_replace(true);
        count
    }

    fn seen(&self, agent: &Agent) {
        if let Some(named) = endpoints::reduce(self) {
            let key = named.key.clone();
            agent.join(|join| join.set(named));
            join_anew(agent, &key);
        }
    }

    fn gone(&self, agent: &Agent) {
        if let Some(named) = endpoints::reduce(self) {
            agent.join(|join| join.remove(&named));
            join_anew(agent, &named.key);
        }
    }

    fn has_listed(_: &Agent) -> bool {
        true
    }

    fn fares(agent: &Agent, state: Result<(), String>) {
        agent.set_endpoints_watch(state);
    }
}

/// Keeps a Service that has no selector for the day when its slices change.
fn keep(agent: &Agent, observed: &mut Observed) {
    agent.join(|join| join.set_bare(&observed.key, observed.bare.take()));
}

/// Says a Service without a selector again if its slices make it another.
fn join_anew(agent: &Agent, key: &Key) {
    let observed = agent.read(|outbox| agent.join(|join| join.bare(key)?.observe(outbox.admitted(), join)));
    if let Some(observed) = observed {
        take_in(agent, observed);
    }
}

/// The same of all of them.
fn join_all_anew(agent: &Agent) {
    let bare: Vec<Key> = agent.join(|join| join.all_bare().cloned().collect());
    bare.iter().for_each(|key| join_anew(agent, key));
}

fn take_in(agent: &Agent, observed: Observed) {
    let Observed { key, standing, change, .. } = observed;
    if let Some(standing) = standing {
        agent.write_back(|write_back, _| write_back.seen(&key, standing));
    }
    tell(agent.seen(change));
}

/// Says what this agent itself refuses, once per change.
fn tell(refusal: Option<Refusal>) {
    if let Some(Refusal { key, reason, message }) = refusal {
        let key: Key = key;
        tracing::warn!(%key, reason, message, "object not carried");
    }
}
