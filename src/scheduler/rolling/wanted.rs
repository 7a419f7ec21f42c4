//! What is asked of a cluster's members: whether it can be, and how it becomes what is wanted.

use super::{Way, forget_unused, steps};
use crate::{
    cluster::{
        configuration::{Configuration, Package, Rolling, version_hindrance},
        control::ServerKind,
        id::MemberId,
        record::{ClusterRecord, MemberRecord},
    },
    mysql::mycnf,
    scheduler::{
        failover::View,
        membership,
        state::{Cluster, State},
    },
    time::Timestamp,
};

/// Makes a configuration the one that is wanted. Tells whether a change goes on that had stopped.
///
/// # Errors
/// Why it cannot be, as a sentence.
pub fn want(
    next: &mut ClusterRecord,
    wanted: Configuration,
    force: bool,
    view: View<'_>,
) -> Result<bool, String> {
    let current = next.spec.configuration();
    if wanted == current {
        return Ok(resume(next, force, view.now));
    }
    refuse_both(next, &wanted)?;
    refuse_versions(next, &wanted)?;
    refuse_without_slots(next, &wanted)?;
    if let (Some(text), Some(server)) = (&wanted.my_cnf, &next.server) {
        mycnf::check_user_defaults(server.flavour, text)
            .map_err(|refused| format!("my_cnf is refused: {refused}"))?;
    }
    let before = next.revision();
    let mut former = next
        .rolling
        .take()
        .map_or_else(Default::default, |it| it.former);
    former.insert(before, current);
    next.spec.configure(wanted.clone());
    for (revision, configuration) in &former {
        // Who has the same already need not be touched.
        if *configuration == wanted {
            let those = next
                .members
                .values_mut()
                .filter(|it| it.revision == *revision);
            those.for_each(|it| it.revision = before + 1);
        }
    }
    next.rolling = Some(Rolling {
        revision: before + 1,
        asked_at: view.now,
        force,
        former,
        turn: None,
        stopped: None,
        done_at: None,
    });
    for member in next.members.values_mut() {
        member.failing = None;
    }
    forget_unused(next);
    membership::keep_unchanged(next, view);
    if !force {
        refuse_waiting(next, view)?;
    }
    Ok(false)
}

/// Lets a change that has stopped go on. Tells whether there was one.
fn resume(next: &mut ClusterRecord, force: bool, now: Timestamp) -> bool {
    let Some(rolling) = next.rolling.as_mut().filter(|it| it.done_at.is_none()) else {
        return false;
    };
    // Also of one that has not stopped, but waits for something that this is the word about.
    rolling.force |= force;
    if rolling.stopped.take().is_none() {
        return false;
    }
    if let Some(turn) = &mut rolling.turn {
        turn.since = now;
    }
    for member in next.members.values_mut() {
        member.failing = None;
    }
    true
}

/// Whoever takes the place of a member gets its data from one of the same version, and so its package: without slots, where members can
/// only be replaced, another package would never be reached.
fn refuse_without_slots(record: &ClusterRecord, wanted: &Configuration) -> Result<(), String> {
    let current = record.spec.configuration();
    let lacks_one = |member: &MemberRecord| member.task.is_some() && member.slot.is_none();
    if wanted.package == current.package || !record.members.values().any(lacks_one) {
        return Ok(());
    }
    Err("the package can only be changed where members have volumes (--volumes on, and a role other than *): a member that is replaced has the package of the member that it gets its data from".to_owned())
}

/// A package and a size at once would leave nothing to copy a replacement from: data is copied between servers of one version.
fn refuse_both(record: &ClusterRecord, wanted: &Configuration) -> Result<(), String> {
    let all = record.members.keys().map(|id| record.configuration_of(*id));
    let all: Vec<Configuration> = all.chain([record.spec.configuration()]).collect();
    let other_size = all.iter().any(|it| it.size != wanted.size);
    let other_package = all.iter().any(|it| it.package != wanted.package);
    match other_size && other_package {
        true => Err("the size and the package cannot be changed at the same time; ask for one, and for the other when that is over".to_owned()),
        false => Ok(()),
    }
}

/// Refuses ways between versions that servers do not support, from what any member may have run.
fn refuse_versions(record: &ClusterRecord, wanted: &Configuration) -> Result<(), String> {
    for member in record.members.keys() {
        let has = record.configuration_of(*member);
        if has.package == wanted.package {
            continue;
        }
        let from = match &has.package {
            Some(package) => Some(package.server.clone()),
            None => record.server.clone(),
        };
        let to = match &wanted.package {
            Some(package) => Some(package.server.clone()),
            None => default_server(record),
        };
        let Some(from) = from else {
            return Err(
                "what servers the cluster has is not known yet; ask again when it has a master"
                    .to_owned(),
            );
        };
        let Some(to) = to else {
            return Err("what the package of clusters that name none has in it is not known here; ask for a package by its name".to_owned());
        };
        if let Some(why) = version_hindrance(&from, &to) {
            return Err(format!(
                "member {member} has the package {}: {why}. If it has to be, it can be replaced by a member that is made anew",
                has.package_name()
            ));
        }
    }
    Ok(())
}

/// What is in the package of clusters that name none, as far as this cluster tells: what its servers are while it names none.
fn default_server(record: &ClusterRecord) -> Option<ServerKind> {
    let master = record.elected()?.member;
    let has = record.configuration_of(master);
    has.package.is_none().then(|| record.server.clone())?
}

/// Refuses what would make writes wait for a member.
fn refuse_waiting(record: &ClusterRecord, view: View<'_>) -> Result<(), String> {
    for step in steps(record, view) {
        let restarts = matches!(step.way, Way::Restart | Way::HandOver);
        if restarts && let Some(why) = too_few(record, step.member) {
            return Err(format!(
                "{why}; with force it is done all the same, and writes wait until the member is back"
            ));
        }
    }
    Ok(())
}

/// Whether the voters are too few for one of them to be missing, whoever is well at the moment.
fn too_few(record: &ClusterRecord, member: MemberId) -> Option<String> {
    let needed = record.voters.k_floor as usize;
    let others = record.voters.members.len().saturating_sub(2);
    (record.is_voter(member) && others < needed).then(|| {
        format!(
            "while member {member} is restarted there are too few members to acknowledge writes"
        )
    })
}

/// The package of that name.
///
/// # Errors
/// That there is none, as a sentence.
pub fn package(state: &State, cluster: &Cluster, name: &str) -> Result<Option<Package>, String> {
    let flavour = cluster.record.server.as_ref().map(|it| it.flavour);
    Package::named(&state.policy.packages, name, flavour)
}
