//! The Secrets that Ingresses name: which are written, when they go, and what that means for the Ingresses. Pure.
//!
//! A Secret is written only when an Ingress waits for it that lacks nothing else, and goes before its Ingress does: what
//! stands is listed there. Host-api keeps no content, so the agent says a Secret again when it is needed after all.

use std::collections::{BTreeMap, BTreeSet};

use k3k_expose_proto::ingress::Ingress as Asked;
use k3k_expose_proto::message::Object;
use k3k_expose_proto::secret::Secret;
use k3k_expose_proto::{Key, Outcome, Reason, Resource, Uid};
use k8s_openapi::api::networking::v1::IngressSpec;
use serde_json::json;

use super::Registry;
use super::judge::{Task, Verdict};
use super::words;
use crate::ingress::secret::{self, SecretTwin};
use crate::ledger::{Ledger, Record};
use crate::policy::Refusal;
use crate::queue::Cause;
use crate::services::{Blocker, HostName};
use crate::translate::frame;
use crate::twin::{TLS_SECRETS, Twin};

/// What the Secrets of an Ingress are called on the host, by their names in the virtual cluster.
pub(super) type Names = BTreeMap<String, String>;

impl Registry {
    pub(super) fn judge_secret(&self, ledger: &Ledger, key: &Key) -> Verdict {
        let beginning = secret::beginning(&ledger.tenant, key);
        let record = ledger.record(key);
        let at = record.map(|record| secret::at(&ledger.tenant, key, record.hash));
        let is_needed = self.waiting.contains_key(&Blocker::Backend(ledger.tenant.id().clone(), key.clone()))
            || self.ingresses.lists_any(&beginning);
        let is_stray = |made: &&HostName| !(self.is_listed(made) || is_needed && at.as_ref() == Some(*made));
        if let Some(stray) = self.secrets.made_as(ledger.tenant.id(), &beginning).find(is_stray) {
            return Verdict::Do(Task::DeleteSecret(stray.clone()));
        }
        let Some((Record { uid, object: Some(Object::Secret(secret)), .. }, at)) = record.zip(at) else {
            return Verdict::Nothing;
        };
        let deny = |reason, message| Verdict::Deny(Refusal::new(reason, message), Vec::new());
        match secret.as_ref() {
            _ if !self.grant(ledger.tenant.id()).ingresses.own_secrets() => {
                deny(Reason::TlsNotAdmitted, "no Secret of this virtual cluster may cross".to_owned())
            }
            Secret::Unfit(unfit) => deny(Reason::TlsSecretUnfit, format!("Secret {} {}", key.name(), unfit.as_words())),
            Secret::Pair(_) if !is_needed => Verdict::Answer(Reason::WaitingForIngress, Vec::new()),
            Secret::Pair(_) if self.secrets.stands(ledger.tenant.id(), &at, self.is_listed(&at)) => {
                Verdict::Answer(Reason::Applied, Vec::new())
            }
            Secret::Pair(pair) => {
                let desired = frame(&ledger.tenant, &ledger.virtual_cluster, key, uid, &BTreeMap::new(), ());
                let twin = SecretTwin { metadata: desired.metadata(&at), pair: pair.clone() };
                Verdict::Do(Task::CreateSecret(at, Box::new(twin)))
            }
        }
    }

    /// What the Secrets of an Ingress are called on the host, as far as they are not named as they are; or why one of them does
    /// not stand.
    pub(super) fn secrets(&self, ledger: &Ledger, key: &Key, asked: &Asked) -> Result<Names, (Refusal, Vec<Blocker>)> {
        let tenant = &ledger.tenant;
        let no = |reason, message: Option<String>| {
            Refusal::new(reason, message.unwrap_or_else(|| words::message(Resource::Ingresses, reason, &[])))
        };
        let policy = &self.grant(tenant.id()).ingresses;
        let named = asked.tls.iter().filter_map(|tls| tls.secret_name.as_ref()).filter(|name| !policy.is_literal(name));
        let (mut names, mut waits) = (Names::new(), BTreeSet::new());
        for name in named {
            let secret = Key::of(Resource::Secrets, key.namespace(), name).ok();
            let secret = secret.filter(|_| ledger.speaks_for(Resource::Secrets)).ok_or_else(|| {
                let message = "the agent of this virtual cluster speaks of no such Secret".to_owned();
                (no(Reason::TlsNotAdmitted, Some(message)), Vec::new())
            })?;
            let blocker = Blocker::Backend(tenant.id().clone(), secret.clone());
            let settled = ledger.record(&secret).and_then(|record| Some((record, record.settled()?)));
            match settled {
                Some((_, answer)) if answer.outcome == Outcome::Rejected => {
                    return Err((no(answer.reason, Some(answer.message.clone())), vec![blocker]));
                }
                Some((record, _)) if self.secret_stands(ledger, &secret, record) => {
                    names.insert(name.clone(), secret::at(tenant, &secret, record.hash).name);
                }
                _ => {
                    waits.insert(blocker);
                }
            }
        }
        if waits.is_empty() {
            return Ok(names);
        }
        Err((no(Reason::WaitingForSecret, None), waits.into_iter().collect()))
    }

    /// What an Ingress stands on besides its backends, which tell by themselves when they go.
    pub(super) fn secrets_of(ledger: &Ledger, key: &Key, names: &Names) -> Vec<Blocker> {
        let secrets = names.keys().filter_map(|name| Key::of(Resource::Secrets, key.namespace(), name).ok());
        secrets.map(|secret| Blocker::Backend(ledger.tenant.id().clone(), secret)).collect()
    }

    /// Twins of Secrets that an Ingress lists and does not need: those that others list stay with them.
    pub(super) fn outlived(&self, at: &HostName, twin: &Twin<IngressSpec>, names: &Names) -> Vec<HostName> {
        let listed = secret::listed(Some(&twin.annotations));
        let unneeded = listed.into_iter().filter(|name| !names.values().any(|needed| needed == name));
        let unneeded = unneeded.map(|name| HostName { namespace: at.namespace.clone(), name });
        let of_others = |secret: &HostName| self.ingresses.listing(secret).any(|(other, _)| other != at);
        let tenant = &twin.marks.tenant;
        unneeded.filter(|secret| self.secrets.stands(tenant, secret, true) && !of_others(secret)).collect()
    }

    /// The twin of a Secret that an Ingress was the last to list, and left behind.
    pub(super) fn orphan(&self, tenant: &Uid, key: &Key) -> Option<HostName> {
        self.secrets.orphans(tenant, key).find(|orphan| !self.is_listed(orphan)).cloned()
    }

    /// What has to be done before a twin of an Ingress may go.
    pub(super) fn before_deletion(&self, at: &HostName, twin: &Twin<IngressSpec>, deletion: Task) -> Task {
        self.outlived(at, twin, &Names::new()).pop().map_or(deletion, Task::DeleteSecret)
    }

    /// What to do about the twin of an Ingress that waits for Secrets: what is no more in the virtual cluster goes from the host.
    /// The Ingress itself stays, as it does where certificates are lost anywhere else, and keeps its host.
    pub(super) fn without_lost_secrets(
        &self,
        ledger: &Ledger,
        at: &HostName,
        twin: &Twin<IngressSpec>,
        blockers: &[Blocker],
    ) -> Option<Task> {
        let is_known = ledger.complete && ledger.speaks_for(Resource::Secrets) && !twin.terminating;
        let lost = blockers.iter().filter_map(|blocker| match blocker {
            Blocker::Backend(_, key) if ledger.record(key).is_none() => Some(secret::beginning(&ledger.tenant, key)),
            _ => None,
        });
        let lost: Vec<HostName> = lost.filter(|_| is_known).collect();
        let listed = secret::listed(Some(&twin.annotations));
        let here = |name: &String| HostName { namespace: at.namespace.clone(), name: name.clone() };
        let stands = |name: &&String| self.secrets.stands(ledger.tenant.id(), &here(name), true);
        let is_lost = |name: &&String| lost.iter().any(|beginning| name.starts_with(&beginning.name));
        if let Some(name) = listed.iter().find(|name| stands(name) && is_lost(name)) {
            return Some(Task::DeleteSecret(here(name)));
        }
        let left = secret::list(listed.iter().filter(stands));
        let unchanged = listed.iter().all(|name| stands(&name));
        (!lost.is_empty() && !unchanged).then(|| {
            let (uid, version) = (&twin.uid, &twin.resource_version);
            let annotations = json!({TLS_SECRETS: left});
            let metadata = json!({"uid": uid, "resourceVersion": version, "annotations": annotations});
            Task::Patch(at.clone(), json!({"metadata": metadata}))
        })
    }

    /// Takes in that a twin of a Secret was made, or stands already.
    pub fn secret_made(&mut self, tenant: &Uid, at: &HostName) {
        self.secrets.made(tenant, at, self.is_listed(at));
    }

    /// Takes in that the twin of a Secret was deleted for the sake of `key`, or was not there.
    pub fn secret_deleted(&mut self, tenant: &Uid, key: &Key, at: &HostName) {
        self.secrets.deleted(tenant, at, self.is_listed(at));
        self.offer_room(tenant);
        let twins = self.ingresses.listing(at).filter_map(|(_, ingress)| ingress.twin.as_ref());
        let others = twins.map(|twin| (twin.marks.tenant.clone(), twin.marks.key.clone()));
        let others: Vec<_> = others.filter(|other| (&other.0, &other.1) != (tenant, key)).collect();
        for (tenant, key) in others {
            self.need(&tenant, &key);
        }
        let Some(ledger) = self.tenants.get(tenant) else { return };
        let is_it = |(key, record): &(&Key, &Record)| {
            key.resource() == Resource::Secrets
                && record.stands(Reason::Applied)
                && secret::at(&ledger.tenant, key, record.hash) == *at
        };
        let secret = ledger.records().find(is_it).map(|(key, _)| key.clone());
        if let Some(secret) = secret {
            self.conclude(tenant, &secret, Reason::WaitingForIngress, Vec::new());
        }
    }

    /// Asks for the Secrets that an Ingress waits for, as far as they have been said and only wait for it.
    pub(super) fn ask_for_secrets(&mut self, tenant: &Uid, key: &Key) {
        let Some(ledger) = self.tenants.get(tenant) else { return };
        let waits = ledger.record(key).map(|record| record.blockers.as_slice()).unwrap_or_default();
        let asked = waits.iter().filter_map(|blocker| match blocker {
            Blocker::Backend(_, secret) if secret.resource() == Resource::Secrets => Some(secret),
            _ => None,
        });
        let waits = |secret: &&Key| {
            let record = ledger.record(secret);
            record.is_some_and(|record| {
                record.stands(Reason::WaitingForIngress)
                    || (record.stands(Reason::Applied) && !self.secret_stands(ledger, secret, record))
            })
        };
        for secret in asked.filter(waits).cloned().collect::<Vec<_>>() {
            self.need(tenant, &secret);
        }
    }

    /// Looks whether Secrets that an object has waited for are needed any more.
    pub(super) fn look_at_secrets_of(&mut self, blockers: &[Blocker]) {
        for blocker in blockers {
            if let Blocker::Backend(tenant, key) = blocker
                && key.resource() == Resource::Secrets
                && !self.waiting.contains_key(blocker)
            {
                self.queue.add(tenant, key.clone(), Cause::Change);
                self.effects.work = true;
            }
        }
    }

    fn secret_stands(&self, ledger: &Ledger, secret: &Key, record: &Record) -> bool {
        let at = secret::at(&ledger.tenant, secret, record.hash);
        record.stands(Reason::Applied) && self.secrets.stands(ledger.tenant.id(), &at, self.is_listed(&at))
    }

    /// Whether a twin of this Secret stands, with whatever content.
    pub(super) fn any_secret_stands(&self, ledger: &Ledger, key: &Key) -> bool {
        let beginning = secret::beginning(&ledger.tenant, key);
        self.ingresses.lists_any(&beginning) || self.secrets.made_as(ledger.tenant.id(), &beginning).next().is_some()
    }

    fn is_listed(&self, at: &HostName) -> bool {
        self.ingresses.listing(at).next().is_some()
    }
}
