//! Quantities of the Kubernetes API as numbers that can be compared and added. Pure.
//!
//! In thousandths, since CPU is counted so; what is finer rounds up, as the API server rounds.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// An amount in thousandths of its unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Amount(i128);

/// Suffixes with what they multiply thousandths by.
const SUFFIXES: [(&str, i128); 14] = [
    ("", 1_000),
    ("m", 1),
    ("k", 1_000_000),
    ("M", 1_000_000_000),
    ("G", 1_000_000_000_000),
    ("T", 1_000_000_000_000_000),
    ("P", 1_000_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000_000),
    ("Ki", 1_000 << 10),
    ("Mi", 1_000 << 20),
    ("Gi", 1_000 << 30),
    ("Ti", 1_000 << 40),
    ("Pi", 1_000 << 50),
    ("Ei", 1_000 << 60),
];
/// Suffixes of what is finer than thousandths, with how many of them make one.
const FINER: [(&str, i128); 2] = [("u", 1_000), ("n", 1_000_000)];
/// Largest exponent that is read: the API server keeps less than 2^63.
const EXPONENT: i32 = 21;

impl Amount {
    /// One whole unit.
    pub(super) const ONE: Self = Self(1_000);

    /// Reads a quantity. `None` for what the API server would not take, and for less than nothing.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let end = text.bytes().position(|byte| !byte.is_ascii_digit() && byte != b'.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        // A second point is no digit, and neither is more than such a number holds one.
        let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
        let (factor, parts) = scale(suffix)?;
        let scaled = digits.checked_mul(factor)?;
        let parts = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?.checked_mul(parts)?;
        Some(Self(scaled / parts + i128::from(scaled % parts != 0)))
    }

    /// The amount as a quantity: in whole units where it is one.
    pub(super) fn quantity(self) -> Quantity {
        Quantity(if self.0 % 1_000 == 0 { (self.0 / 1_000).to_string() } else { format!("{}m", self.0) })
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// What is left when the other is taken away; nothing if that is more.
    pub(super) fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0).max(0))
    }

    /// This many times the factor, rounded down.
    pub(super) fn times(self, factor: Self) -> Self {
        Self(self.0.saturating_mul(factor.0) / 1_000)
    }
}

/// What a suffix multiplies thousandths by, and then divides them by.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let of = |all: &[(&str, i128)]| all.iter().find(|(known, _)| *known == suffix).map(|(_, factor)| *factor);
    if let Some(factor) = of(&SUFFIXES) {
        return Some((factor, 1));
    }
    if let Some(parts) = of(&FINER) {
        return Some((1, parts));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let power = |exponent: i32| 10_i128.checked_pow(exponent.unsigned_abs());
    match exponent {
        0..=EXPONENT => Some((power(exponent)?.checked_mul(1_000)?, 1)),
        ..0 if exponent >= -EXPONENT => Some((1_000, power(exponent)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_the_api_server_means_them() {
        for (text, expected) in [
            ("10m", Some(10)),
            ("1", Some(1_000)),
            ("0.1", Some(100)),
            ("1.5", Some(1_500)),
            ("64Mi", Some(67_108_864_000)),
            ("1Gi", Some(1_073_741_824_000)),
            ("1k", Some(1_000_000)),
            ("0.0001", Some(1)),
            ("1e3", Some(1_000_000)),
            ("1.5E3", Some(1_500_000)),
            ("15e-1", Some(1_500)),
            ("1E", Some(1_000_000_000_000_000_000_000)),
            ("100u", Some(1)),
            ("2500n", Some(1)),
            ("9223372036854775807", Some(9_223_372_036_854_775_807_000)),
            (".5", Some(500)),
            ("", None),
            ("Mi", None),
            ("-1", None),
            ("1.2.3", None),
            ("1e", None),
            ("1e99", None),
            ("1x", None),
            ("99999999999999999999999999999999999999999", None),
        ] {
            assert_eq!(Amount::parse(text).map(|amount| amount.0), expected, "{text}");
        }
    }

    #[test]
    fn an_amount_is_written_in_whole_units_where_it_is_one() {
        assert_eq!(Amount(67_108_864_000).quantity().0, "67108864");
        assert_eq!(Amount(10).quantity().0, "10m");
    }
}
