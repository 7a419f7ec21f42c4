//! ZooKeeper: the control plane and the scheduler's memory.
//!
//! `session` keeps a session alive and makes a new one when it is lost; `operations` are the reads
//! and writes on it, with errors that tell what is certain; `store` keeps the scheduler's records
//! and publishes goals and discovery with them in one transaction; `control` carries goals to the
//! executors and their reports back; `leader` elects one of several schedulers; `serverset` is how clients
//! find a cluster's master. Only this module knows paths ([`paths`]).

pub mod acl;
pub mod control;
pub mod document;
pub mod leader;
mod load;
pub mod local;
pub mod operations;
pub mod paths;
mod publish;
mod retained;
pub mod seal;
pub mod serverset;
pub mod session;
pub mod store;
pub mod url;
