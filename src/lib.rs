//! Cotton runs MySQL and MariaDB clusters as a self-service on Apache Mesos.
//!
//! # Bird's eye
//!
//! One binary with subcommands. `cotton scheduler` is a Mesos framework with a REST API; it decides. `cotton
//! executor` is started by Mesos agents, one for each MySQL server, and does what it is told. They talk through
//! ZooKeeper: the scheduler writes one *goal* for each cluster, executors follow it and write *reports*. There
//! are no messages that could get lost, only nodes and watches.
//!
//! ```text
//!            REST / web / `cotton admin`                 Mesos master (v1 HTTP API)
//!                      |                                     ^ calls   | events
//!                      v                                     |         v
//!   +------------------------------ cotton scheduler -----------------------------+
//!   |  shell (async I/O)  --- events --->  core (no I/O, no clock, no chance)      |
//!   |                     <-- actions ---  apply(event), plan(state, now) -> Plan  |
//!   +-----------------------------------------------------------------------------+
//!        | records, goals, discovery                    ^ reports
//!        v                                              |
//!   ZooKeeper  /state  /control/<cluster>/goal  /control/<cluster>/members  /discover/<cluster>
//!                              |                        ^
//!                              v                        |
//!   +------------------------------ cotton executor ------------------------------+
//!   |  Mesos executor API | mysqld | SQL over its socket | role machine (pure)     |
//!   +-----------------------------------------------------------------------------+
//! ```
//!
//! # Flow
//!
//! `scheduler/driver.rs` is the only loop: receive, `apply`, `plan`, `check`, execute, sleep until the next look
//! is due. A cluster whose record would change gets that change stored and nothing else; what follows from the
//! record is done once it is stored. Goal and discovery are functions of the record and are written in the same
//! transaction. So whatever was not stored was not done, and whatever was stored is done by the successor.
//!
//! # Code map
//!
//! * [`cluster`]: the vocabulary. Pure.
//! * [`rules`]: the rules of failover by name, so that tests can break each of them.
//! * [`scheduler`]: decides (pure files) and acts (`process` elects, `start` begins a term, `driver`, `execute`).
//! * [`executor`]: the same shape in small.
//! * [`mesos`]: the Mesos v1 scheduler and executor APIs; messages generated from `proto/`.
//! * [`zookeeper`]: sessions, the store of records, goals and reports, discovery.
//! * [`mysql`]: one server through its socket, in the dialect of its flavour.
//! * [`backup`]: the store of backups, their manifests, and the streams into it and out of it.
//! * [`http`]: the REST API and the page, behind a port to the core.
//! * [`cli`]: arguments and settings, and one file for each verb of `cotton admin`.
//! * [`local`]: `cotton local`, the stand-in for a Mesos on one machine.
//!
//! # Architecture invariants
//!
//! * Nothing in the files that decide waits, acts, tells the time or draws by chance; `tests/it/purity.rs` reads
//!   them.
//! * `plan` never performs and never fails; what must never be asked of the world is looked for by `check`, which
//!   knows nothing of how the plan came about.
//! * Only [`zookeeper`] knows paths; only [`mysql`] knows SQL; only [`mesos`] knows how Mesos is spoken to.
//! * No password leaves [`secret::Secret`] by `Debug`, and none stands in a task, an argument or a log.

pub mod backoff;
pub mod backup;
pub mod cli;
pub mod cluster;
pub mod executor;
pub mod http;
pub mod keyfile;
pub mod local;
pub mod mesos;
pub mod mysql;
pub mod process_identity;
pub mod rules;
pub mod scheduler;
pub mod secret;
#[cfg(test)]
mod simulation;
pub mod telemetry;
pub mod time;
pub mod zookeeper;
