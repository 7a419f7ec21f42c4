//! What the stories share: the whole system as child processes, its API through curl, clients of the
//! database servers and of discovery, and waiting with a deadline.
#![allow(
    dead_code,
    reason = "not every helper is used by every story, nor by the measurements"
)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

pub mod calls;
pub mod database;
pub mod delayed;
pub mod discovery;
pub mod disks;
pub mod ensemble;
pub mod faults;
pub mod fleet;
pub mod hosts;
pub mod load;
pub mod planned;
pub mod process;
pub mod rest;
pub mod system;
#[path = "../../it/support/zookeeper.rs"]
pub mod zookeeper;

#[path = "../../shared/mod.rs"]
pub mod shared;

use std::time::Duration;

pub use process::spawn;
pub use shared::{eventually, free_port, in_project};

/// How long a cluster may take to come up. Most of it passes in initialising data directories.
pub const CREATE_DEADLINE: Duration = Duration::from_secs(180);

/// How long a change of master may take on a machine that runs other stories at the same time.
pub const FAILOVER_DEADLINE: Duration = Duration::from_secs(60);

/// How long a slave may take to have what its master has.
pub const REPLICATION_DEADLINE: Duration = Duration::from_secs(60);

/// How long the tasks of a deleted cluster may take to end.
pub const DELETE_DEADLINE: Duration = Duration::from_secs(90);
