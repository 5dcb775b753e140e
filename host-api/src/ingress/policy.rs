//! What the platform team admits of a tenant's Ingresses: the one place of that decision. Pure.
//!
//! Nothing is admitted that the deciding `ExposurePolicy` does not name, or that any denies. Who has a host first, and
//! whether a backend is exposed, is not policy.

mod denied;

use std::collections::BTreeSet;

use k3k_expose_process::quote::quote;
use k3k_expose_proto::Reason;
use k3k_expose_proto::ingress::{Backend, Ingress};
use k3k_expose_proto::key::is_dns_subdomain;
use k3k_expose_proto::limits::INGRESS_CLASSES;

use crate::policy::grant::annotation_may_cross;
use crate::policy::keys::Keys;
use crate::policy::resource::{DeniedIngresses, Ingresses};
use crate::policy::{Refusal, Rule};
use denied::Denied;

/// Annotations that steer no controller, by the prefix of their keys: they stay behind and refuse nothing.
const IGNORED: [&str; 5] =
    ["kubectl.kubernetes.io/", "meta.helm.sh/", "expose.k3k.io/", "field.cattle.io/", "argocd.argoproj.io/"];

/// What is admitted of one tenant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// Which `ExposurePolicy` admits it; none where none speaks of Ingresses.
    by: Option<String>,
    classes: BTreeSet<String>,
    /// Domains: each admits itself and every name below it.
    host_suffixes: Vec<String>,
    annotations: Vec<Keys>,
    /// Secrets of the host's namespace that may be named as they are.
    tls_secrets: BTreeSet<String>,
    /// Certificates of the tenant's own may cross.
    own_secrets: bool,
    /// Requests that no other Ingress of the host wants may go to the tenant.
    default_backend: bool,
    /// What each policy denies, whatever is admitted.
    denied: Vec<(String, Denied)>,
}

impl Policy {
    /// Reads what the deciding policy admits, if it speaks of Ingresses, and what each denies; and what of that cannot be used: a
    /// mistake admits nothing, and denies all.
    #[must_use]
    pub fn read(allow: Option<(&str, &Ingresses)>, deny: &[(&str, &DeniedIngresses)]) -> (Self, Vec<String>) {
        let mut mistakes = Vec::new();
        let by = allow.map(|(policy, _)| policy.to_owned());
        let nothing = Ingresses::default();
        let allow = allow.map_or(&nothing, |(_, allow)| allow);
        let mut names = |names: &[String], what: &str| -> Vec<String> {
            let (good, bad): (Vec<_>, Vec<_>) = names.iter().cloned().partition(|name| is_dns_subdomain(name));
            mistakes.extend(bad.iter().map(|name| format!("{name:?} is no {what}")));
            good
        };
        let classes = names(&allow.classes, "class").into_iter().take(INGRESS_CLASSES).collect();
        let host_suffixes = names(&allow.host_suffixes, "domain");
        let tls_secrets = names(&allow.tls_secrets, "Secret").into_iter().collect();
        let (annotations, mistaken): (Vec<_>, Vec<_>) = allow.annotations.iter().map(Keys::parse).unzip();
        mistakes.extend(mistaken.into_iter().flatten());
        let mut denied = Vec::new();
        for (policy, deny) in deny {
            let (denies, mistaken) = Denied::parse(deny);
            mistakes.extend(mistaken);
            denied.push(((*policy).to_owned(), denies));
        }
        let (own_secrets, default_backend) = (allow.own_secrets, allow.default_backend);
        let policy =
            Self { by, classes, host_suffixes, annotations, tls_secrets, own_secrets, default_backend, denied };
        (policy, mistakes)
    }

    /// Whether certificates of the tenant's own may cross.
    #[must_use]
    pub const fn own_secrets(&self) -> bool {
        self.own_secrets
    }

    /// Whether a Secret is named as it is: one of the host's, which the platform team has named itself.
    #[must_use]
    pub fn is_literal(&self, name: &str) -> bool {
        self.tls_secrets.contains(name)
    }

    /// The classes that are admitted.
    #[must_use]
    pub fn classes(&self) -> Vec<String> {
        let admitted = self.classes.iter().filter(|class| self.denying(|denied| denied.class(class)).is_none());
        admitted.cloned().collect()
    }

    /// Judges an Ingress.
    ///
    /// # Errors
    /// The first [`Refusal`], in the order in which a tenant would mend them.
    pub fn judge(&self, ingress: &Ingress) -> Result<(), Refusal> {
        self.class(ingress)?;
        self.hosts(ingress)?;
        paths(ingress)?;
        self.annotations(ingress)?;
        self.secrets(ingress)?;
        if ingress.backends().any(|backend| *backend == Backend::Resource) {
            return whatever(Reason::BackendNotSynced, "a backend is no Service");
        }
        Ok(())
    }

    /// The annotations that cross, once [`Self::judge`] has admitted the Ingress.
    pub fn crossing<'a>(&'a self, ingress: &'a Ingress) -> impl Iterator<Item = (&'a String, &'a String)> {
        let admitted = |key: &str| self.keys(key).is_some() && self.denying(|denied| denied.annotation(key)).is_none();
        ingress.annotations.iter().filter(move |(key, _)| annotation_may_cross(key) && admitted(key))
    }

    fn keys(&self, key: &str) -> Option<&Keys> {
        self.annotations.iter().find(|keys| keys.name().admits(key))
    }

    fn class(&self, ingress: &Ingress) -> Result<(), Refusal> {
        let Some(class) = &ingress.ingress_class_name else {
            return whatever(Reason::ClassNotAdmitted, "ingressClassName is missing");
        };
        let denying = self.denying(|denied| denied.class(class));
        if denying.is_none() && self.classes.contains(class) {
            return Ok(());
        }
        let message = format!("ingress class {} is not admitted", quote(class));
        self.refuse(Reason::ClassNotAdmitted, &message, "classes", denying)
    }

    fn hosts(&self, ingress: &Ingress) -> Result<(), Refusal> {
        if ingress.default_backend.is_some() {
            let denying = self.denying(Denied::any_host);
            if denying.is_some() || !self.default_backend {
                let field = if denying.is_some() { "hostSuffixes" } else { "defaultBackend" };
                let message = "a default backend would be for every host, which is not admitted";
                return self.refuse(Reason::HostNotAdmitted, message, field, denying);
            }
        }
        let hosts = ingress.rules.iter().map(|rule| &rule.host).chain(ingress.tls.iter().flat_map(|tls| &tls.hosts));
        for host in hosts {
            if host.is_empty() {
                return whatever(Reason::HostNotAdmitted, "a rule without a host would be for every host");
            }
            if host.contains('*') {
                return whatever(Reason::HostNotAdmitted, &format!("host {} is a wildcard", quote(host)));
            }
            // The API server would refuse it, at a cost to all.
            if !is_dns_subdomain(host) {
                return whatever(Reason::HostNotAdmitted, &format!("host {} is no host name", quote(host)));
            }
            let denying = self.denying(|denied| denied.host(host));
            if denying.is_some() || !self.host_suffixes.iter().any(|suffix| is_within(host, suffix)) {
                let message = format!("host {} is not admitted", quote(host));
                return self.refuse(Reason::HostNotAdmitted, &message, "hostSuffixes", denying);
            }
        }
        Ok(())
    }

    fn annotations(&self, ingress: &Ingress) -> Result<(), Refusal> {
        for (key, value) in &ingress.annotations {
            let denying = self.denying(|denied| denied.annotation(key));
            let message = match self.keys(key).filter(|_| denying.is_none()) {
                Some(keys) if keys.admits(value) => continue,
                Some(_) => format!("the value of annotation {} is not admitted", quote(key)),
                None if IGNORED.iter().any(|prefix| key.starts_with(prefix)) => continue,
                None => format!("annotation {} is not admitted", quote(key)),
            };
            return self.refuse(Reason::AnnotationNotAdmitted, &message, "annotations", denying);
        }
        Ok(())
    }

    fn secrets(&self, ingress: &Ingress) -> Result<(), Refusal> {
        let mut named = ingress.tls.iter().filter_map(|tls| tls.secret_name.as_ref());
        match named.find(|name| !self.own_secrets && !self.is_literal(name)) {
            Some(name) => {
                let message = format!("Secret {} is not admitted", quote(name));
                // One that is not named is the tenant's own.
                self.refuse(Reason::TlsNotAdmitted, &message, "ownSecrets", None)
            }
            // Whether it is there, and fit for use, is not policy.
            None => Ok(()),
        }
    }

    /// The first policy that denies.
    fn denying(&self, denies: impl Fn(&Denied) -> bool) -> Option<&str> {
        self.denied.iter().find(|(_, denied)| denies(denied)).map(|(policy, _)| policy.as_str())
    }

    /// Refuses by a field of `spec.allow.ingresses`, or by that of `spec.deny.ingresses` of the policy that denies.
    fn refuse(&self, reason: Reason, message: &str, field: &str, denying: Option<&str>) -> Result<(), Refusal> {
        let (list, policy) = match denying {
            Some(policy) => ("deny", Some(policy.to_owned())),
            None => ("allow", self.by.clone()),
        };
        let rule = Rule { policy, field: format!("spec.{list}.ingresses.{field}") };
        Err(Refusal { reason, message: message.to_owned(), rule: Some(rule) })
    }
}

/// A controller puts paths into a configuration language of its own, where a quote or a bracket could speak for other hosts.
fn paths(ingress: &Ingress) -> Result<(), Refusal> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%".contains(&byte);
    // An empty path means every path.
    let admitted = |path: &str| path.is_empty() || (path.starts_with('/') && path.bytes().all(plain));
    let mut paths = ingress.rules.iter().flat_map(|rule| &rule.paths).map(|path| path.path.as_str());
    match paths.find(|path| !admitted(path)) {
        Some(path) => whatever(Reason::PathNotAdmitted, &format!("path {} is not admitted", quote(path))),
        None => Ok(()),
    }
}

/// Refuses what no policy could admit.
fn whatever(reason: Reason, message: &str) -> Result<(), Refusal> {
    Err(Refusal::new(reason, message.to_owned()))
}

fn is_within(host: &str, suffix: &str) -> bool {
    host.strip_suffix(suffix).is_some_and(|head| head.is_empty() || head.ends_with('.'))
}

#[cfg(test)]
mod tests;
