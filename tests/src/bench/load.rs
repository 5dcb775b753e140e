//! A tenant that says all it can, beside one that goes on: the latency of that one's creates, host-api's memory, and the way back
//! to rest.
//!
//! The hostile one speaks the wire itself, on a thread of its own, so that it does not share one with what is measured. Whatever
//! ends its session, it comes back.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
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
/// Objects that the hostile tenant says.
const MANY: usize = 100_000;
/// Bytes that it says at once.
const BURST: usize = 64 * 1024;
/// For host-api to be at rest again.
const DEADLINE: Duration = Duration::from_secs(100);

/// What the hostile tenant says next.
type Says = fn(usize) -> anyhow::Result<Put>;

const ATTACKS: [(&str, Says); 3] = [
    ("100,000 objects", |number| {
        put("flood", &format!("web-{}", number % MANY), &format!("uid-{}", number % MANY), headless(None))
    }),
    ("lines of 64 KiB", |number| {
        put("flood", &format!("web-{}", number % 50), "uid", headless(Some("x".repeat(60_000 + number % 1_000))))
    }),
    ("one object that changes", |number| {
        put("flood", "changing", "uid", cluster_ip_service("web", 1 + u16::try_from(number % 60_000)?)?)
    }),
];

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
    for (name, says) in ATTACKS {
        say(&format!("{ROUNDS} times {CREATES} creates of the neighbor's, alone and beside {name}"));
        let (mut undisturbed, mut disturbed) = (Vec::new(), Vec::new());
        let (mut lines, mut peak, mut rest) = (0, 0, Duration::ZERO);
        for _ in 0..ROUNDS {
            undisturbed.extend(creates(&field, "undisturbed").await?);
            let beside = Beside::start(&programs.host_api, &token, says)?;
            disturbed.extend(creates(&field, "disturbed").await.context(name)?);
            peak = peak.max(programs.host_api.peak_rss_kib().await?);
            lines += beside.stop()?;
            let began = Instant::now();
            at_rest(&programs.host_api).await?;
            rest = rest.max(began.elapsed());
        }
        let [undisturbed, disturbed] = [undisturbed, disturbed].map(|samples| Percentiles::of(&samples));
        attacks.push(Attack {
            name: name.to_owned(),
            lines,
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
    fn start(host_api: &Arc<HostApi>, token: &str, says: Says) -> anyhow::Result<Self> {
        let (host_api, token) = (Arc::clone(host_api), token.to_owned());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                let mut said = 0;
                while !stopped.is_cancelled() {
                    tokio::select! {
                        () = stopped.cancelled() => {}
                        _ = flood(&host_api, &token, says, &mut said) => {}
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

/// Opens a session and speaks without a pause until host-api takes no more. Reads nothing.
async fn flood(host_api: &HostApi, token: &str, says: Says, said: &mut usize) -> anyhow::Result<()> {
    let (session, _) = WireSession::open(host_api, token, hello("hostile-cluster", &[])?).await?;
    loop {
        let (mut lines, mut number) = (Vec::new(), *said);
        while lines.len() < BURST {
            lines.extend(line::encode(&FromAgent::Put(says(number)?))?);
            number += 1;
        }
        session.send_raw(Bytes::from(lines)).await?;
        *said = number;
    }
}

/// A headless Service, or one that the host would refuse for its length.
fn headless(traffic_distribution: Option<String>) -> Service {
    Service { cluster_ips: ClusterIps::Headless, traffic_distribution, ..Service::new(ServiceType::ClusterIP) }
}
