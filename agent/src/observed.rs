//! A virtual object to what it means for both directions: what host-api hears of it, and what the write-back compares
//! with. Pure.

use std::collections::BTreeSet;
use std::fmt::Debug;

use k3k_expose_proto::message::Object;
use k3k_expose_proto::{Key, Resource, Uid};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::Ingress;
use kube::Resource as Metadata;
use serde::de::DeserializeOwned;

use crate::endpoints::Join;
use crate::packed::Change;
use crate::project::{Projected, gone, ingress, project};
use crate::write_back::{Held, Standing, Wish};

/// What was seen of an object.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) key: Key,
    pub(crate) uid: Uid,
    pub(crate) change: Change,
    /// `None` for an object that no real API server gives.
    pub(crate) standing: Option<Standing>,
    /// Itself, if it is a Service without a selector.
    pub(crate) bare: Option<Box<Service>>,
}

impl Observed {
    /// `None` for the cluster's own Services.
    fn of(service: &Service, mut projected: Projected, join: &Join) -> Option<Self> {
        let mut bare = None;
        if let Projected::Wanted { key, object: Object::Service(projected), .. } = &mut projected {
            bare = projected.is_bare().then(|| Box::new(service.clone()));
            join.join(key, projected);
        }
        let held = match &projected {
            Projected::Wanted { object: Object::Service(service), .. } => Some(Held::of(service)),
            _ => None,
        };
        let observed = Self::with(projected, held, |wish| Standing::of(service, wish))?;
        Some(Self { bare, ..observed })
    }

    /// The same of an Ingress, which has no numbers.
    fn of_ingress(ingress: &Ingress, projected: Projected) -> Option<Self> {
        let held = matches!(projected, Projected::Wanted { .. }).then(Held::default);
        Self::with(projected, held, |wish| Standing::of_ingress(ingress, wish))
    }

    fn with(projected: Projected, held: Option<Held>, standing: impl FnOnce(Wish) -> Option<Standing>) -> Option<Self> {
        let change = Change::of(projected)?;
        let (uid, wish) = match (&change, held) {
            (Change::Wanted(_, uid, packed), Some(held)) => (uid, Wish::Wanted(packed.hash(), held)),
            (Change::Refused(_, uid, why), _) => (uid, Wish::Refused(why)),
            (Change::Gone(_, uid) | Change::Wanted(_, uid, _), _) => (uid, Wish::Nothing),
        };
        let (key, uid) = (change.key().clone(), uid.clone());
        Some(Self { key, uid, standing: standing(wish), change, bare: None })
    }
}

/// A resource of which each object has a line of its own.
pub(crate) trait Exposed:
    Metadata<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
    const RESOURCE: Resource;

    /// What is seen of it after an addition or a change.
    fn observe(&self, admitted: &BTreeSet<String>, join: &Join) -> Option<Observed>;

    /// What is seen of it when it was deleted.
    fn observe_gone(&self) -> Option<Observed>;
}

impl Exposed for Service {
    const RESOURCE: Resource = Resource::Services;

    fn observe(&self, admitted: &BTreeSet<String>, join: &Join) -> Option<Observed> {
        Observed::of(self, project(self, admitted), join)
    }

    fn observe_gone(&self) -> Option<Observed> {
        Observed::of(self, gone(self), &Join::default())
    }
}

impl Exposed for Ingress {
    const RESOURCE: Resource = Resource::Ingresses;

    fn observe(&self, _: &BTreeSet<String>, _: &Join) -> Option<Observed> {
        Observed::of_ingress(self, ingress::project(self))
    }

    fn observe_gone(&self) -> Option<Observed> {
        Observed::of_ingress(self, ingress::gone(self))
    }
}
