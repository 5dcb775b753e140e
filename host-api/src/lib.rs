//! host-api: makes and keeps the host twins of the Services of virtual clusters.
//!
//! In the order in which a line travels: who is speaking (`connections`, `gate`, `authenticate`, `identify`, `tenant`), the stream (`router`,
//! `stream`, `session`), what is known (`registry`, `ledger`, `services`, `twin`, `trouble`, `ranges`, `quota`),
//! what should be (`translate`, `numbers`, `plan`, `guard`), and the writes (`write`, `refusal`, `pace`). Beside that, what concerns pods: the API server's questions (`admission`), the
//! agent beside a server (`inject`, `authorities`, `servers`), and the labels of tenants' pods (`label`, `relabel`). Files that do I/O say so in their first line; all others are
//! pure.

pub mod certificates;
pub mod config;

pub mod authenticate;
pub mod bounds;
pub mod bucket;
pub mod cluster;
pub mod connections;
pub mod gate;
pub mod identify;
pub mod problem;
pub mod router;
pub mod tenant;

pub mod contest;
pub mod hub;
pub mod lease;
pub mod ledger;
pub mod notice;
pub mod queue;
pub mod registry;
pub mod session;
pub mod stream;

pub mod admission;
pub mod authorities;
pub mod inject;
pub mod label;
pub mod relabel;
pub mod servers;

pub mod endpoints;
pub mod guard;
pub mod ingress;
pub mod name;
mod newest;
pub mod numbers;
mod params;
pub mod plan;
pub mod policy;
pub mod quota;
pub mod ranges;
pub mod services;
mod syntax;
pub mod translate;
pub mod trouble;
pub mod twin;

pub mod pace;
pub mod refusal;
pub mod report;
pub mod watch;
pub mod write;

#[doc(hidden)]
pub mod fuzz;

pub mod admin;
mod kubeconfig;
pub mod metrics;
pub mod ready;
pub mod serve;
