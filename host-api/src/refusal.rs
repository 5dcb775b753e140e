//! What the API server's refusal of a write means. Pure.
//!
//! Status, reason and field path are matched first. Prose is matched only where the API server gives one status for
//! several causes, and where it fails with a plain 500 (a held health-check node port).

use kube::core::Status;

/// What a failed write means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The object of the write is not there (404).
    Absent,
    /// The object has moved on (409).
    Conflict,
    /// The name is taken (409).
    Exists,
    /// A number is held. A create whose own name is taken looks the same: numbers are drawn before names are checked.
    Held(Number),
    /// A number lies outside the host's ranges.
    OutOfRange(Number),
    /// The host lacks an IP family.
    Family,
    /// A field cannot change in place.
    Immutable,
    /// A quota of the namespace is used up.
    Quota,
    /// A webhook or an admission policy denies the object.
    Admission,
    /// The host refuses the object for another reason.
    Denied,
    /// The API server asks for less (429).
    Overloaded,
    /// The API server or the road to it failed, or it does not know us (yet): nothing is known about the write.
    Unavailable,
}

/// A kind of number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Number {
    /// A cluster IP.
    ClusterIp,
    /// A node port, or the health-check node port: this one, if the API server names it.
    NodePort(Option<u16>),
}

/// Reads a failed call.
#[must_use]
pub fn read(error: &kube::Error) -> Refusal {
    match error {
        kube::Error::Api(status) => read_status(status),
        _ => Refusal::Unavailable,
    }
}

fn read_status(status: &Status) -> Refusal {
    // Whoever denies chooses the status freely among those below 500.
    if (400..=499).contains(&status.code) && is_of_admission(&status.message) {
        return Refusal::Admission;
    }
    match (status.code, status.reason.as_str()) {
        (404, _) => Refusal::Absent,
        (409, "AlreadyExists") => Refusal::Exists,
        (409, _) => Refusal::Conflict,
        (422, _) => invalid(status),
        (429, _) => Refusal::Overloaded,
        (500, _) if status.message.contains("allocate requested HealthCheck NodePort") => {
            Refusal::Held(Number::NodePort(port_after(&status.message, "HealthCheck NodePort ")))
        }
        (401, _) => Refusal::Unavailable,
        (403, _) if is_of_the_caller(&status.message) => Refusal::Unavailable,
        (403, _) if status.message.contains("exceeded quota") => Refusal::Quota,
        (400..=499, _) => Refusal::Denied,
        _ => Refusal::Unavailable,
    }
}

/// Whether a 403 refuses the caller, not the object. An API server that has just started does so until it has read its own
/// roles; the words are those of `responsewriters.Forbidden` in k8s.io/apiserver. Quota and admission have others.
fn is_of_the_caller(message: &str) -> bool {
    message.contains(" is forbidden: User \"") && message.contains("\" cannot ")
}

/// The words of a webhook's denial and of a ValidatingAdmissionPolicy's in k8s.io/apiserver.
fn is_of_admission(message: &str) -> bool {
    let says = |who: &str, what: &str| message.contains(who) && message.contains(what);
    says("admission webhook \"", " denied the request") || says("ValidatingAdmissionPolicy '", " denied request")
}

/// The port that is named right after some words.
fn port_after(message: &str, words: &str) -> Option<u16> {
    let (_, rest) = message.split_once(words)?;
    rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

fn invalid(status: &Status) -> Refusal {
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    let says = |words: &str| status.message.contains(words);
    let about = |part: &str| causes.iter().any(|cause| cause.field.contains(part));
    let named = || port_after(&causes.iter().find(|cause| cause.field.contains("odePort"))?.message, "Invalid value: ");
    let number = if about("odePort") { Some(Number::NodePort(named())) } else { None };
    let number = number.or_else(|| about("clusterIP").then_some(Number::ClusterIp));
    match number {
        Some(number) if says("already allocated") => Refusal::Held(number),
        Some(number) if says("not match the current range") || says("not in the valid range") => {
            Refusal::OutOfRange(number)
        }
        _ if says("may not change") || says("immutable") || says("may not be changed") => Refusal::Immutable,
        _ if about("ipFamil") || about("clusterIPs") => Refusal::Family,
        _ => Refusal::Denied,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(code: u16, reason: &str, field: &str, message: &str) -> Refusal {
        let status = json!({"status": "Failure", "code": code, "reason": reason, "message": message,
            "details": {"causes": [{"field": field, "message": message}]}});
        read_status(&serde_json::from_value(status).unwrap())
    }

    #[test]
    fn refusals_of_a_real_api_server_are_told_apart() {
        let table = [
            (of(404, "NotFound", "", "services \"x\" not found"), Refusal::Absent),
            (of(409, "AlreadyExists", "", "services \"x\" already exists"), Refusal::Exists),
            (of(409, "Conflict", "", "the object has been modified"), Refusal::Conflict),
            (
                of(
                    422,
                    "Invalid",
                    "spec.clusterIPs",
                    "failed to allocate IP 10.43.0.9: provided IP is already allocated",
                ),
                Refusal::Held(Number::ClusterIp),
            ),
            (
                of(422, "Invalid", "spec.clusterIPs", "the provided network does not match the current range"),
                Refusal::OutOfRange(Number::ClusterIp),
            ),
            (
                of(
                    422,
                    "Invalid",
                    "spec.ports[0].nodePort",
                    "Invalid value: 30080: provided port is already allocated",
                ),
                Refusal::Held(Number::NodePort(Some(30_080))),
            ),
            (
                of(422, "Invalid", "spec.ports[0].nodePort", "provided port is not in the valid range"),
                Refusal::OutOfRange(Number::NodePort(None)),
            ),
            (
                of(500, "InternalError", "", "failed to allocate requested HealthCheck NodePort 31000: taken"),
                Refusal::Held(Number::NodePort(Some(31_000))),
            ),
            (of(422, "Invalid", "spec.loadBalancerClass", "may not change once set"), Refusal::Immutable),
            (of(422, "Invalid", "spec.clusterIPs[0]", "may not change once set"), Refusal::Immutable),
            (of(422, "Invalid", "spec.ipFamilies[0]", "not configured on this cluster"), Refusal::Family),
            (of(422, "Invalid", "spec.ports", "Required value"), Refusal::Denied),
            (
                of(
                    403,
                    "Forbidden",
                    "",
                    "services \"x\" is forbidden: exceeded quota: q, requested: services=1, used: services=1, limited: \
                     services=1",
                ),
                Refusal::Quota,
            ),
            (of(403, "Forbidden", "", "services \"x\" is forbidden: not here"), Refusal::Denied),
            (of(400, "BadRequest", "", "admission webhook \"a.b\" denied the request: no"), Refusal::Admission),
            (of(409, "Conflict", "", "admission webhook \"a.b\" denied the request: no"), Refusal::Admission),
            (
                of(
                    422,
                    "Invalid",
                    "",
                    "services \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
                ),
                Refusal::Admission,
            ),
            (
                of(
                    403,
                    "Forbidden",
                    "",
                    "services \"x\" is forbidden: User \"system:serviceaccount:k3k-expose:k3k-expose-host-api\" cannot \
                     delete resource \"services\" in API group \"\" in the namespace \"ns\"",
                ),
                Refusal::Unavailable,
            ),
            (of(401, "Unauthorized", "", "Unauthorized"), Refusal::Unavailable),
            (of(429, "TooManyRequests", "", "later"), Refusal::Overloaded),
            (of(503, "ServiceUnavailable", "", "later"), Refusal::Unavailable),
            (of(500, "InternalError", "", "webhook timed out"), Refusal::Unavailable),
        ];
        for (is, expected) in table {
            assert_eq!(is, expected);
        }
    }
}
