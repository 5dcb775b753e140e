//! Probes and metrics over HTTP/1.
//!
//! Neither start, life nor readiness depends on host-api or the network: readiness of this container gates the virtual
//! cluster's own server pod. Only `/syncz` tells whether all is in sync.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use k3k_expose_process::exposition;
use k3k_expose_process::probe::{self, Check};
use tokio::net::TcpListener;

use crate::agent::Agent;

/// Time between two tries to bind an address that is taken.
const BIND_AGAIN: Duration = Duration::from_secs(1);

/// The routes.
pub(crate) fn router(agent: Arc<Agent>) -> Router {
    Router::new()
        .route("/startupz", get(|query| async { report("startupz", &[ping()], query) }))
        .route("/livez", get(|query| async { report("livez", &[ping()], query) }))
        .route("/readyz", get(readyz))
        .route("/syncz", get(syncz))
        .route("/metrics", get(metrics))
        .with_state(agent)
}

/// Serves for as long as it is polled. An address that is taken is tried again, since exiting would keep the control
/// plane beside this container from starting.
///
/// # Errors
/// Whatever ends the server.
pub(crate) async fn serve(address: SocketAddr, agent: Arc<Agent>) -> std::io::Result<()> {
    let listener = bind(address).await;
    tracing::info!(%address, "admin server started");
    axum::serve(listener, router(agent)).await
}

async fn bind(address: SocketAddr) -> TcpListener {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) if !told => tracing::error!(%address, %error, "admin address could not be bound"),
            Err(_) => {}
        }
        told = true;
        tokio::time::sleep(BIND_AGAIN).await;
    }
}

/// An answer at all is the proof that the one thread turns.
const fn ping() -> Check {
    ("ping", Ok(()))
}

async fn readyz(query: RawQuery) -> Response {
    // Whether it is valid does not matter here: a control plane must start in spite of a mistake in ours.
    report("readyz", &[ping(), ("configuration-read", Ok(()))], query)
}

async fn syncz(State(agent): State<Arc<Agent>>, query: RawQuery) -> Response {
    let health = agent.health();
    let checks = [
        ("configuration", health.configuration.clone()),
        ("virtual-cluster", health.watch()),
        ("session", health.session),
        ("services", agent.read(crate::outbox::Outbox::in_sync).map_err(|behind| behind.to_string())),
    ];
    report("syncz", &checks, query)
}

async fn metrics(State(agent): State<Arc<Agent>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    match agent.metrics.text(agent.snapshot()) {
        Ok(text) => {
            let (content_type, text) = exposition::answer(accept, text);
            ([(header::CONTENT_TYPE, content_type)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn report(name: &str, checks: &[Check], RawQuery(query): RawQuery) -> Response {
    let report = probe::report(name, checks, query.as_deref());
    let status = if report.passed { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, report.text).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use k3k_expose_proto::Resource;
    use tower::ServiceExt;

    use super::*;

    async fn get(agent: &Arc<Agent>, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(Arc::clone(agent)).oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = to_bytes(response.into_body(), 65_536).await.unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn start_life_and_readiness_need_neither_host_api_nor_a_valid_configuration() {
        let agent = Arc::new(Agent::new(&[Resource::Services]));
        agent.set_configuration(Err("no URL".to_owned()));
        for path in ["/startupz", "/livez", "/readyz"] {
            assert_eq!(get(&agent, path).await, (StatusCode::OK, "ok".to_owned()), "{path}");
        }
        let (_, text) = get(&agent, "/readyz?verbose").await;
        assert_eq!(text, "[+]ping ok\n[+]configuration-read ok\nreadyz check passed\n");
    }

    #[tokio::test]
    async fn syncz_says_what_is_missing() {
        let agent = Arc::new(Agent::new(&[Resource::Services]));
        agent.set_configuration(Err("no URL".to_owned()));
        let (status, text) = get(&agent, "/syncz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains("[-]configuration failed: no URL\n"), "{text}");
        assert!(text.contains("[-]session failed: not started\n"), "{text}");
        assert!(text.ends_with("syncz check failed\n"), "{text}");
    }

    #[tokio::test]
    async fn metrics_come_in_the_format_that_is_asked_for() {
        let text = |accept: &'static str| async move {
            let request = Request::get("/metrics").header(header::ACCEPT, accept).body(Body::empty()).unwrap();
            let response = router(Arc::new(Agent::new(&[Resource::Services]))).oneshot(request).await.unwrap();
            let content_type = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
            let bytes = to_bytes(response.into_body(), 65_536).await.unwrap();
            (content_type, String::from_utf8(bytes.to_vec()).unwrap())
        };
        let (content_type, open) = text("application/openmetrics-text;version=1.0.0").await;
        assert!(content_type.starts_with("application/openmetrics-text") && open.ends_with("# EOF\n"), "{open}");
        let (content_type, plain) = text("*/*").await;
        assert!(content_type.starts_with("text/plain"), "{content_type}");
        assert!(plain.contains("# TYPE k3k_expose_agent_writes_total counter\n"), "{plain}");
    }
}
