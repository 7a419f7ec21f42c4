//! Verifying backups: which wait for it, the task that does it, and what came of it.
//!
//! A backup is verified by a task of its own that restores it where no member lives, looks through the tables and ends. What it has found is the last
//! that it says to Mesos ([`Verdict`]), and lies beside the backup in the store ([`Verified`](crate::backup::verified::Verified)).

use serde::{Deserialize, Serialize};

use super::{
    backup::{BackupId, BackupStore},
    id::TaskId,
    record::{ClusterRecord, TaskRecord},
};
use crate::time::Timestamp;

/// How many backups of a cluster may wait. The oldest one gives way: a newer one says more.
pub const MOST_WAITING: usize = 8;

/// The verifications of a cluster, as its record has them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Verifications {
    /// How many tasks were launched for it.
    #[serde(default)]
    pub launches: u32,
    /// The backups that are not verified yet, oldest first. If there is a task, it verifies the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Unverified>,
    /// The task, from before its launch until its end is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskRecord>,
    /// What came of the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<VerificationOutcome>,
    /// What came of the last one that found its backup good. That backup may have been removed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good: Option<VerificationOutcome>,
}

/// A backup that is to be verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unverified {
    /// Its id.
    pub id: BackupId,
    /// Where it is.
    pub store: BackupStore,
    /// How many tasks have tried and could tell nothing.
    #[serde(default)]
    pub attempts: u32,
    /// Not tried again before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Why the last task could tell nothing, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What came of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerificationOutcome {
    /// The backup.
    pub id: BackupId,
    /// When that was heard.
    pub at: Timestamp,
    /// Whether the backup is good: it was restored, a server has started on it, and no table is damaged.
    pub good: bool,
    /// The same as a sentence: how much it holds, or what is wrong with it.
    pub sentence: String,
    /// How long it took to restore and to check it, in seconds, if it came to an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// What a task is told that verifies a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyTask {
    /// Which one.
    pub id: BackupId,
    /// Where it is.
    pub store: BackupStore,
}

/// What such a task has found: the message, as JSON, with which it has finished. Whatever else a task ends with says nothing about the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Verdict {
    /// The backup is good.
    Good {
        /// How long it took to restore and to check it, in seconds.
        seconds: u64,
        /// How many tables the cluster's users have in it.
        tables: u64,
        /// How many rows those have.
        rows: u64,
    },
    /// It is not.
    Bad {
        /// How long it took to find that, in seconds.
        seconds: u64,
        /// What is wrong, as a sentence.
        why: String,
    },
    /// It is not in the store any more.
    Gone,
}

/// How it stands with the verification of a cluster's backups, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerificationView {
    /// The backup that a task verifies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under_way: Option<BackupId>,
    /// How many wait for their turn or for an agent with room.
    pub waiting: usize,
    /// All of which it is not known yet whether they are good, though that is to be found out: the one under way and those that wait.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unverified: Vec<BackupId>,
    /// Why the first of them could not be verified yet, as a sentence, if that was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What came of the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<VerificationOutcome>,
    /// What came of the last one that found its backup good, if that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good: Option<VerificationOutcome>,
}

impl Verifications {
    /// Whether none was ever wanted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Puts a backup at the end of those that wait; returns one that gives way to it.
    pub fn add(&mut self, id: BackupId, store: BackupStore) -> Option<BackupId> {
        // The first one may be under way.
        let gives_way = usize::from(self.task.is_some());
        let dropped = (self.waiting.len() >= MOST_WAITING).then(|| self.waiting.remove(gives_way));
        self.waiting.push(Unverified {
            id,
            store,
            attempts: 0,
            not_before: None,
            problem: None,
        });
        dropped.map(|dropped| dropped.id)
    }

    /// The backup that a task verifies.
    pub fn under_way(&self) -> Option<&Unverified> {
        self.waiting.first().filter(|_| self.task.is_some())
    }

    /// The backup for which a task is to be launched.
    pub fn next(&self) -> Option<&Unverified> {
        self.waiting.first().filter(|_| self.task.is_none())
    }

    /// Takes in what came of the first one.
    pub fn conclude(&mut self, outcome: VerificationOutcome) {
        self.waiting.retain(|waiting| waiting.id != outcome.id);
        self.task = None;
        if outcome.good {
            self.last_good = Some(outcome.clone());
        }
        self.last = Some(outcome);
    }
}

impl ClusterRecord {
    /// Whether a task is the current one that verifies a backup.
    pub fn is_verification(&self, task_id: &TaskId) -> bool {
        let task = self.backups.verification.task.as_ref();
        task.is_some_and(|task| task.task_id == *task_id)
    }
}

impl VerificationView {
    /// Whether somebody should know: the last one has failed, or the next one could not be done yet.
    pub fn is_to_be_told(&self) -> bool {
        self.problem.is_some() || self.last.as_ref().is_some_and(|last| !last.good)
    }

    /// The same for people; nothing if there is nothing to tell.
    pub fn sentence(&self) -> Option<String> {
        let mut parts = Vec::new();
        if let Some(last) = &self.last {
            parts.push(match last.good {
                true => format!("{} is verified: {}", last.id, last.sentence),
                false => format!("VERIFYING {} HAS FAILED: {}", last.id, last.sentence),
            });
        }
        if let Some(good) = &self.last_good {
            parts.push(format!("the last one that is verified is {}", good.id));
        }
        match (&self.under_way, self.waiting) {
            (Some(id), _) => parts.push(format!("{id} is being verified")),
            (None, 0) => {}
            (None, waiting) => parts.push(format!("{waiting} to be verified")),
        }
        parts.extend(self.problem.clone());
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn store() -> BackupStore {
        serde_json::from_value(serde_json::json!({"url": "file:///b"})).unwrap()
    }

    fn id(number: usize) -> BackupId {
        format!("orders/{number}").parse().unwrap()
    }

    #[test]
    fn the_oldest_that_is_not_under_way_gives_way() {
        for under_way in [false, true] {
            let mut all = Verifications::default();
            for number in 0..MOST_WAITING {
                assert_eq!(all.add(id(number), store()), None);
            }
            all.task = under_way.then(|| TaskRecord {
                task_id: TaskId::from_wire("t"),
                agent_id: String::new(),
                host: String::new(),
                port: 1,
                launched_at: Timestamp::from_millis(0),
                unknown: Default::default(),
            });
            let dropped = all.add(id(MOST_WAITING), store());
            assert_eq!(dropped, Some(id(usize::from(under_way))));
            assert_eq!(all.waiting.len(), MOST_WAITING);
        }
    }

    #[test]
    fn what_was_concluded_waits_no_more_and_a_failure_hides_no_good_one() {
        let mut all = Verifications::default();
        for (number, good) in [(0, true), (1, false)] {
            all.add(id(number), store());
            all.conclude(VerificationOutcome {
                id: id(number),
                at: Timestamp::from_millis(0),
                good,
                sentence: "so it is".to_owned(),
                seconds: Some(1),
            });
        }
        assert!(all.waiting.is_empty());
        assert_eq!(all.last.unwrap().id, id(1));
        assert_eq!(all.last_good.unwrap().id, id(0));
    }
}
