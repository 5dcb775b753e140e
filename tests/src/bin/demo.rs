//! `cargo demo`: the main job on real control planes, told step by step.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use k3k_expose_tests::demo;
use k3k_expose_tests::traffic::{netexec, steady};

/// Shows a Service of a virtual cluster getting its twin on the host, and the host's answer coming back, on two real
/// control planes of its own.
///
/// Needs no root, no container engine and no cluster. The first run compiles kube-apiserver and etcd, which takes some
/// minutes and needs Go; later runs take half a minute. Everything ends with the program.
#[derive(Parser)]
#[command(name = "cargo demo --", bin_name = "cargo demo --", disable_help_subcommand = true)]
struct Flags {
    /// Check every step, stop everything, and exit with 0 or 1 instead of staying until Ctrl-C
    #[arg(long)]
    once: bool,
    /// Show traffic instead: nodes with kube-proxy, pods and a client, in network namespaces. Needs root
    #[arg(long)]
    traffic: bool,
    /// Already in the namespace
    #[arg(long, hide = true)]
    inside: bool,
    /// What the program is inside a pod
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// A pod's web server
    #[command(hide = true)]
    Netexec(netexec::Flags),
    /// A client that keeps its connection
    #[command(hide = true)]
    Steady(steady::Flags),
}

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    let good = match flags {
        Flags { part: Some(part), .. } => play(part).await,
        Flags { traffic: true, inside: true, once, .. } => demo::traffic::run(once).await,
        Flags { traffic: true, once, .. } => {
            demo::traffic::enter(once);
            false
        }
        Flags { once, .. } => demo::run(once).await,
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn play(part: Part) -> bool {
    let played = match part {
        Part::Netexec(flags) => netexec::serve(&flags).await,
        Part::Steady(flags) => steady::ask(&flags).await,
    };
    // Standard error is the log that the rig shows when something fails.
    played.inspect_err(|error| k3k_expose_tests::progress::say(&format!("{error:#}"))).is_ok()
}
