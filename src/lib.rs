//! Cotton runs MySQL and MariaDB clusters as a self-service on Apache Mesos.

pub mod backoff;
pub mod cli;
pub mod cluster;
pub mod executor;
pub mod http;
pub mod keyfile;
pub mod local;
pub mod mesos;
pub mod mysql;
pub mod scheduler;
pub mod secret;
pub mod telemetry;
pub mod time;
pub mod zookeeper;
