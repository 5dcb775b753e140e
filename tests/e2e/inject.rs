//! Server pods get the agent, start with it, and are never kept from starting by it.

mod admitted;
mod apart;
mod flood;
mod labels;
mod left;
mod runs;
mod stage;
mod without;
