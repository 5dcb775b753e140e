//! Refusals of a request as problem details (RFC 9457). Pure.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Why a session is not opened. The name of a variant is the `reason` that the agent sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// No bearer token.
    TokenMissing,
    /// The token's time is over.
    TokenExpired,
    /// The token is for somebody else.
    WrongAudience,
    /// The host's API server does not know the token.
    TokenRejected,
    /// The token is not that of a server pod.
    NotAServerPod(String),
    /// The pod does not live any more.
    PodGone,
    /// The Cluster's mode has no tenant pods on the host.
    UnsupportedMode(String),
    /// No wire version that both sides speak, or not HTTP/2.
    NoCommonVersion(String),
    /// The first line is no hello.
    BadHello(String),
    /// The session changes hands too often.
    TooManyTakeovers(String),
    /// The tenant, or all of them, have too many sessions.
    TooManySessions(String),
    /// This pod, or this address, tries too often.
    TooManyTries,
    /// Too many want a session at this moment.
    TooBusy,
    /// Host-api, or the host's API server, cannot judge now.
    NotReady(String),
    /// Another replica serves sessions.
    NotLeader,
}

impl Problem {
    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::TokenMissing | Self::TokenExpired | Self::WrongAudience | Self::TokenRejected => {
                StatusCode::UNAUTHORIZED
            }
            Self::NotAServerPod(_) | Self::PodGone | Self::UnsupportedMode(_) => StatusCode::FORBIDDEN,
            Self::NoCommonVersion(_) => StatusCode::UPGRADE_REQUIRED,
            Self::BadHello(_) => StatusCode::BAD_REQUEST,
            Self::TooManyTakeovers(_) | Self::TooManySessions(_) | Self::TooManyTries => StatusCode::TOO_MANY_REQUESTS,
            Self::TooBusy | Self::NotReady(_) | Self::NotLeader => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The extension member `reason`: a closed set of words.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::TokenMissing => "TokenMissing",
            Self::TokenExpired => "TokenExpired",
            Self::WrongAudience => "WrongAudience",
            Self::TokenRejected => "TokenRejected",
            Self::NotAServerPod(_) => "NotAServerPod",
            Self::PodGone => "PodGone",
            Self::UnsupportedMode(_) => "UnsupportedMode",
            Self::NoCommonVersion(_) => "NoCommonVersion",
            Self::BadHello(_) => "BadHello",
            Self::TooManyTakeovers(_) => "TooManyTakeovers",
            Self::TooManySessions(_) => "TooManySessions",
            Self::TooManyTries => "TooManyTries",
            Self::TooBusy => "TooBusy",
            Self::NotReady(_) => "NotReady",
            Self::NotLeader => "NotLeader",
        }
    }

    fn detail(&self) -> &str {
        match self {
            Self::TokenMissing => "send the pod's token for audience k3k-expose as a bearer token",
            Self::TokenExpired => "the token has expired; read it again from its file",
            Self::WrongAudience => "the token is not for audience k3k-expose",
            Self::TokenRejected => "the host's API server does not accept the token",
            Self::NotLeader => "another replica of host-api serves sessions, or is about to",
            Self::PodGone => "the pod of this token is gone or done",
            Self::TooManyTries => "too many tries to open a session from here; come back more slowly",
            Self::TooBusy => "too many want a session at this moment",
            Self::NotAServerPod(detail)
            | Self::UnsupportedMode(detail)
            | Self::NoCommonVersion(detail)
            | Self::BadHello(detail)
            | Self::TooManyTakeovers(detail)
            | Self::TooManySessions(detail)
            | Self::NotReady(detail) => detail,
        }
    }

    /// Seconds to wait before asking again, where waiting alone can help.
    const fn retry_after(&self) -> Option<u16> {
        match self {
            Self::TooManyTakeovers(_) => Some(30),
            Self::TooManySessions(_) => Some(60),
            Self::TooManyTries => Some(10),
            Self::TooBusy | Self::NotReady(_) => Some(2),
            // Another connection may reach the one that does.
            Self::NotLeader => Some(1),
            _ => None,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let body = serde_json::json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or_default(),
            "status": status.as_u16(),
            "detail": self.detail(),
            "reason": self.reason(),
        });
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (status, kind, body.to_string()).into_response();
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
