//! A wire that can be cut: passes connections on to host-api and ends them all at once on demand.

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::port::Port;

/// A listening proxy; dropping it ends it and its connections.
pub(super) struct Proxy {
    port: Port,
    cuts: watch::Sender<u64>,
    _task: JoinSet<()>,
}

impl Proxy {
    /// Listens on a free port and passes on to this address.
    pub(super) async fn start(to: String) -> anyhow::Result<Self> {
        let port = Port::claim()?;
        let listener = TcpListener::bind(port.address()).await?;
        let cuts = watch::Sender::new(0);
        let mut task = JoinSet::new();
        task.spawn(accept(listener, to, cuts.clone()));
        Ok(Self { port, cuts, _task: task })
    }

    /// `https://127.0.0.1:<port>`: TLS passes through untouched.
    pub(super) fn url(&self) -> String {
        format!("https://{}", self.port.address())
    }

    /// Ends every connection that is open now.
    pub(super) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn accept(listener: TcpListener, to: String, cuts: watch::Sender<u64>) {
    let mut connections = JoinSet::new();
    while let Ok((inbound, _)) = listener.accept().await {
        connections.spawn(pass(inbound, to.clone(), cuts.subscribe()));
    }
}

async fn pass(mut inbound: TcpStream, to: String, mut cuts: watch::Receiver<u64>) {
    // To the agent all of it looks the same: a connection that ends.
    let Ok(mut outbound) = TcpStream::connect(&to).await else {
        return;
    };
    tokio::select! {
        _ = copy_bidirectional(&mut inbound, &mut outbound) => {}
        _ = cuts.changed() => {}
    }
}
