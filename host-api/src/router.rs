//! `POST /v1/session`: who is asking, which wire, then the stream. I/O.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Version, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use futures::stream;
use k3k_expose_proto::{FromAgent, FromHost, line, version};
use kube::Client;
use secrecy::SecretString;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::authenticate::{Caller, authenticate};
use crate::connections::Connection;
use crate::gate::Gate;
use crate::hub::Hub;
use crate::identify::identify;
use crate::lease::Leadership;
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::ready::Ready;
use crate::registry::NotOpened;
use crate::stream::{CHUNKS, Ended, Inbound, run};

/// Sessions end after a random time in this range, so that a restart does not bring all agents back at once for ever.
const LIFETIME_S: std::ops::RangeInclusive<u64> = 1_800..=3_600;
/// A session ends this long before its token.
const BEFORE_EXPIRY_S: u64 = 60;
/// Content type of the stream.
const NDJSON: &str = "application/x-ndjson";

/// What sessions need.
#[derive(Clone)]
pub struct Server {
    /// The registry.
    pub hub: Arc<Hub>,
    /// The host's API server.
    pub client: Client,
    /// Rates and turns of those who want a session.
    pub gate: Arc<Gate>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// What must be known of the host before anybody can be served.
    pub watches: Arc<[Ready]>,
    /// Sessions under way.
    pub sessions: TaskTracker,
    /// Whether this replica serves sessions.
    pub leadership: Leadership,
    /// Ends sessions.
    pub stop: CancellationToken,
}

/// The routes.
pub fn router(server: Server) -> Router {
    Router::new().route("/v1/session", post(session)).with_state(server)
}

async fn session(State(server): State<Server>, request: Request) -> Response {
    match open(&server, request).await {
        Ok(response) => response,
        Err(problem) => {
            server.metrics.refused(&problem);
            if let Some(unlogged) = server.gate.log() {
                info!(reason = problem.reason(), unlogged, "a session was refused");
            }
            problem.into_response()
        }
    }
}

async fn open(server: &Server, request: Request) -> Result<Response, Problem> {
    if request.version() != Version::HTTP_2 {
        return Err(Problem::NoCommonVersion("the stream needs HTTP/2".to_owned()));
    }
    if let Some(missing) = server.watches.iter().find(|watch| !watch.is_up()) {
        return Err(Problem::NotReady(format!("host-api is still reading the host's {}", missing.name())));
    }
    if server.stop.is_cancelled() {
        return Err(Problem::NotReady("host-api is stopping".to_owned()));
    }
    let term = server.leadership.term().ok_or(Problem::NotLeader)?;
    let connection = request.extensions().get::<Connection>().cloned();
    let busy = connection.as_ref().map(Connection::busy);
    let token = bearer(request.headers()).ok_or(Problem::TokenMissing)?;
    let _opening = server.gate.enter()?;
    let turn = server.gate.turn().await?;
    let caller = caller(server, &token, connection.as_ref()).await?;
    drop(token);
    server.gate.attempt(&caller.pod_uid)?;
    let identity = identify(&server.client, &caller).await.map_err(|refused| {
        refused.notice.into_iter().for_each(|notice| server.hub.report(notice));
        refused.problem
    })?;
    drop(turn);

    let mut inbound = Inbound::new(request.into_body().into_data_stream());
    let hello = match inbound.first().await {
        Ok(FromAgent::Hello(hello)) => hello,
        Ok(_) => return Err(Problem::BadHello("the first line must be a hello".to_owned())),
        Err(Ended::Line(error)) => return Err(Problem::BadHello(error.to_string())),
        Err(ended) => return Err(Problem::BadHello(format!("no hello came: {ended}"))),
    };
    let version = version::negotiate(&hello.versions).ok_or_else(|| {
        let supported = version::SUPPORTED;
        Problem::NoCommonVersion(format!("this host-api speaks wire versions {supported:?}: upgrade the older side"))
    })?;
    let lifetime = lifetime(caller.expires, epoch_seconds());
    let tenant = &identity.tenant;
    let opened = server.hub.with(|registry, now| {
        // The look-ups took their time, and what is opened now belongs to the present term.
        let leads = server.leadership.is_in(&term);
        leads.then(|| registry.open(tenant, identity.state, identity.pod, &hello, now))
    });
    let (id, mut welcome) = opened.ok_or(Problem::NotLeader)?.map_err(|error| match error {
        NotOpened::TooManyTakeovers => Problem::TooManyTakeovers(error.to_string()),
        NotOpened::TooManySessions => Problem::TooManySessions(error.to_string()),
        NotOpened::PodGone => Problem::PodGone,
        NotOpened::ClusterGone => Problem::NotAServerPod(error.to_string()),
    })?;
    welcome.version = version;
    welcome.ends_in_s = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
    let name = welcome.session.clone();
    info!(
        session = %name,
        namespace = tenant.namespace(),
        cluster = tenant.cluster(),
        agent = %hello.agent.escape_debug(),
        resume = ?welcome.resume,
        services = hello.count,
        "session opened"
    );
    server.metrics.session_opened();

    let (out, lines) = mpsc::channel::<Result<Bytes, Infallible>>(CHUNKS);
    let first = line::encode(&FromHost::Welcome(welcome)).map_err(|error| Problem::NotReady(error.to_string()))?;
    // The channel is empty and has room for the first line.
    let _ = out.try_send(Ok(first.into()));
    let (hub, metrics, stop) = (Arc::clone(&server.hub), Arc::clone(&server.metrics), server.stop.clone());
    server.sessions.spawn(async move {
        let stop = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = term.ended().cancelled() => {}
            }
        };
        let last = run(hub, id, inbound, out, lifetime, stop).await;
        metrics.session_ended(last.as_ref().map(|last| last.reason));
        match last {
            Some(last) => info!(session = %name, reason = ?last.reason, why = last.message, "session ended"),
            None => info!(session = %name, "session was closed by the agent"),
        }
        drop(busy);
    });
    let body = stream::unfold(lines, |mut lines| async { lines.recv().await.map(|chunk| (chunk, lines)) });
    Ok(([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(body)).into_response())
}

/// Who is asking, by a verdict of a moment ago or a new one.
async fn caller(server: &Server, token: &SecretString, connection: Option<&Connection>) -> Result<Caller, Problem> {
    let from = connection.and_then(|connection| connection.from);
    if let Some(known) = server.gate.verdict(token, from, epoch_seconds())? {
        return Ok(known);
    }
    let verdict = authenticate(&server.client, token, epoch_seconds()).await;
    server.gate.judged(token, from, &verdict);
    verdict
}

fn bearer(headers: &HeaderMap) -> Option<SecretString> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then(|| token.trim().to_owned().into())
}

fn lifetime(expires: u64, now: u64) -> Duration {
    let token = expires.saturating_sub(now).saturating_sub(BEFORE_EXPIRY_S);
    Duration::from_secs(fastrand::u64(LIFETIME_S).min(token).max(1))
}

fn epoch_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_never_outlives_its_token() {
        assert_eq!(lifetime(1_000 + 600, 1_000), Duration::from_secs(540));
        assert_eq!(lifetime(1_000 + 30, 1_000), Duration::from_secs(1));
        let long = lifetime(1_000_000, 1_000).as_secs();
        assert!(LIFETIME_S.contains(&long), "{long}");
    }

    #[test]
    fn only_a_bearer_token_counts() {
        let of = |value: &str| bearer(&HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]));
        assert!(of("Bearer abc").is_some() && of("bearer abc").is_some());
        assert!(of("Basic abc").is_none() && of("Bearer ").is_none() && of("abc").is_none());
    }
}
