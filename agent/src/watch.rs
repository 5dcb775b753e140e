//! The watch on all objects of one kind in the virtual cluster: events to changes in the outbox.
//!
//! The trap: an API server that was reset behind our back answers under the same address with other objects. So the UID
//! of its `kube-system` namespace is read around every list, and whenever a watch is opened anew before its events are
//! believed. kube's own watcher reconnects silently after an orderly end, which is why the steps are made here.

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k3k_expose_proto::Uid;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use tokio::time::{Instant, sleep, timeout};

use crate::account::Account;
use crate::agent::Agent;
use crate::reconnect::Backoff;
use crate::watched::Watched;
use k3k_expose_process::quote::causes;

/// The server is asked to end a watch after this long.
const WATCH_SECONDS: u32 = 290;
/// A watch that should have ended by then is dead.
const DEAD: Duration = Duration::from_secs(295);
/// Longest silence within an initial list: servers that do not know streaming lists never end one.
const INITIAL_SILENCE: Duration = Duration::from_secs(10);
/// Objects asked for at once where the server has no streaming lists.
const PAGE: u32 = 100;
/// A single read that takes longer is given up.
const READ: Duration = Duration::from_secs(10);
/// A watch that ran this long was sound.
const SOUND: Duration = Duration::from_secs(10);
const INITIAL_END: &str = "k8s.io/initial-events-end";

type Events<K> = Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<K>>> + Send>>;

/// Watches one kind of object on one API server.
pub(crate) struct Watch<'a, K> {
    agent: &'a Agent,
    account: &'a Account,
    objects: Api<K>,
    namespaces: Api<Namespace>,
    streaming: bool,
    reproject: tokio::sync::watch::Receiver<()>,
}

/// How far the watch has come in which cluster.
struct Position {
    cluster: Uid,
    version: String,
}

#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error("the virtual cluster's API server refused or did not answer")]
    Api(#[from] kube::Error),
    #[error("the virtual cluster's API server did not answer in time")]
    Late,
    #[error("the virtual cluster's kube-system namespace has no usable uid")]
    NoUid,
    #[error("the address leads to another virtual cluster")]
    OtherCluster,
    #[error("the watch is too far behind")]
    Expired,
    #[error("the initial list ended early")]
    Incomplete,
}

impl WatchError {
    /// Whether the position says nothing any more.
    const fn needs_list(&self) -> bool {
        matches!(self, Self::OtherCluster | Self::Expired)
    }

    fn status(&self) -> Option<u16> {
        match self {
            Self::Api(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }
}

impl From<kube::core::Status> for WatchError {
    fn from(status: kube::core::Status) -> Self {
        if status.code == 410 { Self::Expired } else { Self::Api(kube::Error::Api(status.boxed())) }
    }
}

impl<'a, K: Watched> Watch<'a, K> {
    pub(crate) fn new(agent: &'a Agent, account: &'a Account, client: kube::Client) -> Self {
        Self {
            agent,
            account,
            objects: Api::all(client.clone()),
            namespaces: Api::all(client),
            streaming: true,
            reproject: agent.reproject().subscribe(),
        }
    }

    /// Watches for as long as it is polled.
    pub(crate) async fn run(&mut self) {
        self.account.minted().await;
        let mut backoff = Backoff::of_connections();
        let mut told = String::new();
        let mut position = None;
        loop {
            let begun = Instant::now();
            let Err(error) = self.follow(&mut position).await else {
                continue;
            };
            if begun.elapsed() >= SOUND {
                backoff.reset();
                told.clear();
            }
            if error.needs_list() {
                // The server is there, so nothing speaks for patience.
                backoff.reset();
                position = None;
            }
            if matches!(error.status(), Some(401 | 403)) {
                self.account.mend();
            }
            let error = causes(&error);
            self.agent.metrics.count_watch_restart();
            K::fares(self.agent, Err(error.clone()));
            let delay = backoff.delay(fastrand::f64());
            if error == told {
                tracing::debug!(error, ?delay, "watch interrupted");
            } else {
                tracing::warn!(error, ?delay, "watch interrupted");
                told = error;
            }
            sleep(delay).await;
        }
    }

    /// Lists unless there is a position, then watches until the server ends it in order or everything is to be projected
    /// anew.
    async fn follow(&mut self, position: &mut Option<Position>) -> Result<(), WatchError> {
        let events = match position {
            None => {
                let (listed, events) = self.list().await?;
                *position = Some(listed);
                events
            }
            Some(_) => None,
        };
        let Some(at) = position else {
            return Ok(());
        };
        let mut events = match events {
            Some(events) => events,
            None => self.resume(at).await?,
        };
        K::fares(self.agent, Ok(()));
        loop {
            let event = tokio::select! {
                _ = self.reproject.changed() => {
                    if !K::has_listed(self.agent) {
                        *position = None;
                        return Ok(());
                    }
                    continue;
                }
                event = timeout(DEAD, events.next()) => event.map_err(|_| WatchError::Late)?,
            };
            match event {
                Some(event) => at.version = self.take_in(event?, &at.version)?,
                None => return Ok(()),
            }
        }
    }

    /// Applies one event, and gives the position behind it.
    fn take_in(&self, event: WatchEvent<K>, version: &str) -> Result<String, WatchError> {
        let object = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                object.seen(self.agent);
                object
            }
            WatchEvent::Deleted(object) => {
                object.gone(self.agent);
                object
            }
            WatchEvent::Bookmark(bookmark) => return Ok(bookmark.metadata.resource_version),
            WatchEvent::Error(status) => return Err((*status).into()),
        };
        Ok(object.meta().resource_version.clone().unwrap_or_else(|| version.to_owned()))
    }

    /// Opens a watch behind a position, and makes sure that it leads into the same cluster.
    async fn resume(&self, at: &Position) -> Result<Events<K>, WatchError> {
        let events = self.open(&at.version, false).await?;
        if self.cluster().await? != at.cluster {
            return Err(WatchError::OtherCluster);
        }
        Ok(events)
    }

    /// Lists everything into the outbox. The watch behind a streaming list goes on by itself.
    async fn list(&mut self) -> Result<(Position, Option<Events<K>>), WatchError> {
        let cluster = self.cluster().await?;
        let admitted = self.agent.read(|outbox| outbox.admitted().clone());
        let agent = self.agent;
        let mut listed = Vec::new();
        let mut take = |object: &K| listed.extend(object.item(agent, &admitted));
        let (version, events) = match self.stream_list(&mut take).await? {
            Some((version, events)) => (version, Some(events)),
            None => (self.page_list(&mut take).await?, None),
        };
        if self.cluster().await? != cluster {
            return Err(WatchError::OtherCluster);
        }
        K::may_be_taken_in(agent).await;
        if agent.read(|outbox| *outbox.admitted() != admitted) {
            return Err(WatchError::Expired);
        }
        let count = K::listed(self.agent, &cluster, listed);
        tracing::info!(%cluster, resource = K::NAME, count, "objects listed");
        Ok((Position { cluster, version }, events))
    }

    /// `None` where the server has no streaming lists.
    async fn stream_list(&mut self, take: &mut impl FnMut(&K)) -> Result<Option<(String, Events<K>)>, WatchError> {
        if !self.streaming {
            return Ok(None);
        }
        let mut events = match self.open("", true).await {
            Err(error) if matches!(error.status(), Some(400 | 404..=428 | 430..=499)) => {
                tracing::info!(error = causes(&error), "no streaming lists here, listing by pages");
                self.streaming = false;
                return Ok(None);
            }
            opened => opened?,
        };
        loop {
            let Ok(event) = timeout(INITIAL_SILENCE, events.next()).await else {
                tracing::info!("streaming list without an end, listing by pages");
                self.streaming = false;
                return Err(WatchError::Late);
            };
            match event.ok_or(WatchError::Incomplete)?? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => take(&object),
                WatchEvent::Bookmark(bookmark) if bookmark.metadata.annotations.contains_key(INITIAL_END) => {
                    return Ok(Some((bookmark.metadata.resource_version, events)));
                }
                WatchEvent::Bookmark(_) => {}
                WatchEvent::Deleted(_) => return Err(WatchError::Incomplete),
                WatchEvent::Error(status) => return Err((*status).into()),
            }
        }
    }

    async fn page_list(&self, take: &mut impl FnMut(&K)) -> Result<String, WatchError> {
        let mut params =
            ListParams { label_selector: K::SELECTOR.map(str::to_owned), ..ListParams::default().limit(PAGE) };
        loop {
            let page = timeout(READ, self.objects.list(&params)).await.map_err(|_| WatchError::Late)??;
            page.items.iter().for_each(&mut *take);
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return page.metadata.resource_version.ok_or(WatchError::Incomplete);
            }
        }
    }

    async fn open(&self, version: &str, initial: bool) -> Result<Events<K>, WatchError> {
        let params = WatchParams {
            send_initial_events: initial,
            label_selector: K::SELECTOR.map(str::to_owned),
            ..WatchParams::default().timeout(WATCH_SECONDS)
        };
        let events = timeout(READ, self.objects.watch(&params, version)).await.map_err(|_| WatchError::Late)??;
        Ok(events.boxed())
    }

    /// The UID that tells this virtual cluster from any other.
    async fn cluster(&self) -> Result<Uid, WatchError> {
        let namespace = timeout(READ, self.namespaces.get("kube-system")).await.map_err(|_| WatchError::Late)??;
        let uid = namespace.metadata.uid.ok_or(WatchError::NoUid)?;
        Uid::parse(&uid).map_err(|_| WatchError::NoUid)
    }
}
