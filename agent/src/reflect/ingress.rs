//! The writes on a virtual Ingress: addresses into its status, what became of it into an annotation. I/O.
//!
//! An Ingress has no conditions, and its status is a subresource, so the two are two writes. Whichever fails is made
//! again by itself, since each is compared with what stands.

use k8s_openapi::api::networking::v1::Ingress;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use super::{Reflect, call};
use crate::pins::MANAGER;
use crate::write_back::{Job, K3K_INGRESS_FINALIZER, Refusal, SYNCED_ANNOTATION, Status, Step};

impl Reflect<'_> {
    /// Gives the Ingress as it is after the write.
    pub(super) async fn write_ingress(&self, job: &Job) -> Result<Option<Ingress>, (Refusal, String)> {
        let ingresses: Api<Ingress> = Api::namespaced(self.client.clone(), job.key.namespace());
        let name = job.key.name();
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        match &job.step {
            Step::Status(status) => {
                let mut written: Option<Ingress> = None;
                if let Some(body) = addresses(job, status) {
                    written = Some(call(ingresses.patch_status(name, &params, &Patch::Merge(&body))).await?);
                }
                if let Some((synced, _)) = &status.synced {
                    let revision = written.as_ref().and_then(ResourceExt::resource_version);
                    let revision = revision.unwrap_or_else(|| job.revision.to_string());
                    let annotations = json!({SYNCED_ANNOTATION: synced.as_annotation()});
                    let metadata = json!({"uid": job.uid, "resourceVersion": revision, "annotations": annotations});
                    let body = json!({"metadata": metadata});
                    written = Some(call(ingresses.patch(name, &params, &Patch::Merge(&body))).await?);
                }
                Ok(written)
            }
            Step::StripFinalizer => {
                let Some(ingress) = call(ingresses.get_opt(name)).await? else {
                    return Err((Refusal::Gone, "the Ingress is gone".to_owned()));
                };
                if ingress.metadata.uid.as_deref() != Some(job.uid.as_str()) {
                    return Err((Refusal::Gone, "it is another Ingress".to_owned()));
                }
                let others = ingress.finalizers().iter().filter(|finalizer| *finalizer != K3K_INGRESS_FINALIZER);
                let others: Vec<&String> = others.collect();
                let meta = &ingress.metadata;
                let body = json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": others}});
                call(ingresses.patch(name, &params, &Patch::Merge(&body))).await.map(Some)
            }
            // An Ingress has no numbers to write, and an Event is no write on it.
            _ => Ok(None),
        }
    }
}

/// A merge patch of the status, for this very object as it was when the patch was decided on. Modes of addresses are for Services only.
fn addresses(job: &Job, status: &Status) -> Option<Value> {
    let mut entries = json!(status.ingress.as_ref()?);
    for entry in entries.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        entry.remove("ipMode");
    }
    let entries = if entries.as_array().is_some_and(Vec::is_empty) { Value::Null } else { entries };
    let metadata = json!({"uid": job.uid, "resourceVersion": job.revision.to_string()});
    Some(json!({"metadata": metadata, "status": {"loadBalancer": {"ingress": entries}}}))
}
