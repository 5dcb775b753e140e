//! The agent: streams the Services of one virtual cluster to host-api.
//!
//! It holds the virtual cluster's credentials and none of the host's. From the virtual side to the host's: `kubeconfig`
//! and `account` (I/O) lead to `watch` (I/O), whose events [`project`] (pure) cuts to what may cross; [`outbox`] (pure)
//! keeps the latest of each, and [`session`] (pure) decides what is said of it over `stream` (I/O). The way back is
//! `write_back` (pure), which decides what of the answers is still to be written, and `reflect` (I/O), which writes it.

pub mod config;

mod account;
mod endpoints;
mod kubeconfig;
mod virtual_cluster;
mod watch;
mod watched;

mod observed;
pub mod packed;
mod pins;
pub mod project;
mod renumber;
mod secrets;

mod ledger;
pub mod outbox;
mod queue;

mod connect;
mod problem;
pub mod reconnect;
pub mod session;
mod sessions;
mod stream;

mod classes;
mod reflect;
mod write_back;

#[doc(hidden)]
pub mod fuzz;

mod admin;
mod agent;
mod lag;
mod metrics;

pub use metrics::metrics;
pub use write_back::EVENT_REASONS;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use k3k_expose_proto::Resource;
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::config::{Config, Invalid};
use crate::sessions::Sessions;

/// Runs the agent until the stop signal.
///
/// # Errors
/// When the admin server ends.
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let agent = Arc::new(Agent::new(&config.watched()));
    let sessions = Sessions::new(&agent, &config, &stop);
    tokio::select! {
        served = admin::serve(config.admin_address, Arc::clone(&agent)) => served.context("admin server failed"),
        () = virtual_cluster::run(&agent, &config) => Ok(()),
        () = sessions.run() => Ok(()),
    }
}

/// Stays up without a usable configuration and says why, until the stop signal: in a pod, exiting would keep the control
/// plane beside this container from starting.
///
/// # Errors
/// When the admin server ends.
pub async fn run_invalid(invalid: Invalid, stop: CancellationToken) -> anyhow::Result<()> {
    let agent = Arc::new(Agent::new(&[Resource::Services]));
    agent.set_configuration(Err(invalid.to_string()));
    tracing::error!(mistakes = ?invalid.mistakes, "configuration invalid, doing nothing");
    let address: SocketAddr = invalid.admin_address;
    tokio::select! {
        served = admin::serve(address, agent) => served.context("admin server failed"),
        () = stop.cancelled() => Ok(()),
    }
}
