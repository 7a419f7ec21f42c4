//! Stories of the core: facts in, actions out, and what the records say in the end.
//!
//! The [`World`](world::World) here answers the scheduler's actions as the real one would: it stores, launches,
//! kills, and lets model executors report what the goal makes of them. Every plan passes
//! [`check`](super::check::check). Stories can be cut: after every stored record the scheduler may be
//! thrown away and replaced by one that has only what was stored.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod backup_sources;
mod backups;
mod drain;
mod durability;
mod explain;
mod failover;
mod fencing;
mod leaving;
mod lineage;
mod lossy;
mod lost;
mod maintenance;
mod members;
mod membership;
mod pause;
mod placing;
mod rebuild;
mod reconcile;
mod requests;
mod restart;
mod rolling;
mod slots;
mod succession;
mod switchover;
mod undelete;
mod verification;
mod voters;
mod world;
