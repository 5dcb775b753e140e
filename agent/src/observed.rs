//! A virtual Service to what it means for both directions: what host-api hears of it, and what the write-back compares
//! with. Pure.

use k3k_expose_proto::{Key, Uid};
use k8s_openapi::api::core::v1::Service;

use crate::packed::Change;
use crate::project::Projected;
use crate::write_back::{Held, Standing, Wish};

/// What was seen of a Service.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) key: Key,
    pub(crate) uid: Uid,
    pub(crate) change: Change,
    /// `None` for an object that no real API server gives.
    pub(crate) standing: Option<Standing>,
}

impl Observed {
    /// `None` for the cluster's own Services.
    pub(crate) fn of(service: &Service, projected: Projected) -> Option<Self> {
        let held = match &projected {
            Projected::Wanted { service, .. } => Some(Held::of(service)),
            _ => None,
        };
        let change = Change::of(projected)?;
        let (uid, wish) = match (&change, held) {
            (Change::Wanted(_, uid, packed), Some(held)) => (uid, Wish::Wanted(packed.hash(), held)),
            (Change::Refused(_, uid, why), _) => (uid, Wish::Refused(why)),
            (Change::Gone(_, uid) | Change::Wanted(_, uid, _), _) => (uid, Wish::Nothing),
        };
        let (key, uid) = (change.key().clone(), uid.clone());
        Some(Self { key, uid, standing: Standing::of(service, wish), change })
    }
}
