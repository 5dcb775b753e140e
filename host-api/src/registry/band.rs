//! Node ports of the band that a tenant may have them from: those outside go, and what is left open gets one inside. Pure.

use std::time::Duration;

use k3k_expose_proto::message::Numbers;
use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};

use super::Registry;
use crate::ledger::Record;
use crate::policy::grant::Grant;
use crate::services::{Blocker, HostName};
use crate::translate::protocol_word;
use crate::twin::{Twin, has_health_check, has_node_ports};

impl Registry {
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
        let (every, checked) = (has_node_ports(spec), has_health_check(spec));
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
}

fn in_band(grant: &Grant, port: i32) -> bool {
    u16::try_from(port).is_ok_and(|port| grant.has_in_band(port))
}

fn own_node_port(own: &Numbers, port: &ServicePort) -> Option<i32> {
    let same = own.node_ports.iter().find(|own| {
        i32::from(own.port.get()) == port.port && Some(protocol_word(own.protocol)) == port.protocol.as_deref()
    });
    same.map(|own| own.node_port.get().into())
}
