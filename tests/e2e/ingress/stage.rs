//! What the tests of Ingress stand on: a host-api of their own, and tenants with a policy each.

use anyhow::{Context, Result, anyhow, bail, ensure};
use k3k_expose_proto::ingress::{Backend, BackendPort, Ingress as Asked, Path, PathType, Rule, Tls};
use k3k_expose_proto::message::{Hello, Object, Put, Want};
use k3k_expose_proto::{FromAgent, FromHost, Reason};
use k3k_expose_tests::admitted::{apply, of_namespace};
use k3k_expose_tests::eventually::eventually;
use k3k_expose_tests::k3k::{Tenant, TenantOptions};
use k3k_expose_tests::product::{Agent, AgentOptions, HostApi, HostApiOptions};
use k3k_expose_tests::wire::{WireSession, hello, put_ingress};
use k3k_expose_tests::{ControlPlane, PlaneOptions, Rig, rig};
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::observe::{session_up, virtual_cluster};
use crate::policy::stage::governs;
use crate::world::SOON;

/// The namespace of the virtual cluster in which the tests work.
pub const NAMESPACE: &str = "first";
/// The annotation that tells what became of an Ingress.
pub const SYNCED: &str = "expose.k3k.io/synced";

/// A host-api, and a policy for each tenant that admits class `public` and hosts below its namespace's name.
pub struct Stage {
    /// The host.
    pub plane: &'static ControlPlane,
    pub host: Client,
    pub host_api: HostApi,
    own_secrets: bool,
    /// Variables of both processes.
    both: Vec<(String, String)>,
}

impl Stage {
    /// On the shared host.
    pub async fn new() -> Result<Self> {
        Self::on(Rig::shared().host().await?, false, &[]).await
    }

    /// On a host that no other host-api watches: what a policy lets in later than others hear of it, they would take away.
    pub async fn alone() -> Result<Self> {
        static HOST: OnceCell<ControlPlane> = OnceCell::const_new();
        let host = HOST.get_or_try_init(|| rig::host(PlaneOptions::new("policy-host").without_controllers()));
        Self::on(host.await?, false, &[]).await
    }

    /// On a host where certificates of tenants' own cross.
    pub async fn with_tls(env: &[(&str, &str)]) -> Result<Self> {
        static HOST: OnceCell<ControlPlane> = OnceCell::const_new();
        let host = HOST.get_or_try_init(|| rig::host(PlaneOptions::new("tls-host").without_controllers()));
        let both: Vec<_> = [("K3K_EXPOSE_SYNC_INGRESS_TLS", "true")].iter().chain(env).copied().collect();
        Self::on(host.await?, true, &both).await
    }

    async fn on(plane: &'static ControlPlane, own_secrets: bool, both: &[(&str, &str)]) -> Result<Self> {
        let both: Vec<_> = both.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let host_api = HostApi::start(plane, HostApiOptions { env: both.clone(), ..HostApiOptions::default() }).await?;
        Ok(Self { plane, host: plane.client().await?, host_api, own_secrets, both })
    }

    /// Puts the policy of a host namespace there, or changes it.
    pub async fn admit(&self, namespace: &str, classes: &[&str]) -> Result<()> {
        let ingresses = json!({"classes": classes, "hostSuffixes": ["shared.example", format!("{namespace}.example")],
            "annotations": [{"key": "example.com/timeout", "value": "[0-9]+s"}], "ownSecrets": self.own_secrets});
        apply(&self.host, namespace, &of_namespace(namespace, json!({"ingresses": ingresses}))).await
    }

    /// A tenant in a host namespace of its own that speaks the wire by hand.
    pub async fn by_hand(&self, namespace: &str) -> Result<Tenant> {
        self.admit(namespace, &["public"]).await?;
        let tenant = Tenant::create(&self.host, namespace, "mine", TenantOptions::default()).await?;
        governs(&self.host, namespace, 1).await?;
        Ok(tenant)
    }

    /// Opens a session of such a tenant that says these objects and no others.
    pub async fn say(&self, tenant: &Tenant, ingresses: bool, puts: &[Put]) -> Result<WireSession> {
        let hello = hello(&tenant.namespace, puts)?;
        self.open(tenant, Hello { ingresses, ..hello }, puts).await
    }

    /// The same, of Ingresses and Secrets.
    pub async fn say_with_secrets(&self, tenant: &Tenant, puts: &[Put]) -> Result<WireSession> {
        let hello = hello(&tenant.namespace, puts)?;
        self.open(tenant, Hello { ingresses: true, secrets: true, ..hello }, puts).await
    }

    async fn open(&self, tenant: &Tenant, hello: Hello, puts: &[Put]) -> Result<WireSession> {
        let token = tenant.server_pod_token(0).await?;
        let (session, _) = WireSession::open(&self.host_api, &token, hello).await?;
        session.send_snapshot(puts).await?;
        Ok(session)
    }
}

/// Waits for this answer to an object, and says the object again when host-api asks for it, as an agent does.
pub async fn answered(session: &mut WireSession, put: &Put, reason: Reason) -> Result<()> {
    let mut last = None;
    let waited = timeout(SOON, async {
        loop {
            match session.next().await?.context("the session ended")? {
                FromHost::Answer(answer) if answer.key == put.key && answer.hash == put.hash => {
                    if answer.reason == reason {
                        return anyhow::Ok(());
                    }
                    last = Some(answer.reason);
                }
                FromHost::Want(Want::Keys(keys)) if keys.contains(&put.key) => {
                    session.send(&FromAgent::Put(put.clone())).await?;
                }
                _ => {}
            }
        }
    });
    waited.await.map_err(|_| anyhow!("{} not {reason:?} but {last:?}", put.key))?
}

/// A tenant with a virtual cluster and an agent that speaks for Ingresses.
pub struct Actor {
    pub tenant: Tenant,
    pub agent: Agent,
    pub plane: std::sync::Arc<ControlPlane>,
    pub client: Client,
}

impl Actor {
    /// In host namespace `host-<name>`.
    pub async fn new(stage: &Stage, name: &str) -> Result<Self> {
        let plane = virtual_cluster(name).await?;
        let tenant = stage.by_hand(&format!("host-{name}")).await?;
        let agent = agent(stage, &plane, &tenant, &stage.both).await?;
        let client = plane.client().await?;
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await?;
        Ok(Self { tenant, agent, plane, client })
    }

    /// Restarts the agent, or host-api, and waits for a session.
    pub async fn session_after_restart(&self, stage: &Stage, of: &str) -> Result<()> {
        if of == "agent" {
            self.agent.restart().await?;
        } else {
            stage.host_api.kill().await?;
            stage.host_api.restart().await?;
        }
        session_up(&self.agent).await
    }

    /// Puts an agent in the place of this one that does not speak of Secrets.
    pub async fn agent_without_tls(&mut self, stage: &Stage) -> Result<()> {
        self.agent.kill().await?;
        self.agent = agent(stage, &self.plane, &self.tenant, &[]).await?;
        Ok(())
    }

    pub fn ingresses(&self) -> Api<Ingress> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    pub fn services(&self) -> Api<Service> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// Makes headless Services, whose numbers nobody else can hold.
    pub async fn serve(&self, names: &[&str]) -> Result<()> {
        for name in names {
            let spec = json!({"clusterIP": "None", "selector": {"app": name}, "ports": [{"name": "http", "port": 80}]});
            let service: Service = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))?;
            self.services().create(&PostParams::default(), &service).await?;
        }
        Ok(())
    }

    pub async fn create(&self, ingress: &Value) -> Result<Ingress> {
        Ok(self.ingresses().create(&PostParams::default(), &serde_json::from_value(ingress.clone())?).await?)
    }

    pub async fn change(&self, name: &str, patch: Value) -> Result<Ingress> {
        Ok(self.ingresses().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?)
    }

    /// Waits until the annotation of an Ingress begins so, and gives the Ingress.
    pub async fn told(&self, name: &str, state: &str) -> Result<Ingress> {
        eventually(&format!("{name} told {state}"), SOON, async || {
            let found = self.ingresses().get(name).await?;
            let told = found.annotations().get(SYNCED).map(String::as_str).unwrap_or_default();
            let whole = told.split(": ").next() == Some(state);
            ensure!(whole, "it is {told:?}");
            anyhow::Ok(found)
        })
        .await
    }

    /// Waits for a warning with this reason on an Ingress.
    pub async fn warned(&self, ingress: &Ingress, reason: &str) -> Result<()> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), NAMESPACE);
        eventually(&format!("an event {reason} on {}", ingress.name_any()), SOON, async || {
            let all = events.list(&ListParams::default()).await?.items;
            let about = |event: &&Event| event.regarding.as_ref().and_then(|about| about.uid.clone()) == ingress.uid();
            let reasons: Vec<_> = all.iter().filter(about).map(|event| event.reason.as_deref()).collect();
            ensure!(reasons.contains(&Some(reason)), "{reasons:?}");
            anyhow::Ok(())
        })
        .await
    }

    /// The twin, once there is one that `holds`.
    pub async fn twin(&self, name: &str, holds: impl Fn(&Ingress) -> bool) -> Result<Ingress> {
        twin(&self.tenant, name, holds).await
    }
}

/// An agent of a tenant that speaks of Ingresses.
async fn agent(stage: &Stage, plane: &ControlPlane, tenant: &Tenant, env: &[(String, String)]) -> Result<Agent> {
    let token = tenant.server_pod_token(0).await?;
    let mut options = AgentOptions::in_pod(&tenant.server_pod_name(0));
    options.env.push(("K3K_EXPOSE_SYNC_INGRESSES".to_owned(), "true".to_owned()));
    options.env.extend(env.iter().cloned());
    let agent = Agent::start(plane, &stage.host_api, &token, options).await?;
    agent.wait_ready().await?;
    Ok(agent)
}

/// The Ingresses in a tenant's host namespace.
pub fn twins(tenant: &Tenant, host: &Client) -> Api<Ingress> {
    Api::namespaced(host.clone(), &tenant.namespace)
}

/// The twin of a tenant's Ingress in [`NAMESPACE`], once there is one that `holds`.
pub async fn twin(tenant: &Tenant, name: &str, holds: impl Fn(&Ingress) -> bool) -> Result<Ingress> {
    let twins = twins(tenant, tenant.host_client());
    let at = tenant.twin_name(name, NAMESPACE);
    eventually(&format!("the twin of {name}"), SOON, async || {
        let found = twins.get_opt(&at).await?.context("there is none")?;
        ensure!(holds(&found), "it is {}", serde_json::to_string(&found)?);
        anyhow::Ok(found)
    })
    .await
}

/// Waits until a tenant's Ingress has no twin.
pub async fn no_twin(tenant: &Tenant, name: &str) -> Result<()> {
    let twins = twins(tenant, tenant.host_client());
    let at = tenant.twin_name(name, NAMESPACE);
    eventually(&format!("no twin of {name}"), SOON, async || {
        ensure!(twins.get_opt(&at).await?.is_none(), "it stands");
        anyhow::Ok(())
    })
    .await
}

/// An Ingress of class `public` with one rule for one path to port 80 of a Service.
pub fn ingress(name: &str, host: &str, path: &str, service: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"ingressClassName": "public", "rules": [{"host": host, "http": {"paths": [
            {"path": path, "pathType": "Prefix", "backend": {"service": {"name": service, "port": {"number": 80}}}}
        ]}}]},
    })
}

/// The same as a `put` by hand.
pub fn said(name: &str, host: &str, path: &str, service: &str) -> Result<Put> {
    let port = BackendPort::Number(80.try_into()?);
    let backend = Backend::Service { name: service.to_owned(), port };
    let path = Path { path: path.to_owned(), path_type: PathType::Prefix, backend };
    let asked = Asked {
        ingress_class_name: Some("public".to_owned()),
        rules: vec![Rule { host: host.to_owned(), paths: vec![path] }],
        ..Asked::default()
    };
    put_ingress(NAMESPACE, name, &format!("uid-{name}"), asked)
}

/// The same `put` with an entry of TLS for a host, without a Secret.
pub fn with_certificate_for(put: Put, host: &str) -> Result<Put> {
    let Object::Ingress(mut asked) = put.object else { bail!("no Ingress") };
    asked.tls.push(Tls { hosts: vec![host.to_owned()], secret_name: None });
    put_ingress(NAMESPACE, put.key.name(), put.uid.as_str(), *asked)
}

/// The same `put` with an entry of TLS that names a Secret.
pub fn with_secret(put: Put, secret: &str) -> Result<Put> {
    let Object::Ingress(mut asked) = put.object else { bail!("no Ingress") };
    asked.tls.push(Tls { hosts: Vec::new(), secret_name: Some(secret.to_owned()) });
    put_ingress(NAMESPACE, put.key.name(), put.uid.as_str(), *asked)
}
