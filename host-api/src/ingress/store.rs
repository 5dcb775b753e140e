//! Every Ingress of the host, reduced, and who has which host. Pure.
//!
//! A host name is one tenant's as a whole: a path of somebody else's below it would share its origin, and its certificate.
//! The owner is whoever of those that have it on the host was created first. So an Ingress that merely wishes for one never
//! takes it away, and of two that got it at the same time one gives way.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use k3k_expose_proto::Uid;
use k8s_openapi::api::networking::v1::{Ingress, IngressBackend, IngressSpec};

use super::host::{HostIngress, reduce};
use crate::newest::Newest;
use crate::services::{HostName, recount};
use crate::twin::Twin;

/// What an event changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// The Ingress before.
    pub before: Option<HostIngress>,
    /// Hosts that it has no more.
    pub freed: Vec<String>,
    /// Others that have a host which it has only now.
    pub met: BTreeSet<HostName>,
    /// Twins of Secrets that no Ingress lists any more.
    pub unlisted: Vec<HostName>,
    /// Twins of Secrets that an Ingress lists now, and none did before.
    pub listed: Vec<HostName>,
}

/// Who has what.
#[derive(Debug)]
struct Holders<T>(BTreeMap<T, BTreeSet<HostName>>);

/// The Ingresses of the host.
#[derive(Debug, Default)]
pub struct HostIngresses {
    known: BTreeMap<HostName, HostIngress>,
    hosts: Holders<String>,
    secrets: Holders<HostName>,
    twins: HashMap<Uid, usize>,
    /// How many twins of Secrets those of a tenant list.
    listed: HashMap<Uid, usize>,
    newest: Newest,
}

impl HostIngresses {
    /// Takes an Ingress from the watch. Gives `None` when nothing newer is said than what is known.
    pub fn seen(&mut self, ingress: Ingress) -> Option<Change> {
        let (at, ingress) = parse(ingress);
        let known = version(&self.known, &at);
        self.newest.seen(known, &ingress.resource_version).then(|| self.replace(&at, Some(ingress)))
    }

    /// Takes an Ingress that a read has just shown.
    pub fn read(&mut self, ingress: Ingress) -> Option<Change> {
        let (at, ingress) = parse(ingress);
        let known = version(&self.known, &at);
        Newest::read(known, &ingress.resource_version).then(|| self.replace(&at, Some(ingress)))
    }

    /// Takes an Ingress from the answer to a write of ours.
    pub fn answered(&mut self, ingress: Ingress) -> Option<Change> {
        let (at, ingress) = parse(ingress);
        let known = version(&self.known, &at);
        self.newest.answered(known, &ingress.resource_version).then(|| self.replace(&at, Some(ingress)))
    }

    /// Takes it that an Ingress is gone. `resource_version` is that of the event, or `None` for what a read has shown.
    pub fn gone(&mut self, at: &HostName, resource_version: Option<&str>) -> Option<Change> {
        let known = version(&self.known, at);
        self.newest.gone(known, resource_version).then(|| self.replace(at, None))
    }

    /// Takes it that the host has accepted the deletion of a twin. It goes for good, whatever older news says of it.
    pub fn goes(&mut self, at: &HostName, uid: &str) {
        let twin = self.known.get_mut(at).and_then(|ingress| ingress.twin.as_deref_mut());
        if let Some(twin) = twin.filter(|twin| twin.uid == uid) {
            twin.terminating = true;
        }
    }

    /// Names of all Ingresses known, to find those that a new list lacks.
    #[must_use]
    pub fn names(&self) -> Vec<HostName> {
        self.known.keys().cloned().collect()
    }

    /// The Ingress of that name.
    #[must_use]
    pub fn get(&self, at: &HostName) -> Option<&HostIngress> {
        self.known.get(at)
    }

    /// The twins in a namespace.
    pub fn twins(&self, namespace: &str) -> impl Iterator<Item = &Twin<IngressSpec>> {
        let first = HostName { namespace: namespace.to_owned(), name: String::new() };
        let of_namespace = self.known.range(first..).take_while(move |(at, _)| at.namespace == namespace);
        of_namespace.filter_map(|(_, ingress)| ingress.twin.as_deref())
    }

    /// Number of twins of a tenant.
    #[must_use]
    pub fn twins_of(&self, tenant: &Uid) -> usize {
        self.twins.get(tenant).copied().unwrap_or_default()
    }

    /// Number of twins of Secrets that those of a tenant list.
    #[must_use]
    pub fn secrets_of(&self, tenant: &Uid) -> usize {
        self.listed.get(tenant).copied().unwrap_or_default()
    }

    /// Whether anybody has this host.
    #[must_use]
    pub fn is_had(&self, host: &str) -> bool {
        self.hosts.0.contains_key(host)
    }

    /// The twins in a namespace that name this Service of it.
    pub fn naming<'a>(&'a self, service: &'a HostName) -> impl Iterator<Item = &'a Twin<IngressSpec>> {
        let names = |backend: &IngressBackend| backend.service.as_ref().is_some_and(|named| named.name == service.name);
        self.twins(&service.namespace).filter(move |twin| {
            let paths =
                twin.spec.rules.iter().flatten().filter_map(|rule| rule.http.as_ref()).flat_map(|http| &http.paths);
            twin.spec.default_backend.iter().chain(paths.map(|path| &path.backend)).any(names)
        })
    }

    /// The first of these hosts that somebody else than the tenant has, and that `at` does not have before them.
    #[must_use]
    pub fn taken<'a>(&self, at: &HostName, tenant: &Uid, hosts: &'a BTreeSet<String>) -> Option<&'a String> {
        let own = self.known.get(at).filter(|own| own.twin.as_ref().is_some_and(|twin| twin.marks.tenant == *tenant));
        hosts.iter().find(|host| {
            let holders = self.hosts.0.get(*host).into_iter().flatten().filter(|holder| *holder != at);
            holders.filter_map(|holder| self.known.get(holder)).any(|other| {
                let stranger = other.twin.as_ref().is_none_or(|twin| twin.marks.tenant != *tenant);
                stranger && own.filter(|own| own.hosts.contains(*host)).is_none_or(|own| other.age < own.age)
            })
        })
    }

    /// The Ingresses that list the twin of a Secret.
    pub fn listing(&self, secret: &HostName) -> impl Iterator<Item = (&HostName, &HostIngress)> {
        let holders = self.secrets.0.get(secret).into_iter().flatten();
        holders.filter_map(|at| Some((at, self.known.get(at)?)))
    }

    /// Whether an Ingress lists a twin of a Secret whose name begins like this.
    #[must_use]
    pub fn lists_any(&self, beginning: &HostName) -> bool {
        let next = self.secrets.0.range(beginning..).next();
        next.is_some_and(|(at, _)| at.namespace == beginning.namespace && at.name.starts_with(&beginning.name))
    }

    fn replace(&mut self, at: &HostName, mut ingress: Option<HostIngress>) -> Change {
        let known = self.known.get(at).and_then(|known| known.twin.as_deref());
        if let (Some(after), Some(before)) = (ingress.as_mut().and_then(|after| after.twin.as_deref_mut()), known) {
            after.terminating |= before.terminating && before.uid == after.uid;
        }
        let secrets = |ingress: &HostIngress| {
            let named = |name: &String| HostName { namespace: at.namespace.clone(), name: name.clone() };
            ingress.secrets.iter().map(named).collect::<BTreeSet<_>>()
        };
        let has = ingress.as_ref().map(|ingress| (ingress.hosts.clone(), secrets(ingress))).unwrap_or_default();
        let tenant = |ingress: &HostIngress| ingress.twin.as_ref().map(|twin| twin.marks.tenant.clone());
        let is = ingress.as_ref().and_then(tenant);
        let before = match ingress {
            Some(ingress) => self.known.insert(at.clone(), ingress),
            None => self.known.remove(at),
        };
        recount(&mut self.twins, before.as_ref().and_then(tenant).as_ref(), is.as_ref());
        let had = before.as_ref().map(|before| (before.hosts.clone(), secrets(before))).unwrap_or_default();
        let (freed, met) = self.hosts.replace(at, &had.0, &has.0);
        let listed = has.1.iter().filter(|secret| !self.secrets.0.contains_key(secret)).cloned().collect::<Vec<_>>();
        let (unlisted, _) = self.secrets.replace(at, &had.1, &has.1);
        let unlisted = unlisted.into_iter().filter(|secret| !self.secrets.0.contains_key(secret)).collect::<Vec<_>>();
        // A name tells whose it is, so no other tenant's Ingress lists it.
        let was = before.as_ref().and_then(tenant);
        unlisted.iter().for_each(|_| recount(&mut self.listed, was.as_ref(), None));
        listed.iter().for_each(|_| recount(&mut self.listed, None, is.as_ref()));
        Change { before, freed, met, unlisted, listed }
    }
}

impl<T: Clone + Ord> Holders<T> {
    /// Takes in what somebody has now. Gives what it has no more, and who else has what it has only now.
    fn replace(&mut self, at: &HostName, had: &BTreeSet<T>, has: &BTreeSet<T>) -> (Vec<T>, BTreeSet<HostName>) {
        let freed: Vec<T> = had.difference(has).cloned().collect();
        for thing in &freed {
            if let Some(holders) = self.0.get_mut(thing) {
                holders.remove(at);
                if holders.is_empty() {
                    self.0.remove(thing);
                }
            }
        }
        let mut met = BTreeSet::new();
        for thing in has.difference(had) {
            let holders = self.0.entry(thing.clone()).or_default();
            met.extend(holders.iter().cloned());
            holders.insert(at.clone());
        }
        (freed, met)
    }
}

impl<T> Default for Holders<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

fn version<'a>(known: &'a BTreeMap<HostName, HostIngress>, at: &HostName) -> Option<&'a str> {
    known.get(at).map(|known| known.resource_version.as_str())
}

fn parse(ingress: Ingress) -> (HostName, HostIngress) {
    (HostName::of(&ingress.metadata), reduce(ingress))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::name;

    fn at(name: &str) -> HostName {
        HostName { namespace: "ns".to_owned(), name: name.to_owned() }
    }

    fn uid(text: &str) -> Uid {
        Uid::parse(text).unwrap()
    }

    fn ingress(name: &str, revision: u32, owner: &str, created: &str, host: &str) -> Ingress {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "ns", "uid": name, "resourceVersion": revision.to_string(),
                "creationTimestamp": created, "labels": {"app.kubernetes.io/managed-by": "k3k-expose"},
                "annotations": {"k3k.io/name": "web", "k3k.io/namespace": "default"},
                "ownerReferences": [{"apiVersion": "k3k.io/v1beta1", "kind": "Cluster", "name": owner, "uid": owner}]},
            "spec": {"rules": [{"host": host}]}
        }))
        .unwrap()
    }

    fn wishes(host: &str) -> BTreeSet<String> {
        [host.to_owned()].into()
    }

    const EARLY: &str = "2026-01-01T00:00:00Z";
    const LATE: &str = "2026-01-02T00:00:00Z";

    #[test]
    fn the_first_of_those_that_have_a_host_owns_it_and_who_only_wishes_has_nothing() {
        let (one, two) = (name::twin("web", "default", "one"), name::twin("web", "default", "two"));
        let mut store = HostIngresses::default();
        store.seen(ingress(&two, 1, "two", LATE, "h")).unwrap();
        // Older, but it has another host so far.
        store.seen(ingress(&one, 2, "one", EARLY, "other")).unwrap();
        let wish = wishes("h");
        assert_eq!(store.taken(&at(&one), &uid("one"), &wish), wish.first());
        assert_eq!(store.taken(&at(&two), &uid("two"), &wish), None);
        assert_eq!(store.taken(&at("x"), &uid("two"), &wish), None, "the tenant's own");
        // Both have it, since both were written at the same time.
        let change = store.seen(ingress(&one, 3, "one", EARLY, "h")).unwrap();
        assert_eq!((change.met, change.freed.len()), ([at(&two)].into(), 1));
        assert_eq!(store.taken(&at(&one), &uid("one"), &wish), None);
        assert_eq!(store.taken(&at(&two), &uid("two"), &wish), wish.first());
        assert_eq!(store.gone(&at(&one), Some("4")).unwrap().freed, Vec::from_iter(wish.clone()));
        assert_eq!(store.taken(&at(&two), &uid("two"), &wish), None);
    }

    #[test]
    fn an_ingress_of_nobody_in_particular_has_its_hosts_too() {
        let mut store = HostIngresses::default();
        let mut foreign = ingress("theirs", 1, "x", EARLY, "h");
        foreign.metadata.owner_references = None;
        store.seen(foreign).unwrap();
        assert!(store.taken(&at("mine"), &uid("one"), &wishes("h")).is_some());
        assert_eq!(store.twins("ns").count(), 0);
    }

    #[test]
    fn older_news_changes_nothing_and_the_dead_stay_dead() {
        let mut store = HostIngresses::default();
        store.seen(ingress("a", 5, "x", EARLY, "h")).unwrap();
        assert_eq!(store.seen(ingress("a", 4, "x", EARLY, "g")), None);
        assert_eq!(store.gone(&at("a"), Some("4")), None);
        store.gone(&at("a"), Some("7")).unwrap();
        assert_eq!(store.answered(ingress("a", 6, "x", EARLY, "h")), None);
        assert!(store.read(ingress("a", 8, "x", EARLY, "h")).is_some());
    }
}
