//! Runs one open session: lines in, lines out, beats.
//!
//! Reading never waits for writing: what is heard goes into the outbox at once, and what is to be said stays there until
//! the connection takes it. So two sides that both stall still hear each other out.

use bytes::Bytes;
use futures::{Stream, StreamExt};
use k3k_expose_proto::message::{HostBeat, Role};
use k3k_expose_proto::{FromAgent, FromHost, limits, line};
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::connect::Link;
use crate::outbox::{News, Outbox};
use crate::session::{Heard, Opened, Over, Session};
use k3k_expose_process::quote::quote;

/// Lines are gathered into chunks of about this size, so that a thousand puts do not become a thousand frames.
const CHUNK: usize = 16 * 1024;
/// Time for host-api to end its half after the agent ended its own.
const FAREWELL: Duration = Duration::from_secs(2);

/// One running session.
struct Running<'a> {
    agent: &'a Agent,
    session: Session,
    lines: line::Lines,
    renew_at: &'a watch::Sender<Option<Instant>>,
    opened_at: Option<Instant>,
    beat_at: Instant,
    heard_at: Instant,
    /// What was last said of the API server.
    told_ready: bool,
    /// Since when something waits to be said that the connection does not take.
    stalled_at: Option<Instant>,
}

/// Runs a session from behind its `hello` to its end, and says when to open its successor. Gives that end, and how long the session was open.
pub(crate) async fn run<S>(
    agent: &Agent,
    link: Link<S>,
    renew_at: &watch::Sender<Option<Instant>>,
    stop: &CancellationToken,
) -> (Over, Duration)
where
    S: Stream<Item = Result<Bytes, String>> + Unpin,
{
    let now = Instant::now();
    let mut running = Running {
        agent,
        session: Session::default(),
        lines: line::Lines::default(),
        renew_at,
        opened_at: None,
        beat_at: now + beat_period(),
        heard_at: now,
        told_ready: true,
        stalled_at: None,
    };
    let over = running.converse(link, stop).await;
    let open_for = running.opened_at.map(|opened_at| opened_at.elapsed()).unwrap_or_default();
    let Some(generation) = running.session.generation() else {
        return (over, open_for);
    };
    // Host-api's last line, or the end of the connection, may be heard before the turn in which a successor is noticed.
    let taken_over = !agent.read(|outbox| outbox.is_current(generation));
    if !taken_over {
        agent.write_back(|write_back, _| write_back.role(None));
    }
    agent.change(|outbox| outbox.close(generation));
    (if taken_over { Over::TakenOver } else { over }, open_for)
}

impl Running<'_> {
    async fn converse<S>(&mut self, link: Link<S>, stop: &CancellationToken) -> Over
    where
        S: Stream<Item = Result<Bytes, String>> + Unpin,
    {
        let Link { mut inbound, outbound } = link;
        let mut changes = self.agent.changes();
        loop {
            changes.mark_unchanged();
            let wants_to_speak = match self.agent.read(|outbox| self.session.has_next(outbox)) {
                Ok(has_next) => has_next || self.beat_is_due(),
                Err(over) => return over,
            };
            let now = Instant::now();
            self.stalled_at = wants_to_speak.then(|| self.stalled_at.unwrap_or(now));
            let stalled_until = self.stalled_at.unwrap_or(now) + limits::DRAIN;
            tokio::select! {
                () = stop.cancelled() => break,
                chunk = inbound.next() => {
                    let chunk = match chunk {
                        Some(Ok(chunk)) => chunk,
                        Some(Err(error)) => return Over::Lost(error),
                        None => return Over::Lost("host-api closed the stream".to_owned()),
                    };
                    if let Some(over) = self.hear(&chunk) {
                        return over;
                    }
                }
                permit = outbound.reserve(), if wants_to_speak => {
                    let Ok(permit) = permit else {
                        return Over::Lost("the request ended".to_owned());
                    };
                    self.stalled_at = None;
                    self.speak(permit);
                }
                _ = changes.changed() => {}
                () = sleep_until(self.beat_at), if !self.beat_is_due() => {}
                () = sleep_until(self.heard_at + limits::SILENCE) => return Over::Silent,
                () = sleep_until(stalled_until), if wants_to_speak => return Over::Stalled,
            }
        }
        drop(outbound);
        farewell(inbound).await;
        Over::Stopped
    }

    /// Takes in every line that a chunk completes.
    fn hear(&mut self, mut chunk: &[u8]) -> Option<Over> {
        self.agent.metrics.count_received(chunk.len());
        self.heard_at = Instant::now();
        loop {
            let line = match self.lines.next(&mut chunk) {
                Ok(Some(line)) => line::decode::<FromHost>(line),
                Ok(None) => return None,
                Err(error) => Err(error),
            };
            let heard = match line {
                Ok(line) => self.agent.change(|outbox| self.session.hear(outbox, line)),
                Err(error) => return Some(Over::Malformed(error.to_string())),
            };
            match heard {
                Heard::Nothing => {}
                Heard::Opened(opened) => self.open(&opened),
                Heard::Promoted => {
                    self.agent.promoted();
                    self.agent.write_back(|write_back, _| write_back.role(Some(Role::Active)));
                    tracing::info!("this agent speaks for the virtual cluster from now on");
                }
                Heard::Answered(news) => self.answer(*news),
                Heard::Beat(beat) => self.take_in(&beat),
                Heard::Over(Over::Bye { reason, message, failure }) => {
                    return Some(Over::Bye { reason, message: quote(&message), failure });
                }
                Heard::Over(over) => return Some(over),
            }
        }
    }

    fn answer(&self, news: News) {
        let News { answer, is_new_refusal } = news;
        if is_new_refusal {
            let (key, reason, message) = (&answer.key, answer.reason.as_str(), quote(&answer.message));
            tracing::info!(%key, reason, message, "service refused by host-api");
        }
        self.agent.answered(&answer.key);
        let acknowledged = self.agent.read(Outbox::is_acknowledged);
        self.agent.write_back(|write_back, now| {
            write_back.answered(answer, now);
            if acknowledged {
                write_back.may_reflect();
            }
        });
    }

    /// What is the case on the host.
    fn take_in(&self, beat: &HostBeat) {
        self.agent.write_back(|write_back, _| write_back.k3k(beat));
        self.agent.classes().send_if_modified(|classes| {
            let changes = beat.ingress_classes.is_some() && *classes != beat.ingress_classes;
            if changes {
                classes.clone_from(&beat.ingress_classes);
            }
            changes
        });
    }

    fn open(&mut self, opened: &Opened) {
        let now = Instant::now();
        // Early enough for a few more tries should the first renewal fail.
        let share = 0.8 + fastrand::f64() / 10.0;
        self.opened_at = Some(now);
        self.renew_at.send_replace(Some(now + opened.ends_in.mul_f64(share)));
        self.agent.set_session(Ok(()));
        self.take_in(&opened.host);
        self.agent.write_back(|write_back, _| {
            write_back.role(Some(opened.role));
        });
        let (session, role, ends_in) = (&opened.session, opened.role, opened.ends_in);
        tracing::info!(%session, ?role, ?ends_in, "session opened");
        for warning in &opened.warnings {
            tracing::warn!(%session, warning = quote(warning), "host-api warned");
        }
    }

    /// Fills one chunk.
    fn speak(&mut self, permit: mpsc::Permit<'_, Bytes>) {
        let mut chunk = Vec::new();
        if self.beat_is_due() {
            self.beat_at = Instant::now() + beat_period();
            let ready = self.is_ready();
            self.told_ready = ready;
            append(&mut chunk, self.agent.read(|outbox| self.session.beat(outbox, ready)).as_ref());
        }
        self.agent.take(|outbox| {
            while chunk.len() < CHUNK {
                let Some(line) = self.session.next(outbox) else {
                    return;
                };
                append(&mut chunk, Some(&line));
            }
        });
        if !chunk.is_empty() {
            permit.send(chunk.into());
        }
    }

    fn beat_is_due(&self) -> bool {
        // Who speaks for the virtual cluster depends on its API server, so that is told at once.
        let is_due = self.beat_at <= Instant::now() || self.told_ready != self.is_ready();
        self.session.generation().is_some() && is_due
    }

    fn is_ready(&self) -> bool {
        self.agent.health().watch().is_ok()
    }
}

fn append(chunk: &mut Vec<u8>, line: Option<&FromAgent>) {
    match line.map(line::encode) {
        None => {}
        Some(Ok(line)) => chunk.extend_from_slice(&line),
        // Objects were measured when they were taken in. Were one to get here, host-api would miss it in the tally.
        Some(Err(error)) => tracing::error!(%error, "line dropped"),
    }
}

/// Lets host-api end its half, for a moment.
async fn farewell<S: Stream<Item = Result<Bytes, String>> + Unpin>(mut inbound: S) {
    let _ = timeout(FAREWELL, async { while let Some(Ok(_)) = inbound.next().await {} }).await;
}

/// The mean period of beats, a fifth more or less.
fn beat_period() -> Duration {
    limits::BEAT.mul_f64(0.8 + fastrand::f64() * 0.4)
}

#[cfg(test)]
mod tests;
