//! Labels and words as API servers take them, by the rules of `k8s.io/apimachinery`'s validation. Pure.
//!
//! The host's API server would refuse all else itself; but a refusal costs it as much as a write, and more the longer the text.

use k3k_expose_proto::key::is_dns_subdomain;

/// Longest name of a label, longest value, and longest word, in bytes.
const LONGEST: usize = 63;

/// A label of an object, or an entry of a selector.
#[must_use]
pub(crate) fn is_label((key, value): (&String, &String)) -> bool {
    is_qualified_name(key) && (value.is_empty() || is_name(value))
}

/// A name that may have a domain in front: a label's key, a class of load balancers, an application protocol.
#[must_use]
pub(crate) fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((domain, name)) => is_dns_subdomain(domain) && is_name(name),
        None => is_name(text),
    }
}

/// A key of an annotation, of which API servers regard the lower case.
#[must_use]
pub(crate) fn is_annotation_key(key: &str) -> bool {
    is_qualified_name(&key.to_ascii_lowercase())
}

/// What names a port or a distribution of traffic.
#[must_use]
pub(crate) fn is_word(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    (1..=LONGEST).contains(&text.len())
        && text.bytes().all(inner)
        && end(text.bytes().next())
        && end(text.bytes().next_back())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_qualified_names_with_short_values() {
        let long = "x".repeat(64);
        for (key, value, expected) in [
            ("app", "web", true),
            ("app.kubernetes.io/name", "Web_1.0", true),
            ("A_b.c-d", "", true),
            ("", "web", false),
            ("a/b/c", "", false),
            ("/a", "", false),
            ("Up.example/a", "", false),
            ("a b", "", false),
            ("-a", "", false),
            ("a", "-", false),
            ("a", "b\u{1b}[2J", false),
            (&long, "", false),
            ("a", &long, false),
            (&long[1..], &long[1..], true),
        ] {
            assert_eq!(is_label((&key.to_owned(), &value.to_owned())), expected, "{key}={value}");
        }
    }

    #[test]
    fn words_are_short_and_plain() {
        for (word, expected) in [("PreferClose", true), ("http-2", true), ("", false), ("a b", false)] {
            assert_eq!(is_word(word), expected, "{word}");
        }
        assert!(!is_word(&"x".repeat(64)));
    }
}
