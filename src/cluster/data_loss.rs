//! A failover that an operator asks for though acknowledged writes may be lost by it: what is stored of it, and what
//! people are told.

use serde::{Deserialize, Serialize};

use super::{
    failover_record::bounded,
    gtid::Position,
    id::{DataId, Epoch, MemberId, TaskId},
};
use crate::time::Timestamp;

/// What is said of every such failover: nobody in sight knows what the missing ones acknowledged last.
pub const MORE_MAY_BE_LOST: &str =
    "more may be lost: what the missing members acknowledged after their last report is not known";

/// A failover that an operator asked for though acknowledged writes may be lost by it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LossyFailover {
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// The voters that were missing then.
    pub given_up: Vec<GivenUp>,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<LossOutcome>,
}

impl LossyFailover {
    /// Whether it is still to be done.
    pub fn is_pending(&self) -> bool {
        self.outcome.is_none()
    }
}

/// A voter that is given up, with the task that it had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// The member.
    pub member: MemberId,
    /// What it lacks, as the end of a sentence.
    #[serde(default)]
    pub why: String,
    /// Its task, if it had one and nothing was heard of that.
    pub task_id: Option<TaskId>,
    /// `host:port` of its server, if it had such a task.
    pub address: Option<String>,
    /// What it was last known to hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<LastHeld>,
}

/// What a voter was last known to hold: that is, what it reported in an election.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastHeld {
    /// In this one.
    pub epoch: Epoch,
    /// The data directory that it was read from.
    pub data: DataId,
    /// All that was received and executed.
    pub position: Position,
}

/// What came of a failover with the loss of data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LossOutcome {
    /// In this epoch.
    pub epoch: Epoch,
    /// This member was elected.
    pub master: MemberId,
    /// All that it held.
    pub holds: Position,
    /// What is known to be lost.
    pub known_lost: Vec<KnownLoss>,
    /// The instances that may still run and serve a history of their own: Mesos has not said that they ended.
    pub unfenced: Vec<GivenUp>,
    /// What else may be lost, as a sentence.
    pub note: String,
}

/// Transactions that the new master does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownLoss {
    /// Who held them, such as `member 2`.
    pub whose: String,
    /// They.
    pub transactions: Position,
}

/// What such a failover would come to, as things stand: what an operator decides by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prospect {
    /// The voters that are given up.
    pub given_up: Vec<GivenUp>,
    /// The members in sight, one of which becomes master.
    pub in_sight: Vec<MemberId>,
    /// The best of them, once they have reported what they hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Candidate>,
    /// What is known to be lost then. It is known only against a candidate.
    pub known_lost: Vec<KnownLoss>,
    /// The instances of those given up that are not known to have ended. Mesos is asked to kill them.
    pub unfenced: Vec<GivenUp>,
    /// What else may be lost, as a sentence.
    pub note: String,
}

/// The member that would become master, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The member.
    pub member: MemberId,
    /// What it holds.
    pub holds: Position,
}

/// The way out of waiting that an operator has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// What to type.
    pub command: String,
    /// What it would come to.
    pub prospect: Prospect,
}

impl Prospect {
    /// All of it, a sentence each.
    pub fn sentences(&self) -> Vec<String> {
        let mut told = vec![format!("given up: {}", listed(&self.given_up))];
        told.push(match &self.candidate {
            Some(Candidate { member, holds }) if holds.is_empty() => {
                format!("master becomes member {member}, which holds nothing at all")
            }
            Some(Candidate { member, holds }) => format!(
                "master becomes member {member}, which holds {}",
                one_line(holds)
            ),
            None => format!(
                "master becomes the best of {}, which have not reported yet what they hold",
                members(&self.in_sight)
            ),
        });
        told.push(match &self.candidate {
            Some(_) => lost(&self.known_lost),
            None => "what is known to be lost is told when they have".to_owned(),
        });
        told.push(self.note.clone());
        if !self.unfenced.is_empty() {
            told.push(format!(
                "not known to have ended, and killed through Mesos first, if it can: {}",
                instances(&self.unfenced)
            ));
        }
        told
    }
}

impl LossOutcome {
    /// All of it, a sentence each.
    pub fn sentences(&self) -> Vec<String> {
        let mut told = vec![
            format!(
                "member {} was elected in epoch {} with {}",
                self.master,
                self.epoch,
                one_line(&self.holds)
            ),
            lost(&self.known_lost),
            self.note.clone(),
        ];
        told.push(unfenced(&self.unfenced));
        told
    }
}

/// What is known to be lost, as a sentence.
pub fn lost(known: &[KnownLoss]) -> String {
    if known.is_empty() {
        return "nothing is known to be lost".to_owned();
    }
    let each = known.iter();
    let each: Vec<String> = each
        .map(|loss| format!("{} of {}", one_line(&loss.transactions), loss.whose))
        .collect();
    format!("known to be lost: {}", each.join("; "))
}

/// Who could not be fenced, as a sentence.
fn unfenced(left: &[GivenUp]) -> String {
    if left.is_empty() {
        return "each instance that was given up is known to have ended".to_owned();
    }
    format!(
        "could not be fenced, and may still serve a history of their own, reads at least, until they hear of the new epoch: {}",
        instances(left)
    )
}

fn listed(given_up: &[GivenUp]) -> String {
    let one = |given_up: &GivenUp| match &given_up.held {
        Some(held) => format!(
            "member {} ({}; last known to hold {} in epoch {})",
            given_up.member,
            given_up.why,
            one_line(&held.position),
            held.epoch
        ),
        None => format!(
            "member {} ({}; it is not known what it held)",
            given_up.member, given_up.why
        ),
    };
    let all: Vec<String> = given_up.iter().map(one).collect();
    all.join(", ")
}

/// Members with task and address.
pub fn instances(given_up: &[GivenUp]) -> String {
    let one = |given_up: &GivenUp| {
        let task = given_up.task_id.as_ref();
        let task = task.map_or("no task".to_owned(), |task| format!("task {task}"));
        match &given_up.address {
            Some(address) => format!("member {} ({task}, at {address})", given_up.member),
            None => format!("member {} ({task})", given_up.member),
        }
    };
    let all: Vec<String> = given_up.iter().map(one).collect();
    all.join(", ")
}

fn members(members: &[MemberId]) -> String {
    let numbers: Vec<String> = members.iter().map(ToString::to_string).collect();
    match numbers.len() {
        1 => format!("member {}", numbers[0]),
        _ => format!("members {}", numbers.join(", ")),
    }
}

/// A position in a sentence: of bounded length, and without the line breaks with which MySQL prints its sets.
fn one_line(position: &Position) -> String {
    let text = bounded(position);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() {
        "nothing".to_owned()
    } else {
        text
    }
}
