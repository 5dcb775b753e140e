//! Names on the host, by k3k's own rule, so that its twins are adopted and its Ingress syncer finds ours. Pure.
//!
//! The rule is that of k3k's `TranslateName` and `SafeConcatNameWithPrefix`; the vectors in the tests were made by it.
//! The trap: a cut name keeps 20 to 24 bits of a hash, so two objects can be made to share one name on purpose.

use sha2::{Digest, Sha256};

/// Longest name that is kept whole, plus one (DNS label of RFC 1123).
const WHOLE: usize = 64;
/// Where a longer name is cut.
const CUT: usize = 57;

/// Name of the twin of the virtual object `name` in `namespace` of `cluster`. Empty parts are left out.
#[must_use]
pub fn twin(name: &str, namespace: &str, cluster: &str) -> String {
    let parts = [name, namespace, cluster];
    let suffix = hex(join(&parts, "+").as_bytes());
    cut(&[&join(&parts, "-"), &suffix])
}

/// Name of the StatefulSet of a Cluster's servers.
#[must_use]
pub fn server(cluster: &str) -> String {
    cut(&["k3k", cluster, "server"])
}

/// Name of the Secret with a Cluster's kubeconfig.
#[must_use]
pub fn kubeconfig(cluster: &str) -> String {
    cut(&["k3k", cluster, "kubeconfig"])
}

/// Bytes as lower-case hex digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    let mut hex = String::with_capacity(2 * bytes.len());
    hex.extend(digits.filter_map(|digit| char::from_digit(digit.into(), 16)));
    hex
}

/// Whether a text has nothing but such digits.
#[must_use]
pub fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Joins the parts with dashes and cuts a name that is too long, as k3k does.
fn cut(parts: &[&str]) -> String {
    let mut name = join(parts, "-");
    if name.len() < WHOLE {
        return name;
    }
    // Six digits of it are the most that a name keeps.
    let hash = hex(&Sha256::digest(&name)[..3]);
    // Kubernetes names are ASCII, so every byte is a character; other texts never reach this rule.
    let ends_well = name.as_bytes().get(CUT - 1).is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let (kept, digits) = if ends_well { (CUT, 5) } else { (CUT - 1, 6) };
    let end = name.char_indices().nth(kept).map_or(name.len(), |(end, _)| end);
    name.truncate(end);
    name.push('-');
    name.push_str(&hash[..digits]);
    name
}

fn join(parts: &[&str], separator: &str) -> String {
    let parts: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    parts.join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Vector {
        name: String,
        namespace: String,
        cluster: String,
        host_name: String,
    }

    #[test]
    fn names_equal_those_of_k3k() {
        let vectors: Vec<Vector> = serde_json::from_str(include_str!("../tests/host-names.json")).unwrap();
        assert_eq!(vectors.len(), 20);
        for vector in vectors {
            assert_eq!(twin(&vector.name, &vector.namespace, &vector.cluster), vector.host_name);
        }
    }

    #[test]
    fn two_objects_can_be_made_to_share_a_name() {
        let name = |tail: &str| format!("{}{tail}", "a".repeat(57));
        assert_eq!(twin(&name("00040b"), "default", "mycluster"), twin(&name("000736"), "default", "mycluster"));
    }

    #[test]
    fn a_server_is_named_by_the_same_cut_without_the_suffix() {
        assert_eq!(server("mycluster"), "k3k-mycluster-server");
        let long = server(&"c".repeat(63));
        assert_eq!(long.len(), 63);
        assert!(long.starts_with("k3k-ccc"));
    }
}
