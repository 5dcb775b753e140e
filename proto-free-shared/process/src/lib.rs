//! What both processes need to be good citizens of a pod. Nothing here knows of Services or of the wire.

pub mod cidr;
pub mod contest;
pub mod exposition;
pub mod log;
pub mod options;
pub mod probe;
pub mod quote;
pub mod stop;
