//! Waiting for a state by asking again, and judging how long something took.
//!
//! A sleep is either too long or too short; a deadline is only paid by a test that fails.

use std::fmt::Display;
use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use crate::progress::say;
use crate::supervisor;

/// Short against the figures that tests judge, long against the cost of one look.
const INTERVAL: Duration = Duration::from_millis(20);

/// A deadline is this many times the figure that we aim at: tests also run on slow, busy machines.
const SLACK: u32 = 10;

/// What one look says: the awaited value, or what was there instead.
pub trait Observation {
    /// What the wait ends with.
    type Value;

    /// The value, or a text for the message of a missed deadline.
    fn observed(self) -> Result<Self::Value, String>;
}

impl<T> Observation for Option<T> {
    type Value = T;

    fn observed(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing".to_owned())
    }
}

impl<T, E: Display> Observation for Result<T, E> {
    type Value = T;

    fn observed(self) -> Result<T, String> {
        // The alternate form makes anyhow print its whole chain.
        self.map_err(|error| format!("{error:#}"))
    }
}

impl Observation for bool {
    type Value = ();

    fn observed(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("not yet".to_owned()) }
    }
}

/// Looks again and again until `look` finds what it wants, at most until the deadline.
///
/// Errors of `look` count as "not yet", so a connection that is refused while a server restarts needs no care.
///
/// # Errors
/// On the deadline, with `what` and the last observation. The logs of the control planes are kept then.
pub async fn eventually<O: Observation>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> O,
) -> anyhow::Result<O::Value> {
    let end = Instant::now() + deadline;
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = "nothing: the first look did not end".to_owned();
    loop {
        // A look may hang as a whole, and the deadline holds for it too.
        let look = async {
            ticks.tick().await;
            look().await.observed()
        };
        match timeout_at(end, look).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(observation)) => last = observation,
            Err(_) => {
                supervisor::keep_files();
                bail!("{what}: not within {deadline:?}; last seen: {last}");
            }
        }
    }
}

/// Prints a measured duration beside its figure, and fails far beyond it.
///
/// # Panics
/// When the duration is more than ten times the figure.
#[track_caller]
pub fn took(name: &str, duration: Duration, figure: Duration) {
    say(&format!("{name}: {:.3} s (figure {:.3} s)", duration.as_secs_f64(), figure.as_secs_f64()));
    assert!(duration <= figure * SLACK, "{name} took {duration:?}, more than ten times {figure:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missed_deadline_names_the_wish_and_the_last_observation() {
        let mut looks = 0;
        let outcome: anyhow::Result<()> = eventually("the moon", Duration::from_millis(50), async || {
            looks += 1;
            Err::<(), _>("clouds")
        })
        .await;
        let message = outcome.expect_err("nothing came").to_string();
        assert!(message.contains("the moon") && message.contains("clouds"), "{message}");
        assert!(looks > 1);
    }

    #[tokio::test]
    async fn a_look_that_hangs_ends_at_the_deadline() {
        let outcome: anyhow::Result<()> =
            eventually("an answer", Duration::from_millis(30), async || std::future::pending::<bool>().await).await;
        assert!(outcome.is_err());
    }
}
