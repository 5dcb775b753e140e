//! How many writes run side by side. Pure.
//!
//! An API server takes about as many writes a second at four workers as at sixteen and fewer at sixty-four, and where
//! the peak lies depends on the host. So the number climbs until the rate clearly falls, then descends until it clearly
//! falls again, and halves when the server says that it is overloaded. The trap: the rate also falls by itself, slowly,
//! as objects accumulate; only a clear fall tells anything.

use std::time::Duration;

/// Fewest writes side by side: a stuck one must not hold up all others.
const LEAST: usize = 4;
/// Most writes side by side.
const MOST: usize = 20;
/// Where it begins.
const FIRST: usize = 16;
/// How long a rate is measured before the next step.
const WINDOW: Duration = Duration::from_millis(500);
/// A rate below this part of the one before has clearly fallen.
const WORSE: f64 = 0.9;

/// The number of writes side by side, and how it came about.
#[derive(Clone, Debug)]
pub struct Pace {
    limit: usize,
    climbing: bool,
    since: Option<Duration>,
    done: u32,
    rate: f64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { limit: FIRST, climbing: true, since: None, done: 0, rate: 0.0 }
    }
}

impl Pace {
    /// How many writes may run side by side now.
    #[must_use]
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// How many of them one tenant may have, so that one whose calls hang leaves room for others.
    #[must_use]
    pub const fn share(&self) -> usize {
        self.limit * 3 / 4
    }

    /// Notes a finished write. `waiting` tells whether more work waited: only then does the rate say anything.
    pub fn finished(&mut self, now: Duration, waiting: bool) {
        let since = *self.since.get_or_insert(now);
        if !waiting {
            self.since = None;
            self.done = 0;
            return;
        }
        self.done += 1;
        let elapsed = now.saturating_sub(since);
        if elapsed < WINDOW {
            return;
        }
        let rate = f64::from(self.done) / elapsed.as_secs_f64();
        if rate < self.rate * WORSE {
            self.climbing = !self.climbing;
        }
        self.climbing |= self.limit == LEAST;
        self.limit = if self.climbing { self.limit + 1 } else { self.limit - 1 }.clamp(LEAST, MOST);
        self.rate = rate;
        self.since = Some(now);
        self.done = 0;
    }

    /// Notes that the server asked for less (429) or failed under the load.
    pub fn overloaded(&mut self) {
        self.limit = (self.limit / 2).max(LEAST);
        self.climbing = true;
        self.since = None;
        self.done = 0;
        self.rate = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs against a server whose rate depends on the number of writes side by side; gives the limits it went through.
    fn run(rate: impl Fn(usize) -> f64, seconds: u64) -> Vec<usize> {
        let (mut pace, mut now, mut limits) = (Pace::default(), Duration::ZERO, Vec::new());
        while now < Duration::from_secs(seconds) {
            now += Duration::from_secs_f64(1.0 / rate(pace.limit()));
            pace.finished(now, true);
            limits.push(pace.limit());
        }
        limits
    }

    #[test]
    fn it_stays_around_the_peak_of_the_server() {
        let peak_at_five = |limit: usize| 400.0 - 25.0 * (limit as f64 - 5.0).abs();
        let late: Vec<_> = run(peak_at_five, 60).split_off(3_000);
        let mean = late.iter().sum::<usize>() as f64 / late.len() as f64;
        assert!((4.0..=10.0).contains(&mean), "{mean}");
        assert!(late.iter().all(|&limit| limit < MOST), "{:?}", late.iter().max());
    }

    #[test]
    fn a_rate_that_falls_slowly_by_itself_does_not_hold_it_back() {
        let served = std::cell::Cell::new(0.0);
        let limits = run(
            |limit| {
                served.set(served.get() + 1.0);
                (100.0 + 10.0 * limit as f64) / (1.0 + served.get() / 5_000.0)
            },
            30,
        );
        assert_eq!(limits.last(), Some(&MOST));
    }

    #[test]
    fn it_keeps_its_bounds() {
        assert!(run(|limit| 100.0 * limit as f64, 60).into_iter().all(|limit| limit <= MOST));
        let mut pace = Pace::default();
        for _ in 0..10 {
            pace.overloaded();
        }
        assert_eq!(pace.limit(), LEAST);
    }

    #[test]
    fn an_idle_server_teaches_nothing() {
        let mut pace = Pace::default();
        for second in 0..100 {
            pace.finished(Duration::from_secs(second), false);
        }
        assert_eq!(pace.limit(), FIRST);
    }
}
