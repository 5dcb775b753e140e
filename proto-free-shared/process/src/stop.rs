//! Stop signals: the first one drains, the second one aborts. I/O.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Exit code of a process that was told to stop twice, as shells report SIGINT.
const ABORTED: i32 = 130;

/// SIGTERM and SIGINT of this process.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Begins to listen. Until then the signals end the process at once.
    ///
    /// # Errors
    /// When the process cannot handle signals.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Cancels `stop` at the first signal and ends the process at the second. Never returns otherwise.
    pub async fn obey(mut self, stop: CancellationToken) -> std::convert::Infallible {
        self.next().await;
        info!("stopping: a second signal aborts");
        stop.cancel();
        self.next().await;
        warn!("aborted by a second signal");
        std::process::exit(ABORTED)
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
