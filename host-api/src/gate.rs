//! What stands between a request and a look-up at the host's API server: turns, rates, and verdicts that are still fresh.
//!
//! Nobody has proved anything yet when he comes here, so nothing may grow with the number of those who come.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k3k_expose_proto::Uid;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::authenticate::Caller;
use crate::bounds::{
    BAD_TOKENS, LOOK_UP_TURN, LOOK_UPS, OPENING, REFUSALS_LOGGED, REVIEWS, TRIES, VERDICT_AGE, VERDICTS,
};
use crate::bucket::{Bucket, Rate};
use crate::problem::Problem;

/// Most pods, and addresses, whose spending is kept in mind.
const KEPT: usize = 4_096;

/// Shared by all requests.
#[derive(Debug)]
pub struct Gate {
    opening: Arc<Semaphore>,
    look_ups: Arc<Semaphore>,
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    verdicts: Verdicts,
    reviews: Bucket,
    tries: Spending<Uid>,
    bad_tokens: Spending<IpAddr>,
    logged: Bucket,
    unlogged: u64,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            opening: Arc::new(Semaphore::new(OPENING)),
            look_ups: Arc::new(Semaphore::new(LOOK_UPS)),
            started: Instant::now(),
            state: Mutex::default(),
        }
    }
}

impl Gate {
    /// A place among those who are on their way to a session.
    ///
    /// # Errors
    /// [`Problem::TooBusy`].
    pub fn enter(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.opening).try_acquire_owned().map_err(|_| Problem::TooBusy)
    }

    /// Waits for one's turn to be looked up.
    ///
    /// # Errors
    /// [`Problem::TooBusy`].
    pub async fn turn(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let turn = Arc::clone(&self.look_ups).acquire_owned();
        timeout(LOOK_UP_TURN, turn).await.ok().and_then(Result::ok).ok_or(Problem::TooBusy)
    }

    /// The fresh verdict on a token, if there is one, or leave to ask for it.
    ///
    /// # Errors
    /// That this address had too many tokens refused, or that all together ask too much.
    pub fn verdict(&self, token: &SecretString, from: Option<IpAddr>, now: u64) -> Result<Option<Caller>, Problem> {
        self.with(|state, time| {
            if let Some(caller) = state.verdicts.fresh(&fingerprint(token), time) {
                return if caller.expires > now { Ok(Some(caller)) } else { Err(Problem::TokenExpired) };
            }
            if from.is_some_and(|from| state.bad_tokens.is_spent(&from, BAD_TOKENS, time)) {
                return Err(Problem::TooManyTries);
            }
            if state.reviews.take(REVIEWS, time) { Ok(None) } else { Err(Problem::TooBusy) }
        })
    }

    /// Takes in what the API server said of a token.
    pub fn judged(&self, token: &SecretString, from: Option<IpAddr>, verdict: &Result<Caller, Problem>) {
        self.with(|state, time| match verdict {
            Ok(caller) => state.verdicts.keep(fingerprint(token), caller.clone(), time),
            // That it could not say anything is nobody's fault out there.
            Err(Problem::NotReady(_)) => {}
            Err(_) => {
                if let Some(from) = from {
                    state.bad_tokens.take(from, BAD_TOKENS, time);
                }
            }
        });
    }

    /// Counts a try of a pod.
    ///
    /// # Errors
    /// [`Problem::TooManyTries`].
    pub fn attempt(&self, pod: &str) -> Result<(), Problem> {
        let Ok(pod) = Uid::parse(pod) else { return Err(Problem::PodGone) };
        let may = self.with(|state, time| state.tries.take(pod, TRIES, time));
        if may { Ok(()) } else { Err(Problem::TooManyTries) }
    }

    /// Whether a refusal is to be logged, and how many before it were not.
    pub fn log(&self) -> Option<u64> {
        self.with(|state, time| {
            if state.logged.take(REFUSALS_LOGGED, time) {
                return Some(std::mem::take(&mut state.unlogged));
            }
            state.unlogged += 1;
            None
        })
    }

    fn with<T>(&self, step: impl FnOnce(&mut State, Duration) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        step(&mut state, self.started.elapsed())
    }
}

type Fingerprint = [u8; 32];

/// Tokens themselves are not kept.
fn fingerprint(token: &SecretString) -> Fingerprint {
    Sha256::digest(token.expose_secret().as_bytes()).into()
}

/// Whom the API server knows by a token, and since when.
#[derive(Debug, Default)]
struct Verdicts(HashMap<Fingerprint, (Caller, Duration)>);

impl Verdicts {
    fn fresh(&self, of: &Fingerprint, now: Duration) -> Option<Caller> {
        let (caller, since) = self.0.get(of)?;
        (now.saturating_sub(*since) < VERDICT_AGE).then(|| caller.clone())
    }

    fn keep(&mut self, of: Fingerprint, caller: Caller, now: Duration) {
        if self.0.len() >= VERDICTS {
            self.0.retain(|_, (_, since)| now.saturating_sub(*since) < VERDICT_AGE);
        }
        if self.0.len() < VERDICTS {
            self.0.insert(of, (caller, now));
        }
    }
}

/// What each of many has spent.
#[derive(Debug)]
struct Spending<K>(HashMap<K, Bucket>);

impl<K> Default for Spending<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Spending<K> {
    fn is_spent(&self, of: &K, rate: Rate, now: Duration) -> bool {
        self.0.get(of).is_some_and(|bucket| !bucket.clone().take(rate, now))
    }

    fn take(&mut self, of: K, rate: Rate, now: Duration) -> bool {
        if self.0.len() >= KEPT && !self.0.contains_key(&of) {
            self.0.retain(|_, bucket| !bucket.is_full(rate, now));
            if self.0.len() >= KEPT {
                return false;
            }
        }
        self.0.entry(of).or_default().take(rate, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    fn caller(expires: u64) -> Caller {
        Caller { namespace: "ns".into(), pod: "p".into(), pod_uid: "u".into(), expires }
    }

    #[test]
    fn a_verdict_is_believed_for_a_while_and_never_beyond_its_token() {
        let mut verdicts = Verdicts::default();
        verdicts.keep([1; 32], caller(9), Duration::ZERO);
        let before = VERDICT_AGE - Duration::from_millis(1);
        assert!(verdicts.fresh(&[1; 32], before).is_some() && verdicts.fresh(&[2; 32], before).is_none());
        assert!(verdicts.fresh(&[1; 32], VERDICT_AGE).is_none());

        let (gate, token) = (Gate::default(), SecretString::from("t"));
        gate.judged(&token, HERE, &Ok(caller(9)));
        assert_eq!(gate.verdict(&token, HERE, 8), Ok(Some(caller(9))));
        assert_eq!(gate.verdict(&token, HERE, 9), Err(Problem::TokenExpired));
        assert_eq!(gate.verdict(&"other".into(), HERE, 8), Ok(None));
    }

    #[test]
    fn no_more_verdicts_are_kept_than_there_is_room_for() {
        let mut verdicts = Verdicts::default();
        for number in 0..2 * VERDICTS {
            let fingerprint = Sha256::digest(number.to_string()).into();
            verdicts.keep(fingerprint, caller(9), Duration::ZERO);
        }
        assert_eq!(verdicts.0.len(), VERDICTS);
        verdicts.keep([0; 32], caller(9), VERDICT_AGE);
        assert_eq!(verdicts.0.len(), 1, "what is not believed any more makes room");
    }

    #[test]
    fn an_address_that_brings_bad_tokens_is_refused_and_no_other() {
        let gate = Gate::default();
        for number in 0..BAD_TOKENS.burst {
            let token = number.to_string().into();
            assert_eq!(gate.verdict(&token, HERE, 0), Ok(None));
            gate.judged(&token, HERE, &Err(Problem::TokenRejected));
        }
        assert_eq!(gate.verdict(&"next".into(), HERE, 0), Err(Problem::TooManyTries));
        assert_eq!(gate.verdict(&"next".into(), Some("10.0.0.1".parse().unwrap()), 0), Ok(None));
        gate.judged(&"good".into(), HERE, &Ok(caller(9)));
        assert!(gate.verdict(&"good".into(), HERE, 0).is_ok(), "who is known is known");
    }

    #[test]
    fn a_pod_that_tries_too_often_is_refused_and_no_other() {
        let gate = Gate::default();
        assert_eq!((0..100).filter(|_| gate.attempt("one").is_ok()).count(), 30);
        assert!(gate.attempt("other").is_ok());
    }

    #[test]
    fn spending_is_kept_in_mind_of_a_bounded_number() {
        let mut spending = Spending::default();
        let rate = Rate { burst: 1, per_second: 1 };
        assert!((0..KEPT).all(|number| spending.take(number, rate, Duration::ZERO)));
        assert!(!spending.take(KEPT, rate, Duration::ZERO), "refused rather than forgotten");
        assert!(spending.take(KEPT, rate, Duration::from_secs(1)));
        assert_eq!(spending.0.len(), 1);
    }

    #[test]
    fn what_is_not_logged_is_told_with_the_next() {
        let mut state = State::default();
        while state.logged.take(REFUSALS_LOGGED, Duration::ZERO) {}
        let gate = Gate { state: Mutex::new(state), ..Gate::default() };
        assert_eq!((gate.log(), gate.log()), (None, None));
        gate.with(|state, _| state.logged = Bucket::default());
        assert_eq!((gate.log(), gate.log()), (Some(2), Some(0)));
    }
}
