//! Twins of one tenant that wait for each other's numbers, and how one of them lets go. Pure.
//!
//! In the virtual cluster two Services may swap a number by way of a third one. When host-api hears only of the end, each
//! twin holds what the other waits for, and no event would ever free either.

use std::collections::BTreeSet;

use k3k_expose_proto::Uid;
use serde_json::Value;

use super::Registry;
use crate::plan;
use crate::services::{Blocker, HostName};
use crate::twin::{HostService, Twin};

/// Longest circle that is looked for.
const LINKS: usize = 16;

impl Registry {
    /// The patch by which a twin lets go of what it holds, if what it waits for waits for it.
    pub(super) fn out_of_circle(&self, tenant: &Uid, at: &HostName, twin: &Twin, blocker: &Blocker) -> Option<Value> {
        let mut passed = BTreeSet::new();
        let mut next = self.waiter(tenant, blocker)?;
        while next.0 != at {
            // A circle further on is for its own twins to leave, and a long one for a tenant that means it.
            if !passed.insert(next.0) || passed.len() > LINKS {
                return None;
            }
            next = self.waiter(tenant, next.1?)?;
        }
        match blocker {
            Blocker::NodePort(_) => Some(plan::without_external_numbers(twin)),
            Blocker::ClusterIp(_) => Some(plan::without_numbers(twin)),
            _ => None,
        }
    }

    /// The twin of the same tenant that holds a number, and what its object waits for.
    fn waiter(&self, tenant: &Uid, blocker: &Blocker) -> Option<(&HostName, Option<&Blocker>)> {
        let holder = self.services.holder(blocker)?;
        let HostService::Twin(twin) = self.services.get(holder)? else {
            return None;
        };
        let record = self.tenants.get(tenant)?.record(&twin.marks.key)?;
        (twin.marks.tenant == *tenant).then_some((holder, record.blockers.first()))
    }
}
