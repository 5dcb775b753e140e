//! The agent's side of the wire, spoken by hand: a test says exactly what it wants to say, also what no agent would.
//!
//! Nothing is said that the test did not ask for, no beat either, so a session lives for [`limits::SILENCE`] after its last
//! line. Every wait has a deadline. The trap: host-api reads the `hello` before it answers at all, so it travels with the
//! request.
//!
//! [`limits::SILENCE`]: k3k_expose_proto::limits::SILENCE

mod build;
mod problem;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use k3k_expose_proto::message::{Answer, Bye, Hello, Put, Welcome};
use k3k_expose_proto::{FromAgent, FromHost, Key, Outcome, line};
use tokio::sync::mpsc;
use tokio::time::timeout;

pub use build::{cluster_ip_service, delete, end, hello, put, put_ingress, service_port, tally};
pub use problem::Problem;

use crate::product::HostApi;
use crate::tls;

/// For one line of host-api's, and for host-api to take one of ours.
const DEADLINE: Duration = Duration::from_secs(20);

/// An open session. Dropping it cuts the connection.
pub struct WireSession {
    outbound: Option<mpsc::Sender<Bytes>>,
    inbound: BoxStream<'static, reqwest::Result<Bytes>>,
    lines: line::Lines,
    chunk: Bytes,
    unread: BTreeMap<Key, Answer>,
}

impl WireSession {
    /// Opens a session with this token; an empty one sends no `Authorization` at all.
    ///
    /// # Errors
    /// The refusal; its status is 0 when no HTTP answer came, or no `welcome` in it.
    pub async fn open(host_api: &HostApi, token: &str, hello: Hello) -> Result<(Self, Welcome), Problem> {
        let hello = line::encode(&FromAgent::Hello(hello)).map_err(Problem::silent)?;
        let mut session = Self::open_raw(host_api, token, hello.into()).await?;
        match session.next().await {
            Ok(Some(FromHost::Welcome(welcome))) => Ok((session, welcome)),
            Ok(other) => Err(Problem::silent(format!("no welcome but {other:?}"))),
            Err(error) => Err(Problem::silent(format!("{error:#}"))),
        }
    }

    /// Opens a stream whose first bytes are these, and reads nothing of the answer's body.
    ///
    /// # Errors
    /// As [`WireSession::open`].
    pub async fn open_raw(host_api: &HostApi, token: &str, first: Bytes) -> Result<Self, Problem> {
        // One chunk on its way, so that a sender notices soon when host-api stops reading.
        let (outbound, chunks) = mpsc::channel::<Bytes>(1);
        let rest = stream::unfold(chunks, |mut chunks| async { Some((chunks.recv().await?, chunks)) });
        let body = stream::once(async { first }).chain(rest).map(Ok::<_, Infallible>);
        let mut request = client(host_api)
            .map_err(Problem::silent)?
            .post(format!("{}/v1/session", host_api.url()))
            .header(http::header::CONTENT_TYPE, "application/x-ndjson")
            .body(reqwest::Body::wrap_stream(body));
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        let answer = timeout(DEADLINE, request.send())
            .await
            .map_err(Problem::silent)?
            .map_err(|error| Problem::silent(format!("{:#}", anyhow!(error))))?;
        if answer.status() != http::StatusCode::OK {
            return Err(Problem::read(answer).await);
        }
        Ok(Self {
            outbound: Some(outbound),
            inbound: answer.bytes_stream().boxed(),
            lines: line::Lines::default(),
            chunk: Bytes::new(),
            unread: BTreeMap::new(),
        })
    }

    /// Says one message.
    ///
    /// # Errors
    /// When it is too large, or host-api does not take it.
    pub async fn send(&self, message: &FromAgent) -> anyhow::Result<()> {
        self.send_raw(line::encode(message)?).await
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the session is over, or host-api does not take them in time.
    pub async fn send_raw(&self, bytes: impl Into<Bytes>) -> anyhow::Result<()> {
        let outbound = self.outbound.as_ref().context("our half is closed")?;
        timeout(DEADLINE, outbound.send(bytes.into()))
            .await
            .context("host-api takes no more")?
            .context("the request is over")
    }

    /// Says a complete snapshot: every object, then `end`.
    ///
    /// # Errors
    /// As [`WireSession::send`].
    pub async fn send_snapshot(&self, puts: &[Put]) -> anyhow::Result<()> {
        for put in puts {
            self.send(&FromAgent::Put(put.clone())).await?;
        }
        self.send(&FromAgent::End(end(puts))).await
    }

    /// Ends our half, as an agent does that stops; host-api's half can still be read.
    pub fn close(&mut self) {
        self.outbound = None;
    }

    /// The next line of host-api's, whatever it is; `None` when it ended its half.
    ///
    /// # Errors
    /// On the deadline, a broken connection, or a line that is no message.
    pub async fn next(&mut self) -> anyhow::Result<Option<FromHost>> {
        timeout(DEADLINE, self.read()).await.with_context(|| format!("no line of host-api within {DEADLINE:?}"))?
    }

    /// The newest answer for a key that was not asked for before; answers for other keys stay for their own call.
    ///
    /// # Errors
    /// When none comes within the deadline, or the session ends.
    pub async fn answer_for(&mut self, key: &Key) -> anyhow::Result<Answer> {
        let read = async {
            loop {
                if let Some(answer) = self.unread.remove(key) {
                    return Ok(answer);
                }
                match self.read().await? {
                    Some(FromHost::Answer(answer)) => {
                        self.unread.insert(answer.key.clone(), *answer);
                    }
                    Some(FromHost::Bye(bye)) => bail!("bye instead of an answer for {key}: {bye:?}"),
                    Some(_) => {}
                    None => bail!("the session ended without an answer for {key}"),
                }
            }
        };
        timeout(DEADLINE, read).await.with_context(|| format!("no answer for {key} within {DEADLINE:?}"))?
    }

    /// The answer to exactly this `put` that is not `pending`.
    ///
    /// # Errors
    /// As [`WireSession::answer_for`].
    pub async fn settled(&mut self, put: &Put) -> anyhow::Result<Answer> {
        loop {
            let answer = self.answer_for(&put.key).await?;
            if answer.hash == put.hash && answer.uid == put.uid && answer.outcome != Outcome::Pending {
                return Ok(answer);
            }
        }
    }

    /// Reads on until host-api says goodbye.
    ///
    /// # Errors
    /// When the session ends without one, or none comes within the deadline.
    pub async fn bye(&mut self) -> anyhow::Result<Bye> {
        let read = async {
            loop {
                match self.read().await? {
                    Some(FromHost::Bye(bye)) => return Ok(bye),
                    Some(_) => {}
                    None => bail!("the session ended without a bye"),
                }
            }
        };
        timeout(DEADLINE, read).await.with_context(|| format!("no bye within {DEADLINE:?}"))?
    }

    async fn read(&mut self) -> anyhow::Result<Option<FromHost>> {
        loop {
            let mut rest: &[u8] = &self.chunk;
            let decoded = self.lines.next(&mut rest)?.map(line::decode);
            let used = self.chunk.len() - rest.len();
            let _ = self.chunk.split_to(used);
            if let Some(message) = decoded {
                return Ok(Some(message?));
            }
            match self.inbound.next().await {
                Some(chunk) => self.chunk = chunk.context("the stream of host-api broke")?,
                None => return Ok(None),
            }
        }
    }
}

/// A client that trusts this host-api only and speaks HTTP/2 at once, as the agent's does.
fn client(host_api: &HostApi) -> anyhow::Result<reqwest::Client> {
    tls::install_provider();
    let authorities = reqwest::Certificate::from_pem_bundle(host_api.ca_pem().as_bytes())?;
    Ok(reqwest::Client::builder().tls_certs_only(authorities).http2_prior_knowledge().no_proxy().build()?)
}
