//! The names that k3k derives. Pure; written from its rule, not from host-api's code.

use sha2::{Digest, Sha256};

/// Object names end here; k3k cuts what is longer.
const LIMIT: usize = 64;

/// The name on the host of a virtual object.
#[must_use]
pub fn host_name(name: &str, namespace: &str, cluster: &str) -> String {
    let parts: Vec<&str> = [name, namespace, cluster].into_iter().filter(|part| !part.is_empty()).collect();
    let suffix: String = parts.join("+").bytes().map(|byte| format!("{byte:02x}")).collect();
    cut(&format!("{}-{suffix}", parts.join("-")))
}

/// A name made of parts, as of the StatefulSet `k3k-<cluster>-server`.
#[must_use]
pub fn composed_name(parts: &[&str]) -> String {
    cut(&parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("-"))
}

/// What is too long keeps its front and ends in a bit of its hash, never with a dash or dot before the joining dash.
fn cut(full: &str) -> String {
    if full.len() < LIMIT {
        return full.to_owned();
    }
    let digest: String = Sha256::digest(full).iter().map(|byte| format!("{byte:02x}")).collect();
    let (front, rest) = match full.as_bytes()[56] {
        b'a'..=b'z' | b'0'..=b'9' => (&full[..57], &digest[..5]),
        _ => (&full[..56], &digest[..6]),
    };
    format!("{front}-{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_k3k() {
        let a63 = "a".repeat(63);
        let a57 = "a".repeat(57);
        for (name, namespace, cluster, expected) in [
            ("web", "default", "mycluster", "web-default-mycluster-7765622b64656661756c742b6d79636c757-72ca1"),
            ("w", "d", "c", "w-d-c-772b642b63"),
            ("traefik", "kube-system", "mycluster", "traefik-kube-system-mycluster-7472616566696b2b6b7562652d7-387e0"),
            (a63.as_str(), "default", "mycluster", &format!("{a57}-3fc05")),
        ] {
            assert_eq!(host_name(name, namespace, cluster), expected);
        }
    }

    #[test]
    fn two_cut_names_can_be_the_same() {
        let a = "a".repeat(57);
        let names = ["00040b", "000736"].map(|tail| host_name(&format!("{a}{tail}"), "default", "mycluster"));
        assert_eq!(names[0], names[1]);
    }

    #[test]
    fn the_server_set_of_a_long_cluster_is_cut_without_a_suffix() {
        assert_eq!(composed_name(&["k3k", "mycluster", "server"]), "k3k-mycluster-server");
        assert_eq!(composed_name(&["k3k", &"c".repeat(63), "server"]).len(), 63);
    }
}
