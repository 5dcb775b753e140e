//! What was written and what CPU time went by between two moments.

use super::Usage;
use super::field::Field;
use crate::audit::{AuditLog, Mark};
use crate::product::{AGENT_USER, HOST_API_USER};

/// The beginning of a measurement.
pub(super) struct Spending {
    host: (AuditLog, Mark),
    virtual_cluster: (AuditLog, Mark),
    usage: Option<Usage>,
}

/// Writes of our two accounts, events among them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) on_host: usize,
    pub(super) in_virtual: usize,
    /// Those of the latter that are Events.
    pub(super) events_in_virtual: usize,
}

/// What it came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    pub(super) written: Written,
    pub(super) agent_cpu_s: f64,
    pub(super) host_api_cpu_s: f64,
}

impl Spending {
    /// With programs that run now and still will at the end.
    pub(super) async fn begin(field: &Field) -> anyhow::Result<Self> {
        Ok(Self { usage: Some(field.programs()?.usage().await?), ..Self::of_writes(field).await? })
    }

    /// Of writes alone, for programs that are not there yet.
    pub(super) async fn of_writes(field: &Field) -> anyhow::Result<Self> {
        let (host, virtual_cluster) = field.audits();
        let marks = (host.mark().await?, virtual_cluster.mark().await?);
        Ok(Self { host: (host, marks.0), virtual_cluster: (virtual_cluster, marks.1), usage: None })
    }

    /// The writes since the beginning.
    pub(super) async fn writes(&self, field: &Field) -> anyhow::Result<Written> {
        let count = async |(log, mark): &(AuditLog, Mark), user: &str| {
            let writes = log.writes_since(*mark, |other| other == user).await?;
            field.tell(user, &writes.events);
            anyhow::Ok((writes.counted.len() + writes.events.len(), writes.events.len()))
        };
        let (on_host, _) = count(&self.host, HOST_API_USER).await?;
        let (in_virtual, events_in_virtual) = count(&self.virtual_cluster, AGENT_USER).await?;
        Ok(Written { on_host, in_virtual, events_in_virtual })
    }

    /// Writes and CPU time since the beginning.
    pub(super) async fn end(&self, field: &Field) -> anyhow::Result<Spent> {
        // First, since reading the logs is work for the API servers only, but takes time.
        let after = field.programs()?.usage().await?;
        let before = self.usage.unwrap_or(after);
        Ok(Spent {
            written: self.writes(field).await?,
            agent_cpu_s: after.agent_cpu_s - before.agent_cpu_s,
            host_api_cpu_s: after.host_api_cpu_s - before.host_api_cpu_s,
        })
    }
}
