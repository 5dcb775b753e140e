//! An AdmissionReview (`admission.k8s.io/v1`) to the few things that matter of it, and back. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde::de::Error as _;
use serde_json::{Value, json};

/// What the API server asks about a pod.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Question {
    pub(super) uid: String,
    pub(super) namespace: String,
    pub(super) creator: String,
    /// Nothing will come of it, so nothing is to be told of it either: the webhook is installed with `sideEffects: None`.
    pub(super) dry_run: bool,
    pub(super) pod: Pod,
}

#[derive(Deserialize)]
struct Review {
    request: Request,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    #[serde(default)]
    namespace: String,
    user_info: UserInfo,
    #[serde(default)]
    dry_run: Option<bool>,
    object: Pod,
}

#[derive(Deserialize)]
struct UserInfo {
    #[serde(default)]
    username: String,
}

/// Most objects in a review, nested ones included: a pod has some hundreds. Whoever reaches the port may send a review, and an
/// empty object of two bytes becomes a container of several hundred.
const OBJECTS: usize = 16_384;

impl Question {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// When it is no review of a pod, or one with too many objects.
    pub(super) fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        if body.iter().filter(|byte| **byte == b'{').count() > OBJECTS {
            return Err(serde_json::Error::custom("too many objects"));
        }
        let Request { uid, namespace, user_info, dry_run, mut object } =
            serde_json::from_slice::<Review>(body)?.request;
        // The request knows it; the object may leave it out.
        object.metadata.namespace = Some(namespace.clone());
        let dry_run = dry_run.unwrap_or_default();
        Ok(Self { uid, namespace, creator: user_info.username, dry_run, pod: object })
    }
}

/// Lets the pod through, changed by a JSON patch if there is one. The word turns up in the API server's audit log.
pub(super) fn answer(uid: &str, word: &str, patch: Option<Value>) -> Value {
    let mut response = json!({"uid": uid, "allowed": true, "auditAnnotations": {"result": word}});
    if let Some(patch) = patch {
        response["patchType"] = "JSONPatch".into();
        response["patch"] = STANDARD.encode(patch.to_string()).into();
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_review_is_read_and_answered_under_its_uid() {
        let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "r", "namespace": "ns", "userInfo": {"username": "someone"}, "operation": "CREATE",
            "object": {"metadata": {"name": "p"}, "spec": {"containers": []}}}});
        let question = Question::parse(body.to_string().as_bytes()).unwrap();
        assert_eq!((question.uid.as_str(), question.creator.as_str()), ("r", "someone"));
        assert_eq!(question.pod.metadata.namespace.as_deref(), Some("ns"));
        assert!(!question.dry_run);
        let tried = body.to_string().replace("\"CREATE\"", "\"CREATE\",\"dryRun\":true");
        assert!(Question::parse(tried.as_bytes()).unwrap().dry_run);
        let left = answer("r", "OptedOut", None);
        assert_eq!((&left["response"]["allowed"], &left["response"]["patch"]), (&json!(true), &Value::Null));
        let changed = answer("r", "Injected", Some(json!([])));
        assert_eq!(changed["response"]["patch"], STANDARD.encode("[]"));
    }

    #[test]
    fn what_is_no_review_of_a_pod_is_an_error() {
        let crowd = format!(
            r#"{{"request":{{"uid":"r","userInfo":{{}},"object":{{"spec":{{"containers":[{}{{}}]}}}}}}}}"#,
            "{},".repeat(OBJECTS)
        );
        assert!(Question::parse(crowd.as_bytes()).unwrap_err().to_string().contains("too many objects"));
        for body in ["", "{}", r#"{"request":{}}"#, r#"{"request":{"uid":"r","userInfo":{},"object":[]}}"#] {
            assert!(Question::parse(body.as_bytes()).is_err(), "{body}");
        }
    }
}
