//! This process as one of several replicas, or as the only one. I/O.

use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config};
use crate::hub::new_epoch;
use crate::lease::{Elector, Leadership};

/// Takes part in the election, if there is one.
pub(super) fn join(config: &Config, client: &Client) -> (Option<Elector>, Leadership) {
    match config.lease {
        None => (None, Leadership::alone()),
        Some(duration) => {
            // A pod's name stays when its container starts anew, so that it need not wait for itself.
            let identity = config::pod_name().unwrap_or_else(|| format!("host-api-{}", new_epoch()));
            let (elector, leadership) = Elector::new(client.clone(), identity, duration);
            (Some(elector), leadership)
        }
    }
}

/// Holds the Lease, or asks for it, for as long as there is work: it is let go of after the last write.
pub(super) async fn elect<T>(elector: Option<Elector>, work: impl Future<Output = T>) -> T {
    let Some(elector) = elector else {
        return work.await;
    };
    let worked = CancellationToken::new();
    let work = async {
        let done = work.await;
        worked.cancel();
        done
    };
    tokio::join!(work, elector.run(worked.clone())).0
}
