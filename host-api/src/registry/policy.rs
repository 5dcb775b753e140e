//! News of policies, and what each tenant may have by them. Pure.
//!
//! A policy that changes is judged against what stands at once, not only against what agents say next: an agent that
//! keeps silent keeps nothing that is not admitted any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k3k_expose_proto::message::{ByeReason, Numbers};
use k3k_expose_proto::{Key, Reason, Resource, Uid};
use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};
use serde_json::{Map, Value, json};

use super::Registry;
use super::judge::{Task, Verdict, deletion};
use crate::cluster::ClusterState;
use crate::ingress::policy::Denial;
use crate::ledger::{Ledger, Record};
use crate::name;
use crate::plan;
use crate::policy::grant::Grant;
use crate::policy::resource::ExposurePolicySpec;
use crate::policy::select::Labels;
use crate::policy::{Reach, Refusal, Usage, standing};
use crate::services::{Blocker, Counted, HostName};
use crate::session::Session;
use crate::tenant::Tenant;
use crate::twin::{HostService, Twin};

/// What the status of a policy says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// Whom it is about.
    pub reach: Reach,
    /// What of it cannot be used.
    pub mistakes: Vec<String>,
}

impl Registry {
    /// A policy of the host, or that it is gone.
    pub fn policy_seen(&mut self, name: &str, spec: Option<ExposurePolicySpec>) {
        if self.policies.set(name, spec) {
            self.grant_anew();
        }
    }

    /// All policies of the host are these.
    pub fn policies_listed(&mut self, listed: &BTreeSet<String>) {
        let gone: Vec<String> =
            self.policies.names().filter(|name| !listed.contains(*name)).map(str::to_owned).collect();
        for name in gone {
            self.policy_seen(&name, None);
        }
        if !std::mem::replace(&mut self.policies_known, true) {
            self.enforce_all();
        }
    }

    /// The labels of a namespace, or that it is gone.
    pub fn namespace_seen(&mut self, name: &str, labels: Option<&Labels>) {
        let labels = labels.filter(|labels| !labels.is_empty());
        let same = self.namespaces.get(name) == labels;
        match labels {
            _ if same => return,
            Some(labels) => self.namespaces.insert(name.to_owned(), labels.clone()),
            None => self.namespaces.remove(name),
        };
        let inside = self.clusters.iter().filter(|(_, state)| state.namespace == name);
        for cluster in inside.map(|(cluster, _)| cluster.clone()).collect::<Vec<_>>() {
            self.grant_of_cluster_anew(&cluster);
        }
    }

    /// All namespaces of the host are these.
    pub fn namespaces_listed(&mut self, listed: &BTreeSet<String>) {
        let gone: Vec<String> = self.namespaces.keys().filter(|name| !listed.contains(*name)).cloned().collect();
        for name in gone {
            self.namespace_seen(&name, None);
        }
        if !std::mem::replace(&mut self.namespaces_known, true) {
            self.enforce_all();
        }
    }

    /// A number that grows whenever [`Self::verdicts`] may have changed.
    #[must_use]
    pub const fn policy_revision(&self) -> u64 {
        self.policy_revision
    }

    /// What the statuses of all policies should say.
    #[must_use]
    pub fn verdicts(&self) -> BTreeMap<String, Verdicts> {
        let none = Labels::new();
        let labels = |state: &'_ ClusterState| self.namespaces.get(&state.namespace);
        let clusters = self.clusters.values().map(|state| (labels(state).unwrap_or(&none), &state.labels));
        let reach = self.policies.reach(clusters);
        let verdicts = reach.into_iter().map(|(name, reach)| {
            let mistakes = self.policies.mistakes(&name).unwrap_or_default().to_vec();
            (name, Verdicts { reach, mistakes })
        });
        verdicts.collect()
    }

    /// What a tenant may have.
    #[must_use]
    pub(super) fn grant(&self, tenant: &Uid) -> &Grant {
        self.grants.get(tenant).unwrap_or(&self.safe)
    }

    fn grant_anew(&mut self) {
        self.policy_revision += 1;
        for cluster in self.clusters.keys().cloned().collect::<Vec<_>>() {
            self.grant_of_cluster_anew(&cluster);
        }
    }

    /// Reads again what a tenant may have, and judges what it has by that.
    pub(super) fn grant_of_cluster_anew(&mut self, cluster: &Uid) {
        self.policy_revision += 1;
        let Some(state) = self.clusters.get(cluster) else {
            self.grants.remove(cluster);
            return;
        };
        let none = Labels::new();
        let grant = self.policies.grant(self.namespaces.get(&state.namespace).unwrap_or(&none), &state.labels);
        let before = self.grants.insert(cluster.clone(), Arc::clone(&grant)).unwrap_or_else(|| Arc::clone(&self.safe));
        if before.admits_same_as(&grant) {
            return;
        }
        if before.shown_annotations() != grant.shown_annotations() {
            // What an agent sends of annotations it learns by `welcome` alone.
            let of_tenant = |session: &Session| session.tenant == *cluster;
            self.end_sessions(ByeReason::Role, "the platform team admits other annotations", of_tenant);
        }
        self.judge_all(cluster);
    }

    /// Looks at every Service of a tenant again: at once if its twin is not admitted as it stands, else with what the agent says.
    fn judge_all(&mut self, tenant: &Uid) {
        self.enforce(tenant);
        let records = self.tenants.get(tenant).into_iter().flat_map(Ledger::records);
        let services = records.map(|(key, _)| key).filter(|key| key.resource() == Resource::Services);
        for key in services.cloned().collect::<Vec<_>>() {
            self.need(tenant, &key);
        }
    }

    /// Sees to it that no twin of whatever tenant stands that is not admitted, be there a session or not.
    pub(super) fn enforce_all(&mut self) {
        for tenant in self.clusters.keys().cloned().collect::<Vec<_>>() {
            self.enforce(&tenant);
        }
    }

    fn enforce(&mut self, tenant: &Uid) {
        let namespace = self.clusters.get(tenant).map(|state| state.namespace.as_str()).unwrap_or_default();
        let twins = self.services.twins(namespace).filter(|(_, twin)| twin.marks.tenant == *tenant);
        let keys: Vec<Key> = twins.map(|(_, twin)| twin.marks.key.clone()).collect();
        for key in keys {
            self.enforce_on(tenant, &key);
        }
    }

    /// Has the writer look at a twin that is not admitted, once it is known what is.
    pub(super) fn enforce_on(&mut self, tenant: &Uid, key: &Key) {
        let Some(state) = self.clusters.get(tenant).filter(|_| self.policies_known && self.namespaces_known) else {
            return;
        };
        let at =
            HostName { namespace: state.namespace.clone(), name: name::twin(key.name(), key.namespace(), &state.name) };
        let twin = self.services.get(&at).and_then(HostService::twin).filter(|twin| twin.marks.is_of(tenant, key));
        let Some(twin) = twin.filter(|twin| self.is_unfit(tenant, twin)) else {
            return;
        };
        if !self.tenants.contains_key(tenant) {
            let home = twin.marks.virtual_cluster.clone().unwrap_or_else(|| tenant.clone());
            let of_cluster = Tenant::of_cluster(tenant.clone(), &state.namespace, &state.name);
            // What it says counts for nothing: a session begins anew.
            self.tenants.insert(tenant.clone(), Ledger::new(of_cluster, home, 0));
        }
        self.queue.add(tenant, key.clone());
        self.effects.work = true;
    }

    fn is_unfit(&self, tenant: &Uid, twin: &Twin) -> bool {
        let grant = self.grant(tenant);
        let fits = || {
            standing::judge(grant, &twin.spec).is_ok()
                && standing::unfit_keys(grant, twin).is_empty()
                && twin.held().node_ports.iter().all(|port| grant.has_in_band(*port))
        };
        // What k3k left is not ours to judge before it is adopted.
        twin.marks.ours && !twin.terminating && !fits()
    }

    /// What to do about an object that is not at hand, by its twin alone. What is not admitted goes, whatever is known of the
    /// virtual cluster.
    pub(super) fn judge_standing(
        &self,
        (ledger, record): (&Ledger, Option<&Record>),
        key: &Key,
        at: &HostName,
        twin: Option<&Twin>,
        now: Duration,
    ) -> Verdict {
        let tenant = ledger.tenant.id();
        let grant = self.grant(tenant);
        let Some(twin) = twin.filter(|twin| twin.marks.is_of(tenant, key) && self.is_unfit(tenant, twin)) else {
            return Verdict::Nothing;
        };
        if self.k3k_writes(tenant, Resource::Services) {
            return Verdict::Nothing;
        }
        let mut spec = twin.spec.clone();
        Self::leave_band(grant, &mut spec);
        let entered = self.enter_band((record, at), grant, &mut spec, Some(twin), now);
        if standing::judge(grant, &twin.spec).is_err() || entered.is_none() {
            return deletion(at.clone(), twin);
        }
        let unfit = standing::unfit_keys(grant, twin);
        let nulls = |keys: &[String]| keys.iter().map(|key| (key.clone(), Value::Null)).collect::<Map<_, _>>();
        let metadata = [("labels", nulls(&unfit.labels)), ("annotations", nulls(&unfit.annotations))];
        let metadata = metadata.into_iter().map(|(field, keys)| (field.to_owned(), Value::Object(keys))).collect();
        Verdict::Do(Task::Patch(at.clone(), plan::patch(twin, &spec, metadata)))
    }

    /// Whether a tenant may have what a Service asks for of what is counted.
    pub(super) fn has_count(&self, ledger: &Ledger, key: &Key, spec: &ServiceSpec) -> Result<(), (Reason, Blocker)> {
        let tenant = ledger.tenant.id();
        let (grant, asked) = (self.grant(tenant), Usage::asked(spec));
        let own = self.usage_of(tenant, key);
        let claimed = ledger.claims.iter().filter(|(other, _)| *other != key);
        let coming =
            claimed.fold(Usage::default(), |sum, (other, claim)| sum.and(claim.without(self.usage_of(tenant, other))));
        let others = self.services.usage(tenant).without(own).and(coming);
        let counts = [
            (Counted::NodePorts, others.node_ports, own.node_ports, asked.node_ports, grant.node_ports),
            (
                Counted::LoadBalancers,
                others.load_balancers,
                own.load_balancers,
                asked.load_balancers,
                grant.load_balancers,
            ),
        ];
        for (counted, others, own, asked, most) in counts {
            let over = asked > 0 && others.saturating_add(asked) > most;
            if over && !(asked <= own && self.keeps(ledger, key, counted, most)) {
                return Err((counted.reason(), Blocker::Count(tenant.clone(), counted)));
            }
        }
        Ok(())
    }

    /// Whether a twin is among those that a tenant keeps when there are more than there may be: the first by name that fit.
    fn keeps(&self, ledger: &Ledger, key: &Key, counted: Counted, most: usize) -> bool {
        let tenant = ledger.tenant.id();
        let twins = self.services.twins(ledger.tenant.namespace()).filter(|(_, twin)| twin.marks.tenant == *tenant);
        let mut sum = 0usize;
        for (_, twin) in twins {
            let has = counted.of(Usage::of(&twin.spec));
            let fits = sum.saturating_add(has) <= most;
            if twin.marks.key == *key {
                return fits;
            }
            sum += if fits { has } else { 0 };
        }
        false
    }

    /// Takes it that the writer makes this call: what it asks for is taken up until the writer is done.
    pub(super) fn claim(&mut self, tenant: &Uid, key: &Key, task: &Task) {
        let asked = match task {
            Task::Create(_, service) => service.spec.as_ref().map(Usage::asked),
            Task::Patch(_, patch) if key.resource() == Resource::Services => {
                serde_json::from_value::<ServiceSpec>(patch["spec"].clone()).ok().map(|spec| Usage::asked(&spec))
            }
            _ => None,
        };
        let Some((asked, ledger)) = asked.filter(|asked| *asked != Usage::default()).zip(self.tenants.get_mut(tenant))
        else {
            return;
        };
        let claim = ledger.claims.entry(key.clone()).or_default();
        *claim = claim.most(asked);
    }

    /// Takes it that the writer is done with an object.
    pub(super) fn unclaim(&mut self, tenant: &Uid, key: &Key) {
        let claim = self.tenants.get_mut(tenant).and_then(|ledger| ledger.claims.remove(key));
        let left = claim.unwrap_or_default().without(self.usage_of(tenant, key));
        self.offer(tenant, left);
    }

    /// Looks again at one of the objects that wait for what became free.
    pub(super) fn offer(&mut self, tenant: &Uid, freed: Usage) {
        for counted in [Counted::NodePorts, Counted::LoadBalancers] {
            for _ in 0..counted.of(freed) {
                self.offer_one(&Blocker::Count(tenant.clone(), counted), None);
            }
        }
    }

    /// What an object was offered and did not take is the next one's. Who was not offered anything passes nothing on, or one
    /// object said again and again would have all others asked for.
    pub(super) fn pass_on(&mut self, tenant: &Uid, key: &Key, waited: &[Blocker], waits: &[Blocker]) {
        let offered = self.tenants.get_mut(tenant).is_some_and(|ledger| ledger.offered.remove(key));
        if !offered || self.standing(tenant, key).is_some() {
            return;
        }
        for blocker in waited.iter().filter(|blocker| matches!(blocker, Blocker::Count(..))) {
            self.offer_one(blocker, waits.contains(blocker).then_some(key));
        }
    }

    /// The same, behind the one that did not take it.
    fn offer_one(&mut self, blocker: &Blocker, behind: Option<&Key>) {
        let waiting = self.waiting.get(blocker).into_iter().flatten();
        let mut next = waiting.filter(|(_, key)| behind.is_none_or(|behind| key > behind));
        // Whoever was offered it already is stale.
        let is_fresh = |tenant: &Uid, key: &Key| self.record(tenant, key).is_some_and(|record| !record.stale);
        let next = next.find(|(tenant, key)| is_fresh(tenant, key)).cloned();
        if let Some((tenant, key)) = next {
            if let Some(ledger) = self.tenants.get_mut(&tenant) {
                ledger.offered.insert(key.clone());
            }
            self.need(&tenant, &key);
        }
    }

    /// Takes node ports that nobody asked for out of a spec if they lie outside the tenant's band.
    pub(super) fn leave_band(grant: &Grant, spec: &mut ServiceSpec) {
        let outside = |port: &Option<i32>| port.is_some_and(|port| !in_band(grant, port));
        for port in spec.ports.iter_mut().flatten() {
            if outside(&port.node_port) {
                port.node_port = None;
            }
        }
        if outside(&spec.health_check_node_port) {
            spec.health_check_node_port = None;
        }
    }

    /// Gives a spec node ports of the tenant's band where it leaves them open. `None` if the band has none that is free.
    pub(super) fn enter_band(
        &self,
        (record, at): (Option<&Record>, &HostName),
        grant: &Grant,
        spec: &mut ServiceSpec,
        twin: Option<&Twin>,
        now: Duration,
    ) -> Option<()> {
        let Some((from, to)) = grant.band else {
            return Some(());
        };
        let own = twin.map(Twin::numbers).unwrap_or_default();
        let balancer = spec.type_.as_deref() == Some("LoadBalancer");
        let every = match spec.type_.as_deref() {
            Some("NodePort") => true,
            _ => balancer && spec.allocate_load_balancer_node_ports != Some(false),
        };
        let checked = balancer && spec.external_traffic_policy.as_deref() == Some("Local");
        if !every && !checked {
            return Some(());
        }
        let mut taken: Vec<i32> = spec.ports.iter().flatten().filter_map(|port| port.node_port).collect();
        let mut choose = |had: Option<i32>| {
            if let Some(had) = had.filter(|had| in_band(grant, *had) && !taken.contains(had)) {
                taken.push(had);
                return Some(had);
            }
            let is_free = |port: &u16| {
                let number = Blocker::NodePort(*port);
                let tried = record.is_some_and(|record| {
                    record.unusable.node_ports.iter().any(|unusable| unusable.get() == *port)
                        || record.history.refused(&number, false, now).is_some()
                });
                !tried
                    && !taken.contains(&i32::from(*port))
                    && self.services.other_holder(at, &number).is_none()
                    && !self.services.is_reserved(&number)
            };
            // Each twin begins elsewhere, so that those that are made side by side do not meet.
            let width = u32::from(to.checked_sub(from)?) + 1;
            let start =
                at.name.bytes().fold(0u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into())) % width;
            let ports = (start..width).chain(0..start).filter_map(|step| u16::try_from(u32::from(from) + step).ok());
            let chosen = ports.into_iter().find(is_free).map(i32::from);
            taken.extend(chosen);
            chosen
        };
        for port in spec.ports.iter_mut().flatten().filter(|port| every && port.node_port.is_none()) {
            port.node_port = Some(choose(own_node_port(&own, port))?);
        }
        if checked && spec.health_check_node_port.is_none() {
            spec.health_check_node_port = Some(choose(own.health_check_node_port.map(|port| port.get().into()))?);
        }
        Some(())
    }

    fn usage_of(&self, tenant: &Uid, key: &Key) -> Usage {
        self.standing(tenant, key).map(|twin| Usage::of(&twin.spec)).unwrap_or_default()
    }
}

impl Counted {
    /// Why an object is refused that asks for more than there may be.
    const fn reason(self) -> Reason {
        match self {
            Self::NodePorts => Reason::TooManyNodePorts,
            Self::LoadBalancers => Reason::TooManyLoadBalancers,
        }
    }

    const fn of(self, usage: Usage) -> usize {
        match self {
            Self::NodePorts => usage.node_ports,
            Self::LoadBalancers => usage.load_balancers,
        }
    }
}

fn in_band(grant: &Grant, port: i32) -> bool {
    u16::try_from(port).is_ok_and(|port| grant.has_in_band(port))
}

fn own_node_port(own: &Numbers, port: &ServicePort) -> Option<i32> {
    let same = own
        .node_ports
        .iter()
        .find(|own| i32::from(own.port.get()) == port.port && json!(own.protocol).as_str() == port.protocol.as_deref());
    same.map(|own| own.node_port.get().into())
}

/// A refusal in the words that the tenant reads.
pub(super) fn denial(refusal: Refusal) -> Denial {
    Denial { reason: refusal.reason, message: refusal.message }
}
