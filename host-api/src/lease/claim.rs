//! Whether a replica may take the Lease. Pure: times are passed in, and nothing is believed of other machines' clocks.
//!
//! The rules are those of client-go's leader election. What counts is how long a record has stood unchanged before our own eyes,
//! never the time that it carries.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

/// What one replica knows of the Lease.
#[derive(Debug)]
pub(super) struct Claim {
    identity: String,
    duration: Duration,
    seen: Option<Seen>,
}

/// A record, and since when it has stood.
#[derive(Debug)]
struct Seen {
    record: LeaseSpec,
    since: Duration,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Write this record: take or renew the Lease.
    Take(LeaseSpec),
    /// Somebody else holds it, for this long at most unless it is renewed.
    Wait(Duration),
}

impl Claim {
    /// Of a replica with this name, which no other has, and which asks for the Lease for so long.
    #[must_use]
    pub(super) fn new(identity: String, duration: Duration) -> Self {
        Self { identity, duration, seen: None }
    }

    /// Tells what to do about what stands. `now` never goes back; `date` is for people only.
    pub(super) fn step(&mut self, stands: Option<&LeaseSpec>, now: Duration, date: MicroTime) -> Step {
        let Some(stands) = stands else {
            return Step::Take(self.record(date.clone(), date, 0));
        };
        let transitions = stands.lease_transitions.unwrap_or(0);
        let holder = stands.holder_identity.as_deref().unwrap_or_default();
        if holder == self.identity {
            let since = stands.acquire_time.clone().unwrap_or_else(|| date.clone());
            return Step::Take(self.record(since, date, transitions));
        }
        let seen = match self.seen.take() {
            Some(seen) if seen.record == *stands => seen,
            _ => Seen { record: stands.clone(), since: now },
        };
        let duration = stands.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let until = seen.since + duration.map_or(self.duration, Duration::from_secs);
        self.seen = Some(seen);
        if !holder.is_empty() && now < until {
            return Step::Wait(until - now);
        }
        Step::Take(self.record(date.clone(), date, transitions.saturating_add(1)))
    }

    /// The record that lets everybody else take the Lease at once.
    #[must_use]
    pub(super) fn released(&self, stands: &LeaseSpec, date: MicroTime) -> Option<LeaseSpec> {
        let ours = stands.holder_identity.as_ref() == Some(&self.identity);
        ours.then(|| LeaseSpec {
            holder_identity: None,
            lease_duration_seconds: Some(1),
            renew_time: Some(date),
            ..stands.clone()
        })
    }

    fn record(&self, acquired: MicroTime, renewed: MicroTime, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.duration.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: Some(acquired),
            renew_time: Some(renewed),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    fn claim(name: &str) -> Claim {
        Claim::new(name.to_owned(), LEASE)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn date(second: i64) -> MicroTime {
        MicroTime(Timestamp::from_second(second).unwrap())
    }

    fn taken(step: Step) -> LeaseSpec {
        match step {
            Step::Take(record) => record,
            Step::Wait(wait) => panic!("{wait:?} to wait"),
        }
    }

    #[test]
    fn an_absent_lease_is_taken_and_ones_own_is_renewed() {
        let mut claim = claim("a");
        let first = taken(claim.step(None, seconds(0), date(100)));
        assert_eq!((first.lease_transitions, first.lease_duration_seconds), (Some(0), Some(15)));
        let renewed = taken(claim.step(Some(&first), seconds(2), date(102)));
        assert_eq!(renewed.acquire_time, first.acquire_time);
        assert_eq!((renewed.renew_time, renewed.lease_transitions), (Some(date(102)), Some(0)));
    }

    #[test]
    fn anothers_is_taken_only_after_it_has_stood_unchanged_for_its_whole_duration() {
        let (mut holder, mut other) = (claim("a"), claim("b"));
        let first = taken(holder.step(None, seconds(0), date(100)));
        assert_eq!(other.step(Some(&first), seconds(500), date(9)), Step::Wait(LEASE), "seen for the first time");
        assert_eq!(other.step(Some(&first), seconds(510), date(9)), Step::Wait(seconds(5)));
        let renewed = taken(holder.step(Some(&first), seconds(9), date(109)));
        assert_eq!(other.step(Some(&renewed), seconds(514), date(9)), Step::Wait(LEASE), "it was renewed");
        let stolen = taken(other.step(Some(&renewed), seconds(529), date(9)));
        assert_eq!((stolen.holder_identity.as_deref(), stolen.lease_transitions), (Some("b"), Some(1)));
    }

    #[test]
    fn a_released_lease_is_taken_at_once_and_nobody_releases_anothers() {
        let (mut holder, mut other) = (claim("a"), claim("b"));
        let first = taken(holder.step(None, seconds(0), date(100)));
        assert_eq!(other.released(&first, date(101)), None);
        let released = holder.released(&first, date(101)).unwrap();
        assert_eq!(taken(other.step(Some(&released), seconds(0), date(101))).holder_identity.as_deref(), Some("b"));
    }

    #[test]
    fn the_holders_own_duration_counts() {
        let mut short = Claim::new("a".to_owned(), seconds(3));
        let first = taken(short.step(None, seconds(0), date(100)));
        assert_eq!(claim("b").step(Some(&first), seconds(0), date(0)), Step::Wait(seconds(3)));
    }

    /// What one replica does at a moment: it may be stopped for any time, then looks and writes what it has decided.
    #[derive(Clone, Debug)]
    struct Look {
        who: usize,
        after: u64,
        written_after: u64,
    }

    fn looks() -> impl Strategy<Value = Vec<Look>> {
        let look = (0..3_usize, 0..6_000_u64, 0..3_000_u64);
        let look = look.prop_map(|(who, after, written_after)| Look { who, after, written_after });
        proptest::collection::vec(look, 1..200)
    }

    proptest! {
        /// Each believes to hold the Lease for two thirds of its duration from the moment before its successful look, and
        /// clocks differ by any amount.
        #[test]
        fn never_do_two_believe_to_hold_it(looks in looks(), skew in proptest::array::uniform3(0..1_000_000_u64)) {
            let mut claims = ["a", "b", "c"].map(claim);
            let mut held_until = [0_u64; 3];
            let (mut now, mut version, mut stands) = (0_u64, 0_u64, None::<LeaseSpec>);
            for look in looks {
                now += look.after;
                let own_clock = |now: u64| Duration::from_millis(now + skew[look.who]);
                let (began, seen) = (now, version);
                let step = claims[look.who].step(stands.as_ref(), own_clock(now), date(i64::try_from(now).unwrap()));
                // The write arrives later, and loses if somebody else's came first; looks do not overlap here.
                now += look.written_after;
                if let Step::Take(record) = step && seen == version {
                    version += 1;
                    stands = Some(record);
                    held_until[look.who] = began + 10_000;
                }
                let holders = held_until.iter().filter(|until| **until > now).count();
                prop_assert!(holders <= 1, "{holders} at {now}");
            }
        }
    }
}
