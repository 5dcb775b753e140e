//! The ranges from which the host gives cluster IPs, as its `ServiceCIDR` objects name them. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k3k_expose_process::cidr::Cidr;

/// The ranges of the host by the name of the object that names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    known: BTreeMap<String, Vec<Cidr>>,
}

impl Ranges {
    /// Takes in one object, or that it is gone. Tells whether that changes anything.
    pub fn set(&mut self, name: &str, cidrs: Option<&[String]>) -> bool {
        let ranges = cidrs.map(|cidrs| cidrs.iter().filter_map(|cidr| Cidr::parse(cidr)).collect::<Vec<_>>());
        let before = match ranges.clone() {
            Some(ranges) => self.known.insert(name.to_owned(), ranges),
            None => self.known.remove(name),
        };
        before != ranges
    }

    /// Names of all objects known, to find those that a new list lacks.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.known.keys().cloned().collect()
    }

    /// Whether any range is known.
    #[must_use]
    pub fn are_known(&self) -> bool {
        self.known.values().any(|ranges| !ranges.is_empty())
    }

    /// Whether an address lies in a range that is known.
    #[must_use]
    pub fn contain(&self, ip: IpAddr) -> bool {
        self.known.values().flatten().any(|range| range.contains(ip))
    }

    /// Whether an address lies outside all ranges of its family. What is not known excludes nothing, and neither does a
    /// family that the host lacks: it has an answer of its own for that.
    #[must_use]
    pub fn exclude(&self, ip: IpAddr) -> bool {
        let mut family = self.known.values().flatten().filter(|range| range.is_of_family(ip)).peekable();
        family.peek().is_some() && !family.any(|range| range.contains(ip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_excluded_by_ranges_of_its_own_family_only() {
        let mut ranges = Ranges::default();
        let ip = |text: &str| text.parse().unwrap();
        assert!(!ranges.exclude(ip("10.43.0.1")), "nothing is known");
        let cidrs = ["10.43.0.0/16".to_owned(), "10.99.8.0/21".to_owned(), "nonsense".to_owned()];
        assert!(ranges.set("kubernetes", Some(&cidrs)) && !ranges.set("kubernetes", Some(&cidrs)));
        for (address, excluded) in [
            ("10.43.255.255", false),
            ("10.44.0.0", true),
            ("10.99.15.1", false),
            ("10.99.16.1", true),
            ("fd00::1", false),
        ] {
            assert_eq!(ranges.exclude(ip(address)), excluded, "{address}");
        }
        assert!(ranges.set("more", Some(&["fd00::/112".to_owned()])));
        assert!(!ranges.exclude(ip("fd00::ffff")) && ranges.exclude(ip("fd00::1:0")));
        assert!(ranges.set("more", None) && !ranges.exclude(ip("fd00::1:0")));
    }
}
