//! Runs this program again in a network namespace of its own, which becomes the router of the data center.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;

use super::needs::{PATH, program};

/// Becomes the same program with these arguments in a new network namespace; comes back only with an error.
pub fn again(args: &[&str]) -> anyhow::Error {
    match command(args) {
        Ok(mut command) => anyhow::Error::new(command.exec()).context("running unshare"),
        Err(error) => error,
    }
}

fn command(args: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(program("unshare")?);
    command.arg("--net").arg(std::env::current_exe().context("the path of this program")?).args(args);
    Ok(command)
}

/// Brings loopback up and makes a router of the namespace that this program runs in.
///
/// # Errors
/// When the kernel refuses, as it does without the namespace and its rights.
pub async fn become_router() -> anyhow::Result<()> {
    super::namespace::ip(None, "link set lo up\n").await?;
    for (name, value) in [("ip_forward", "1"), ("fib_multipath_hash_policy", "1")] {
        let path = format!("/proc/sys/net/ipv4/{name}");
        std::fs::write(&path, value).with_context(|| format!("writing {path}"))?;
    }
    Ok(())
}

/// The environment of programs that look for others.
#[must_use]
pub fn environment() -> Vec<(String, String)> {
    vec![("PATH".to_owned(), PATH.to_owned())]
}
