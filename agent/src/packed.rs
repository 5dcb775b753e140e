//! A projected object as the bytes of its JSON, and the change that an event makes. Pure.
//!
//! Between two sends an object is only kept, never read. Its bytes take about a quarter of what the same Service takes
//! as a struct, whose maps and lists each hold room to spare.

use std::fmt;

use k3k_expose_proto::limits::LINE_BYTES;
use k3k_expose_proto::message::Object;
use k3k_expose_proto::{Hash, Key, Resource, Uid};

use crate::project::Projected;

/// Room in a line for all of a `put` but its object: the longest key and UID, the hash, unusable numbers and the field names.
const ENVELOPE: usize = 1024;
const TOO_LARGE: &str = "the object does not fit into one line";

/// An object at rest.
#[derive(Clone, PartialEq, Eq)]
pub struct Packed {
    hash: Hash,
    json: Box<[u8]>,
    /// Names of the Secrets that it names.
    secrets: Box<[String]>,
}

/// What an event about a key changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The object is gone.
    Gone(Key, Uid),
    /// The object is this.
    Wanted(Key, Uid, Packed),
    /// The object cannot cross, and why.
    Refused(Key, Uid, &'static str),
}

impl Packed {
    fn new(object: &Object) -> Option<Self> {
        let json = match object {
            Object::Service(service) => serde_json::to_vec(service),
            Object::Secret(secret) => serde_json::to_vec(secret),
            Object::Ingress(ingress) => serde_json::to_vec(ingress),
        };
        let json = json.ok()?;
        let secrets = match object {
            Object::Ingress(ingress) => ingress.tls.iter().filter_map(|tls| tls.secret_name.clone()).collect(),
            Object::Service(_) | Object::Secret(_) => Box::default(),
        };
        let fits = json.len() + ENVELOPE <= LINE_BYTES;
        fits.then(|| Self { hash: object.hash(), json: json.into_boxed_slice(), secrets })
    }

    pub(crate) fn secrets(&self) -> &[String] {
        &self.secrets
    }

    pub(crate) const fn hash(&self) -> Hash {
        self.hash
    }

    /// The object. `None` cannot happen, since the bytes are this process's own.
    pub(crate) fn unpack(&self, resource: Resource) -> Option<Object> {
        match resource {
            Resource::Services => serde_json::from_slice(&self.json).ok().map(Object::Service),
            Resource::Secrets => serde_json::from_slice(&self.json).ok().map(Object::Secret),
            Resource::Ingresses => serde_json::from_slice(&self.json).ok().map(Object::Ingress),
        }
    }
}

/// It may be a private key.
impl fmt::Debug for Packed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Packed").field("hash", &self.hash).finish_non_exhaustive()
    }
}

impl Change {
    /// The change that a projected object makes, if any.
    #[must_use]
    pub fn of(projected: Projected) -> Option<Self> {
        Some(match projected {
            Projected::Skip => return None,
            Projected::Gone { key, uid } => Self::Gone(key, uid),
            Projected::Refused { key, uid, why } => Self::Refused(key, uid, why),
            Projected::Wanted { key, uid, object } => match Packed::new(&object) {
                Some(packed) => Self::Wanted(key, uid, packed),
                None => Self::Refused(key, uid, TOO_LARGE),
            },
        })
    }

    pub(crate) const fn key(&self) -> &Key {
        match self {
            Self::Gone(key, _) | Self::Wanted(key, ..) | Self::Refused(key, ..) => key,
        }
    }
}

#[cfg(test)]
mod tests {
    use k3k_expose_proto::limits::UNUSABLE;
    use k3k_expose_proto::message::{Put, Unusable};
    use k3k_expose_proto::service::ServiceType;
    use k3k_expose_proto::{FromAgent, Service, line};

    use super::*;

    fn with_label_of(bytes: usize) -> Service {
        let mut service = Service::new(ServiceType::ClusterIP);
        service.labels.insert("l".to_owned(), "x".repeat(bytes));
        service
    }

    #[test]
    fn the_largest_object_fits_into_a_line_with_the_longest_key_and_uid() {
        let empty = serde_json::to_vec(&with_label_of(0)).unwrap().len();
        let object = |bytes| Object::Service(Box::new(with_label_of(bytes)));
        let largest = object(LINE_BYTES - ENVELOPE - empty);
        let put = Put {
            key: Key::service(&"n".repeat(63), &"s".repeat(63)).unwrap(),
            uid: Uid::parse(&"u".repeat(64)).unwrap(),
            hash: largest.hash(),
            seen: u64::MAX,
            unusable: Unusable {
                cluster_ips: vec!["2001:db8:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap(); UNUSABLE],
                node_ports: vec![std::num::NonZeroU16::MAX; UNUSABLE],
            },
            object: Packed::new(&largest).unwrap().unpack(Resource::Services).unwrap(),
        };
        assert!(line::encode(&FromAgent::Put(put)).is_ok());
        assert_eq!(Packed::new(&object(LINE_BYTES - ENVELOPE - empty + 1)), None);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let key = Key::service("default", "web").unwrap();
        let uid = Uid::parse("u").unwrap();
        let change = Change::of(Projected::Wanted {
            key: key.clone(),
            uid: uid.clone(),
            object: Object::Service(Box::new(with_label_of(LINE_BYTES))),
        });
        assert_eq!(change, Some(Change::Refused(key, uid, TOO_LARGE)));
    }
}
