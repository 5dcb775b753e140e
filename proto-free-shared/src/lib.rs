//! The wire between the agent and host-api: everything that may cross, and its bounds.
//!
//! Pure: no I/O, no clock, no Kubernetes types. Both sides build what they say from these types and parse what they
//! hear into them once, so that whatever has been decoded is well-formed; whether it is *allowed* is host-api's to judge.

pub mod digest;
pub mod endpoints;
pub mod ingress;
pub mod key;
pub mod limits;
pub mod line;
pub mod message;
pub mod outcome;
pub mod secret;
pub mod service;
pub mod version;

mod unique;

pub use digest::{Hash, Root, Tally};
pub use key::{Key, Resource, Uid};
pub use message::{FromAgent, FromHost};
pub use outcome::{Outcome, Reason};
pub use service::Service;
