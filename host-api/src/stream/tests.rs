//! Sessions over in-memory bodies, in paused time: no second of it is waited for.

use std::collections::BTreeMap;
use std::io;

use futures::channel::mpsc as body;

use k3k_expose_proto::message::{AgentBeat, Hello, Object, Put, Unusable, Welcome};
use k3k_expose_proto::service::ServiceType;
use k3k_expose_proto::{Hash, Key, Service, Tally, Uid, version};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::cluster::{ClusterState, SyncIngresses};
use crate::numbers::Conflict;
use crate::registry::NotOpened;
use crate::tenant::{ServerPod, Tenant};

type Said = body::UnboundedSender<Result<Bytes, io::Error>>;
type Told = mpsc::Receiver<Result<Bytes, Infallible>>;

/// An open session of a tenant, its agent's ends, and the task that runs it.
struct Open {
    hub: Arc<Hub>,
    id: SessionId,
    said: Said,
    told: Told,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Option<Bye>>,
}

fn open(lifetime: Duration) -> Open {
    let (hub, _) = Hub::new(uid("epoch"), Conflict::default());
    let hub = Arc::new(hub);
    let (id, _) = welcome(&hub).unwrap();
    let (said, spoken) = body::unbounded();
    let (out, told) = mpsc::channel(CHUNKS);
    let stop = CancellationToken::new();
    let session = run(Arc::clone(&hub), id, Inbound::new(spoken), out, lifetime, stop.clone().cancelled_owned());
    #[expect(clippy::disallowed_methods, reason = "joined by the test")]
    let task = tokio::spawn(session);
    Open { hub, id, said, told, stop, task }
}

/// Opens a session of the one pod, as whoever shows its token does.
fn welcome(hub: &Hub) -> Result<(SessionId, Welcome), NotOpened> {
    let tally = Tally::default();
    let hello = Hello {
        versions: version::SUPPORTED.to_vec(),
        agent: "test".to_owned(),
        projection: version::PROJECTION,
        virtual_cluster: uid("vc"),
        count: tally.count,
        root: tally.root,
        ingresses: false,
        secrets: false,
        seen: None,
    };
    // While k3k's own sync is on every put is answered without a write.
    let state = ClusterState {
        revision: 0,
        k3k_syncs: true,
        mass_delete: None,
        selector: BTreeMap::new(),
        ingresses: SyncIngresses::default(),
        namespace: String::new(),
        name: String::new(),
        labels: BTreeMap::new(),
    };
    let (tenant, pod) = (Tenant::for_test("t", "ns", "mine"), ServerPod { uid: uid("pod"), ordinal: 0 });
    hub.with(|registry, now| registry.open(&tenant, state, pod, &hello, now))
}

impl Open {
    fn say(&self, line: &[u8]) {
        self.said.unbounded_send(Ok(Bytes::copy_from_slice(line))).unwrap();
    }

    fn put(&self, index: usize) {
        let mut service = Service::new(ServiceType::ClusterIP);
        service.traffic_distribution = Some("x".repeat(2_000));
        let put = Put {
            key: Key::service("default", &format!("web-{index}")).unwrap(),
            uid: uid("u"),
            hash: Hash::of(&service),
            seen: 0,
            unusable: Unusable::default(),
            object: Object::Service(Box::new(service)),
        };
        self.say(&line::encode(&FromAgent::Put(put)).unwrap());
    }

    /// Answers every object that was said, as the writer does.
    fn answer(&self) -> usize {
        let mut answered = 0;
        self.hub.with(|registry, now| {
            while let Some((tenant, key)) = registry.take(9, now) {
                registry.decide(&tenant, &key, crate::plan::Road::default(), now);
                registry.done(&tenant, &key, now);
                answered += 1;
            }
        });
        answered
    }

    /// Everything that is told until the end.
    async fn last(&mut self) -> Option<FromHost> {
        let (mut lines, mut last) = (Lines::default(), None);
        while let Some(Ok(chunk)) = self.told.recv().await {
            let mut rest: &[u8] = &chunk;
            while let Some(line) = lines.next(&mut rest).unwrap() {
                last = Some(line::decode::<FromHost>(line).unwrap());
            }
        }
        last
    }

    async fn bye(&mut self) -> (ByeReason, String) {
        match self.last().await {
            Some(FromHost::Bye(bye)) => (bye.reason, bye.message),
            other => panic!("no bye: {other:?}"),
        }
    }
}

fn beat() -> Vec<u8> {
    let tally = Tally::default();
    let beat = AgentBeat { count: tally.count, root: tally.root, ready: true };
    line::encode(&FromAgent::Beat(beat)).unwrap()
}

fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}

#[tokio::test(start_paused = true)]
async fn lines_are_taken_in_while_the_agent_takes_none() {
    let open = open(Duration::from_secs(3_600));
    for index in 0..900 {
        open.put(index);
    }
    let (mut answered, mut turns) = (0, 0);
    while answered < 900 {
        tokio::task::yield_now().await;
        answered += open.answer();
        turns += 1;
        assert!(turns < 900, "only {answered} lines were taken in");
    }
    assert!(turns > 1, "others have no turn while so much is taken in");
    let begun = Instant::now();
    open.task.await.unwrap();
    let lasted = begun.elapsed();
    assert!(lasted >= DRAIN && lasted <= DRAIN * 2 + Duration::from_secs(2), "{lasted:?}");
    assert_eq!(open.hub.with(|registry, _| registry.census().sessions), 0);
}

#[tokio::test(start_paused = true)]
async fn with_both_sides_stalled_the_session_ends() {
    let open = open(Duration::from_secs(3_600));
    let begun = Instant::now();
    open.task.await.unwrap();
    assert!(begun.elapsed() <= SILENCE + DRAIN + Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_silent_agent_is_let_go_and_a_beating_one_stays() {
    let mut silent = open(Duration::from_secs(3_600));
    assert_eq!(silent.bye().await.0, ByeReason::Slow);

    let mut beating = open(Duration::from_secs(300));
    let said = beating.said.clone();
    let line = Bytes::from(beat());
    let beats = async {
        loop {
            said.unbounded_send(Ok(line.clone())).unwrap();
            tokio::time::sleep(BEAT).await;
        }
    };
    tokio::select! {
        () = beats => unreachable!(),
        (reason, _) = beating.bye() => assert_eq!(reason, ByeReason::Expired),
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_when_its_time_is_over() {
    let mut open = open(Duration::from_secs(40));
    open.say(&beat());
    let begun = Instant::now();
    assert_eq!(open.bye().await.0, ByeReason::Expired);
    assert_eq!(begun.elapsed().as_secs(), 40);
}

#[tokio::test(start_paused = true)]
async fn stopping_says_goodbye() {
    let mut open = open(Duration::from_secs(3_600));
    open.stop.cancel();
    assert_eq!(open.bye().await.0, ByeReason::Draining);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_message_ends_the_session_with_its_reason() {
    let deep = [b"{\"beat\":".to_vec(), vec![b'['; 10_000], b"\n".to_vec()].concat();
    let twice = br#"{"delete":{"key":"services/a/b","key":"services/a/c","uid":"u"}}"#;
    let table: [(&[u8], ByeReason); 7] = [
        (b"{\"beat\":\n", ByeReason::Malformed),
        (&deep, ByeReason::Malformed),
        (b"{\"beat\":\"\xff\"}\n", ByeReason::Malformed),
        (&[twice, &b"\n"[..]].concat(), ByeReason::Malformed),
        (&vec![b'x'; 70_000], ByeReason::Malformed),
        (b"{\"sing\":{}}\n", ByeReason::Unsupported),
        (b"{\"end\":{\"count\":1,\"root\":\"00000000000000000000000000000000\"}}\n", ByeReason::Malformed),
    ];
    for (line, expected) in table {
        let mut open = open(Duration::from_secs(3_600));
        open.say(line);
        let (reason, message) = open.bye().await;
        assert_eq!(reason, expected, "{message}");
        assert!(!message.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_newer_session_ends_the_older() {
    let mut older = open(Duration::from_secs(3_600));
    let again = || welcome(&older.hub);
    assert!(again().is_ok() && again().is_ok() && again().is_ok());
    assert!(again().is_err(), "a fourth take-over within a minute");
    assert_eq!(older.bye().await.0, ByeReason::Superseded);
    assert_ne!(older.id, 0);
}
