//! What the host would get for a Service. Pure.

use k3k_expose_process::quote::quote;
use k3k_expose_proto::{Key, Reason, Resource, Service};

use super::{Judge, Planned};
use crate::policy::grant::Grant;
use crate::policy::{Rule, Usage, service};
use crate::registry::words;
use crate::translate::{Desired, translate};

pub(super) fn planned(judge: &Judge, key: &Key, asked: &Service) -> Planned {
    let grant: &Grant = &judge.grant;
    let mut planned = judge.begin(&format!("Service {}/{}", key.namespace(), key.name()));
    if judge.leaves_out(Resource::Services, &asked.labels, &mut planned) {
        return planned;
    }
    let mut desired = match translate(&judge.tenant, &judge.unknown, key, &judge.unknown, asked) {
        Ok(desired) => desired,
        Err(reason) => {
            planned.refuse(reason, &words::message(Resource::Services, reason, &[]), None);
            return planned;
        }
    };
    if let Err(refusal) = service::judge(grant, asked) {
        planned.refuse_as(&refusal);
        return planned;
    }
    service::shape(grant, asked, &mut desired);
    if let Some((reason, rule)) = over(grant, &desired) {
        planned.not_one(reason, &rule);
        return planned;
    }
    if judge.has_no_room(&mut planned) {
        return planned;
    }
    judge.admitted(Resource::Services, &mut planned);
    left_behind(&mut planned, grant, asked, &desired);
    counted(&mut planned, grant, &desired);
    judge.count(&mut planned);
    if desired.spec.selector.is_none() {
        let more = if grant.endpoints.is_empty() { "" } else { ", and what the policy names" };
        let rule = grant.rule("endpoints");
        planned.line(&format!("endpoints made by hand: addresses of the virtual cluster's own pods{more} ({rule})"));
    }
    planned.object(&judge.twin("v1", "Service", &desired));
    planned
}

/// What the tenant says and the twin will not have.
fn left_behind(planned: &mut Planned, grant: &Grant, asked: &Service, desired: &Desired) {
    for (key, value) in &asked.annotations {
        if desired.annotations.get(key) != Some(value) {
            planned.line(&format!("left behind: annotation {} ({})", quote(key), grant.rule("annotations")));
        }
    }
    for (key, value) in &asked.labels {
        if desired.labels.get(key) != Some(value) {
            planned.line(&format!("left behind: label {} ({})", quote(key), grant.rule("labels")));
        }
    }
}

/// What is refused even to a tenant that has nothing yet.
fn over(grant: &Grant, desired: &Desired) -> Option<(Reason, Rule)> {
    let Usage { node_ports, load_balancers } = Usage::asked(&desired.spec);
    [
        (node_ports > grant.node_ports, Reason::TooManyNodePorts, "nodePorts.most"),
        (load_balancers > grant.load_balancers, Reason::TooManyLoadBalancers, "loadBalancers.most"),
    ]
    .into_iter()
    .find_map(|(over, reason, field)| over.then(|| (reason, grant.rule(field))))
}

fn counted(planned: &mut Planned, grant: &Grant, desired: &Desired) {
    let Usage { node_ports, load_balancers } = Usage::asked(&desired.spec);
    if node_ports > 0 {
        let band = grant.band.map(|(from, to)| format!(", from {from} to {to}")).unwrap_or_default();
        let rule = grant.rule("nodePorts");
        planned.line(&format!("counts: {node_ports} of {} node ports{band} ({rule})", grant.node_ports));
    }
    if load_balancers > 0 {
        let rule = grant.rule("loadBalancers");
        planned.line(&format!("counts: 1 of {} load balancers ({rule})", grant.load_balancers));
    }
}
