//! Single values, where Kubernetes spells "none" in more ways than by absence. Pure.

use std::num::NonZeroU16;

use k3k_expose_proto::service::{IpFamily, Protocol};

/// A port number, where 0 is none.
///
/// # Errors
/// `why`, when it is no port.
pub fn number(number: Option<i32>, why: &'static str) -> Result<Option<NonZeroU16>, &'static str> {
    let number = u16::try_from(number.unwrap_or_default()).map_err(|_| why)?;
    Ok(NonZeroU16::new(number))
}

/// A word, where an empty one is none.
#[must_use]
pub fn word(word: Option<&String>) -> Option<String> {
    word.filter(|word| !word.is_empty()).cloned()
}

/// A family of addresses. `None` for any other word.
#[must_use]
pub fn ip_family(word: &str) -> Option<IpFamily> {
    match word {
        "IPv4" => Some(IpFamily::IPv4),
        "IPv6" => Some(IpFamily::IPv6),
        _ => None,
    }
}

/// A protocol, which is TCP where none is said. `None` for any other word.
#[must_use]
pub fn protocol(word: Option<&str>) -> Option<Protocol> {
    match word {
        None | Some("" | "TCP") => Some(Protocol::TCP),
        Some("UDP") => Some(Protocol::UDP),
        Some("SCTP") => Some(Protocol::SCTP),
        Some(_) => None,
    }
}
