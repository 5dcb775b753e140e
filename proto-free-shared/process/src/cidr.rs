//! Blocks of addresses. Pure.

use std::net::IpAddr;

/// A block of addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    ipv4: bool,
    first: u128,
    mask: u128,
}

impl Cidr {
    /// Reads `192.0.2.0/24`. Bits behind the length count as zero.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (first, length) = text.split_once('/')?;
        let (first, length): (IpAddr, u32) = (first.parse().ok()?, length.parse().ok()?);
        let width: u32 = if first.is_ipv4() { 32 } else { 128 };
        let rest = width.checked_sub(length)?;
        let mask = u128::MAX.checked_shl(rest).unwrap_or_default();
        Some(Self { ipv4: first.is_ipv4(), first: bits(first) & mask, mask })
    }

    /// Whether its addresses are of the same family.
    #[must_use]
    pub const fn is_of_family(self, ip: IpAddr) -> bool {
        self.ipv4 == ip.is_ipv4()
    }

    /// Whether an address lies in it.
    #[must_use]
    pub fn contains(self, ip: IpAddr) -> bool {
        self.is_of_family(ip) && bits(ip) & self.mask == self.first
    }

    /// Whether all of another block lies in it.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.ipv4 == other.ipv4 && other.mask & self.mask == self.mask && other.first & self.mask == self.first
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        Cidr::parse(text).unwrap()
    }

    #[test]
    fn a_block_contains_addresses_and_covers_blocks_of_its_own_family() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (block, address, expected) in [
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.7/24", "192.0.2.1", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("0.0.0.0/0", "203.0.113.1", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "fd00::1", true),
            ("fd00::/64", "fd00:0:0:1::", false),
            ("192.0.2.1/32", "192.0.2.1", true),
            ("10.43.0.0/16", "10.43.255.255", true),
            ("10.43.0.0/16", "10.44.0.0", false),
            ("10.43.0.9/32", "10.43.0.9", true),
            ("10.43.0.9/32", "10.43.0.8", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("::/0", "2001:db8::1", true),
            ("fd00:43::/112", "fd00:43::7:9", false),
            ("fd00:43::/112", "fd00:43::79", true),
            ("fd00::/8", "10.43.0.0", false),
        ] {
            assert_eq!(cidr(block).contains(ip(address)), expected, "{address} in {block}");
        }
        for (block, other, expected) in [
            ("192.0.2.0/24", "192.0.2.128/25", true),
            ("192.0.2.0/24", "192.0.2.0/24", true),
            ("192.0.2.0/24", "192.0.0.0/16", false),
            ("0.0.0.0/0", "192.0.2.0/24", true),
            ("0.0.0.0/0", "::/0", false),
            ("::/0", "fd00::/8", true),
        ] {
            assert_eq!(cidr(block).covers(cidr(other)), expected, "{other} in {block}");
        }
    }

    #[test]
    fn what_is_no_block_is_none() {
        for text in [
            "",
            "192.0.2.0",
            "192.0.2.0/33",
            "192.0.2/24",
            "x/8",
            "::/129",
            "192.0.2.0/-1",
            "10.43.0.0/33",
            "10.43.0.0",
        ] {
            assert_eq!(Cidr::parse(text), None, "{text}");
        }
    }
}
