//! Wires the agent: configuration, log, TLS provider, signals.

use std::process::ExitCode;

use anyhow::Context;
use k3k_expose_agent::config::{self, Config, Invalid};
use k3k_expose_process::log::{self, Format, Levels};
use k3k_expose_process::stop::Signals;
use tokio_util::sync::CancellationToken;

/// Exit code for a configuration that cannot be used.
const MISCONFIGURED: u8 = 2;

fn main() -> ExitCode {
    let config = config::read();
    if let Err(invalid) = &config
        && !config::in_pod()
    {
        log::complain(&format!("k3k-expose-agent: {invalid}\nsee k3k-expose-agent --help"));
        return ExitCode::from(MISCONFIGURED);
    }
    match run(config) {
        Ok(()) => {
            tracing::info!("agent stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "agent failed");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Result<Config, Invalid>) -> anyhow::Result<()> {
    match &config {
        Ok(config) => log::start(config.log.clone(), config.log_format),
        Err(_) => log::start(Levels::default(), Format::Auto),
    }
    for variable in config::unknown_variables() {
        tracing::warn!(variable, "unknown setting ignored");
    }
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider was installed before"))?;
    // One thread does it all: a second would bring a second heap.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .context("runtime could not be started")?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let signals = Signals::listen().context("signals could not be taken over")?;
        let work = async {
            match config {
                Ok(config) => k3k_expose_agent::run(config, stop.clone()).await,
                Err(invalid) => k3k_expose_agent::run_invalid(invalid, stop.clone()).await,
            }
        };
        tokio::select! {
            done = work => done,
            never = signals.obey(stop.clone()) => match never {},
        }
    })
}
