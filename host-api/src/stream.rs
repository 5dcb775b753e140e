//! One session's bytes: lines in from the request's body, lines out to the response's body. I/O.
//!
//! Two halves that never wait for each other. The reader puts each line into the registry at once; the writer tells what
//! the registry has to tell when it has it, so whoever is slow costs nobody anything but itself.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use k3k_expose_proto::limits::{BEAT, DRAIN, HELLO, SILENCE};
use k3k_expose_proto::line::{self, LineError, Lines};
use k3k_expose_proto::message::{Bye, ByeReason, Object, Put};
use k3k_expose_proto::secret::{Secret, Unfit};
use k3k_expose_proto::{FromAgent, FromHost};
use tokio::sync::mpsc;
use tokio::task::{consume_budget, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::hub::Hub;
use crate::ingress::secret;
use crate::session::{SessionId, bye};

/// Chunks of lines on their way to the agent. The response's body takes them as HTTP/2 lets it.
pub type Outbound = mpsc::Sender<Result<Bytes, Infallible>>;
/// Chunks that wait for the response's body.
pub const CHUNKS: usize = 4;

/// Lines are gathered into chunks of about this many bytes.
const CHUNK: usize = 16 * 1024;

/// The request's body, cut into lines.
#[derive(Debug)]
pub struct Inbound<S> {
    body: S,
    chunk: Bytes,
    lines: Lines,
    // Bytes of the line that was read last.
    read: usize,
}

/// Why there is no next line.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The agent is gone, or has said its last line.
    #[error("the agent ended the stream")]
    Closed,
    /// Nothing came for too long.
    #[error("nothing came from the agent")]
    Silent,
    /// A line that is no message.
    #[error(transparent)]
    Line(#[from] LineError),
}

impl<S, E> Inbound<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    /// Reads from the start of a body.
    pub fn new(body: S) -> Self {
        Self { body, chunk: Bytes::new(), lines: Lines::default(), read: 0 }
    }

    /// The first line, for which there is less time than for others.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn first(&mut self) -> Result<FromAgent, Ended> {
        timeout(HELLO, self.next()).await.unwrap_or(Err(Ended::Silent))
    }

    /// The next line.
    ///
    /// # Errors
    /// [`Ended`].
    async fn next(&mut self) -> Result<FromAgent, Ended> {
        // For a whole line: pieces of one that never ends are no sign of life.
        let silence = Instant::now() + SILENCE;
        loop {
            let mut rest: &[u8] = &self.chunk;
            let line = self.lines.next(&mut rest)?.map(|line| (line.len(), line::decode(line)));
            let used = self.chunk.len() - rest.len();
            let _ = self.chunk.split_to(used);
            if let Some((length, message)) = line {
                self.read = length;
                return Ok(message?);
            }
            self.chunk = match timeout_at(silence, self.body.next()).await {
                Ok(Some(Ok(chunk))) => chunk,
                Ok(Some(Err(_)) | None) => return Err(Ended::Closed),
                Err(_) => return Err(Ended::Silent),
            };
        }
    }
}

/// Runs a session to its end, and closes it. Gives its last line, or `None` when the agent has closed it.
pub async fn run<S, E>(
    hub: Arc<Hub>,
    id: SessionId,
    mut inbound: Inbound<S>,
    out: Outbound,
    lifetime: Duration,
    stop: impl Future<Output = ()>,
) -> Option<Bye>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let last = tokio::select! {
        last = read(&hub, id, &mut inbound) => last,
        last = tell(&hub, id, &out) => last,
        () = sleep_until(Instant::now() + lifetime) => {
            Some(bye(ByeReason::Expired, "the session's time is over", None))
        }
        () = stop => Some(bye(ByeReason::Draining, "this replica of host-api serves no more", Some(1))),
    };
    hub.close(id);
    if let Some(Ok(line)) = last.clone().map(|last| line::encode(&FromHost::Bye(last))) {
        // A peer that takes nothing has had its time already; the line is for one that does.
        let _ = timeout(Duration::from_secs(1), out.send(Ok(line.into()))).await;
    }
    last
}

/// Takes in lines until there is a reason to end.
async fn read<S, E>(hub: &Hub, id: SessionId, inbound: &mut Inbound<S>) -> Option<Bye>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    loop {
        // What has been received already is hundreds of lines.
        consume_budget().await;
        match inbound.next().await {
            Ok(message) => {
                let message = vetted(message).await;
                let taken_in = hub.with(|registry, now| {
                    let wait = registry.said(id, inbound.read, now);
                    registry.line(id, message, now).map(|()| wait)
                });
                match taken_in {
                    Ok(Duration::ZERO) => {}
                    Ok(wait) => sleep(wait).await,
                    Err(bye) => return Some(bye),
                }
            }
            Err(Ended::Closed) => return None,
            Err(Ended::Line(LineError::Unsupported)) => {
                return Some(bye(ByeReason::Unsupported, "unknown message", None));
            }
            Err(Ended::Line(error)) => return Some(bye(ByeReason::Malformed, &error.to_string(), None)),
            Err(Ended::Silent) => return Some(bye(ByeReason::Slow, "nothing came from the agent", None)),
        }
    }
}

/// A Secret is checked here, where only its own session waits for it.
async fn vetted(message: FromAgent) -> FromAgent {
    match message {
        FromAgent::Put(Put { object: Object::Secret(said), key, uid, hash, seen, unusable }) => {
            let unreadable = || Secret::Unfit(Unfit::Unreadable);
            let checked = spawn_blocking(move || secret::vetted(*said)).await.unwrap_or_else(|_| unreadable());
            FromAgent::Put(Put { object: Object::Secret(Box::new(checked)), key, uid, hash, seen, unusable })
        }
        other => other,
    }
}

/// Tells what there is to tell until there is a reason to end.
async fn tell(hub: &Hub, id: SessionId, out: &Outbound) -> Option<Bye> {
    let waker = hub.waker(id);
    let mut beat = Instant::now() + beat_after();
    let mut chunk = BytesMut::with_capacity(CHUNK);
    loop {
        let mut last = None;
        while chunk.len() < CHUNK && last.is_none() {
            match hub.with(|registry, _| registry.next_line(id)) {
                Some(FromHost::Bye(bye)) => last = Some(bye),
                Some(line) => append(&mut chunk, &line),
                None => break,
            }
        }
        if chunk.is_empty() && last.is_none() {
            tokio::select! {
                () = waker.notified() => continue,
                () = sleep_until(beat) => {
                    beat = Instant::now() + beat_after();
                    append(&mut chunk, &hub.with(|registry, _| registry.host_beat(id)));
                }
            }
        }
        if !chunk.is_empty() {
            match timeout(DRAIN, out.send(Ok(chunk.split().freeze()))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return None,
                Err(_) => return Some(bye(ByeReason::Slow, "the agent takes no lines", Some(1))),
            }
        }
        if last.is_some() {
            return last;
        }
    }
}

/// What we say ourselves is bounded far below a line's length, so that nothing is left out here.
fn append(chunk: &mut BytesMut, message: &FromHost) {
    match line::encode(message) {
        Ok(line) => chunk.extend_from_slice(&line),
        Err(error) => tracing::error!(%error, "a line of ours was too long"),
    }
}

/// Jitter keeps a thousand agents from beating at once.
fn beat_after() -> Duration {
    BEAT.mul_f64(0.8 + 0.4 * fastrand::f64())
}

#[cfg(test)]
mod tests;
