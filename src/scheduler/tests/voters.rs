//! Changes of the voters: every order of steps with everything that can happen between them.
//!
//! Goal: any set that acknowledged a write meets any set that elects, whatever is changed, whenever the scheduler or the
//! master is cut off in between. Method: all states that can be reached from clusters of 1 to 7 voters with a bounded number
//! of changes, breadth first. The steps are the real ones ([`transitions`](crate::scheduler::transitions)); the world is a model in which the master and each
//! member read goals as late as they like, terms come into force in two parts, and reports are as old as they like. Checked in
//! every state, as if an election began just then:
//!
//! * each set of members that may hold an acknowledged write meets each set of `|V| - k_floor` voters;
//! * when those have promised the next epoch, the master cannot get a write acknowledged any more.

mod model;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use self::model::{Broken, State};
use crate::cluster::{flavour::Flavour, voters::Durability};

/// Explores everything; the first violation with the way to it, else the number of states.
fn explore(start: State, broken: Broken) -> Result<usize, String> {
    let mut known = HashSet::new();
    let mut ways: BTreeMap<usize, (usize, String)> = BTreeMap::new();
    let mut queue = VecDeque::from([(0, start)]);
    let mut count = 0;
    while let Some((id, state)) = queue.pop_front() {
        if let Some(violation) = state.violation() {
            let mut way = vec![violation];
            let mut at = id;
            while let Some((from, what)) = ways.get(&at) {
                way.push(what.clone());
                at = *from;
            }
            way.reverse();
            return Err(format!("{}: {:?}", way.join("; "), state));
        }
        for (what, next) in state.next(broken) {
            if known.insert(next.key()) {
                count += 1;
                ways.insert(count, (id, what));
                queue.push_back((count, next));
            }
        }
    }
    Ok(known.len())
}

/// Voters, `k` and members of the clusters to begin with.
fn configurations(flavour: Flavour) -> Vec<(u32, u32, u32)> {
    let mut all = Vec::new();
    for n in 1..=7u32 {
        for durability in [Durability::Majority, Durability::Async] {
            if n as usize <= durability.most_voters(flavour) {
                let k = durability.acknowledgements(n as usize, flavour);
                all.push((n, k, (n + 1).min(7)));
            }
        }
    }
    all
}

#[test]
fn every_acknowledging_set_meets_every_electing_set_in_every_state() {
    let mut states = 0;
    let both = [Flavour::Mysql, Flavour::Mariadb].map(configurations);
    let all: BTreeSet<_> = both.into_iter().flatten().collect();
    for (n, k, members) in all {
        let changes = if n <= 3 { 2 } else { 1 };
        let explored = explore(State::start(n, k, members, changes), Broken::Nothing);
        states += explored.unwrap_or_else(|way| panic!("{n} voters, k = {k}: {way}"));
    }
    assert!(states > 10_000, "{states}");
}

/// Goal: the test above would find a mistake. Method: make one.
#[test]
fn every_broken_order_is_found() {
    for broken in [
        Broken::NoCanary,
        Broken::NoConfirmation,
        Broken::LetInAtOnce,
        Broken::GrowsAfterwards,
    ] {
        let found = [(2, 1, 1), (3, 1, 1), (3, 1, 2)]
            .into_iter()
            .any(|(n, k, changes)| explore(State::start(n, k, n + 1, changes), broken).is_err());
        assert!(found, "{broken:?} is not found");
    }
}
