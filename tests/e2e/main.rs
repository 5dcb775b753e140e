//! End-to-end tests on real control planes, in one binary so that the planes boot once.

mod follow;
mod process;
mod rig;
mod world;
