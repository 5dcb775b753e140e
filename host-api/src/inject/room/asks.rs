//! What containers ask for, one and all together. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::inject::quantity::Amount;

type Quantities = BTreeMap<String, Quantity>;
type Amounts = BTreeMap<String, Amount>;

/// An amount that is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// Requests and limits by resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asks {
    pub(super) requests: Amounts,
    pub(super) limits: Amounts,
}

/// Quantities as numbers.
pub(super) fn amounts(quantities: Option<&Quantities>) -> Result<Amounts, Unreadable> {
    let read = |(resource, quantity): (&String, &Quantity)| {
        Ok((resource.clone(), Amount::parse(&quantity.0).ok_or(Unreadable)?))
    };
    quantities.into_iter().flatten().map(read).collect()
}

impl Asks {
    /// Those of one container.
    pub(super) fn of(container: &Container) -> Result<Self, Unreadable> {
        container.resources.as_ref().map_or_else(|| Ok(Self::default()), Self::read)
    }

    /// Those of a pod with the sidecar as its last init container: containers and sidecars add up, and an init container that ends
    /// counts beside the sidecars before it (KEP-753).
    pub(super) fn of_pod(spec: &PodSpec, sidecar: &Self) -> Result<Self, Unreadable> {
        let (mut running, mut sidecars, mut starting) = (Self::default(), Self::default(), Self::default());
        for container in &spec.containers {
            running.add(&Self::of(container)?);
        }
        for container in spec.init_containers.iter().flatten() {
            let own = Self::of(container)?;
            if container.restart_policy.as_deref() == Some("Always") {
                sidecars.add(&own);
            } else {
                let mut beside = sidecars.clone();
                beside.add(&own);
                starting.raise(&beside);
            }
        }
        running.add(&sidecars);
        running.add(sidecar);
        running.raise(&starting);
        Ok(running)
    }

    /// The resource of which these of a pod are more than the pod says of itself that it may have.
    pub(super) fn beyond(&self, spec: &PodSpec, sidecar: &Self) -> Result<Option<String>, Unreadable> {
        let Some(said) = &spec.resources else { return Ok(None) };
        let said = Self::read(said)?;
        let more = |asks: &Amounts, said: &Amounts| {
            said.iter()
                .find(|(resource, most)| asks.get(*resource).is_some_and(|ask| ask > *most))
                .map(|(it, _)| it.clone())
        };
        // Each limit by itself may be as high as the pod's, and so may all requests together.
        Ok(more(&self.requests, &said.requests).or_else(|| more(&sidecar.limits, &said.limits)))
    }

    /// Changes request and limit of a resource that is asked for.
    pub(super) fn both(&mut self, resource: &str, change: impl Fn(Amount) -> Amount) {
        for asked in [&mut self.requests, &mut self.limits] {
            if let Some(amount) = asked.get_mut(resource) {
                *amount = change(*amount);
            }
        }
    }

    /// As a container has them.
    pub(super) fn requirements(&self) -> ResourceRequirements {
        let quantities = |amounts: &Amounts| {
            amounts.iter().map(|(resource, amount)| (resource.clone(), amount.quantity())).collect::<Quantities>()
        };
        ResourceRequirements {
            requests: Some(quantities(&self.requests)),
            limits: Some(quantities(&self.limits)),
            ..ResourceRequirements::default()
        }
    }

    fn read(resources: &ResourceRequirements) -> Result<Self, Unreadable> {
        Ok(Self { requests: amounts(resources.requests.as_ref())?, limits: amounts(resources.limits.as_ref())? })
    }

    fn add(&mut self, other: &Self) {
        self.with(other, Amount::plus);
    }

    fn raise(&mut self, other: &Self) {
        self.with(other, Amount::max);
    }

    fn with(&mut self, other: &Self, join: fn(Amount, Amount) -> Amount) {
        for (own, others) in [(&mut self.requests, &other.requests), (&mut self.limits, &other.limits)] {
            for (resource, amount) in others {
                let own = own.entry(resource.clone()).or_default();
                *own = join(*own, *amount);
            }
        }
    }
}
