//! The agent's own account in the virtual cluster: made, mended and given tokens with the administrator's credential,
//! which is used for nothing else.
//!
//! What the account may do is `manifests/agent-rbac.yaml`, `agent-rbac-ingress.yaml` where Ingresses are on, and
//! `agent-rbac-ingress-tls.yaml` where their certificates cross; all are built in. An object is written only if it differs,
//! so that a restart writes nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k3k_expose_proto::Resource;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::client::{Body, ClientBuilder};
use kube::{Client, ResourceExt};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tower::util::MapRequestLayer;

use crate::reconnect::Backoff;
use k3k_expose_process::quote::causes;

const MANIFEST: &str = include_str!("../../manifests/agent-rbac.yaml");
const INGRESS_MANIFEST: &str = include_str!("../../manifests/agent-rbac-ingress.yaml");
const TLS_MANIFEST: &str = include_str!("../../manifests/agent-rbac-ingress-tls.yaml");
const NAMESPACE: &str = "kube-system";
const NAME: &str = crate::pins::MANAGER;
const TOKEN_SECONDS: i64 = 3600;
/// Least time between two mendings: a tenant that keeps deleting the account must not keep the agent writing.
const MEND_PERIOD: Duration = Duration::from_secs(5);

/// Longest that all of it may take. An API server that has just started may hold a request back for a minute.
const ENSURE: Duration = Duration::from_secs(10);

/// The account, and the token that its client shows.
pub(crate) struct Account {
    admin: Mutex<Client>,
    manifests: Vec<&'static str>,
    token: Arc<Mutex<SecretString>>,
    minted: watch::Sender<bool>,
    mend: Notify,
}

#[derive(Debug, thiserror::Error)]
enum AccountError {
    #[error("the built-in manifest is broken")]
    Manifest,
    #[error("the virtual cluster's API server refused or did not answer")]
    Api(#[from] kube::Error),
    #[error("the virtual cluster's API server did not answer in time")]
    Late,
    #[error("the token request was answered without a token")]
    NoToken,
}

impl Account {
    pub(crate) fn new(admin: Client, watched: &[Resource]) -> Self {
        let manifest_for = |resource: &Resource| match resource {
            Resource::Services => MANIFEST,
            Resource::Ingresses => INGRESS_MANIFEST,
            Resource::Secrets => TLS_MANIFEST,
        };
        Self {
            admin: Mutex::new(admin),
            manifests: watched.iter().map(manifest_for).collect(),
            token: Arc::default(),
            minted: watch::Sender::new(false),
            mend: Notify::new(),
        }
    }

    /// The administrator's credential was minted anew.
    pub(crate) fn set_admin(&self, admin: Client) {
        *lock(&self.admin) = admin;
    }

    /// A client that acts as the account. It always shows the newest token.
    pub(crate) fn client(&self, anonymous: kube::Config) -> Result<Client, kube::Error> {
        let token = Arc::clone(&self.token);
        let show = MapRequestLayer::new(move |mut request: http::Request<Body>| {
            let bearer = format!("Bearer {}", lock(&token).expose_secret());
            if let Ok(mut bearer) = http::HeaderValue::try_from(bearer) {
                bearer.set_sensitive(true);
                request.headers_mut().insert(http::header::AUTHORIZATION, bearer);
            }
            request
        });
        Ok(ClientBuilder::try_from(anonymous)?.with_layer(&show).build())
    }

    /// Asks for the account and its token to be mended, after a 401 or 403.
    pub(crate) fn mend(&self) {
        self.mend.notify_one();
    }

    /// Waits for the first token.
    pub(crate) async fn minted(&self) {
        // The sender lives as long as the account does.
        let _ = self.minted.subscribe().wait_for(|minted| *minted).await;
    }

    /// Keeps the account and its token in order for as long as it is polled.
    pub(crate) async fn keep(&self) {
        let mut backoff = Backoff::of_connections();
        let mut told = String::new();
        loop {
            match timeout(ENSURE, self.ensure()).await.unwrap_or(Err(AccountError::Late)) {
                Ok(lifetime) => {
                    backoff.reset();
                    told.clear();
                    let mended_at = Instant::now();
                    tokio::select! {
                        () = sleep(lifetime * 2 / 3) => {}
                        () = self.mend.notified() => {
                            tokio::time::sleep_until(mended_at + MEND_PERIOD).await;
                            tracing::info!("account refused by the virtual cluster, mending it");
                        }
                    }
                }
                Err(error) => {
                    let error = causes(&error);
                    if error == told {
                        tracing::debug!(error, "account not ready");
                    } else {
                        tracing::warn!(error, "account not ready");
                        told = error;
                    }
                    sleep(backoff.delay(fastrand::f64())).await;
                }
            }
        }
    }

    /// Makes what is missing and mints a token. Gives the token's lifetime.
    async fn ensure(&self) -> Result<Duration, AccountError> {
        let admin = lock(&self.admin).clone();
        let mut objects = Vec::new();
        for text in &self.manifests {
            objects.extend(manifest(text)?);
        }
        for (resource, wanted) in objects {
            ensure_object(&admin, &resource, &wanted).await?;
        }
        let request = TokenRequest {
            spec: TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() },
            ..TokenRequest::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(admin, NAMESPACE);
        let answer = accounts.create_token_request(NAME, &PostParams::default(), &request).await?;
        let status = answer.status.filter(|status| !status.token.is_empty()).ok_or(AccountError::NoToken)?;
        *lock(&self.token) = status.token.into();
        self.minted.send_replace(true);
        // The server may grant less than was asked for.
        let seconds = answer.spec.expiration_seconds.unwrap_or(TOKEN_SECONDS);
        let seconds = u64::try_from(seconds).unwrap_or_default().max(MEND_PERIOD.as_secs());
        tracing::debug!(seconds, "account token minted");
        Ok(Duration::from_secs(seconds))
    }
}

/// The objects of a manifest with their kinds.
fn manifest(text: &str) -> Result<Vec<(ApiResource, DynamicObject)>, AccountError> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|_| AccountError::Manifest)?;
    let typed = documents.into_iter().map(|document| {
        let resource = match document.get("kind").and_then(Value::as_str) {
            Some("ServiceAccount") => ApiResource::erase::<ServiceAccount>(&()),
            Some("ClusterRole") => ApiResource::erase::<ClusterRole>(&()),
            Some("ClusterRoleBinding") => ApiResource::erase::<ClusterRoleBinding>(&()),
            _ => return Err(AccountError::Manifest),
        };
        let object = serde_json::from_value(document).map_err(|_| AccountError::Manifest)?;
        Ok((resource, object))
    });
    typed.collect()
}

async fn ensure_object(admin: &Client, resource: &ApiResource, wanted: &DynamicObject) -> Result<(), kube::Error> {
    let api: Api<DynamicObject> = match wanted.namespace() {
        Some(namespace) => Api::namespaced_with(admin.clone(), &namespace, resource),
        None => Api::all_with(admin.clone(), resource),
    };
    let (name, kind) = (wanted.name_any(), &resource.kind);
    let post = PostParams { field_manager: Some(NAME.to_owned()), ..PostParams::default() };
    let Some(live) = api.get_opt(&name).await? else {
        api.create(&post, wanted).await?;
        tracing::info!(kind, name, "account object made");
        return Ok(());
    };
    let value = |object: &DynamicObject| serde_json::to_value(object).map_err(kube::Error::SerdeError);
    if covers(&value(&live)?, &value(wanted)?) {
        return Ok(());
    }
    let patch = PatchParams { field_manager: Some(NAME.to_owned()), ..PatchParams::default() };
    match api.patch(&name, &patch, &Patch::Merge(wanted)).await {
        // The role of a binding cannot be changed.
        Err(kube::Error::Api(status)) if status.code == 422 => {
            api.delete(&name, &DeleteParams::default()).await?;
            api.create(&post, wanted).await?;
        }
        patched => drop(patched?),
    }
    tracing::info!(kind, name, "account object mended");
    Ok(())
}

/// Whether `live` says all that `wanted` says. Lists count as a whole, as they do in a merge patch.
fn covers(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| live.get(key).is_some_and(|live| covers(live, wanted)))
        }
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| covers(live, wanted))
        }
        _ => live == wanted,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_manifest_has_exactly_the_account_its_role_and_the_binding() {
        let manifest = manifest(MANIFEST).unwrap();
        let kinds: Vec<&str> = manifest.iter().map(|(resource, _)| resource.kind.as_str()).collect();
        assert_eq!(kinds, ["ServiceAccount", "ClusterRole", "ClusterRoleBinding"]);
        assert!(manifest.iter().all(|(_, object)| object.name_any() == NAME));
        assert_eq!(manifest[0].1.namespace().as_deref(), Some(NAMESPACE));
        let role = &manifest[1].1.data;
        let expected = json!([
            {"apiGroups": [""], "resources": ["services"], "verbs": ["get", "list", "watch", "patch"]},
            {"apiGroups": [""], "resources": ["services/status"], "verbs": ["patch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
            {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]},
            {"apiGroups": ["networking.k8s.io"], "resources": ["servicecidrs"], "verbs": ["list"]},
            {"apiGroups": ["networking.k8s.io"], "resources": ["ipaddresses"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["namespaces"], "resourceNames": ["kube-system"], "verbs": ["get"]},
        ]);
        assert_eq!(role["rules"], expected);
    }

    #[test]
    fn ingresses_are_a_role_of_their_own() {
        let manifest = manifest(INGRESS_MANIFEST).unwrap();
        let kinds: Vec<&str> = manifest.iter().map(|(resource, _)| resource.kind.as_str()).collect();
        assert_eq!(kinds, ["ClusterRole", "ClusterRoleBinding"]);
        let expected = json!([
            {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses"], "verbs": ["get", "list", "watch", "patch"]},
            {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses/status"], "verbs": ["patch"]},
            {"apiGroups": ["networking.k8s.io"], "resources": ["ingressclasses"], "verbs": ["list", "create", "delete"]},
        ]);
        assert_eq!(manifest[0].1.data["rules"], expected);
    }

    #[test]
    fn secrets_are_a_role_of_their_own_and_only_read() {
        let manifest = manifest(TLS_MANIFEST).unwrap();
        let kinds: Vec<&str> = manifest.iter().map(|(resource, _)| resource.kind.as_str()).collect();
        assert_eq!(kinds, ["ClusterRole", "ClusterRoleBinding"]);
        let expected = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]}]);
        assert_eq!(manifest[0].1.data["rules"], expected);
    }

    #[test]
    fn an_object_is_left_alone_when_it_says_all_that_is_wanted() {
        let wanted = json!({"metadata": {"labels": {"a": "1"}}, "rules": [{"verbs": ["get"]}]});
        for (live, expected) in [
            (wanted.clone(), true),
            (json!({"metadata": {"labels": {"a": "1", "b": "2"}, "uid": "u"}, "rules": [{"verbs": ["get"]}]}), true),
            (json!({"metadata": {"labels": {"a": "2"}}, "rules": [{"verbs": ["get"]}]}), false),
            (json!({"metadata": {"labels": {"a": "1"}}, "rules": [{"verbs": ["get", "list"]}]}), false),
            (json!({"metadata": {"labels": {"a": "1"}}, "rules": null}), false),
        ] {
            assert_eq!(covers(&live, &wanted), expected, "{live}");
        }
    }
}
