//! A virtual Secret to what of it may cross: a certificate with its key, or why there is none. Pure.

use k3k_expose_process::pair;
use k3k_expose_proto::secret::{Secret, Unfit};
use k8s_openapi::api::core::v1;

/// The only type that crosses.
const TLS: &str = "kubernetes.io/tls";

/// Projects a Secret that an Ingress names.
#[must_use]
pub fn project(secret: &v1::Secret) -> Secret {
    if secret.type_.as_deref() != Some(TLS) {
        return Secret::Unfit(Unfit::Type);
    }
    let part = |name: &str| secret.data.as_ref().and_then(|data| data.get(name)).map(|bytes| bytes.0.as_slice());
    let checked = part("tls.crt").zip(part("tls.key")).ok_or(Unfit::Unreadable);
    match checked.and_then(|(certificate, key)| pair::check(certificate, key)) {
        Ok(pair) => Secret::Pair(pair),
        Err(unfit) => Secret::Unfit(unfit),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_no_pair_of_the_right_type_says_why() {
        let of = |secret| project(&serde_json::from_value(secret).unwrap());
        // "x" in base64.
        let data = json!({"tls.crt": "eA==", "tls.key": "eA=="});
        for (secret, why) in [
            (json!({"type": "Opaque", "data": data}), Unfit::Type),
            (json!({"data": data}), Unfit::Type),
            (json!({"type": TLS}), Unfit::Unreadable),
            (json!({"type": TLS, "data": {"tls.crt": "eA=="}}), Unfit::Unreadable),
            (json!({"type": TLS, "data": data}), Unfit::Unreadable),
        ] {
            assert_eq!(of(secret.clone()), Secret::Unfit(why), "{secret}");
        }
    }
}
