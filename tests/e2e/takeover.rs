//! Take-over of the twins that k3k's own syncer made: in place, without a moment in which they lead nowhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use futures::TryStreamExt;
use k3k_expose_tests::Rig;
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::k3k::TenantOptions;
use k3k_expose_tests::product::HOST_API_USER;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::DeleteParams;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::task::JoinSet;

use crate::observe::{create_all, equal, metric, outcomes, twins, world, writes};
use crate::world::{SOON, service};

const COUNT: usize = 50;
/// A label and an annotation that k3k once copied.
const LEFT: &str = "example.com/left-over";

#[tokio::test]
async fn fifty_twins_of_k3k_are_taken_over_without_losing_an_endpoint() -> Result<()> {
    let rig = Rig::shared();
    let (host, host_api) = (rig.host().await?, rig.host_api().await?);
    let options = TenantOptions { sync_services: true, ..TenantOptions::default() };
    let world = world("takeover", options).await?;
    let tenant = &world.tenant;
    let audit = host.audit();
    let mark = audit.mark().await?;

    let services = world.namespace("first").await?;
    let made = create_all(&services, (0..=COUNT).map(numbered).collect()).await?;
    let mut uids = BTreeMap::new();
    for service in &made {
        let twin = tenant.create_twin_as_k3k(&left_over(service)).await?;
        uids.insert(twin.name_any(), twin.uid());
    }
    for number in 0..COUNT {
        let app = format!("app-{number}");
        tenant.tenant_pod(&app, "first", &[("app", &app)], false).await?;
    }
    // Deleted while nobody of k3k's was there to follow.
    let orphan = format!("web-{COUNT}");
    services.delete(&orphan, &DeleteParams::default()).await?;
    let orphan = tenant.twin_name(&orphan, "first");
    let expected: BTreeSet<String> = uids.keys().filter(|name| **name != orphan).cloned().collect();
    let endpoints = Arc::new(Mutex::new(Endpoints::default()));
    let mut watch = JoinSet::new();
    watch.spawn(follow(world.host.clone(), tenant.namespace.clone(), Arc::clone(&endpoints)));
    eventually("an endpoint for each twin", SOON, async || {
        let found = endpoints.lock().unwrap().full();
        ensure!(found.is_superset(&expected), "{} of {COUNT}", found.len());
        anyhow::Ok(())
    })
    .await?;

    outcomes(&world.agent, "pending", COUNT, SOON).await?;
    assert!(metric(host_api, "k3k_expose_host_api_services{outcome=\"pending\",reason=\"Adopting\"}").await? >= 50.0);
    assert_eq!(writes(&audit, mark, &tenant.namespace).await?, []);

    tenant.set_sync_services(false).await?;
    // The selectors are narrowed once host-api itself has put the labels of all pods right, and not before.
    eventually("the take-over", SOON, async || {
        let count = equal(&world.virtual_cluster, tenant).await?;
        ensure!(count == COUNT, "{count}");
        anyhow::Ok(())
    })
    .await?;
    outcomes(&world.agent, "applied", COUNT, SOON).await?;
    for (name, twin) in twins(tenant).await? {
        assert_eq!(twin.uid(), uids[&name], "{name} was made anew");
        assert!(!twin.annotations().contains_key(LEFT), "{name}: {:?}", twin.annotations());
    }
    let labels = audit.writes_since(mark, |user| user == HOST_API_USER).await?.upkeep;
    let labels = labels.iter().filter(|entry| entry.namespace == tenant.namespace && entry.resource == "pods");
    assert_eq!(labels.filter(|entry| entry.code == 200).count(), COUNT, "each pod once");
    assert!(watch.try_join_next().is_none(), "the watch ended");
    watch.shutdown().await;
    let endpoints = endpoints.lock().unwrap();
    assert!(endpoints.full().is_superset(&expected));
    let shrunk: Vec<_> = endpoints.shrunk.iter().filter(|name| **name != orphan).collect();
    assert!(shrunk.is_empty(), "these led nowhere for a while: {shrunk:?}");
    Ok(())
}

/// Its address is asked for below those that API servers draw, which other tests hold.
fn numbered(number: usize) -> Service {
    let address = format!("10.43.0.{}", 50 + number);
    let spec = json!({
        "clusterIP": address, "selector": {"app": format!("app-{number}")}, "ports": [{"port": 80, "targetPort": 8080}],
    });
    service(&format!("web-{number}"), spec)
}

/// The Service as it was when k3k copied it: with keys and an external IP that it has no more.
fn left_over(service: &Service) -> Service {
    let mut service = service.clone();
    service.labels_mut().insert(LEFT.to_owned(), "by-k3k".to_owned());
    service.annotations_mut().insert(LEFT.to_owned(), "by-k3k".to_owned());
    if let Some(spec) = &mut service.spec {
        spec.external_ips = Some(vec!["192.0.2.7".to_owned()]);
    }
    service
}

/// Which Services have a ready endpoint, and which had one and lost it.
#[derive(Default)]
struct Endpoints {
    ready: BTreeMap<String, (String, usize)>,
    shrunk: BTreeSet<String>,
}

impl Endpoints {
    fn full(&self) -> BTreeSet<String> {
        self.ready.values().filter(|(_, count)| *count > 0).map(|(service, _)| service.clone()).collect()
    }

    fn seen(&mut self, slice: &EndpointSlice) {
        let service = slice.labels().get("kubernetes.io/service-name").cloned().unwrap_or_default();
        let is_ready = |conditions: Option<bool>| conditions.unwrap_or(true);
        let ready = slice.endpoints.iter();
        let ready = ready.filter(|one| is_ready(one.conditions.as_ref().and_then(|conditions| conditions.ready)));
        let count = ready.flat_map(|one| &one.addresses).count();
        let before = self.ready.insert(slice.name_any(), (service.clone(), count));
        if before.is_some_and(|(_, before)| before > count) {
            self.shrunk.insert(service);
        }
    }
}

/// Takes in every state of every EndpointSlice; ends only on an error.
async fn follow(host: Client, namespace: String, endpoints: Arc<Mutex<Endpoints>>) -> watcher::Result<()> {
    let slices: Api<EndpointSlice> = Api::namespaced(host, &namespace);
    let events = watcher(slices, watcher::Config::default());
    let take = async |event| {
        let mut endpoints = endpoints.lock().unwrap();
        match event {
            Event::Apply(slice) | Event::InitApply(slice) => endpoints.seen(&slice),
            Event::Delete(slice) => {
                if let Some((service, _)) = endpoints.ready.remove(&slice.name_any()) {
                    endpoints.shrunk.insert(service);
                }
            }
            Event::Init | Event::InitDone => {}
        }
    };
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.try_next().await? {
        take(event).await;
    }
    Ok(())
}
