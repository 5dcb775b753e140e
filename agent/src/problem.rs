//! A refusal before the stream: status and problem details (RFC 9457) to why, and how soon to try again. Pure.

use std::time::Duration;

use serde::Deserialize;

use crate::reconnect::Failure;
use k3k_expose_process::quote::quote;

/// Most bytes that are read of a body.
pub(crate) const BODY_BYTES: usize = 16 * 1024;

/// Why no session was opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("host-api refused the session ({status}, {reason}): {detail}")]
pub(crate) struct Problem {
    /// The HTTP status.
    pub(crate) status: u16,
    /// host-api's own word, or a dash.
    pub(crate) reason: String,
    /// The same in words.
    pub(crate) detail: String,
    /// How soon the next try makes sense.
    pub(crate) failure: Failure,
}

/// The members that matter here, `reason` being an extension. Every one may be missing: a proxy may have answered.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Details {
    title: String,
    detail: String,
    reason: String,
}

impl Problem {
    /// Reads a response that is not 200. `retry_after` is its header, of which only seconds are understood.
    #[must_use]
    pub(crate) fn read(status: u16, retry_after: Option<&str>, body: &[u8]) -> Self {
        let details: Details = serde_json::from_slice(body).unwrap_or_default();
        let asked = retry_after.and_then(|seconds| seconds.trim().parse().ok());
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { quote(text) };
        Self {
            status,
            reason: or_dash(&details.reason),
            detail: or_dash(if details.detail.is_empty() { &details.title } else { &details.detail }),
            failure: match status {
                401 | 403 | 426 => Failure::Identity,
                _ => Failure::Busy(asked.map(Duration::from_secs)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_and_version_are_retried_slowly_and_the_rest_as_asked() {
        let failure = |status, retry_after| Problem::read(status, retry_after, b"").failure;
        for status in [401, 403, 426] {
            assert_eq!(failure(status, Some("1")), Failure::Identity);
        }
        assert_eq!(failure(503, Some("2")), Failure::Busy(Some(Duration::from_secs(2))));
        assert_eq!(failure(429, Some("Fri, 31 Dec 1999 23:59:59 GMT")), Failure::Busy(None));
        assert_eq!(failure(502, None), Failure::Busy(None));
    }

    #[test]
    fn details_are_shown_harmlessly_and_need_not_be_there() {
        let body =
            br#"{"type":"about:blank","title":"t","status":403,"detail":"a\u001b[0mb","reason":"UnsupportedMode"}"#;
        let problem = Problem::read(403, None, body);
        assert_eq!(problem.reason, "UnsupportedMode");
        assert_eq!(problem.detail, "a\\u{1b}[0mb");
        let other = Problem::read(502, None, b"<html>bad gateway</html>");
        assert_eq!((other.reason.as_str(), other.detail.as_str()), ("-", "-"));
    }
}
