//! What is of Ingress alone: all else about a twin is the same for every resource. Pure but for `file`.
//!
//! An Ingress is translated when `policy` admits it, its backends are exposed, and no other tenant has its hosts and paths.

pub mod file;
pub mod host;
pub mod plan;
pub mod policy;
pub mod store;
pub mod translate;
