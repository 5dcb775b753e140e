//! The host-api process: reads its settings, starts its log, and runs.

use std::process::ExitCode;

use k3k_expose_host_api::{config, serve};
use k3k_expose_process::log;

// One thread: the host's API server takes a few hundred writes a second, and every hop to another thread is latency.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let config = match config::read() {
        Ok(config) => config,
        Err(invalid) => {
            log::complain(&format!("k3k-expose-host-api: {invalid}\nsee k3k-expose-host-api --help"));
            return ExitCode::from(2);
        }
    };
    log::start(config.log.clone(), config.log_format);
    for variable in config::unknown_variables() {
        tracing::warn!(variable, "unknown setting was ignored");
    }
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::error!("another TLS provider was installed before ours");
        return ExitCode::FAILURE;
    }
    match serve::run(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "host-api failed");
            ExitCode::FAILURE
        }
    }
}
