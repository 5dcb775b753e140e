//! The shipped manifests against a real API server, and against the code that they configure.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use k3k_expose_host_api::config;
use k3k_expose_tests::overlay::{self, Overlay};
use k3k_expose_tests::{ControlPlane, PlaneOptions, eventually, k3k, manifest, webhook};
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingAdmissionPolicy};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::core::DynamicObject;
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::world::SOON;

/// Every document of the base.
fn base() -> Result<Vec<DynamicObject>> {
    let texts = manifest::base()?.into_iter().map(|path| Ok(std::fs::read_to_string(path)?));
    let documents = texts.map(|text: Result<_>| manifest::documents(&text?)).collect::<Result<Vec<_>>>()?;
    Ok(documents.concat())
}

#[tokio::test]
async fn every_document_of_the_base_is_taken_by_an_api_server() -> Result<()> {
    let host = ControlPlane::start(PlaneOptions::new("manifests").without_controllers()).await?;
    let client = host.client().await?;
    k3k::install(&client).await?;
    let documents = base()?;
    assert!(documents.len() > 15, "{}", documents.len());
    for document in &documents {
        manifest::dry_run(&client, document).await?;
        manifest::apply_one(&client, document).await?;
    }
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    for policy in policies.list(&Default::default()).await? {
        assert_eq!(policy.spec.context("a spec")?.failure_policy.as_deref(), Some("Fail"));
    }
    Ok(())
}

#[tokio::test]
async fn every_overlay_is_taken_by_an_api_server_that_has_the_base() -> Result<()> {
    let host = ControlPlane::start(PlaneOptions::new("overlays").without_controllers()).await?;
    let client = host.client().await?;
    k3k::install(&client).await?;
    cert_manager(&client).await?;
    let mut names = Overlay::all()?;
    names.sort();
    assert_eq!(names, ["cert-manager", "ingress-tls", "k3k-1.1", "label-webhook"]);
    for name in &names {
        for document in base()? {
            manifest::apply_one(&client, &document).await?;
        }
        Overlay::read(name)?.apply(&client).await.with_context(|| name.clone())?;
    }

    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "k3k-expose");
    let pod = json!(deployments.get("k3k-expose-host-api").await?)["spec"]["template"]["spec"].clone();
    let env: Vec<&Value> =
        pod["containers"][0]["env"].as_array().context("variables")?.iter().map(|it| &it["name"]).collect();
    for variable in ["K3K_EXPOSE_AGENT_IMAGE", "POD_NAME", "K3K_EXPOSE_TLS_CERT_FILE", "K3K_EXPOSE_TLS_KEY_FILE"] {
        assert!(env.iter().any(|name| *name == variable), "{variable} is none of {env:?}");
    }
    assert_eq!(pod["volumes"][0]["secret"]["secretName"], "k3k-expose-host-api-tls");

    let webhooks: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let asked: Vec<String> =
        webhooks.get(webhook::NAME).await?.webhooks.into_iter().flatten().map(|webhook| webhook.name).collect();
    assert_eq!(asked, ["inject.expose.k3k.io", "label.expose.k3k.io"]);
    let policies = base()?.into_iter().filter(|object| kind(object).starts_with("MutatingAdmissionPolicy"));
    for policy in policies {
        let api = manifest::api_of(&client, &policy).await?;
        let name = policy.metadata.name.context("a name")?;
        assert!(api.get_opt(&name).await?.is_none(), "{name} is in the way of hosts that do not serve it");
    }
    let egress: Api<NetworkPolicy> = Api::namespaced(client, "default");
    egress.get("k3k-expose-agent").await?;
    Ok(())
}

/// The kinds of cert-manager that its overlay makes, in name only.
async fn cert_manager(client: &Client) -> Result<()> {
    for kind in ["Issuer", "Certificate"] {
        let crd: DynamicObject = serde_json::from_value(overlay::any_crd("cert-manager.io", "v1", kind))?;
        manifest::apply_one(client, &crd).await?;
        let probe =
            json!({"apiVersion": "cert-manager.io/v1", "kind": kind, "metadata": {"name": "probe"}, "spec": {}});
        let probe: DynamicObject = serde_json::from_value(probe)?;
        eventually(kind, SOON, async || {
            ensure!(manifest::dry_run(client, &probe).await.is_ok(), "not served yet");
            anyhow::Ok(())
        })
        .await?;
    }
    Ok(())
}

#[test]
fn every_variable_of_the_deployment_is_an_option_of_the_code() -> Result<()> {
    let known: BTreeSet<String> = config::options().into_iter().map(|option| option.env).collect();
    let own = |name: &str| name.starts_with("K3K_EXPOSE_");
    let deployment = base()?.into_iter().find(|object| kind(object) == "Deployment").context("a Deployment")?;
    let deployment: Deployment = serde_json::from_value(serde_json::to_value(deployment)?)?;
    let pod = deployment.spec.and_then(|spec| spec.template.spec).context("a pod")?;
    let env = pod.containers.into_iter().flat_map(|container| container.env.unwrap_or_default());
    let set: BTreeSet<String> = env.map(|variable| variable.name).filter(|name| own(name)).collect();
    assert!(!set.is_empty());
    let unknown: Vec<_> = set.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    Ok(())
}

#[test]
fn the_webhook_asks_about_those_who_create_server_pods_and_never_stops_a_pod() -> Result<()> {
    let configuration = base()?.into_iter().find(|object| kind(object) == "MutatingWebhookConfiguration");
    let configuration: MutatingWebhookConfiguration =
        serde_json::from_value(serde_json::to_value(configuration.context("a webhook configuration")?)?)?;
    for webhook in configuration.webhooks.context("webhooks")? {
        assert_eq!(webhook.failure_policy.as_deref(), Some("Ignore"));
        assert_eq!(webhook.timeout_seconds, Some(3));
        let conditions = webhook.match_conditions.context("conditions")?;
        for creator in k3k_expose_host_api::inject::CREATORS {
            assert!(
                conditions.iter().any(|condition| condition.expression.contains(&format!("'{creator}'"))),
                "{creator}"
            );
        }
    }
    Ok(())
}

#[test]
fn base_and_chart_name_the_images_of_this_version() -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let image = |name: &str| format!("ghcr.io/k3k-expose/{name}:{version}");
    let deployment = base()?.into_iter().find(|object| kind(object) == "Deployment").context("a Deployment")?;
    let container = deployment.data["spec"]["template"]["spec"]["containers"][0].clone();
    let env = container["env"].as_array().context("variables")?;
    let agent =
        env.iter().find(|variable| variable["name"] == "K3K_EXPOSE_AGENT_IMAGE").context("the agent's image")?;
    assert_eq!((&container["image"], &agent["value"]), (&json!(image("host-api")), &json!(image("agent"))));
    let yaml = |file: &str| anyhow::Ok(serde_saphyr::from_str::<Value>(&manifest::text(file)?)?);
    let images = yaml("chart/values.yaml")?["images"].clone();
    assert_eq!(images, json!({"hostApi": image("host-api"), "agent": image("agent")}));
    let chart = yaml("chart/Chart.yaml")?;
    assert_eq!((&chart["version"], &chart["appVersion"]), (&json!(version), &json!(version)));
    Ok(())
}

fn kind(object: &DynamicObject) -> &str {
    object.types.as_ref().map_or("", |types| &types.kind)
}
