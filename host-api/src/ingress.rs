//! What is of Ingress alone: all else about a twin is the same for every resource. Pure.
//!
//! An Ingress is translated when `policy` admits it, no other tenant has its hosts, and its backends are exposed.

pub mod host;
pub mod plan;
pub mod policy;
pub mod secret;
pub mod standing;
pub mod store;
pub mod translate;
