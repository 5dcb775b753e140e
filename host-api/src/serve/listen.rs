//! The two TLS ports: sessions of agents, and the API server's questions about pods. I/O.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum_server::Handle;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use tokio_util::sync::CancellationToken;

use crate::bounds::{HANDSHAKE, HEADER_BYTES, IDLE_TIME, REVIEWS_IDLE_TIME, STREAMS, UNREAD, WINDOW};
use crate::connections::Connections;
use crate::router::{self, Server};

/// Bytes of an HTTP/1 request that are read.
const HTTP1_BYTES: usize = 16 * 1024;
/// Time that sessions and writes under way have to end after the first signal.
const GRACE: Duration = Duration::from_secs(10);
/// Reviews that one connection may have under way; an API server with more opens another.
const REVIEWS: u32 = 64;

/// Binds the address that this setting gives.
pub(super) fn bind(setting: &str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .with_context(|| format!("cannot bind {setting}={address}"))
}

/// Serves sessions until it is told to stop, and waits for those under way to say goodbye.
pub(super) async fn sessions(
    listener: TcpListener,
    tls: RustlsConfig,
    server: Server,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let handle = Handle::new();
    let sessions = server.sessions.clone();
    let router = router::router(server);
    let acceptor = acceptor(tls, IDLE_TIME);
    let mut serving =
        axum_server::from_tcp(listener)?.map(|_| acceptor).first_request_timeout(HANDSHAKE).handle(handle.clone());
    let http = serving.http_builder();
    http.http2()
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(UNREAD)
        .max_header_list_size(HEADER_BYTES)
        .max_pending_accept_reset_streams(16)
        .max_local_error_reset_streams(64)
        .keep_alive_interval(None);
    // Whoever speaks HTTP/1 is told that it takes HTTP/2, and no more.
    http.http1().keep_alive(false).max_buf_size(HTTP1_BYTES).header_read_timeout(HANDSHAKE);
    let drain = async {
        stop.cancelled().await;
        sessions.close();
        let _ = tokio::time::timeout(GRACE, sessions.wait()).await;
        handle.graceful_shutdown(Some(Duration::from_secs(1)));
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        served = serving.serve(router.into_make_service()) => served,
        never = drain => match never {},
    }
}

/// Answers reviews for as long as it is polled: to the end of the process, since every server pod that nobody answers for starts
/// without the agent.
pub(super) async fn reviews(listener: TcpListener, tls: RustlsConfig, router: Router) -> std::io::Result<()> {
    let mut serving =
        axum_server::from_tcp(listener)?.map(|_| acceptor(tls, REVIEWS_IDLE_TIME)).first_request_timeout(HANDSHAKE);
    serving.http_builder().http2().max_concurrent_streams(REVIEWS);
    serving.serve(router.into_make_service()).await
}

fn acceptor(tls: RustlsConfig, idle: Duration) -> RustlsAcceptor<Connections> {
    RustlsAcceptor::new(tls).handshake_timeout(HANDSHAKE).acceptor(Connections::new(idle))
}
