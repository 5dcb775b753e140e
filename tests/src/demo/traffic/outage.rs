//! Agent and host-api both away, and back.

use std::time::Duration;

use anyhow::{bail, ensure};

use super::super::stage::Stage;
use super::center::{Center, Crew, SOON, address};
use super::checks::{check, names_of};
use crate::audit::Mark;
use crate::eventually::eventually;
use crate::plane::ControlPlane;
use crate::product::{AGENT_USER, HOST_API_USER};
use crate::supervisor::Exit;
use crate::traffic::curl;
use crate::traffic::steady::Steady;

/// For one of our programs to drain and end.
const DRAIN: Duration = Duration::from_secs(20);
/// Requests while nobody of ours runs.
const REQUESTS: usize = 1000;

pub(super) async fn all(stage: &mut Stage, center: &Center, crew: &Crew<'_>) -> anyhow::Result<()> {
    stage.begin(
        "Both of ours away",
        "Twins are ordinary Services of the host, so nothing that flows depends on agent or host-api being there.",
    );
    let client = &center.fabric.client;
    let web = names_of(&crew.alpha, "web").await?;
    let edge = address(&center.alpha.services(), "edge").await?;
    let steady = Steady::start(&center.fabric, client, format!("{edge}:80").parse()?).await?;
    eventually("a first answer", SOON, async || steady.answers().is_ok_and(|count| count > 0)).await?;
    let planes = [(&center.host, HOST_API_USER), (&center.alpha.plane, AGENT_USER), (&center.beta.plane, AGENT_USER)];
    let mut marks: Vec<(&ControlPlane, &str, Mark)> = Vec::new();
    for (plane, user) in planes {
        marks.push((plane, user, plane.audit().mark().await?));
    }
    check(stage, "Agents and host-api stopped: traffic flows on", async {
        for product in [&*center.alpha.agent, &*center.beta.agent, &*center.lab.agent, &*center.host_api] {
            match product.terminate(DRAIN).await? {
                Exit::Code(0) => {}
                exit => bail!("one of ours ended with {exit:?}"),
            }
        }
        let answers = curl::many(client, &format!("http://{edge}/hostname"), REQUESTS).await?;
        let right = answers.iter().filter(|name| web.contains(*name)).count();
        ensure!(right == REQUESTS, "{right} of {REQUESTS} requests were answered by the tenant's pods");
        Ok(format!("{right} of {REQUESTS} requests answered"))
    })
    .await;
    check(stage, "After their return nothing is written", async {
        center.host_api.restart().await?;
        center.host_api.wait_ready().await?;
        for side in [&center.alpha, &center.beta] {
            side.agent.restart().await?;
        }
        for side in [&center.alpha, &center.beta] {
            side.agent.wait_ok("/syncz", SOON).await?;
        }
        center.host_api.wait_ok("/syncz", SOON).await?;
        // What is late would come within these answers.
        let before = steady.answers()?;
        eventually("a hundred answers more", SOON, async || steady.answers().is_ok_and(|now| now > before + 100))
            .await?;
        let mut counted = Vec::new();
        for (plane, user, mark) in &marks {
            let writes = plane.audit().writes_since(*mark, |who| who == *user).await?;
            counted.extend(writes.counted);
        }
        ensure!(counted.is_empty(), "{} writes, the first of them {:?}", counted.len(), counted.first());
        Ok("0 writes on the host and in both virtual clusters".to_owned())
    })
    .await;
    check(stage, "No connection was reset", async {
        Ok(format!("{} answers over one connection from before the stop", steady.answers()?))
    })
    .await;
    Ok(())
}
