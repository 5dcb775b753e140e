//! Turns of reviews, and of look-ups for their sake, so that nobody who reaches the port can make work without end. I/O: waiting.
//!
//! The trap: the API server shows nothing that tells it from other callers. So every caller gets the same few turns, by its
//! address: who floods the port waits behind himself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::bucket::{Bucket, Rate};

/// Reviews at a time: each may be as long as two pods, and takes about a millisecond.
const ALL: usize = 12;
/// Of these, for one address.
const PEER: usize = 6;
/// Look-ups at a time.
const LOOK_UPS: usize = 4;
/// Look-ups that may follow each other.
const RATE: Rate = Rate { burst: 40, per_second: 10 };
/// Addresses that are remembered before those are forgotten from which nothing comes.
const REMEMBERED: usize = 64;

/// Who may go on, and when.
#[derive(Debug)]
pub struct Turns {
    all: Arc<Semaphore>,
    peers: Mutex<BTreeMap<IpAddr, Arc<Semaphore>>>,
    look_ups: Semaphore,
    spent: Mutex<Bucket>,
    started: Instant,
}

/// A review's turn, to its end.
#[derive(Debug)]
pub(super) struct Turn {
    _own: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(ALL)),
            peers: Mutex::default(),
            look_ups: Semaphore::new(LOOK_UPS),
            spent: Mutex::default(),
            started: Instant::now(),
        }
    }
}

impl Turns {
    /// Waits for a review's turn: first among those of its address, then among all.
    pub(super) async fn review(&self, peer: IpAddr) -> Turn {
        let own = self.peer(peer).acquire_owned().await.ok();
        let all = Arc::clone(&self.all).acquire_owned().await.ok();
        Turn { _own: own, _all: all }
    }

    /// A look-up's turn, unless there were too many lately.
    pub(super) async fn look_up(&self) -> Option<SemaphorePermit<'_>> {
        let turn = self.look_ups.acquire().await.ok()?;
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.take(RATE, self.started.elapsed()).then_some(turn)
    }

    fn peer(&self, peer: IpAddr) -> Arc<Semaphore> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= REMEMBERED {
            // Whoever has a turn or waits for one holds it, too.
            peers.retain(|_, turns| Arc::strong_count(turns) > 1);
        }
        Arc::clone(peers.entry(peer).or_insert_with(|| Arc::new(Semaphore::new(PEER))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;

    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[tokio::test]
    async fn one_address_cannot_take_the_turns_of_another_and_all_together_have_an_end() {
        let turns = Turns::default();
        let mut held = Vec::new();
        while let Some(turn) = turns.review(address(1)).now_or_never() {
            held.push(turn);
        }
        assert_eq!(held.len(), PEER);
        while let Some(turn) = turns.review(address(2)).now_or_never() {
            held.push(turn);
        }
        assert_eq!(held.len(), ALL);
        assert!(turns.review(address(3)).now_or_never().is_none());
        held.clear();
        assert!(turns.review(address(1)).now_or_never().is_some());
    }

    #[tokio::test]
    async fn addresses_from_which_nothing_comes_are_forgotten() {
        let turns = Turns::default();
        let held = turns.review(address(1)).await;
        for last in 2..=200 {
            drop(turns.review(address(last)).await);
        }
        let peers = turns.peers.lock().unwrap();
        assert!(peers.len() <= REMEMBERED && peers.contains_key(&address(1)), "{}", peers.len());
        drop(held);
    }

    #[tokio::test(start_paused = true)]
    async fn look_ups_come_in_a_burst_and_then_at_a_rate() {
        let turns = Turns::default();
        let count = async || {
            let mut count = 0;
            while turns.look_up().await.is_some() {
                count += 1;
            }
            count
        };
        assert_eq!(count().await, RATE.burst);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(count().await, 2 * RATE.per_second);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(count().await, RATE.burst);
    }
}
