//! `cargo sync-bench`: what the sync costs and how long it takes, beside what the host itself can do.

use std::process::ExitCode;

use clap::Parser;
use k3k_expose_tests::bench;
use k3k_expose_tests::progress::say;

/// Measures initial sync, latencies both ways, conflicts, writes, memory and CPU on real control planes.
///
/// Everything is measured in this one run, next to a plain client on the same host. With 1,000 Services it takes about
/// ten minutes; nothing else should run on the machine.
#[derive(Parser)]
#[command(name = "cargo sync-bench --", bin_name = "cargo sync-bench --")]
struct Flags {
    /// Services in the virtual cluster; memory and CPU at 1,000 are measured apart for more, and not at all for fewer
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    services: u32,
    /// Measure this part alone
    #[arg(long, value_name = "PART", conflicts_with = "json")]
    only: Option<bench::Part>,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    let services = flags.services as usize;
    let outcome = match flags.only {
        Some(part) => bench::run_part(part, services).await,
        None => bench::run(services).await.map(|report| if flags.json { report.json() } else { report.table() }),
    };
    match outcome {
        Ok(text) => println!("{text}"),
        Err(error) => {
            say(&format!("sync-bench: {error:#}"));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
