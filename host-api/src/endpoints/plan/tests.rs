//! What stands against what should, and the next write.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use k3k_expose_proto::endpoints::{EndpointPort, Endpoints};
use k3k_expose_proto::service::{IpFamily, Protocol};
use k3k_expose_proto::{Key, Uid};

use super::*;
use crate::endpoints::slice::{SLICE_MANAGED_BY, desired, service_of};
use crate::tenant::Tenant;
use crate::translate::frame;

fn at() -> HostName {
    HostName { namespace: "ns".to_owned(), name: "db-shop-mine".to_owned() }
}

fn wanted(port: u16, addresses: &[&str]) -> EndpointSlice {
    let uid = |text| Uid::parse(text).unwrap();
    let (tenant, key) = (Tenant::for_test("t", "ns", "mine"), Key::service("shop", "db").unwrap());
    let frame = frame(&tenant, &uid("vc"), &key, &uid("v"), &BTreeMap::new(), ());
    let port = NonZeroU16::new(port).unwrap();
    let ports = vec![EndpointPort { name: "sql".to_owned(), protocol: Protocol::TCP, port, app_protocol: None }];
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    desired(&frame, &at(), "twin", &Endpoints { family: IpFamily::IPv4, ports, addresses })
}

/// A host on which these stand, each as `change` left it.
fn standing(slices: &[EndpointSlice], change: impl Fn(&mut EndpointSlice)) -> HostSlices {
    let mut host = HostSlices::default();
    for (revision, slice) in (1..).zip(slices) {
        let mut slice = slice.clone();
        slice.metadata.uid = Some("u".to_owned());
        slice.metadata.resource_version = Some(revision.to_string());
        change(&mut slice);
        host.seen(slice);
    }
    host
}

fn name(slice: &EndpointSlice) -> HostName {
    HostName::of(&slice.metadata)
}

#[test]
fn what_is_right_is_left_alone_and_what_is_missing_is_made() {
    let want = wanted(5432, &["10.42.0.1"]);
    assert_eq!(service_of(&name(&want)), Some(at()));
    let right = standing(std::slice::from_ref(&want), |_| {});
    assert_eq!(plan(&at(), std::slice::from_ref(&want), &right), SlicePlan::Nothing);
    let none = HostSlices::default();
    assert!(matches!(plan(&at(), std::slice::from_ref(&want), &none), SlicePlan::Create(..)));
    assert_eq!(plan(&at(), &[], &none), SlicePlan::Nothing);
}

#[test]
fn what_nobody_wants_goes_before_anything_comes() {
    let (old, new) = (wanted(5432, &["10.42.0.1"]), wanted(5433, &["10.42.0.1"]));
    let host = standing(std::slice::from_ref(&old), |_| {});
    let delete = SlicePlan::Delete(name(&old), "u".to_owned(), "1".to_owned());
    assert_eq!(plan(&at(), std::slice::from_ref(&new), &host), delete);
}

#[test]
fn every_change_by_hand_is_patched_back() {
    let want = wanted(5432, &["10.42.0.1"]);
    let label = |key: &'static str| {
        move |slice: &mut EndpointSlice| {
            slice.metadata.labels.as_mut().unwrap().remove(key);
        }
    };
    let changes: [&dyn Fn(&mut EndpointSlice); 7] = [
        &label("k3k.io/clusterName"),
        &label(SLICE_MANAGED_BY),
        &|slice| slice.metadata.owner_references = None,
        &|slice| slice.endpoints[0].addresses = vec!["10.42.0.9".to_owned()],
        &|slice| slice.endpoints[0].node_name = Some("n".to_owned()),
        &|slice| slice.endpoints.push(endpoint("10.42.0.9".parse().unwrap())),
        &|slice| slice.ports.as_mut().unwrap()[0].port = Some(22),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let host = standing(std::slice::from_ref(&want), change);
        let SlicePlan::Patch(_, patch) = plan(&at(), std::slice::from_ref(&want), &host) else {
            panic!("change {number}")
        };
        assert_eq!(patch["metadata"]["resourceVersion"], "1");
        assert_eq!(patch.get("endpoints").is_some(), number > 2, "only what differs: {patch}");
    }
    let more = standing(std::slice::from_ref(&want), |slice| {
        slice.metadata.labels.as_mut().unwrap().insert("theirs".to_owned(), String::new());
    });
    assert_eq!(plan(&at(), std::slice::from_ref(&want), &more), SlicePlan::Nothing, "what others add is theirs");
}

#[test]
fn a_slice_of_somebody_else_or_on_its_way_out_is_not_touched() {
    let want = wanted(5432, &["10.42.0.1"]);
    let foreign = standing(std::slice::from_ref(&want), |slice| slice.metadata.labels = None);
    assert_eq!(plan(&at(), std::slice::from_ref(&want), &foreign), SlicePlan::NameTaken(name(&want)));
    assert_eq!(plan(&at(), &[], &foreign), SlicePlan::Nothing);
    let leaving = standing(std::slice::from_ref(&want), |slice| {
        slice.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    });
    assert_eq!(plan(&at(), std::slice::from_ref(&want), &leaving), SlicePlan::Wait(name(&want)));
}

#[test]
fn slices_of_a_service_with_a_longer_name_are_not_its_own() {
    let want = wanted(5432, &["10.42.0.1"]);
    let host = standing(std::slice::from_ref(&want), |slice| {
        slice.metadata.name = Some("db-shop-mine-more-0123abcd".to_owned());
    });
    assert_eq!(plan(&at(), &[], &host), SlicePlan::Nothing);
}
