//! The process: clients, watches, writer and servers, joined until the first one fails or a signal comes. I/O.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum_server::Handle;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use k3k_expose_process::stop::Signals;
use k3k_expose_proto::Uid;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::admin::{self, Admin};
use crate::config::Config;
use crate::hub::Hub;
use crate::ingress::file::PolicyFile;
use crate::metrics::Metrics;
use crate::ready::Ready;
use crate::router::{self, Server};
use crate::servers::ServerPods;
use crate::watch::{self, room};
use crate::{report, write};

/// Time that sessions and writes under way have to end after the first signal.
const GRACE: Duration = Duration::from_secs(10);
/// Time for a TLS handshake, and then for a first request.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Runs until a signal comes.
///
/// # Errors
/// Whatever keeps host-api from starting or going on.
pub async fn run(config: Config) -> Result<()> {
    let signals = Signals::listen().context("cannot listen for signals")?;
    let client = client(&config).await?;
    let tls = RustlsConfig::from_pem_file(&config.tls_cert_file, &config.tls_key_file)
        .await
        .context("cannot read the certificate and its key (K3K_EXPOSE_TLS_CERT_FILE, K3K_EXPOSE_TLS_KEY_FILE)")?;
    let admin_listener = tokio::net::TcpListener::bind(config.admin_address)
        .await
        .with_context(|| format!("cannot bind K3K_EXPOSE_ADMIN_ADDRESS={}", config.admin_address))?;
    let listener = TcpListener::bind(config.listen_address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .with_context(|| format!("cannot bind K3K_EXPOSE_LISTEN_ADDRESS={}", config.listen_address))?;

    let metrics = Arc::new(Metrics::new());
    // Names this process among all that ever answered an agent.
    let epoch = Uid::parse(&format!("{:032x}", fastrand::u128(..))).context("cannot name this process")?;
    let (hub, notices) = Hub::new(epoch, config.cluster_ip_conflict);
    let hub = Arc::new(hub);
    let policy = config.ingress_policy_file.as_deref().map(PolicyFile::open).transpose()?;
    let policy = policy.map(|(file, policy)| {
        hub.with(|registry, _| registry.set_ingress_policy(policy));
        file
    });
    let [services, ingresses, clusters, pods] = ["services", "ingresses", "clusters", "server-pods"].map(Ready::new);
    let watches: Arc<[Ready]> = Arc::new([services.clone(), ingresses.clone(), clusters.clone(), pods.clone()]);
    let servers = ServerPods::default();
    let stop = CancellationToken::new();
    let sessions = TaskTracker::new();

    let admin = admin::router(Admin { hub: Arc::clone(&hub), metrics: Arc::clone(&metrics), watches: watches.clone() });
    let server = Server {
        hub: Arc::clone(&hub),
        client: client.clone(),
        metrics: Arc::clone(&metrics),
        watches,
        sessions: sessions.clone(),
        stop: stop.clone(),
    };
    info!(
        version = env!("CARGO_PKG_VERSION"),
        sessions = %config.listen_address,
        probes = %config.admin_address,
        "host-api started"
    );
    let watches = async {
        tokio::join!(
            watch::services(Arc::clone(&hub), client.clone(), services.clone()),
            watch::ingresses(Arc::clone(&hub), client.clone(), ingresses),
            watch::clusters(Arc::clone(&hub), client.clone(), clusters),
            watch::server_pods(Arc::clone(&hub), &servers, client.clone(), pods),
            room::quotas(Arc::clone(&hub), client.clone()),
            room::ranges(Arc::clone(&hub), client.clone()),
            room::addresses(Arc::clone(&hub), client.clone()),
            room::warnings(Arc::clone(&hub), client.clone(), services),
        );
    };
    let work = async {
        tokio::join!(
            write::run(Arc::clone(&hub), client.clone(), Arc::clone(&metrics), stop.clone()),
            serve_sessions(listener, tls, server, stop.clone()),
        )
        .1
    };
    tokio::select! {
        served = work => served.context("sessions cannot be served")?,
        // The others go on for as long as there is work, and then need not be waited for.
        () = watches => anyhow::bail!("a watch ended"),
        () = follow(policy, Arc::clone(&hub)) => anyhow::bail!("the policy's file is not followed any more"),
        () = report::run(client.clone(), Arc::clone(&metrics), notices) => anyhow::bail!("the reporter ended"),
        served = axum::serve(admin_listener, admin) => served.context("probes cannot be served")?,
        never = signals.obey(stop.clone()) => match never {},
    }
    info!("host-api stopped");
    Ok(())
}

/// Follows the policy's file, if there is one. Never ends.
async fn follow(policy: Option<PolicyFile>, hub: Arc<Hub>) {
    match policy {
        Some(policy) => policy.follow(hub).await,
        None => std::future::pending().await,
    }
}

/// Serves sessions until it is told to stop, and waits for those under way to say goodbye.
async fn serve_sessions(
    listener: TcpListener,
    tls: RustlsConfig,
    server: Server,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let handle = Handle::new();
    let sessions = server.sessions.clone();
    let router = router::router(server);
    let mut serving = axum_server::from_tcp(listener)?
        .map(|_| RustlsAcceptor::new(tls).handshake_timeout(HANDSHAKE).acceptor(NoDelayAcceptor))
        .first_request_timeout(HANDSHAKE)
        .handle(handle.clone());
    serving.http_builder().http2().max_concurrent_streams(16).keep_alive_interval(None);
    let drain = async {
        stop.cancelled().await;
        sessions.close();
        let _ = tokio::time::timeout(GRACE, sessions.wait()).await;
        handle.graceful_shutdown(Some(Duration::from_secs(1)));
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        served = serving.serve(router.into_make_service()) => served,
        never = drain => match never {},
    }
}

async fn client(config: &Config) -> Result<Client> {
    let mut settings = match &config.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path)
                .with_context(|| format!("cannot read K3K_EXPOSE_KUBECONFIG={}", path.display()))?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("cannot use K3K_EXPOSE_KUBECONFIG={}", path.display()))?
        }
        None => kube::Config::incluster()
            .context("not in a pod with a ServiceAccount: set K3K_EXPOSE_KUBECONFIG outside of one")?,
    };
    settings.connect_timeout = Some(Duration::from_secs(5));
    // The writer paces itself by 429, which a client that retries by itself would hide.
    settings.default_retry = false;
    Client::try_from(settings).context("cannot make a client for the host's API server")
}
