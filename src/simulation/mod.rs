//! Whole histories of clusters in a simulated world, with the real deciding code in the middle of it.
//!
//! One seed makes one history: its setup, its faults, every delay. The scheduler's `apply`, `plan`, `begin` and `check`
//! and each executor's lifecycle are the product's own; around them stand models of mysqld ([`mysqld`]), ZooKeeper
//! ([`zookeeper`]), Mesos ([`mesos`]), the network and the clients. Nothing takes real time. The checkers ([`checks`])
//! look from outside and know nothing of how Cotton decides.
//!
//! A failing seed replays exactly, with a trace of all that happened. `docs/design/simulation.md` tells more.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod chance;
mod changes;
mod checks;
mod clients;
mod deletion;
mod executor;
mod faults;
mod history;
mod maintenance;
mod membership;
mod mesos;
mod mutations;
mod mysqld;
mod run;
mod scenes;
mod scheduler;
mod setup;
mod steps;
mod switchovers;
mod undelete;
mod volumes;
mod world;
mod zookeeper;

use crate::rules::{Rule, Rules};

/// What of Cotton is bent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bend {
    /// Nothing.
    Nothing,
    /// A rule that deciding code carries out.
    Rule(Rule),
    /// A rule that the shell carries out, whose place the models take here.
    Shell(Shell),
}

/// Rules that stand in the executor's statements and in `my.cnf`, not in code that decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shell {
    /// A server starts closed, and as nobody's master.
    StartsClosed,
    /// The receiver is stopped before what is held is read.
    ReceiverStopsBeforeReading,
}

impl Bend {
    fn rules(self) -> Rules {
        match self {
            Self::Rule(rule) => Rules::without(rule),
            Self::Nothing | Self::Shell(_) => Rules::LAW,
        }
    }

    fn breaks(self, rule: Shell) -> bool {
        self == Self::Shell(rule)
    }

    fn breaks_rule(self, rule: Rule) -> bool {
        self == Self::Rule(rule)
    }
}
