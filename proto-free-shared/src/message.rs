//! The ten messages. One JSON object a line, with the message's name as its only key: `{"put":{...}}`. Pure.
//!
//! State travels, never operations: a `put` carries the whole object, an `answer` replaces every earlier one of its key.

use std::net::IpAddr;
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use crate::key::{Resource, is_dns_subdomain};
use crate::service::Protocol;
use crate::{Hash, Key, Outcome, Reason, Root, Service, Uid, limits};
use crate::{ingress, secret};

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FromAgent {
    /// First line of a session.
    Hello(Hello),
    /// The object at a key is this.
    Put(Put),
    /// The object at a key is gone.
    Delete(Delete),
    /// The snapshot is complete.
    End(End),
    /// Sign of life.
    Beat(AgentBeat),
}

/// What host-api says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FromHost {
    /// First line of a session.
    Welcome(Welcome),
    /// What became of the object at a key.
    Answer(Box<Answer>),
    /// Say these again.
    Want(Want),
    /// Sign of life.
    Beat(HostBeat),
    /// Last line of a session.
    Bye(Bye),
}

/// Names of the messages of each side, for telling an unknown message from a broken one.
pub trait Message {
    /// The messages that this side can say.
    const NAMES: &'static [&'static str];

    /// Checks what the types alone cannot say.
    ///
    /// # Errors
    /// A short text for the peer.
    fn check(&self) -> Result<(), &'static str> {
        Ok(())
    }
}

impl Message for FromAgent {
    const NAMES: &'static [&'static str] = &["hello", "put", "delete", "end", "beat"];

    fn check(&self) -> Result<(), &'static str> {
        match self {
            // It ends up in logs.
            Self::Hello(hello)
                if hello.agent.len() > 64 || !hello.agent.bytes().all(|byte| byte.is_ascii_graphic()) =>
            {
                Err("agent must be a version of at most 64 printable characters")
            }
            Self::Put(put) if put.unusable.cluster_ips.len().max(put.unusable.node_ports.len()) > limits::UNUSABLE => {
                Err("unusable names too many numbers")
            }
            Self::Put(put) => match (put.key.resource(), &put.object) {
                (Resource::Services, Object::Service(_)) => Ok(()),
                (Resource::Secrets, Object::Secret(secret)) => secret.check(),
                (Resource::Ingresses, Object::Ingress(ingress)) => ingress.check(),
                _ => Err("object is of another kind than its key"),
            },
            _ => Ok(()),
        }
    }
}

impl Message for FromHost {
    const NAMES: &'static [&'static str] = &["welcome", "answer", "want", "beat", "bye"];

    fn check(&self) -> Result<(), &'static str> {
        let classes = match self {
            Self::Welcome(welcome) => welcome.ingress_classes.as_deref(),
            Self::Beat(beat) => beat.ingress_classes.as_deref(),
            _ => None,
        };
        let classes = classes.unwrap_or_default();
        let sound = classes.len() <= limits::INGRESS_CLASSES && classes.iter().all(|name| is_dns_subdomain(name));
        if sound { Ok(()) } else { Err("ingressClasses has too many names, or one that is none") }
    }
}

/// An agent introduces itself. Who it *is* comes from its token alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Wire versions that it speaks.
    pub versions: Vec<u16>,
    /// Its build version, for logs.
    pub agent: String,
    /// [`crate::version::PROJECTION`] of its build.
    pub projection: u32,
    /// UID of the virtual cluster's `kube-system` namespace.
    pub virtual_cluster: Uid,
    /// Number of objects that it wants.
    pub count: u64,
    /// Their root.
    pub root: Root,
    /// Whether it speaks for Ingresses too. If not, their absence means nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ingresses: bool,
    /// The same of the Secrets that Ingresses name.
    #[serde(default, skip_serializing_if = "is_false")]
    pub secrets: bool,
    /// The last answer that it has, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seen>,
}

/// The newest answer that an agent has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// The host-api process that gave it.
    pub epoch: Uid,
    /// Its version.
    pub version: u64,
}

/// The whole object at a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Put {
    /// Where the object is.
    pub key: Key,
    /// Which object it is.
    pub uid: Uid,
    /// [`Object::hash`], given back by the answer.
    pub hash: Hash,
    /// Version of the last answer for this key that the agent had when it read the object; 0 for none.
    #[serde(default)]
    pub seen: u64,
    /// Numbers of the host's that the virtual cluster cannot give the object, so that host-api takes others.
    #[serde(default, skip_serializing_if = "Unusable::is_empty")]
    pub unusable: Unusable,
    /// The object.
    pub object: Object,
}

/// Numbers that the virtual cluster cannot give an object: held there, or outside its ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unusable {
    /// Cluster IPs, at most [`limits::UNUSABLE`].
    #[serde(default, rename = "clusterIPs", skip_serializing_if = "Vec::is_empty")]
    pub cluster_ips: Vec<IpAddr>,
    /// Node ports and health-check node ports, at most [`limits::UNUSABLE`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_ports: Vec<NonZeroU16>,
}

impl Unusable {
    /// Whether nothing is unusable.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.cluster_ips.is_empty() && self.node_ports.is_empty()
    }
}

/// A projected object. Its kind agrees with the resource of its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Object {
    /// A Service.
    Service(Box<Service>),
    /// A Secret.
    Secret(Box<secret::Secret>),
    /// An Ingress.
    Ingress(Box<ingress::Ingress>),
}

impl Object {
    /// Hash of what is in it.
    #[must_use]
    pub fn hash(&self) -> Hash {
        match self {
            Self::Service(service) => Hash::of(service),
            Self::Secret(secret) => Hash::of(secret),
            Self::Ingress(ingress) => Hash::of(ingress),
        }
    }
}

/// The object at a key is gone from the virtual cluster, or going.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    /// Where it was.
    pub key: Key,
    /// Which object it was.
    pub uid: Uid,
}

/// Everything that the agent wants has been said in this session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Number of objects said.
    pub count: u64,
    /// Their root.
    pub root: Root,
}

/// An agent lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentBeat {
    /// Number of objects that host-api should know of after the lines before this one.
    pub count: u64,
    /// Their root.
    pub root: Root,
    /// Whether the agent's own API server is ready.
    pub ready: bool,
}

/// A session is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Welcome {
    /// The wire version of the session.
    pub version: u16,
    /// Name of the session, for logs of both sides.
    pub session: Uid,
    /// Name of the host-api process: answer versions count within it.
    pub epoch: Uid,
    /// Whether this agent's objects count.
    pub role: Role,
    /// Bounds and admissions.
    pub limits: Limits,
    /// What to say first.
    pub resume: Resume,
    /// Seconds until host-api ends the session. The agent opens the next one before that.
    pub ends_in_s: u32,
    /// As in [`HostBeat::k3k_syncs`].
    #[serde(default = "unknown_sync")]
    pub k3k_syncs: bool,
    /// As in [`HostBeat::k3k_syncs_ingresses`].
    #[serde(default = "unknown_sync")]
    pub k3k_syncs_ingresses: bool,
    /// As in [`HostBeat::ingress_classes`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_classes: Option<Vec<String>>,
    /// What the operator should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Whose objects count when several agents of a tenant are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// This agent's.
    Active,
    /// Another's; this one only beats.
    Standby,
}

/// Bounds of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Most puts under way without an answer.
    pub in_flight: u32,
    /// Annotation keys that may cross.
    #[serde(default)]
    pub annotations: Vec<String>,
}

/// What the agent says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resume {
    /// Only changes: host-api has compared exactly this set since it started.
    Nothing,
    /// Everything, then `end`.
    Snapshot,
}

/// What became of the object at a key. Level-based: the newest one counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Where the object is.
    pub key: Key,
    /// Which object is meant.
    pub uid: Uid,
    /// Hash of the `put` that is answered.
    pub hash: Hash,
    /// Counts up within an epoch, over all keys.
    pub version: u64,
    /// How far it got.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// For the tenant's eyes: no host internals.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The twin's numbers, absent while there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numbers: Option<Numbers>,
    /// `status.loadBalancer.ingress` of the twin.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load_balancer: Vec<Ingress>,
    /// `status.conditions` of the twin.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Numbers that the host holds for a twin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Numbers {
    /// Cluster IPs, primary first; empty for a headless Service.
    #[serde(default, rename = "clusterIPs", skip_serializing_if = "Vec::is_empty")]
    pub cluster_ips: Vec<IpAddr>,
    /// Node ports by port and protocol.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_ports: Vec<NodePort>,
    /// The health-check node port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check_node_port: Option<NonZeroU16>,
}

/// The node port of one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePort {
    /// The port.
    pub port: NonZeroU16,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its node port.
    pub node_port: NonZeroU16,
}

/// One entry of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ingress {
    /// An address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// A host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `VIP` or `Proxy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_mode: Option<String>,
    /// State of single ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<IngressPort>,
}

/// State of one port of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressPort {
    /// The port.
    pub port: NonZeroU16,
    /// Its protocol.
    pub protocol: Protocol,
    /// What is wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A condition of the twin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// `type`.
    #[serde(rename = "type")]
    pub condition_type: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// A CamelCase word.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Objects that host-api wants to hear again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Want {
    /// Everything, then `end`.
    All,
    /// These, at most [`crate::limits::WANT_KEYS`].
    Keys(Vec<Key>),
}

/// Host-api lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostBeat {
    /// Whether k3k's own Service sync is on, so that what k3k wrote in the virtual cluster is still k3k's.
    #[serde(default = "unknown_sync")]
    pub k3k_syncs: bool,
    /// The same of its Ingress sync.
    #[serde(default = "unknown_sync")]
    pub k3k_syncs_ingresses: bool,
    /// Ingress classes that tenants may use, at most [`limits::INGRESS_CLASSES`], for the agent to show; `None` says nothing of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_classes: Option<Vec<String>>,
}

/// A host-api that says nothing of k3k's sync gives no leave to touch what is k3k's.
const fn unknown_sync() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that skip_serializing_if asks for")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// The session ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bye {
    /// Why.
    pub reason: ByeReason,
    /// The same in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Seconds to wait before the next session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u32>,
}

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ByeReason {
    /// A newer session took over.
    Superseded,
    /// Another server pod's agent speaks for the tenant from now on, or this one does: come back at once to learn which.
    Role,
    /// Host-api is stopping.
    Draining,
    /// The agent took no line for [`crate::limits::DRAIN`].
    Slow,
    /// The session's time is over, or its pod or Cluster is gone.
    Expired,
    /// A message that host-api does not know.
    Unsupported,
    /// A line that is no message, or a snapshot that does not add up.
    Malformed,
    /// More objects than host-api keeps a record of for one tenant, or for all.
    Exceeded,
    /// A reason that a newer host-api knows and this build does not.
    #[serde(other)]
    Unknown,
}
