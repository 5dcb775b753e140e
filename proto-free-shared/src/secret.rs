//! The projected Secret: the certificate and key of a `kubernetes.io/tls` Secret, or why there are none. Pure.
//!
//! A key is wiped on drop, and nothing that prints a message prints it. Who cannot use a Secret says so instead of leaving it
//! out, so that the other side can tell the tenant why.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::{TLS_CERTIFICATE, TLS_KEY};

/// A virtual Secret as host-api sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Secret {
    /// What is in it.
    Pair(Pair),
    /// Why it is of no use.
    Unfit(Unfit),
}

/// A certificate with the key that goes with it, both PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// `tls.crt`: the certificate, then those that vouch for it.
    pub certificate: String,
    /// `tls.key`.
    pub key: PrivateKey,
}

/// A private key as PEM.
#[derive(Clone)]
pub struct PrivateKey(SecretString);

/// Why a Secret is of no use for TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unfit {
    /// Its type is not `kubernetes.io/tls`.
    Type,
    /// The certificate or the key is too large.
    Large,
    /// It has no certificate, or no key, that can be read.
    Unreadable,
    /// The key is not that of the certificate.
    Mismatch,
    /// A reason that a newer build knows and this one does not.
    #[serde(other)]
    Unknown,
}

impl Secret {
    /// Checks lengths, which the types alone do not bound.
    ///
    /// # Errors
    /// What there is too much of.
    pub fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Pair(pair) if pair.certificate.len() > TLS_CERTIFICATE => Err("a certificate is too long"),
            Self::Pair(pair) if pair.key.expose().len() > TLS_KEY => Err("a key is too long"),
            _ => Ok(()),
        }
    }
}

impl PrivateKey {
    /// Takes a text for a key. Whether it is one is not asked here.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl Unfit {
    /// In words, after the name of a Secret.
    #[must_use]
    pub const fn as_words(self) -> &'static str {
        match self {
            Self::Type => "is not of type kubernetes.io/tls",
            Self::Large => "has more than 32 KiB of certificates, or a key of more than 8 KiB",
            Self::Unreadable => {
                "has no certificate in tls.crt, or no unencrypted private key in tls.key, that can be read"
            }
            Self::Mismatch => "has a private key that is not that of its certificate",
            Self::Unknown => "cannot be used",
        }
    }
}

impl PartialEq for PrivateKey {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for PrivateKey {}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[REDACTED]")
    }
}

impl Serialize for PrivateKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl<'de> Deserialize<'de> for PrivateKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(certificate: usize, key: usize) -> Secret {
        Secret::Pair(Pair { certificate: "c".repeat(certificate), key: PrivateKey::new("k".repeat(key)) })
    }

    #[test]
    fn a_key_is_never_printed() {
        let printed = format!("{:?}", pair(1, 20));
        assert!(printed.contains("[REDACTED]") && !printed.contains("kk"), "{printed}");
    }

    #[test]
    fn lengths_are_bounded() {
        assert_eq!(pair(TLS_CERTIFICATE, TLS_KEY).check(), Ok(()));
        assert!(pair(TLS_CERTIFICATE + 1, 1).check().is_err() && pair(1, TLS_KEY + 1).check().is_err());
    }

    #[test]
    fn a_reason_of_a_newer_agent_is_taken_as_unknown() {
        assert_eq!(serde_json::from_str::<Secret>(r#"{"unfit":"mismatch"}"#).unwrap(), Secret::Unfit(Unfit::Mismatch));
        assert_eq!(serde_json::from_str::<Secret>(r#"{"unfit":"expired"}"#).unwrap(), Secret::Unfit(Unfit::Unknown));
    }
}
