//! Parameters of our writes: each names us as the field manager. Pure.

use kube::api::{PatchParams, PostParams, Preconditions};

use crate::twin::MANAGER;

/// Of a create or an update.
pub(crate) fn post() -> PostParams {
    PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
}

/// Of a patch.
pub(crate) fn patch() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

/// Of a deletion: it must be that very object, as it was when that was decided.
pub(crate) fn only(uid: &str, resource_version: &str) -> Preconditions {
    Preconditions { uid: Some(uid.to_owned()), resource_version: Some(resource_version.to_owned()) }
}
