//! The random changes: of a tenant, of a cloud, and of somebody on the host who needs numbers, too.

use std::collections::BTreeMap;

use anyhow::Result;
use fastrand::Rng;
use k3k_expose_tests::{cloud, k3k};
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Error};
use serde_json::{Value, json};

use crate::world::{World, service};

/// Services of the tenant.
pub const NAMES: usize = 300;
/// Services of somebody else on the host.
const FOREIGN: usize = 60;

/// Who changes what.
pub struct Moves<'a> {
    world: &'a World,
    services: Api<Service>,
    foreign: Api<Service>,
    tally: BTreeMap<&'static str, usize>,
}

impl<'a> Moves<'a> {
    pub async fn new(world: &'a World, services: Api<Service>) -> Result<Self> {
        k3k::ensure_namespace(&world.host, "foreign").await?;
        let foreign = Api::namespaced(world.host.clone(), "foreign");
        Ok(Self { world, services, foreign, tally: BTreeMap::new() })
    }

    /// What was done, and how often.
    pub fn tally(&self) -> String {
        self.tally.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ")
    }

    /// Somebody else first, then the tenant: the first conflicts.
    pub async fn fill(&mut self, rng: &mut Rng) -> Result<()> {
        for index in 0..FOREIGN {
            self.occupy(rng, index).await?;
        }
        for index in 0..NAMES {
            let made = service(&format!("web-{index}"), spec(rng));
            taken(self.services.create(&PostParams::default(), &made).await)?;
        }
        Ok(())
    }

    /// One change that the API server has taken.
    pub async fn change(&mut self, rng: &mut Rng, number: usize) -> Result<()> {
        loop {
            let name = format!("web-{}", rng.usize(..NAMES));
            let (what, done) = match rng.u8(..20) {
                0..2 => ("deleted", taken(self.services.delete(&name, &DeleteParams::default()).await)?),
                2..7 => {
                    let made = service(&name, spec(rng));
                    ("made", taken(self.services.create(&PostParams::default(), &made).await)?)
                }
                7..10 => {
                    let patch = json!({"metadata": {"labels": {"round": number.to_string()}},
                        "spec": {"selector": {"app": format!("app-{}", number % 7)}}});
                    ("edited", self.patch(&name, patch).await?)
                }
                10..12 => ("given other ports", self.patch(&name, json!({"spec": {"ports": ports(rng)}})).await?),
                12..14 => ("given another type", self.patch(&name, retyped(rng)).await?),
                14..16 => ("given addresses by the cloud", self.give(rng, &name).await?),
                16 => ("damaged in its status", self.damage(&name).await?),
                17 => ("edited on the host", self.edit_twin(&name, number).await?),
                18 => ("occupied on the host", self.occupy(rng, number % FOREIGN).await?),
                _ => {
                    let name = format!("foreign-{}", rng.usize(..FOREIGN));
                    ("freed on the host", taken(self.foreign.delete(&name, &DeleteParams::default()).await)?)
                }
            };
            if done {
                *self.tally.entry(what).or_default() += 1;
                return Ok(());
            }
        }
    }

    async fn patch(&self, name: &str, patch: Value) -> Result<bool> {
        taken(self.services.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await)
    }

    async fn give(&self, rng: &mut Rng, name: &str) -> Result<bool> {
        let ip = |rng: &mut Rng| json!({"ip": format!("192.0.2.{}", rng.u8(1..))});
        let entries = match rng.u8(..4) {
            0 => json!([]),
            1 => json!([{"hostname": "lb.example.com"}]),
            2 => json!([ip(rng), {"ip": "2001:db8::7"}]),
            _ => json!([ip(rng)]),
        };
        let twin = self.world.tenant.twin_name(name, "shop");
        // Not every twin is of type LoadBalancer.
        Ok(cloud::set_ingress(&self.world.tenant.host_services(), &twin, &entries).await.is_ok())
    }

    async fn damage(&self, name: &str) -> Result<bool> {
        let patch = json!({"status": {"conditions": null, "loadBalancer": null}});
        taken(self.services.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await)
    }

    async fn edit_twin(&self, name: &str, number: usize) -> Result<bool> {
        let patch = json!({"spec": {"selector": {"app": "wrong"}, "sessionAffinity": "None"}});
        let twin = self.world.tenant.twin_name(name, "shop");
        // Each at most once or twice, so that it is an accident and no contest.
        if !number.is_multiple_of(3) {
            return Ok(false);
        }
        taken(self.world.tenant.host_services().patch(&twin, &PatchParams::default(), &Patch::Merge(&patch)).await)
    }

    /// Somebody else's Service on the host, with numbers that tenants like to ask for, or drawn ones.
    async fn occupy(&self, rng: &mut Rng, index: usize) -> Result<bool> {
        let mut spec = json!({"type": "NodePort", "ports": [{"port": 80}]});
        match rng.u8(..3) {
            0 => spec["ports"][0]["nodePort"] = asked_port(rng).into(),
            1 => spec["clusterIP"] = asked_ip(rng).into(),
            _ => {}
        }
        taken(self.foreign.create(&PostParams::default(), &service(&format!("foreign-{index}"), spec)).await)
    }
}

/// Numbers that API servers do not draw by themselves, so that only those who ask collide here.
fn asked_port(rng: &mut Rng) -> u16 {
    rng.u16(30_000..30_040)
}

fn asked_ip(rng: &mut Rng) -> String {
    format!("10.43.0.{}", rng.u8(20..100))
}

fn ports(rng: &mut Rng) -> Value {
    let mut ports = vec![json!({"name": "web", "port": 80}), json!({"name": "dns", "port": 53, "protocol": "UDP"})];
    if rng.bool() {
        ports.push(json!({"name": "dns-tcp", "port": 53}));
    }
    rng.shuffle(&mut ports);
    ports.into()
}

fn spec(rng: &mut Rng) -> Value {
    let mut spec = json!({"selector": {"app": "web"}, "ports": ports(rng)});
    match rng.u8(..10) {
        0 => {
            spec["clusterIP"] = "None".into();
            return spec;
        }
        1 => return json!({"type": "ExternalName", "externalName": "example.com"}),
        2..5 => spec["type"] = "NodePort".into(),
        5 => {
            spec["type"] = "LoadBalancer".into();
            spec["externalTrafficPolicy"] = "Local".into();
            spec["loadBalancerSourceRanges"] = json!(["192.0.2.0/24"]);
        }
        6 => spec["type"] = "LoadBalancer".into(),
        _ => {}
    }
    if spec["type"] != Value::Null && rng.u8(..3) == 0 {
        spec["ports"][0]["nodePort"] = asked_port(rng).into();
    }
    if rng.u8(..4) == 0 {
        spec["clusterIP"] = asked_ip(rng).into();
    }
    spec
}

fn retyped(rng: &mut Rng) -> Value {
    let kind = *rng.choice(&["ClusterIP", "NodePort", "LoadBalancer"]).unwrap_or(&"ClusterIP");
    let policy = if kind == "ClusterIP" { Value::Null } else { json!("Cluster") };
    json!({"spec": {"type": kind, "externalTrafficPolicy": policy, "loadBalancerSourceRanges": null,
        "allocateLoadBalancerNodePorts": null, "healthCheckNodePort": null}})
}

/// Whether the API server has taken a change. It refuses what is not there, what is there already, and taken numbers.
fn taken<T>(outcome: kube::Result<T>) -> Result<bool> {
    match outcome {
        Ok(_) => Ok(true),
        Err(Error::Api(status)) if [404, 409, 422, 500].contains(&status.code) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
