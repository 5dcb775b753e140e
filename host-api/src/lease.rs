//! Which replica serves sessions and writes: the holder of one Lease, as client-go's leader election has it. I/O.
//!
//! The trap: a process that was stopped does not know it. So leadership ends by the clock, a third of the Lease's duration before
//! anybody else may have it, and whoever acts on it asks the clock first. What a stale holder has under way by then is fenced by
//! UID and resourceVersion.

mod claim;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use k3k_expose_process::quote::causes;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::params;
use claim::{Claim, Step};

/// The Lease, in host-api's own namespace.
pub const NAME: &str = "k3k-expose-host-api";

/// One uninterrupted time of leadership.
#[derive(Clone, Debug)]
pub struct Term {
    number: u64,
    /// When it ends unless the Lease is renewed; never without a Lease.
    until: Option<Instant>,
    ended: CancellationToken,
}

/// Whether this replica leads. Clones look at the same.
#[derive(Clone, Debug)]
pub struct Leadership {
    present: watch::Receiver<Option<Term>>,
}

/// Takes part in the election.
pub struct Elector {
    leases: Api<Lease>,
    claim: Claim,
    duration: Duration,
    started: Instant,
    stands: Option<Lease>,
    terms: u64,
    present: Arc<watch::Sender<Option<Term>>>,
}

impl Term {
    /// The first of a replica, or the next one.
    fn new(number: u64, until: Option<Instant>) -> Self {
        Self { number, until, ended: CancellationToken::new() }
    }

    /// Cancelled when the term has ended. The trap: a process that was stopped sees that late; [`Leadership::is_in`] does not.
    #[must_use]
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

impl Leadership {
    /// Of the only replica that there is.
    #[must_use]
    pub fn alone() -> Self {
        let (_, present) = watch::channel(Some(Term::new(1, None)));
        Self { present }
    }

    /// The present term, if this replica leads now.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        self.present.borrow().as_ref().filter(|term| !term.is_over()).cloned()
    }

    /// Whether this is the present term, by the clock.
    #[must_use]
    pub fn is_in(&self, term: &Term) -> bool {
        self.present.borrow().as_ref().is_some_and(|present| present.number == term.number && !present.is_over())
    }

    /// Returns when this replica leads.
    pub async fn gained(&self) -> Term {
        let mut present = self.present.clone();
        loop {
            present.mark_unchanged();
            if let Some(term) = self.term() {
                return term;
            }
            if present.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Does something anew in each term, and drops it where it stands when the term ends. Never ends.
    pub async fn in_each_term<F: Future<Output = ()>>(&self, mut work: impl FnMut() -> F) {
        loop {
            let term = self.gained().await;
            tokio::select! {
                biased;
                () = term.ended.cancelled() => {}
                () = work() => term.ended.cancelled().await,
            }
        }
    }
}

impl Elector {
    /// A replica with this name, which no other has, and what it knows of its leadership.
    #[must_use]
    pub fn new(client: Client, identity: String, duration: Duration) -> (Self, Leadership) {
        let (sender, present) = watch::channel(None);
        let elector = Self {
            leases: Api::default_namespaced(client),
            claim: Claim::new(identity, duration),
            duration,
            started: Instant::now(),
            stands: None,
            terms: 0,
            present: Arc::new(sender),
        };
        (elector, Leadership { present })
    }

    /// Takes the Lease whenever it can be had, and renews it, until it is told to stop; then lets go of it.
    pub async fn run(mut self, stop: CancellationToken) {
        let present = Arc::clone(&self.present);
        tokio::select! {
            () = expire(&present) => {}
            () = self.elect() => {}
            () = stop.cancelled() => {}
        }
        self.release().await;
    }

    async fn elect(&mut self) {
        loop {
            let began = Instant::now();
            let outcome = timeout(self.renew_within() / 2, self.try_once(began)).await;
            let wait = match outcome {
                Ok(Ok(None)) => {
                    // Unless the process was stopped between its look and this.
                    let until = began + self.renew_within();
                    if Instant::now() < until {
                        self.lead_until(until);
                    }
                    self.retry_after()
                }
                Ok(Ok(Some(others))) => {
                    step_down(&self.present, "another replica holds the Lease");
                    // At the moment when it may be free: a look now and then would come up to one period late.
                    others.min(self.retry_after())
                }
                Ok(Err(error)) => {
                    self.stands = None;
                    match error {
                        kube::Error::Api(status) if status.code == 409 => debug!("another replica was faster"),
                        error => warn!(error = causes(&error), "the Lease could not be written, tried again"),
                    }
                    self.retry_after()
                }
                Err(_) => {
                    self.stands = None;
                    warn!("the host's API server did not answer for the Lease in time, tried again");
                    self.retry_after()
                }
            };
            sleep(wait).await;
        }
    }

    /// Takes or renews it; `None` when it is ours now, else how long it is another's.
    async fn try_once(&mut self, began: Instant) -> Result<Option<Duration>, kube::Error> {
        if self.stands.is_none() || self.present.borrow().is_none() {
            self.stands = self.leases.get_opt(NAME).await?;
        }
        let record = self.stands.as_ref().and_then(|lease| lease.spec.as_ref());
        match self.claim.step(record, began - self.started, now()) {
            Step::Wait(wait) => Ok(Some(wait)),
            Step::Take(record) => {
                self.stands = Some(self.write(record).await?);
                Ok(None)
            }
        }
    }

    async fn write(&self, record: LeaseSpec) -> Result<Lease, kube::Error> {
        let mut lease = self.stands.clone().unwrap_or_default();
        lease.spec = Some(record);
        if self.stands.is_some() {
            // Its resourceVersion makes sure that nobody else was faster.
            return self.leases.replace(NAME, &params::post(), &lease).await;
        }
        lease.metadata.name = Some(NAME.to_owned());
        self.leases.create(&params::post(), &lease).await
    }

    /// Lets go of the Lease, so that nobody has to wait for its end.
    async fn release(&mut self) {
        step_down(&self.present, "host-api is stopping");
        let stands = self.stands.as_ref().and_then(|lease| lease.spec.as_ref());
        let Some(record) = stands.and_then(|stands| self.claim.released(stands, now())) else {
            return;
        };
        match timeout(self.retry_after(), self.write(record)).await {
            Ok(Ok(_)) => info!("the Lease was released"),
            Ok(Err(error)) => debug!(error = causes(&error), "the Lease was not released"),
            Err(_) => debug!("the Lease was not released in time"),
        }
    }

    /// Leads until then, in the present term or in a new one.
    fn lead_until(&mut self, until: Instant) {
        let present = self.present.borrow().clone();
        let term = match present {
            Some(present) if !present.is_over() => Term { until: Some(until), ..present },
            // Even if nobody else had it meanwhile: what was to end has ended.
            _ => {
                step_down(&self.present, "the Lease was not renewed in time");
                self.terms += 1;
                info!(term = self.terms, "this replica leads");
                Term::new(self.terms, Some(until))
            }
        };
        self.present.send_replace(Some(term));
    }

    /// How long the Lease may go without being renewed before its holder steps down.
    fn renew_within(&self) -> Duration {
        self.duration * 2 / 3
    }

    /// How often it is renewed, or asked for. Jitter keeps replicas from asking in step.
    fn retry_after(&self) -> Duration {
        (self.duration * 2 / 15).mul_f64(1.0 + 0.2 * fastrand::f64())
    }
}

/// Ends each term that is not renewed in time, whatever its renewal waits for. Never ends.
async fn expire(present: &watch::Sender<Option<Term>>) {
    let mut news = present.subscribe();
    loop {
        let until = news.borrow_and_update().as_ref().and_then(|term| term.until);
        tokio::select! {
            // The sender is at hand, so there is always another change to wait for.
            _ = news.changed() => {}
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                step_down(present, "the Lease was not renewed in time");
            }
        }
    }
}

fn step_down(present: &watch::Sender<Option<Term>>, why: &'static str) {
    if let Some(term) = present.send_replace(None) {
        term.ended.cancel();
        info!(term = term.number, why, "this replica does not lead any more");
    }
}

fn now() -> MicroTime {
    MicroTime(Timestamp::now())
}

#[cfg(test)]
mod tests;
