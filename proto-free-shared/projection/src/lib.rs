//! From objects as an API server has them to what of them crosses. Pure.
//!
//! The agent says it of what stands in its virtual cluster, and `plan` of what a file would bring there.

pub mod endpoints;
pub mod ingress;
pub mod labels;
pub mod value;
