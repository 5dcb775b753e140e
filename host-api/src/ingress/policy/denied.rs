//! What one `ExposurePolicy` denies of Ingresses. Pure.
//!
//! What cannot be read may be anything, so it denies all of its kind.

use k3k_expose_proto::key::is_dns_subdomain;

use super::is_within;
use crate::policy::keys::Name;
use crate::policy::resource::DeniedIngresses;

/// What is denied; none stands for what cannot be read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Denied {
    classes: Vec<Option<String>>,
    host_suffixes: Vec<Option<String>>,
    annotations: Vec<Name>,
}

impl Denied {
    /// Reads it. Gives besides what is wrong with it.
    pub(super) fn parse(deny: &DeniedIngresses) -> (Self, Vec<String>) {
        let mut mistakes = Vec::new();
        let mut names = |names: &[String], one: &str, all: &str| -> Vec<Option<String>> {
            let bad = names.iter().filter(|name| !is_dns_subdomain(name));
            mistakes.extend(bad.map(|name| format!("{name:?} is no {one}, so all {all} are denied")));
            names.iter().map(|name| Some(name.clone()).filter(|name| is_dns_subdomain(name))).collect()
        };
        let classes = names(&deny.classes, "class", "classes");
        let host_suffixes = names(&deny.host_suffixes, "domain", "hosts");
        let annotations: Vec<Name> = deny.annotations.iter().map(Name::denied).collect();
        let unusable = annotations.iter().filter(|name| **name == Name::Unusable);
        mistakes.extend(unusable.map(|_| "a key is missing, so all annotations of Ingresses are denied".to_owned()));
        (Self { classes, host_suffixes, annotations }, mistakes)
    }

    pub(super) fn class(&self, class: &str) -> bool {
        self.classes.iter().any(|denied| denied.as_ref().is_none_or(|denied| denied == class))
    }

    pub(super) fn host(&self, host: &str) -> bool {
        self.host_suffixes.iter().any(|denied| denied.as_ref().is_none_or(|suffix| is_within(host, suffix)))
    }

    /// Whether there is a host that is denied: then nothing may be for every host.
    pub(super) fn any_host(&self) -> bool {
        !self.host_suffixes.is_empty()
    }

    pub(super) fn annotation(&self, key: &str) -> bool {
        self.annotations.iter().any(|name| name.denies(key))
    }
}
