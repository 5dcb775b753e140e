//! What became of a virtual object on the host: the closed lists of outcomes and reasons. Pure.

use serde::{Deserialize, Serialize};

/// How far an object got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The twin is as the object asks.
    Applied,
    /// Not yet; host-api goes on by itself.
    Pending,
    /// Refused; it changes when the object or the cause does.
    Rejected,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $reason:ident => $outcome:ident,)+) => {
        /// Why an object is where it is. Spelled in CamelCase, as Kubernetes spells condition reasons.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Reason {
            $($(#[doc = $doc])+ $reason,)+
            /// A reason that a newer host-api knows and this build does not.
            #[serde(other)]
            Unknown,
        }

        impl Reason {
            /// Every reason that this build can give.
            pub const ALL: &'static [Self] = &[$(Self::$reason),+];

            /// The outcome that the reason implies.
            #[must_use]
            pub const fn outcome(self) -> Outcome {
                match self {
                    $(Self::$reason => Outcome::$outcome,)+
                    Self::Unknown => Outcome::Pending,
                }
            }

            /// The reason as it is spelled on the wire, in metrics and in conditions.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$reason => stringify!($reason),)+
                    Self::Unknown => "Unknown",
                }
            }
        }
    };
}

reasons! {
    /// The twin is as the object asks.
    Applied => Applied,
    /// k3k's own syncer is still on, or host pods do not yet carry the labels that the selector would ask for.
    Adopting => Pending,
    /// The old twin is on its way out; the new one follows when it is gone.
    TwinTerminating => Pending,
    /// Another Service of the same virtual cluster still has the number on the host and is about to let go of it.
    WaitingForNumber => Pending,
    /// A backend's Service has no twin yet, and is about to have one.
    WaitingForBackend => Pending,
    /// A Secret that the Ingress names does not exist, or is about to be written.
    WaitingForSecret => Pending,
    /// No Ingress that is exposed names the Secret, so it stays in the virtual cluster.
    WaitingForIngress => Pending,
    /// The agent is giving the virtual object the numbers that its twin has.
    Renumbering => Pending,
    /// The host's API server did not take the write; host-api tries again.
    HostUnavailable => Pending,
    /// An object of somebody else has the twin's name.
    NameTaken => Rejected,
    /// The cluster IP is held on the host.
    ClusterIPTaken => Rejected,
    /// The cluster IP lies outside the host's Service ranges.
    ClusterIPOutOfRange => Rejected,
    /// A node port or the health-check node port is held on the host.
    NodePortTaken => Rejected,
    /// A node port lies outside the host's range.
    NodePortOutOfRange => Rejected,
    /// The host lacks an IP family that the object asks for.
    IPFamilyUnavailable => Rejected,
    /// The selector names a key under `k3k.io/` with a value that is not the tenant's.
    ReservedSelectorKey => Rejected,
    /// An ExternalName Service has nothing to expose.
    ExternalNameNotExposed => Rejected,
    /// The twin belongs to another virtual cluster (another `kube-system` UID).
    WrongVirtualCluster => Rejected,
    /// Somebody on the host keeps undoing the twin.
    Contested => Rejected,
    /// The Cluster's `spec.sync.services.selector` leaves the object out.
    NotSelected => Rejected,
    /// A quota of the host namespace is used up.
    QuotaExceeded => Rejected,
    /// The tenant has as many twins as it may have.
    TooManyObjects => Rejected,
    /// The platform team does not admit Services of this type.
    TypeNotAdmitted => Rejected,
    /// A node port that was asked for is not one that the platform team admits.
    NodePortNotAdmitted => Rejected,
    /// The virtual cluster has as many node ports as it may have.
    TooManyNodePorts => Rejected,
    /// The virtual cluster has as many load balancers as it may have.
    TooManyLoadBalancers => Rejected,
    /// The platform team does not admit the class of the load balancer.
    LoadBalancerClassNotAdmitted => Rejected,
    /// The load balancer has to say who may connect.
    SourceRangesRequired => Rejected,
    /// The platform team does not admit a source range.
    SourceRangeNotAdmitted => Rejected,
    /// The platform team does not admit the address that the load balancer asks for.
    AddressNotAdmitted => Rejected,
    /// The platform team does not admit an external IP.
    ExternalIPNotAdmitted => Rejected,
    /// An address among the hand-made endpoints is of a kind that never crosses.
    EndpointForbidden => Rejected,
    /// An address among the hand-made endpoints is no pod of the virtual cluster and not one that the platform team admits.
    EndpointNotAdmitted => Rejected,
    /// Hand-made endpoints are named, not addressed.
    EndpointNameNotExposed => Rejected,
    /// There are more hand-made endpoints than cross.
    TooManyEndpoints => Rejected,
    /// An admission webhook or policy of the host denies the object.
    AdmissionDenied => Rejected,
    /// The host's API server refuses the object.
    HostRefused => Rejected,
    /// The platform team does not admit the Ingress class, or the Ingress names none.
    ClassNotAdmitted => Rejected,
    /// A host name of the Ingress is empty, a wildcard, or not one that the platform team admits for this virtual cluster.
    HostNotAdmitted => Rejected,
    /// Another Ingress of the host has the host name.
    HostTaken => Rejected,
    /// A backend is no Service, or one that is not exposed.
    BackendNotSynced => Rejected,
    /// The platform team does not admit an annotation, or its value.
    AnnotationNotAdmitted => Rejected,
    /// A path has characters that an ingress controller may take for its own syntax.
    PathNotAdmitted => Rejected,
    /// The platform team does not admit a Secret that the Ingress names.
    TlsNotAdmitted => Rejected,
    /// A Secret is no certificate with its key, or too large.
    TlsSecretUnfit => Rejected,
    /// The object has a value that the agent cannot carry.
    NotCarried => Rejected,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_reads_the_same_on_the_wire_and_in_code() {
        for &reason in Reason::ALL {
            let wire = serde_json::to_string(&reason).unwrap();
            assert_eq!(wire, format!("\"{}\"", reason.as_str()));
            assert_eq!(serde_json::from_str::<Reason>(&wire).unwrap(), reason);
        }
    }

    #[test]
    fn a_reason_of_a_newer_host_is_taken_as_unknown() {
        assert_eq!(serde_json::from_str::<Reason>("\"TooExpensive\"").unwrap(), Reason::Unknown);
    }
}
