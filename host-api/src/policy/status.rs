//! Tells in the status of each policy whom it is about and whether it can be used. I/O.
//!
//! Only what differs is written, so that neither a restart nor a second replica writes anything.

use std::sync::Arc;
use std::time::Duration;

use k3k_expose_process::quote::{causes, quote};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::time::sleep;
use tracing::warn;

use super::resource::{ExposurePolicy, ExposurePolicyStatus, PolicyCondition};
use crate::hub::Hub;
use crate::registry::Verdicts;

/// Time between two looks at whether anything has changed.
const PERIOD: Duration = Duration::from_secs(1);
/// Time until a write that failed is tried again.
const AGAIN: Duration = Duration::from_secs(10);
/// Longest message of a condition, in bytes.
const MESSAGE: usize = 1024;

/// Keeps the statuses of all policies right. Never ends.
pub async fn run(client: Client, hub: Arc<Hub>) {
    let policies: Api<ExposurePolicy> = Api::all(client);
    let mut told = None;
    loop {
        let revision = hub.with(|registry, _| registry.policy_revision());
        if revision.is_some() && told != revision {
            match tell(&policies, &hub).await {
                Ok(()) => told = revision,
                // A host without the CRD has nothing to tell.
                Err(kube::Error::Api(status)) if status.code == 404 => told = revision,
                Err(error) => {
                    warn!(error = causes(&error), "policy status not written, tried again");
                    sleep(AGAIN).await;
                }
            }
        }
        sleep(PERIOD).await;
    }
}

async fn tell(policies: &Api<ExposurePolicy>, hub: &Hub) -> Result<(), kube::Error> {
    let listed = policies.list(&ListParams::default()).await?;
    let verdicts = hub.with(|registry, _| registry.verdicts());
    for policy in listed {
        let name = policy.name_any();
        let Some(verdict) = verdicts.get(&name) else { continue };
        let status = status(&policy, verdict, &Timestamp::now().to_string());
        if policy.status.as_ref() == Some(&status) {
            continue;
        }
        let patch = json!({"metadata": {"resourceVersion": policy.metadata.resource_version}, "status": status});
        match policies.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            // It has moved on: the watch tells of that.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => return Err(error),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// The status that a policy should have. The time of a condition changes with what it says only.
fn status(policy: &ExposurePolicy, verdict: &Verdicts, now: &str) -> ExposurePolicyStatus {
    let generation = policy.metadata.generation.unwrap_or_default();
    let accepted = verdict.mistakes.is_empty();
    let (word, reason) = if accepted { ("True", "Accepted") } else { ("False", "NotUsable") };
    let mut message = verdict.mistakes.iter().map(|mistake| quote(mistake)).collect::<Vec<_>>().join("; ");
    message.truncate(message.floor_char_boundary(MESSAGE));
    let standing = policy.status.iter().flat_map(|status| &status.conditions);
    let since = standing.into_iter().find(|condition| condition.kind == "Accepted" && condition.status == word);
    let since = since.map_or_else(|| now.to_owned(), |condition| condition.last_transition_time.clone());
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    ExposurePolicyStatus {
        observed_generation: generation,
        clusters: count(verdict.reach.clusters),
        governs: count(verdict.reach.governs),
        conditions: vec![PolicyCondition {
            kind: "Accepted".to_owned(),
            status: word.to_owned(),
            reason: reason.to_owned(),
            message,
            last_transition_time: since,
            observed_generation: generation,
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Reach;

    #[test]
    fn a_status_changes_with_what_it_says_only() {
        let mut policy = ExposurePolicy::new("team", Default::default());
        policy.metadata.generation = Some(3);
        let good = Verdicts { reach: Reach { clusters: 2, governs: 1 }, mistakes: Vec::new() };
        let first = status(&policy, &good, "2026-01-01T00:00:00Z");
        assert_eq!((first.clusters, first.governs, first.conditions[0].status.as_str()), (2, 1, "True"));
        policy.status = Some(first.clone());
        assert_eq!(status(&policy, &good, "2026-01-02T00:00:00Z"), first);
        let bad = Verdicts { mistakes: vec!["a pattern".to_owned()], ..good };
        let second = status(&policy, &bad, "2026-01-03T00:00:00Z");
        let condition = &second.conditions[0];
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "NotUsable"));
        assert_eq!(condition.last_transition_time, "2026-01-03T00:00:00Z");
    }
}
