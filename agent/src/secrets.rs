//! The Secrets that Ingresses name, into the outbox. I/O around what is held of each.
//!
//! Of all Secrets only the metadata is watched; the content is read of those that an Ingress names, when they are named and when
//! they change, and is let go of when none names them any more. So no other key is ever in this process.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{StreamExt, stream};
use k3k_expose_process::quote::causes;
use k3k_expose_proto::message::Object;
use k3k_expose_proto::{Key, Resource, Uid};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Config, Event, watcher};
use tokio::time::{Instant, sleep_until, timeout};

use crate::account::Account;
use crate::agent::Agent;
use crate::packed::Change;
use crate::project::{Projected, secret};
use crate::reconnect::Backoff;

/// A single read that takes longer is given up.
const READ: Duration = Duration::from_secs(10);
/// Reads at the same time.
const READS: usize = 8;

/// Follows named Secrets in one virtual cluster.
pub(crate) struct Secrets<'a> {
    agent: &'a Agent,
    account: &'a Account,
    client: Client,
    held: BTreeMap<Key, Held>,
    /// To be read.
    due: BTreeSet<Key>,
    /// Seen in the list that is being taken in.
    listed: BTreeSet<Key>,
    /// A list has been taken in.
    is_listed: bool,
    /// The outbox has been told that it has everything.
    is_complete: bool,
}

/// What is known of a Secret that an Ingress names.
#[derive(Debug, Default)]
struct Held {
    /// Which one is in the outbox, if it is there.
    uid: Option<Uid>,
    /// Its resourceVersion.
    version: Option<String>,
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("the virtual cluster's API server refused or did not answer")]
    Api(#[from] kube::Error),
    #[error("the virtual cluster's API server did not answer in time")]
    Late,
    #[error("the watch on metadata of Secrets failed")]
    Watch(#[from] watcher::Error),
}

impl<'a> Secrets<'a> {
    pub(crate) const fn new(agent: &'a Agent, account: &'a Account, client: Client) -> Self {
        Self {
            agent,
            account,
            client,
            held: BTreeMap::new(),
            due: BTreeSet::new(),
            listed: BTreeSet::new(),
            is_listed: false,
            is_complete: false,
        }
    }

    /// Follows them for as long as it is polled.
    pub(crate) async fn run(&mut self) {
        self.account.minted().await;
        let mut events =
            std::pin::pin!(watcher(Api::<PartialObjectMeta<Secret>>::all(self.client.clone()), Config::default()));
        let mut changes = self.agent.changes();
        let mut backoff = Backoff::of_connections();
        loop {
            changes.mark_unchanged();
            self.take_in_names();
            let mut failed = self.read_due().await;
            if failed.is_ok() {
                self.complete();
                failed = tokio::select! {
                    event = events.next() => match event {
                        Some(Ok(event)) => {
                            self.take_in(event);
                            Ok(())
                        }
                        Some(Err(error)) => Err(error.into()),
                        None => return,
                    },
                    _ = changes.changed() => Ok(()),
                };
            }
            match failed {
                Ok(()) if self.is_listed && self.due.is_empty() => {
                    backoff.reset();
                    self.agent.set_watch(Resource::Secrets, Ok(()));
                }
                Ok(()) => {}
                Err(error) => self.wait_after(&error, backoff.delay(fastrand::f64())).await,
            }
        }
    }

    async fn wait_after(&self, error: &ReadError, delay: Duration) {
        let status = match error {
            ReadError::Api(kube::Error::Api(status)) => Some(status.code),
            ReadError::Watch(
                watcher::Error::InitialListFailed(kube::Error::Api(status))
                | watcher::Error::WatchStartFailed(kube::Error::Api(status)),
            ) => Some(status.code),
            _ => None,
        };
        if matches!(status, Some(401 | 403)) {
            self.account.mend();
        }
        let error = causes(error);
        tracing::warn!(error, ?delay, "secrets not read");
        self.agent.set_watch(Resource::Secrets, Err(error));
        sleep_until(Instant::now() + delay).await;
    }

    /// Takes in which Secrets Ingresses name now.
    fn take_in_names(&mut self) {
        let (named, is_listed) =
            self.agent.read(|outbox| (outbox.named_secrets(), outbox.has_listed(Resource::Secrets)));
        if std::mem::replace(&mut self.is_complete, is_listed) && !is_listed {
            // The outbox has begun anew, with another virtual cluster or another projection.
            self.held.clear();
            self.due.clear();
        }
        let unnamed: Vec<Key> = self.held.keys().filter(|key| !named.contains(*key)).cloned().collect();
        for key in unnamed {
            self.due.remove(&key);
            if let Some(uid) = self.held.remove(&key).and_then(|held| held.uid) {
                self.agent.seen(Change::Gone(key, uid));
            }
        }
        for key in named {
            if !self.held.contains_key(&key) {
                self.held.insert(key.clone(), Held::default());
                self.due.insert(key);
            }
        }
    }

    /// Takes in an event of the watch on all Secrets.
    fn take_in(&mut self, event: Event<PartialObjectMeta<Secret>>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(secret) => {
                if let Some(key) = self.changed(&secret.metadata) {
                    self.listed.insert(key);
                }
            }
            Event::InitDone => {
                let stands = |(key, held): &(&Key, &Held)| held.uid.is_some() && !self.listed.contains(*key);
                self.due.extend(self.held.iter().filter(stands).map(|(key, _)| key.clone()));
                self.listed.clear();
                self.is_listed = true;
            }
            Event::Apply(secret) => drop(self.changed(&secret.metadata)),
            Event::Delete(secret) => {
                self.due.extend(key(&secret.metadata).filter(|key| self.held.contains_key(key)));
            }
        }
    }

    /// Notes that a Secret is to be read if it is named and not the one that is known. Gives its key if it is named.
    fn changed(&mut self, meta: &ObjectMeta) -> Option<Key> {
        let key = key(meta)?;
        let held = self.held.get(&key)?;
        if held.version != meta.resource_version {
            self.due.insert(key.clone());
        }
        Some(key)
    }

    async fn read_due(&mut self) -> Result<(), ReadError> {
        let client = &self.client;
        let read = |key: Key| async move {
            let secrets: Api<Secret> = Api::namespaced(client.clone(), key.namespace());
            let read = timeout(READ, secrets.get_opt(key.name())).await;
            (key, read)
        };
        let mut reads = stream::iter(self.due.clone()).map(read).buffer_unordered(READS);
        while let Some((key, read)) = reads.next().await {
            let found = read.map_err(|_| ReadError::Late)??;
            self.due.remove(&key);
            let Some(held) = self.held.get_mut(&key) else { continue };
            let found = found.filter(|secret| secret.metadata.deletion_timestamp.is_none());
            let found = found.and_then(|secret| Some((Uid::parse(secret.metadata.uid.as_deref()?).ok()?, secret)));
            let change = match found {
                Some((uid, secret)) => {
                    *held = Held { uid: Some(uid.clone()), version: secret.metadata.resource_version.clone() };
                    let object = Object::Secret(Box::new(secret::project(&secret)));
                    Change::of(Projected::Wanted { key, uid, object })
                }
                None => std::mem::take(held).uid.map(|uid| Change::Gone(key, uid)),
            };
            if let Some(change) = change {
                self.agent.seen(change);
            }
        }
        Ok(())
    }

    /// Lets a session be opened once everything that Ingresses name has been read.
    fn complete(&mut self) {
        let waits = |outbox: &crate::outbox::Outbox| {
            outbox.has_listed(Resource::Ingresses) && !outbox.has_listed(Resource::Secrets)
        };
        let is_due = self.agent.read(waits);
        // Ingresses may have come since the names were taken in.
        if is_due && self.agent.read(|outbox| outbox.named_secrets().iter().all(|key| self.held.contains_key(key))) {
            self.agent.change(|outbox| outbox.complete(Resource::Secrets));
            self.is_complete = true;
        }
    }
}

fn key(meta: &ObjectMeta) -> Option<Key> {
    Key::of(Resource::Secrets, meta.namespace.as_deref()?, meta.name.as_deref()?).ok()
}
