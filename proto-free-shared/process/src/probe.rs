//! Answers of probes, in the form that Kubernetes components give. Pure.

use std::fmt::Write;

use crate::quote::quote;

/// One named check, and why it failed.
pub type Check = (&'static str, Result<(), String>);

/// An answer to a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether every check passed: 200, else 503.
    pub passed: bool,
    /// Every check when one failed or all were asked for, else just `ok`.
    pub text: String,
}

/// Reports checks. `query` is that of the request: `verbose` asks for all of them.
#[must_use]
pub fn report(name: &str, checks: &[Check], query: Option<&str>) -> Report {
    let passed = checks.iter().all(|(_, result)| result.is_ok());
    let mut parts = query.unwrap_or_default().split('&');
    if passed && !parts.any(|part| part == "verbose" || part.starts_with("verbose=")) {
        return Report { passed, text: "ok".to_owned() };
    }
    let mut text = String::new();
    for (check, result) in checks {
        // Writing into a string cannot fail.
        let _ = match result {
            Ok(()) => writeln!(text, "[+]{check} ok"),
            Err(why) => writeln!(text, "[-]{check} failed: {}", quote(why)),
        };
    }
    let _ = writeln!(text, "{name} check {}", if passed { "passed" } else { "failed" });
    Report { passed, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_given_on_request_and_on_failure() {
        let good: &[Check] = &[("ping", Ok(()))];
        let bad: &[Check] = &[("ping", Ok(())), ("watch", Err("no list\u{1b}".to_owned()))];
        assert_eq!(report("livez", good, None).text, "ok");
        assert_eq!(report("livez", good, Some("a=b&verbose")).text, "[+]ping ok\nlivez check passed\n");
        let failed = report("syncz", bad, None);
        assert!(!failed.passed);
        assert_eq!(failed.text, "[+]ping ok\n[-]watch failed: no list\\u{1b}\nsyncz check failed\n");
    }
}
