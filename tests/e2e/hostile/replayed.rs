//! Lines of an agent said again in any order: nothing but its own twins ever changes, and its last word counts.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use k3k_expose_proto::Reason;
use k3k_expose_proto::message::{AgentBeat, FromAgent, FromHost, Put, Resume, Want};
use k3k_expose_proto::service::{ClusterIps, Service, ServiceType};
use k3k_expose_tests::Rig;
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::product::HOST_API_USER;
use k3k_expose_tests::progress::say;
use k3k_expose_tests::wire::{delete, put, service_port, tally};
use kube::ResourceExt;

use super::stage::Stage;
use crate::observe::twins;
use crate::world::SOON;

const LINES: usize = 600;

#[tokio::test]
async fn lines_replayed_in_any_order_change_nothing_of_others_and_the_last_word_counts() -> Result<()> {
    let stage = Stage::start("host-replay").await?;
    let seed = fastrand::u64(..);
    say(&format!("replay: seed {seed}"));
    let mut rng = fastrand::Rng::with_seed(seed);
    let names = ["web-0", "web-1", "web-2", "new-0", "new-1"];
    let version = |name: &str, port: u16, uid: &str| -> Result<Put> {
        let mut service = Service::new(ServiceType::ClusterIP);
        service.cluster_ips = ClusterIps::Headless;
        service.ports = vec![service_port(port)?];
        put("default", name, uid, service)
    };
    let mut script = Vec::new();
    for name in names {
        for (port, uid) in [(80, "old"), (81, "old"), (80, "new"), (82, "new")] {
            let put = version(name, port, uid)?;
            script.push(FromAgent::Delete(delete(&put)));
            script.push(FromAgent::Put(put));
        }
    }
    let audit = Rig::shared().host().await?.audit();
    let before = twins(&stage.neighbor_tenant).await?;
    let mark = audit.mark().await?;
    let session = stage.session(Resume::Nothing).await?;
    for _ in 0..LINES {
        let message = &script[rng.usize(..script.len())];
        session.send(message).await?;
        // A beat that does not add up, so that everything is asked for again, and that is not obeyed.
        if rng.u8(..) < 16 {
            let told = tally(&stage.said);
            let beat = AgentBeat { count: told.count + 1, root: told.root, ready: true };
            session.send(&FromAgent::Beat(beat)).await?;
        }
    }
    drop(session);

    // Now it is said as it shall be.
    let last: Vec<Put> = names.iter().map(|name| version(name, 90, "last")).collect::<Result<_>>()?;
    let mut session = stage.session(Resume::Snapshot).await?;
    session.send_snapshot(&last).await?;
    let mut applied = BTreeSet::new();
    while applied.len() < last.len() {
        match session.next().await?.context("the session ended")? {
            FromHost::Answer(answer) if answer.reason == Reason::Applied => {
                let said = last.iter().any(|put| put.key == answer.key && put.hash == answer.hash);
                applied.extend(said.then_some(answer.key));
            }
            FromHost::Want(Want::Keys(keys)) => {
                for put in last.iter().filter(|put| keys.contains(&put.key)) {
                    session.send(&FromAgent::Put(put.clone())).await?;
                }
            }
            FromHost::Bye(bye) => bail!("{bye:?}"),
            _ => {}
        }
    }
    eventually("the twins of the last word and no other", SOON, async || {
        let standing = twins(&stage.hostile).await?;
        let ports =
            standing.values().filter_map(|twin| twin.spec.as_ref()?.ports.as_ref()?.first().map(|port| port.port));
        let ports: Vec<i32> = ports.collect();
        anyhow::ensure!(ports == [90; 5], "{ports:?}");
        anyhow::Ok(())
    })
    .await?;
    let versions = |twins: &std::collections::BTreeMap<String, k8s_openapi::api::core::v1::Service>| -> Vec<_> {
        twins.values().map(|twin| (twin.name_any(), twin.resource_version())).collect()
    };
    assert_eq!(versions(&twins(&stage.neighbor_tenant).await?), versions(&before));
    let writes = audit.writes_since(mark, |user| user == HOST_API_USER).await?.counted;
    let others: Vec<_> = writes.iter().filter(|entry| entry.namespace == stage.neighbor_tenant.namespace).collect();
    assert!(others.is_empty(), "{others:?}");
    Ok(())
}
