//! Secrets that Ingresses name: when they are written, when they go, and in which order.

use k3k_expose_proto::ingress::Tls;
use k3k_expose_proto::secret::{Pair, PrivateKey, Secret, Unfit};

use super::ingress::{asks, end_with, reason, shop, work};
use super::*;
use crate::bounds::Bounds;

fn cert(name: &str) -> Key {
    Key::of(Resource::Secrets, "default", name).unwrap()
}

fn keeps(name: &str, secret: Secret) -> Put {
    let object = Object::Secret(Box::new(secret));
    let (hash, unusable) = (object.hash(), Unusable::default());
    Put { key: cert(name), uid: uid(&format!("v-{name}")), hash, seen: 0, unusable, object }
}

fn pair(content: &str) -> Secret {
    Secret::Pair(Pair { certificate: content.to_owned(), key: PrivateKey::new(content.to_owned()) })
}

fn secured(name: &str, secret: &str) -> Put {
    let put = asks(name, "web");
    let Object::Ingress(mut asked) = put.object else { panic!() };
    asked.tls = vec![Tls { hosts: Vec::new(), secret_name: Some(secret.to_owned()) }];
    let object = Object::Ingress(asked);
    Put { hash: object.hash(), object, ..put }
}

/// What an `ExposurePolicy` says that admits Ingresses with, or without, certificates of tenants' own.
fn admits(own_secrets: bool) -> ExposurePolicySpec {
    let allow = json!({"classes": ["public"], "hostSuffixes": ["example"], "ownSecrets": own_secrets});
    spec(json!({"allow": {"ingresses": allow}}))
}

/// A virtual cluster that says again what it is asked for.
struct Side {
    registry: Registry,
    id: SessionId,
    revision: u32,
    says: BTreeMap<Key, Put>,
}

impl Side {
    fn new(puts: Vec<Put>) -> Self {
        let mut registry = listed();
        registry.policy_seen("p", Some(admits(true)));
        let hello = Hello { ingresses: true, secrets: true, ..hello(Tally::default()) };
        let (id, _) = registry.open(&tenant(), cluster_of(&tenant()), server(0), &hello, NOW).unwrap();
        let says = puts.iter().map(|put| (put.key.clone(), put.clone())).collect();
        end_with(&mut registry, id, puts);
        let mut side = Self { registry, id, revision: 0, says };
        side.settle();
        side
    }

    fn put(&mut self, put: Put) {
        self.says.insert(put.key.clone(), put.clone());
        self.registry.line(self.id, FromAgent::Put(put), NOW).unwrap();
        self.settle();
    }

    fn delete(&mut self, key: &Key) {
        let uid = self.says.remove(key).unwrap().uid;
        self.registry.line(self.id, FromAgent::Delete(Delete { key: key.clone(), uid }), NOW).unwrap();
        self.settle();
    }

    /// Works and answers until neither has anything left.
    fn settle(&mut self) {
        for _ in 0..20 {
            work(&mut self.registry, &mut self.revision);
            let mut asked = Vec::new();
            for line in told(&mut self.registry, self.id) {
                if let FromHost::Want(Want::Keys(keys)) = line {
                    asked.extend(keys.iter().filter_map(|key| self.says.get(key).cloned()));
                }
            }
            if asked.is_empty() {
                return;
            }
            for put in asked {
                self.registry.line(self.id, FromAgent::Put(put), NOW).unwrap();
            }
        }
        panic!("it does not settle");
    }

    fn told(&self, key: &Key) -> Option<Reason> {
        Some(self.registry.tenants[&uid("t")].record(key)?.answer.as_ref()?.reason)
    }

    /// Names of the Secrets that an Ingress lists on the host, and of the one that it names.
    fn listed(&self, name: &str) -> (BTreeSet<String>, Option<String>) {
        let at = Registry::place(&self.registry.tenants[&uid("t")], &shop(name));
        let Some(ingress) = self.registry.ingresses.get(&at) else { return Default::default() };
        let spec = json!(ingress.twin.as_ref().unwrap().spec);
        (ingress.secrets.clone(), spec["tls"][0]["secretName"].as_str().map(str::to_owned))
    }

    /// That the Ingress names the twin of this, lists no other, and both have their answer.
    fn stands(&self, name: &str, secret: &str, content: &str) {
        let at = crate::ingress::secret::at(&tenant(), &cert(secret), keeps(secret, pair(content)).hash);
        assert_eq!(self.listed(name), ([at.name.clone()].into(), Some(at.name)));
        assert_eq!((self.told(&shop(name)), self.told(&cert(secret))), (Some(Reason::Applied), Some(Reason::Applied)));
    }
}

#[test]
fn a_secret_comes_with_the_ingress_that_names_it_whichever_is_said_first() {
    for secret_first in [true, false] {
        let mut puts = vec![put("web", 30_080), secured("shop", "cert")];
        puts.insert(if secret_first { 0 } else { 2 }, keeps("cert", pair("x")));
        Side::new(puts).stands("shop", "cert", "x");
    }
    let side = Side::new(vec![keeps("cert", pair("x"))]);
    assert_eq!(side.told(&cert("cert")), Some(Reason::WaitingForIngress));
}

#[test]
fn a_rotation_leads_to_the_new_one_and_takes_the_old_one_away() {
    let mut side = Side::new(vec![put("web", 30_080), keeps("cert", pair("x")), secured("shop", "cert")]);
    side.put(keeps("cert", pair("y")));
    side.stands("shop", "cert", "y");
    side.put(secured("more", "cert"));
    side.put(keeps("cert", pair("z")));
    side.stands("shop", "cert", "z");
    side.stands("more", "cert", "z");
    side.put(keeps("other", pair("o")));
    side.put(secured("shop", "other"));
    side.stands("shop", "other", "o");
    side.stands("more", "cert", "z");
}

#[test]
fn a_secret_goes_with_the_last_ingress_that_names_it() {
    let mut side =
        Side::new(vec![put("web", 30_080), keeps("cert", pair("x")), secured("shop", "cert"), secured("more", "cert")]);
    side.delete(&shop("shop"));
    side.stands("more", "cert", "x");
    side.delete(&shop("more"));
    assert_eq!(side.registry.ingresses.names(), []);
    assert_eq!(side.told(&cert("cert")), Some(Reason::WaitingForIngress));
    side.put(secured("shop", "cert"));
    side.stands("shop", "cert", "x");
}

#[test]
fn a_secret_of_two_ingresses_that_go_at_once_goes_with_them() {
    let mut side =
        Side::new(vec![put("web", 30_080), keeps("cert", pair("x")), secured("shop", "cert"), secured("more", "cert")]);
    let (secret, _) = side.listed("shop");
    let at = HostName { namespace: "ns".to_owned(), name: secret.into_iter().next().unwrap() };
    // Each was judged while the other still stood.
    for at in side.registry.ingresses.names() {
        side.registry.ingress_gone(&at, None, NOW);
    }
    let mut deleted = Vec::new();
    while let Some((tenant, key)) = side.registry.take(9, NOW) {
        if let Task::DeleteSecret(at) = side.registry.decide(&tenant, &key, Road::default(), NOW) {
            side.registry.secret_deleted(&tenant, &key, &at);
            deleted.push(at);
        }
        side.registry.done(&tenant, &key, NOW);
    }
    assert_eq!(deleted, [at]);
    side.settle();
    side.stands("shop", "cert", "x");
}

#[test]
fn a_secret_that_is_lost_leaves_the_host_and_comes_back() {
    let mut side = Side::new(vec![put("web", 30_080), keeps("cert", pair("x")), secured("shop", "cert")]);
    side.delete(&cert("cert"));
    assert_eq!(side.told(&shop("shop")), Some(Reason::WaitingForSecret));
    let (listed, named) = side.listed("shop");
    assert!(listed.is_empty() && named.is_some(), "{listed:?} {named:?}");
    side.put(keeps("cert", pair("x")));
    side.stands("shop", "cert", "x");
}

#[test]
fn what_is_unfit_refuses_its_ingress_and_nothing_of_either_stands() {
    let mut side = Side::new(vec![put("web", 30_080), keeps("cert", pair("x")), secured("shop", "cert")]);
    side.put(keeps("cert", Secret::Unfit(Unfit::Mismatch)));
    assert_eq!(
        (side.told(&shop("shop")), side.told(&cert("cert"))),
        (Some(Reason::TlsSecretUnfit), Some(Reason::TlsSecretUnfit))
    );
    assert_eq!(side.registry.ingresses.names(), []);
    side.put(keeps("cert", pair("y")));
    side.stands("shop", "cert", "y");
}

#[test]
fn without_the_switch_nothing_crosses_and_what_stood_goes() {
    let mut side = Side::new(vec![put("web", 30_080), keeps("cert", pair("x")), secured("shop", "cert")]);
    side.registry.policy_seen("p", Some(admits(false)));
    side.settle();
    assert_eq!(side.told(&shop("shop")), Some(Reason::TlsNotAdmitted));
    assert_eq!(side.registry.ingresses.names(), []);
    side.put(keeps("cert", pair("y")));
    assert_eq!(side.told(&cert("cert")), Some(Reason::TlsNotAdmitted));
}

#[test]
fn an_ingress_that_is_refused_for_another_reason_brings_no_secret() {
    let asked = secured("shop", "cert");
    let side = Side::new(vec![keeps("cert", pair("x")), asked]);
    assert_eq!(reason(&side.registry, "shop"), Some(Reason::BackendNotSynced));
    assert_eq!(side.told(&cert("cert")), Some(Reason::WaitingForIngress));
}

#[test]
fn a_certificate_takes_a_place_among_the_twins_and_can_be_renewed_without_another() {
    let mut side = Side::new(vec![put("web", 30_080)]);
    side.registry.set_bounds(&uid("t"), Bounds { objects: 3, ..Bounds::default() });
    side.put(keeps("cert", pair("x")));
    side.put(secured("shop", "cert"));
    side.stands("shop", "cert", "x");
    side.put(keeps("other", pair("o")));
    side.put(secured("more", "other"));
    let full = Some(Reason::TooManyObjects);
    assert_eq!((side.told(&cert("other")), side.told(&shop("more"))), (full, full));
    side.put(keeps("cert", pair("y")));
    side.stands("shop", "cert", "y");
    side.delete(&shop("shop"));
    side.stands("more", "other", "o");
}
