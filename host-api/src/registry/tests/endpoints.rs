//! Endpoints made by hand, call by call.

use std::net::IpAddr;

use k3k_expose_proto::endpoints::{EndpointPort, Endpoints};
use k3k_expose_proto::service::IpFamily;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::*;
use crate::endpoints::address::{Holder, Source};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn with_endpoints(addresses: &[&str]) -> Put {
    let mut service = virtual_service(0);
    service.service_type = ServiceType::ClusterIP;
    let ports = vec![EndpointPort {
        name: String::new(),
        protocol: Protocol::TCP,
        port: 80.try_into().unwrap(),
        app_protocol: None,
    }];
    let addresses = addresses.iter().map(|text| ip(text)).collect();
    service.endpoints = vec![Endpoints { family: IpFamily::IPv4, ports, addresses }];
    put_of("db", service)
}

/// A registry that knows the host, in which one pod of the tenant runs.
fn host(addresses: &[&str]) -> (Registry, SessionId) {
    let state = ClusterState { namespace: "ns".to_owned(), name: "mine".to_owned(), ..OFF };
    let (mut registry, id) = synced(vec![with_endpoints(addresses)], state);
    registry.policies_listed(&BTreeSet::new());
    registry.namespaces_listed(&BTreeSet::new());
    registry.clusters_listed(&[uid("t")].into(), NOW);
    registry.range_seen("kubernetes", Some(&["10.43.0.0/16".to_owned()]));
    (registry, id)
}

fn know(registry: &mut Registry) {
    registry.holder_seen(Source::Pods, "p", Some((Holder::Pod(uid("t")), [ip("10.42.0.1")].into())));
    registry.holders_listed(Source::Pods, &["p".to_owned()].into());
    registry.holders_listed(Source::Nodes, &BTreeSet::new());
    registry.holders_listed(Source::Servers, &BTreeSet::new());
}

fn next(registry: &mut Registry) -> Task {
    registry.decide(&uid("t"), &key("db"), Road::Table, NOW)
}

fn stored(meta: &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta, revision: u64) {
    meta.uid.get_or_insert_with(|| format!("uid-{revision}"));
    meta.resource_version = Some(revision.to_string());
}

/// Makes the calls up to the one that settles, as a host would take them. Gives the slice as it stands then.
fn carry_out(registry: &mut Registry, mut revision: u64, mut slice: Option<EndpointSlice>) -> Option<EndpointSlice> {
    loop {
        revision += 1;
        match next(registry) {
            Task::Create(_, mut service) => {
                stored(&mut service.metadata, revision);
                registry.service_answered(*service, NOW);
            }
            Task::CreateSlice(_, mut made) => {
                stored(&mut made.metadata, revision);
                registry.slice_answered((*made).clone(), NOW);
                slice = Some(*made);
            }
            Task::PatchSlice(_, patch) => {
                let mut patched = slice.take().unwrap();
                patched.endpoints = serde_json::from_value(patch["endpoints"].clone()).unwrap();
                stored(&mut patched.metadata, revision);
                registry.slice_answered(patched.clone(), NOW);
                slice = Some(patched);
            }
            Task::DeleteSlice { at, .. } => {
                registry.slice_gone(&at, None, NOW);
                slice = None;
            }
            Task::Settled => return slice,
            other => panic!("{other:?}"),
        }
    }
}

fn addresses(slice: Option<&EndpointSlice>) -> Vec<String> {
    slice.iter().flat_map(|slice| &slice.endpoints).flat_map(|endpoint| endpoint.addresses.clone()).collect()
}

fn reason(registry: &Registry) -> Option<Reason> {
    registry.record(&uid("t"), &key("db")).and_then(|record| record.answer.as_ref().map(|answer| answer.reason))
}

#[test]
fn endpoints_wait_until_it_is_known_whose_addresses_are_and_then_cross_as_far_as_they_may() {
    let (mut registry, id) = host(&["10.42.0.1", "10.42.0.2"]);
    assert_eq!(carry_out(&mut registry, 0, None), None);
    assert_eq!(reason(&registry), Some(Reason::HostUnavailable));
    assert!(registry.effects().addresses, "they are watched from now on");
    know(&mut registry);
    assert!(registry.record(&uid("t"), &key("db")).unwrap().stale, "it is asked for again");
    registry.line(id, FromAgent::Put(with_endpoints(&["10.42.0.1", "10.42.0.2"])), NOW).unwrap();
    let slice = carry_out(&mut registry, 10, None);
    assert_eq!(addresses(slice.as_ref()), ["10.42.0.1"]);
    assert_eq!(reason(&registry), Some(Reason::EndpointNotAdmitted));
    registry.line(id, FromAgent::Put(with_endpoints(&["10.42.0.1"])), NOW).unwrap();
    assert_eq!(next(&mut registry), Task::Settled, "nothing is written when nothing changes");
    assert_eq!(reason(&registry), Some(Reason::Applied));
}

#[test]
fn an_address_without_its_pod_goes_though_the_agent_keeps_silent() {
    let (mut registry, id) = host(&[]);
    know(&mut registry);
    registry.policy_seen("p", serde_json::from_value(json!({"allow": {"endpoints": ["203.0.113.0/24"]}})).ok());
    registry.line(id, FromAgent::Put(with_endpoints(&["10.42.0.1", "203.0.113.9"])), NOW).unwrap();
    let slice = carry_out(&mut registry, 0, None);
    assert_eq!((addresses(slice.as_ref()).len(), reason(&registry)), (2, Some(Reason::Applied)));
    registry.holder_seen(Source::Pods, "p", None);
    let slice = carry_out(&mut registry, 20, slice);
    assert_eq!(addresses(slice.as_ref()), ["203.0.113.9"]);
    registry.policy_seen("p", None);
    assert_eq!(carry_out(&mut registry, 30, slice), None);
}

#[test]
fn slices_go_when_the_service_gets_a_selector() {
    let (mut registry, id) = host(&[]);
    know(&mut registry);
    registry.line(id, FromAgent::Put(with_endpoints(&["10.42.0.1"])), NOW).unwrap();
    let slice = carry_out(&mut registry, 0, None);
    assert!(slice.is_some());
    let mut put = with_endpoints(&[]);
    let Object::Service(service) = &mut put.object else { unreachable!() };
    service.endpoints.clear();
    put.hash = Hash::of(service.as_ref());
    registry.line(id, FromAgent::Put(put), NOW).unwrap();
    assert_eq!(carry_out(&mut registry, 20, slice), None);
    assert_eq!(reason(&registry), Some(Reason::Applied));
}
