//! The certificate that both TLS ports show, and the authorities that vouch for it: host-api's own, or files of somebody else.
//!
//! `plan` decides, `material` reads and makes, `own` keeps the Secret, `files` follows files, `shown` hands out, and
//! `ca_bundle` tells the API server whom to trust.

pub mod ca_bundle;
pub mod files;
pub mod material;
pub mod own;
pub mod plan;
pub mod shown;

use std::time::{SystemTime, UNIX_EPOCH};

use files::Paths;
use plan::Lifetimes;

/// Service of host-api as the manifests install it.
const SERVICE: &str = "k3k-expose-host-api";

/// Who makes certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// host-api itself.
    Own(Lifetimes),
    /// Somebody who puts them into files.
    Files(Paths),
}

/// Names under which host-api is called: those of its Service, and the host of the URL that agents are given.
#[must_use]
pub fn names(namespace: &str, url: &str) -> Vec<String> {
    let mut names: Vec<String> =
        ["", ".svc", ".svc.cluster.local"].map(|suffix| format!("{SERVICE}.{namespace}{suffix}")).into();
    let host = url.parse::<http::Uri>().ok().and_then(|url| url.host().map(str::to_owned));
    let host = host.map(|host| host.trim_matches(['[', ']']).to_owned());
    names.extend(host.filter(|host| !names.contains(host)));
    names
}

fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn the_host_of_the_url_is_a_name_once() {
        assert_eq!(names("here", "https://k3k-expose-host-api.here.svc:8443").len(), 3);
        assert_eq!(names("here", "https://127.0.0.1:1").last().unwrap(), "127.0.0.1");
        assert_eq!(names("here", "https://[::1]:1").last().unwrap(), "::1");
    }
}
