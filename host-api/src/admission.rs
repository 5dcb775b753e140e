//! The admission server: answers the API server's questions about pods. I/O.
//!
//! It never refuses anything: whatever goes wrong here, the pod is let through as it is, and the reason is told. The trap:
//! the API server waits for the answer, so what is needed is at hand from watches, and looked up only when it is not.

mod review;
pub mod stores;
pub mod turns;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use k3k_expose_process::quote::{causes, quote};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use crate::cluster::Cluster;
use crate::connections::Connection;
use crate::hub::Hub;
use crate::inject::{CREATORS, Left, Settings, Surroundings, inject};
use crate::label;
use crate::metrics::Metrics;
use crate::notice::{Notice, NoticeKind};
use crate::tenant;
use review::{Question, answer};
use stores::Stores;
use turns::Turns;

/// Longest review that is read: two pods, the new one and the old one, of the 1.5 MiB that etcd takes.
const LONGEST: usize = 4 << 20;
/// Longest time for one review: after 3 s the API server does not wait anymore.
const DEADLINE: Duration = Duration::from_secs(3);
/// Longest time for a body once it is its turn: the API server sends all of it at once, and whoever does not must not keep it waiting.
const BODY: Duration = Duration::from_millis(250);
/// Longest wait for what is not at hand: the API server gives us 3 s.
const LOOK_UP: Duration = Duration::from_millis(800);
/// How often what a watch may bring is looked for before it is looked up: a controller that makes a StatefulSet's pods has learned of
/// it by such a watch itself.
const LOOKS: u32 = 25;
/// Time between two looks.
const BETWEEN: Duration = Duration::from_millis(20);

/// What the admission server needs.
#[derive(Clone)]
pub struct Admission {
    /// For notices.
    pub hub: Arc<Hub>,
    /// For what is not at hand.
    pub client: Client,
    /// What is at hand.
    pub stores: Stores,
    /// What a sidecar looks like; without it nothing is injected.
    pub settings: Option<Settings>,
    /// Counts what becomes of pods.
    pub metrics: Arc<Metrics>,
    /// Keeps callers from making work without end.
    pub turns: Arc<Turns>,
}

/// The admission server's paths.
pub fn router(admission: Admission) -> Router {
    Router::new()
        .route("/v1/inject", post(injection))
        .route("/v1/label", post(labels))
        // `in_turn` has read it already, as far as it may go.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(Arc::clone(&admission.turns), in_turn))
        .with_state(admission)
}

/// Reads a request when it is its caller's turn, and ends it when its body does not come, so that slow callers do not pile up.
async fn in_turn(State(turns): State<Arc<Turns>>, request: Request, next: Next) -> Response {
    let connection = request.extensions().get::<Connection>().cloned();
    let _busy = connection.as_ref().map(Connection::busy);
    let peer = connection.and_then(|connection| connection.from).map(|peer| peer.to_canonical());
    let served = async {
        let _turn = turns.review(peer.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED))).await;
        let (parts, body) = request.into_parts();
        match timeout(BODY, to_bytes(body, LONGEST)).await {
            Ok(Ok(body)) => next.run(Request::from_parts(parts, Body::from(body))).await,
            Ok(Err(_)) => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
            Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
        }
    };
    match timeout(DEADLINE, served).await {
        Ok(response) => response,
        Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}

async fn injection(State(admission): State<Admission>, body: Bytes) -> Response {
    let question = match Question::parse(&body) {
        Ok(question) => question,
        Err(error) => {
            debug!(error = quote(&error.to_string()), "a review could not be read");
            return (StatusCode::BAD_REQUEST, "not an AdmissionReview of a pod").into_response();
        }
    };
    let (cluster, result) = admission.judge(&question).await;
    let (namespace, pod) =
        (quote(&question.namespace), quote(question.pod.metadata.name.as_deref().unwrap_or_default()));
    let (word, patch) = match result {
        Ok(patch) => {
            if !question.dry_run {
                info!(namespace, pod, "agent was injected");
            }
            ("Injected", Some(patch))
        }
        Err(left) => {
            debug!(namespace, pod, reason = left.word(), why = left.to_string(), "pod was left as it is");
            let notice = cluster.as_ref().and_then(|cluster| notice(cluster, &left));
            if let Some(notice) = notice.filter(|_| !question.dry_run) {
                admission.hub.report(notice);
            }
            (left.word(), None)
        }
    };
    if !question.dry_run {
        admission.metrics.reviewed(word);
    }
    ([(CONTENT_TYPE, "application/json")], answer(&question.uid, word, patch).to_string()).into_response()
}

/// Forces the labels of a tenant's pod, on hosts that have no MutatingAdmissionPolicy.
async fn labels(State(admission): State<Admission>, body: Bytes) -> Response {
    let Ok(question) = Question::parse(&body) else {
        return (StatusCode::BAD_REQUEST, "not an AdmissionReview of a pod").into_response();
    };
    let patch = label::patch(&question.pod.metadata);
    let word = if patch.is_some() { "Labeled" } else { "LabelsRight" };
    admission.metrics.reviewed(word);
    ([(CONTENT_TYPE, "application/json")], answer(&question.uid, word, patch).to_string()).into_response()
}

/// The pod that a review is about, and who creates it.
pub(crate) fn pod_of_review(body: &[u8]) -> Option<(Pod, String)> {
    Question::parse(body).ok().map(|question| (question.pod, question.creator))
}

impl Admission {
    async fn judge(&self, question: &Question) -> (Option<Cluster>, Result<serde_json::Value, Left>) {
        let Some(settings) = &self.settings else {
            return (None, Err(Left::NotConfigured));
        };
        // Nothing is looked up for whom the webhook configuration does not ask about.
        if !CREATORS.contains(&question.creator.as_str()) {
            return (None, Err(Left::Creator));
        }
        let namespace = question.namespace.as_str();
        let pod = &question.pod;
        let set = match tenant::stateful_set_of(pod) {
            Ok(owner) => self.set(pod, namespace, &owner.name, &owner.uid).await,
            Err(refusal) => return (None, Err(refusal.into())),
        };
        let cluster = match tenant::cluster_of(pod, set.as_ref()) {
            Ok(owner) => self.cluster(namespace, &owner.name, &owner.uid).await,
            Err(refusal) => return (None, Err(refusal.into())),
        };
        let known_namespace = self.stores.namespace(namespace);
        let (ranges, quotas) = (self.stores.ranges(namespace), self.stores.quotas(namespace));
        let around = Surroundings {
            set: set.as_ref(),
            cluster: cluster.as_ref(),
            namespace: known_namespace.as_ref(),
            ranges: &ranges,
            quotas: &quotas,
        };
        let result = inject(pod, &question.creator, around, settings).map(|addition| addition.patch(pod));
        (cluster, result)
    }

    async fn set(&self, pod: &Pod, namespace: &str, name: &str, uid: &str) -> Option<StatefulSet> {
        let is_it = |set: &StatefulSet| set.metadata.uid.as_deref() == Some(uid) && !tenant::is_beyond(pod, set);
        let known = || self.stores.set(namespace, name).filter(is_it);
        match at_hand(known).await {
            None => self.look_up(Api::namespaced(self.client.clone(), namespace), name).await,
            known => known,
        }
    }

    async fn cluster(&self, namespace: &str, name: &str, uid: &str) -> Option<Cluster> {
        let known = || self.stores.cluster(namespace, name).filter(|it| it.metadata.uid.as_deref() == Some(uid));
        match at_hand(known).await {
            None => self.look_up(Api::namespaced(self.client.clone(), namespace), name).await,
            known => known,
        }
    }

    async fn look_up<K>(&self, objects: Api<K>, name: &str) -> Option<K>
    where
        K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
    {
        let look = async {
            let _turn = self.turns.look_up().await?;
            objects.get_opt(name).await.unwrap_or_else(|error| {
                debug!(name = quote(name), error = causes(&error), "a lookup failed");
                None
            })
        };
        timeout(LOOK_UP, look).await.ok().flatten()
    }
}

/// What is known already, or comes within moments.
async fn at_hand<T>(look: impl Fn() -> Option<T>) -> Option<T> {
    for _ in 0..LOOKS {
        if let Some(found) = look() {
            return Some(found);
        }
        sleep(BETWEEN).await;
    }
    look()
}

/// What the platform team should know of a server pod that got no agent.
fn notice(cluster: &Cluster, left: &Left) -> Option<Notice> {
    match left {
        Left::NoRoom(why) => Notice::about(cluster, NoticeKind::NotInjected { why: why.to_string() }),
        _ => None,
    }
}
