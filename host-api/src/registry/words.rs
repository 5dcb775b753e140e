//! What the tenant reads with a reason. Pure.

use k3k_expose_proto::{Reason, Resource};

use crate::services::Blocker;

/// It names numbers of the tenant's own wish, never who on the host holds them.
pub(crate) fn message(resource: Resource, reason: Reason, blockers: &[Blocker]) -> String {
    match (reason, blockers.first()) {
        (Reason::ClusterIPTaken, Some(Blocker::ClusterIp(ip))) => format!("cluster IP {ip} is held on the host"),
        (Reason::NodePortTaken, Some(Blocker::NodePort(port))) => format!("node port {port} is held on the host"),
        (Reason::ClusterIPOutOfRange, Some(Blocker::ClusterIp(ip))) => {
            format!("cluster IP {ip} lies outside the host's Service ranges")
        }
        (Reason::NodePortOutOfRange, Some(Blocker::NodePort(port))) => {
            format!("node port {port} lies outside the host's range")
        }
        (Reason::WaitingForNumber, Some(Blocker::ClusterIp(ip))) => waiting(&format!("cluster IP {ip}")),
        (Reason::WaitingForNumber, Some(Blocker::NodePort(port))) => waiting(&format!("node port {port}")),
        (reason, _) => {
            let text = TEXTS.iter().find(|(of, _)| *of == reason).map(|(_, text)| *text).unwrap_or_default();
            text.replace("{kind}", resource.kind())
        }
    }
}

fn waiting(number: &str) -> String {
    format!("another Service of this cluster still has {number} on the host and is about to let go")
}

const TEXTS: &[(Reason, &str)] = &[
    (Reason::Adopting, "waiting for k3k's own {kind} sync to be off and for the host pods to be labeled"),
    (Reason::TwinTerminating, "waiting for the old {kind} on the host to be gone"),
    (Reason::WaitingForBackend, "waiting for a backend's Service to stand on the host"),
    (Reason::WaitingForSecret, "waiting for a Secret that it names: does it exist?"),
    (Reason::WaitingForIngress, "no Ingress that is exposed names it, so it does not cross"),
    (Reason::BackendNotSynced, "a backend's Service does not exist, or is not exposed"),
    (Reason::HostTaken, "another Ingress on the host has one of these hosts; choose another"),
    (Reason::HostUnavailable, "the host did not take the change yet; it is tried again"),
    (Reason::NameTaken, "another object holds this {kind}'s name on the host; rename this one"),
    (Reason::ClusterIPTaken, "the cluster IP is held on the host"),
    (Reason::ClusterIPOutOfRange, "the cluster IP lies outside the host's Service ranges"),
    (Reason::NodePortTaken, "a node port is held on the host"),
    (Reason::NodePortOutOfRange, "a node port lies outside the host's range"),
    (Reason::IPFamilyUnavailable, "the host lacks an IP family that this Service asks for"),
    (Reason::ReservedSelectorKey, "selector keys under k3k.io/ are reserved; remove them"),
    (Reason::ExternalNameNotExposed, "a Service of type ExternalName has nothing to expose"),
    (Reason::WrongVirtualCluster, "the host holds this {kind} for another virtual cluster; ask the platform team"),
    (Reason::Contested, "something on the host keeps changing this {kind}; ask the platform team"),
    (
        Reason::WaitingForNumber,
        "another Service of this cluster still has the number on the host and is about to let go",
    ),
    (Reason::NotSelected, "the platform team exposes only objects with certain labels, and this one lacks them"),
    (Reason::QuotaExceeded, "a quota of the host is used up; delete what you can spare or ask the platform team"),
    (
        Reason::TooManyObjects,
        "this virtual cluster has as many Services, Ingresses and certificates on the host as it may; delete what you can spare",
    ),
    (Reason::TooManyNodePorts, "no more node ports are admitted for this cluster; delete what you can spare"),
    (Reason::TooManyLoadBalancers, "no more load balancers are admitted for this cluster; delete what you can spare"),
    (Reason::EndpointForbidden, "an endpoint is of another family than its set, which never crosses"),
    (Reason::EndpointNameNotExposed, "endpoints that are names are not exposed; use addresses"),
    (
        Reason::TooManyEndpoints,
        "no more than 100 endpoints of the same ports and family, and no more than 4 such sets, are exposed",
    ),
    (Reason::AdmissionDenied, "a policy of the host denies this {kind}; ask the platform team"),
    (Reason::HostRefused, "the host refuses this {kind}; ask the platform team"),
];
