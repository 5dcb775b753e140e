//! From a bearer token to the pod that it is bound to, by the host API server's TokenReview. I/O.
//!
//! The token's own payload is read only for words and for its expiry, and only after TokenReview has judged: nothing in
//! it decides.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use k3k_expose_process::quote::causes;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::{Api, Client};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};
use tokio::time::timeout;
use tracing::warn;

use crate::bounds::TOKEN_BYTES;
use crate::problem::Problem;

/// The audience of the tokens that we take. The host's API server is none of it, so it refuses them itself.
pub const AUDIENCE: &str = "k3k-expose";
/// Longest wait for the API server's verdict.
const REVIEW: Duration = Duration::from_secs(10);

/// A pod, as TokenReview names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Namespace of the pod and of its ServiceAccount.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// When the token expires, in seconds since the epoch.
    pub expires: u64,
}

/// Has the token judged.
///
/// # Errors
/// Why it does not prove a pod.
pub async fn authenticate(client: &Client, token: &SecretString, now: u64) -> Result<Caller, Problem> {
    if token.expose_secret().len() > TOKEN_BYTES {
        return Err(Problem::TokenRejected);
    }
    let review = TokenReview {
        spec: TokenReviewSpec {
            audiences: Some(vec![AUDIENCE.to_owned()]),
            token: Some(token.expose_secret().to_owned()),
        },
        ..TokenReview::default()
    };
    let reviews: Api<TokenReview> = Api::all(client.clone());
    let params = PostParams::default();
    let reviewed = match timeout(REVIEW, reviews.create(&params, &review)).await {
        Ok(Ok(review)) => review.status.unwrap_or_default(),
        Ok(Err(error)) => {
            warn!(error = causes(&error), "a token could not be reviewed");
            return Err(Problem::NotReady("the host's API server cannot judge the token now".to_owned()));
        }
        Err(_) => {
            return Err(Problem::NotReady("the host's API server did not judge the token in time".to_owned()));
        }
    };
    judge(reviewed, payload(token).unwrap_or_default(), now)
}

/// What of a token's payload is read.
#[derive(Debug, Default, Deserialize)]
struct Payload {
    #[serde(default, deserialize_with = "seconds")]
    exp: u64,
    #[serde(default)]
    aud: Audiences,
}

/// RFC 7519 allows one string or a list.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

fn judge(status: TokenReviewStatus, payload: Payload, now: u64) -> Result<Caller, Problem> {
    let audiences = status.audiences.unwrap_or_default();
    let good = status.authenticated == Some(true) && audiences.iter().any(|audience| audience == AUDIENCE);
    if !good {
        return Err(match payload {
            Payload { exp, .. } if exp != 0 && exp <= now => Problem::TokenExpired,
            Payload { aud, exp } if exp != 0 && !aud.contains(AUDIENCE) => Problem::WrongAudience,
            _ => Problem::TokenRejected,
        });
    }
    let user = status.user.unwrap_or_default();
    let account = user.username.as_deref().and_then(|name| name.strip_prefix("system:serviceaccount:"));
    let namespace = account.and_then(|account| account.split_once(':')).map(|(namespace, _)| namespace.to_owned());
    let extra = user.extra.unwrap_or_default();
    let one = |key: &str| match extra.get(key).map(Vec::as_slice) {
        Some([value]) => Some(value.clone()),
        _ => None,
    };
    let caller = || {
        Some(Caller {
            namespace: namespace?,
            pod: one("authentication.kubernetes.io/pod-name")?,
            pod_uid: one("authentication.kubernetes.io/pod-uid")?,
            expires: payload.exp,
        })
    };
    caller().ok_or_else(|| Problem::NotAServerPod("the token is not bound to a pod".to_owned()))
}

fn payload(token: &SecretString) -> Option<Payload> {
    let payload = token.expose_secret().split('.').nth(1)?;
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

/// A `NumericDate` (RFC 7519, section 2) may have a fraction or an exponent, and API servers take such tokens.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let date = f64::deserialize(deserializer)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast of floats saturates, and seconds of this age are exact"
    )]
    Ok(date as u64)
}

impl Audiences {
    fn contains(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Many(many) => many.iter().any(|one| one == audience),
        }
    }
}

impl Default for Audiences {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn status(change: impl Fn(&mut Value)) -> TokenReviewStatus {
        let mut status = json!({"authenticated": true, "audiences": [AUDIENCE], "user": {
            "username": "system:serviceaccount:ns:default",
            "extra": {"authentication.kubernetes.io/pod-name": ["p"], "authentication.kubernetes.io/pod-uid": ["u"]}}});
        change(&mut status);
        serde_json::from_value(status).unwrap()
    }

    fn token(payload: &Value) -> SecretString {
        format!("e30.{}.x", BASE64_URL_SAFE_NO_PAD.encode(payload.to_string())).into()
    }

    fn of(status: TokenReviewStatus, payload: &Value) -> Result<Caller, Problem> {
        judge(status, super::payload(&token(payload)).unwrap(), 1_000)
    }

    #[test]
    fn a_bound_token_names_its_pod() {
        let caller = of(status(|_| {}), &json!({"exp": 2_000, "aud": [AUDIENCE]})).unwrap();
        assert_eq!((caller.namespace.as_str(), caller.pod.as_str(), caller.expires), ("ns", "p", 2_000));
    }

    #[test]
    fn a_refusal_is_worded_by_the_payload() {
        let refused = || status(|status| status["authenticated"] = json!(false));
        assert_eq!(of(refused(), &json!({"exp": 999, "aud": "other"})), Err(Problem::TokenExpired));
        assert_eq!(of(refused(), &json!({"exp": 2_000, "aud": "other"})), Err(Problem::WrongAudience));
        assert_eq!(of(refused(), &json!({"exp": 2_000, "aud": [AUDIENCE]})), Err(Problem::TokenRejected));
        assert_eq!(of(refused(), &json!({})), Err(Problem::TokenRejected));
    }

    #[test]
    fn the_expiry_may_be_written_as_any_number() {
        for (exp, expected) in
            [(json!(1_795_384_000), 1_795_384_000), (json!(1.795_384e9), 1_795_384_000), (json!(-1), 0)]
        {
            assert_eq!(super::payload(&token(&json!({"exp": exp}))).unwrap().exp, expected);
        }
    }

    #[test]
    fn the_payload_alone_opens_nothing() {
        let good = json!({"exp": 2_000, "aud": [AUDIENCE]});
        assert!(of(status(|status| status["authenticated"] = json!(false)), &good).is_err());
        assert!(of(status(|status| status["audiences"] = json!(["https://kubernetes"])), &good).is_err());
        assert!(of(status(|status| status["user"]["extra"] = json!({})), &good).is_err());
        assert!(of(status(|status| status["user"]["username"] = json!("admin")), &good).is_err());
    }

    #[test]
    fn garbage_has_no_payload() {
        for text in ["", "a", "a.b.c", "a.!!.c", ".."] {
            assert!(super::payload(&text.to_owned().into()).is_none(), "{text}");
        }
    }
}
