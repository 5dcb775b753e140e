//! Messages from little: right hashes, counts and roots, so that a test spells out only what it is about. Pure.

use std::num::NonZeroU16;

use anyhow::Context;
use k3k_expose_proto::ingress::Ingress;
use k3k_expose_proto::message::{Delete, End, Hello, Object, Put, Unusable};
use k3k_expose_proto::service::{Port, Protocol, ServiceType, TargetPort};
use k3k_expose_proto::{Hash, Key, Resource, Service, Tally, Uid, version};

/// A ClusterIP Service with one TCP port, for pods labeled `app=<app>`.
///
/// # Errors
/// When the port is 0.
pub fn cluster_ip_service(app: &str, port: u16) -> anyhow::Result<Service> {
    Ok(Service {
        ports: vec![service_port(port)?],
        selector: [("app".to_owned(), app.to_owned())].into(),
        ..Service::new(ServiceType::ClusterIP)
    })
}

/// An unnamed TCP port that leads to the same port of the pods.
///
/// # Errors
/// When it is 0.
pub fn service_port(number: u16) -> anyhow::Result<Port> {
    let port = NonZeroU16::new(number).context("no port is 0")?;
    Ok(Port {
        name: String::new(),
        protocol: Protocol::TCP,
        port,
        target_port: TargetPort::Number(port),
        app_protocol: None,
        node_port: None,
        node_port_pinned: false,
    })
}

/// The `put` of a Service.
///
/// # Errors
/// When namespace, name or UID is none.
pub fn put(namespace: &str, name: &str, uid: &str, service: Service) -> anyhow::Result<Put> {
    Ok(Put {
        key: Key::service(namespace, name)?,
        uid: Uid::parse(uid)?,
        hash: Hash::of(&service),
        seen: 0,
        unusable: Unusable::default(),
        object: Object::Service(Box::new(service)),
    })
}

/// The `put` of an Ingress.
///
/// # Errors
/// When namespace, name or UID is none.
pub fn put_ingress(namespace: &str, name: &str, uid: &str, ingress: Ingress) -> anyhow::Result<Put> {
    let object = Object::Ingress(Box::new(ingress));
    Ok(Put {
        key: Key::of(Resource::Ingresses, namespace, name)?,
        uid: Uid::parse(uid)?,
        hash: object.hash(),
        seen: 0,
        unusable: Unusable::default(),
        object,
    })
}

/// The `delete` that takes a `put` back.
#[must_use]
pub fn delete(put: &Put) -> Delete {
    Delete { key: put.key.clone(), uid: put.uid.clone() }
}

/// A first `hello` of an agent that wants these objects.
///
/// # Errors
/// When the UID of the virtual cluster is none.
pub fn hello(virtual_cluster: &str, wanted: &[Put]) -> anyhow::Result<Hello> {
    let Tally { count, root } = tally(wanted);
    Ok(Hello {
        versions: version::SUPPORTED.to_vec(),
        agent: "by-hand".to_owned(),
        projection: version::PROJECTION,
        virtual_cluster: Uid::parse(virtual_cluster)?,
        count,
        root,
        ingresses: false,
        secrets: false,
        seen: None,
    })
}

/// The `end` of a snapshot of these objects.
#[must_use]
pub fn end(said: &[Put]) -> End {
    let Tally { count, root } = tally(said);
    End { count, root }
}

/// Count and root of these objects.
#[must_use]
pub fn tally(puts: &[Put]) -> Tally {
    let mut tally = Tally::default();
    for put in puts {
        tally.add(&put.key, &put.uid, put.hash);
    }
    tally
}
