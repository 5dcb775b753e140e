//! Notices to the platform team, as warning Events on the Cluster. I/O.

use std::sync::Arc;
use std::time::Duration;

use k3k_expose_process::quote::causes;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::warn;

use crate::cluster::GROUP;
use crate::metrics::Metrics;
use crate::notice::Notice;

/// Longest wait for the API server to take an Event.
const PUBLISH: Duration = Duration::from_secs(10);

/// Publishes notices until no more can come.
pub async fn run(client: Client, metrics: Arc<Metrics>, mut notices: mpsc::Receiver<Notice>) {
    let reporter = Reporter { controller: "k3k-expose-host-api".to_owned(), instance: None };
    let recorder = Recorder::new(client, reporter);
    while let Some(notice) = notices.recv().await {
        let (reason, note) = (notice.kind.reason(), notice.kind.note());
        warn!(namespace = notice.namespace, cluster = notice.name, reason, note, "platform team was warned");
        metrics.noticed(reason);
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Expose".to_owned(),
            secondary: None,
        };
        let cluster = ObjectReference {
            api_version: Some(format!("{GROUP}/v1beta1")),
            kind: Some("Cluster".to_owned()),
            name: Some(notice.name),
            namespace: Some(notice.namespace),
            uid: Some(notice.cluster.to_string()),
            ..ObjectReference::default()
        };
        match timeout(PUBLISH, recorder.publish(&event, &cluster)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(error = causes(&error), "an event was not published"),
            Err(_) => warn!("an event was not published in time"),
        }
    }
}
