//! Twins of the Secrets that Ingresses name: what they are called, and which of them stand. Pure.
//!
//! A twin is made and deleted, never read and never changed: its name says which Secret of which tenant it is of and what is in
//! it, and the API server holds it immutable. So host-api needs no right to read or to change any Secret of a tenant's
//! namespace, a rotation is the Ingress' step from one name to the next, and nobody can be given another's Secret. What
//! stands for an Ingress is listed in an annotation of its twin, so that nothing is forgotten on the host by a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k3k_expose_process::pair;
use k3k_expose_proto::secret::{Pair, Secret};
use k3k_expose_proto::{Hash, Key, Uid};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::name;
use crate::services::HostName;
use crate::tenant::Tenant;
use crate::twin::TLS_SECRETS;

/// Digits of each of the two hashes in a name.
const DIGITS: usize = 16;

/// A twin to be made. It prints without its key.
#[derive(Clone, Debug, PartialEq)]
pub struct SecretTwin {
    /// `metadata`.
    pub metadata: ObjectMeta,
    /// What is in it.
    pub pair: Pair,
}

/// What is known of the twins of Secrets besides what Ingresses list.
#[derive(Debug, Default)]
pub struct HostSecrets {
    /// Made by this process, by tenant; an Ingress is about to list them.
    made: BTreeMap<Uid, BTreeSet<HostName>>,
    /// Deleted by this process, while an Ingress still lists them.
    gone: BTreeSet<HostName>,
    /// Listed by nobody any more, and by whom last: of two Ingresses that go at once, each leaves it to the other.
    orphans: BTreeMap<HostName, (Uid, Key)>,
}

/// The twin of a tenant's Secret with this content.
#[must_use]
pub fn at(tenant: &Tenant, key: &Key, content: Hash) -> HostName {
    let HostName { namespace, name } = beginning(tenant, key);
    HostName { namespace, name: format!("{name}{}", digits(content)) }
}

/// How the name of each twin of a tenant's Secret begins. The rule of k3k alone would not do: the names that it cuts can be made
/// to collide, and k3k's own sync of Secrets has them.
#[must_use]
pub fn beginning(tenant: &Tenant, key: &Key) -> HostName {
    let whose = Hash::of(&(tenant.id(), key));
    let rule = name::twin(key.name(), key.namespace(), tenant.cluster());
    HostName { namespace: tenant.namespace().to_owned(), name: format!("{rule}-{}", digits(whose)) }
}

/// The names in an annotation.
#[must_use]
pub fn listed(annotations: Option<&BTreeMap<String, String>>) -> BTreeSet<String> {
    let list = annotations.and_then(|annotations| annotations.get(TLS_SECRETS)).map(String::as_str).unwrap_or_default();
    list.split(',').filter(|name| is_twin(name)).map(str::to_owned).collect()
}

/// The annotation with these names; none without any.
#[must_use]
pub fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> Option<String> {
    let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    (!names.is_empty()).then(|| names.join(","))
}

/// What of a Secret is believed: an agent may be a tenant's own, so its pair is checked once more. Takes milliseconds.
#[must_use]
pub fn vetted(secret: Secret) -> Secret {
    match secret {
        Secret::Pair(asked) => match pair::check(asked.certificate.as_bytes(), asked.key.expose().as_bytes()) {
            Ok(pair) => Secret::Pair(pair),
            Err(unfit) => Secret::Unfit(unfit),
        },
        unfit @ Secret::Unfit(_) => unfit,
    }
}

impl SecretTwin {
    /// The object to be made.
    #[must_use]
    pub fn object(&self) -> v1::Secret {
        let data = [("tls.crt", self.pair.certificate.as_str()), ("tls.key", self.pair.key.expose())];
        v1::Secret {
            metadata: self.metadata.clone(),
            type_: Some("kubernetes.io/tls".to_owned()),
            immutable: Some(true),
            data: Some(data.map(|(name, text)| (name.to_owned(), ByteString(text.as_bytes().to_vec()))).into()),
            string_data: None,
        }
    }
}

impl HostSecrets {
    /// A twin was made, or was there already.
    pub fn made(&mut self, tenant: &Uid, at: &HostName, is_listed: bool) {
        self.gone.remove(at);
        self.orphans.remove(at);
        if !is_listed {
            self.made.entry(tenant.clone()).or_default().insert(at.clone());
        }
    }

    /// An Ingress lists it now.
    pub fn listed(&mut self, tenant: &Uid, at: &HostName) {
        if let Some(made) = self.made.get_mut(tenant) {
            made.remove(at);
            if made.is_empty() {
                self.made.remove(tenant);
            }
        }
    }

    /// A twin was deleted, or was not there.
    pub fn deleted(&mut self, tenant: &Uid, at: &HostName, is_listed: bool) {
        self.listed(tenant, at);
        self.orphans.remove(at);
        if is_listed {
            self.gone.insert(at.clone());
        }
    }

    /// No Ingress lists it any more, this one of that tenant having been the last. Gives whether it stands.
    pub fn unlisted(&mut self, at: &HostName, tenant: &Uid, last: &Key) -> bool {
        let stands = !self.gone.remove(at);
        if stands {
            self.orphans.insert(at.clone(), (tenant.clone(), last.clone()));
        }
        stands
    }

    /// Those that an Ingress was the last to list.
    pub fn orphans<'a>(&'a self, tenant: &'a Uid, last: &'a Key) -> impl Iterator<Item = &'a HostName> {
        self.orphans.iter().filter(move |(_, of)| (&of.0, &of.1) == (tenant, last)).map(|(at, _)| at)
    }

    /// Whether it stands, as far as is known.
    #[must_use]
    pub fn stands(&self, tenant: &Uid, at: &HostName, is_listed: bool) -> bool {
        let is_made = || self.made.get(tenant).is_some_and(|made| made.contains(at));
        if is_listed { !self.gone.contains(at) } else { is_made() }
    }

    /// Those that were made under names that begin like this, and that no Ingress lists so far.
    pub fn made_as<'a>(&'a self, tenant: &Uid, beginning: &'a HostName) -> impl Iterator<Item = &'a HostName> {
        let alike = |at: &&HostName| at.namespace == beginning.namespace && at.name.starts_with(&beginning.name);
        self.made.get(tenant).into_iter().flat_map(move |made| made.range(beginning..).take_while(alike))
    }

    /// Number of those of a tenant that no Ingress lists so far.
    #[must_use]
    pub fn made_of(&self, tenant: &Uid) -> usize {
        self.made.get(tenant).map_or(0, BTreeSet::len)
    }
}

/// Whether a name can be that of such a twin: nothing else is ever deleted.
fn is_twin(text: &str) -> bool {
    let tail = text.len().checked_sub(2 * DIGITS).and_then(|front| text.split_at_checked(front));
    tail.is_some_and(|(front, digits)| front.len() > 1 && front.ends_with('-') && name::is_hex(digits))
}

fn digits(hash: impl fmt::Display) -> String {
    hash.to_string().chars().take(DIGITS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k3k_expose_proto::Resource;

    fn key(name: &str) -> Key {
        Key::of(Resource::Secrets, "default", name).unwrap()
    }

    fn tenant(id: &str) -> Tenant {
        Tenant::for_test(id, "ns", "mine")
    }

    #[test]
    fn a_name_says_whose_it_is_and_what_is_in_it() {
        let name = |tenant: &Tenant, key: &Key, content: &str| at(tenant, key, Hash::of(&content)).name;
        let one = name(&tenant("t"), &key("cert"), "x");
        assert!(one.starts_with(&format!("{}-", name::twin("cert", "default", "mine"))), "{one}");
        assert!(is_twin(&one) && one.len() <= 96, "{one}");
        for other in [
            name(&tenant("u"), &key("cert"), "x"),
            name(&tenant("t"), &key("other"), "x"),
            name(&tenant("t"), &key("cert"), "y"),
        ] {
            assert_ne!(one, other);
        }
        // Names that k3k's rule cuts alike stay apart.
        let tenant = Tenant::for_test("t", "ns", "mycluster");
        let [left, right] =
            ["00040b", "000736"].map(|tail| name(&tenant, &key(&format!("{}{tail}", "a".repeat(57))), "x"));
        assert_eq!(left[..63], right[..63]);
        assert_ne!(left, right);
    }

    #[test]
    fn nothing_is_read_from_an_annotation_but_such_names() {
        let good = at(&tenant("t"), &key("cert"), Hash::of(&1)).name;
        let annotations = [(TLS_SECRETS.to_owned(), format!("{good},k3k-mine-kubeconfig,,../x"))].into();
        assert_eq!(listed(Some(&annotations)), [good.clone()].into());
        assert_eq!(list([&good]), Some(good));
        assert_eq!(list([]), None);
    }

    #[test]
    fn what_is_listed_stands_until_it_is_deleted() {
        let at = at(&tenant("t"), &key("cert"), Hash::of(&1));
        let (uid, ingress) = (Uid::parse("t").unwrap(), Key::of(Resource::Ingresses, "default", "shop").unwrap());
        let mut secrets = HostSecrets::default();
        assert!(secrets.stands(&uid, &at, true) && !secrets.stands(&uid, &at, false));
        secrets.made(&uid, &at, false);
        assert!(secrets.stands(&uid, &at, false));
        let made_as =
            |secrets: &HostSecrets, other| secrets.made_as(&uid, &beginning(&tenant(other), &key("cert"))).count();
        assert_eq!((made_as(&secrets, "t"), made_as(&secrets, "u"), secrets.made_of(&uid)), (1, 0, 1));
        secrets.listed(&uid, &at);
        assert_eq!((secrets.made_of(&uid), secrets.stands(&uid, &at, true)), (0, true));
        secrets.deleted(&uid, &at, true);
        assert!(!secrets.stands(&uid, &at, true));
        assert!(!secrets.unlisted(&at, &uid, &ingress));
        assert!(secrets.stands(&uid, &at, true), "an Ingress that lists it has been told that it stands");
        assert!(secrets.unlisted(&at, &uid, &ingress));
        assert_eq!(secrets.orphans(&uid, &ingress).collect::<Vec<_>>(), [&at]);
        secrets.deleted(&uid, &at, false);
        assert_eq!(secrets.orphans(&uid, &ingress).count(), 0);
    }
}
