//! From one type to another: step by step, and with steps that host-api never hears of.

use anyhow::{Context, Result};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Service;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::world::{World, create, delete, replace, service};

#[tokio::test]
async fn every_walk_between_types_ends_in_the_right_twin_step_by_step() -> Result<()> {
    let world = World::shared("walks", "walks").await?;
    let services = world.namespace("steps").await?;
    let walks = walks([0, 1].map(|port| world.spare_port(port))).into_iter().map(async |(name, first, steps)| {
        let made = create(&services, &service(name, first)).await?;
        let twin = world.follows(&made).await?;
        for step in steps {
            let changed = take(&services, name, step.clone()).await?;
            match &step {
                Step::Alias => world.no_twin(name, "steps").await?,
                Step::To(spec) => {
                    let is = world.follows(&changed).await.with_context(|| format!("{name}: {spec}"))?;
                    // An alias loses its twin, and one that is made anew may have another.
                    if !name.contains("alias") {
                        assert_eq!(is.uid(), twin.uid(), "{name}: {spec} made another twin");
                    }
                }
                Step::Anew(_) => {
                    world.follows(&changed).await.with_context(|| format!("{name}: anew"))?;
                }
            }
        }
        anyhow::Ok(())
    });
    try_join_all(walks).await?;
    Ok(())
}

#[tokio::test]
async fn walks_that_fall_between_two_lines_end_in_the_right_twin() -> Result<()> {
    let world = World::shared("walks", "walks").await?;
    let services = world.namespace("between").await?;
    let first = walks([2, 3].map(|port| world.spare_port(port))).into_iter().map(async |(name, first, steps)| {
        let made = create(&services, &service(name, first)).await?;
        anyhow::Ok((name, steps, world.follows(&made).await?.uid()))
    });
    let first = try_join_all(first).await?;

    world.agent.kill().await?;
    let walked = first.into_iter().map(async |(name, steps, uid)| {
        let mut last = None;
        for step in steps {
            last = Some(take(&services, name, step).await?);
        }
        anyhow::Ok((name, last.context("a walk has steps")?, uid))
    });
    let walked = try_join_all(walked).await?;
    world.agent.restart().await?;
    for (name, wanted, uid) in walked {
        let twin = world.follows_in_all_but_numbers(&wanted).await.context(name)?;
        if !name.contains("anew") {
            assert_eq!(twin.uid(), uid, "{name}: another twin");
        }
    }
    Ok(())
}

/// One step of a walk.
#[derive(Clone)]
enum Step {
    /// A merge patch of the spec.
    To(Value),
    /// Into an alias, which lets go of every number.
    Alias,
    /// Deleted, and made again with this spec.
    Anew(Value),
}

async fn take(services: &Api<Service>, name: &str, step: Step) -> Result<Service> {
    match step {
        Step::To(spec) => replace(services, name, json!({"spec": spec})).await,
        Step::Alias => replace(services, name, json!({"spec": alias()})).await,
        Step::Anew(spec) => {
            delete(services, name).await?;
            create(services, &service(name, spec)).await
        }
    }
}

fn alias() -> Value {
    json!({"type": "ExternalName", "externalName": "example.com", "clusterIP": null, "clusterIPs": null,
        "ipFamilies": null, "ipFamilyPolicy": null})
}

fn back(ip: Option<&str>) -> Value {
    json!({"type": "ClusterIP", "externalName": null, "clusterIP": ip})
}

fn typed(word: &str) -> Value {
    json!({"type": word, "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]})
}

/// A spec with more fields.
fn with(mut spec: Value, fields: &Value) -> Value {
    for (field, value) in fields.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    spec
}

/// What drops every field that only a load balancer has.
fn no_balancer(word: &str) -> Step {
    Step::To(json!({"type": word, "loadBalancerClass": null, "allocateLoadBalancerNodePorts": null,
        "externalTrafficPolicy": null, "healthCheckNodePort": null,
        "ports": [{"port": 80, "targetPort": 8080}]}))
}

/// Names, first specs and the steps from there.
fn walks(health_checks: [u16; 2]) -> Vec<(&'static str, Value, Vec<Step>)> {
    let to = |spec: Value| Step::To(spec);
    let class = |name: &str| json!({"type": "LoadBalancer", "loadBalancerClass": format!("example.com/{name}")});
    let local =
        |port: u16| json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": port});
    let headless = with(typed("ClusterIP"), &json!({"clusterIP": "None"}));
    vec![
        (
            "up-and-down",
            typed("ClusterIP"),
            vec![
                to(json!({"type": "NodePort"})),
                to(json!({"type": "LoadBalancer"})),
                no_balancer("NodePort"),
                no_balancer("ClusterIP"),
                to(json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false})),
                no_balancer("ClusterIP"),
            ],
        ),
        (
            "class",
            with(typed("LoadBalancer"), &class("one")),
            vec![
                no_balancer("ClusterIP"),
                to(class("two")),
                no_balancer("ClusterIP"),
                to(json!({"type": "LoadBalancer"})),
                no_balancer("ClusterIP"),
                to(class("three")),
            ],
        ),
        (
            "class-dropped",
            with(typed("LoadBalancer"), &class("one")),
            vec![no_balancer("ClusterIP"), to(json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"}))],
        ),
        (
            "health-check",
            with(typed("LoadBalancer"), &local(health_checks[0])),
            vec![
                to(json!({"externalTrafficPolicy": "Cluster", "healthCheckNodePort": null})),
                to(local(health_checks[1])),
            ],
        ),
        ("to-headless-alias", typed("ClusterIP"), vec![Step::Alias, to(back(Some("None")))]),
        ("from-headless-alias", headless.clone(), vec![Step::Alias, to(back(None))]),
        (
            "balancer-to-headless-alias",
            with(typed("LoadBalancer"), &class("one")),
            vec![no_balancer("ClusterIP"), Step::Alias, to(back(Some("None")))],
        ),
        ("new-address-alias", typed("NodePort"), vec![no_balancer("ClusterIP"), Step::Alias, to(back(None))]),
        ("headless-anew", typed("ClusterIP"), vec![Step::Anew(headless.clone())]),
        ("address-anew", headless, vec![Step::Anew(typed("NodePort"))]),
        ("node-port-anew", typed("NodePort"), vec![Step::Anew(typed("NodePort")), Step::Anew(typed("LoadBalancer"))]),
    ]
}
