//! End-to-end tests on real control planes, in one binary so that the planes boot once.

mod account;
mod authority;
mod chaos;
mod expiry;
mod follow;
mod guard;
mod hostile;
mod identity;
mod late;
mod observe;
mod repair;
mod restart;
mod rig;
mod takeover;
mod wire;
mod world;
