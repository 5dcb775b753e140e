//! What both processes need to be good citizens of a pod, and to judge a certificate alike. Nothing here knows of Services.

pub mod cidr;
pub mod contest;
pub mod exposition;
pub mod log;
pub mod options;
pub mod pair;
pub mod probe;
pub mod quote;
pub mod stop;
