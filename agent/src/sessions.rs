//! One session after another: opens, renews before the end, and comes back after a failure.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use k3k_expose_proto::{FromAgent, line};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::config::Config;
use crate::connect::{self, ConnectError, connect};
use crate::reconnect::{Failure, Reconnect};
use crate::session::Over;
use crate::stream;

/// How often the token file is looked at while its token is refused.
const TOKEN_POLL: Duration = Duration::from_secs(1);
/// Mean wait before a renewal that failed is tried again, while the old session still runs.
const RENEW_AGAIN: Duration = Duration::from_secs(10);
/// Most refusals that are remembered as told.
const REMEMBERED: usize = 16;

type Attempt<'a> = Pin<Box<dyn Future<Output = Ended> + Send + 'a>>;

/// Runs sessions.
pub(crate) struct Sessions<'a> {
    agent: &'a Agent,
    config: &'a Config,
    stop: &'a CancellationToken,
    /// When the present session's successor is to be opened.
    renew_at: watch::Sender<Option<Instant>>,
}

/// How an attempt at a session ended.
struct Ended {
    why: Why,
    open_for: Duration,
    token: Option<SecretString>,
}

enum Why {
    Over(Over),
    NotOpened(ConnectError),
}

impl Why {
    const fn failure(&self) -> Failure {
        match self {
            Self::Over(over) => over.failure(),
            Self::NotOpened(error) => error.failure(),
        }
    }

    /// Host-api lets a successor take over before that one has heard its welcome.
    fn beside_a_successor(self) -> Self {
        match self {
            Self::Over(Over::Bye { reason: "superseded", .. }) => Self::Over(Over::TakenOver),
            other => other,
        }
    }

    const fn result(&self) -> &'static str {
        match self {
            Self::Over(over) => over.result(),
            Self::NotOpened(ConnectError::Problem(_)) => "refused",
            Self::NotOpened(_) => "unreachable",
        }
    }

    /// What tells one refusal from another, where telling it again would be noise.
    fn refusal(&self) -> Option<String> {
        match self {
            Self::NotOpened(ConnectError::Problem(problem)) => Some(format!("{} {}", problem.status, problem.reason)),
            Self::NotOpened(error) => Some(error.to_string()),
            Self::Over(_) => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Over(over) => over.to_string(),
            Self::NotOpened(error) => error.to_string(),
        }
    }
}

impl<'a> Sessions<'a> {
    pub(crate) fn new(agent: &'a Agent, config: &'a Config, stop: &'a CancellationToken) -> Self {
        Self { agent, config, stop, renew_at: watch::Sender::new(None) }
    }

    /// Runs until the stop signal, and ends the session cleanly then.
    pub(crate) async fn run(&self) {
        let mut reconnect = Reconnect::new();
        let mut told = BTreeSet::new();
        while !self.stop.is_cancelled() {
            if !self.until_ready().await {
                return;
            }
            let ended = self.chain(&mut told).await;
            if self.stop.is_cancelled() {
                return;
            }
            let failure = ended.why.failure();
            let delay = reconnect.delay(failure, ended.open_for, fastrand::f64());
            self.tell(&ended.why, delay, &mut told);
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = sleep(delay) => {}
                () = self.token_changed(ended.token), if failure == Failure::Identity => {}
            }
        }
    }

    /// A session and those that renew it, until one ends without a successor.
    async fn chain(&self, told: &mut BTreeSet<String>) -> Ended {
        self.renew_at.send_replace(None);
        let mut opened = self.renew_at.subscribe();
        let mut renew_at = None;
        let mut current: Attempt<'_> = Box::pin(self.attempt());
        let mut next: Option<Attempt<'_>> = None;
        loop {
            tokio::select! {
                mut ended = &mut current => {
                    if next.is_some() {
                        ended.why = ended.why.beside_a_successor();
                    }
                    self.count(&ended);
                    match next.take() {
                        Some(successor) => {
                            self.lose(&ended.why);
                            current = successor;
                        }
                        None => return ended,
                    }
                }
                ended = poll(&mut next) => {
                    self.count(&ended);
                    next = None;
                    renew_at = Some(Instant::now() + RENEW_AGAIN.mul_f64(0.5 + fastrand::f64()));
                    tracing::debug!(why = ended.why.text(), "session not renewed yet");
                }
                _ = opened.changed() => {
                    renew_at = *opened.borrow_and_update();
                    told.clear();
                }
                () = sleep_until(renew_at.unwrap_or_else(Instant::now)), if renew_at.is_some() && next.is_none() => {
                    next = Some(Box::pin(self.attempt()));
                }
            }
        }
    }

    async fn attempt(&self) -> Ended {
        let ended = |why, open_for, token| Ended { why, open_for, token };
        let token = match connect::token(&self.config.token_file) {
            Ok(token) => token,
            Err(error) => return ended(Why::NotOpened(error), Duration::ZERO, None),
        };
        let hello = self.agent.take(crate::outbox::Outbox::hello).map(FromAgent::Hello);
        let Some(Ok(hello)) = hello.as_ref().map(line::encode) else {
            return ended(Why::Over(Over::Relisted), Duration::ZERO, None);
        };
        let link = tokio::select! {
            () = self.stop.cancelled() => return ended(Why::Over(Over::Stopped), Duration::ZERO, None),
            link = connect(self.agent, self.config, &token, hello) => link,
        };
        let (why, open_for) = match link {
            Ok(link) => {
                let (over, open_for) = stream::run(self.agent, link, &self.renew_at, self.stop).await;
                (Why::Over(over), open_for)
            }
            Err(error) => (Why::NotOpened(error), Duration::ZERO),
        };
        if open_for.is_zero() {
            self.agent.take(crate::outbox::Outbox::withdraw);
        }
        if matches!(why, Why::Over(Over::Reproject)) {
            self.agent.reproject().send_replace(());
        }
        ended(why, open_for, Some(token))
    }

    fn count(&self, ended: &Ended) {
        self.agent.metrics.count_session(ended.why.result());
    }

    /// The old session ended before its successor was welcomed.
    fn lose(&self, why: &Why) {
        if !matches!(why, Why::Over(Over::TakenOver)) {
            self.agent.set_session(Err(why.text()));
        }
    }

    /// Says why there is no session: the same refusal once, until a session has been open.
    fn tell(&self, why: &Why, delay: Duration, told: &mut BTreeSet<String>) {
        let text = why.text();
        self.agent.set_session(Err(text.clone()));
        let known = why.refusal().is_some_and(|refusal| {
            if told.len() >= REMEMBERED {
                told.clear();
            }
            !told.insert(refusal)
        });
        if known {
            tracing::debug!(why = text, ?delay, "session not opened");
        } else if matches!(why, Why::Over(Over::Reproject | Over::Relisted)) {
            tracing::info!(why = text, ?delay, "session begins anew");
        } else {
            tracing::warn!(why = text, ?delay, "session not open");
        }
    }

    /// Waits until there is a complete set to speak of. False when the stop signal came first.
    async fn until_ready(&self) -> bool {
        let mut changes = self.agent.changes();
        while !self.agent.read(crate::outbox::Outbox::is_ready) {
            tokio::select! {
                () = self.stop.cancelled() => return false,
                _ = changes.changed() => {}
            }
        }
        true
    }

    async fn token_changed(&self, refused: Option<SecretString>) {
        let is_same = |token: &SecretString| {
            refused.as_ref().is_some_and(|refused| refused.expose_secret() == token.expose_secret())
        };
        loop {
            sleep(TOKEN_POLL).await;
            if connect::token(&self.config.token_file).is_ok_and(|token| !is_same(&token)) {
                return;
            }
        }
    }
}

/// Waits for a successor, for ever when there is none.
async fn poll(next: &mut Option<Attempt<'_>>) -> Ended {
    match next {
        Some(attempt) => attempt.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
