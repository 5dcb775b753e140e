//! How much of host-api and of the host one tenant may use up by a policy, within what this process gives at all. Pure.

use super::resource;
use crate::bounds::Bounds;
use crate::bucket::Rate;

/// What a policy says of it; nothing where it is silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Most twins, Services and Ingresses together.
    pub objects: Option<usize>,
    /// Writes on the host in each second.
    pub writes_per_second: Option<u32>,
    /// Writes at once, after a rest.
    pub writes_at_once: Option<u32>,
}

impl Limits {
    /// Reads what a policy says. A number that is none lets nothing through, or as little as there is.
    #[must_use]
    pub fn parse(limits: &resource::Limits) -> Self {
        let rate = |number: Option<i32>| number.map(|number| u32::try_from(number).unwrap_or_default().max(1));
        Self {
            objects: limits.objects.map(|most| usize::try_from(most).unwrap_or_default()),
            writes_per_second: rate(limits.writes_per_second),
            writes_at_once: rate(limits.writes_at_once),
        }
    }

    /// The bounds of a tenant: no policy gives more than this process does.
    #[must_use]
    pub fn within(self, most: Bounds) -> Bounds {
        let Rate { burst, per_second } = most.writes;
        let writes = Rate {
            burst: self.writes_at_once.map_or(burst, |asked| asked.min(burst)),
            per_second: self.writes_per_second.map_or(per_second, |asked| asked.min(per_second)),
        };
        Bounds { objects: self.objects.map_or(most.objects, |asked| asked.min(most.objects)), writes, ..most }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_narrows_what_this_process_gives_and_widens_nothing() {
        let most = Bounds::default();
        assert_eq!(Limits::default().within(most), most);
        let few = Limits { objects: Some(3), writes_per_second: Some(2), writes_at_once: Some(1) };
        let expected = Bounds { objects: 3, writes: Rate { burst: 1, per_second: 2 }, ..most };
        assert_eq!(few.within(most), expected);
        let many =
            Limits { objects: Some(usize::MAX), writes_per_second: Some(u32::MAX), writes_at_once: Some(u32::MAX) };
        assert_eq!(many.within(most), most);
    }

    #[test]
    fn numbers_that_are_none_give_least() {
        let limits = resource::Limits { objects: Some(-1), writes_per_second: Some(0), writes_at_once: Some(-7) };
        let expected = Limits { objects: Some(0), writes_per_second: Some(1), writes_at_once: Some(1) };
        assert_eq!(Limits::parse(&limits), expected);
    }
}
