//! The status that kubelet writes, only when it has changed.

use k8s_openapi::api::core::v1::{Container as Spec, Pod};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::container::Container;

/// The status of one pod.
#[derive(Debug)]
pub(super) struct Status {
    pods: Api<Pod>,
    name: String,
    written: Value,
    ready: Option<bool>,
}

impl Status {
    pub(super) fn new(pods: Api<Pod>, pod: &Pod) -> Self {
        Self { pods, name: pod.name_any(), written: Value::Null, ready: None }
    }

    /// Writes what is so now; gives the Ready condition when that has changed.
    pub(super) async fn write(&mut self, sidecars: &[Container], others: &[Spec]) -> anyhow::Result<Option<bool>> {
        let ready = sidecars.iter().all(Container::is_ready);
        let init: Vec<Value> = sidecars.iter().map(sidecar).collect();
        let main: Vec<Value> = others
            .iter()
            .map(|spec| {
                json!({"name": spec.name, "image": spec.image, "imageID": "", "ready": true, "started": true,
                "restartCount": 0})
            })
            .collect();
        let word = if ready { "True" } else { "False" };
        let status = json!({"status": {
            "phase": "Running", "initContainerStatuses": init, "containerStatuses": main,
            "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": word}],
        }});
        if status == self.written {
            return Ok(None);
        }
        self.pods.patch_status(&self.name, &PatchParams::default(), &Patch::Merge(&status)).await?;
        self.written = status;
        Ok((self.ready.replace(ready) != Some(ready)).then_some(ready))
    }
}

fn sidecar(container: &Container) -> Value {
    json!({"name": container.name(), "image": crate::product::AGENT_IMAGE, "imageID": "", "ready": container.is_ready(),
        "started": container.is_up(), "restartCount": container.restarts()})
}
