//! Names for virtual objects: [`Key`] says where one is, [`Uid`] which one it is. Pure.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest DNS label, in bytes (RFC 1123; Kubernetes names of Services and Namespaces).
const MAX_LABEL: usize = 63;
/// Longest DNS subdomain, in bytes (RFC 1123; most other Kubernetes names).
const MAX_SUBDOMAIN: usize = 253;
/// Longest UID taken, in bytes. The API server draws UUIDs (36), but promises no form.
const MAX_UID: usize = 64;

/// Kinds of object that cross, named as in Kubernetes URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// `v1/Service`.
    Services,
    /// `v1/Secret` of type `kubernetes.io/tls`, as far as Ingresses name it.
    Secrets,
    /// `networking.k8s.io/v1/Ingress`.
    Ingresses,
}

impl Resource {
    /// Every kind, what others name first.
    pub const ALL: [Self; 3] = [Self::Services, Self::Secrets, Self::Ingresses];

    /// The plural in URLs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Secrets => "secrets",
            Self::Ingresses => "ingresses",
        }
    }

    /// The `kind` of one object, for people.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Services => "Service",
            Self::Secrets => "Secret",
            Self::Ingresses => "Ingress",
        }
    }

    fn is_name(self, text: &str) -> bool {
        match self {
            Self::Services => is_dns_label(text),
            Self::Secrets | Self::Ingresses => is_dns_subdomain(text),
        }
    }
}

/// Where a virtual object is: `<resource>/<namespace>/<name>`, with a name as that resource has them.
///
/// A clone shares the text, since both sides keep a key in several indexes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(Arc<str>);

impl Key {
    /// The key of a Service.
    ///
    /// # Errors
    /// [`InvalidKey`] when either part is no DNS label.
    pub fn service(namespace: &str, name: &str) -> Result<Self, InvalidKey> {
        Self::of(Resource::Services, namespace, name)
    }

    /// The key of an object of that kind.
    ///
    /// # Errors
    /// [`InvalidKey`] when either part is no name.
    pub fn of(resource: Resource, namespace: &str, name: &str) -> Result<Self, InvalidKey> {
        Self::parse(&format!("{}/{namespace}/{name}", resource.as_str()))
    }

    /// Parses the wire form.
    ///
    /// # Errors
    /// [`InvalidKey`] for an unknown resource, a wrong number of parts, or a part that is no name.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let mut parts = text.split('/');
        let word = parts.next();
        let resource = Resource::ALL.into_iter().find(|resource| Some(resource.as_str()) == word).ok_or(InvalidKey)?;
        let named = parts.next().is_some_and(is_dns_label) && parts.next().is_some_and(|name| resource.is_name(name));
        if named && parts.next().is_none() { Ok(Self(text.into())) } else { Err(InvalidKey) }
    }

    /// The kind of object.
    #[must_use]
    pub fn resource(&self) -> Resource {
        // A key that was parsed begins with one of three words, which differ in their third letter.
        match self.0.as_bytes().get(2) {
            Some(b'c') => Resource::Secrets,
            Some(b'g') => Resource::Ingresses,
            _ => Resource::Services,
        }
    }

    /// The virtual namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.0.split('/').nth(1).unwrap_or_default()
    }

    /// The object's name in that namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split('/').nth(2).unwrap_or_default()
    }

    /// The wire form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Which object a key means: the UID that its own API server gave it. At most 64 letters, digits and dashes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Uid(Arc<str>);

impl Uid {
    /// Parses a UID.
    ///
    /// # Errors
    /// [`InvalidUid`] when it is empty, too long, or has another character than letters, digits and dashes.
    pub fn parse(text: &str) -> Result<Self, InvalidUid> {
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if plain && (1..=MAX_UID).contains(&text.len()) { Ok(Self(text.into())) } else { Err(InvalidUid) }
    }

    /// A name of one's own choice, from a number that nobody else draws.
    #[must_use]
    pub fn from_number(number: u128) -> Self {
        Self(format!("{number:032x}").into())
    }

    /// The UID's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A key that names no object which may cross.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key of the form <resource>/<namespace>/<name>")]
pub struct InvalidKey;

/// A text that cannot be a UID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a uid of 1 to 64 letters, digits and dashes")]
pub struct InvalidUid;

/// RFC 1123 subdomain, the form of most names in Kubernetes, which bounds it as a whole and not its parts.
#[must_use]
pub fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= MAX_SUBDOMAIN && text.split('.').all(is_dns_part)
}

/// RFC 1123 label, the form that Kubernetes asks of the names used here.
fn is_dns_label(text: &str) -> bool {
    text.len() <= MAX_LABEL && is_dns_part(text)
}

fn is_dns_part(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

impl TryFrom<String> for Key {
    type Error = InvalidKey;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.0.as_ref().to_owned()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for Uid {
    type Error = InvalidUid;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Uid> for String {
    fn from(uid: Uid) -> Self {
        uid.0.as_ref().to_owned()
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_gives_back_its_parts() {
        let key = Key::service("default", "web-1").unwrap();
        assert_eq!((key.namespace(), key.name()), ("default", "web-1"));
        assert_eq!(key.as_str(), "services/default/web-1");
        assert_eq!(key.resource(), Resource::Services);
        for resource in [Resource::Ingresses, Resource::Secrets] {
            let key = Key::of(resource, "default", "shop.example").unwrap();
            assert_eq!((key.resource(), key.namespace(), key.name()), (resource, "default", "shop.example"));
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let long = "a".repeat(64);
        for text in [
            "",
            "services",
            "services/a",
            "services//a",
            "services/a/",
            "services/a/b/c",
            "pods/a/b",
            "services/A/b",
            "services/a/b.c",
            "services/-a/b",
            "services/a/b-",
            "services/a/b\n",
            "services/../b",
            "services/a/\u{e9}",
            &format!("services/a/{long}"),
            "ingresses/a.b/c",
            "ingresses/a/b..c",
            "ingresses/a/.b",
            &format!("ingresses/a/{}", ["a"; 128].join(".")),
        ] {
            assert_eq!(Key::parse(text), Err(InvalidKey), "{text:?}");
        }
    }

    #[test]
    fn a_uid_is_bounded_plain_text() {
        assert!(Uid::parse("0b7c9c1e-6d0e-4c5c-8f5f-5a8a3a1f2b3c").is_ok());
        for text in ["", "a b", "a/b", "\u{1b}[0m", &"a".repeat(65)] {
            assert_eq!(Uid::parse(text), Err(InvalidUid), "{text:?}");
        }
    }
}
