//! What a tenant may have only so many of: node ports and load balancers, those included that are being made. Pure.

use k3k_expose_proto::{Key, Reason, Resource, Uid};
use k8s_openapi::api::core::v1::ServiceSpec;

use super::Registry;
use super::judge::Task;
use crate::ledger::Ledger;
use crate::policy::Usage;
use crate::services::{Blocker, Counted};

impl Registry {
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
