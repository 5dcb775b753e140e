//! Clusters, tenants and ingress controllers of the data center.

use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Namespace, Secret, Service};
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::super::stage::Stage;
use crate::admitted::{apply, of_namespace};
use crate::eventually::eventually;
use crate::k3k::{self, Mode, Tenant, TenantOptions};
use crate::plane::{ControlPlane, PlaneOptions};
use crate::product::{Agent, AgentOptions, HostApi, HostApiOptions};
use crate::rig::virtual_options;
use crate::supervisor::Process;
use crate::traffic::balancer::Balancer;
use crate::traffic::needs::Tools;
use crate::traffic::pods::{Pods, make_nodes};
use crate::traffic::{Fabric, kube_proxy};
use crate::{manifest, scratch, told};

/// The namespace of the virtual clusters in which the checks work; people type in `default`.
pub(super) const NAMESPACE: &str = "shop";
/// For anything that takes milliseconds.
pub(super) const SOON: Duration = Duration::from_secs(30);

/// What agents are to synchronize besides Services.
const SYNCED: [&str; 2] = ["K3K_EXPOSE_SYNC_INGRESSES", "K3K_EXPOSE_SYNC_INGRESS_TLS"];
/// An ingress controller; `CLASS` stands for its class.
const CONTROLLER: &str = include_str!("../../traffic/contour.yaml");
/// The class of the host's controller, and that of the tenant's own.
const CLASSES: [&str; 2] = ["public", "own"];

/// Everything but pods.
pub(super) struct Center {
    // Fields are dropped in this order, clients before their servers.
    pub(super) alpha: Side,
    pub(super) beta: Side,
    pub(super) lab: Side,
    pub(super) host_api: HostApi,
    _proxies: Vec<Process>,
    pub(super) host: ControlPlane,
    pub(super) host_client: Client,
    pub(super) fabric: Fabric,
}

/// A tenant.
pub(super) struct Side {
    pub(super) agent: Agent,
    pub(super) tenant: Tenant,
    pub(super) plane: ControlPlane,
    client: Client,
}

/// Who runs pods.
pub(super) struct Crew<'a> {
    pub(super) alpha: Pods<'a>,
    pub(super) beta: Pods<'a>,
    pub(super) platform: Pods<'a>,
    center: &'a Center,
}

impl Center {
    pub(super) async fn build(stage: &mut Stage) -> anyhow::Result<Self> {
        stage.begin(
            "A data center",
            "A host of two nodes, a client outside, and three virtual clusters: `mine` of team-a and `mine` of team-b, in shared \
             mode and with equal names for everything, and `lab`, in virtual mode.",
        );
        let fabric = Fabric::lay().await?;
        stage.tick("router, two nodes and a client, each in a network namespace");
        let (host, alpha, beta, lab) = tokio::try_join!(
            plane(PlaneOptions::new("host").with_more_controllers(&WORKLOADS)),
            plane(virtual_plane("alpha")),
            plane(virtual_plane("beta")),
            plane(virtual_plane("lab")),
        )?;
        let host_client = host.client().await?;
        k3k::install(&host_client).await?;
        manifest::apply_file(&host_client, &manifest::folder().join("base/pod-labels.yaml")).await?;
        for plane in [&host, &alpha, &beta] {
            make_nodes(&plane.client().await?, &fabric).await?;
        }
        stage.tick("four control planes");
        let folder = scratch::folder("kube-proxy")?;
        let mut proxies = Vec::new();
        for node in &fabric.nodes {
            proxies.push(kube_proxy::start(&host, node, &folder).await?);
        }
        stage.tick("kube-proxy in nftables mode on each node");
        let host_api = HostApi::start(&host, HostApiOptions::default()).await?;
        for (namespace, domain) in [("team-a", "a.example.com"), ("team-b", "b.example.com")] {
            let ingresses = json!({"classes": [CLASSES[0]], "hostSuffixes": [domain], "ownSecrets": true});
            apply(&host_client, namespace, &of_namespace(namespace, json!({"ingresses": ingresses}))).await?;
        }
        let alpha = Side::join(&host_client, &host_api, alpha, "team-a", "mine", Mode::Shared).await?;
        let beta = Side::join(&host_client, &host_api, beta, "team-b", "mine", Mode::Shared).await?;
        let lab = Side::join(&host_client, &host_api, lab, "team-c", "lab", Mode::Virtual).await?;
        for side in [&alpha, &beta] {
            side.agent.wait_ok("/syncz", SOON).await?;
        }
        stage.tick("host-api, and an agent for each tenant");
        Ok(Self { alpha, beta, lab, host_api, _proxies: proxies, host, host_client, fabric })
    }

    /// Contour on the host, and another one in the virtual cluster of the first tenant.
    pub(super) async fn install_controllers(&self, stage: &mut Stage, tools: &Tools) -> anyhow::Result<()> {
        stage.begin(
            "Two ingress controllers",
            "Contour with Envoy: one belongs to the platform team and serves class `public`, the other to team-a alone, in its own \
             virtual cluster, and serves class `own`.",
        );
        for (client, class) in [(&self.host_client, CLASSES[0]), (&self.alpha.client, CLASSES[1])] {
            manifest::apply_file(client, &tools.contour_crds).await?;
            manifest::apply(client, &CONTROLLER.replace("CLASS", class)).await?;
            let services: Api<Service> = Api::namespaced(client.clone(), "ingress");
            let address = address(&services, "envoy").await?;
            stage.tick(&format!("class `{class}` is served at {address}"));
        }
        Ok(())
    }

    /// Two Deployments with the same names in both tenants.
    pub(super) async fn deploy(&self, stage: &mut Stage, crew: &Crew<'_>) -> anyhow::Result<()> {
        stage.begin(
            "Equal workloads",
            "Both tenants run `web`, `single` and `other` in namespace `shop`, with equal labels.",
        );
        for (side, pods) in [(&self.alpha, &crew.alpha), (&self.beta, &crew.beta)] {
            let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
            Api::all(side.client.clone()).create(&PostParams::default(), &namespace).await?;
            let apps = [("web", 3), ("single", 1), ("other", 1)];
            for (name, replicas) in apps {
                manifest::apply(&side.client, &deployment(name, replicas).to_string()).await?;
            }
            for (name, replicas) in apps {
                eventually(&format!("pods of {name}"), SOON, async || {
                    pods.of_app(NAMESPACE, name).await.is_ok_and(|ready| ready.len() == replicas)
                })
                .await?;
            }
            stage.tick(&format!("five pods of {}", side.tenant.namespace));
        }
        Ok(())
    }
}

impl Side {
    async fn join(
        host: &Client,
        host_api: &HostApi,
        plane: ControlPlane,
        namespace: &str,
        cluster: &str,
        mode: Mode,
    ) -> anyhow::Result<Self> {
        let tenant =
            Tenant::create(host, namespace, cluster, TenantOptions { mode, ..TenantOptions::default() }).await?;
        let token = tenant.server_pod_token(0).await?;
        let mut options = AgentOptions::in_pod(&tenant.server_pod_name(0));
        options.env.extend(SYNCED.map(|name| (name.to_owned(), "true".to_owned())));
        let agent = Agent::start(&plane, host_api, &token, options).await?;
        Ok(Self { agent, tenant, client: plane.client().await?, plane })
    }

    pub(super) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub(super) fn services(&self) -> Api<Service> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub(super) fn ingresses(&self) -> Api<Ingress> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub(super) fn services_of(&self, namespace: &str) -> Api<Service> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Makes a Service and waits until both sides agree on it.
    pub(super) async fn serve(&self, name: &str, spec: Value) -> anyhow::Result<Service> {
        let service: Service = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))?;
        self.services().create(&PostParams::default(), &service).await.with_context(|| format!("making {name}"))?;
        told::wait_synced(&self.services(), name, "True", "Applied", SOON).await
    }

    /// Changes a Service.
    pub(super) async fn change(&self, name: &str, patch: Value) -> anyhow::Result<Service> {
        Ok(self.services().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?)
    }
}

impl<'a> Crew<'a> {
    pub(super) async fn of(center: &'a Center, tools: &'a Tools) -> anyhow::Result<Self> {
        let (fabric, host) = (&center.fabric, &center.host);
        let (alpha, beta) = (&center.alpha, &center.beta);
        Ok(Self {
            platform: Pods::new(fabric, tools, host, None).await?,
            alpha: Pods::new(fabric, tools, &alpha.plane, Some(alpha.tenant.clone())).await?,
            beta: Pods::new(fabric, tools, &beta.plane, Some(beta.tenant.clone())).await?,
            center,
        })
    }

    pub(super) fn balancer(&self) -> anyhow::Result<Balancer<'a>> {
        Balancer::new(&self.center.fabric, self.center.host_client.clone())
    }
}

/// The load-balancer address that a Service shows, once it does.
pub(super) async fn address(services: &Api<Service>, name: &str) -> anyhow::Result<String> {
    eventually(&format!("an address of {name}"), SOON, async || {
        entry(&services.get(name).await?).context("it shows none")
    })
    .await
}

/// That address, if it does now.
pub(super) fn entry(service: &Service) -> Option<String> {
    let entries = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
    entries.first()?.ip.clone()
}

const WORKLOADS: [&str; 2] = ["deployment-controller", "replicaset-controller"];

async fn plane(options: PlaneOptions) -> anyhow::Result<ControlPlane> {
    // In this namespace there is nobody else; pods and nodes come by the router's address.
    ControlPlane::start(options.with_api_server_flag("--bind-address=0.0.0.0")).await
}

fn virtual_plane(name: &str) -> PlaneOptions {
    virtual_options(name).with_more_controllers(&["endpointslice-controller"]).with_more_controllers(&WORKLOADS)
}

/// Pods with two TCP ports and one UDP port.
fn deployment(name: &str, replicas: usize) -> Value {
    let image = "registry.k8s.io/e2e-test-images/agnhost:2.53";
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [
                    {"name": "web", "image": image,
                     "command": ["/agnhost", "netexec", "--http-port=8080", "--udp-port=8081"],
                     "ports": [{"name": "http", "containerPort": 8080}]},
                    {"name": "second", "image": image,
                     "command": ["/agnhost", "netexec", "--http-port=8082", "--udp-port=-1"],
                     "ports": [{"name": "second", "containerPort": 8082}]},
                ]},
            },
        },
    })
}
