//! What the platform team should know about a Cluster, in words. Pure; [`crate::report`] makes Events of it.

use k3k_expose_proto::Uid;

use crate::cluster::ALLOW_MASS_DELETE;

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
    /// The Cluster's mode has no tenant pods on the host.
    UnsupportedMode,
}

/// What to do about two writers, for the Cluster's Event and for the agent's log.
pub const TWO_WRITERS: &str = "k3k's own Service sync is on, so nothing is written for this virtual cluster until it is \
                               off: set spec.sync.services.enabled to false on the Cluster";

impl NoticeKind {
    /// The Event's reason.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::WrongVirtualCluster { .. } => "WrongVirtualCluster",
            Self::Emptied { .. } => "VirtualClusterEmptied",
            Self::TwoWriters => "TwoWriters",
            Self::UnsupportedMode => "UnsupportedMode",
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
            Self::TwoWriters => TWO_WRITERS.to_owned(),
            Self::UnsupportedMode => "exposure is not available in this mode: only a Cluster in shared mode runs its \
                                      pods on the host"
                .to_owned(),
        }
    }
}
