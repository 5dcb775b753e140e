//! Whether an address lies in a range. Pure.

use std::net::IpAddr;

/// Whether the range in CIDR notation holds the address. What is no range holds nothing.
pub(crate) fn contains(cidr: &str, ip: IpAddr) -> bool {
    let Some((network, length)) = cidr.split_once('/') else {
        return false;
    };
    let (Ok(network), Ok(length)) = (network.parse::<IpAddr>(), length.parse::<u32>()) else {
        return false;
    };
    match (network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) if length <= 32 => {
            same_head(network.to_bits().into(), ip.to_bits().into(), 32 - length)
        }
        (IpAddr::V6(network), IpAddr::V6(ip)) if length <= 128 => {
            same_head(network.to_bits(), ip.to_bits(), 128 - length)
        }
        _ => false,
    }
}

/// Whether two addresses are the same but for that many bits at their end.
fn same_head(one: u128, other: u128, tail: u32) -> bool {
    (one ^ other).checked_shr(tail).unwrap_or_default() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_its_range_and_in_no_other() {
        for (cidr, ip, expected) in [
            ("10.43.0.0/16", "10.43.255.255", true),
            ("10.43.0.0/16", "10.44.0.0", false),
            ("10.43.0.9/32", "10.43.0.9", true),
            ("10.43.0.9/32", "10.43.0.8", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("::/0", "2001:db8::1", true),
            ("fd00:43::/112", "fd00:43::7:9", false),
            ("fd00:43::/112", "fd00:43::79", true),
            ("10.43.0.0/33", "10.43.0.0", false),
            ("10.43.0.0", "10.43.0.0", false),
            ("fd00::/8", "10.43.0.0", false),
        ] {
            assert_eq!(contains(cidr, ip.parse().unwrap()), expected, "{cidr} {ip}");
        }
    }
}
