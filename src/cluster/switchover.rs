//! A planned change of master: what is stored of it, what the master is told, and what it answers.
//!
//! `docs/design/failover.md`, "Switchover", has the protocol and why it is safe.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    gtid::Position,
    id::{Epoch, MemberId, ProcessId},
};
use crate::time::Timestamp;

/// How long a master may be closed for writes before it opens again by itself. What follows takes a tenth of that on hosts that
/// have time, so a switchover that needs more is one that clients should not have to wait for. It is below the lease of a
/// master ([`Timings::master_lease`](super::timings::Timings::master_lease)), which writes nothing meanwhile that could prove
/// anything.
pub const CLOSED_FOR: Duration = Duration::from_secs(2);

/// How long the target may take to have what the master has, while the master goes on writing.
pub const APPROACHES_WITHIN: Duration = Duration::from_secs(5);

/// When the scheduler gives a switchover up of which it hears nothing: what the master takes at the most, and some time for
/// ZooKeeper.
pub const ANSWERS_WITHIN: Duration = Duration::from_secs(12);

/// The last switchover that was asked for: pending until it has an outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Switchover {
    /// Grows with every switchover of the cluster.
    pub number: u64,
    /// The epoch whose master is to hand over.
    pub epoch: Epoch,
    /// That master.
    pub from: MemberId,
    /// Its server.
    pub process: ProcessId,
    /// Who is to be master.
    pub to: MemberId,
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// How the master was closed, once it has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Closed>,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// A master that accepts no writes and whose target has all that it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// All that it has executed.
    pub position: Position,
    /// How long it had been closed when it said so, in milliseconds.
    pub millis: u64,
}

/// What came of a switchover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether the target is master now.
    pub done: bool,
    /// The epoch in which it ended.
    pub epoch: Epoch,
    /// When.
    pub at: Timestamp,
    /// The same as a sentence; why, if it was not done.
    pub sentence: String,
}

/// What a goal says of a switchover to the master of its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// [`Switchover::number`].
    pub number: u64,
    /// Who is to be master.
    pub to: MemberId,
    /// How long the master may be closed for it before it opens again, in milliseconds.
    pub closed_for_ms: u64,
}

/// What a master answers to a [`Handover`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// [`Handover::number`].
    pub number: u64,
    /// How far it is.
    #[serde(flatten)]
    pub state: AnswerState,
}

/// See [`Answer`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "lowercase")]
pub enum AnswerState {
    /// It is closed for writes, and the target has all that it has. It stays closed for a while.
    Closed(Closed),
    /// It accepts writes and goes on doing so.
    Kept {
        /// Why, as a part of a sentence about the master.
        why: String,
    },
}

impl Switchover {
    /// Whether it is still to be done.
    pub fn is_pending(&self) -> bool {
        self.outcome.is_none()
    }

    /// What the master is told, while it is asked to hand over.
    pub fn handover(&self) -> Handover {
        Handover {
            number: self.number,
            to: self.to,
            closed_for_ms: CLOSED_FOR.as_millis() as u64,
        }
    }
}
