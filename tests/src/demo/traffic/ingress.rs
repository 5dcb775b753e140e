//! Ingresses of a tenant, through the host's controller and through its own.

use anyhow::{Context, ensure};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::super::stage::Stage;
use super::center::{Center, Crew, NAMESPACE, SOON, Side, address};
use super::checks::{check, names_of, node_port};
use crate::eventually::eventually;
use crate::traffic::{Namespace, curl};

const HOST: &str = "shop.a.example.com";
const OTHER_HOST: &str = "new.a.example.com";

pub(super) async fn host_controller(stage: &mut Stage, center: &Center, crew: &Crew<'_>) -> anyhow::Result<()> {
    stage.begin(
        "Ingress by the host's controller",
        "An Ingress of the virtual cluster is served by a controller that knows nothing of virtual clusters, and follows its changes.",
    );
    let (alpha, client) = (&center.alpha, &center.fabric.client);
    let [web, other] = [names_of(&crew.alpha, "web").await?, names_of(&crew.alpha, "other").await?];
    for name in ["web", "other"] {
        let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
        alpha.serve(name, json!({"selector": {"app": name}, "ports": ports})).await?;
    }
    let served = async |host: &str, path: &str, at: &str, pods: &std::collections::BTreeSet<String>| {
        eventually(&format!("{host}{path}"), SOON, async || {
            let name = curl::get_host(client, at, host, path).await?;
            ensure!(pods.contains(&name), "{name} answered");
            Ok(name)
        })
        .await
    };
    let mut at = String::new();
    check(stage, "Ingress: its status has the address of the host's controller", async {
        create(alpha, "shop", "public", HOST, "web").await?;
        at = status(alpha, "shop").await?;
        let services = kube::Api::namespaced(center.host_client.clone(), "ingress");
        ensure!(address(&services, "envoy").await? == at, "{at} is not the controller's");
        Ok(at.clone())
    })
    .await;
    check(stage, "Ingress: http://<host>/<path> leads to the tenant's pod", async {
        Ok(format!("http://{HOST}/hostname leads to {}", served(HOST, "/hostname", &at, &web).await?))
    })
    .await;
    check(stage, "Ingress: another backend is followed", async {
        change(alpha, "shop", rules(HOST, "/hostname", "other")).await?;
        Ok(format!("{} answers now", served(HOST, "/hostname", &at, &other).await?))
    })
    .await;
    check(stage, "Ingress: another path is followed", async {
        change(alpha, "shop", rules(HOST, "/clientip", "web")).await?;
        not_served(client, &at, HOST, "/hostname").await?;
        eventually("the new path", SOON, async || curl::get_host(client, &at, HOST, "/clientip").await).await?;
        Ok("404 at the old one".to_owned())
    })
    .await;
    check(stage, "Ingress: another host is followed", async {
        change(alpha, "shop", rules(OTHER_HOST, "/hostname", "web")).await?;
        served(OTHER_HOST, "/hostname", &at, &web).await?;
        not_served(client, &at, HOST, "/clientip").await?;
        Ok(format!("{OTHER_HOST}; 404 at the old one"))
    })
    .await;
    check(stage, "Ingress: its deletion ends it", async {
        alpha.ingresses().delete("shop", &DeleteParams::default()).await?;
        not_served(client, &at, OTHER_HOST, "/hostname").await?;
        Ok("nothing answers for its host".to_owned())
    })
    .await;
    Ok(())
}

pub(super) async fn own_controller(stage: &mut Stage, center: &Center, crew: &Crew<'_>) -> anyhow::Result<()> {
    stage.begin(
        "Ingress by a controller of the tenant's own",
        "The controller runs in the virtual cluster; all that has to be exposed is its Service, and no policy of the host is asked.",
    );
    let (alpha, client) = (&center.alpha, &center.fabric.client);
    let at = address(&alpha.services_of("ingress"), "envoy").await?;
    let service = alpha.services_of("ingress").get("envoy").await?;
    let node = center.fabric.nodes[1].address.to_string();
    let by_port = format!("{node}:{}", node_port(&service, "http")?);
    for (name, at, kind) in [("LoadBalancer", at, "its address"), ("NodePort", by_port, "its node port")] {
        check(stage, &format!("Own controller, {name}: two Services by host name"), async {
            for app in ["web", "other"] {
                let host = format!("{app}.tenant.example");
                if name == "LoadBalancer" {
                    create(alpha, &format!("own-{app}"), "own", &host, app).await?;
                }
                let pods = names_of(&crew.alpha, app).await?;
                eventually(&host, SOON, async || {
                    let name = curl::get_host(client, &at, &host, "/hostname").await?;
                    ensure!(pods.contains(&name), "{name} answered");
                    Ok(())
                })
                .await?;
            }
            Ok(format!("by {kind}, {at}"))
        })
        .await;
    }
    check(stage, "Own controller: the addresses that it writes are left alone", async {
        let at = address(&alpha.services_of("ingress"), "envoy").await?;
        for app in ["web", "other"] {
            let shown = status(alpha, &format!("own-{app}")).await?;
            ensure!(shown == at, "own-{app} shows {shown}");
        }
        Ok(format!("{at} in two Ingresses"))
    })
    .await;
    Ok(())
}

pub(super) async fn create(side: &Side, name: &str, class: &str, host: &str, service: &str) -> anyhow::Result<()> {
    let mut ingress = rules(host, "/hostname", service);
    ingress["metadata"] = json!({"name": name, "namespace": NAMESPACE});
    ingress["spec"]["ingressClassName"] = json!(class);
    side.ingresses().create(&PostParams::default(), &serde_json::from_value(ingress)?).await?;
    Ok(())
}

async fn change(side: &Side, name: &str, patch: Value) -> anyhow::Result<()> {
    side.ingresses().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

fn rules(host: &str, path: &str, service: &str) -> Value {
    let backend = json!({"service": {"name": service, "port": {"name": "http"}}});
    json!({"spec": {"rules": [{"host": host, "http": {"paths": [
        {"path": path, "pathType": "Prefix", "backend": backend},
    ]}}]}})
}

/// The address that an Ingress shows, once it does.
pub(super) async fn status(side: &Side, name: &str) -> anyhow::Result<String> {
    eventually(&format!("an address of Ingress {name}"), SOON, async || {
        let found = side.ingresses().get(name).await?;
        let entries = found.status.and_then(|status| status.load_balancer).and_then(|balancer| balancer.ingress);
        let entry = entries.unwrap_or_default().into_iter().next();
        entry.and_then(|entry| entry.ip).context("it shows none")
    })
    .await
}

async fn not_served(client: &Namespace, at: &str, host: &str, path: &str) -> anyhow::Result<()> {
    eventually(&format!("nothing at {host}{path}"), SOON, async || match curl::get_host(client, at, host, path).await {
        Ok(answer) => Err(format!("{answer} answers")),
        // With its last Ingress the controller closes its port.
        Err(error) if ["404", "connect to server"].iter().any(|no| error.to_string().contains(no)) => Ok(()),
        Err(error) => Err(format!("{error:#}")),
    })
    .await
}
