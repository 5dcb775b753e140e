//! Free loopback ports, one owner each.
//!
//! Asking the kernel for port 0 hands out a port that anybody may take before our server binds it. These lie below
//! 32768, where the kernel draws none for outgoing connections, and a lock file per port keeps parallel test processes
//! apart.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

use anyhow::bail;

use crate::cache;

/// Above the well-known servers, below the node ports, which start at 30000.
const RANGE: Range<u16> = 15_000..30_000;

/// Enough draws to find a free port when nine of ten are taken.
const DRAWS: usize = 200;

/// A port that is ours until this value is dropped.
///
/// The server that binds it may stop and start in between: the lock, not the socket, is the claim.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _claim: File,
}

impl Port {
    /// Claims a port that nobody listens on.
    ///
    /// # Errors
    /// When no port is free, or the cache folder cannot be written.
    pub fn claim() -> anyhow::Result<Self> {
        let folder = cache::folder()?.join("ports");
        fs::create_dir_all(&folder)?;
        for _ in 0..DRAWS {
            let number = fastrand::u16(RANGE);
            let claim = cache::lock_file(&folder.join(number.to_string()))?;
            // The bind finds servers of others, and those of a dead test that its supervisor is still stopping.
            if claim.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _claim: claim });
            }
        }
        bail!("no free port on 127.0.0.1 between {} and {}", RANGE.start, RANGE.end)
    }

    /// The number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:<number>`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_claimed_port_is_never_handed_out_twice() {
        let ports: Vec<Port> = (0..50).map(|_| Port::claim().expect("a port")).collect();
        let numbers: HashSet<u16> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), ports.len());
    }
}
