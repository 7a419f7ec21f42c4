//! Every rule is there for a reason, and the simulation knows it: without the rule it finds the harm.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    Bend, Shell,
    run::play_in,
    setup::{Setup, Weather},
    world::{MILLISECOND, SECOND},
};
use crate::{cluster::voters::Durability, rules::Rule};

/// In how many histories the harm must be found at the latest.
const WITHIN: u64 = 5000;

const ALL: &[Bend] = &[
    Bend::Rule(Rule::UnreadDoesNotCount),
    Bend::Rule(Rule::QuorumElects),
    Bend::Rule(Rule::HighestMarkerWins),
    Bend::Rule(Rule::LostDataDoesNotVote),
    Bend::Rule(Rule::RejoinsAfterCanary),
    Bend::Rule(Rule::PromiseComesFirst),
    Bend::Rule(Rule::LowerEpochsAreRefused),
    Bend::Rule(Rule::DeposedIsKilled),
    Bend::Rule(Rule::MasterWaitsForVoters),
    Bend::Rule(Rule::MarkerBeforeOpening),
    Bend::Rule(Rule::OnlyVotersAcknowledge),
    Bend::Rule(Rule::ComparedBeforeFollowing),
    Bend::Rule(Rule::AppliedBeforeFollowing),
    Bend::Rule(Rule::KeptUntilOpened),
    Bend::Rule(Rule::MasterIsNotTerminated),
    Bend::Shell(Shell::StartsClosed),
    Bend::Shell(Shell::ReceiverStopsBeforeReading),
];

/// Those that are found within a few histories, so that each run of the tests can show it.
const SOON: &[Bend] = &[
    Bend::Rule(Rule::MasterWaitsForVoters),
    Bend::Rule(Rule::KeptUntilOpened),
    Bend::Shell(Shell::StartsClosed),
];

/// A majority cluster that is written to, in bad weather.
fn setup(bend: Bend, seed: u64) -> Setup {
    let mut setup = Setup::draw(seed);
    setup.durability = Durability::Majority;
    setup.nodes = setup.nodes.max(3);
    setup.agents = setup.agents.max(setup.nodes as usize);
    setup.clients = 3;
    setup.pause = setup.pause.min(200_000);
    setup.calm = setup.calm.min(2_000_000);
    if setup.weather == Weather::Control {
        setup.weather = Weather::Network;
    }
    match bend {
        // Data must get lost before it matters what is made of that.
        Bend::Rule(
            Rule::LostDataDoesNotVote | Rule::RejoinsAfterCanary | Rule::OnlyVotersAcknowledge,
        ) => {
            setup.weather = Weather::Storm;
            setup.volumes = false;
        }
        // A promise matters to who comes after a crash.
        Bend::Rule(Rule::PromiseComesFirst) => {
            setup.weather = Weather::Storm;
            setup.volumes = true;
        }
        // One voter hears nothing, one is cut off, and the master is killed: all at once.
        Bend::Rule(Rule::UnreadDoesNotCount | Rule::QuorumElects) => {
            setup.weather = Weather::Network;
            setup.nodes = 3;
            setup.calm = SECOND / 2;
            setup.pause = 20 * MILLISECOND;
        }
        Bend::Nothing | Bend::Rule(_) | Bend::Shell(_) => {}
    }
    setup
}

/// Searches for the harm: the first seeds, on each core, whose history shows it though the same history without the
/// bend shows none. Returns the lowest of them and what was wrong.
fn find(bend: Bend) -> Option<(u64, String)> {
    let (next, found) = (AtomicU64::new(0), AtomicU64::new(WITHIN));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let search = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= found.load(Ordering::Relaxed) {
                return None;
            }
            let bent = play_in(seed, setup(bend, seed), bend, false);
            let Some(violation) = bent.violation else {
                continue;
            };
            let lawful = play_in(seed, setup(bend, seed), Bend::Nothing, false);
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

fn all_are_found(bends: &[Bend]) {
    let mut missed = Vec::new();
    for bend in bends {
        match find(*bend) {
            Some((seed, violation)) => {
                println!("{bend:?} is missed in history {seed}: {violation}")
            }
            None => missed.push(bend),
        }
    }
    assert!(
        missed.is_empty(),
        "no harm was found within {WITHIN} histories: {missed:?}"
    );
}

#[test]
fn some_broken_rules_are_found_soon() {
    all_are_found(SOON);
}

/// All of them, or those whose names contain `RULE`.
#[test]
#[ignore = "run by make sim-rules; it takes a while"]
fn every_broken_rule_is_found() {
    let wanted = std::env::var("RULE").unwrap_or_default();
    let is_wanted = |bend: &&Bend| format!("{bend:?}").contains(&wanted);
    let bends: Vec<Bend> = ALL.iter().filter(is_wanted).copied().collect();
    all_are_found(&bends);
}
