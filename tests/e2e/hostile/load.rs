//! One tenant says as much as it can, as fast as it can; another one's creates go on, and host-api stays small.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use k3k_expose_proto::line;
use k3k_expose_proto::message::{FromAgent, Put};
use k3k_expose_proto::service::{ClusterIps, Service, ServiceType};
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::product::{HOST_API_USER, HostApi};
use k3k_expose_tests::progress::say;
use k3k_expose_tests::wire::{WireSession, cluster_ip_service, hello, put};
use k3k_expose_tests::{Rig, took};
use tokio_util::sync::CancellationToken;

use super::stage::{OBJECTS, Stage};
use crate::observe::{metric, twins};
use crate::world::SOON;

/// Creates of the neighbor's for each figure.
const CREATES: usize = 100;
/// Objects that the hostile tenant says.
const MANY: usize = 100_000;
/// What host-api may hold, in KiB.
const MEMORY: u64 = 100 * 1024;
/// The neighbor's p99 may be so many times the undisturbed one.
const RATIO: f64 = 1.5;
/// Time to be idle again.
const IDLE: Duration = Duration::from_secs(10);

/// What the hostile tenant says next.
type Says = fn(usize) -> Result<Put>;

#[tokio::test]
async fn a_tenant_that_says_all_it_can_slows_nobody_down_and_host_api_stays_small() -> Result<()> {
    let mut stage = Stage::start("host-load").await?;
    let audit = Rig::shared().host().await?.audit();
    let mark = audit.mark().await?;
    stage.neighbors_creates(CREATES).await?;
    let undisturbed = p99(&stage.neighbors_creates(CREATES).await?);
    say(&format!("the neighbor's creates, undisturbed: p99 {:.1} ms", undisturbed.as_secs_f64() * 1e3));
    let attacks: [(&str, Says); 3] = [
        ("100,000 objects", |number| {
            put("flood", &format!("web-{}", number % MANY), &format!("uid-{number}"), headless("x"))
        }),
        ("lines of 64 KiB", |number| {
            put("flood", &format!("web-{}", number % 50), "uid", headless(&"x".repeat(60_000 + number % 1_000)))
        }),
        ("one object that changes", |number| {
            let port = 1 + u16::try_from(number % 60_000)?;
            put("flood", "changing", "uid", cluster_ip_service("web", port)?)
        }),
    ];
    let mut most = 0;
    for (name, says) in attacks {
        let attack = Beside::start(&stage, says);
        // The first tries meet a tenant that has all its writes left, the later ones one that has used them up.
        for part in ["at first", "later"] {
            let lasted = stage.neighbors_creates(CREATES).await.context(name)?;
            let ratio = p99(&lasted).as_secs_f64() / undisturbed.as_secs_f64();
            say(&format!("during {name}, {part}: {ratio:.2} times the undisturbed p99"));
            took(&format!("the neighbor's p99 during {name}, {part}"), p99(&lasted), undisturbed.mul_f64(RATIO));
            most = most.max(stage.host_api.rss_kib().await?);
        }
        let said = attack.stop()?;
        say(&format!("{name}: {said} lines were taken"));
    }
    say(&format!("host-api held at most {most} KiB"));
    assert!(most < MEMORY, "{most} KiB");

    let began = tokio::time::Instant::now();
    eventually("nothing left to do", SOON, async || {
        let (sessions, queued) = (
            metric(&stage.host_api, "k3k_expose_host_api_sessions").await?,
            metric(&stage.host_api, "k3k_expose_host_api_queued_services").await?,
        );
        ensure!(sessions < 1.5 && queued < 0.5, "{sessions} sessions, {queued} objects");
        anyhow::Ok(())
    })
    .await?;
    took("host-api idle again", began.elapsed(), IDLE);
    let cpu = stage.host_api.cpu_seconds().await?;
    stage.neighbors_creates(10).await?;
    say(&format!("ten creates after that cost {:.2} s of CPU", stage.host_api.cpu_seconds().await? - cpu));

    let own = [stage.hostile.namespace.as_str(), stage.neighbor_tenant.namespace.as_str()];
    let writes = audit.writes_since(mark, |user| user == HOST_API_USER).await?.counted;
    let of_others: Vec<_> = writes
        .iter()
        .filter(|entry| entry.namespace.starts_with("host-load") && !own.contains(&entry.namespace.as_str()))
        .collect();
    assert!(of_others.is_empty(), "{of_others:?}");
    let by_hostile = twins(&stage.hostile).await?;
    ensure!(by_hostile.len() <= OBJECTS, "{} twins", by_hostile.len());
    assert!(by_hostile.values().all(|twin| twin.metadata.namespace.as_deref() == Some(own[0])));
    Ok(())
}

/// A hostile agent on a thread of its own, so that it does not share one with whoever measures.
struct Beside {
    stop: CancellationToken,
    thread: thread::JoinHandle<Result<usize>>,
}

impl Beside {
    fn start(stage: &Stage, says: Says) -> Self {
        let (host_api, token) = (Arc::clone(&stage.host_api), stage.token.clone());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut said = 0;
                while !stopped.is_cancelled() {
                    tokio::select! {
                        () = stopped.cancelled() => {}
                        // Whatever ends a session, it comes back.
                        _ = flood(&host_api, &token, says, &mut said) => {}
                    }
                }
                Ok(said)
            })
        });
        Self { stop, thread }
    }

    /// Ends it. Gives how many lines it got rid of.
    fn stop(self) -> Result<usize> {
        self.stop.cancel();
        self.thread.join().map_err(|_| anyhow::anyhow!("the hostile agent panicked"))?
    }
}

/// Opens a session and speaks without a pause until host-api takes no more. Reads nothing.
async fn flood(host_api: &HostApi, token: &str, says: Says, said: &mut usize) -> Result<()> {
    let (session, _) = WireSession::open(host_api, token, hello("hostile-cluster", &[])?).await?;
    loop {
        let mut lines = Vec::new();
        let first = *said;
        while lines.len() < 64 * 1024 {
            lines.extend(line::encode(&FromAgent::Put(says(*said)?))?);
            *said += 1;
        }
        if session.send_raw(Bytes::from(lines)).await.is_err() {
            *said = first;
            return Ok(());
        }
    }
}

/// A headless Service with this much to say.
fn headless(padding: &str) -> Service {
    Service {
        cluster_ips: ClusterIps::Headless,
        traffic_distribution: Some(padding.to_owned()),
        ..Service::new(ServiceType::ClusterIP)
    }
}

fn p99(lasted: &[Duration]) -> Duration {
    lasted.get(lasted.len() * 99 / 100).or(lasted.last()).copied().unwrap_or_default()
}
