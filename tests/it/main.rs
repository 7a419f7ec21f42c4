//! The integration tests: one binary, one module per part.

mod admin;
mod backup;
mod executor;
mod formats;
mod http;
mod local;
mod mesos;
mod mysql;
mod proto;
mod purity;
mod settings;
mod support;
mod transcript;
mod zookeeper;
