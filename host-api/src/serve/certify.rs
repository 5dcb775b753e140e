//! Sees to the certificate that both TLS ports show, whoever makes it. I/O.

use anyhow::Result;
use kube::Client;
use tokio::sync::watch;

use crate::certificates::files::Files;
use crate::certificates::own::Own;
use crate::certificates::shown::Shown;
use crate::certificates::{Source, ca_bundle, names};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::ready::Ready;
use crate::watch as watches;

/// The certificate, the authorities that vouch for it, and who makes both.
pub(super) struct Certify {
    pub(super) shown: Shown,
    bundle: watch::Sender<Option<String>>,
    source: Source,
    files: Option<Files>,
}

impl Certify {
    /// Reads what comes from files; host-api's own comes later.
    pub(super) fn new(source: &Source, metrics: &Metrics) -> Result<Self> {
        let (shown, bundle) = (Shown::default(), watch::Sender::new(None));
        let files = match source {
            Source::Own(_) => None,
            Source::Files(paths) => Some(Files::open(paths.clone(), &shown, &bundle, metrics)?),
        };
        Ok(Self { shown, bundle, source: source.clone(), files })
    }

    /// The authorities that agents are to trust, whenever they change.
    pub(super) fn bundle(&self) -> watch::Receiver<Option<String>> {
        self.bundle.subscribe()
    }

    /// Keeps the certificate right. Never ends.
    pub(super) async fn run(self, client: Client, config: &Config, metrics: &Metrics, ready: Ready) {
        let Self { shown, bundle, source, files } = self;
        if let Some(files) = files {
            ready.up();
            return files.follow(&shown, &bundle, metrics).await;
        }
        if let Source::Own(lifetimes) = source {
            let names = names(client.default_namespace(), &config.host_api_url);
            let (seen, secret) = watch::channel(None);
            let own = Own { client: client.clone(), lifetimes, names, shown: &shown, bundle: &bundle, metrics, ready };
            tokio::join!(watches::own::certificates(client, &seen), own.run(secret));
        }
    }
}

/// Tells the API server whom to trust, unless whoever makes the certificates does. Never ends.
pub(super) async fn tell_api_server(client: Client, source: &Source, bundle: watch::Receiver<Option<String>>) {
    match source {
        Source::Own(_) => ca_bundle::run(client, bundle).await,
        Source::Files(_) => std::future::pending().await,
    }
}
