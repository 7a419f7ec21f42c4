//! What the integration tests share: real servers as child processes, and waiting with a deadline.
#![allow(dead_code, reason = "not every helper is used by every part")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

pub mod mysqld;
pub mod proxy;
#[path = "../../shared/mod.rs"]
mod shared;
pub mod zookeeper;

use std::process::{Child, Command};

use nix::sys::signal::Signal;

pub use shared::{
    eventually, free_port,
    hdfs::{self, Hdfs},
    in_project,
    process::signal,
    s3::{self, S3},
};

/// Spawns `command`, which the kernel kills when the test binary ends.
pub fn spawn(command: Command) -> std::io::Result<Child> {
    shared::process::spawn(command, Signal::SIGKILL)
}
