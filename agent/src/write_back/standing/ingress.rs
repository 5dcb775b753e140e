//! A virtual Ingress to what the write-back compares with. Pure.
//!
//! It has no numbers and no conditions: what became of it stands in an annotation.

use k3k_expose_proto::Uid;
use k3k_expose_proto::message::Ingress as Address;
use k8s_openapi::api::networking::v1::{Ingress, IngressStatus};
use serde_json::json;

use super::{Standing, Synced, Wish, filled};

/// The finalizer of k3k's own syncer.
pub(crate) const K3K_INGRESS_FINALIZER: &str = "ingress.k3k.io/finalizer";
/// The annotation that says what became of an Ingress: `True/Applied`, or `False/<Reason>: <message>`.
pub(crate) const SYNCED_ANNOTATION: &str = "expose.k3k.io/synced";

impl Standing {
    /// Reduces an Ingress that was projected so.
    pub(crate) fn of_ingress(ingress: &Ingress, wish: Wish) -> Option<Self> {
        let meta = &ingress.metadata;
        let annotation = meta.annotations.as_ref().and_then(|annotations| annotations.get(SYNCED_ANNOTATION));
        let finalizers = meta.finalizers.as_deref().unwrap_or_default();
        Some(Self {
            uid: Uid::parse(meta.uid.as_deref()?).ok()?,
            revision: meta.resource_version.as_deref()?.parse().ok()?,
            wish,
            is_balancer: true,
            is_ingress: true,
            ingress: ingress.status.as_ref().map_or(Some(Vec::new()), addresses),
            conditions: Vec::new(),
            synced: annotation.and_then(|text| Synced::from_annotation(text)),
            is_leaving: meta.deletion_timestamp.is_some(),
            has_k3k_finalizer: finalizers.iter().any(|finalizer| finalizer == K3K_INGRESS_FINALIZER),
            is_moving: false,
        })
    }
}

impl Synced {
    /// As it stands in [`SYNCED_ANNOTATION`].
    pub(crate) fn as_annotation(&self) -> String {
        let Self { status, reason, message } = self;
        if message.is_empty() { format!("{status}/{reason}") } else { format!("{status}/{reason}: {message}") }
    }

    fn from_annotation(text: &str) -> Option<Self> {
        let (head, message) = text.split_once(": ").unwrap_or((text, ""));
        let (status, reason) = head.split_once('/')?;
        Some(Self { status: status.to_owned(), reason: reason.to_owned(), message: message.to_owned() })
    }
}

/// The entries in the wire's words. The mode is that which the comparison gives to every address.
fn addresses(status: &IngressStatus) -> Option<Vec<Address>> {
    let entries = status.load_balancer.as_ref().and_then(|balancer| balancer.ingress.as_ref());
    let entries: Vec<Address> =
        entries.map_or(Ok(Vec::new()), |entries| serde_json::from_value(json!(entries))).ok()?;
    Some(entries.into_iter().map(filled).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_an_ingress_reads_back_as_it_was_written() {
        for (message, text) in [
            ("", "False/HostTaken"),
            ("taken", "False/HostTaken: taken"),
            ("host \"a: b\" is not admitted", "False/HostTaken: host \"a: b\" is not admitted"),
        ] {
            let synced =
                Synced { status: "False".to_owned(), reason: "HostTaken".to_owned(), message: message.to_owned() };
            assert_eq!(synced.as_annotation(), text);
            assert_eq!(Synced::from_annotation(text), Some(synced));
        }
        assert_eq!(Synced::from_annotation("nonsense"), None);
    }

    #[test]
    fn addresses_compare_as_those_of_services() {
        let ingress: Ingress = serde_json::from_value(json!({
            "metadata": {"uid": "u", "resourceVersion": "7", "finalizers": ["other", K3K_INGRESS_FINALIZER],
                "annotations": {SYNCED_ANNOTATION: "True/Applied"}},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "lb.example"}]}}
        }))
        .unwrap();
        let standing = Standing::of_ingress(&ingress, Wish::Nothing).unwrap();
        let told = Address { ip: Some("192.0.2.1".parse().unwrap()), ..Address::default() };
        let named = Address { hostname: Some("lb.example".to_owned()), ..Address::default() };
        assert_eq!(standing.ingress, Some(vec![filled(told), filled(named)]));
        assert!(standing.has_k3k_finalizer);
        assert_eq!(standing.synced.map(|synced| synced.status), Some("True".to_owned()));
    }
}
