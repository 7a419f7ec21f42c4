//! How far a change of the durability is, told for people. Nothing is decided here: the voters and `k` follow what is asked for
//! by the steps of [`transitions`](super::transitions).

use super::observed::Observed;
use crate::cluster::{
    record::ClusterRecord,
    voters::{ChangeKind, Durability, VoterChange},
};

/// What a cluster lacks that its writes are worth what is asked for, as a sentence; `None`: nothing.
pub fn changing(record: &ClusterRecord, observed: &Observed) -> Option<String> {
    let wanted = record.spec.durability;
    let flavour = record.server.as_ref()?.flavour;
    let most = record.members.len().min(wanted.most_voters(flavour));
    match wanted {
        Durability::Majority if wanted.acknowledgements(most, flavour) == 0 => None,
        Durability::Majority if record.voters.k_floor > 0 => None,
        Durability::Majority => Some(format!(
            "changing from async to majority: {}; until then a write is acknowledged by the master alone, and an election needs the report of every voter",
            to_majority(record)
        )),
        Durability::Async => {
            let waits_for = waits_for(record, observed);
            (waits_for > 0).then(|| {
                format!(
                    "changing from majority to async: the master still waits for {waits_for} of the others{}",
                    if record.elected().is_none() { ", and there is none now that could be told" } else { "" }
                )
            })
        }
    }
}

/// The step that is next.
fn to_majority(record: &ClusterRecord) -> String {
    let voters = record.voters.members.len();
    match record.change {
        Some(VoterChange {
            kind: ChangeKind::Raise { k_floor },
            canary: None,
        }) => format!("the master is told to wait for {k_floor} of the others"),
        Some(VoterChange {
            kind: ChangeKind::Raise { k_floor },
            canary: Some(_),
        }) => format!("a write is to prove that {k_floor} of the others acknowledge"),
        Some(VoterChange {
            kind: ChangeKind::Remove { member },
            ..
        }) => format!("member {member} leaves the voters first, which are too many"),
        None if voters < 2 => "no member but the master has all of the data yet".to_owned(),
        None => format!("enough of the {voters} voters must follow the master and be ready"),
    }
}

/// How many acknowledgements the master may be waiting for.
fn waits_for(record: &ClusterRecord, observed: &Observed) -> u32 {
    let elected = record.elected();
    let report = elected.and_then(|elected| observed.live(record, elected.member));
    let in_force = report.and_then(|report| report.terms.as_ref());
    let in_force = in_force.map_or(0, |terms| terms.acknowledgements);
    in_force.max(record.voters.k_floor)
}
