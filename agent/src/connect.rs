//! Opens the HTTP/2 stream to host-api, both bodies open at once.
//!
//! Every session gets a connection of its own, so that a renewal reaches whichever host-api serves by then. The trap:
//! `.timeout()` of the client would end the stream; only connecting and the wait for the headers are bounded.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use k3k_expose_proto::limits;
use reqwest::{Certificate, Client, Response, StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::mpsc;

use crate::agent::Agent;
use crate::config::Config;
use crate::problem::{BODY_BYTES, Problem};
use crate::reconnect::Failure;
use k3k_expose_process::quote::causes;

/// Chunks that wait between the session and the connection. More would only be memory: the state waits in the outbox.
const CHUNKS: usize = 2;
const CONNECT: Duration = Duration::from_secs(10);
/// Bytes that host-api may send ahead of being read.
const WINDOW: u32 = 256 * 1024;

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("{what} could not be read: {source}")]
    File { what: &'static str, source: std::io::Error },
    #[error("the certificate authorities or the token could not be used")]
    Unusable,
    #[error("host-api could not be reached: {0}")]
    Unreachable(String),
    #[error(transparent)]
    Problem(#[from] Problem),
}

impl ConnectError {
    pub(crate) const fn failure(&self) -> Failure {
        match self {
            Self::Problem(problem) => problem.failure,
            Self::File { .. } | Self::Unusable | Self::Unreachable(_) => Failure::Lost,
        }
    }
}

/// Reads the token for host-api.
pub(crate) fn token(path: &Path) -> Result<SecretString, ConnectError> {
    let token =
        std::fs::read_to_string(path).map_err(|source| ConnectError::File { what: "the token file", source })?;
    Ok(token.trim().into())
}

/// The inbound half, and where outbound chunks go. Dropping the sender ends the request.
pub(crate) struct Link<S> {
    pub(crate) inbound: S,
    pub(crate) outbound: mpsc::Sender<Bytes>,
}

/// Opens a stream whose first line is `hello`.
pub(crate) async fn connect(
    agent: &Agent,
    config: &Config,
    token: &SecretString,
    hello: Vec<u8>,
) -> Result<Link<impl Stream<Item = Result<Bytes, String>> + Unpin + use<>>, ConnectError> {
    let mut bearer = header::HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))
        .map_err(|_| ConnectError::Unusable)?;
    bearer.set_sensitive(true);
    let (outbound, chunks) = mpsc::channel(CHUNKS);
    let sent = agent.metrics.sent();
    let body = stream::once(async { Bytes::from(hello) })
        .chain(stream::unfold(chunks, |mut chunks: mpsc::Receiver<Bytes>| async {
            Some((chunks.recv().await?, chunks))
        }))
        .map(move |chunk| {
            sent.inc_by(u64::try_from(chunk.len()).unwrap_or_default());
            Ok::<_, std::convert::Infallible>(chunk)
        });
    let request = client(&config.host_api_ca_file)?
        .post(config.session_url.clone())
        .header(header::AUTHORIZATION, bearer)
        .header(header::CONTENT_TYPE, "application/x-ndjson")
        .body(reqwest::Body::wrap_stream(body))
        .send();
    let response = tokio::time::timeout(limits::DRAIN, request)
        .await
        .map_err(|_| ConnectError::Unreachable("no answer in time".to_owned()))?
        .map_err(|error| ConnectError::Unreachable(causes(&error)))?;
    if response.status() != StatusCode::OK {
        return Err(ConnectError::Problem(refusal(response).await));
    }
    Ok(Link { inbound: response.bytes_stream().map_err(|error| causes(&error)).boxed(), outbound })
}

/// Trusts the given file only, and speaks HTTP/2 only.
fn client(ca_file: &Path) -> Result<Client, ConnectError> {
    let bundle = std::fs::read(ca_file)
        .map_err(|source| ConnectError::File { what: "the file of certificate authorities", source })?;
    let authorities = Certificate::from_pem_bundle(&bundle).map_err(|_| ConnectError::Unusable)?;
    Client::builder()
        .tls_certs_only(authorities)
        .https_only(true)
        .http2_prior_knowledge()
        .http2_initial_stream_window_size(WINDOW)
        .http2_initial_connection_window_size(WINDOW)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT)
        .user_agent(concat!("k3k-expose-agent/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|_| ConnectError::Unusable)
}

async fn refusal(response: Response) -> Problem {
    let status = response.status().as_u16();
    let retry_after =
        response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    let read = async {
        while let Some(Ok(chunk)) = chunks.next().await {
            let room = BODY_BYTES - body.len();
            body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
            if body.len() == BODY_BYTES {
                return;
            }
        }
    };
    // A body that does not come is no reason to wait for its words.
    let _ = tokio::time::timeout(CONNECT, read).await;
    Problem::read(status, retry_after.as_deref(), &body)
}
