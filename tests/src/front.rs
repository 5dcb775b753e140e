//! A port that leads to others: plays what kube-proxy does for a Service, or a line that can be cut.
//!
//! Bytes go through as they are, so TLS is between the two ends. Dropping [`Front::forward`] cuts every connection.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::port::Port;
use crate::product::HostApi;

/// For one look at a replica's readiness, as short as kubelet's.
const PROBE: Duration = Duration::from_secs(1);

/// A port on loopback.
#[derive(Debug)]
pub struct Front {
    port: Port,
    listener: TcpListener,
}

impl Front {
    /// Opens a port; connections wait until somebody forwards them.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn open() -> anyhow::Result<Self> {
        let port = Port::claim()?;
        let listener = TcpListener::bind(port.address()).await.context("binding a front")?;
        Ok(Self { port, listener })
    }

    /// `127.0.0.1:<port>`.
    #[must_use]
    pub fn address(&self) -> String {
        self.port.address()
    }

    /// Forwards each connection to the address that `choose` names; without one it is closed. Never ends.
    pub async fn forward(self, choose: impl AsyncFn() -> Option<String>) -> Infallible {
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                Ok((mut near, _)) = self.listener.accept() => {
                    let choose = &choose;
                    connections.push(async move {
                        let address = choose().await?;
                        let mut far = TcpStream::connect(address).await.ok()?;
                        copy_bidirectional(&mut near, &mut far).await.ok()
                    });
                }
                Some(_) = connections.next() => {}
            }
        }
    }
}

/// One of the replicas that are ready, in turn: where kubelet and kube-proxy would let a connection to the Service go.
pub async fn next_ready(replicas: &[&HostApi], turn: &std::cell::Cell<usize>) -> Option<String> {
    for _ in replicas {
        turn.set(turn.get() + 1);
        let replica = replicas[turn.get() % replicas.len()];
        if matches!(timeout(PROBE, replica.get("/readyz")).await, Ok(Ok((200, _)))) {
            return Some(replica.address());
        }
    }
    None
}
