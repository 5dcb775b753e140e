//! What `cargo sync-bench` measures, in its order: memory of idle programs, the host's own limit, the sync, rest, latencies
//! in both directions, restarts, a reconnect, conflicts, the webhook.
//!
//! Honest figures need the same things on both sides of a ratio: one pair of control planes, one account on the host with
//! its rights and its place in the queue, byte-same bodies, the same controllers and watches. Every measurement begins
//! only after the objects of the one before are gone, EndpointSlices and IP addresses included.

mod bodies;
mod crowded;
mod direct;
mod field;
mod ingress;
mod latency;
mod load;
mod programs;
mod proxy;
mod report;
mod service_watch;
mod spending;
mod status;
mod table;
mod webhook;

use std::time::Duration;

use anyhow::Context;

pub use report::Report;

use crate::progress::say;
use crate::supervisor;
use field::Field;
use latency::Latencies;
use spending::Spending;

/// Parallel workers of the plain client; the best of them is the limit.
const WORKERS: [usize; 3] = [4, 8, 16];

/// Memory is also judged at this many Services, whatever the run's own number.
const MEMORY_AT: usize = 1000;

/// How long the programs are watched doing nothing.
const IDLE: Duration = Duration::from_secs(60);

/// How long after a restart a late write would still be counted.
const AFTERMATH: Duration = Duration::from_secs(5);

/// Changes a second, and how many of them.
const RATES: [(u32, usize); 2] = [(5, 100), (50, 500)];

/// What can be measured alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Initial sync beside a plain client: three minutes
    Sync,
    /// Sync of as many Ingresses, six times: three minutes
    Ingresses,
    /// What a hostile tenant does to another: five minutes
    Load,
    /// Way of a load balancer's address into the virtual cluster that has as many Services: a minute and a half
    Status,
    /// Cost of the webhook to a server pod: half a minute
    Webhook,
}

/// Measures one part alone, as text.
///
/// # Errors
/// As [`run`].
pub async fn run_part(part: Part, services: usize) -> anyhow::Result<String> {
    let outcome = measure_part(part, services).await;
    if outcome.is_err() {
        supervisor::keep_files();
    }
    outcome
}

async fn measure_part(part: Part, services: usize) -> anyhow::Result<String> {
    let mut report = Report::new(services, load_average()?);
    match part {
        Part::Sync => {
            let mut field = Field::boot().await?;
            field.fill(services).await?;
            initial(&mut field, &mut report).await?;
            field.stop().await?;
        }
        Part::Load => report.attacks = load::measure().await?,
        Part::Ingresses => report.ingresses = Some(ingress::measure(services).await?),
        Part::Status => {
            let mut field = Field::boot().await?;
            field.fill(services).await?;
            field.sync(services).await?;
            report.status(&status::measure(&field).await?);
            field.stop().await?;
        }
        Part::Webhook => report.webhook(&webhook::measure().await?),
    }
    Ok(table::part(part, &report))
}

/// Measures everything with this many Services.
///
/// # Errors
/// When a step of the rig fails, or a program does not do its part in time; logs are kept then.
pub async fn run(services: usize) -> anyhow::Result<Report> {
    let outcome = measure(services).await;
    if outcome.is_err() {
        supervisor::keep_files();
    }
    outcome
}

async fn measure(services: usize) -> anyhow::Result<Report> {
    let load = load_average()?;
    if load > 0.5 {
        say(&format!("the machine is busy already (load {load}), which all figures will show"));
    }
    say("booting two control planes");
    let mut field = Field::boot().await?;
    let mut report = Report::new(services, load);

    say("memory and CPU without Services: 30 s");
    report.usage_at("0", &field.sync(0).await?);
    field.clear(0).await?;

    if services > MEMORY_AT {
        say("memory and CPU with 1,000 Services: 30 s");
        field.fill(MEMORY_AT).await?;
        report.usage_at("1000", &field.sync(MEMORY_AT).await?);
        field.clear(MEMORY_AT).await?;
    }

    field.fill(services).await?;
    initial(&mut field, &mut report).await?;

    say("rest: 60 s");
    let before = Spending::begin(&field).await?;
    // The measurement is that time passes.
    tokio::time::sleep(IDLE).await;
    report.idle(&before.end(&field).await?);

    for (rate, samples) in RATES {
        say(&format!("{samples} creates, updates and deletes at {rate}/s"));
        let latencies = Latencies::measure(&field, rate, samples).await?;
        report.latencies(rate, &latencies);
    }

    say("500 load-balancer addresses at 20/s");
    report.status(&status::measure(&field).await?);

    say("restart of the agent");
    // What host-api still has to answer is no part of it.
    field.programs()?.agent.wait_ok("/syncz", IDLE).await?;
    let before = Spending::begin(&field).await?;
    field.programs()?.restart_agent().await?;
    tokio::time::sleep(AFTERMATH).await;
    report.restart_of_agent(&before.writes(&field).await?);

    say("restart of host-api");
    let before = Spending::begin(&field).await?;
    field.programs()?.restart_host_api().await?;
    tokio::time::sleep(AFTERMATH).await;
    report.restart_of_host_api(&before.writes(&field).await?);

    say("a cut connection");
    report.reconnect_bytes = field.reconnect_bytes().await?;
    field.stop().await?;

    say("booting two control planes with equal ranges");
    report.crowded(&crowded::measure(services).await?);

    say("server pods at 20/s, with and without the webhook");
    report.webhook(&webhook::measure().await?);
    say("booting two control planes for Ingresses");
    report.ingresses = Some(ingress::measure(services).await?);
    say("booting two control planes for a hostile tenant");
    report.attacks = load::measure().await?;
    Ok(report)
}

/// The host's own limit, and the initial sync of what stands in the virtual cluster beside it.
async fn initial(field: &mut Field, report: &mut Report) -> anyhow::Result<()> {
    let services = report.n;
    let mut plain = bodies::Fingerprints::default();
    for workers in WORKERS {
        say(&format!("a plain client with {workers} workers creates {services}"));
        report.limit(workers, direct::create_all(field, workers).await?);
        plain = field.fingerprints().await?;
        field.clear(services).await?;
    }

    say(&format!("initial sync of {services}, then 30 s"));
    let synced = field.sync(services).await?;
    report.initial(&synced);
    report.usage_at("n", &synced);
    if services == MEMORY_AT {
        report.usage_at("1000", &synced);
    }
    report.twins_as_plain = plain.equal(&field.fingerprints().await?);
    Ok(())
}

/// What others do on this machine: its load average over the last minute.
fn load_average() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").context("reading the load of the machine")?;
    let first = text.split_whitespace().next().context("an empty load average")?;
    Ok(first.parse()?)
}

/// Memory and CPU of both programs at one moment.
#[derive(Clone, Copy, Debug)]
struct Usage {
    agent_rss_kib: u64,
    host_api_rss_kib: u64,
    agent_cpu_s: f64,
    host_api_cpu_s: f64,
}
