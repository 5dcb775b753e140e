//! Which wire both sides speak. Pure.

/// Wire versions that this build speaks, oldest first.
pub const SUPPORTED: &[u16] = &[1];

/// Version of the projection: raised when an unchanged Service would be projected differently than before, so that
/// host-api compares everything again.
pub const PROJECTION: u32 = 3;

/// The newest version that both sides speak, or `None`.
#[must_use]
pub fn negotiate(offered: &[u16]) -> Option<u16> {
    SUPPORTED.iter().copied().filter(|version| offered.contains(version)).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_wins() {
        assert_eq!(negotiate(&[1]), Some(1));
        assert_eq!(negotiate(&[7, 1, 3]), Some(1));
        assert_eq!(negotiate(&[2, 3]), None);
        assert_eq!(negotiate(&[]), None);
    }
}
