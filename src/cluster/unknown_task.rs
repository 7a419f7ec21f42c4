//! Tasks that run and that the stored state does not explain.

use serde::{Deserialize, Serialize};

use super::id::TaskId;
use crate::time::Timestamp;

/// A task of this framework that no record explains. It is left running until an operator has decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownTask {
    /// The task.
    pub task_id: TaskId,
    /// The agent that runs it, where Mesos names it.
    pub agent_id: Option<String>,
    /// Its state, as Mesos calls it.
    pub state: String,
    /// Why it is unknown, as a sentence.
    pub reason: String,
    /// When it was first heard of.
    pub since: Timestamp,
}

/// The unknown tasks, as far as they are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnknownList {
    /// The first ones by id.
    pub tasks: Vec<UnknownTask>,
    /// How many more there are.
    pub more: usize,
}

/// What to do about unknown tasks, as a sentence.
pub const WHAT_TO_DO: &str = "they are left running: bring the state back that knows them and restart the scheduler, or, \
     if nobody needs what they hold, end each with SIGTERM to its executor on its agent's host";
