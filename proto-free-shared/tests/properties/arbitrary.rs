//! Strategies for everything that may cross: every variant, every field set and unset, text of any characters.
//!
//! The trap: a struct is built without `..`, so that a new field does not compile until it is drawn here too.

#![expect(clippy::unwrap_used, reason = "a strategy that cannot build its value is a broken test")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;
use std::num::NonZeroU16;

use k3k_expose_proto::endpoints::{EndpointPort, Endpoints, LeftOut};
use k3k_expose_proto::ingress::{Backend, BackendPort, Ingress, Path, PathType, Rule, Tls};
use k3k_expose_proto::key::{Key, Resource, Uid};
use k3k_expose_proto::message::{
    AgentBeat, Answer, Bye, ByeReason, Condition, Delete, End, FromAgent, FromHost, Hello, HostBeat,
    Ingress as BalancerIngress, IngressPort, Limits, NodePort, Numbers, Object, Put, Resume, Role, Seen, Unusable,
    Want, Welcome,
};
use k3k_expose_proto::outcome::{Outcome, Reason};
use k3k_expose_proto::secret::{Pair, PrivateKey, Secret, Unfit};
use k3k_expose_proto::service::{
    ClusterIps, IpFamily, IpFamilyPolicy, Port, Protocol, Service, ServiceType, SessionAffinity, TargetPort,
    TrafficPolicy,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde::de::DeserializeOwned;

pub(crate) fn from_agent() -> impl Strategy<Value = FromAgent> {
    prop_oneof![
        hello().prop_map(FromAgent::Hello),
        put().prop_map(FromAgent::Put),
        (key(), uid()).prop_map(|(key, uid)| FromAgent::Delete(Delete { key, uid })),
        (any::<u64>(), hex()).prop_map(|(count, root)| FromAgent::End(End { count, root })),
        (any::<u64>(), hex(), any::<bool>()).prop_map(|(count, root, ready)| FromAgent::Beat(AgentBeat {
            count,
            root,
            ready
        })),
    ]
}

pub(crate) fn from_host() -> impl Strategy<Value = FromHost> {
    prop_oneof![
        welcome().prop_map(FromHost::Welcome),
        answer().prop_map(|answer| FromHost::Answer(Box::new(answer))),
        prop_oneof![Just(Want::All), vec(key(), 0..4).prop_map(Want::Keys)].prop_map(FromHost::Want),
        (any::<(bool, bool)>(), classes()).prop_map(|((k3k_syncs, k3k_syncs_ingresses), ingress_classes)| {
            FromHost::Beat(HostBeat { k3k_syncs, k3k_syncs_ingresses, ingress_classes })
        }),
        bye().prop_map(FromHost::Bye),
    ]
}

pub(crate) fn key() -> impl Strategy<Value = Key> {
    (label(), label()).prop_map(|(namespace, name)| Key::service(&namespace, &name).unwrap())
}

pub(crate) fn uid() -> impl Strategy<Value = Uid> {
    "[0-9A-Za-z-]{1,64}".prop_map(|text| Uid::parse(&text).unwrap())
}

/// A hash or a root of any value.
pub(crate) fn hex<T: DeserializeOwned + Debug>() -> impl Strategy<Value = T> {
    any::<u128>().prop_map(|bits| serde_json::from_str(&format!("\"{bits:032x}\"")).unwrap())
}

/// Text of any characters: proptest draws quotes, backslashes, control characters and wide ones often.
pub(crate) fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..12).prop_map(String::from_iter)
}

fn classes() -> impl Strategy<Value = Option<Vec<String>>> {
    option::of(vec(label(), 0..3))
}

fn label() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
}

fn hello() -> impl Strategy<Value = Hello> {
    let seen = (uid(), any::<u64>()).prop_map(|(epoch, version)| Seen { epoch, version });
    let parts = (
        vec(any::<u16>(), 0..4),
        vec(proptest::char::range('!', '~'), 0..=64).prop_map(String::from_iter),
        any::<u32>(),
        uid(),
        any::<u64>(),
        hex(),
        (any::<bool>(), any::<bool>(), option::of(seen)),
    );
    parts.prop_map(|(versions, agent, projection, virtual_cluster, count, root, (ingresses, secrets, seen))| Hello {
        versions,
        agent,
        projection,
        virtual_cluster,
        count,
        root,
        ingresses,
        secrets,
        seen,
    })
}

fn put() -> impl Strategy<Value = Put> {
    let of_service = (key(), service()).prop_map(|(key, service)| (key, Object::Service(Box::new(service))));
    let of_ingress = (named_key(Resource::Ingresses), ingress())
        .prop_map(|(key, ingress)| (key, Object::Ingress(Box::new(ingress))));
    let of_secret = (named_key(Resource::Secrets), secret());
    let of_secret = of_secret.prop_map(|(key, secret)| (key, Object::Secret(Box::new(secret))));
    let parts = (prop_oneof![of_service, of_secret, of_ingress], uid(), hex(), any::<u64>(), unusable());
    parts.prop_map(|((key, object), uid, hash, seen, unusable)| Put { key, uid, hash, seen, unusable, object })
}

fn secret() -> impl Strategy<Value = Secret> {
    let unfit = select(&[Unfit::Type, Unfit::Large, Unfit::Unreadable, Unfit::Mismatch][..]);
    let pair = (text(), text()).prop_map(|(certificate, key)| Pair { certificate, key: PrivateKey::new(key) });
    prop_oneof![pair.prop_map(Secret::Pair), unfit.prop_map(Secret::Unfit)]
}

fn named_key(resource: Resource) -> impl Strategy<Value = Key> {
    (label(), label(), label())
        .prop_map(move |(namespace, name, rest)| Key::of(resource, &namespace, &format!("{name}.{rest}")).unwrap())
}

fn ingress() -> impl Strategy<Value = Ingress> {
    let port = prop_oneof![any::<NonZeroU16>().prop_map(BackendPort::Number), text().prop_map(BackendPort::Name),];
    let backend = prop_oneof![
        3 => (text(), port).prop_map(|(name, port)| Backend::Service { name, port }),
        1 => Just(Backend::Resource),
    ]
    .boxed();
    let path_type = select(&[PathType::Exact, PathType::Prefix, PathType::ImplementationSpecific][..]);
    let path =
        (text(), path_type, backend.clone()).prop_map(|(path, path_type, backend)| Path { path, path_type, backend });
    let rule = (text(), vec(path, 0..3)).prop_map(|(host, paths)| Rule { host, paths });
    let tls = (vec(text(), 0..3), option::of(text())).prop_map(|(hosts, secret_name)| Tls { hosts, secret_name });
    let parts = (option::of(text()), option::of(backend), vec(rule, 0..3), vec(tls, 0..3), map(), map());
    parts.prop_map(|(ingress_class_name, default_backend, rules, tls, labels, annotations)| Ingress {
        ingress_class_name,
        default_backend,
        rules,
        tls,
        labels,
        annotations,
    })
}

fn unusable() -> impl Strategy<Value = Unusable> {
    let node_ports = vec(any::<NonZeroU16>(), 0..3);
    (vec(any::<IpAddr>(), 0..3), node_ports).prop_map(|(cluster_ips, node_ports)| Unusable { cluster_ips, node_ports })
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let limits =
        (any::<u32>(), vec(text(), 0..3)).prop_map(|(in_flight, annotations)| Limits { in_flight, annotations });
    let parts = (
        any::<u16>(),
        uid(),
        uid(),
        select(&[Role::Active, Role::Standby][..]),
        limits,
        select(&[Resume::Nothing, Resume::Snapshot][..]),
        (any::<u32>(), any::<(bool, bool)>(), classes()),
        vec(text(), 0..3),
    );
    parts.prop_map(
        |(
            version,
            session,
            epoch,
            role,
            limits,
            resume,
            (ends_in_s, (k3k_syncs, k3k_syncs_ingresses), ingress_classes),
            warnings,
        )| {
            Welcome {
                version,
                session,
                epoch,
                role,
                limits,
                resume,
                ends_in_s,
                k3k_syncs,
                k3k_syncs_ingresses,
                ingress_classes,
                warnings,
            }
        },
    )
}

fn answer() -> impl Strategy<Value = Answer> {
    let reason = prop_oneof![9 => select(Reason::ALL), 1 => Just(Reason::Unknown)];
    let condition = (text(), text(), text()).prop_map(|(condition_type, status, reason)| Condition {
        condition_type,
        status,
        reason,
    });
    let parts = (
        (key(), uid(), hex(), any::<u64>()),
        select(&[Outcome::Applied, Outcome::Pending, Outcome::Rejected][..]),
        reason,
        text(),
        option::of(numbers()),
        vec(balancer_ingress(), 0..3),
        vec(condition, 0..3),
    );
    parts.prop_map(|((key, uid, hash, version), outcome, reason, message, numbers, load_balancer, conditions)| Answer {
        key,
        uid,
        hash,
        version,
        outcome,
        reason,
        message,
        numbers,
        load_balancer,
        conditions,
    })
}

fn numbers() -> impl Strategy<Value = Numbers> {
    let node_port =
        (number(), protocol(), number()).prop_map(|(port, protocol, node_port)| NodePort { port, protocol, node_port });
    (ips(), vec(node_port, 0..3), option::of(number())).prop_map(|(cluster_ips, node_ports, health_check_node_port)| {
        Numbers { cluster_ips, node_ports, health_check_node_port }
    })
}

fn balancer_ingress() -> impl Strategy<Value = BalancerIngress> {
    let port = (number(), protocol(), option::of(text())).prop_map(|(port, protocol, error)| IngressPort {
        port,
        protocol,
        error,
    });
    (any::<Option<IpAddr>>(), option::of(text()), option::of(text()), vec(port, 0..3))
        .prop_map(|(ip, hostname, ip_mode, ports)| BalancerIngress { ip, hostname, ip_mode, ports })
}

fn bye() -> impl Strategy<Value = Bye> {
    let reasons = &[
        ByeReason::Superseded,
        ByeReason::Draining,
        ByeReason::Slow,
        ByeReason::Expired,
        ByeReason::Unsupported,
        ByeReason::Malformed,
        ByeReason::Unknown,
    ][..];
    (select(reasons), text(), any::<Option<u32>>()).prop_map(|(reason, message, retry_after_s)| Bye {
        reason,
        message,
        retry_after_s,
    })
}

fn service() -> impl Strategy<Value = Service> {
    let service_type = select(
        &[ServiceType::ClusterIP, ServiceType::NodePort, ServiceType::LoadBalancer, ServiceType::ExternalName][..],
    );
    let cluster_ips = prop_oneof![Just(ClusterIps::Headless), ips().prop_map(ClusterIps::Addresses)];
    let family_policy =
        select(&[IpFamilyPolicy::SingleStack, IpFamilyPolicy::PreferDualStack, IpFamilyPolicy::RequireDualStack][..]);
    let affinity = prop_oneof![Just(SessionAffinity::None), any::<Option<u32>>().prop_map(SessionAffinity::ClientIp)];
    let families = vec(select(&[IpFamily::IPv4, IpFamily::IPv6][..]), 0..3);
    let addresses = (cluster_ips, any::<bool>(), families, option::of(family_policy));
    let traffic =
        (affinity, option::of(traffic_policy()), option::of(traffic_policy()), option::of(text()), any::<bool>());
    let load_balancer = (option::of(text()), vec(text(), 0..3), any::<Option<IpAddr>>(), any::<Option<bool>>(), ips());
    let parts = (
        service_type,
        addresses,
        vec(port(), 0..3),
        traffic,
        (option::of(number()), any::<bool>()),
        load_balancer,
        (map(), map(), map(), vec(endpoints(), 0..3), option::of(left_out())),
    );
    parts.prop_map(|(service_type, addresses, ports, traffic, health_check, load_balancer, maps)| {
        let (cluster_ips, cluster_ip_pinned, ip_families, ip_family_policy) = addresses;
        let (session_affinity, external_traffic_policy, internal_traffic_policy, distribution, not_ready) = traffic;
        let (health_check_node_port, health_check_node_port_pinned) = health_check;
        let (class, source_ranges, load_balancer_ip, allocate, external_ips) = load_balancer;
        let (selector, labels, annotations, endpoints, endpoints_left_out) = maps;
        Service {
            service_type,
            cluster_ips,
            cluster_ip_pinned,
            ip_families,
            ip_family_policy,
            ports,
            selector,
            session_affinity,
            external_traffic_policy,
            internal_traffic_policy,
            traffic_distribution: distribution,
            publish_not_ready_addresses: not_ready,
            health_check_node_port,
            health_check_node_port_pinned,
            load_balancer_class: class,
            load_balancer_source_ranges: source_ranges,
            load_balancer_ip,
            allocate_load_balancer_node_ports: allocate,
            external_ips,
            labels,
            annotations,
            endpoints,
            endpoints_left_out,
        }
    })
}

fn endpoints() -> impl Strategy<Value = Endpoints> {
    let parts = (text(), protocol(), number(), option::of(text()));
    let port =
        parts.prop_map(|(name, protocol, port, app_protocol)| EndpointPort { name, protocol, port, app_protocol });
    let family = select(&[IpFamily::IPv4, IpFamily::IPv6][..]);
    (family, vec(port, 0..3), ips()).prop_map(|(family, ports, addresses)| Endpoints { family, ports, addresses })
}

fn left_out() -> impl Strategy<Value = LeftOut> {
    select(&[LeftOut::Names, LeftOut::TooMany][..])
}

fn port() -> impl Strategy<Value = Port> {
    let target_port = prop_oneof![
        number().prop_map(TargetPort::Number),
        text().prop_map(TargetPort::Name),
        // A name that reads like a number stays a name.
        any::<u16>().prop_map(|number| TargetPort::Name(number.to_string())),
    ];
    let parts = (text(), protocol(), number(), target_port, option::of(text()), option::of(number()), any::<bool>());
    parts.prop_map(|(name, protocol, port, target_port, app_protocol, node_port, node_port_pinned)| Port {
        name,
        protocol,
        port,
        target_port,
        app_protocol,
        node_port,
        node_port_pinned,
    })
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(&[Protocol::TCP, Protocol::UDP, Protocol::SCTP][..])
}

fn traffic_policy() -> impl Strategy<Value = TrafficPolicy> {
    select(&[TrafficPolicy::Cluster, TrafficPolicy::Local][..])
}

fn number() -> impl Strategy<Value = NonZeroU16> {
    any::<NonZeroU16>()
}

fn ips() -> impl Strategy<Value = Vec<IpAddr>> {
    vec(any::<IpAddr>(), 0..3)
}

fn map() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(text(), text(), 0..3)
}
