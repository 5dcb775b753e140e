//! The host-api process: reads its settings, starts its log, and runs.

use std::process::ExitCode;

use anyhow::Context;
use k3k_expose_host_api::config::{self, Asked, Inject, Plan};
use k3k_expose_host_api::inject::{Settings, command};
use k3k_expose_host_api::policy::ask;
use k3k_expose_host_api::serve;
use k3k_expose_process::log;

// One thread: the host's API server takes a few hundred writes a second, and every hop to another thread is latency.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let config = match config::read() {
        Ok(Asked::Serve(config)) => *config,
        Ok(Asked::Inject(asked)) => return inject(&asked),
        Ok(Asked::Plan(asked)) => return plan(&asked).await,
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

/// Prints a pod with the agent beside it.
fn inject(asked: &Inject) -> ExitCode {
    let injected = || {
        let text = if asked.file.as_os_str() == "-" {
            std::io::read_to_string(std::io::stdin())
        } else {
            std::fs::read_to_string(&asked.file)
        };
        let text = text.with_context(|| format!("cannot read {}", asked.file.display()))?;
        let settings = Settings {
            image: asked.agent_image.clone(),
            host_api_url: asked.host_api_url.clone(),
            sync_ingresses: asked.sync_ingresses,
            sync_ingress_tls: asked.sync_ingress_tls,
        };
        anyhow::Ok(serde_saphyr::to_string(&command::injected(&text, &settings)?)?)
    };
    match injected() {
        Ok(yaml) => {
            #[expect(clippy::print_stdout, reason = "the command's own output")]
            {
                print!("{yaml}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            log::complain(&format!("k3k-expose-host-api inject: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints what becomes of Services. What is refused makes it fail, so that a pipeline can ask beforehand.
async fn plan(asked: &Plan) -> ExitCode {
    // Without it no client can be made; a second one would be a mistake of this process's own.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match ask::plan(asked).await {
        Ok(planned) => {
            #[expect(clippy::print_stdout, reason = "the command's own output")]
            {
                print!("{}", planned.text);
            }
            if planned.refused { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(error) => {
            log::complain(&format!("k3k-expose-host-api plan: {error:#}"));
            ExitCode::from(2)
        }
    }
}
