//! So many at once, then so many a second. Pure.
//!
//! What was spent is counted and forgotten with time, so that a bucket nobody used is the zero value and need not be kept.

use std::time::Duration;

/// How much may be spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At once, after a rest.
    pub burst: u32,
    /// From then on, each second.
    pub per_second: u32,
}

/// What was spent lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bucket {
    spent: f64,
    since: Duration,
}

impl Bucket {
    /// Spends, also what there is not: then there is a time to wait.
    pub fn spend(&mut self, rate: Rate, amount: u32, now: Duration) {
        self.spent = self.spent(rate, now) + f64::from(amount);
        self.since = now;
    }

    /// Spends one if there is one. Tells whether there was.
    pub fn take(&mut self, rate: Rate, now: Duration) -> bool {
        let there = self.spent(rate, now) + 1.0 <= f64::from(rate.burst);
        if there {
            self.spend(rate, 1, now);
        }
        there
    }

    /// How long it takes until something may be spent again.
    #[must_use]
    pub fn wait(&self, rate: Rate, now: Duration) -> Duration {
        let over = self.spent(rate, now) - f64::from(rate.burst);
        if over <= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(over / f64::from(rate.per_second.max(1))) }
    }

    /// Whether it is as one that nobody used.
    #[must_use]
    pub fn is_full(&self, rate: Rate, now: Duration) -> bool {
        self.spent(rate, now) <= 0.0
    }

    /// What of the spending is not forgotten yet.
    #[must_use]
    pub fn spent(&self, rate: Rate, now: Duration) -> f64 {
        let forgotten = now.saturating_sub(self.since).as_secs_f64() * f64::from(rate.per_second);
        (self.spent - forgotten).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 3, per_second: 2 };

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_burst_then_a_rate() {
        let mut bucket = Bucket::default();
        assert_eq!((0..5).filter(|_| bucket.take(RATE, at(0.0))).count(), 3);
        assert!(!bucket.take(RATE, at(0.4)) && bucket.take(RATE, at(0.5)) && !bucket.take(RATE, at(0.6)));
        assert_eq!((0..9).filter(|_| bucket.take(RATE, at(100.0))).count(), 3, "rest is not hoarded");
    }

    #[test]
    fn whoever_spends_more_than_there_is_waits_for_it() {
        let mut bucket = Bucket::default();
        bucket.spend(RATE, 3, at(0.0));
        assert_eq!(bucket.wait(RATE, at(0.0)), Duration::ZERO);
        bucket.spend(RATE, 4, at(0.0));
        assert_eq!(bucket.wait(RATE, at(0.0)), at(2.0));
        assert_eq!(bucket.wait(RATE, at(1.5)), at(0.5));
        assert!(!bucket.is_full(RATE, at(3.0)) && bucket.is_full(RATE, at(3.5)));
    }
}
