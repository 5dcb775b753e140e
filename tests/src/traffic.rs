//! A data center in network namespaces, so that what twins promise can be shown with packets.
//!
//! Two nodes with real kube-proxies, a namespace for each pod, a router with the control planes behind it, a client outside.
//! Everything hangs on processes of the supervisor: a namespace lives as long as the process that holds it, and takes its
//! cables along, so nothing is left behind whatever ends this program. The program itself runs in a namespace of its own
//! ([`isolate`]), which is the router; the machine's own network is never touched.

pub mod balancer;
pub mod curl;
pub mod fabric;
pub mod how_to;
pub mod images;
pub mod isolate;
pub mod kube_proxy;
pub mod namespace;
pub mod needs;
pub mod netexec;
pub mod pods;
pub mod steady;

pub use fabric::Fabric;
pub use namespace::Namespace;
pub use needs::Tools;
