//! Whether somebody on the host keeps undoing a twin. Pure: time is passed in, as the time since the process started.

use std::time::Duration;

/// So many times undone …
const TIMES: usize = 3;
/// … within this long is a contest.
const WITHIN: Duration = Duration::from_secs(60);
/// After so long without another time the contest is over.
const CALM: Duration = Duration::from_secs(600);

/// The recent times at which one twin was undone.
#[derive(Clone, Debug, Default)]
pub struct Contest {
    recent: Vec<Duration>,
    contested: bool,
}

impl Contest {
    /// Notes that the twin was undone, and tells whether it is contested now.
    pub fn undone(&mut self, now: Duration) -> bool {
        if self.recent.last().is_some_and(|&last| now.saturating_sub(last) > CALM) {
            *self = Self::default();
        }
        self.recent.retain(|&time| now.saturating_sub(time) <= WITHIN);
        self.recent.push(now);
        self.contested = self.contested || self.recent.len() >= TIMES;
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
        let mut contest = Contest::default();
        assert!(!after(&mut contest, 0) && !after(&mut contest, 30) && after(&mut contest, 60));
        assert!(after(&mut contest, 500), "it stays one while it goes on");
        assert!(!after(&mut contest, 1_101));
    }

    #[test]
    fn now_and_then_is_none() {
        let mut contest = Contest::default();
        assert!((0..50).all(|time| !after(&mut contest, time * 31)));
    }
}
