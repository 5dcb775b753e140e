//! A refusal before the stream, as host-api words it (RFC 9457).

use std::fmt;

use serde::Deserialize;

/// Why no session was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status; 0 when there was no HTTP answer, or one that is no refusal and no session either.
    pub status: u16,
    /// The closed word, for example `UnsupportedMode`.
    pub reason: String,
    /// The sentence.
    pub detail: String,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Details {
    status: u16,
    reason: String,
    detail: String,
}

impl Problem {
    /// Nobody refused; something else went wrong.
    pub(super) fn silent(why: impl fmt::Display) -> Self {
        Self { detail: why.to_string(), ..Self::default() }
    }

    /// Reads a refusal. What is not in the promised form is told as such, since that would be a mistake of host-api's.
    pub(super) async fn read(answer: reqwest::Response) -> Self {
        let status = answer.status().as_u16();
        let header = |name| {
            let value = answer.headers().get(name)?;
            Some(value.to_str().ok()?.to_owned())
        };
        let kind = header(http::header::CONTENT_TYPE).unwrap_or_default();
        let retry_after = header(http::header::RETRY_AFTER).and_then(|seconds| seconds.parse().ok());
        let body = answer.text().await.unwrap_or_default();
        let details: Details = serde_json::from_str(&body).unwrap_or_default();
        let promised = kind == "application/problem+json" && details.status == status;
        Self {
            status,
            reason: details.reason,
            detail: if promised { details.detail } else { format!("no problem details but {kind}: {body}") },
            retry_after,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            0 => write!(formatter, "no session: {}", self.detail),
            status => write!(formatter, "{status} {}: {}", self.reason, self.detail),
        }
    }
}

impl std::error::Error for Problem {}
