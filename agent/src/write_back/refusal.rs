//! What the virtual API server's refusal of a write means: the one table of it. Pure.
//!
//! | status | means | then |
//! |---|---|---|
//! | 404; 422 on `metadata.uid` | it is gone, or another object | drop: the watch tells |
//! | 409; 422 on `status.loadBalancer` | it has moved on, or its type has changed | look again |
//! | 422 "already allocated"; 500 health-check port | a number is held | try again, then another number |
//! | 422 range | a number lies outside the ranges | another number |
//! | 401; 403 of the caller | the account was damaged | mend it, try again |
//! | other 4xx | quota or admission | tell the tenant, try again slowly |
//! | 429, 5xx, no answer | overload | try again |

use std::num::NonZeroU16;

use k3k_expose_proto::message::Unusable;
use kube::core::Status;

/// What a refused write means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The object is not there any more.
    Gone,
    /// The object is not any more what the write was planned for.
    Changed,
    /// A number is held; these, as far as the refusal tells.
    Held(Unusable),
    /// A number lies outside the virtual cluster's ranges.
    OutOfRange,
    /// The agent's account may not write (any more).
    Account,
    /// A quota or an admission policy of the virtual cluster is in the way, or the object is invalid as a whole.
    Denied,
    /// Nothing is known about the write.
    Unavailable,
}

impl Refusal {
    /// Reads a failed call.
    pub(crate) fn read(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of(status),
            _ => Self::Unavailable,
        }
    }

    /// The refusal as a word of a closed list, for metrics.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Changed => "changed",
            Self::Held(_) => "held",
            Self::OutOfRange => "out_of_range",
            Self::Account => "account",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
        }
    }

    /// Why a move does not get on, for the tenant.
    pub(super) const fn message(&self) -> &'static str {
        match self {
            Self::Denied => {
                "this cluster's own quota or admission policy refuses the change that the host's numbers need"
            }
            Self::Account => "the agent may not write; its account is being mended",
            _ => "this cluster's API server did not take the change that the host's numbers need; it is tried again",
        }
    }

    fn of(status: &Status) -> Self {
        let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
        let about = |part: &str| causes.iter().any(|cause| cause.field.contains(part));
        let says = |words: &str| status.message.contains(words);
        match status.code {
            404 => Self::Gone,
            422 if about("metadata.uid") => Self::Gone,
            409 => Self::Changed,
            422 if about("status.loadBalancer") => Self::Changed,
            422 if says("already allocated") => Self::Held(held(status)),
            500 if says("allocate requested HealthCheck NodePort") => Self::Held(Unusable::default()),
            422 if says("not match the current range") || says("not in the valid range") => Self::OutOfRange,
            401 => Self::Account,
            403 if says(" is forbidden: User \"") && says("\" cannot ") => Self::Account,
            429 => Self::Unavailable,
            400..=499 => Self::Denied,
            _ => Self::Unavailable,
        }
    }
}

/// The node port that the API server names with its refusal. It names a held address only in prose.
fn held(status: &Status) -> Unusable {
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    let ports = causes.iter().filter(|cause| cause.field.ends_with("odePort"));
    let numbers = ports.filter_map(|cause| {
        let (_, value) = cause.message.split_once("Invalid value: ")?;
        value.split(':').next()?.trim().parse::<NonZeroU16>().ok()
    });
    Unusable { cluster_ips: Vec::new(), node_ports: numbers.collect() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(code: u16, field: &str, message: &str) -> Refusal {
        let status = json!({"status": "Failure", "code": code, "reason": "", "message": message,
            "details": {"causes": [{"field": field, "message": message}]}});
        Refusal::of(&serde_json::from_value(status).unwrap())
    }

    #[test]
    fn every_refusal_of_a_real_api_server_leads_to_drop_look_again_or_retry() {
        let held = |node_ports: &[u16]| {
            let node_ports = node_ports.iter().filter_map(|&port| NonZeroU16::new(port)).collect();
            Refusal::Held(Unusable { cluster_ips: Vec::new(), node_ports })
        };
        for (code, field, message, expected) in [
            (404, "", "services \"web\" not found", Refusal::Gone),
            (422, "metadata.uid", "Invalid value: \"a\": field is immutable", Refusal::Gone),
            (409, "", "the object has been modified", Refusal::Changed),
            (
                422,
                "status.loadBalancer.ingress",
                "Forbidden: may only be used when `spec.type` is \"LoadBalancer\"",
                Refusal::Changed,
            ),
            (
                422,
                "spec.ports[0].nodePort",
                "Invalid value: 31234: provided port is already allocated",
                held(&[31_234]),
            ),
            (
                422,
                "spec.clusterIPs",
                "Invalid value: [\"10.43.0.9\"]: failed to allocate IP 10.43.0.9: provided IP is already allocated",
                held(&[]),
            ),
            (500, "", "failed to allocate requested HealthCheck NodePort 31000: taken", held(&[])),
            (422, "spec.clusterIPs", "the provided network does not match the current range", Refusal::OutOfRange),
            (422, "spec.ports[0].nodePort", "provided port is not in the valid range", Refusal::OutOfRange),
            (401, "", "Unauthorized", Refusal::Account),
            (
                403,
                "",
                "services \"web\" is forbidden: User \"system:serviceaccount:kube-system:k3k-expose-agent\" cannot patch \
                 resource \"services\" in API group \"\" in the namespace \"default\"",
                Refusal::Account,
            ),
            (403, "", "services \"web\" is forbidden: exceeded quota: q", Refusal::Denied),
            (422, "", "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no", Refusal::Denied),
            (400, "", "admission webhook \"w\" denied the request", Refusal::Denied),
            (429, "", "later", Refusal::Unavailable),
            (503, "", "later", Refusal::Unavailable),
            (500, "", "failed calling webhook: deadline exceeded", Refusal::Unavailable),
        ] {
            assert_eq!(of(code, field, message), expected, "{code} {message}");
        }
    }
}
