//! What may be deleted on the word of a virtual cluster that might be a wrong or an empty one. Pure.

use k3k_expose_proto::Uid;

use crate::twin::Marks;

/// An empty snapshot is not believed when more twins than this stand.
const STANDING: usize = 10;

/// What speaks for and against deletions of one tenant.
#[derive(Clone, Copy, Debug)]
pub struct Guard<'a> {
    /// A complete snapshot of this virtual cluster has been compared.
    pub complete: bool,
    /// That snapshot was empty where too much stands.
    pub emptied: bool,
    /// UID of the virtual cluster that speaks.
    pub virtual_cluster: &'a Uid,
    /// The virtual cluster for which the platform team lets a mass deletion through.
    pub let_through: Option<&'a Uid>,
    /// A twin of k3k's has been adopted, which shows that this is the virtual cluster that k3k served.
    pub adopted: bool,
}

impl Guard<'_> {
    /// Whether a twin that the virtual cluster does not want may go.
    #[must_use]
    pub fn may_delete(&self, marks: &Marks) -> bool {
        let through = self.let_through == Some(self.virtual_cluster);
        let home = marks.virtual_cluster.as_ref().is_none_or(|home| home == self.virtual_cluster);
        self.complete && (through || home && !self.emptied) && (marks.ours || self.adopted)
    }
}

/// Whether a complete snapshot looks like that of a virtual cluster which lost its data.
///
/// `before` is the last judgment: a first new object does not make what else is missing any more believable.
#[must_use]
pub const fn emptied(before: bool, snapshot: u64, standing: usize, unwanted: usize) -> bool {
    snapshot == 0 && standing > STANDING || before && unwanted > STANDING
}

#[cfg(test)]
mod tests {
    use super::*;
    use k3k_expose_proto::Key;

    fn uid(text: &str) -> Uid {
        Uid::parse(text).unwrap()
    }

    fn twin(ours: bool, home: Option<&str>) -> Marks {
        Marks {
            tenant: uid("t"),
            key: Key::service("a", "b").unwrap(),
            ours,
            uid: None,
            virtual_cluster: home.map(uid),
        }
    }

    #[test]
    fn deletions_need_a_complete_snapshot_of_the_right_cluster() {
        let (cluster, other) = (uid("vc"), uid("other"));
        let guard =
            Guard { complete: true, emptied: false, virtual_cluster: &cluster, let_through: None, adopted: false };
        let table = [
            (guard, twin(true, Some("vc")), true),
            (Guard { complete: false, ..guard }, twin(true, Some("vc")), false),
            (Guard { emptied: true, ..guard }, twin(true, Some("vc")), false),
            (Guard { emptied: true, let_through: Some(&cluster), ..guard }, twin(true, Some("vc")), true),
            (Guard { emptied: true, let_through: Some(&other), ..guard }, twin(true, Some("vc")), false),
            (guard, twin(true, Some("other")), false),
            (Guard { let_through: Some(&cluster), ..guard }, twin(true, Some("other")), true),
            (Guard { complete: false, let_through: Some(&cluster), ..guard }, twin(true, Some("vc")), false),
            (guard, twin(false, None), false),
            (Guard { adopted: true, ..guard }, twin(false, None), true),
        ];
        for (guard, twin, expected) in table {
            assert_eq!(guard.may_delete(&twin), expected, "{guard:?} {:?}", twin);
        }
    }

    #[test]
    fn an_empty_snapshot_is_believed_up_to_ten_twins() {
        assert!(!emptied(false, 0, 10, 10) && emptied(false, 0, 11, 11) && !emptied(false, 1, 1_000, 999));
        assert!(emptied(true, 1, 1_000, 999) && !emptied(true, 990, 1_000, 10), "until nearly all is back");
    }
}
