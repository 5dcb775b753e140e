//! `cargo demo -- --traffic`: two tenants in a data center of network namespaces, and packets that show what is promised.
//!
//! Every promise is a check with a name and a figure; one that fails does not end the story, but spoils it. The checks of the how-to are the
//! commands of README.md itself.

mod center;
mod certificates;
mod checks;
mod how_to;
mod ingress;
mod isolation;
mod numbers;
mod outage;
mod services;

use anyhow::{Context, ensure};

use super::stage::Stage;
use crate::supervisor;
use crate::toolchain::{ControlPlaneBinaries, product_binaries};
use crate::traffic::isolate;
use crate::traffic::needs::{self, Tools};
use center::{Center, Crew};

/// Finds or builds what needs the network, and goes on in a namespace that has none. Comes back only when it cannot.
pub fn enter(once: bool) {
    let mut stage = Stage::on_standard_output();
    stage.title("k3k-expose: traffic", "What reaches whom, shown with packets.");
    let error = match prepare(&mut stage) {
        Ok(()) if once => isolate::again(&["--traffic", "--inside", "--once"]),
        Ok(()) => isolate::again(&["--traffic", "--inside"]),
        Err(error) => error,
    };
    stage.cross(&error);
    stage.close(false, "Not started; above is what is missing.");
}

fn prepare(stage: &mut Stage) -> anyhow::Result<()> {
    stage.begin(
        "The machine",
        "Namespaces need root, kube-proxy needs nftables, and the ingress controller is a real one.",
    );
    needs::check()?;
    stage.tick("rights, programs and kernel have all that is needed");
    ControlPlaneBinaries::ensure()?;
    product_binaries()?;
    stage.tick("control planes, agent and host-api are built");
    Ok(())
}

/// Tells the story inside that namespace; gives whether all was as promised.
pub async fn run(once: bool) -> bool {
    let mut stage = Stage::on_standard_output().after(1);
    let told = tell(&mut stage, once).await;
    match &told {
        Ok(()) => stage.close(true, &format!("{} checks, all as promised.", stage.checks().0)),
        Err(error) => {
            stage.cross(error);
            supervisor::keep_files();
            stage.close(false, "Not as promised; the crosses above say what.");
        }
    }
    told.is_ok()
}

async fn tell(stage: &mut Stage, once: bool) -> anyhow::Result<()> {
    let tools = needs::check()?;
    isolate::become_router().await?;
    let center = Center::build(stage).await?;
    let crew = Crew::of(&center, &tools).await?;
    let mut balancer = crew.balancer()?;
    tokio::select! {
        told = scenes(stage, &center, &crew, &tools, once) => told?,
        Err(error) = crew.alpha.run() => return Err(error.context("pods of tenant alpha")),
        Err(error) = crew.beta.run() => return Err(error.context("pods of tenant beta")),
        Err(error) = crew.platform.run() => return Err(error.context("pods of the host")),
        Err(error) = balancer.run() => return Err(error.context("the load balancer")),
    }
    let (held, failed) = stage.checks();
    ensure!(failed == 0, "{failed} checks failed, {held} held");
    Ok(())
}

async fn scenes(stage: &mut Stage, center: &Center, crew: &Crew<'_>, tools: &Tools, once: bool) -> anyhow::Result<()> {
    center.install_controllers(stage, tools).await?;
    let told = how_to::all(stage, center, crew).await;
    stage.note(told);
    center.deploy(stage, crew).await?;
    let told = services::all(stage, center, crew).await;
    stage.note(told);
    let told = ingress::host_controller(stage, center, crew).await;
    stage.note(told);
    let told = certificates::all(stage, center, crew).await;
    stage.note(told);
    let told = ingress::own_controller(stage, center, crew).await;
    stage.note(told);
    let told = numbers::all(stage, center, crew).await;
    stage.note(told);
    let told = isolation::all(stage, center, crew).await;
    stage.note(told);
    let told = outage::all(stage, center, crew).await;
    stage.note(told);
    if !once {
        invite(stage, center).await?;
    }
    Ok(())
}

/// Hands the data center over and waits for Ctrl-C.
async fn invite(stage: &mut Stage, center: &Center) -> anyhow::Result<()> {
    stage.begin(
        "Your turn",
        "Everything stays up until Ctrl-C. All of it is in a network namespace of its own; enter it first.",
    );
    let inside = format!("nsenter --net=/proc/{}/ns/net", std::process::id());
    let outside = format!("nsenter --net={} curl http://192.0.2.11:<node port>/hostname", center.fabric.client.path());
    stage.shell("tenant alpha", center.alpha.plane.kubeconfig_path(), &[&format!("{inside} kubectl get services")]);
    stage.shell("the platform team", center.host.kubeconfig_path(), &[&format!("{inside} kubectl get services -A")]);
    stage.gap();
    stage.line(&format!("the client outside   {outside}"));
    stage.line("Ctrl-C ends it all.");
    tokio::signal::ctrl_c().await.context("waiting for Ctrl-C")
}
