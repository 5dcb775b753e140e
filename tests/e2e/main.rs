//! End-to-end tests on real control planes, in one binary so that the planes boot once.

mod account;
mod authority;
mod chaos;
mod corrections;
mod expiry;
mod follow;
mod guard;
mod hostile;
mod identity;
mod isolation;
mod kinds;
mod labels;
mod late;
mod naming;
mod numbers;
mod observe;
mod process;
mod repair;
mod restart;
mod rig;
mod same;
mod takeover;
mod terminating;
mod walks;
mod wire;
mod world;
