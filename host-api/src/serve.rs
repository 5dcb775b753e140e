//! The process: clients, watches, writer and servers, joined until the first one fails or a signal comes. I/O.

mod certify;
mod listen;
mod replica;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum_server::tls_rustls::RustlsConfig;
use k3k_expose_process::stop::Signals;
use kube::Client;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::admin::{self, Admin};
use crate::admission::stores::Writers;
use crate::admission::{self, Admission};
use crate::authorities::Authorities;
use crate::bounds::Bounds;
use crate::config::Config;
use crate::hub::{Hub, new_epoch};
use crate::metrics::Metrics;
use crate::policy::status;
use crate::ready::Ready;
use crate::router::Server;
use crate::servers::ServerPods;
use crate::watch::{self, room, surroundings};
use crate::{kubeconfig, relabel, report, write};
use certify::Certify;

/// Runs until a signal comes.
///
/// # Errors
/// Whatever keeps host-api from starting or going on.
pub async fn run(config: Config) -> Result<()> {
    let signals = Signals::listen().context("cannot listen for signals")?;
    let client = client(&config).await?;
    let admin_listener = tokio::net::TcpListener::bind(config.admin_address)
        .await
        .with_context(|| format!("cannot bind K3K_EXPOSE_ADMIN_ADDRESS={}", config.admin_address))?;
    let listener = listen::bind("K3K_EXPOSE_LISTEN_ADDRESS", config.listen_address)?;
    let reviews = listen::bind("K3K_EXPOSE_ADMISSION_ADDRESS", config.admission_address)?;

    let metrics = Arc::new(Metrics::new());
    let certify = Certify::new(&config.certificates, &metrics)?;
    let bundle = certify.bundle();
    let (elector, leadership) = replica::join(&config, &client);
    let (hub, notices) = Hub::new(new_epoch(), config.cluster_ip_conflict);
    let hub = Arc::new(hub);
    let bounds = Bounds::default().with_objects(config.tenant_objects);
    hub.with(|registry, _| registry.set_default_bounds(bounds));
    let watched = [
        "services",
        "ingresses",
        "endpoint-slices",
        "clusters",
        "server-pods",
        "stateful-sets",
        "namespaces",
        "limit-ranges",
        "policies",
        "certificate",
    ]
    .map(Ready::new);
    let [services, ingresses, slices, clusters, pods, sets, namespaces, ranges, policies, certificate] =
        watched.clone();
    // Nobody waits for these two: they put right what was done without us.
    let [all_pods, maps] = ["pods", "authorities"].map(Ready::new);
    let watches: Arc<[Ready]> = Arc::new(watched);
    let mut known = Writers::default();
    let stores = known.stores();
    let servers = ServerPods::default();
    let authorities = Authorities::default();
    let stop = CancellationToken::new();
    let sessions = TaskTracker::new();

    let admin = admin::router(Admin { hub: Arc::clone(&hub), metrics: Arc::clone(&metrics), watches: watches.clone() });
    let reviewer = admission::router(Admission {
        hub: Arc::clone(&hub),
        client: client.clone(),
        stores: stores.clone(),
        settings: config.sidecar.clone(),
        metrics: Arc::clone(&metrics),
        turns: Arc::default(),
    });
    let server = Server {
        hub: Arc::clone(&hub),
        client: client.clone(),
        gate: Arc::default(),
        metrics: Arc::clone(&metrics),
        watches,
        leadership: leadership.clone(),
        sessions: sessions.clone(),
        stop: stop.clone(),
    };
    info!(
        version = env!("CARGO_PKG_VERSION"),
        sessions = %config.listen_address,
        admission = %config.admission_address,
        probes = %config.admin_address,
        "host-api started"
    );
    let watches = async {
        tokio::join!(
            watch::services(Arc::clone(&hub), client.clone(), services.clone()),
            watch::ingresses(Arc::clone(&hub), client.clone(), ingresses),
            watch::endpoints::slices(Arc::clone(&hub), client.clone(), slices),
            watch::endpoints::addresses(Arc::clone(&hub), client.clone()),
            watch::clusters(Arc::clone(&hub), client.clone(), clusters, |event| {
                known.clusters.apply_watcher_event(event);
                authorities.look_again();
            }),
            watch::server_pods(Arc::clone(&hub), &servers, client.clone(), pods),
            room::quotas(Arc::clone(&hub), client.clone(), &mut known.quotas),
            room::ranges(Arc::clone(&hub), client.clone()),
            room::addresses(Arc::clone(&hub), client.clone()),
            room::warnings(Arc::clone(&hub), client.clone(), services),
            surroundings::sets(client.clone(), &mut known.sets, sets),
            surroundings::namespaces(Arc::clone(&hub), client.clone(), &mut known.namespaces, namespaces),
            watch::policies::policies(Arc::clone(&hub), client.clone(), policies),
            surroundings::limit_ranges(client.clone(), &mut known.ranges, ranges),
            surroundings::authorities(client.clone(), &authorities, maps.clone()),
        );
    };
    // What is put right after the fact needs one replica only.
    let upkeep = async {
        let (leader, client) = (&leadership, &client);
        tokio::join!(
            leader.in_each_term(|| relabel::run(client.clone(), &metrics, all_pods.clone())),
            leader.in_each_term(|| status::run(client.clone(), Arc::clone(&hub))),
            leader.in_each_term(|| servers.tell(&stores, &hub, &metrics)),
            leader.in_each_term(|| authorities.run(client.clone(), &stores, &maps, bundle.clone())),
            leader.in_each_term(|| certify::tell_api_server(client.clone(), &config.certificates, bundle.clone())),
        );
    };
    let tls = RustlsConfig::from_config(certify.shown.settings());
    let work = async {
        tokio::join!(
            write::in_each_term(
                Arc::clone(&hub),
                client.clone(),
                Arc::clone(&metrics),
                leadership.clone(),
                stop.clone()
            ),
            listen::sessions(listener, tls.clone(), server, stop.clone()),
        )
        .1
    };
    tokio::select! {
        served = replica::elect(elector, work) => served.context("sessions cannot be served")?,
        // The others go on for as long as there is work, and then need not be waited for.
        () = watches => anyhow::bail!("a watch ended"),
        () = certify.run(client.clone(), &config, &metrics, certificate) => anyhow::bail!("the upkeep of certificates ended"),
        () = upkeep => anyhow::bail!("an upkeep ended"),
        served = listen::reviews(reviews, tls.clone(), reviewer) => served.context("admission cannot be served")?,
        () = report::run(client.clone(), Arc::clone(&metrics), notices) => anyhow::bail!("the reporter ended"),
        served = axum::serve(admin_listener, admin) => served.context("probes cannot be served")?,
        never = signals.obey(stop.clone()) => match never {},
    }
    info!("host-api stopped");
    Ok(())
}

async fn client(config: &Config) -> Result<Client> {
    let mut settings = match &config.kubeconfig {
        Some(path) => kubeconfig::read(path).await?,
        None => kube::Config::incluster()
            .context("not in a pod with a ServiceAccount: set K3K_EXPOSE_KUBECONFIG outside of one")?,
    };
    settings.connect_timeout = Some(Duration::from_secs(5));
    // The writer paces itself by 429, which a client that retries by itself would hide.
    settings.default_retry = false;
    Client::try_from(settings).context("cannot make a client for the host's API server")
}
