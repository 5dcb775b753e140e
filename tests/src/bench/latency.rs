//! How long one change takes to reach the host's watch: through us, and straight.
//!
//! Open loop: every call starts at its own time, however slow those before it are. The two kinds are interleaved, half a
//! period apart, so that both meet the same machine.

use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::bodies::{self, NEW_PORT, VIRTUAL_NAMESPACE};
use super::field::Field;
use super::service_watch::Seen;

/// For the last change of a phase to arrive.
const DEADLINE: Duration = Duration::from_secs(60);

/// Milliseconds of every sample, by kind of change.
pub(super) struct Latencies {
    pub(super) create: Pair,
    pub(super) update: Pair,
    pub(super) delete: Pair,
}

/// The same number of samples of each kind.
pub(super) struct Pair {
    pub(super) ours: Vec<f64>,
    pub(super) direct: Vec<f64>,
}

#[derive(Clone, Copy)]
enum Change {
    Create,
    Update,
    Delete,
}

/// One side: where its calls go, and what its objects are called there and on the host.
#[derive(Clone)]
struct Side {
    services: Api<Service>,
    objects: Vec<Object>,
}

#[derive(Clone)]
struct Object {
    body: Service,
    name: String,
    host_name: String,
}

impl Latencies {
    pub(super) async fn measure(field: &Field, rate: u32, samples: usize) -> anyhow::Result<Self> {
        let ours = ours(field, &format!("latency-{rate}"), samples).await?;
        let direct = direct(field, rate, samples).await?;
        // The first request of a client also opens its connection.
        for side in [&ours, &direct] {
            side.services.get_opt("warm-up").await?;
        }
        let period = Duration::from_secs(1) / rate;
        Ok(Self {
            create: phase(field, Change::Create, period, &ours, &direct).await?,
            update: phase(field, Change::Update, period, &ours, &direct).await?,
            delete: phase(field, Change::Delete, period, &ours, &direct).await?,
        })
    }
}

/// Creates Services in the virtual cluster at that rate, and gives the milliseconds until the host's watch told of each twin.
/// They are gone again, to the last trace on the host, when it returns.
pub(super) async fn of_creates(field: &Field, name: &str, rate: u32, samples: usize) -> anyhow::Result<Vec<f64>> {
    let ours = ours(field, name, samples).await?;
    ours.services.get_opt("warm-up").await?;
    let period = Duration::from_secs(1) / rate;
    let began = run(Change::Create, Instant::now() + period, period, &ours).await?;
    let lasted = self::samples(field, Change::Create, &ours, &began).await?;
    let began = run(Change::Delete, Instant::now() + period, period, &ours).await?;
    self::samples(field, Change::Delete, &ours, &began).await?;
    field.settled().await?;
    Ok(lasted)
}

async fn ours(field: &Field, name: &str, samples: usize) -> anyhow::Result<Side> {
    let object = |index| {
        let name = format!("{name}-{index}");
        anyhow::Ok(Object {
            body: bodies::tenants(&name)?,
            host_name: field.tenant().twin_name(&name, VIRTUAL_NAMESPACE),
            name,
        })
    };
    Ok(Side {
        services: Api::namespaced(field.virtual_client().await?, VIRTUAL_NAMESPACE),
        objects: (0..samples).map(object).collect::<Result<_, _>>()?,
    })
}

async fn direct(field: &Field, rate: u32, samples: usize) -> anyhow::Result<Side> {
    let object = |index| {
        let name = format!("reference-{rate}-{index}");
        anyhow::Ok(Object { body: bodies::reference(&name, index)?, host_name: name.clone(), name })
    };
    Ok(Side {
        services: Api::namespaced(field.plain_client().await?, field.namespace()),
        objects: (0..samples).map(object).collect::<Result<_, _>>()?,
    })
}

async fn phase(field: &Field, change: Change, period: Duration, ours: &Side, direct: &Side) -> anyhow::Result<Pair> {
    let start = Instant::now() + period;
    let (ours_began, direct_began) =
        tokio::try_join!(run(change, start, period, ours), run(change, start + period / 2, period, direct),)?;
    Ok(Pair {
        ours: samples(field, change, ours, &ours_began).await?,
        direct: samples(field, change, direct, &direct_began).await?,
    })
}

/// Starts every call at its time and gives when each was made, by index.
async fn run(change: Change, start: Instant, period: Duration, side: &Side) -> anyhow::Result<Vec<Instant>> {
    let mut calls = JoinSet::new();
    let mut due = start;
    for (index, object) in side.objects.iter().enumerate() {
        sleep_until(due).await;
        due += period;
        let (services, object) = (side.services.clone(), object.clone());
        calls.spawn(async move {
            let began = Instant::now();
            call(change, &services, &object).await.map(|()| (index, began))
        });
    }
    let mut began = vec![start; side.objects.len()];
    while let Some(done) = calls.join_next().await {
        let (index, at) = done.context("a call died")??;
        if let Some(slot) = began.get_mut(index) {
            *slot = at;
        }
    }
    Ok(began)
}

async fn call(change: Change, services: &Api<Service>, object: &Object) -> anyhow::Result<()> {
    let name = &object.name;
    match change {
        Change::Create => {
            services.create(&PostParams::default(), &object.body).await?;
        }
        Change::Update => {
            let patch = Patch::Merge(bodies::update());
            services.patch(name, &PatchParams::default(), &patch).await?;
        }
        Change::Delete => {
            services.delete(name, &DeleteParams::default()).await?;
        }
    }
    Ok(())
}

/// Waits until the host's watch has told of every change, and gives the milliseconds of each.
async fn samples(field: &Field, change: Change, side: &Side, began: &[Instant]) -> anyhow::Result<Vec<f64>> {
    let seen_at = |seen: &Seen, object: &Object| match change {
        Change::Create => seen.made(&object.host_name),
        Change::Update => seen.has_port(&object.host_name, NEW_PORT),
        Change::Delete => seen.gone(&object.host_name),
    };
    let all =
        |seen: &Seen| -> Option<Vec<Instant>> { side.objects.iter().map(|object| seen_at(seen, object)).collect() };
    let arrived = field.watch().wait("every change on the host", DEADLINE, all).await?;
    Ok(arrived
        .iter()
        .zip(began)
        .map(|(arrived, began)| arrived.saturating_duration_since(*began).as_secs_f64() * 1000.0)
        .collect())
}
