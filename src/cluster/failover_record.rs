//! What is remembered of a failover: who, when, on what evidence, and by which arithmetic.
//!
//! It lies in the cluster's record and is written in the transactions that decide, so it cannot tell of
//! anything that did not happen. It is there to be read: nothing is ever decided by it, a part of it that
//! cannot be decoded is left out rather than let the cluster's record be unreadable, and it is bounded
//! ([`FailoverLog::push`]), because the record is written whole with every change.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    data_loss::{LossOutcome, LossyFailover},
    gtid::Position,
    id::{DataId, Epoch, MemberId, ProcessId, TaskId},
    record::{Elected, TaskRecord},
    voters::Durability,
};
use crate::time::Timestamp;

/// The format number of what is written by this version.
pub const FORMAT: u32 = 1;

/// How many failovers a cluster remembers.
pub const MOST_REMEMBERED: usize = 16;

/// How large their JSON may be together, in bytes. ZooKeeper takes 1 MiB in one node, and the record has
/// more to say than this.
pub const MOST_BYTES: usize = 64 << 10;

/// How much is kept of a text of GTIDs, in bytes: a dozen of MySQL's intervals with their source. The
/// whole sets decide and are in the lineage; here they are read by a person.
const MOST_OF_A_POSITION: usize = 512;

/// How much is kept of a sentence, in bytes. Sentences may quote what a server said.
const MOST_OF_A_SENTENCE: usize = 1024;

/// The last failovers, oldest first. Shared, because every look at a cluster copies its record, and few
/// change this.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FailoverLog(Arc<Vec<FailoverRecord>>);

/// One change of master, from the decision until discovery names the new one. Times are the scheduler's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverRecord {
    /// See [`FORMAT`].
    #[serde(default)]
    pub format: u32,
    /// The epoch that it began.
    pub epoch: Epoch,
    /// 1, or one more than that of the epoch before if no master opened in that one.
    #[serde(default = "first_attempt")]
    pub attempt: u32,
    /// What ended the term of the master before.
    pub ending: Ending,
    /// The master before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Master>,
    /// Whether that one had opened for clients in its epoch.
    #[serde(default)]
    pub before_opened: bool,
    /// How many reports were needed, and why so many.
    pub quorum: Quorum,
    /// Each voter: whether its report counted and what it held. Empty until a master is elected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub voters: Vec<VoterAccount>,
    /// The elected one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub winner: Option<Winner>,
    /// What an operator has accepted the loss of, if the election was one without its quorum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_loss: Option<AcceptedLoss>,
    /// The switchover that it was for, if it was for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switchover: Option<SwitchoverAccount>,
    /// When what happened.
    pub times: Times,
}

/// The switchover that a change of master was for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchoverAccount {
    /// Its number.
    pub number: u64,
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// Who was to be master.
    pub to: MemberId,
    /// How long the old master had been closed for writes when it said so, in milliseconds.
    pub closed_millis: u64,
}

/// The loss of data that an operator has accepted, for people: positions are cut where they are long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptedLoss {
    /// When it was asked for.
    pub asked_at: Timestamp,
    /// The voters that were given up.
    pub given_up: Vec<MemberId>,
    /// What came of it, a sentence each.
    pub told: Vec<String>,
}

impl AcceptedLoss {
    /// What came of an intention.
    pub fn new(lossy: &LossyFailover, outcome: &LossOutcome) -> Self {
        let told = outcome.sentences().into_iter();
        Self {
            asked_at: lossy.asked_at,
            given_up: lossy
                .given_up
                .iter()
                .map(|given_up| given_up.member)
                .collect(),
            told: told.map(|one| cut(one, MOST_OF_A_SENTENCE)).collect(),
        }
    }
}

/// What ended a master's term.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// The kind of evidence.
    pub cause: Cause,
    /// The evidence as a sentence.
    pub sentence: String,
}

/// The kinds of evidence on which a master's term is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Mesos says that its task has ended.
    TaskEnded,
    /// Its executor reports that the server has ended, or is another one than was elected.
    ServerEnded,
    /// It was elected and reports that it cannot become master.
    Refused,
    /// Its executor is stopping for good.
    Stopping,
    /// Its commits were not acknowledged for long.
    Stuck,
    /// Its executor's ZooKeeper session has ended, and silence counts.
    SessionLost,
    /// It was elected and has not opened, and a voter has come back that holds more.
    Outdone,
    /// Nothing is heard of it, and an operator has accepted the loss of what only the missing voters hold.
    LossAccepted,
    /// A switchover was asked for, and it has handed over.
    Switchover,
    /// Something that this version has no word for.
    #[serde(other)]
    Other,
}

/// A master as it was identified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Master {
    /// The member.
    pub member: MemberId,
    /// Its task.
    pub task_id: TaskId,
    /// Where clients found it, `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Its data directory.
    pub data: DataId,
    /// Its server process.
    pub process: ProcessId,
}

/// The arithmetic of an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quorum {
    /// What the cluster promises for an acknowledged write.
    pub durability: Durability,
    /// `|V|`: how many voters there are.
    pub voters: usize,
    /// `k`: how many of them a master waits for at least.
    pub k_floor: u32,
    /// `|V| - k`: how many reports an election needs.
    pub needed: usize,
}

/// What one voter had to do with an election.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterAccount {
    /// The member.
    pub member: MemberId,
    /// What it held, if its report counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldAccount>,
    /// Why it did not count, else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// When its report of what it held arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported: Option<Timestamp>,
}

/// What a voter held. Long sets of GTIDs are cut and say so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldAccount {
    /// The last epoch whose marker was in it.
    pub marker: Epoch,
    /// All that it had received or executed.
    pub received: String,
    /// What of that it had not applied yet; empty if nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unapplied: String,
}

/// Who won, and why that one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Winner {
    /// Who.
    #[serde(flatten)]
    pub master: Master,
    /// The rule that set it apart from the best of the others.
    pub won_by: WonBy,
}

/// What set the winner apart, in the order in which it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WonBy {
    /// No other report counted.
    OnlyOne,
    /// It held the marker of a higher epoch.
    HighestMarker,
    /// It held transactions that the others lacked.
    HeldMost,
    /// It held as much, and the election was for its sake.
    AskedFor,
    /// It held as much, and had applied all of it.
    LeastToApply,
    /// There was nothing to choose: the lowest number.
    LowestNumber,
    /// Something that this version has no word for.
    #[serde(other)]
    Other,
}

/// When what happened. What is `None` has not happened yet, or was not seen by a scheduler that lived on
/// to write it down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// The evidence arrived. Silence is dated by the end of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noticed: Option<Timestamp>,
    /// The election was decided upon.
    pub decided: Timestamp,
    /// That was stored: the old master was out of discovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision_stored: Option<Timestamp>,
    /// The winner was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elected: Option<Timestamp>,
    /// That was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice_stored: Option<Timestamp>,
    /// The winner reported that it accepts writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<Timestamp>,
    /// Discovery named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Timestamp>,
}

/// How far a failover has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The election was decided upon.
    Decided,
    /// A winner was chosen.
    Elected,
    /// The winner accepts writes.
    Opened,
}

/// A part of a failover's time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// What was done in it.
    pub name: String,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

fn first_attempt() -> u32 {
    1
}

impl FailoverLog {
    /// The failovers, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &FailoverRecord> {
        self.0.iter()
    }

    /// The newest.
    pub fn last(&self) -> Option<&FailoverRecord> {
        self.0.last()
    }

    /// The one that began `epoch`.
    pub fn of_mut(&mut self, epoch: Epoch) -> Option<&mut FailoverRecord> {
        let mut failovers = Arc::make_mut(&mut self.0).iter_mut();
        failovers.rfind(|failover| failover.epoch == epoch)
    }

    /// Adds one, and forgets the oldest beyond [`MOST_REMEMBERED`].
    pub fn push(&mut self, failover: FailoverRecord) {
        let failovers = Arc::make_mut(&mut self.0);
        failovers.push(failover);
        failovers.drain(..failovers.len().saturating_sub(MOST_REMEMBERED));
    }

    /// Forgets the oldest until the rest is no larger than [`MOST_BYTES`]. The newest always stays; it is
    /// bounded by itself, for its texts are.
    pub fn shrink(&mut self) {
        let size = |failover: &FailoverRecord| serde_json::to_vec(failover).map_or(0, |v| v.len());
        let failovers = Arc::make_mut(&mut self.0);
        let mut total: usize = failovers.iter().map(size).sum();
        while total > MOST_BYTES && failovers.len() > 1 {
            total -= size(&failovers.remove(0));
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What cannot be decoded, such as something of a later format, is left out: a cluster must not become
/// unmanageable because its history cannot be read.
impl<'de> Deserialize<'de> for FailoverLog {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let documents = match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::Array(documents) => documents,
            _ => Vec::new(),
        };
        let readable = documents
            .into_iter()
            .filter_map(|document| serde_json::from_value(document).ok());
        Ok(Self(Arc::new(readable.collect())))
    }
}

impl Serialize for FailoverLog {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_slice().serialize(serializer)
    }
}

impl FailoverRecord {
    /// How far it has come.
    pub fn stage(&self) -> Stage {
        match (&self.times.opened, &self.times.elected) {
            (Some(_), _) => Stage::Opened,
            (None, Some(_)) => Stage::Elected,
            (None, None) => Stage::Decided,
        }
    }

    /// Notes when the record with `stage` in it was stored; the first time counts.
    pub fn stored(&mut self, stage: Stage, at: Timestamp) {
        let times = &mut self.times;
        let noted = match stage {
            Stage::Decided => &mut times.decision_stored,
            Stage::Elected => &mut times.choice_stored,
            Stage::Opened => &mut times.published,
        };
        noted.get_or_insert(at);
    }

    /// How many reports counted.
    pub fn counted(&self) -> usize {
        self.voters.iter().filter(|v| v.held.is_some()).count()
    }

    /// The phases that are over, in their order. One whose beginning or end nobody noted is told together
    /// with the next one.
    pub fn phases(&self) -> Vec<Phase> {
        let times = &self.times;
        let reported = self.voters.iter().filter(|v| v.held.is_some());
        // A report may be older than the decision's return from the store, but not than the decision.
        let reported = reported.filter_map(|voter| voter.reported).max();
        let steps = [
            ("deciding", Some(times.decided)),
            ("storing the decision", times.decision_stored),
            ("collecting the reports", reported),
            ("choosing", times.elected),
            ("storing the choice", times.choice_stored),
            ("applying and opening", times.opened),
            ("publishing", times.published),
        ];
        let mut from = times.noticed;
        let mut phases = Vec::new();
        if let Some(switchover) = &self.switchover {
            phases.push(Phase {
                name: "closing the old master".to_owned(),
                millis: switchover.closed_millis,
            });
        }
        for (name, until) in steps {
            if let (Some(from), Some(until)) = (from, until) {
                let millis = until.since(from).as_millis() as u64;
                let name = name.to_owned();
                phases.push(Phase { name, millis });
            }
            from = until.or(from).max(from);
        }
        phases
    }

    /// For how long discovery named no master, in milliseconds, once that is over.
    pub fn unpublished_millis(&self) -> Option<u64> {
        let since = self.times.decided;
        let until = self.times.published.or(self.times.opened)?;
        Some(until.since(since).as_millis() as u64)
    }
}

impl Ending {
    /// Evidence of a kind.
    pub fn new(cause: Cause, sentence: impl Into<String>) -> Self {
        let sentence = cut(sentence.into(), MOST_OF_A_SENTENCE);
        Self { cause, sentence }
    }
}

impl Cause {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TaskEnded => "task-ended",
            Self::ServerEnded => "server-ended",
            Self::Refused => "refused",
            Self::Stopping => "stopping",
            Self::Stuck => "stuck",
            Self::SessionLost => "session-lost",
            Self::Outdone => "outdone",
            Self::LossAccepted => "loss-accepted",
            Self::Switchover => "switchover",
            Self::Other => "other",
        }
    }
}

impl WonBy {
    /// The rule as the end of a sentence that begins with the winner.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::OnlyOne => "no other report counted",
            Self::HighestMarker => "it held the marker of the highest epoch",
            Self::HeldMost => "it held the most transactions",
            Self::LeastToApply => "it held as much as the others and had the least left to apply",
            Self::LowestNumber => {
                "it held as much as the others, and among equals the lowest number wins"
            }
            Self::AskedFor => "it held as much as the others, and a switchover to it was asked for",
            Self::Other => "by a rule that this version has no word for",
        }
    }
}

impl Master {
    /// An elected member and, if it still has one, its task.
    pub fn of(elected: &Elected, task: Option<&TaskRecord>) -> Self {
        let task = task.filter(|task| task.task_id == elected.task_id);
        Self {
            member: elected.member,
            task_id: elected.task_id.clone(),
            address: task.map(|task| format!("{}:{}", task.host, task.port)),
            data: elected.data,
            process: elected.process,
        }
    }
}

/// A position as a text of bounded length.
pub fn bounded(position: &Position) -> String {
    cut(position.to_string(), MOST_OF_A_POSITION)
}

/// The beginning of a long text, and how much of it is missing.
fn cut(mut text: String, most: usize) -> String {
    if text.len() <= most {
        return text;
    }
    let all = text.len();
    let mut end = most;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    let left_out = all - end;
    text.push_str(&format!("... ({left_out} of {all} bytes left out)"));
    text
}

#[cfg(test)]
mod tests;
