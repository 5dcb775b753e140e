//! What `plan` has to know, from files or from the host. I/O.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::command::{self, Around, Documents, Host, Planned};
use super::resource::ExposurePolicy;
use crate::cluster::Cluster;
use crate::config::Plan;
use crate::endpoints::address::{Addresses, Source};
use crate::endpoints::holder::{Holds, node, pod, server};
use crate::endpoints::slice::SERVICE_NAME;
use crate::kubeconfig;
use crate::ranges::Ranges;
use crate::twin::CLUSTER_NAME;

/// Longest file that is read, in bytes.
const FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Plans what is asked.
///
/// # Errors
/// When a file cannot be read, or the host does not answer.
pub async fn plan(asked: &Plan) -> Result<Planned> {
    let documents = Documents::parse("the file", &read(&asked.file)?)?;
    let Some((namespace, name)) =
        asked.cluster.split_once('/').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
    else {
        bail!("--cluster must be NAMESPACE/NAME, as in --cluster team/mycluster");
    };
    let around = if asked.policies.is_empty() {
        from_host(client(asked.kubeconfig.as_deref()).await?, &documents, namespace, name).await?
    } else {
        from_files(asked, &documents, namespace, name)?
    };
    Ok(command::planned(&documents, &around)?)
}

/// With policies from files nothing is asked of the host; Cluster and Namespace are those among the documents, if any.
fn from_files(asked: &Plan, documents: &Documents, namespace: &str, name: &str) -> Result<Around> {
    let mut policies = String::new();
    for path in &asked.policies {
        policies.push_str("\n---\n");
        policies.push_str(&read(path)?);
    }
    let clusters: Vec<Cluster> = documents.all("Cluster")?;
    let is_it = |cluster: &Cluster| {
        cluster.name_any() == name && cluster.namespace().is_none_or(|of_cluster| of_cluster == namespace)
    };
    let mut cluster = clusters.into_iter().find(is_it).unwrap_or_else(|| {
        let mut unknown = Cluster::default();
        // Nothing is known of it, so nothing is said of k3k's own sync, which is on where a Cluster does not say otherwise.
        unknown.spec.sync.services.enabled = false;
        unknown
    });
    cluster.metadata.name = Some(name.to_owned());
    cluster.metadata.namespace = Some(namespace.to_owned());
    let namespaces: Vec<Namespace> = documents.all("Namespace")?;
    let home = namespaces.into_iter().find(|home| home.name_any() == namespace);
    let mut labels = home.and_then(|home| home.metadata.labels).unwrap_or_default();
    // Every API server sets this one.
    labels.insert("kubernetes.io/metadata.name".to_owned(), namespace.to_owned());
    Ok(Around { cluster, namespace: labels, policies: command::policies(&policies)?, host: None })
}

async fn client(path: Option<&Path>) -> Result<Client> {
    match path {
        Some(path) => Client::try_from(kubeconfig::read(path).await?).context("cannot make a client for the host"),
        None => {
            Client::try_default().await.context("no kubeconfig of the host: give --kubeconfig, or --policy instead")
        }
    }
}

async fn from_host(client: Client, documents: &Documents, namespace: &str, name: &str) -> Result<Around> {
    let clusters: Api<Cluster> = Api::namespaced(client.clone(), namespace);
    let cluster = clusters.get(name).await.with_context(|| format!("cannot read Cluster {namespace}/{name}"))?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let home = namespaces.get(namespace).await.with_context(|| format!("cannot read namespace {namespace}"))?;
    let listed = Api::<ExposurePolicy>::all(client.clone()).list(&ListParams::default()).await;
    let mut policies = super::Policies::default();
    for policy in listed.context("cannot list exposurepolicies.expose.k3k.io")? {
        policies.set(&policy.name_any(), Some(policy.spec));
    }
    let host = if documents.have_endpoints() { Some(host(&client, namespace).await?) } else { None };
    Ok(Around { cluster, namespace: home.metadata.labels.unwrap_or_default(), policies, host })
}

/// Whose the addresses are that endpoints may have. A virtual cluster's pods are in its Cluster's namespace.
async fn host(client: &Client, namespace: &str) -> Result<Host> {
    let mut addresses = Addresses::default();
    let all = ListParams::default();
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    held(&mut addresses, Source::Pods, "pods", &pods, &all.clone().labels(CLUSTER_NAME), pod).await?;
    held(&mut addresses, Source::Nodes, "nodes", &Api::<Node>::all(client.clone()), &all, node).await?;
    let of_server = all.clone().labels(&format!("{SERVICE_NAME}=kubernetes"));
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), "default");
    held(&mut addresses, Source::Servers, "endpointslices.discovery.k8s.io", &slices, &of_server, server).await?;
    let mut ranges = Ranges::default();
    match Api::<ServiceCIDR>::all(client.clone()).list(&all).await {
        Ok(listed) => listed.into_iter().for_each(|range| {
            ranges.set(&range.name_any(), range.spec.and_then(|spec| spec.cidrs).as_deref());
        }),
        // An older host has none, and takes no endpoints.
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error).context("cannot list servicecidrs.networking.k8s.io"),
    }
    Ok(Host { addresses, ranges })
}

async fn held<K>(
    addresses: &mut Addresses,
    source: Source,
    what: &str,
    api: &Api<K>,
    which: &ListParams,
    holds: impl Fn(&K) -> Holds,
) -> Result<()>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let listed = api.list(which).await.with_context(|| format!("cannot list {what}"))?;
    for object in listed {
        addresses.set(source, &object.uid().unwrap_or_default(), holds(&object));
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    let cannot = || format!("cannot read {}", path.display());
    let mut text = String::new();
    let length = if path.as_os_str() == "-" {
        std::io::stdin().take(FILE_BYTES + 1).read_to_string(&mut text)
    } else {
        File::open(path).with_context(cannot)?.take(FILE_BYTES + 1).read_to_string(&mut text)
    };
    if u64::try_from(length.with_context(cannot)?).is_ok_and(|length| length <= FILE_BYTES) {
        return Ok(text);
    }
    bail!("{} is longer than {FILE_BYTES} bytes", path.display());
}
