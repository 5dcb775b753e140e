//! Whether somebody keeps undoing what we write. Pure: time is passed in, as the time since the process started.

use std::time::Duration;

/// So many times within this long is a contest.
const WITHIN: Duration = Duration::from_secs(60);
/// After so long without another time the contest is over.
const CALM: Duration = Duration::from_secs(600);

/// The recent times at which one object was undone.
#[derive(Clone, Debug)]
pub struct Contest {
    times: usize,
    recent: Vec<Duration>,
    contested: bool,
}

impl Contest {
    /// One that takes `times` within a minute for a contest.
    #[must_use]
    pub const fn new(times: usize) -> Self {
        Self { times, recent: Vec::new(), contested: false }
    }

    /// Notes that the object was undone, and tells whether it is contested now.
    pub fn undone(&mut self, now: Duration) -> bool {
        if self.recent.last().is_some_and(|&last| now.saturating_sub(last) > CALM) {
            *self = Self::new(self.times);
        }
        self.recent.retain(|&time| now.saturating_sub(time) <= WITHIN);
        self.recent.push(now);
        self.contested = self.contested || self.recent.len() >= self.times;
        self.contested
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(contest: &mut Contest, seconds: u64) -> bool {
        contest.undone(Duration::from_secs(seconds))
    }

    #[test]
    fn three_times_in_a_minute_is_a_contest_until_ten_minutes_of_calm() {
        let mut contest = Contest::new(3);
        assert!(!after(&mut contest, 0) && !after(&mut contest, 30) && after(&mut contest, 60));
        assert!(after(&mut contest, 500), "it stays one while it goes on");
        assert!(!after(&mut contest, 1_101));
    }

    #[test]
    fn now_and_then_is_none() {
        let mut contest = Contest::new(3);
        assert!((0..50).all(|time| !after(&mut contest, time * 31)));
    }
}
