//! The wire as files: what `golden/<message>.ndjson` holds is what both sides write and read, byte for byte.
//!
//! The files' hashes and roots were computed without this crate. A change to a file is a change to the wire, and to
//! `version::SUPPORTED` when the last two releases would not understand it.

#![expect(clippy::unwrap_used, reason = "a golden value that cannot be built is a broken test")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;
use std::num::NonZeroU16;

use k3k_expose_proto::endpoints::{EndpointPort, Endpoints, LeftOut};
use k3k_expose_proto::ingress::{Backend, BackendPort, Ingress, Path, PathType, Rule, Tls};
use k3k_expose_proto::line::{LineError, decode, encode};
use k3k_expose_proto::message::{
    AgentBeat, Answer, Bye, ByeReason, Condition, Delete, End, FromAgent, FromHost, Hello, HostBeat,
    Ingress as BalancerIngress, IngressPort, Limits, Message, NodePort, Numbers, Object, Put, Resume, Role, Seen,
    Unusable, Want, Welcome,
};
use k3k_expose_proto::outcome::{Outcome, Reason};
use k3k_expose_proto::secret::{Pair, PrivateKey, Secret, Unfit};
use k3k_expose_proto::service::{
    ClusterIps, IpFamily, IpFamilyPolicy, Port, Protocol, Service, ServiceType, SessionAffinity, TargetPort,
    TrafficPolicy,
};
use k3k_expose_proto::{Hash, Key, Resource, Tally, Uid};
use serde::Serialize;
use serde::de::DeserializeOwned;

const EDGE_UID: &str = "0b7c9c1e-6d0e-4c5c-8f5f-5a8a3a1f2b3c";
const EPOCH: &str = "6c2f7a52-2f0f-4a4e-9d0e-0a4a7b1d9e11";
const VIRTUAL_CLUSTER: &str = "9d3f4a52-7a1b-4a3e-8e55-3c1f5a6b7c8d";

/// Hashes of the Services of `put.ndjson`: of each line, the first 32 digits of `jq -cj .put.object.service | sha256sum`.
const FULL_HASH: &str = "f04a529e3856648d1ec78ad74120691f";
const MINIMAL_HASH: &str = "48904cc93ad2a3fa0ad70366b2dd5808";
const HEADLESS_HASH: &str = "f19387f3e41852e393dbd8a02905ef5c";
/// Root over the three of them.
const ROOT: &str = "4dad0291435e8bc1d68c632db86ad54e";
const NO_ROOT: &str = "00000000000000000000000000000000";

#[test]
fn hello_full_and_first_ever() {
    let full = Hello {
        versions: vec![1],
        agent: "0.1.0".to_owned(),
        projection: 1,
        virtual_cluster: uid(VIRTUAL_CLUSTER),
        count: 3,
        root: hex(ROOT),
        ingresses: true,
        secrets: true,
        seen: Some(Seen { epoch: uid(EPOCH), version: 412 }),
    };
    let first = Hello { count: 0, root: hex(NO_ROOT), ingresses: false, secrets: false, seen: None, ..full.clone() };
    is_golden(include_str!("golden/hello.ndjson"), &[FromAgent::Hello(full), FromAgent::Hello(first)]);
}

#[test]
fn put_of_a_service_with_endpoints_made_by_hand() {
    let service = with_endpoints();
    let put = Put {
        key: Key::service("default", "db").unwrap(),
        uid: uid("4"),
        hash: Hash::of(&service),
        seen: 0,
        unusable: Unusable::default(),
        object: Object::Service(Box::new(service)),
    };
    is_golden(include_str!("golden/put-endpoints.ndjson"), &[FromAgent::Put(put)]);
}

#[test]
fn put_of_every_field_of_none_and_of_a_headless_service() {
    is_golden(include_str!("golden/put.ndjson"), &puts().map(FromAgent::Put));
}

#[test]
fn put_of_an_ingress_with_every_field_and_of_an_empty_one() {
    let backend = |name: &str, port| Backend::Service { name: name.to_owned(), port };
    let path = |path: &str, path_type, backend| Path { path: path.to_owned(), path_type, backend };
    let full = Ingress {
        ingress_class_name: Some("public".to_owned()),
        default_backend: Some(backend("web", BackendPort::Name("http".to_owned()))),
        rules: vec![
            Rule {
                host: "shop.example.com".to_owned(),
                paths: vec![
                    path("/", PathType::Prefix, backend("web", BackendPort::Number(NonZeroU16::new(80).unwrap()))),
                    path("/exact", PathType::Exact, Backend::Resource),
                    path("", PathType::ImplementationSpecific, backend("api", BackendPort::Name("http".to_owned()))),
                ],
            },
            Rule { host: String::new(), paths: Vec::new() },
        ],
        tls: vec![
            Tls { hosts: vec!["shop.example.com".to_owned()], secret_name: Some("shop-tls".to_owned()) },
            Tls::default(),
        ],
        labels: [("app".to_owned(), "shop".to_owned())].into(),
        annotations: [("example.com/timeout".to_owned(), "5s".to_owned())].into(),
    };
    let put = |name, id, ingress: Ingress| Put {
        key: Key::of(Resource::Ingresses, "default", name).unwrap(),
        uid: uid(id),
        hash: Hash::of(&ingress),
        seen: 0,
        unusable: Unusable::default(),
        object: Object::Ingress(Box::new(ingress)),
    };
    let puts = [put("shop.example", "1", full), put("empty", "2", Ingress::default())];
    is_golden(include_str!("golden/put-ingress.ndjson"), &puts.map(FromAgent::Put));
}

#[test]
fn put_of_a_secret_and_of_one_that_is_of_no_use() {
    let put = |name, id, secret: Secret| Put {
        key: Key::of(Resource::Secrets, "default", name).unwrap(),
        uid: uid(id),
        hash: Hash::of(&secret),
        seen: 0,
        unusable: Unusable::default(),
        object: Object::Secret(Box::new(secret)),
    };
    let pair = Pair { certificate: "c\n".to_owned(), key: PrivateKey::new("k\n".to_owned()) };
    let puts = [put("shop-tls", "1", Secret::Pair(pair)), put("opaque", "2", Secret::Unfit(Unfit::Type))];
    is_golden(include_str!("golden/put-secret.ndjson"), &puts.map(FromAgent::Put));
}

#[test]
fn the_kind_of_an_object_is_that_of_its_key() {
    let line = br#"{"put":{"key":"services/a/b","uid":"1","hash":"00000000000000000000000000000000","object":{"ingress":{}}}}"#;
    assert!(matches!(decode::<FromAgent>(line), Err(LineError::Malformed(_))));
}

#[test]
fn the_hash_in_a_put_is_that_of_its_service() {
    for put in puts() {
        assert_eq!(put.object.hash(), put.hash, "{}", put.key);
    }
}

#[test]
fn delete() {
    let delete = Delete { key: edge(), uid: uid(EDGE_UID) };
    is_golden(include_str!("golden/delete.ndjson"), &[FromAgent::Delete(delete)]);
}

#[test]
fn end_of_a_snapshot_and_of_an_empty_one() {
    let mut tally = Tally::default();
    for put in puts() {
        tally.add(&put.key, &put.uid, put.hash);
    }
    let ends = [tally, Tally::default()].map(|Tally { count, root }| FromAgent::End(End { count, root }));
    is_golden(include_str!("golden/end.ndjson"), &ends);
}

#[test]
fn beat_of_an_agent_with_numbers_of_any_size() {
    let beats = [
        AgentBeat { count: 3, root: hex(ROOT), ready: true },
        AgentBeat { count: u64::MAX, root: hex(&"f".repeat(32)), ready: false },
    ];
    is_golden(include_str!("golden/agent-beat.ndjson"), &beats.map(FromAgent::Beat));
}

#[test]
fn welcome_of_an_active_and_of_a_standby_agent() {
    let active = Welcome {
        version: 1,
        session: uid("s-7"),
        epoch: uid(EPOCH),
        role: Role::Active,
        limits: Limits { in_flight: 256, annotations: vec!["example.com/owner".to_owned()] },
        resume: Resume::Snapshot,
        ends_in_s: 2700,
        k3k_syncs: true,
        k3k_syncs_ingresses: false,
        ingress_classes: Some(vec!["public".to_owned()]),
        warnings: vec!["two pods of this virtual cluster write".to_owned()],
    };
    let standby = Welcome {
        session: uid("s-8"),
        role: Role::Standby,
        limits: Limits { in_flight: 256, annotations: Vec::new() },
        resume: Resume::Nothing,
        ends_in_s: 1800,
        k3k_syncs: false,
        k3k_syncs_ingresses: true,
        ingress_classes: None,
        warnings: Vec::new(),
        ..active.clone()
    };
    is_golden(include_str!("golden/welcome.ndjson"), &[FromHost::Welcome(active), FromHost::Welcome(standby)]);
}

#[test]
fn answer_with_everything_without_numbers_and_without_a_twin() {
    let applied = Answer {
        key: Key::service("default", "db").unwrap(),
        uid: uid("2"),
        hash: hex(HEADLESS_HASH),
        version: 414,
        outcome: Outcome::Applied,
        reason: Reason::Applied,
        message: String::new(),
        numbers: Some(Numbers::default()),
        load_balancer: Vec::new(),
        conditions: Vec::new(),
    };
    let pending = Answer {
        key: Key::service("a", "b").unwrap(),
        uid: uid("1"),
        hash: hex(MINIMAL_HASH),
        version: 415,
        outcome: Outcome::Pending,
        reason: Reason::Adopting,
        numbers: None,
        ..applied.clone()
    };
    let answers = [rejected(), applied, pending].map(|answer| FromHost::Answer(Box::new(answer)));
    is_golden(include_str!("golden/answer.ndjson"), &answers);
}

#[test]
fn want_some_and_want_all() {
    let keys = vec![Key::service("a", "b").unwrap(), Key::service("default", "db").unwrap()];
    is_golden(include_str!("golden/want.ndjson"), &[FromHost::Want(Want::Keys(keys)), FromHost::Want(Want::All)]);
}

#[test]
fn beat_of_a_host() {
    let syncs = HostBeat { k3k_syncs: true, k3k_syncs_ingresses: false, ingress_classes: None };
    let shows = HostBeat {
        k3k_syncs: false,
        k3k_syncs_ingresses: true,
        ingress_classes: Some(vec!["public".to_owned(), "internal".to_owned()]),
    };
    let beats = [syncs, shows].map(FromHost::Beat);
    is_golden(include_str!("golden/host-beat.ndjson"), &beats);
}

#[test]
fn a_host_that_says_nothing_of_k3ks_sync_leaves_k3ks_things_alone() {
    let silent = HostBeat { k3k_syncs: true, k3k_syncs_ingresses: true, ingress_classes: None };
    assert_eq!(decode(br#"{"beat":{}}"#), Ok(FromHost::Beat(silent)));
}

#[test]
fn a_class_that_could_be_no_name_is_not_heard() {
    let odd = decode::<FromHost>(br#"{"beat":{"ingressClasses":["../x"]}}"#);
    assert!(matches!(odd, Err(LineError::Malformed(_))));
}

#[test]
fn bye_for_every_reason() {
    let drained = Bye { reason: ByeReason::Draining, message: "host-api restarts".to_owned(), retry_after_s: Some(3) };
    let rest = [
        ByeReason::Superseded,
        ByeReason::Role,
        ByeReason::Slow,
        ByeReason::Expired,
        ByeReason::Unsupported,
        ByeReason::Malformed,
        ByeReason::Exceeded,
        ByeReason::Unknown,
    ];
    let rest = rest.map(|reason| Bye { reason, message: String::new(), retry_after_s: None });
    let byes = [drained].into_iter().chain(rest).map(FromHost::Bye).collect::<Vec<_>>();
    is_golden(include_str!("golden/bye.ndjson"), &byes);
}

/// Each line of the file is what one message is written as, and what gives that message when it is read.
fn is_golden<M>(file: &str, messages: &[M])
where
    M: Message + Serialize + DeserializeOwned + PartialEq + Debug,
{
    assert_eq!(file.lines().count(), messages.len());
    for (line, message) in file.split_inclusive('\n').zip(messages) {
        assert_eq!(std::str::from_utf8(&encode(message).unwrap()).unwrap(), line);
        assert_eq!(decode::<M>(line.trim_end_matches('\n').as_bytes()).as_ref(), Ok(message));
    }
}

fn puts() -> [Put; 3] {
    let headless = Service {
        cluster_ips: ClusterIps::Headless,
        session_affinity: SessionAffinity::ClientIp(None),
        ..Service::new(ServiceType::ClusterIP)
    };
    [
        Put {
            key: edge(),
            uid: uid(EDGE_UID),
            hash: hex(FULL_HASH),
            seen: 412,
            unusable: Unusable {
                cluster_ips: vec![ip("10.43.7.8"), ip("fd00:43::7:8")],
                node_ports: vec![number(31_052)],
            },
            object: Object::Service(Box::new(service_of_every_field())),
        },
        Put {
            key: Key::service("a", "b").unwrap(),
            uid: uid("1"),
            hash: hex(MINIMAL_HASH),
            seen: 0,
            unusable: Unusable::default(),
            object: Object::Service(Box::new(Service::new(ServiceType::ClusterIP))),
        },
        Put {
            key: Key::service("default", "db").unwrap(),
            uid: uid("2"),
            hash: hex(HEADLESS_HASH),
            seen: 7,
            unusable: Unusable::default(),
            object: Object::Service(Box::new(headless)),
        },
    ]
}

/// Without `..`, so that a new field does not compile until it is in the file.
fn service_of_every_field() -> Service {
    Service {
        service_type: ServiceType::LoadBalancer,
        cluster_ips: ClusterIps::Addresses(vec![ip("10.43.7.9"), ip("fd00:43::7:9")]),
        cluster_ip_pinned: true,
        ip_families: vec![IpFamily::IPv4, IpFamily::IPv6],
        ip_family_policy: Some(IpFamilyPolicy::RequireDualStack),
        ports: ports(),
        selector: map([("tier", "edge"), ("app", "dns")]),
        session_affinity: SessionAffinity::ClientIp(Some(10_800)),
        external_traffic_policy: Some(TrafficPolicy::Local),
        internal_traffic_policy: Some(TrafficPolicy::Cluster),
        traffic_distribution: Some("PreferClose".to_owned()),
        publish_not_ready_addresses: true,
        health_check_node_port: Some(number(32_100)),
        health_check_node_port_pinned: true,
        load_balancer_class: Some("example.com/fast".to_owned()),
        load_balancer_source_ranges: vec!["192.0.2.0/24".to_owned(), "2001:db8::/32".to_owned()],
        load_balancer_ip: Some(ip("192.0.2.53")),
        allocate_load_balancer_node_ports: Some(false),
        external_ips: vec![ip("198.51.100.1"), ip("2001:db8::1")],
        labels: map([("team", "net"), ("app.kubernetes.io/name", "dns")]),
        annotations: map([("example.com/owner", "net \"edge\" \u{2713}")]),
        // Of a Service without a selector only: see the file of its own.
        endpoints: Vec::new(),
        endpoints_left_out: None,
    }
}

/// Ports of every field and of the fewest, and a set without any.
fn with_endpoints() -> Service {
    let plain = EndpointPort { name: String::new(), protocol: Protocol::TCP, port: number(80), app_protocol: None };
    let full = EndpointPort {
        name: "sql".to_owned(),
        protocol: Protocol::TCP,
        port: number(5432),
        app_protocol: Some("example.com/sql".to_owned()),
    };
    let mut service = Service::new(ServiceType::ClusterIP);
    service.endpoints = vec![
        Endpoints {
            family: IpFamily::IPv4,
            ports: vec![plain, full],
            addresses: vec![ip("192.0.2.7"), ip("203.0.113.9")],
        },
        Endpoints { family: IpFamily::IPv6, ports: Vec::new(), addresses: vec![ip("2001:db8::7")] },
    ];
    service.endpoints_left_out = Some(LeftOut::TooMany);
    service
}

/// One port of every field, one with the fewest, and one whose target is a name that reads like a number.
fn ports() -> Vec<Port> {
    vec![
        Port {
            name: "dns".to_owned(),
            protocol: Protocol::UDP,
            port: number(53),
            target_port: TargetPort::Name("dns-udp".to_owned()),
            app_protocol: Some("example.com/dns".to_owned()),
            node_port: Some(number(30_053)),
            node_port_pinned: true,
        },
        Port {
            name: "dns-tcp".to_owned(),
            protocol: Protocol::TCP,
            port: number(53),
            target_port: TargetPort::Number(number(5353)),
            app_protocol: None,
            node_port: None,
            node_port_pinned: false,
        },
        Port {
            name: String::new(),
            protocol: Protocol::SCTP,
            port: number(65_535),
            target_port: TargetPort::Name("80".to_owned()),
            app_protocol: None,
            node_port: None,
            node_port_pinned: false,
        },
    ]
}

fn rejected() -> Answer {
    Answer {
        key: edge(),
        uid: uid(EDGE_UID),
        hash: hex(FULL_HASH),
        version: 413,
        outcome: Outcome::Rejected,
        reason: Reason::NodePortTaken,
        message: "node port 30053 is held on the host".to_owned(),
        numbers: Some(Numbers {
            cluster_ips: vec![ip("10.43.7.9"), ip("fd00:43::7:9")],
            node_ports: vec![NodePort { port: number(53), protocol: Protocol::UDP, node_port: number(31_053) }],
            health_check_node_port: Some(number(32_100)),
        }),
        load_balancer: vec![
            BalancerIngress {
                ip: Some(ip("192.0.2.53")),
                hostname: None,
                ip_mode: Some("VIP".to_owned()),
                ports: vec![
                    IngressPort { port: number(53), protocol: Protocol::UDP, error: None },
                    IngressPort {
                        port: number(53),
                        protocol: Protocol::TCP,
                        error: Some("example.com/PortInUse".to_owned()),
                    },
                ],
            },
            BalancerIngress { hostname: Some("lb.example.com".to_owned()), ..BalancerIngress::default() },
        ],
        conditions: vec![
            Condition {
                condition_type: "example.com/Ready".to_owned(),
                status: "True".to_owned(),
                reason: "Provisioned".to_owned(),
            },
            Condition {
                condition_type: "LoadBalancerPortsError".to_owned(),
                status: "Unknown".to_owned(),
                reason: String::new(),
            },
        ],
    }
}

fn edge() -> Key {
    Key::service("kube-system", "edge-dns").unwrap()
}

fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}

/// A hash or a root.
fn hex<T: DeserializeOwned>(digits: &str) -> T {
    serde_json::from_str(&format!("\"{digits}\"")).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn number(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

fn map<const N: usize>(entries: [(&str, &str); N]) -> BTreeMap<String, String> {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}
