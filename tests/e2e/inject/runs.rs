//! From the stored pod to a twin and back, with nothing but the pod spec.

use anyhow::{Context, Result, bail, ensure};
use k3k_expose_tests::k3k::Tenant;
use k3k_expose_tests::kubelet::{Kubelet, Step};
use k3k_expose_tests::supervisor::Signal;
use k3k_expose_tests::token::{self, BoundPod, TokenWish};
use k3k_expose_tests::told::wait_synced;
use k3k_expose_tests::{ControlPlane, cloud, eventually, rig, took};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, Error, ResourceExt};
use serde_json::json;
use tokio::time::{Duration, Instant};

use super::stage::{self, SIDECAR};
use crate::world::{SOON, create, ingress, service};

/// Of the hour that an injected token lives: kubelet asks for another one then.
const FOUR_FIFTHS: Duration = Duration::from_secs(2880);

/// Runs a test beside a kubelet; whoever ends first in error ends both.
async fn beside<T>(kubelet: &Kubelet, test: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        ended = kubelet.run() => match ended { Ok(never) => match never {}, Err(error) => Err(error.context("kubelet")) },
        outcome = test => outcome,
    }
}

async fn virtual_cluster(name: &str) -> Result<ControlPlane> {
    ControlPlane::start(rig::with_slice(rig::virtual_options(name))?).await
}

async fn ready(kubelet: &Kubelet) -> Result<()> {
    eventually("the pod is Ready", SOON, async || kubelet.steps().contains(&Step::Ready(true))).await
}

/// Nothing that a tenant's control plane would feel has happened since the pod was Ready.
fn undisturbed(kubelet: &Kubelet) {
    let disturbed = |step: &&Step| matches!(step, Step::Restarted(..) | Step::Ready(false));
    let steps = kubelet.steps();
    let since = steps.iter().skip_while(|step| **step != Step::Ready(true));
    assert_eq!(since.filter(disturbed).collect::<Vec<_>>(), Vec::<&Step>::new());
}

/// How often tokens were renewed.
fn renewed(kubelet: &Kubelet) -> usize {
    kubelet.steps().iter().filter(|step| **step == Step::Renewed).count()
}

async fn a_service(client: &Client, name: &str) -> Result<Service> {
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let spec = json!({"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80}]});
    create(&services, &service(name, spec)).await
}

async fn twin(tenant: &Tenant, name: &str) -> Result<Service> {
    let twin = tenant.twin_name(name, "default");
    eventually(&format!("the twin of {name}"), SOON, async || {
        tenant.host_services().get_opt(&twin).await.ok().flatten()
    })
    .await
}

#[tokio::test]
async fn an_injected_pod_runs_by_its_spec_alone_and_a_service_gets_its_twin_and_address_back() -> Result<()> {
    let (_, client) = stage::shared().await?;
    let plane = virtual_cluster("inject-runs").await?;
    let tenant = stage::tenant(&client, "inject-runs", "mine").await?;
    let pod = stage::server_pod(&client, &tenant).await?;
    stage::sidecar(&pod).context("no agent beside k3s")?;
    let kubelet = Kubelet::new(&client, &tenant.namespace, &pod.name_any(), &plane)?;
    beside(&kubelet, async {
        // k3k writes the kubeconfig after the server is up, so all this is without one.
        ready(&kubelet).await?;
        let main = tenant.stateful_set.clone();
        let order = [Step::Started(SIDECAR.into()), Step::Up(SIDECAR.into()), Step::Started(main), Step::Ready(true)];
        assert_eq!(kubelet.steps(), order);

        tenant.publish_kubeconfig(&plane).await?;
        let began = Instant::now();
        let in_virtual = plane.client().await?;
        let made = a_service(&in_virtual, "web").await?;
        let twin = twin(&tenant, "web").await?;
        took("a twin after the kubeconfig came late", began.elapsed(), Duration::from_secs(5));
        cloud::set_ingress(&tenant.host_services(), &twin.name_any(), &json!([{"ip": "192.0.2.7"}])).await?;
        let services: Api<Service> = Api::default_namespaced(in_virtual.clone());
        let address = eventually("the address in the virtual cluster", SOON, async || {
            let web = services.get("web").await?;
            let entries = ingress(&web);
            if entries[0]["ip"] == "192.0.2.7" { Ok(web) } else { bail!("{entries}") }
        })
        .await?;
        assert_eq!(address.uid(), made.uid());
        wait_synced(&services, "web", "True", "Applied", SOON).await?;

        for again in ["minted-1", "minted-2"] {
            tenant.publish_kubeconfig(&plane).await?;
            let renewals = renewed(&kubelet);
            kubelet.age_tokens(FOUR_FIFTHS);
            eventually("another token", SOON, async || renewed(&kubelet) > renewals).await?;
            a_service(&in_virtual, again).await?;
            wait_synced(&services, again, "True", "Applied", SOON).await?;
        }
        undisturbed(&kubelet);
        Ok(())
    })
    .await?;
    let stays = stage::server_pod(&client, &tenant).await?;
    assert_eq!(stays.uid(), pod.uid(), "the controller did not make it again");
    Ok(())
}

#[tokio::test]
async fn every_token_that_the_sidecar_mounts_is_none_for_the_host() -> Result<()> {
    let (stage, client) = stage::shared().await?;
    let tenant = stage::tenant(&client, "inject-tokens", "mine").await?;
    let pod = stage::server_pod(&client, &tenant).await?;
    let mounts = stage::sidecar(&pod).context("no agent")?.volume_mounts.clone().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let mut tokens = 0;
    for volume in spec.volumes.iter().flatten().filter(|volume| mounts.iter().any(|mount| mount.name == volume.name)) {
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            let Some(wish) = &source.service_account_token else { continue };
            let bound = BoundPod { name: pod.name_any(), uid: pod.uid().unwrap_or_default() };
            let audiences = wish.audience.clone().into_iter().collect();
            let seconds = wish.expiration_seconds.context("a life time")?;
            let wish = TokenWish { audiences, seconds, pod: Some(bound) };
            let token = token::request(&client, &tenant.namespace, "default", wish).await?;
            let as_agent = stage.host.client_with_token(&token).await?;
            let refused = Api::<Namespace>::all(as_agent).list(&ListParams::default()).await;
            assert!(matches!(&refused, Err(Error::Api(status)) if status.code == 401), "{refused:?}");
            tokens += 1;
        }
    }
    assert_eq!(tokens, 1, "of all tokens in the pod the sidecar mounts this one");
    // k3s's own mount is as it was: the API server adds it to containers without one.
    let main = &spec.containers[0].volume_mounts;
    assert!(main.iter().flatten().any(|mount| mount.name.starts_with("kube-api-access-")), "{main:?}");
    Ok(())
}

#[tokio::test]
async fn neither_a_late_virtual_cluster_nor_a_host_api_that_is_down_disturbs_the_pod() -> Result<()> {
    // It stops host-api, so it has all for itself.
    let stage = stage::boot("inject-down").await?;
    let client = stage.host.client().await?;
    let plane = virtual_cluster("inject-down").await?;
    plane.kill_api_server().await?;
    let tenant = stage::tenant(&client, "inject-down", "mine").await?;
    let pods = stage::pods(&client, &tenant.namespace);
    let name = tenant.server_pod_name(0);
    eventually("a pod with the agent", SOON, async || {
        let pod: Pod = pods.get(&name).await?;
        if stage::sidecar(&pod).is_none() {
            tenant.delete_pod(&name).await?;
            bail!("made before the API server asked");
        }
        anyhow::Ok(())
    })
    .await?;
    tenant.publish_kubeconfig(&plane).await?;
    let kubelet = Kubelet::new(&client, &tenant.namespace, &name, &plane)?;
    beside(&kubelet, async {
        ready(&kubelet).await?;
        let (status, text) = kubelet.get("/syncz?verbose").await?;
        ensure!(status == 503 && text.contains("[-]"), "the reason is told: {text}");
        plane.start_api_server().await?;
        let in_virtual = plane.client().await?;
        a_service(&in_virtual, "first").await?;
        twin(&tenant, "first").await?;

        stage.host_api.kill().await?;
        a_service(&in_virtual, "second").await?;
        eventually("the agent tells that its session ended", SOON, async || {
            kubelet.get("/syncz?verbose").await.is_ok_and(|(_, text)| text.contains("[-]session"))
        })
        .await?;
        kubelet.age_tokens(FOUR_FIFTHS);
        stage.host_api.restart().await?;
        let began = Instant::now();
        twin(&tenant, "second").await?;
        took("sync after host-api came back", began.elapsed(), Duration::from_secs(5));
        undisturbed(&kubelet);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_token_is_renewed_at_four_fifths_of_its_life_and_an_agent_that_ends_or_hangs_is_started_again() -> Result<()>
{
    let (stage, client) = stage::shared().await?;
    let tenant = stage::tenant(&client, "inject-again", "mine").await?;
    let pod = hasty(&stage::server_pod(&client, &tenant).await?)?;
    stage::pods(&client, &tenant.namespace).create(&PostParams::default(), &pod).await?;
    let kubelet = Kubelet::new(&client, &tenant.namespace, &pod.name_any(), &stage.host)?;
    beside(&kubelet, async {
        ready(&kubelet).await?;
        kubelet.age_tokens(FOUR_FIFTHS - Duration::from_secs(300));
        kubelet.signal(Signal::Kill);
        again(&kubelet, "exit").await?;
        assert_eq!(renewed(&kubelet), 0, "five minutes before it is due");
        kubelet.age_tokens(Duration::from_secs(300));
        eventually("another token", SOON, async || renewed(&kubelet) == 1).await?;
        kubelet.signal(Signal::Stop);
        again(&kubelet, "liveness").await
    })
    .await
}

/// A pod with the same spec, but for a liveness probe that loses its patience in seconds instead of a minute.
fn hasty(pod: &Pod) -> Result<Pod> {
    let mut spec = json!(pod.spec);
    let probe = &mut spec["initContainers"][0]["livenessProbe"];
    ensure!(probe["httpGet"]["path"] == "/livez", "{probe}");
    for (field, value) in [("periodSeconds", 1), ("timeoutSeconds", 1), ("failureThreshold", 5)] {
        probe[field] = json!(value);
    }
    Ok(serde_json::from_value(json!({"metadata": {"name": "hasty"}, "spec": spec}))?)
}

/// The agent was started again for that reason, and the pod is Ready again.
async fn again(kubelet: &Kubelet, reason: &str) -> Result<()> {
    eventually(&format!("started again after {reason}"), SOON * 2, async || {
        let steps = kubelet.steps();
        let at = steps.iter().rposition(|step| matches!(step, Step::Restarted(_, why) if *why == reason));
        ensure!(at.is_some_and(|at| steps[at..].contains(&Step::Ready(true))), "{steps:?}");
        anyhow::Ok(())
    })
    .await
}

#[tokio::test]
async fn the_authorities_come_by_themselves_and_are_not_written_twice() -> Result<()> {
    let (stage, client) = stage::shared().await?;
    let tenant = stage::tenant(&client, "inject-ca", "mine").await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &tenant.namespace);
    let map = eventually("the ConfigMap", SOON, async || maps.get_opt("k3k-expose-ca").await.ok().flatten()).await?;
    assert_eq!(map.data.clone().unwrap_or_default()["ca.crt"], stage.host_api.ca_pem());
    // A change by hand is undone, and what is right is left alone, whatever comes along meanwhile.
    let wrong: ConfigMap = ConfigMap { data: Some([("ca.crt".to_owned(), "none".to_owned())].into()), ..map.clone() };
    maps.replace("k3k-expose-ca", &PostParams::default(), &wrong).await?;
    let mended = eventually("the bundle put right", SOON, async || {
        let map = maps.get("k3k-expose-ca").await.ok()?;
        (map.data.clone()?["ca.crt"] == stage.host_api.ca_pem()).then_some(map)
    })
    .await?;
    let neighbor = stage::tenant(&client, "inject-ca-neighbor", "other").await?;
    let theirs: Api<ConfigMap> = Api::namespaced(client.clone(), &neighbor.namespace);
    eventually("the neighbor's", SOON, async || theirs.get_opt("k3k-expose-ca").await.ok().flatten()).await?;
    assert_eq!(maps.get("k3k-expose-ca").await?.resource_version(), mended.resource_version());
    Ok(())
}
