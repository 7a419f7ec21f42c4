//! What the API answers when it is asked why.

use serde::{Deserialize, Serialize};

use super::{
    failover_record::{FailoverRecord, Phase, Quorum, VoterAccount},
    id::{ClusterName, MemberId},
    view::{ClusterState, Standing},
};
use crate::time::Timestamp;

/// Why a cluster is as it is: what it waits for and how its last changes of master came about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The cluster's name.
    pub name: ClusterName,
    /// How it does.
    pub state: ClusterState,
    /// The same as a sentence.
    pub reason: String,
    /// The current epoch.
    pub epoch: u64,
    /// The elected master, whether it has opened already or not.
    pub master: Option<MemberId>,
    /// How many reports an election needs now, and why so many.
    pub quorum: Quorum,
    /// What is waited for, if anything is.
    pub waiting: Option<Waiting>,
    /// What is to be told of the voters, a sentence each: who is out of its place, who is to leave or stays nonetheless, and
    /// who does not vote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub voters: Vec<String>,
    /// The data directories that members have set aside, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_aside: Vec<String>,
    /// What is being changed, and what an operator can do or has done about a quorum that is missing.
    #[serde(flatten)]
    pub standing: Standing,
    /// The last failovers, newest first.
    pub failovers: Vec<FailoverView>,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Whether the cluster accepts no writes until then.
    pub blocked: bool,
    /// When time alone changes something, if it ever does.
    pub until: Option<Timestamp>,
    /// What would end it, a sentence each. Where several are named, each helps.
    pub ends_when: Vec<String>,
    /// During an election, the voters: who has reported what, and why the others do not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub voters: Vec<VoterAccount>,
}

/// A failover with what follows from what is remembered of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailoverView {
    /// What is remembered.
    #[serde(flatten)]
    pub record: FailoverRecord,
    /// How many reports counted.
    pub counted: usize,
    /// For how long discovery named no master, in milliseconds, once that is over.
    pub unpublished_millis: Option<u64>,
    /// Where the time went.
    pub phases: Vec<Phase>,
}

impl From<FailoverRecord> for FailoverView {
    fn from(record: FailoverRecord) -> Self {
        Self {
            counted: record.counted(),
            unpublished_millis: record.unpublished_millis(),
            phases: record.phases(),
            record,
        }
    }
}

impl FailoverView {
    /// The change in one line: from whom to whom.
    pub fn change(&self) -> String {
        let winner = self.record.winner.as_ref();
        let winner = winner.map(|winner| winner.master.member);
        let before = self.record.before.as_ref().map(|master| master.member);
        match (before, winner) {
            (Some(before), Some(winner)) if before == winner => {
                format!("member {winner} became master again")
            }
            (Some(before), Some(winner)) => {
                format!("member {winner} took over from member {before}")
            }
            (None, Some(winner)) => format!("member {winner} became master"),
            (Some(before), None) => format!("member {before} lost its place, nobody has it yet"),
            (None, None) => "no master was elected".to_owned(),
        }
    }
}
