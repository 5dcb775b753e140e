//! `cargo demo`: the main job on two real control planes, told step by step.

use std::process::ExitCode;

use clap::Parser;
use k3k_expose_tests::demo;

/// Shows a Service of a virtual cluster getting its twin on the host, and the host's answer coming back, on two real
/// control planes of its own.
///
/// Needs no root, no container engine and no cluster. The first run compiles kube-apiserver and etcd, which takes some
/// minutes and needs Go; later runs take half a minute. Everything ends with the program.
#[derive(Parser)]
#[command(name = "cargo demo --", bin_name = "cargo demo --")]
struct Flags {
    /// Check every step, stop everything, and exit with 0 or 1 instead of staying until Ctrl-C
    #[arg(long)]
    once: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    if demo::run(flags.once).await { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
