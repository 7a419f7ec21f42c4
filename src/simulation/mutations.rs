//! Every rule is there for a reason, and the simulation knows it: without the rule it finds the harm.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    Bend, Shell,
    run::play_in,
    scenes::Family,
    setup::{Setup, Weather},
};
use crate::{cluster::voters::Durability, rules::Rule};

/// In how many histories the harm must be found at the latest.
const WITHIN: u64 = 5000;

/// The same where every run of the tests shows it.
const SOON: u64 = 120;

/// Where the harm of a broken rule is looked for.
#[derive(Debug, Clone, Copy)]
enum Where {
    /// In narrow histories.
    In(Family),
    /// In a majority cluster that is written to, in bad weather.
    Weather,
    /// In a cluster of one node on a volume, in bad weather.
    Alone,
    /// In a cluster that is deleted.
    Deleted,
    /// In a cluster of two whose hosts go down for maintenance.
    Maintained,
    /// In a majority cluster on volumes whose members are restarted.
    Changed,
}

use Where::In;

/// Every rule, and where its harm is looked for.
const ALL: &[(Bend, Where)] = &[
    (
        Bend::Rule(Rule::UnreadDoesNotCount),
        In(Family::LoneWitness),
    ),
    (Bend::Rule(Rule::QuorumElects), In(Family::LoneWitness)),
    (Bend::Rule(Rule::HighestMarkerWins), In(Family::LongTail)),
    (Bend::Rule(Rule::LostDataDoesNotVote), In(Family::DataLost)),
    (Bend::Rule(Rule::RejoinsAfterCanary), In(Family::DataLost)),
    (Bend::Rule(Rule::LeaverIsBarred), In(Family::VoterLeaves)),
    (
        Bend::Rule(Rule::MasterConfirmsTerms),
        In(Family::VoterLeaves),
    ),
    (Bend::Rule(Rule::CanaryUnderTerms), In(Family::VoterLeaves)),
    (
        Bend::Rule(Rule::MasterConfirmsTerms),
        In(Family::DurabilityChanged),
    ),
    (
        Bend::Rule(Rule::CanaryUnderTerms),
        In(Family::DurabilityChanged),
    ),
    (
        Bend::Rule(Rule::SuccessorWaitsForLease),
        In(Family::AsyncIsolated),
    ),
    (
        Bend::Rule(Rule::QuorumOutlastsMaintenance),
        Where::Maintained,
    ),
    (
        Bend::Rule(Rule::MasterLeavesAgentFirst),
        In(Family::Drained),
    ),
    (Bend::Rule(Rule::QuorumOutlastsRestart), In(Family::Drained)),
    (
        Bend::Rule(Rule::ReplacementComesFirst),
        In(Family::Replaced),
    ),
    (Bend::Rule(Rule::PausedIsLeftAlone), In(Family::Paused)),
    (Bend::Rule(Rule::UsedSlotIsKept), Where::Alone),
    (Bend::Rule(Rule::KeptUntilItsTime), Where::Deleted),
    (Bend::Rule(Rule::IntentionComesFirst), Where::Deleted),
    (Bend::Rule(Rule::MasterHandsOverFirst), Where::Changed),
    (Bend::Rule(Rule::PromiseComesFirst), In(Family::LatePromise)),
    (Bend::Rule(Rule::LowerEpochsAreRefused), In(Family::OldGoal)),
    (
        Bend::Rule(Rule::DeposedIsKilled),
        In(Family::DeposedReturns),
    ),
    (Bend::Rule(Rule::MasterWaitsForVoters), Where::Weather),
    (Bend::Rule(Rule::MarkerBeforeOpening), Where::Weather),
    (
        Bend::Rule(Rule::OnlyVotersAcknowledge),
        In(Family::HeardByOthers),
    ),
    (Bend::Rule(Rule::ComparedBeforeFollowing), Where::Weather),
    (
        Bend::Rule(Rule::AppliedBeforeFollowing),
        In(Family::Backlog),
    ),
    (Bend::Rule(Rule::KeptUntilOpened), In(Family::Quarantine)),
    (
        Bend::Rule(Rule::MasterIsNotTerminated),
        In(Family::TaskKilled),
    ),
    (Bend::Rule(Rule::LeaseEnds), In(Family::Isolated)),
    (
        Bend::Rule(Rule::WatchdogGuards),
        In(Family::AsyncUnattended),
    ),
    (
        Bend::Rule(Rule::OnlyClosedYields),
        In(Family::SwitchoverReplaced),
    ),
    (Bend::Rule(Rule::ClosedStaysClosed), In(Family::Switchover)),
    (Bend::Shell(Shell::StartsClosed), Where::Weather),
    (
        Bend::Shell(Shell::ReceiverStopsBeforeReading),
        Where::Weather,
    ),
];

fn setup(place: Where, seed: u64) -> Setup {
    let mut setup = Setup::draw_ordinary(seed);
    match place {
        In(family) => return family.narrow(setup),
        Where::Weather => {}
        Where::Changed => {
            setup.volumes = true;
            setup.changes_every = Some(5_000_000);
            setup.faults_for = setup.faults_for.max(30_000_000);
            setup.deleted_at = None;
        }
        Where::Alone => {
            setup.volumes = true;
            setup.weather = Weather::Storm;
            setup.nodes = 1;
            setup.agents = 2;
            setup.durability = Durability::Async;
            setup.deleted_at = None;
            return setup;
        }
        Where::Maintained => {
            setup.volumes = true;
            setup.weather = Weather::Kills;
            setup.nodes = 2;
            setup.agents = 4;
            setup.durability = Durability::Majority;
            setup.deleted_at = None;
            setup.membership_every = None;
            setup.maintenance_every = Some(4_000_000);
            setup.faults_for = setup.faults_for.max(40_000_000);
            return setup;
        }
        Where::Deleted => {
            setup.volumes = true;
            setup.weather = Weather::Control;
            setup.deleted_at = Some(10_000_000);
            setup.undeleted_after = None;
            setup.keep_deleted = 30_000_000;
            setup.faults_for = setup.faults_for.max(30_000_000);
            return setup;
        }
    }
    setup.durability = Durability::Majority;
    setup.nodes = setup.nodes.max(3);
    setup.agents = setup.agents.max(setup.nodes as usize);
    setup.clients = 3;
    setup.pause = setup.pause.min(200_000);
    setup.calm = setup.calm.min(2_000_000);
    if setup.weather == Weather::Control {
        setup.weather = Weather::Network;
    }
    setup
}

/// Searches for the harm: the first seeds, on each core, whose history shows it though the same history without the
/// bend shows none. Returns the lowest of them and what was wrong.
fn find(bend: Bend, place: Where, within: u64) -> Option<(u64, String)> {
    let (next, found) = (AtomicU64::new(0), AtomicU64::new(within));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let search = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= found.load(Ordering::Relaxed) {
                return None;
            }
            let bent = play_in(seed, setup(place, seed), bend, false);
            let Some(violation) = bent.violation else {
                continue;
            };
            let lawful = play_in(seed, setup(place, seed), Bend::Nothing, false);
            if lawful.violation.is_none() {
                found.fetch_min(seed, Ordering::Relaxed);
                return Some((seed, violation));
            }
        }
    };
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(search)).collect();
        handles
            .into_iter()
            .filter_map(|handle| handle.join().unwrap())
            .min()
    })
}

/// All of them, or those whose names contain `RULE`.
fn all_are_found(within: u64) {
    let wanted = std::env::var("RULE").unwrap_or_default();
    let mut missed = Vec::new();
    for (bend, place) in ALL {
        if !format!("{bend:?}").contains(&wanted) {
            continue;
        }
        match find(*bend, *place, within) {
            Some((seed, violation)) => {
                println!("{bend:?} is missed in history {seed}: {violation}")
            }
            None => missed.push(bend),
        }
    }
    assert!(
        missed.is_empty(),
        "no harm was found within {within} histories: {missed:?}"
    );
}

#[test]
fn broken_rules_are_found_soon() {
    all_are_found(SOON);
}

/// `make sim-rules`: the same, and however long it takes.
#[test]
#[ignore = "run by make sim-rules"]
fn every_broken_rule_is_found() {
    all_are_found(WITHIN);
}

/// `make sim-rules` with `BEND` and `SEED`: one history under a broken rule, with all that happens in it.
#[test]
#[ignore = "run with BEND and SEED"]
fn one_bent_history() {
    let (Ok(name), Ok(seed)) = (std::env::var("BEND"), std::env::var("SEED")) else {
        return;
    };
    let seed = seed.parse().unwrap();
    let chosen = ALL
        .iter()
        .find(|(bend, _)| format!("{bend:?}").contains(&name));
    let (bend, place) = chosen.unwrap();
    let bend = match std::env::var("LAW") {
        Ok(_) => Bend::Nothing,
        Err(_) => *bend,
    };
    let ending = play_in(seed, setup(*place, seed), bend, true);
    println!("{}\n{:?}", ending.trace.join("\n"), ending.violation);
}
