//! The scheduler: `apply -> plan -> check -> execute`, each in its own file.
//!
//! [`state::State::apply`] folds facts in, [`plan::plan`] decides what must be done, and
//! [`check::check`], which knows nothing of how that was decided, looks whether anything is asked
//! for that must never be asked. These and everything they use are pure: they have no I/O, no clock
//! and no randomness. Around them, [`driver`] is the only loop, and [`execute`] carries plans out.

pub mod action;
pub mod agenda;
pub mod awaiting;
mod backup_metrics;
pub mod backups;
pub mod check;
mod door;
pub mod drain;
pub mod driver;
pub mod durability;
pub mod election;
pub mod event;
pub mod execute;
pub mod explain;
pub mod failover;
pub mod fence;
pub mod fitness;
mod flapping;
pub mod health;
pub mod lossy;
pub mod maintenance;
pub mod members;
pub mod membership;
pub mod mesos_state;
pub mod observed;
pub mod orphans;
pub mod pause;
pub mod placement;
pub mod plan;
pub mod pool;
pub mod process;
pub mod publish;
pub mod rebuild;
pub mod reclaim;
pub mod reconcile;
pub mod report;
pub mod requested;
pub mod requests;
pub mod restart;
pub mod retained;
pub mod rolling;
pub mod schedule;
pub mod slot_report;
pub mod slots;
pub mod start;
pub mod state;
mod storing;
pub mod sweep;
pub mod switchover;
mod tasks;
#[cfg(test)]
mod tests;
pub mod transitions;
pub mod undelete;
pub mod unknown;
pub mod verification;
pub mod voting;
pub mod wire;
pub mod wishes;
