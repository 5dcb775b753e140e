//! End-to-end tests on real control planes, in one binary so that the planes boot once.

mod corrections;
mod follow;
mod isolation;
mod kinds;
mod labels;
mod naming;
mod numbers;
mod rig;
mod same;
mod terminating;
mod walks;
mod world;
