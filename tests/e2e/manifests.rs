//! The shipped manifests against a real API server, and against the code that they configure.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use k3k_expose_host_api::config;
use k3k_expose_tests::{ControlPlane, PlaneOptions, k3k, manifest};
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingAdmissionPolicy};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::core::DynamicObject;

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
    manifest::apply_file(&client, &manifest::folder().join("overlays/k3k-1.1/egress.yaml")).await?;

    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    for policy in policies.list(&Default::default()).await? {
        assert_eq!(policy.spec.context("a spec")?.failure_policy.as_deref(), Some("Fail"));
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

fn kind(object: &DynamicObject) -> &str {
    object.types.as_ref().map_or("", |types| &types.kind)
}
