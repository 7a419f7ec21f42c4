//! The explanation of a cluster as it stands: what it waits for, and what would end that.

use super::{
    election::{self, Missing},
    explain,
    observed::{Observed, Presence},
    state::{Cluster, State},
};
use crate::{
    cluster::{
        control::{MemberState, Report},
        explanation::{Explanation, Waiting},
        failover_record::{FailoverRecord, Stage},
        id::MemberId,
        record::{ClusterRecord, Elected, Mastership},
        view::{ClusterState, ClusterView},
        voters::{ChangeKind, Durability},
    },
    rules::Rules,
};

/// Why the cluster is as `view` shows it.
pub fn explanation(state: &State, cluster: &Cluster, view: &ClusterView) -> Explanation {
    let rules = state.policy.rules;
    let record = &cluster.record;
    let ends_when = ends_when(cluster, rules);
    let idle = view.state == ClusterState::Running && cluster.awaited.reason.is_empty();
    let electing = record.mastership == Mastership::Electing && !record.deleting;
    let waiting = (!idle && !ends_when.is_empty()).then(|| Waiting {
        blocked: cluster.awaited.blocked || record.published.master.is_none(),
        until: cluster.awaited.until,
        ends_when,
        voters: if electing {
            explain::accounts(record, &cluster.observed, rules)
        } else {
            Vec::new()
        },
    });
    Explanation {
        name: record.name().clone(),
        state: view.state,
        reason: view.reason.clone(),
        epoch: record.epoch.0,
        master: record.elected().map(|elected| elected.member),
        quorum: explain::quorum(record),
        waiting,
        voters: voters(cluster),
        set_aside: set_aside(cluster),
        standing: view.standing.clone(),
        failovers: failovers(cluster, rules).map(Into::into).collect(),
    }
}

/// The data directories that were set aside, and where what they hold beyond the history can be read.
fn set_aside(cluster: &Cluster) -> Vec<String> {
    let live = cluster.observed.all_live(&cluster.record);
    live.filter_map(|(member, report)| {
        let aside = report.set_aside.as_ref()?;
        let data = aside.data;
        if aside.extras.is_empty() {
            return Some(format!(
                "member {member} has set aside its data directory {data}: it was behind what the master can send, and holds nothing that is not in the cluster's history"
            ));
        }
        let export = match (&aside.export, &aside.problem) {
            (Some(path), _) => format!("they are exported as SQL into {path} in its task's sandbox"),
            (None, Some(problem)) => format!("exporting them has failed and is tried again: {problem}"),
            (None, None) => "they are being exported as SQL".to_owned(),
        };
        Some(format!(
            "member {member} has set aside its data directory {data}, which holds transactions that are not in the cluster's history ({}); {export}",
            aside.extras
        ))
    })
    .collect()
}

/// Who is out of its place among the voters, and who does not vote.
fn voters(cluster: &Cluster) -> Vec<String> {
    let record = &cluster.record;
    let unfit = cluster.unfit.iter();
    let mut told: Vec<String> = unfit
        .map(|(member, ailment)| ailment.sentence(*member))
        .collect();
    told.extend(record.change.as_ref().map(|change| match change.kind {
        ChangeKind::Remove { member } => format!(
            "member {member} is leaving the voters: the master keeps it from acknowledging, and a write under these terms must be acknowledged before it counts"
        ),
        ChangeKind::Raise { k_floor } => format!(
            "the master is to wait for {k_floor} acknowledgements, which counts when a write under these terms was acknowledged"
        ),
    }));
    let (Some(server), Some(elected)) = (&record.server, record.elected()) else {
        return told;
    };
    let limit = record.spec.durability.most_voters(server.flavour);
    let votes = |member: &MemberId| record.voters.members.contains_key(member);
    for member in record.members.keys().filter(|member| !votes(member)) {
        told.push(if record.voters.members.len() >= limit {
            format!("member {member} does not vote: {limit} are as many voters as can be made use of")
        } else {
            format!(
                "member {member} does not vote: it becomes a voter when it follows member {} and is not behind",
                elected.member
            )
        });
    }
    told
}

/// What is remembered, newest first, the newest completed by what is known but not written yet.
fn failovers(cluster: &Cluster, rules: Rules) -> impl Iterator<Item = FailoverRecord> {
    let record = &cluster.record;
    let newest = explain::stage(record);
    record
        .failovers
        .iter()
        .rev()
        .cloned()
        .map(move |mut failover| {
            if let Some((epoch, stage)) = newest
                && epoch == failover.epoch
            {
                if let Some(at) = cluster.stage_stored {
                    failover.stored(stage, at);
                }
                if stage == Stage::Decided && record.mastership == Mastership::Electing {
                    failover.voters = explain::accounts(record, &cluster.observed, rules);
                }
            }
            failover
        })
}

/// What would end the waiting, a sentence each; nothing if nothing is waited for.
fn ends_when(cluster: &Cluster, rules: Rules) -> Vec<String> {
    let record = &cluster.record;
    if record.deleting {
        let tasks = record.members.values().filter_map(|m| m.task.as_ref());
        return tasks
            .chain(&record.backups.verification.task)
            .map(|task| format!("Mesos says that task {} has ended", task.task_id))
            .collect();
    }
    match &record.mastership {
        Mastership::Unborn => members_ready(record, &cluster.observed),
        Mastership::Electing => election_ends(cluster, rules),
        Mastership::Elected(elected) => elected_ends(cluster, elected),
    }
}

fn election_ends(cluster: &Cluster, rules: Rules) -> Vec<String> {
    let (record, observed) = (&cluster.record, &cluster.observed);
    let voters = record.voters.members.keys();
    let missing: Vec<(MemberId, Missing)> = voters
        .filter_map(|member| {
            let why = election::candidate(record, observed, rules, *member).err()?;
            Some((*member, why))
        })
        .collect();
    let counted = record.voters.members.len() - missing.len();
    let lacking = record.voters.quorum().saturating_sub(counted);
    if lacking == 0 {
        return vec!["the choice is stored".to_owned()];
    }
    let hopeless = |(_, why): &&(MemberId, Missing)| *why == Missing::DataLost;
    let lost = missing.iter().filter(hopeless).count();
    let asked: Vec<String> = missing.iter().map(report_counts).collect();
    let timeout = "the election timeout passes: then the best of those that have reported is taken";
    match record.rule() {
        Durability::Async => asked
            .into_iter()
            .chain(std::iter::once(timeout.to_owned()))
            .collect(),
        Durability::Majority if missing.len() - lost < lacking => {
            let alone = format!(
                "never by itself: {counted} of {} needed reports count, and of the {} other voters {lost} have lost the data that they voted with",
                record.voters.quorum(),
                missing.len()
            );
            std::iter::once(alone).chain(asked).collect()
        }
        Durability::Majority => {
            let needed = match lacking {
                1 => "1 more report counts, of these:".to_owned(),
                _ => format!("{lacking} more reports count, of these:"),
            };
            std::iter::once(needed).chain(asked).collect()
        }
    }
}

/// How a voter's report comes to count.
fn report_counts((member, why): &(MemberId, Missing)) -> String {
    let how = match why {
        Missing::NoTask => "it has no task: an agent must have room for it",
        Missing::Silent => "nothing is heard of it: its executor must reach ZooKeeper again",
        Missing::NoServer => "its server does not run: it must start",
        Missing::NotRead => "it must promise the epoch and report what it holds",
        Missing::DataLost => "the data that it voted with is lost, so it cannot help",
    };
    format!("member {member}: {how}")
}

fn elected_ends(cluster: &Cluster, elected: &Elected) -> Vec<String> {
    let (record, observed) = (&cluster.record, &cluster.observed);
    let member = elected.member;
    if !elected.opened {
        let mut ends = vec![format!(
            "member {member} has applied all that it held, has written the marker of epoch {}, and {} other voters have acknowledged it",
            record.epoch, record.voters.k_floor
        )];
        ends.extend(others_follow(record, observed, member));
        return ends;
    }
    let mut ends = Vec::new();
    if !matches!(observed.presence(record, member), Presence::Live(_)) {
        ends.push(format!(
            "member {member} is heard of again, or its silence counts and an election begins"
        ));
    }
    ends.extend(members_ready(record, observed));
    ends
}

/// The voters whose acknowledgement a master that is about to open does not get yet.
fn others_follow(record: &ClusterRecord, observed: &Observed, master: MemberId) -> Vec<String> {
    let voters = record.voters.members.keys().copied();
    let others = voters.filter(|member| *member != master);
    others
        .filter_map(|member| match observed.live(record, member) {
            Some(report) => {
                let follows = matches!(report.state, MemberState::Following { epoch, .. } if epoch == record.epoch);
                let why = report.problem.as_deref().unwrap_or("it does not follow the epoch yet");
                (!follows).then(|| format!("member {member} acknowledges: {why}"))
            }
            None => Some(format!("member {member} acknowledges: nothing is heard of it")),
        })
        .collect()
}

/// What each member that is not in its place lacks.
fn members_ready(record: &ClusterRecord, observed: &Observed) -> Vec<String> {
    let members = record.members.keys().copied();
    members
        .filter_map(|member| {
            let lacks = lacks(record, observed, member)?;
            Some(format!("member {member}: {lacks}"))
        })
        .collect()
}

fn lacks(record: &ClusterRecord, observed: &Observed, member: MemberId) -> Option<String> {
    let published =
        record.published.master == Some(member) || record.published.slaves.contains(&member);
    if let Some(rejoining) = record.rejoining.get(&member) {
        return Some(format!(
            "its data was lost; it votes again when it has executed canary {}",
            rejoining.canary
        ));
    }
    let data = observed.live(record, member).and_then(|report| report.data);
    let counts = data.is_none_or(|data| record.voters.counts(member, data));
    if record.voters.members.contains_key(&member) && !counts {
        return Some("its data was lost; it votes again when it has all of it again".to_owned());
    }
    if published {
        return None;
    }
    if record.task(member).is_none() {
        let failing = record.members.get(&member)?.failing.as_ref();
        return Some(match failing {
            Some(failing) => format!(
                "it is launched again, for its last task failed: {}",
                failing.message
            ),
            None => "an offer of Mesos has enough room for it".to_owned(),
        });
    }
    Some(match observed.presence(record, member) {
        Presence::Live(report) => reported_lack(report),
        Presence::Gone(_) => "its executor reaches ZooKeeper again".to_owned(),
        Presence::Unknown => "its executor starts and reports".to_owned(),
    })
}

fn reported_lack(report: &Report) -> String {
    let lack = match report.state {
        MemberState::Provisioning => "its server is made ready",
        MemberState::Closed => "it is given a role",
        MemberState::Following { ready: true, .. } => "discovery names it",
        MemberState::Following { ready: false, .. } => {
            "it has received and applied what it is behind"
        }
        MemberState::Master { .. } => "it opens for clients",
        MemberState::Refused { .. } => "another election",
        MemberState::Quarantined => {
            "what it holds beyond the cluster's history is set aside, and it gets its data again"
        }
        MemberState::Dead => "its server has started again",
        MemberState::Stopping => "its task has ended, and it is launched again",
    };
    match &report.problem {
        Some(problem) => format!("{lack} ({problem})"),
        None => lack.to_owned(),
    }
}
