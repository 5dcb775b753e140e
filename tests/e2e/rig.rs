//! Tests of the rig itself: what every other test here takes for granted.

mod doomed;
mod k3k;
mod manifest;
mod pair;
mod plane;
