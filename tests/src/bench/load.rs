//! A tenant that says all it can, beside one that goes on: the latency of that one's creates, host-api's memory, and the way back
//! to rest.
//!
//! The hostile one speaks the wire itself, its lines are made before, and its thread has the processor time that nobody else needs:
//! on a machine of its own it would take nothing from what is measured here. Whatever ends its session, it comes back.

use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use bytes::Bytes;
use k3k_expose_proto::line;
use k3k_expose_proto::message::{FromAgent, Put};
use k3k_expose_proto::service::{ClusterIps, Service, ServiceType};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::field::Field;
use super::latency;
use super::report::{Attack, Percentiles, mib};
use crate::eventually::eventually;
use crate::product::HostApi;
use crate::progress::say;
use crate::wire::{WireSession, cluster_ip_service, hello, put};

/// Creates of the neighbor's in each round, without the hostile tenant and beside it, and how many a second.
const CREATES: usize = 100;
const RATE: u32 = 20;
/// Rounds for each figure: in turn, so that both meet the same machine.
const ROUNDS: usize = 5;
/// Bytes that the hostile tenant says at once.
const BURST: usize = 64 * 1024;
/// For host-api to be at rest again.
const DEADLINE: Duration = Duration::from_secs(100);

/// A way of being hostile: what it is called, how many different lines it has, and each of them.
type Way = (&'static str, usize, fn(usize) -> anyhow::Result<Put>);

const WAYS: [Way; 3] = [
    ("100,000 objects", 100_000, |number| {
        put("flood", &format!("web-{number}"), &format!("uid-{number}"), headless(None))
    }),
    ("lines of 64 KiB", 200, |number| {
        let padding = "x".repeat(60_000 + number);
        put("flood", &format!("web-{}", number % 50), "uid", headless(Some(padding)))
    }),
    ("one object that changes", 60_000, |number| {
        put("flood", "changing", "uid", cluster_ip_service("web", 1 + u16::try_from(number)?)?)
    }),
];

/// Lines as they are said at once, and how many.
type Lines = Arc<[(Bytes, usize)]>;

pub(super) async fn measure() -> anyhow::Result<Vec<Attack>> {
    let mut field = Field::boot().await?;
    field.start().await?;
    let hostile = field.another_tenant("bench-hostile").await?;
    let token = hostile.server_pod_token(0).await?;
    let programs = field.programs()?;
    programs.agent.wait_ok("/syncz", DEADLINE).await?;
    // What is done for the first time is slower.
    creates(&field, "warm").await?;
    let mut attacks = Vec::new();
    for (name, count, says) in WAYS {
        let lines = lines(count, says)?;
        say(&format!("{ROUNDS} times {CREATES} creates of the neighbor's, alone and beside {name}"));
        let (mut undisturbed, mut disturbed) = (Vec::new(), Vec::new());
        let (mut said, mut peak, mut rest) = (0, 0, Duration::ZERO);
        for _ in 0..ROUNDS {
            undisturbed.extend(creates(&field, "undisturbed").await?);
            let beside = Beside::start(&programs.host_api, &token, &lines)?;
            disturbed.extend(creates(&field, "disturbed").await.context(name)?);
            peak = peak.max(programs.host_api.peak_rss_kib().await?);
            said += beside.stop()?;
            let began = Instant::now();
            at_rest(&programs.host_api).await?;
            rest = rest.max(began.elapsed());
        }
        let [undisturbed, disturbed] = [undisturbed, disturbed].map(|samples| Percentiles::of(&samples));
        attacks.push(Attack {
            name: name.to_owned(),
            lines: said,
            undisturbed_ms: undisturbed,
            disturbed_ms: disturbed,
            disturbed_to_undisturbed: disturbed.over(undisturbed),
            host_api_peak_rss_mib: mib(peak),
            rest_s: rest.as_secs_f64(),
        });
    }
    field.stop().await?;
    Ok(attacks)
}

async fn creates(field: &Field, name: &str) -> anyhow::Result<Vec<f64>> {
    latency::of_creates(field, name, RATE, CREATES).await
}

/// Waits until only the neighbor has a session and nothing is left to do.
async fn at_rest(host_api: &HostApi) -> anyhow::Result<()> {
    eventually("host-api at rest", DEADLINE, async || {
        let metric = async |name: &str| anyhow::Ok(host_api.metric(name).await?.unwrap_or_default());
        let sessions = metric("k3k_expose_host_api_sessions").await?;
        let queued = metric("k3k_expose_host_api_queued_services").await?;
        anyhow::ensure!(sessions < 1.5 && queued < 0.5, "{sessions} sessions, {queued} objects");
        Ok(())
    })
    .await
}

/// A hostile agent on a thread of its own.
struct Beside {
    stop: CancellationToken,
    thread: thread::JoinHandle<anyhow::Result<usize>>,
}

impl Beside {
    fn start(host_api: &Arc<HostApi>, token: &str, lines: &Lines) -> anyhow::Result<Self> {
        let (host_api, token, lines) = (Arc::clone(host_api), token.to_owned(), Arc::clone(lines));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::spawn(move || {
            idle_time_only()?;
            runtime.block_on(async {
                let (mut next, mut said) = (lines.iter().cycle(), 0);
                while !stopped.is_cancelled() {
                    tokio::select! {
                        () = stopped.cancelled() => {}
                        _ = flood(&host_api, &token, &mut next, &mut said) => {}
                    }
                }
                Ok(said)
            })
        });
        Ok(Self { stop, thread })
    }

    /// Ends it. Gives how many lines it got rid of.
    fn stop(self) -> anyhow::Result<usize> {
        self.stop.cancel();
        self.thread.join().map_err(|_| anyhow!("the hostile agent panicked"))?
    }
}

/// Puts this thread behind all others of the machine. A low priority does not: what it has begun is not cut off.
fn idle_time_only() -> anyhow::Result<()> {
    let this = std::fs::read_link("/proc/thread-self")?;
    let mut chrt = Command::new("chrt");
    chrt.args(["--idle", "--pid", "0"]).arg(this.file_name().context("a thread has a number")?);
    let status = chrt.status().context("cannot run chrt, of util-linux")?;
    ensure!(status.success(), "chrt ended with {status}");
    Ok(())
}

/// Opens a session and speaks without a pause until host-api takes no more. Reads nothing.
async fn flood(
    host_api: &HostApi,
    token: &str,
    lines: &mut impl Iterator<Item = &(Bytes, usize)>,
    said: &mut usize,
) -> anyhow::Result<()> {
    let (session, _) = WireSession::open(host_api, token, hello("hostile-cluster", &[])?).await?;
    for (burst, count) in lines {
        session.send_raw(burst.clone()).await?;
        *said += count;
    }
    Ok(())
}

fn lines(count: usize, says: fn(usize) -> anyhow::Result<Put>) -> anyhow::Result<Lines> {
    let (mut bursts, mut burst, mut held) = (Vec::new(), Vec::new(), 0);
    for number in 0..count {
        burst.extend(line::encode(&FromAgent::Put(says(number)?))?);
        held += 1;
        if burst.len() >= BURST || number + 1 == count {
            bursts.push((Bytes::from(std::mem::take(&mut burst)), std::mem::take(&mut held)));
        }
    }
    Ok(bursts.into())
}

/// A headless Service, or one with a word that no API server takes.
fn headless(traffic_distribution: Option<String>) -> Service {
    Service { cluster_ips: ClusterIps::Headless, traffic_distribution, ..Service::new(ServiceType::ClusterIP) }
}
