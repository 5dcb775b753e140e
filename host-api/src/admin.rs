//! Probes and metrics over HTTP/1.
//!
//! Liveness depends on nothing but this process, so that an outage of the API server never has it restarted.

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use k3k_expose_process::exposition;
use k3k_expose_process::probe::{self, Check};

use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::ready::Ready;

/// What the probes look at.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The registry.
    pub hub: Arc<Hub>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// What must be known of the host before anybody can be served.
    pub watches: Arc<[Ready]>,
}

/// The routes.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/startupz", get(|query| async { answer("startupz", &[ping()], query) }))
        .route("/livez", get(|query| async { answer("livez", &[ping()], query) }))
        .route("/readyz", get(readyz))
        .route("/syncz", get(syncz))
        .route("/metrics", get(metrics))
        .with_state(admin)
}

/// The lock must be free for this to answer, so it also shows that nothing is stuck.
const fn ping() -> Check {
    ("ping", Ok(()))
}

async fn readyz(State(admin): State<Admin>, query: RawQuery) -> Response {
    answer("readyz", &watched(&admin), query)
}

async fn syncz(State(admin): State<Admin>, query: RawQuery) -> Response {
    let queued = admin.hub.with(|registry, _| registry.census().queued);
    let mut checks = watched(&admin);
    let idle = if queued == 0 { Ok(()) } else { Err(format!("{queued} Services wait to be written")) };
    checks.push(("writer", idle));
    answer("syncz", &checks, query)
}

async fn metrics(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let census = admin.hub.with(|registry, _| registry.census());
    match admin.metrics.text(&census) {
        Ok(text) => {
            let (content_type, text) = exposition::answer(accept, text);
            ([(header::CONTENT_TYPE, content_type)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn watched(admin: &Admin) -> Vec<Check> {
    let check = |watch: &Ready| {
        let up = if watch.is_up() { Ok(()) } else { Err("not listed yet".to_owned()) };
        (watch.name(), up)
    };
    admin.watches.iter().map(check).collect()
}

fn answer(name: &str, checks: &[Check], RawQuery(query): RawQuery) -> Response {
    let report = probe::report(name, checks, query.as_deref());
    let status = if report.passed { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, report.text).into_response()
}
