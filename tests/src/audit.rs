//! The audit log of an API server: who asked for what, and how often something was written.
//!
//! The trap: the entry of a request is written after its answer has left. Reading settles first: it sends a request of its
//! own and waits until that one is in the log.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;

use crate::access::Access;
use crate::eventually::eventually;
use crate::product::HOST_API_USER;

/// Verbs that change something.
const WRITING: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];

/// The log of one API server, over its restarts.
#[derive(Clone, Debug)]
pub struct AuditLog {
    path: PathBuf,
    access: Access,
}

/// A position in the log.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

/// One answered request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// User name, for example `system:serviceaccount:k3k-expose:k3k-expose-host-api`.
    pub user: String,
    /// `get`, `list`, `watch`, `create`, …
    pub verb: String,
    /// Resource, with the subresource after a slash: `services`, `services/status`; empty for plain URLs.
    pub resource: String,
    /// Namespace, if any.
    pub namespace: String,
    /// Object name; empty where the server drew it, and for lists.
    pub name: String,
    /// HTTP status.
    pub code: u16,
    /// The client's own name for itself.
    pub user_agent: String,
    /// Path and query.
    pub uri: String,
}

/// The writes of one user between two moments.
#[derive(Clone, Debug, Default)]
pub struct Writes {
    /// What counts: everything but the two lists' exceptions.
    pub counted: Vec<Entry>,
    /// Events, which are told apart because they are messages to people.
    pub events: Vec<Entry>,
    /// host-api's authorities and the labels of pods that it put right.
    pub upkeep: Vec<Entry>,
}

impl AuditLog {
    pub(crate) fn new(path: PathBuf, access: Access) -> Self {
        Self { path, access }
    }

    /// The end of the log, after everything that was answered before this call.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn mark(&self) -> anyhow::Result<Mark> {
        self.settle().await?;
        Ok(Mark(self.path.metadata()?.len()))
    }

    /// All requests answered since the mark, in the order of the log.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn since(&self, mark: Mark) -> anyhow::Result<Vec<Entry>> {
        self.settle().await?;
        self.read(mark)
    }

    /// The writes since the mark by users that `is_counted` accepts.
    ///
    /// host-api's upkeep is counted apart, since it comes in its own time: the authorities of each namespace, labels of pods.
    /// Neither TokenReviews, TokenRequests and Leases, which are no state of anybody's, nor refused requests are left out
    /// silently: the former three never count, the latter do, because a refused write has cost the server as much.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn writes_since(&self, mark: Mark, is_counted: impl Fn(&str) -> bool) -> anyhow::Result<Writes> {
        let mut writes = Writes::default();
        for entry in self.since(mark).await? {
            if !entry.is_write() || !is_counted(&entry.user) {
                continue;
            }
            match entry.resource.as_str() {
                "tokenreviews" | "serviceaccounts/token" | "leases" => {}
                "events" => writes.events.push(entry),
                "configmaps" | "pods" if entry.user == HOST_API_USER => writes.upkeep.push(entry),
                _ => writes.counted.push(entry),
            }
        }
        Ok(writes)
    }

    /// Waits until everything answered so far is in the log.
    async fn settle(&self) -> anyhow::Result<()> {
        let start = Mark(self.path.metadata().map_or(0, |metadata| metadata.len()));
        let token = format!("{:016x}", fastrand::u64(..));
        let request = http::Request::get(format!("/version?settle={token}")).body(Vec::new())?;
        self.access.client().await?.request_text(request).await.context("asking for the version")?;
        eventually("our request in the audit log", Duration::from_secs(20), async || {
            self.read(start).is_ok_and(|entries| entries.iter().any(|entry| entry.uri.contains(&token)))
        })
        .await
    }

    fn read(&self, mark: Mark) -> anyhow::Result<Vec<Entry>> {
        let mut file = File::open(&self.path).with_context(|| format!("opening {}", self.path.display()))?;
        file.seek(SeekFrom::Start(mark.0))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        // The last line may be half written, also by an API server that was killed while it wrote.
        Ok(text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()).filter_map(Line::entry).collect())
    }
}

impl Entry {
    /// Whether the verb changes something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        WRITING.contains(&self.verb.as_str())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    stage: String,
    verb: String,
    user: User,
    #[serde(default)]
    user_agent: String,
    #[serde(rename = "requestURI")]
    uri: String,
    object_ref: Option<ObjectRef>,
    response_status: Option<ResponseStatus>,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct ResponseStatus {
    #[serde(default)]
    code: u16,
}

impl Line {
    fn entry(self) -> Option<Entry> {
        // A watch has a second entry when it starts; only the end of a request counts.
        if self.stage != "ResponseComplete" {
            return None;
        }
        let object = self.object_ref.unwrap_or_default();
        let resource = match object.subresource.as_str() {
            "" => object.resource,
            subresource => format!("{}/{subresource}", object.resource),
        };
        Some(Entry {
            user: self.user.username,
            verb: self.verb,
            resource,
            namespace: object.namespace,
            name: object.name,
            code: self.response_status.map_or(0, |status| status.code),
            user_agent: self.user_agent,
            uri: self.uri,
        })
    }
}
