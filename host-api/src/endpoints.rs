//! Hand-made endpoints of Services without a selector. Pure.
//!
//! Each address is judged by what is known of the host, and those that may cross stand in slices beside the twin, which owns
//! them: whatever takes the twin away takes them along.

pub mod address;
pub mod asked;
pub mod holder;
pub mod plan;
pub mod slice;
pub mod store;
