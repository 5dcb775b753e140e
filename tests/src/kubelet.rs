//! kubelet's part for one pod: it reads the stored pod and does what the pod says, as far as our sidecar can tell the difference.
//!
//! Native sidecars start in their order, each after the startup probe of the one before it (KEP-753); volumes are filled from the
//! API server and mounted where the spec says; probes go over HTTP; what exits or fails its liveness is started again; the status
//! is written. Mounts are real, in a user and mount namespace of the container's own.
//!
//! The one thing in place of the real one is the pod's network namespace, which a process on loopback shares with everybody: the
//! ports that the spec fixes would collide. So [`Kubelet`] maps them and tells the agent by the two variables whose defaults they
//! are (`K3K_EXPOSE_VIRTUAL_SERVER`, `K3K_EXPOSE_ADMIN_ADDRESS`). User numbers and read-only mounts are not enforced, images are
//! not pulled: only the agent's is known, every other container counts as running once its turn has come.

mod container;
mod probe;
mod status;
mod volumes;

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::plane::ControlPlane;
use crate::port::Port;
use crate::scratch;
use crate::supervisor::Signal;
use container::Container;
use status::Status;
use volumes::Volumes;

/// How often probes and processes are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How often volumes are looked at; a real kubelet takes up to about 90 s for Secrets and ConfigMaps.
const VOLUMES: Duration = Duration::from_secs(1);

/// What kubelet did, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It started this container.
    Started(String),
    /// The container passed its startup probe.
    Up(String),
    /// The container ended by itself, or its probe made kubelet end it: it is started again.
    Restarted(String, &'static str),
    /// A token was due, and another one was asked for.
    Renewed,
    /// The pod's Ready condition became this.
    Ready(bool),
}

/// A kubelet with one pod.
pub struct Kubelet {
    client: Client,
    namespace: String,
    pod: String,
    network: Network,
    steps: Mutex<Vec<Step>>,
    passed: Mutex<Duration>,
    signals: Mutex<Vec<Signal>>,
}

/// What the pod's network namespace would be.
#[derive(Debug)]
struct Network {
    /// The API server of the virtual cluster, which the pod reaches at `https://127.0.0.1:6443`.
    virtual_server: String,
    /// The agent's admin port.
    admin: Port,
}

impl Kubelet {
    /// A kubelet for a stored pod, whose k3s serves that virtual cluster.
    ///
    /// # Errors
    /// When no port is free.
    pub fn new(client: &Client, namespace: &str, pod: &str, virtual_cluster: &ControlPlane) -> anyhow::Result<Self> {
        Ok(Self {
            client: client.clone(),
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            network: Network { virtual_server: virtual_cluster.url().to_owned(), admin: Port::claim()? },
            steps: Mutex::default(),
            passed: Mutex::default(),
            signals: Mutex::default(),
        })
    }

    /// Everything that was done until now.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes tokens older by this, as if so much time had passed.
    pub fn age_tokens(&self, by: Duration) {
        *self.passed.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }

    /// Sends every sidecar this signal.
    pub fn signal(&self, signal: Signal) {
        self.signals.lock().unwrap_or_else(PoisonError::into_inner).push(signal);
    }

    /// Status and body of a path on the agent's admin port.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        probe::get(&format!("http://{}{path}", self.network.admin.address()), Duration::from_secs(5)).await
    }

    /// Runs the pod. Ends only when it cannot.
    ///
    /// # Errors
    /// When the spec asks for what is not played, or a process cannot be started.
    pub async fn run(&self) -> anyhow::Result<Infallible> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let pod = pods.get(&self.pod).await.with_context(|| format!("pod {}", self.pod))?;
        let spec = pod.spec.clone().context("a stored pod has a spec")?;
        let folder = scratch::folder("pod")?;
        let mut volumes = Volumes::new(&self.client, &pod, &folder)?;
        let mut status = Status::new(pods, &pod);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while let Err(missing) = volumes.fill(Duration::ZERO).await {
            ensure!(!missing.is::<volumes::NotPlayed>(), missing);
            ticks.tick().await;
        }
        let mut looked = Instant::now();
        let mut running: Vec<Container> = Vec::new();
        for init in spec.init_containers.unwrap_or_default() {
            if init.restart_policy.as_deref() != Some("Always") {
                bail!("init container {} is no sidecar, and others are not played", init.name);
            }
            let mut container = Container::start(init, &pod, &volumes, &self.network, &folder).await?;
            self.note(Step::Started(container.name().to_owned()));
            while !container.is_up() {
                ticks.tick().await;
                self.look(&mut container).await?;
            }
            running.push(container);
        }
        for container in &spec.containers {
            self.note(Step::Started(container.name.clone()));
        }
        loop {
            ticks.tick().await;
            if looked.elapsed() >= VOLUMES {
                let passed = *self.passed.lock().unwrap_or_else(PoisonError::into_inner);
                // What cannot be read now stays as it was, as with a real kubelet.
                if volumes.fill(passed).await.is_ok_and(|renewed| renewed) {
                    self.note(Step::Renewed);
                }
                looked = Instant::now();
            }
            let signals = std::mem::take(&mut *self.signals.lock().unwrap_or_else(PoisonError::into_inner));
            for signal in signals {
                running.iter().for_each(|container| container.signal(signal));
            }
            for container in &mut running {
                self.look(container).await?;
            }
            if let Some(ready) = status.write(&running, &spec.containers).await? {
                self.note(Step::Ready(ready));
            }
        }
    }

    async fn look(&self, container: &mut Container) -> anyhow::Result<()> {
        let was_up = container.is_up();
        if let Some(why) = container.look(&self.network).await? {
            self.note(Step::Restarted(container.name().to_owned(), why));
        } else if !was_up && container.is_up() {
            self.note(Step::Up(container.name().to_owned()));
        }
        Ok(())
    }

    fn note(&self, step: Step) {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).push(step);
    }
}
