//! What both TLS ports show. I/O: the clock.
//!
//! Every handshake looks anew, so what is put here is shown from the next one on, and no open stream notices. What has expired
//! is not shown to anybody: a handshake without a certificate fails.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::material::Showable;
use super::unix_seconds;
use crate::metrics::{Certificate, Metrics};

/// The certificate of the process.
#[derive(Clone, Default)]
pub struct Shown {
    current: Arc<Mutex<Option<Showable>>>,
}

impl Shown {
    /// Shows this from now on; tells whether it is another one than before.
    pub fn show(&self, showable: Showable, metrics: &Metrics) -> bool {
        metrics.certificate_expires(Certificate::Serving, showable.validity.not_after);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let same = current.as_ref().is_some_and(|shown| shown.certified.cert == showable.certified.cert);
        if !same {
            *current = Some(showable);
        }
        !same
    }

    /// The TLS settings of both ports.
    #[must_use]
    pub fn settings(&self) -> Arc<ServerConfig> {
        let resolver: Arc<dyn ResolvesServerCert> = Arc::new(self.clone());
        let mut settings = ServerConfig::builder().with_no_client_auth().with_cert_resolver(resolver);
        settings.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // A resumed session would go on with a certificate that is shown no more; streams live long and resume nothing.
        settings.session_storage = Arc::new(NoServerSessionStorage {});
        settings.send_tls13_tickets = 0;
        Arc::new(settings)
    }

    /// What is shown at that time.
    fn at(&self, now: i64) -> Option<Arc<CertifiedKey>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().filter(|shown| !shown.validity.is_over(now)).map(|shown| Arc::clone(&shown.certified))
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.at(unix_seconds())
    }
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shown").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::material::Material;
    use crate::certificates::plan::{Lifetimes, Next, Standing, next};

    #[test]
    fn what_is_over_is_shown_to_nobody() {
        let lifetimes = Lifetimes { certificate: 100, authority: 300 };
        let Next::Change(change) = next(&Standing::default(), 1_000, &lifetimes) else {
            panic!("there is nothing yet");
        };
        let material = Material::read(&[].into()).change(&change, 1_000, &["a".to_owned()], &lifetimes).unwrap();
        let (shown, metrics) = (Shown::default(), Metrics::new());
        assert!(shown.at(1_000).is_none(), "nothing was put there");
        assert!(shown.show(material.showable().unwrap(), &metrics));
        assert!(!shown.show(material.showable().unwrap(), &metrics), "it is the same");
        assert!(shown.at(1_099).is_some());
        assert!(shown.at(1_100).is_none());
    }
}
