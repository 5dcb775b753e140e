//! Connections of a TLS port: whoever has no request under way gives way to others. I/O.
//!
//! A connection costs memory before anybody has proved anything. So only so many may idle: one more takes the place of the
//! oldest of the address that has most of them, so that a crowd from one place closes nobody else's, and none idles for ever.
//! A connection with a request under way, or a session, is nobody's to close.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Extension;
use axum::middleware::AddExtension;
use axum_server::accept::Accept;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tower::Layer;

use crate::bounds::IDLE;

/// All connections of a port.
#[derive(Clone, Debug)]
pub struct Connections {
    idle: Arc<Mutex<Idle>>,
    time: Duration,
}

/// Those without a request, the one that idles longest first.
#[derive(Debug, Default)]
struct Idle {
    last: u64,
    places: BTreeMap<u64, Place>,
}

/// Where an idle connection comes from, and what closes it.
#[derive(Debug)]
struct Place {
    from: Option<IpAddr>,
    closer: CancellationToken,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Where it comes from.
    pub from: Option<IpAddr>,
    all: Connections,
    closer: CancellationToken,
    own: Arc<Mutex<Own>>,
}

#[derive(Debug)]
struct Own {
    requests: usize,
    idle: Option<u64>,
    since: Instant,
}

/// A request under way.
#[derive(Debug)]
pub struct Busy(Connection);

impl Connections {
    /// None yet; each may idle for so long.
    #[must_use]
    pub fn new(time: Duration) -> Self {
        Self { idle: Arc::default(), time }
    }

    fn open(&self, from: Option<IpAddr>) -> Connection {
        let own = Own { requests: 0, idle: None, since: Instant::now() };
        let closer = CancellationToken::new();
        let connection = Connection { from, all: self.clone(), closer, own: Arc::new(Mutex::new(own)) };
        connection.idles();
        connection
    }

    fn with<T>(&self, step: impl FnOnce(&mut Idle) -> T) -> T {
        step(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Idle {
    fn add(&mut self, place: Place) -> u64 {
        self.last += 1;
        self.places.insert(self.last, place);
        if self.places.len() > IDLE
            && let Some(place) = self.next().and_then(|next| self.places.remove(&next))
        {
            place.closer.cancel();
        }
        self.last
    }

    /// The oldest of the address that has most. Whole addresses count, since all pods of a node share a prefix.
    fn next(&self) -> Option<u64> {
        let mut counts = HashMap::<Option<IpAddr>, usize>::new();
        self.places.values().for_each(|place| *counts.entry(place.from).or_default() += 1);
        let most = counts.values().max()?;
        self.places.iter().find(|(_, place)| counts.get(&place.from) == Some(most)).map(|(number, _)| *number)
    }
}

impl Connection {
    /// Takes it that a request is under way until the answer's body has ended.
    #[must_use]
    pub fn busy(&self) -> Busy {
        self.own(|own| {
            own.requests += 1;
            if let Some(place) = own.idle.take() {
                self.all.with(|all| all.places.remove(&place));
            }
        });
        Busy(self.clone())
    }

    fn idles(&self) {
        self.own(|own| {
            own.since = Instant::now();
            own.idle = Some(self.all.with(|all| all.add(Place { from: self.from, closer: self.closer.clone() })));
        });
    }

    fn done(&self) {
        let last = self.own(|own| {
            own.requests -= 1;
            own.requests == 0
        });
        if last && !self.closer.is_cancelled() {
            self.idles();
        }
    }

    fn closed(&self) {
        self.closer.cancel();
        if let Some(place) = self.own(|own| own.idle.take()) {
            self.all.with(|all| all.places.remove(&place));
        }
    }

    /// When it has idled for too long; a time to look again while it does not idle.
    fn due(&self) -> Instant {
        self.own(|own| if own.requests == 0 { own.since } else { Instant::now() }) + self.all.time
    }

    fn own<T>(&self, step: impl FnOnce(&mut Own) -> T) -> T {
        step(&mut self.own.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.done();
    }
}

impl<S> Accept<TcpStream, S> for Connections {
    type Stream = Guarded;
    type Service = AddExtension<S, Connection>;
    type Future = std::future::Ready<io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let accepted = stream.set_nodelay(true).map(|()| {
            let connection = self.open(stream.peer_addr().ok().map(|address| address.ip()));
            let service = Extension(connection.clone()).layer(service);
            (Guarded::new(stream, connection), service)
        });
        std::future::ready(accepted)
    }
}

/// A connection's bytes, until it has to give way.
#[derive(Debug)]
pub struct Guarded {
    stream: TcpStream,
    connection: Connection,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    due: Pin<Box<Sleep>>,
}

impl Guarded {
    fn new(stream: TcpStream, connection: Connection) -> Self {
        let closed = Box::pin(connection.closer.clone().cancelled_owned());
        let due = Box::pin(sleep_until(connection.due()));
        Self { stream, connection, closed, due }
    }

    /// Whether it has to give way. Else the task is woken when it has to.
    fn gives_way(&mut self, ctx: &mut Context<'_>) -> bool {
        if self.closed.as_mut().poll(ctx).is_ready() {
            return true;
        }
        while self.due.as_mut().poll(ctx).is_ready() {
            let due = self.connection.due();
            if due <= Instant::now() {
                return true;
            }
            self.due.as_mut().reset(due);
        }
        false
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.connection.closed();
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, ctx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.gives_way(ctx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(ctx, buffer)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, ctx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(ctx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(ctx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(ctx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(ctx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(60);

    fn from(last: u8) -> Option<IpAddr> {
        Some([192, 0, 2, last].into())
    }

    #[tokio::test]
    async fn the_oldest_that_idles_gives_way_and_nobody_with_a_request() {
        let all = Connections::new(TIME);
        let first = all.open(from(1));
        let working = first.busy();
        let second = all.open(from(1));
        let others: Vec<Connection> = (0..IDLE).map(|_| all.open(from(1))).collect();
        assert!(!first.closer.is_cancelled() && second.closer.is_cancelled());
        assert!(others.iter().all(|other| !other.closer.is_cancelled()));
        drop(working);
        assert!(!first.closer.is_cancelled() && others[0].closer.is_cancelled(), "it idles since now");
        others.iter().for_each(Connection::closed);
        assert_eq!(all.with(|idle| idle.places.len()), 1);
    }

    #[tokio::test]
    async fn a_crowd_from_one_address_closes_nobody_elses() {
        let all = Connections::new(TIME);
        let others = [2, 3].map(|last| all.open(from(last)));
        let crowd: Vec<Connection> = (0..2 * IDLE).map(|_| all.open(from(1))).collect();
        assert!(others.iter().all(|other| !other.closer.is_cancelled()));
        let left = crowd.iter().skip_while(|one| one.closer.is_cancelled());
        assert_eq!(left.filter(|one| !one.closer.is_cancelled()).count(), IDLE - others.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_idles_since_its_last_request() {
        let connection = Connections::new(TIME).open(None);
        let busy = [connection.busy(), connection.busy()];
        tokio::time::advance(TIME).await;
        assert_eq!(connection.due(), Instant::now() + TIME);
        drop(busy);
        assert_eq!(connection.due(), Instant::now() + TIME);
        tokio::time::advance(TIME).await;
        assert_eq!(connection.due(), Instant::now());
    }
}
