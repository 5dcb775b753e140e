//! What `plan` has to know, from files or from the host. I/O.

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::command::{self, Around, Planned};
use super::resource::ExposurePolicy;
use crate::cluster::Cluster;
use crate::config::Plan;

/// Plans what is asked.
///
/// # Errors
/// When a file cannot be read, or the host does not answer.
pub async fn plan(asked: &Plan) -> Result<Planned> {
    let text = read(&asked.file)?;
    let Some((namespace, name)) =
        asked.cluster.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
    else {
        bail!("--cluster must be NAMESPACE/NAME, as in --cluster team/mycluster");
    };
    let around = if asked.policies.is_empty() {
        from_host(namespace, name).await?
    } else {
        from_files(asked, &text, namespace, name)?
    };
    Ok(command::planned(&text, &around)?)
}

/// With policies from files nothing is asked of the host; Cluster and Namespace are those among the documents, if any.
fn from_files(asked: &Plan, text: &str, namespace: &str, name: &str) -> Result<Around> {
    let mut policies = String::new();
    for path in &asked.policies {
        policies.push_str("\n---\n");
        policies.push_str(&read(path)?);
    }
    let clusters: Vec<Cluster> = command::documents("the file", "Cluster", text)?;
    let mut cluster = clusters.into_iter().find(|cluster| cluster.name_any() == name).unwrap_or_default();
    cluster.metadata.name = Some(name.to_owned());
    cluster.metadata.namespace = Some(namespace.to_owned());
    let namespaces: Vec<Namespace> = command::documents("the file", "Namespace", text)?;
    let home = namespaces.into_iter().find(|home| home.name_any() == namespace);
    let mut labels = home.and_then(|home| home.metadata.labels).unwrap_or_default();
    // Every API server sets this one.
    labels.insert("kubernetes.io/metadata.name".to_owned(), namespace.to_owned());
    Ok(Around { cluster, namespace: labels, policies: command::policies(&policies)? })
}

async fn from_host(namespace: &str, name: &str) -> Result<Around> {
    let client = Client::try_default().await.context("no kubeconfig of the host; with --policy none is needed")?;
    let clusters: Api<Cluster> = Api::namespaced(client.clone(), namespace);
    let cluster = clusters.get(name).await.with_context(|| format!("cannot read Cluster {namespace}/{name}"))?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let home = namespaces.get(namespace).await.with_context(|| format!("cannot read namespace {namespace}"))?;
    let listed = Api::<ExposurePolicy>::all(client).list(&ListParams::default()).await;
    let mut policies = super::Policies::default();
    for policy in listed.context("cannot list exposurepolicies.expose.k3k.io")? {
        policies.set(&policy.name_any(), Some(policy.spec));
    }
    Ok(Around { cluster, namespace: home.metadata.labels.unwrap_or_default(), policies })
}

fn read(path: &std::path::Path) -> Result<String> {
    let text =
        if path.as_os_str() == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(path) };
    text.with_context(|| format!("cannot read {}", path.display()))
}
