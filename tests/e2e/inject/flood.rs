//! Whoever reaches the port of reviews can neither keep the agent from server pods, nor make the host's API server work for him.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::join_all;
use k3k_expose_host_api::inject::CREATORS;
use k3k_expose_tests::k3k::Tenant;
use k3k_expose_tests::product::HOST_API_USER;
use k3k_expose_tests::{progress, took};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::stage;

/// Reviews under way at any moment.
const FLOOD: usize = 100;
/// How long it lasts, while one server pod after another is made.
const LASTS: Duration = Duration::from_secs(3);
/// Look-ups that may follow each other, and how many a second come after them.
const LOOK_UPS: (f64, f64) = (40.0, 10.0);

/// A review as the API server would send it, of a pod whose StatefulSet nobody has ever seen.
fn forged(number: usize) -> Value {
    let set = format!("k3k-{number}-server");
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
    "uid": number.to_string(), "namespace": "inject-flood", "operation": "CREATE", "userInfo": {"username": CREATORS[0]},
    "object": {
        "metadata": {"name": format!("{set}-0"), "labels": {"role": "server"},
            "ownerReferences": [Tenant::stateful_set_reference(&set, "none")]},
        "spec": {"containers": []},
    }}})
}

#[tokio::test]
async fn a_flood_of_forged_reviews_keeps_no_agent_out_and_is_not_passed_on_to_the_api_server() -> Result<()> {
    // The audit log is to tell of this flood alone.
    let stage = stage::boot("inject-flood").await?;
    let client = stage.host.client().await?;
    stage::asked_of(&client).await?;
    let authorities = reqwest::Certificate::from_pem_bundle(stage.host_api.ca_pem().as_bytes())?;
    // From another address than the API server's.
    let forger =
        reqwest::Client::builder().tls_certs_only(authorities).no_proxy().local_address(Some([127, 0, 0, 2].into()));
    let (forger, url) = (forger.build()?, format!("{}/v1/inject", stage.host_api.admission_url()));
    let (audit, began) = (stage.host.audit(), Instant::now());
    let mark = audit.mark().await?;
    let flood = join_all((0..FLOOD).map(async |first| {
        let mut number = first;
        loop {
            // Whether it is answered or told that its time is over is all the same.
            let _ = forger.post(&url).body(forged(number).to_string()).send().await;
            number += FLOOD;
        }
    }));
    let pods = async {
        let mut number = 0;
        while began.elapsed() < LASTS {
            number += 1;
            let tenant = stage::tenant(&client, &format!("inject-flood-{number}"), "mine").await?;
            let made = Instant::now();
            let pod = stage::server_pod(&client, &tenant).await?;
            took("a server pod in a flood of forged reviews", made.elapsed(), Duration::from_secs(1));
            ensure!(stage::sidecar(&pod).is_some(), "server pod {number} was made without the agent");
        }
        anyhow::Ok(())
    };
    tokio::select! {
        _ = flood => unreachable!("a flood without end"),
        made = pods => made?,
    }
    let seconds = began.elapsed();
    let entries = audit.since(mark).await?;
    let looked = entries.iter().filter(|entry| entry.user == HOST_API_USER && entry.verb == "get");
    let looked = looked.filter(|entry| entry.namespace == "inject-flood").count();
    progress::say(&format!("{looked} look-ups in {:.1} s of flood", seconds.as_secs_f64()));
    let most = LOOK_UPS.0 + LOOK_UPS.1 * (seconds.as_secs_f64() + 1.0);
    ensure!(f64::from(u32::try_from(looked)?) <= most, "{looked} look-ups, not {most}");
    ensure!(looked > 0, "the flood was not noticed");
    Ok(())
}
