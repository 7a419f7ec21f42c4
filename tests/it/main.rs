//! The integration tests: one binary, one module per part.

mod mesos;
mod mysql;
mod proto;
mod purity;
mod support;
mod transcript;
mod zookeeper;
