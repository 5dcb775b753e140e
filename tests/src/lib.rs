//! The test rig: real control planes on loopback, a stand-in for k3k, and handles on the two products.
//!
//! Everything here starts operating-system processes through one [`supervisor`] that ends them when this process ends,
//! however it ends. Kubernetes clients belong to one tokio runtime, so they are made where they are used and never kept
//! in a static. Results are `anyhow`: a step of the rig that fails is a failed test, whoever called it.

pub mod access;
pub mod admitted;
pub mod audit;
pub mod bench;
pub mod cache;
pub mod cloud;
pub mod demo;
pub mod eventually;
pub mod exposed;
pub mod foreign;
pub mod frames;
pub mod front;
pub mod k3k;
pub mod kubelet;
pub mod manifest;
pub mod overlay;
pub mod plane;
pub mod port;
pub mod product;
pub mod progress;
pub mod readme;
pub mod rig;
pub mod scratch;
pub mod supervisor;
pub mod tls;
pub mod token;
pub mod told;
pub mod toolchain;
pub mod traffic;
pub mod usage;
pub mod webhook;
pub mod wire;

pub use eventually::{eventually, took};
pub use plane::{ControlPlane, PlaneOptions};
pub use rig::Rig;
