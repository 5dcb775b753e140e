//! Equality at a distance: a [`struct@Hash`] for one object, a [`Root`] for a whole set of them. Pure.
//!
//! The root is a sum, so that a change costs O(1) and order does not matter. It guards against lost lines, not against
//! forgery: whoever could craft a collision could only deceive host-api about its own objects.

use std::fmt;
use std::io;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

use crate::{Key, Uid};

/// First 128 bits of SHA-256 over an object's canonical JSON. 32 hex digits on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(u128);

impl Hash {
    /// The hash of an object whose JSON is canonical: struct order, sorted maps.
    #[must_use]
    pub fn of(object: &impl Serialize) -> Self {
        let mut hasher = Hasher(Sha256::new());
        // Writing into a hasher cannot fail, and the projected types have no map key that JSON refuses.
        let written = serde_json::to_writer(&mut hasher, object);
        debug_assert!(written.is_ok());
        Self(first_128_bits(hasher.0))
    }
}

/// Sum modulo 2^128 over one digest for each (key, uid, hash) of a set. 32 hex digits on the wire.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Root(u128);

/// How many objects a set has, and their root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Number of objects.
    pub count: u64,
    /// Their root.
    pub root: Root,
}

impl Tally {
    /// Counts an object in.
    pub fn add(&mut self, key: &Key, uid: &Uid, hash: Hash) {
        self.count = self.count.wrapping_add(1);
        self.root.0 = self.root.0.wrapping_add(member(key, uid, hash));
    }

    /// Counts out an object that was counted in before with the same uid and hash.
    pub fn remove(&mut self, key: &Key, uid: &Uid, hash: Hash) {
        self.count = self.count.wrapping_sub(1);
        self.root.0 = self.root.0.wrapping_sub(member(key, uid, hash));
    }
}

/// Digest of one member of a set. Neither part can contain a newline, so no two members read the same.
fn member(key: &Key, uid: &Uid, hash: Hash) -> u128 {
    let mut hasher = Sha256::new();
    hasher.update(key.as_str());
    hasher.update("\n");
    hasher.update(uid.as_str());
    hasher.update("\n");
    hasher.update(hash.0.to_be_bytes());
    first_128_bits(hasher)
}

fn first_128_bits(hasher: Sha256) -> u128 {
    hasher.finalize().iter().take(16).fold(0, |bits, byte| (bits << 8) | u128::from(*byte))
}

struct Hasher(Sha256);

impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

macro_rules! hex_on_the_wire {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{self}")
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                from_hex(&text).map(Self).ok_or_else(|| de::Error::custom("expected 32 lower-case hex digits"))
            }
        }
    };
}

hex_on_the_wire!(Hash);
hex_on_the_wire!(Root);

/// Exactly one spelling a value: `from_str_radix` alone would also take a sign and capitals.
fn from_hex(text: &str) -> Option<u128> {
    let plain = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    plain.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member_of(name: &str) -> (Key, Uid, Hash) {
        (Key::service("default", name).unwrap(), Uid::parse(name).unwrap(), Hash::of(&name))
    }

    #[test]
    fn a_hash_is_the_head_of_sha_256_over_the_json() {
        // printf '"web"' | sha256sum
        assert_eq!(Hash::of(&"web").to_string(), "bde1489624c3f4f8041d716bfb56754a");
    }

    #[test]
    fn a_tally_depends_on_the_set_and_not_on_its_history() {
        let (a, b, c) = (member_of("a"), member_of("b"), member_of("c"));
        let mut one = Tally::default();
        for (key, uid, hash) in [&a, &b, &c] {
            one.add(key, uid, *hash);
        }
        one.remove(&b.0, &b.1, b.2);
        let mut other = Tally::default();
        for (key, uid, hash) in [&c, &a] {
            other.add(key, uid, *hash);
        }
        assert_eq!(one, other);
        other.remove(&a.0, &a.1, a.2);
        other.remove(&c.0, &c.1, c.2);
        assert_eq!(other, Tally::default());
    }

    #[test]
    fn a_tally_sees_key_uid_and_hash() {
        let (a, b) = (member_of("a"), member_of("b"));
        let tally = |key: &Key, uid: &Uid, hash| {
            let mut tally = Tally::default();
            tally.add(key, uid, hash);
            tally
        };
        let base = tally(&a.0, &a.1, a.2);
        assert_ne!(base, tally(&b.0, &a.1, a.2));
        assert_ne!(base, tally(&a.0, &b.1, a.2));
        assert_ne!(base, tally(&a.0, &a.1, b.2));
    }

    #[test]
    fn hex_has_one_spelling() {
        assert!(from_hex(&"0".repeat(32)).is_some());
        for text in ["", &"0".repeat(31), &"0".repeat(33), &"A".repeat(32), &format!("+{}", "0".repeat(31))] {
            assert_eq!(from_hex(text), None, "{text}");
        }
    }
}
