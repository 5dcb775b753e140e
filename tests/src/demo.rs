//! The story that `cargo demo` tells: every step does something real, checks it, and says why it matters.
//!
//! Standard output is for the reader; what cargo and the Go build have to say goes to standard error. A step that is not
//! as promised ends the story, in either mode.

mod answers;
mod beside;
mod services;
mod stage;
pub mod traffic;
mod world;

use std::time::Duration;

use anyhow::{Context, bail};
use futures::future;
use k8s_openapi::api::core::v1::Service;
use kube::api::ListParams;
use kube::{Api, Client, Error, ResourceExt};

use crate::k3k::{Mode, Tenant, TenantOptions};
use crate::product::{AgentOptions, HostApiOptions};
use crate::supervisor;
use crate::told::SYNCED;
use crate::toolchain::{ControlPlaneBinaries, product_binaries};
use crate::wire::{WireSession, hello};
use services::Twins;
use stage::Stage;
use world::World;

/// The tenant's Cluster, and the host namespace that it lives in.
const CLUSTER: &str = "shop";
const NAMESPACE: &str = "tenant-shop";

/// A twin takes milliseconds; this only decides when to give up.
const DEADLINE: Duration = Duration::from_secs(20);

/// Tells the story; stays until Ctrl-C unless it is told `once`. Gives whether all was as promised.
pub async fn run(once: bool) -> bool {
    let mut stage = Stage::on_standard_output();
    let mut world = World::default();
    let mut told = tell(&mut stage, &mut world).await;
    if told.is_ok() && !once {
        told = invite(&mut stage, &world).await;
    }
    let stopped = match told {
        Ok(()) => {
            stage.begin("The end", "Agent and host-api drain, the clusters stop, and nothing stays behind.");
            stop(&mut stage, &mut world).await
        }
        // Whatever runs ends with this process, by its supervisor.
        Err(error) => Err(error),
    };
    match &stopped {
        Ok(()) => stage.close(true, "Everything was as promised."),
        Err(error) => {
            stage.cross(error);
            supervisor::keep_files();
            stage.close(false, "Not as promised; the step above says what.");
        }
    }
    stopped.is_ok()
}

/// Ends everything in order; a second Ctrl-C leaves that to the supervisor.
async fn stop(stage: &mut Stage, world: &mut World) -> anyhow::Result<()> {
    let ended = tokio::select! {
        ended = world.stop() => ended?,
        _ = tokio::signal::ctrl_c() => bail!("interrupted; what still ran is being killed"),
    };
    stage.tick(&format!("{ended} processes ended, none is left"));
    Ok(())
}

async fn tell(stage: &mut Stage, world: &mut World) -> anyhow::Result<()> {
    stage.title(
        "k3k-expose",
        "k3k runs many small Kubernetes clusters inside a big one, the host. In shared mode their pods run on the host, \
         so a Service made in a small cluster reaches nobody until the host has one like it: its twin. k3k-expose makes \
         that twin, keeps it right, and brings back what the host says. Here is one tenant, live.",
    );
    programs(stage)?;
    clusters(stage, world).await?;
    products(stage, world).await?;
    let twins = Twins::of(world).await?;
    services(stage, world, &twins).await?;
    change(stage, &twins).await?;
    deletion(stage, &twins).await?;
    mishap(stage, &twins).await?;
    answers::address(stage, &twins).await?;
    answers::node_port(stage, world, &twins).await?;
    answers::cluster_ip(stage, world, &twins).await?;
    token_refused(stage, world).await?;
    mode_refused(stage, world).await
}

fn programs(stage: &mut Stage) -> anyhow::Result<()> {
    stage.begin(
        "The programs",
        "Real kube-apiserver, etcd and controllers, and release builds of agent and host-api; compiled once, then cached.",
    );
    ControlPlaneBinaries::ensure()?;
    stage.tick("Kubernetes control plane, from its Go sources");
    product_binaries()?;
    stage.tick("k3k-expose-agent and k3k-expose-host-api");
    Ok(())
}

async fn clusters(stage: &mut Stage, world: &mut World) -> anyhow::Result<()> {
    stage.begin(
        "Two clusters and a tenant",
        "The host belongs to the platform team, the virtual cluster to a tenant, and no process ever gets credentials \
         to both.",
    );
    let (host, virtual_cluster) = future::try_join(World::boot_host(), World::boot_virtual_cluster()).await?;
    stage.tick("both API servers are ready");
    stage.detail(&format!("host: {}", host.url()));
    stage.detail(&format!("virtual: {}", virtual_cluster.url()));
    let tenant = Tenant::create(&host.client().await?, NAMESPACE, CLUSTER, TenantOptions::default()).await?;
    stage.tick("the tenant's Cluster and its server pod, made here the way k3k makes them");
    stage.detail(&format!("`{CLUSTER}` in host namespace `{NAMESPACE}`"));
    world.host = Some(host);
    world.virtual_cluster = Some(virtual_cluster);
    world.tenant = Some(tenant);
    Ok(())
}

async fn products(stage: &mut Stage, world: &mut World) -> anyhow::Result<()> {
    stage.begin(
        "host-api and agent",
        "host-api writes on the host and nowhere else; the agent sits beside the tenant's cluster and streams what is to \
         be exposed, known by its pod's token alone.",
    );
    world.start_host_api(HostApiOptions::default()).await?;
    stage.tick(&format!("host-api serves {}", world.host_api()?.url()));
    let tenant = world.tenant()?;
    let token = tenant.server_pod_token(0).await?;
    let options = AgentOptions::in_pod(&tenant.server_pod_name(0));
    world.start_agent(&token, options).await?;
    stage.tick("the agent's session is open and in sync");
    Ok(())
}

async fn services(stage: &mut Stage, world: &World, twins: &Twins) -> anyhow::Result<()> {
    stage.begin(
        "Three Services of the tenant",
        "Made in the virtual cluster as in any cluster; on the host each gets a twin with the same numbers, and a \
         selector that can only ever mean this tenant's pods.",
    );
    for service in services::wanted()? {
        let made = twins.make(&service).await?;
        let twin = twins.follows(&made).await?;
        stage.tick(&services::sentence(&made));
        stage.table(&beside::rows(&made, &twin));
    }
    for service in services::wanted()? {
        twins.applied(&service.name_any()).await?;
    }
    stage.tick(&format!("each of the three says so itself: condition {SYNCED} is True"));
    world.agent()?.wait_ok("/syncz", DEADLINE).await
}

async fn change(stage: &mut Stage, twins: &Twins) -> anyhow::Result<()> {
    stage.begin(
        "A change",
        "The tenant edits port and selector of `web`; the twin is patched in place, so its address and its UID stay.",
    );
    let before = twins.twin(services::EDITED).await?;
    let edited = twins.edit().await?;
    let twin = twins.follows(&edited).await?;
    if twin.metadata.uid != before.metadata.uid {
        bail!("the twin was made anew instead of patched");
    }
    stage.tick("the twin followed");
    stage.table(&beside::changed(&edited, &twin));
    Ok(())
}

async fn deletion(stage: &mut Stage, twins: &Twins) -> anyhow::Result<()> {
    stage.begin(
        "A deletion",
        "The tenant deletes `api`; without that reaching the host its node port would stay open, and taken.",
    );
    twins.delete(services::DELETED).await?;
    stage.tick("the twin is gone, the other two stay");
    Ok(())
}

async fn mishap(stage: &mut Stage, twins: &Twins) -> anyhow::Result<()> {
    stage.begin(
        "A mishap on the host",
        "Somebody there deletes the twin of `edge`; the tenant did nothing wrong, so it comes back, with the same numbers.",
    );
    twins.lose(services::LOST).await?;
    stage.tick("the twin is back");
    Ok(())
}

async fn token_refused(stage: &mut Stage, world: &World) -> anyhow::Result<()> {
    stage.begin(
        "A token that opens one door",
        "The agent lives next to the tenant, so what it holds must be worthless elsewhere: its token is for host-api \
         alone.",
    );
    let token = std::fs::read_to_string(world.agent()?.token_file().path())?;
    let client = world.host()?.client_with_token(&token).await?;
    refused_by_api_server(client).await?;
    stage.tick("the host's API server answers 401 Unauthorized to the agent's own token");
    Ok(())
}

async fn refused_by_api_server(client: Client) -> anyhow::Result<()> {
    let services: Api<Service> = Api::namespaced(client, NAMESPACE);
    match services.list(&ListParams::default()).await {
        Err(Error::Api(status)) if status.code == 401 => Ok(()),
        Err(error) => Err(error).context("the host's API server did not refuse the token with 401"),
        Ok(_) => bail!("the host's API server took the agent's token"),
    }
}

async fn mode_refused(stage: &mut Stage, world: &World) -> anyhow::Result<()> {
    stage.begin(
        "A cluster in virtual mode",
        "Its pods run inside its server pod, where no twin could reach them; it is told so at the door instead of \
         waiting for addresses in vain.",
    );
    let host = world.host()?.client().await?;
    let options = TenantOptions { mode: Mode::Virtual, ..TenantOptions::default() };
    let other = Tenant::create(&host, "tenant-lab", "lab", options).await?;
    let token = other.server_pod_token(0).await?;
    let hello = hello("any-virtual-cluster", &[])?;
    let problem = match WireSession::open(world.host_api()?, &token, hello).await {
        Ok(_) => bail!("host-api opened a session for a cluster in virtual mode"),
        Err(problem) => problem,
    };
    if (problem.status, problem.reason.as_str()) != (403, "UnsupportedMode") {
        return Err(problem).context("refused, but not for its mode");
    }
    stage.tick(&format!("host-api answers {} {}", problem.status, problem.reason));
    stage.detail(&format!("\"{}\"", problem.detail));
    Ok(())
}

/// Hands the two clusters over and waits for Ctrl-C.
async fn invite(stage: &mut Stage, world: &World) -> anyhow::Result<()> {
    let (host, virtual_cluster) = (world.host()?, world.virtual_cluster()?);
    let edge = world.tenant()?.twin_name(services::LOST, "default");
    stage.begin("Your turn", "Both clusters stay up until Ctrl-C; open a shell for each and change something.");
    stage.shell(
        "the tenant",
        virtual_cluster.kubeconfig_path(),
        &[
            "kubectl get services",
            "kubectl create service clusterip hello --tcp=80:8080",
            "kubectl wait --for=condition=expose.k3k.io/Synced service/hello",
            &format!("kubectl describe service {}   # its Events say what was renumbered", answers::MOVED),
            &format!("kubectl delete service {}", services::LOST),
        ],
    );
    stage.shell(
        "the platform team",
        host.kubeconfig_path(),
        &[
            &format!("kubectl -n {NAMESPACE} get services --watch"),
            &format!("kubectl -n {NAMESPACE} patch service {edge} --subresource=status --type=merge \\"),
            r#"  -p '{"status":{"loadBalancer":{"ingress":[{"ip":"203.0.113.20"}]}}}'"#,
            &format!("kubectl -n {NAMESPACE} delete service --all   # they come back; thrice a minute is a contest"),
        ],
    );
    stage.gap();
    for (name, url) in [("agent", world.agent()?.admin_url()), ("host-api", world.host_api()?.admin_url())] {
        stage.line(&format!("{name:<9} {url}/syncz?verbose  {url}/metrics"));
    }
    stage.line("Ctrl-C ends it all.");
    tokio::signal::ctrl_c().await.context("waiting for Ctrl-C")
}
