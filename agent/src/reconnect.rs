//! How long to wait before the next try. Pure: time and chance are arguments.
//!
//! Full jitter: a delay is drawn between nothing and a ceiling that doubles, so that agents that lost the same host-api do
//! not come back together.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Health for this long makes earlier failures count no more.
const HEALTHY: Duration = Duration::from_secs(120);
/// Longest wait that host-api may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// Why another try is needed, by how soon it makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing failed: this process itself wants to begin anew.
    Anew,
    /// The connection did not come about, or ended.
    Lost,
    /// The server asks for patience, if it says so for how long.
    Busy(Option<Duration>),
    /// The server does not accept who asks, or what it speaks. Only a change elsewhere helps.
    Identity,
}

/// Ceilings that double up to a bound.
#[derive(Debug)]
pub struct Backoff {
    builder: ExponentialBuilder,
    ceilings: ExponentialBackoff,
    longest: Duration,
}

/// One backoff for each kind of failure.
#[derive(Debug)]
pub struct Reconnect {
    anew: Backoff,
    lost: Backoff,
    busy: Backoff,
    identity: Backoff,
}

impl Backoff {
    /// From `first` doubling to `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        let builder = ExponentialBuilder::new().with_min_delay(first).with_max_delay(longest).without_max_times();
        Self { builder, ceilings: builder.build(), longest }
    }

    /// For connections and watches: 0.2 s doubling to 3 s.
    #[must_use]
    pub fn of_connections() -> Self {
        Self::new(Duration::from_millis(200), Duration::from_secs(3))
    }

    /// The next delay. `chance` is drawn from 0 to 1.
    pub fn delay(&mut self, chance: f64) -> Duration {
        self.ceilings.next().unwrap_or(self.longest).mul_f64(chance)
    }

    /// Begins again at the first ceiling.
    pub fn reset(&mut self) {
        self.ceilings = self.builder.build();
    }
}

impl Reconnect {
    /// Without any failure so far.
    #[must_use]
    pub fn new() -> Self {
        Self {
            // Nearly at once, yet not in a tight loop with a host-api that keeps changing its mind.
            anew: Backoff::new(Duration::from_millis(10), Duration::from_secs(3)),
            lost: Backoff::of_connections(),
            busy: Backoff::new(Duration::from_secs(1), Duration::from_secs(30)),
            identity: Backoff::new(Duration::from_secs(1), Duration::from_secs(300)),
        }
    }

    /// The delay before the next try. `healthy` is how long the session that failed was open.
    pub fn delay(&mut self, failure: Failure, healthy: Duration, chance: f64) -> Duration {
        if healthy >= HEALTHY {
            self.anew.reset();
            self.lost.reset();
            self.busy.reset();
            self.identity.reset();
        }
        match failure {
            Failure::Anew => self.anew.delay(chance),
            Failure::Lost => self.lost.delay(chance),
            Failure::Busy(None) => self.busy.delay(chance),
            // Never sooner than asked, and not all at the same moment.
            Failure::Busy(Some(asked)) => asked.min(LONGEST_ASKED).mul_f64(1.0 + chance / 10.0),
            Failure::Identity => self.identity.delay(chance),
        }
    }
}

impl Default for Reconnect {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ceilings(failure: Failure, tries: usize) -> Vec<f64> {
        let mut reconnect = Reconnect::new();
        (0..tries)
            .map(|_| reconnect.delay(failure, Duration::ZERO, 1.0).as_secs_f64())
            .map(|seconds| (seconds * 10.0).round() / 10.0)
            .collect()
    }

    #[test]
    fn ceilings_double_to_the_bound_of_their_kind() {
        assert_eq!(ceilings(Failure::Anew, 12)[8..], [2.6, 3.0, 3.0, 3.0]);
        assert_eq!(ceilings(Failure::Lost, 6), [0.2, 0.4, 0.8, 1.6, 3.0, 3.0]);
        assert_eq!(ceilings(Failure::Busy(None), 7), [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
        assert_eq!(ceilings(Failure::Identity, 10)[7..], [128.0, 256.0, 300.0]);
    }

    #[test]
    fn a_delay_lies_between_nothing_and_its_ceiling() {
        let mut reconnect = Reconnect::new();
        assert_eq!(reconnect.delay(Failure::Lost, Duration::ZERO, 0.0), Duration::ZERO);
        let half_of_the_second = reconnect.delay(Failure::Lost, Duration::ZERO, 0.5);
        assert_eq!(half_of_the_second.as_millis(), 200);
    }

    #[test]
    fn what_the_server_asks_for_is_a_least_delay_within_reason() {
        let mut reconnect = Reconnect::new();
        let mut asked = |seconds, chance| {
            let failure = Failure::Busy(Some(Duration::from_secs(seconds)));
            reconnect.delay(failure, Duration::ZERO, chance)
        };
        assert_eq!(asked(10, 0.0), Duration::from_secs(10));
        assert_eq!(asked(10, 1.0), Duration::from_secs(11));
        assert_eq!(asked(86_400, 0.0), LONGEST_ASKED);
    }

    #[test]
    fn an_hour_without_host_api_makes_no_wait_longer_than_three_seconds() {
        let mut reconnect = Reconnect::new();
        let mut passed = Duration::ZERO;
        let mut tries = 0;
        while passed < Duration::from_secs(3600) {
            let delay = reconnect.delay(Failure::Lost, Duration::ZERO, 1.0);
            assert!(delay <= Duration::from_secs(3), "{delay:?} after {passed:?}");
            passed += delay;
            tries += 1;
        }
        assert!(tries < 1300, "{tries} tries are a storm");
    }

    #[test]
    fn only_two_minutes_of_health_forgive_earlier_failures() {
        let mut reconnect = Reconnect::new();
        for _ in 0..5 {
            reconnect.delay(Failure::Lost, Duration::ZERO, 1.0);
        }
        let (short, long) = (Duration::from_secs(119), Duration::from_secs(120));
        assert_eq!(reconnect.delay(Failure::Lost, short, 1.0), Duration::from_secs(3));
        assert_eq!(reconnect.delay(Failure::Lost, long, 1.0), Duration::from_millis(200));
    }
}
