//! host-api's own authority and certificate, in one Secret for all replicas. I/O.
//!
//! Replicas agree by the API server alone: whoever creates the Secret first, or changes it first from what both have seen, is
//! right, and the other takes that over from the watch. Each shows what stands, never what it has just made.

use std::collections::BTreeMap;
use std::time::Duration;

use k3k_expose_process::quote::causes;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::material::{Material, Unusable};
use super::plan::{Change, Lifetimes, Next, next};
use super::shown::Shown;
use super::unix_seconds;
use crate::metrics::{Certificate, Metrics};
use crate::params;
use crate::ready::Ready;
use crate::twin::MANAGER;

/// The Secret, in host-api's own namespace.
pub const NAME: &str = "k3k-expose-host-api-tls";
/// Longest wait for one write.
const WRITE: Duration = Duration::from_secs(10);
/// Time until what failed, or was seen by nobody, is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// Longest wait for a moment: the clock may be set.
const LOOK: Duration = Duration::from_secs(60);

/// The Secret as it was seen last; `None` until it was looked for.
pub type Seen = Option<Option<Secret>>;

/// What the loop needs.
pub struct Own<'a> {
    /// For writes.
    pub client: Client,
    /// How long things live.
    pub lifetimes: Lifetimes,
    /// Names under which host-api is called.
    pub names: Vec<String>,
    /// Where the certificate goes.
    pub shown: &'a Shown,
    /// Where the authorities go.
    pub bundle: &'a watch::Sender<Option<String>>,
    /// Where the ends of both are told.
    pub metrics: &'a Metrics,
    /// Up once there is a certificate.
    pub ready: Ready,
}

impl Own<'_> {
    /// Shows what stands, and renews it in time. Never ends.
    pub async fn run(&self, mut seen: watch::Receiver<Seen>) {
        loop {
            let secret = seen.borrow_and_update().clone();
            let wait = match secret {
                None => LOOK,
                Some(secret) => self.look(secret.as_ref()).await,
            };
            tokio::select! {
                () = sleep(wait) => {}
                changed = seen.changed() => if changed.is_err() {
                    sleep(wait).await;
                },
            }
        }
    }

    /// Shows what stands, and changes it if it is time. Gives how long nothing is to be done.
    async fn look(&self, secret: Option<&Secret>) -> Duration {
        let empty = BTreeMap::new();
        let material = Material::read(secret.and_then(|secret| secret.data.as_ref()).unwrap_or(&empty));
        let now = unix_seconds();
        let standing = material.standing(&self.names);
        if let Some(newest) = standing.authorities.first() {
            self.metrics.certificate_expires(Certificate::Authority, newest.not_after);
        }
        if standing.leaf.is_some_and(|leaf| leaf.issuer.is_some()) {
            self.show(&material);
        }
        match next(&standing, now, &self.lifetimes) {
            Next::Wait(until) => {
                Duration::from_secs(u64::try_from(until - now).unwrap_or(0)).clamp(Duration::ZERO, LOOK)
            }
            Next::Change(change) => {
                self.change(secret, &material, &change, now).await;
                // The watch tells what became of it.
                AGAIN
            }
        }
    }

    fn show(&self, material: &Material) {
        let bundle = material.bundle();
        // Whoever is to trust the new certificate is told first.
        self.bundle.send_if_modified(|told| {
            let changed = told.as_ref() != Some(&bundle);
            *told = Some(bundle);
            changed
        });
        if let Ok(showable) = material.showable() {
            let until = showable.validity.not_after;
            if self.shown.show(showable, self.metrics) {
                info!(until, "another certificate is shown");
            }
            self.ready.up();
        }
    }

    async fn change(&self, secret: Option<&Secret>, material: &Material, change: &Change, now: i64) {
        let made = material.change(change, now, &self.names, &self.lifetimes);
        match made {
            Ok(made) => match self.write(secret, &made).await {
                Ok(()) => info!(
                    new_authority = change.new_authority,
                    new_certificate = change.sign.is_some(),
                    "certificates were renewed"
                ),
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                    info!("another replica has renewed the certificates");
                }
                Err(error) => warn!(error = causes(&error), "certificates could not be stored, tried again"),
            },
            Err(Unusable::NotMade | Unusable::Key | Unusable::Certificate) => {
                warn!("certificates could not be made, tried again");
            }
        }
    }

    async fn write(&self, secret: Option<&Secret>, material: &Material) -> Result<(), kube::Error> {
        let secrets: Api<Secret> = Api::default_namespaced(self.client.clone());
        let write = async {
            match secret {
                // Its resourceVersion makes sure that nobody else was faster.
                Some(secret) => {
                    let changed = Secret { data: Some(material.data()), ..secret.clone() };
                    secrets.replace(NAME, &params::post(), &changed).await
                }
                None => secrets.create(&params::post(), &fresh(material)).await,
            }
        };
        let late = || kube::Error::Service("no answer in time".into());
        timeout(WRITE, write).await.unwrap_or_else(|_| Err(late())).map(drop)
    }
}

fn fresh(material: &Material) -> Secret {
    let mut secret =
        Secret { type_: Some("kubernetes.io/tls".to_owned()), data: Some(material.data()), ..Secret::default() };
    secret.metadata.name = Some(NAME.to_owned());
    secret.metadata.labels = Some([("app.kubernetes.io/managed-by".to_owned(), MANAGER.to_owned())].into());
    secret
}
