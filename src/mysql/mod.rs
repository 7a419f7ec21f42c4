//! One running MySQL or MariaDB server, administrated through its unix socket.
//!
//! [`Server`] speaks the domain: *what is held*, *apply what was received*, *follow*, *write the marker*.
//! The SQL of each flavour stands in `dialect/`, what differs between them beyond words in `server/`.
//! What can be decided without a server is decided in pure files: [`mycnf`] renders the configuration,
//! [`authentication`] turns passwords into what the server stores, [`accounts`] writes the statements that
//! make accounts, and `relay_log` reads what MariaDB's relay logs hold.

pub mod accounts;
pub mod authentication;
pub mod binlogs;
mod commits;
mod connections;
mod dialect;
mod error;
pub mod mycnf;
mod observation;
mod relay_log;
pub mod remote;
mod server;
mod sql;

pub use commits::Commits;
pub use error::Error;
pub use observation::{Observation, Replication};
pub use server::{Credentials, Server, Source};
