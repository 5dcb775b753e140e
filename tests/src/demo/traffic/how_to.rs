//! What README.md tells a tenant to type, typed.

use anyhow::{Context, ensure};

use super::super::stage::Stage;
use super::center::{Center, Crew};
use crate::readme;
use crate::traffic::how_to::{Shell, blocks};

/// The heading of the how-to.
const SECTION: &str = "Expose a workload";
/// The part whose commands go to a cluster in virtual mode.
const VIRTUAL_MODE: &str = "Which mode?";

pub(super) async fn all(stage: &mut Stage, center: &Center, crew: &Crew<'_>) -> anyhow::Result<()> {
    let text = readme::text()?;
    let blocks = blocks(&text, SECTION);
    ensure!(!blocks.is_empty(), "README.md has no commands under {SECTION}");
    let shell = |path| Shell::new(path, &center.fabric.client, crew.alpha.folder());
    let mut virtual_mode = shell(center.lab.plane.kubeconfig_path())?;
    let mut tenant = shell(center.alpha.plane.kubeconfig_path())?;
    let mut host = shell(center.host.kubeconfig_path())?;
    let mut heading = "";
    for block in &blocks {
        if heading != block.heading {
            heading = &block.heading;
            stage.begin(&format!("README: {heading}"), "Its commands, and what it says that comes out.");
        }
        let shell = match (block.host, heading) {
            (true, _) => &mut host,
            (false, VIRTUAL_MODE) => &mut virtual_mode,
            (false, _) => &mut tenant,
        };
        for step in &block.steps {
            shell.run(step).await.with_context(|| format!("README.md, {heading}"))?;
            stage.check(step.command.lines().next().unwrap_or_default(), "");
        }
    }
    Ok(())
}
