//! One session over in-memory channels, on paused time.

use std::sync::Arc;

use futures::channel::mpsc as chunks;
use k3k_expose_proto::message::{Answer, HostBeat, Limits, Resume, Role, Welcome};
use k3k_expose_proto::service::ServiceType;
use k3k_expose_proto::{Key, Outcome, Reason, Resource, Service, Uid};
use tokio::task::JoinHandle;
use tokio::time::{advance, sleep};

use super::*;
use crate::packed::Change;
use crate::project::Projected;

const SERVICES: usize = 1000;

struct Rig {
    agent: Arc<Agent>,
    stop: CancellationToken,
    to_agent: chunks::UnboundedSender<Result<Bytes, String>>,
    from_agent: mpsc::Receiver<Bytes>,
    run: JoinHandle<(Over, Duration)>,
}

fn changes() -> Vec<Change> {
    let change = |index| {
        Change::of(Projected::Wanted {
            key: Key::service("default", &format!("web-{index}")).unwrap(),
            uid: Uid::parse("u").unwrap(),
            object: k3k_expose_proto::message::Object::Service(Box::new(Service::new(ServiceType::ClusterIP))),
        })
    };
    (0..SERVICES).filter_map(change).collect()
}

fn line(message: &FromHost) -> Result<Bytes, String> {
    Ok(line::encode(message).unwrap().into())
}

fn welcome() -> FromHost {
    FromHost::Welcome(Welcome {
        version: 1,
        session: Uid::parse("s").unwrap(),
        epoch: Uid::parse("e").unwrap(),
        role: Role::Active,
        limits: Limits { in_flight: 10_000, annotations: Vec::new() },
        resume: Resume::Snapshot,
        ends_in_s: 3600,
        k3k_syncs: false,
        k3k_syncs_ingresses: false,
        ingress_classes: None,
        warnings: Vec::new(),
    })
}

#[expect(clippy::disallowed_methods, reason = "the rig owns the handle and the tests await it")]
fn start() -> Rig {
    let agent = Arc::new(Agent::new(&[Resource::Services]));
    agent.change(|outbox| {
        outbox.replace(k3k_expose_proto::Resource::Services, &Uid::parse("c").unwrap(), changes());
        outbox.hello().unwrap();
    });
    let (to_agent, inbound) = chunks::unbounded();
    let (outbound, from_agent) = mpsc::channel(2);
    let stop = CancellationToken::new();
    let run = tokio::spawn({
        let (agent, stop) = (Arc::clone(&agent), stop.clone());
        async move {
            let renew_at = watch::Sender::new(None);
            run(&agent, Link { inbound, outbound }, &renew_at, &stop).await
        }
    });
    Rig { agent, stop, to_agent, from_agent, run }
}

/// Every message in a chunk.
fn messages(chunk: &[u8]) -> Vec<FromAgent> {
    chunk
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| line::decode(line.strip_suffix(b"\n").unwrap()).unwrap())
        .collect()
}

fn answer(message: FromAgent, version: u64) -> Option<FromHost> {
    let FromAgent::Put(put) = message else { return None };
    Some(FromHost::Answer(Box::new(Answer {
        key: put.key,
        uid: put.uid,
        hash: put.hash,
        version,
        outcome: Outcome::Applied,
        reason: Reason::Applied,
        message: String::new(),
        numbers: None,
        load_balancer: Vec::new(),
        conditions: Vec::new(),
    })))
}

#[tokio::test(start_paused = true)]
async fn while_the_host_takes_nothing_its_lines_are_still_heard() {
    let mut rig = start();
    rig.to_agent.unbounded_send(line(&welcome())).unwrap();
    sleep(Duration::from_millis(1)).await;
    // Nobody takes a chunk, yet ten thousand lines are taken in without end or loss.
    for _ in 0..10_000 {
        rig.to_agent
            .unbounded_send(line(&FromHost::Beat(HostBeat {
                k3k_syncs: false,
                k3k_syncs_ingresses: false,
                ingress_classes: None,
            })))
            .unwrap();
    }
    sleep(Duration::from_secs(1)).await;
    assert!(!rig.run.is_finished());
    assert!(rig.agent.health().session.is_ok());
    // As soon as it takes chunks everything comes, in few of them, and can be answered.
    let (mut puts, mut taken, mut ended) = (0, 0, false);
    while !ended {
        let chunk = rig.from_agent.recv().await.unwrap();
        taken += 1;
        for message in messages(&chunk) {
            ended |= matches!(message, FromAgent::End(_));
            if let Some(answer) = answer(message, puts + 1) {
                puts += 1;
                rig.to_agent.unbounded_send(line(&answer)).unwrap();
            }
        }
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(usize::try_from(puts).unwrap(), SERVICES);
    assert!(taken < 30, "{taken} chunks");
    assert_eq!(rig.agent.read(crate::outbox::Outbox::in_sync), Ok(()));
    rig.stop.cancel();
    assert_eq!(rig.run.await.unwrap().0, Over::Stopped);
    assert_eq!(rig.from_agent.recv().await, None);
}

#[tokio::test(start_paused = true)]
async fn two_sides_that_both_stall_part_after_the_time_for_draining() {
    let rig = start();
    rig.to_agent.unbounded_send(line(&welcome())).unwrap();
    let begun = Instant::now();
    let (over, open_for) = rig.run.await.unwrap();
    assert_eq!(over, Over::Stalled);
    assert!(begun.elapsed() < limits::DRAIN + Duration::from_secs(1));
    assert!(open_for >= limits::DRAIN);
    assert!(rig.agent.read(|outbox| outbox.in_sync().is_err()));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_silent_is_left_and_beats_go_out_until_then() {
    let mut rig = start();
    rig.to_agent.unbounded_send(line(&welcome())).unwrap();
    let mut beats = 0;
    while let Some(chunk) = rig.from_agent.recv().await {
        let is_beat = |message: &&FromAgent| matches!(message, FromAgent::Beat(_));
        beats += messages(&chunk).iter().filter(is_beat).count();
    }
    assert_eq!(rig.run.await.unwrap().0, Over::Silent);
    assert!((2..=4).contains(&beats), "{beats} beats");
}

#[tokio::test(start_paused = true)]
async fn a_line_that_is_no_message_ends_the_session() {
    for broken in [&b"nonsense\n"[..], b"{\"sing\":{}}\n", b"{\"beat\":{}}\n", &[b'x'; 65_537]] {
        let rig = start();
        rig.to_agent.unbounded_send(Ok(broken.to_vec().into())).unwrap();
        assert!(matches!(rig.run.await.unwrap().0, Over::Malformed(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_leaves_at_once() {
    let mut rig = start();
    rig.to_agent.unbounded_send(line(&welcome())).unwrap();
    let mut ended = false;
    while !ended {
        let chunk = rig.from_agent.recv().await.unwrap();
        ended = messages(&chunk).iter().any(|message| matches!(message, FromAgent::End(_)));
    }
    let begun = Instant::now();
    advance(Duration::from_millis(1)).await;
    let gone = Change::Gone(Key::service("default", "web-1").unwrap(), Uid::parse("u").unwrap());
    rig.agent.change(|outbox| outbox.apply(gone));
    let chunk = rig.from_agent.recv().await.unwrap();
    assert!(matches!(messages(&chunk)[..], [FromAgent::Delete(_)]));
    assert!(begun.elapsed() < Duration::from_millis(10));
}
