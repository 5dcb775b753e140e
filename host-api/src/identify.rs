//! Looks up, live, what [`crate::tenant`] judges: the pod, its StatefulSet and its Cluster. I/O.

use std::time::Duration;

use k3k_expose_process::quote::causes;
use k3k_expose_proto::Uid;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tracing::warn;

use crate::authenticate::Caller;
use crate::cluster::{Cluster, ClusterState};
use crate::notice::{Notice, NoticeKind};
use crate::problem::Problem;
use crate::tenant::{self, NotATenant, ServerPod, Tenant};

/// Longest wait for one lookup.
const LOOK_UP: Duration = Duration::from_secs(10);

/// Who is speaking.
#[derive(Clone, Debug)]
pub struct Identity {
    /// For whom.
    pub tenant: Tenant,
    /// What the tenant's Cluster says now.
    pub state: ClusterState,
    /// The pod.
    pub pod: ServerPod,
}

/// A refusal, and what the platform team should know of it.
#[derive(Debug)]
pub struct Refused {
    /// For the agent.
    pub problem: Problem,
    /// For the platform team.
    pub notice: Option<Notice>,
}

/// Finds the tenant that a pod speaks for.
///
/// # Errors
/// Why it speaks for none.
pub async fn identify(client: &Client, caller: &Caller) -> Result<Identity, Refused> {
    let namespace = caller.namespace.as_str();
    let pod: Option<Pod> = get(client, namespace, &caller.pod).await?;
    let pod = tenant::living(pod.as_ref(), &caller.pod_uid)?;
    let OwnerReference { name, .. } = tenant::stateful_set_of(pod)?;
    let set: Option<StatefulSet> = get(client, namespace, name).await?;
    let OwnerReference { name, .. } = tenant::cluster_of(pod, set.as_ref())?;
    let cluster: Option<Cluster> = get(client, namespace, name).await?;
    let tenant = tenant::tenant_of(pod, set.as_ref(), cluster.as_ref()).map_err(|refusal| {
        let notice = cluster
            .as_ref()
            .filter(|_| matches!(refusal, NotATenant::UnsupportedMode(_)))
            .and_then(|cluster| Notice::about(cluster, NoticeKind::UnsupportedMode));
        Refused { notice, ..Refused::from(refusal) }
    })?;
    let ordinal = set.as_ref().and_then(|set| tenant::ordinal(pod, set)).ok_or(NotATenant::PodGone)?;
    let pod = ServerPod { uid: Uid::parse(&caller.pod_uid).map_err(|_| NotATenant::PodGone)?, ordinal };
    let state = cluster.as_ref().map(ClusterState::from).ok_or(NotATenant::PodGone)?;
    Ok(Identity { tenant, state, pod })
}

async fn get<K>(client: &Client, namespace: &str, name: &str) -> Result<Option<K>, Problem>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let objects: Api<K> = Api::namespaced(client.clone(), namespace);
    let unable = || Problem::NotReady("the host's API server cannot be asked who is speaking now".to_owned());
    match timeout(LOOK_UP, objects.get_opt(name)).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => {
            warn!(kind = %K::kind(&()), namespace, name, error = causes(&error), "a lookup failed");
            Err(unable())
        }
        Err(_) => Err(unable()),
    }
}

impl From<NotATenant> for Refused {
    fn from(refusal: NotATenant) -> Self {
        let detail = refusal.to_string();
        let problem = match refusal {
            NotATenant::PodGone => Problem::PodGone,
            NotATenant::NotAServerPod(_) => Problem::NotAServerPod(detail),
            NotATenant::UnsupportedMode(_) => Problem::UnsupportedMode(detail),
        };
        Self { problem, notice: None }
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self { problem, notice: None }
    }
}
