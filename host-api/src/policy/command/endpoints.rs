//! Which addresses of EndpointSlices would stand on the host, beside the twin of a Service without a selector. Pure.
//!
//! Whether an address is one of the tenant's own pods only a host tells. Without one it is said that it has to be.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k3k_expose_projection::endpoints::endpoints;
use k3k_expose_proto::endpoints::{Endpoints, LeftOut, join};
use k3k_expose_proto::{Key, Reason, Resource};

use super::documents::Slices;
use super::{Host, Judge, Planned, Told};
use crate::endpoints::address::{Addresses, Holder, Source};
use crate::endpoints::asked::is_of;
use crate::endpoints::slice::desired;
use crate::policy::Refusal;
use crate::registry::words;
use crate::services::HostName;
use crate::translate::frame;

/// How an address crosses.
enum Crossing {
    /// A policy names it.
    Named,
    /// It is a pod of the tenant's.
    Pod,
    /// It has to be one, and nobody knows.
    IfPod,
}

pub(super) fn planned(judge: &Judge, key: &Key, service: Option<Told>, slices: &[&Slices]) -> Planned {
    let of: Vec<&str> = slices.iter().map(|slices| slices.name.as_str()).collect();
    let service_name = format!("Service {}/{}", key.namespace(), key.name());
    let mut planned = judge.begin(&format!("{}, of {service_name}", of.join(", ")));
    match service {
        None => planned.unknown(&format!("whether {service_name} is exposed, and has no selector")),
        Some(Told { is_refused: true, .. }) => {
            planned.line("nothing crosses: the Service is refused");
            return planned;
        }
        Some(Told { is_bare: false, .. }) => {
            planned.line("nothing crosses: the Service has a selector, and the pods that it selects");
            return planned;
        }
        Some(_) => {}
    }
    let read: Vec<_> = slices.iter().flat_map(|slices| &slices.slices).map(endpoints).collect();
    let (sets, left_out) = join(&read);
    let nowhere = Host::default();
    let host = judge.host.unwrap_or(&nowhere);
    if judge.host.is_some() && !host.ranges.are_known() {
        planned.line("nothing crosses yet: the host does not tell its ranges for Services");
        return planned;
    }
    let mut stand = Vec::new();
    let mut judged = BTreeMap::new();
    for set in &sets {
        let mut addresses = Vec::new();
        for &ip in set.addresses.iter().filter(|ip| is_of(set.family, **ip)) {
            let crossing = judged.entry(ip).or_insert_with(|| {
                let crossing = crossing(judge, host, ip);
                say(&mut planned, judge, ip, &crossing);
                crossing
            });
            if matches!(crossing, Ok(Crossing::Named | Crossing::Pod)) {
                addresses.push(ip);
            }
        }
        if set.addresses.iter().any(|ip| !is_of(set.family, *ip)) {
            refuse(&mut planned, Reason::EndpointForbidden);
        }
        stand.push(Endpoints { addresses, ..set.clone() });
    }
    match left_out {
        Some(LeftOut::Names) => refuse(&mut planned, Reason::EndpointNameNotExposed),
        Some(LeftOut::TooMany) => refuse(&mut planned, Reason::TooManyEndpoints),
        None => {}
    }
    if judge.host.is_none() && judged.values().any(Result::is_ok) {
        planned.unknown(
            "whether one of these is an address of a node, of the API server or for Services, which never cross",
        );
    }
    let frame = frame(&judge.tenant, &judge.unknown, key, &judge.unknown, &BTreeMap::new(), ());
    let at = HostName::of_twin(judge.tenant.namespace(), judge.tenant.cluster(), key);
    for set in stand.iter().filter(|set| !set.addresses.is_empty()) {
        let mut slice = desired(&frame, &at, "", set);
        slice.metadata.owner_references = None;
        planned.object(&serde_json::json!(slice));
    }
    planned
}

fn crossing(judge: &Judge, host: &Host, ip: IpAddr) -> Result<Crossing, Refusal> {
    let (tenant, grant) = (judge.tenant.id(), &judge.grant);
    let refused = match host.addresses.judge(ip, tenant, grant, &host.ranges) {
        Ok(()) if grant.endpoints.iter().any(|cidr| cidr.contains(ip)) => return Ok(Crossing::Named),
        Ok(()) => return Ok(Crossing::Pod),
        Err(refused) => refused,
    };
    let mut pod = Addresses::default();
    pod.set(Source::Pods, "", Some((Holder::Pod(tenant.clone()), [ip].into())));
    let may_be = judge.host.is_none() && pod.judge(ip, tenant, grant, &host.ranges).is_ok();
    if may_be { Ok(Crossing::IfPod) } else { Err(refused) }
}

fn say(planned: &mut Planned, judge: &Judge, ip: IpAddr, crossing: &Result<Crossing, Refusal>) {
    let rule = judge.grant.rule("endpoints");
    match crossing {
        Ok(Crossing::Named) => planned.line(&format!("crosses: {ip} ({rule})")),
        Ok(Crossing::Pod) => planned.line(&format!("crosses: {ip}, a pod of this virtual cluster's own")),
        Ok(Crossing::IfPod) => {
            planned.line(&format!("crosses only if it is a pod of this virtual cluster's own: {ip} ({rule})"));
        }
        Err(refusal) => planned.refuse_as(refusal),
    }
}

/// Refuses what no policy could change.
fn refuse(planned: &mut Planned, reason: Reason) {
    planned.refuse(reason, &words::message(Resource::Services, reason, &[]), None);
}
