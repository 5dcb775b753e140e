//! Every kind of address, by whoever admits it.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::policy::Policies;
use crate::policy::select::Labels;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}

fn grant(spec: serde_json::Value) -> Grant {
    let mut policies = Policies::default();
    policies.set("only", Some(serde_json::from_value(spec).unwrap()));
    (*policies.grant(&Labels::new(), &Labels::new())).clone()
}

/// A host with a node, an API server, a pod of tenant `a` and one of tenant `b`.
fn host() -> (Addresses, Ranges) {
    let mut addresses = Addresses::default();
    let mut set = |source, name: &str, holder, of: &[&str]| {
        addresses.set(source, name, Some((holder, of.iter().map(|text| ip(text)).collect())));
    };
    set(Source::Nodes, "n", Holder::Node, &["192.0.2.10", "2001:db8::10"]);
    set(Source::Servers, "s", Holder::Server, &["192.0.2.11"]);
    set(Source::Pods, "a", Holder::Pod(uid("a")), &["10.42.0.1", "fd42::1"]);
    set(Source::Pods, "b", Holder::Pod(uid("b")), &["10.42.0.2"]);
    let mut ranges = Ranges::default();
    ranges.set("kubernetes", Some(&["10.43.0.0/16".to_owned(), "fd43::/112".to_owned()]));
    (addresses, ranges)
}

fn reason(address: &str, grant: &Grant) -> Option<Reason> {
    let (addresses, ranges) = host();
    addresses.judge(ip(address), &uid("a"), grant, &ranges).err().map(|refusal| refusal.reason)
}

const FORBIDDEN: &[&str] = &[
    "0.0.0.0",
    "0.1.2.3",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "febf::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.42.0.1",
    "::ffff:203.0.113.1",
    "::203.0.113.1",
    "64:ff9b::169.254.169.254",
    "10.43.0.1",
    "10.43.255.255",
    "fd43::1",
    "192.0.2.10",
    "2001:db8::10",
    "192.0.2.11",
];

#[test]
fn no_policy_admits_an_address_of_the_cluster_itself_or_of_no_machine() {
    let wide = grant(json!({"allow": {"endpoints": ["0.0.0.0/0", "::/0"]}}));
    for address in FORBIDDEN {
        assert_eq!(reason(address, &wide), Some(Reason::EndpointForbidden), "{address}");
    }
    for address in ["203.0.113.1", "10.42.0.2", "2001:db8::11"] {
        assert_eq!(reason(address, &wide), None, "{address}");
    }
}

#[test]
fn without_a_policy_only_the_tenants_own_pods_cross() {
    let none = Grant::default();
    for (address, expected) in [
        ("10.42.0.1", None),
        ("fd42::1", None),
        ("10.42.0.2", Some(Reason::EndpointNotAdmitted)),
        ("203.0.113.1", Some(Reason::EndpointNotAdmitted)),
    ] {
        assert_eq!(reason(address, &none), expected, "{address}");
    }
}

#[test]
fn what_is_denied_is_denied_to_pods_too() {
    let denied = grant(
        json!({"allow": {"endpoints": ["203.0.113.0/24"]}, "deny": {"addresses": ["203.0.113.8/32", "10.42.0.0/24"]}}),
    );
    for (address, expected) in [
        ("203.0.113.7", None),
        ("203.0.113.8", Some(Reason::EndpointNotAdmitted)),
        ("10.42.0.1", Some(Reason::EndpointNotAdmitted)),
    ] {
        assert_eq!(reason(address, &denied), expected, "{address}");
    }
}

#[test]
fn an_address_is_nobodys_as_soon_as_its_pod_is_gone() {
    let (mut addresses, ranges) = host();
    let judged =
        |addresses: &Addresses| addresses.judge(ip("10.42.0.1"), &uid("a"), &Grant::default(), &ranges).is_ok();
    assert!(judged(&addresses));
    let changed = addresses.set(Source::Pods, "a", None);
    assert_eq!(changed, [ip("10.42.0.1"), ip("fd42::1")].into());
    assert!(!judged(&addresses));
    addresses.set(Source::Pods, "c", Some((Holder::Pod(uid("b")), [ip("10.42.0.1")].into())));
    assert!(!judged(&addresses), "another tenant's pod has it now");
    addresses.set(Source::Pods, "d", Some((Holder::Pod(uid("a")), [ip("10.42.0.1")].into())));
    assert!(judged(&addresses));
    assert_eq!(addresses.listed(Source::Pods, &["c".to_owned()].into()), [ip("10.42.0.1"), ip("10.42.0.2")].into());
    assert!(!judged(&addresses) && !addresses.are_known());
}

proptest! {
    #[test]
    fn no_forbidden_address_ever_crosses(bits in any::<u128>(), short in any::<u32>(), head in prop_oneof![
        Just(None), Just(Some((0xfe80_u16, 10_u32))), Just(Some((0xff00, 8))), Just(Some((0, 80))), Just(Some((0x0064, 16)))
    ]) {
        let wide = grant(json!({"allow": {"endpoints": ["0.0.0.0/0", "::/0"]}}));
        let long = match head {
            Some((first, kept)) => (u128::from(first) << 112) | (bits & (u128::MAX >> kept)),
            None => bits,
        };
        let (addresses, ranges) = host();
        for ip in [IpAddr::from(short.to_be_bytes()), IpAddr::from(long.to_be_bytes())] {
            if addresses.judge(ip, &uid("a"), &wide, &ranges).is_ok() {
                prop_assert_eq!(ip.to_canonical(), ip);
                prop_assert!(!ip.is_loopback() && !ip.is_multicast() && !ip.is_unspecified() && !ranges.contain(ip));
                match ip {
                    IpAddr::V4(ip) => prop_assert!(!ip.is_link_local() && !ip.is_broadcast() && ip.octets()[0] != 0),
                    IpAddr::V6(ip) => prop_assert!(!ip.is_unicast_link_local() && ip.to_ipv4().is_none()),
                }
            }
        }
    }
}
