//! What the platform team should know about a Cluster, in words. Pure; [`crate::report`] makes Events of it.

use k3k_expose_proto::Uid;

use crate::cluster::{ALLOW_MASS_DELETE, Cluster};

/// Most pods that a notice names.
const SHOWN: usize = 5;

/// Something that the platform team should know about a Cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// UID of the Cluster.
    pub cluster: Uid,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it is about.
    pub kind: NoticeKind,
}

impl Notice {
    /// A notice about a Cluster as the API server shows it.
    #[must_use]
    pub fn about(cluster: &Cluster, kind: NoticeKind) -> Option<Self> {
        Some(Self {
            cluster: Uid::parse(cluster.metadata.uid.as_deref()?).ok()?,
            namespace: cluster.metadata.namespace.clone()?,
            name: cluster.metadata.name.clone()?,
            kind,
        })
    }
}

/// What a notice is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoticeKind {
    /// Twins were made for a virtual cluster with another UID: none of them is touched.
    WrongVirtualCluster {
        /// UID of the virtual cluster that speaks now.
        speaks: Uid,
    },
    /// The virtual cluster is empty where many twins stand: none of them is deleted.
    Emptied {
        /// UID of the virtual cluster that speaks now.
        speaks: Uid,
        /// Number of twins.
        standing: usize,
    },
    /// k3k's own Service sync is on, so k3k writes what host-api should write.
    TwoWriters,
    /// The same of k3k's Ingress sync.
    TwoWritersOfIngresses,
    /// The Cluster's mode has no tenant pods on the host.
    UnsupportedMode,
    /// A server pod was created without the agent, since it would not have been admitted with it.
    NotInjected {
        /// What stands in the way.
        why: String,
    },
    /// Server pods run without the agent, highest ordinal first.
    Uninjected {
        /// Their namespace.
        namespace: String,
        /// Their names.
        pods: Vec<String>,
    },
}

/// What to do about two writers, for the Cluster's Event and for the agent's log.
pub const TWO_WRITERS: &str = "k3k's own Service sync is on, so nothing is written for this virtual cluster until it is \
                               off: set spec.sync.services.enabled to false on the Cluster";

/// The same about Ingresses.
pub const TWO_WRITERS_OF_INGRESSES: &str = "k3k's own Ingress sync is on, so no Ingress of this virtual cluster is written \
                                            until it is off: set spec.sync.ingresses.enabled to false on the Cluster";

impl NoticeKind {
    /// The Event's reason.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::WrongVirtualCluster { .. } => "WrongVirtualCluster",
            Self::Emptied { .. } => "VirtualClusterEmptied",
            Self::TwoWriters | Self::TwoWritersOfIngresses => "TwoWriters",
            Self::UnsupportedMode => "UnsupportedMode",
            Self::NotInjected { .. } => "AgentNotInjected",
            Self::Uninjected { .. } => "AgentMissing",
        }
    }

    /// The Event's note: what is the case, and what to do.
    #[must_use]
    pub fn note(&self) -> String {
        let through =
            |speaks: &Uid| format!("if this is meant, annotate the Cluster with {ALLOW_MASS_DELETE}={speaks}");
        match self {
            Self::WrongVirtualCluster { speaks } => format!(
                "Services on the host belong to another virtual cluster than the one that runs now; none of them is \
                 changed or deleted: {}",
                through(speaks)
            ),
            Self::Emptied { speaks, standing } => format!(
                "the virtual cluster has no Services but {standing} stand on the host; none of them is deleted: {}",
                through(speaks)
            ),
            Self::NotInjected { why } => format!(
                "a server pod runs without the agent, so this Cluster's Services are not exposed: {why}; make room, then \
                 delete the pod so that it is created anew"
            ),
            Self::Uninjected { namespace, pods } => uninjected(namespace, pods),
            Self::TwoWriters => TWO_WRITERS.to_owned(),
            Self::TwoWritersOfIngresses => TWO_WRITERS_OF_INGRESSES.to_owned(),
            Self::UnsupportedMode => "exposure is not available in this mode: only a Cluster in shared mode runs its \
                                      pods on the host"
                .to_owned(),
        }
    }
}

/// How to get the agent into pods that were created without it.
fn uninjected(namespace: &str, pods: &[String]) -> String {
    // An Event's note has room for 1,024 bytes.
    let lines: Vec<String> =
        pods.iter().take(SHOWN).map(|pod| format!("kubectl delete pod --namespace {namespace} {pod}")).collect();
    let more = if pods.len() > SHOWN { "; and so on" } else { "" };
    format!(
        "{} server pods run without the agent. Delete them one at a time, and wait until each is ready, which takes more than \
         a minute: {}{more}. Not by rollout restart: k3k takes the change of the template back, so each pod would start twice",
        pods.len(),
        lines.join("; ")
    )
}
