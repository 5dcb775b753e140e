//! Which news of an object counts, when the watch, reads and the answers to writes overtake each other. Pure.

/// `metadata.resourceVersion` as a number.
pub(crate) fn revision(resource_version: &str) -> u64 {
    resource_version.parse().unwrap_or_default()
}

/// The newest that the watch on one kind has shown. Each question is about one object: what is `known` of it, if anything, and
/// what is `said`, both by their resourceVersion.
#[derive(Debug, Default)]
pub(crate) struct Newest(u64);

impl Newest {
    /// Whether an event of the watch says something newer than what is known.
    pub(crate) fn seen(&mut self, known: Option<&str>, said: &str) -> bool {
        self.0 = self.0.max(revision(said));
        Self::read(known, said)
    }

    /// The same of a read.
    pub(crate) fn read(known: Option<&str>, said: &str) -> bool {
        known.is_none_or(|known| revision(known) < revision(said))
    }

    /// The same of the answer to a write of ours: what the watch has already seen go must not come back.
    pub(crate) fn answered(&self, known: Option<&str>, said: &str) -> bool {
        Self::read(known, said) && (known.is_some() || revision(said) > self.0)
    }

    /// Whether what is known goes: a namesake that was made since must not go with the one that the event is about. `said` is
    /// `None` for what a call has shown.
    pub(crate) fn gone(&mut self, known: Option<&str>, said: Option<&str>) -> bool {
        let event = said.map(revision);
        self.0 = self.0.max(event.unwrap_or_default());
        known.is_some_and(|known| event.is_none_or(|event| revision(known) <= event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_what_is_known_counts_for_nothing() {
        let mut newest = Newest::default();
        assert!(newest.seen(None, "5") && newest.seen(Some("5"), "6"));
        assert!(!newest.seen(Some("6"), "6") && !Newest::read(Some("6"), "5"));
        assert!(!newest.answered(None, "6"), "the watch has seen it go");
        assert!(newest.answered(None, "7") && newest.answered(Some("6"), "7"));
        assert!(!newest.gone(Some("8"), Some("7")), "it was made again");
        assert!(newest.gone(Some("8"), None) && newest.gone(Some("8"), Some("9")));
        assert!(!newest.gone(None, Some("12")) && !newest.answered(None, "12"));
    }
}
