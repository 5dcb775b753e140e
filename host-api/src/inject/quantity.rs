//! Quantities of the Kubernetes API as numbers that can be compared and added. Pure.
//!
//! In thousandths, since CPU is counted so; what is finer rounds up, as the API server rounds.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// An amount in thousandths of its unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Amount(i128);

/// Suffixes with what they multiply thousandths by.
const SUFFIXES: [(&str, i128); 14] = [
    ("Ki", 1_000 << 10),
    ("Mi", 1_000 << 20),
    ("Gi", 1_000 << 30),
    ("Ti", 1_000 << 40),
    ("Pi", 1_000 << 50),
    ("Ei", 1_000 << 60),
    ("m", 1),
    ("k", 1_000_000),
    ("M", 1_000_000_000),
    ("G", 1_000_000_000_000),
    ("T", 1_000_000_000_000_000),
    ("P", 1_000_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000_000),
    ("", 1_000),
];

impl Amount {
    /// Reads a quantity. `None` for what the API server would not take, and for exponents, which nobody writes.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (number, factor) =
            SUFFIXES.iter().find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, factor)))?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let is_digits = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(whole) || !is_digits(fraction) || number.len() > 18 || whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
        let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let scaled = digits.checked_mul(*factor)?;
        Some(Self(scaled / scale + i128::from(scaled % scale != 0)))
    }

    /// The amount as a quantity: in whole units where it is one.
    pub(super) fn quantity(self) -> Quantity {
        Quantity(if self.0 % 1_000 == 0 { (self.0 / 1_000).to_string() } else { format!("{}m", self.0) })
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// This many times the factor, rounded down.
    pub(super) fn times(self, factor: Self) -> Self {
        Self(self.0.saturating_mul(factor.0) / 1_000)
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
            (".5", Some(500)),
            ("", None),
            ("Mi", None),
            ("-1", None),
            ("1e3", None),
            ("1.2.3", None),
            ("9999999999999999999", None),
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
