//! The world in which changes of the voters are tried: a record, a master that reads goals as late as it likes, members whose
//! reports are as old as they like.

use uuid::Uuid;

use super::super::world::spec;
use crate::{
    cluster::{
        control::{Authentication, ClusterUser},
        id::{DataId, MemberId},
        record::ClusterRecord,
        voters::{ChangeKind, Durability, Terms, Voters},
    },
    scheduler::transitions,
    time::Timestamp,
};

/// A set of members, one bit each.
type Set = u8;

/// A set of sets of members: which sets may be all that hold some acknowledged write.
type Family = u128;

/// How the rules can be broken, to see that the test finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    Nothing,
    /// A change is stored as soon as the master has confirmed it.
    NoCanary,
    /// A change is stored without asking the master.
    NoConfirmation,
    /// A member that left is let in before it knows that it did.
    LetInAtOnce,
    /// What makes elections ask for more is stored after the world has changed.
    GrowsAfterwards,
}

/// What the master has read: terms and a canary to write.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Goal {
    terms: (u64, u32, Set),
    canary: u64,
}

/// The world beside the record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    master: u8,
    /// Whether the marker of the epoch was acknowledged.
    marked: bool,
    read: Goal,
    /// How many acknowledgements it really waits for, and whom it really bars.
    k: u32,
    barred: Set,
    /// The number of the terms in force; 0 while they are being changed.
    in_force: u64,
    /// The canary that waits for its acknowledgements, and the last acknowledged one.
    waiting: Option<u64>,
    acknowledged: u64,
    /// What the master last reported of the two.
    reported: (u64, u64),
    /// The members that acknowledge what they receive.
    acknowledging: Set,
    /// The version of the voters that each member has read, and what it has reported.
    seen: [u64; 7],
    member_reports: [(bool, u64); 7],
    /// What may hold acknowledged writes: of those before the canary that waits, and of the later ones.
    older: Family,
    newer: Family,
    changes_left: u8,
    epochs_left: u8,
}

/// See [`State::key`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    voters: Set,
    k_floor: u32,
    kind: u32,
    told: (u32, Set),
    read: (u32, Set),
    real: (u32, Set, Set),
    place: (u8, bool, u8, u8),
    numbers: [u8; 4],
    canaries: [u8; 6],
    members: (Set, Set, Set),
    held: (Family, Family),
}

/// The record and the world.
#[derive(Debug, Clone)]
pub struct State {
    record: ClusterRecord,
    world: World,
}

fn subsets(of: Set, size: u32) -> impl Iterator<Item = Set> {
    (0..=of).filter(move |set| set & !of == 0 && set.count_ones() == size)
}

fn sets(family: Family) -> impl Iterator<Item = Set> {
    let mut left = family;
    std::iter::from_fn(move || {
        let set = (left != 0).then(|| left.trailing_zeros() as Set)?;
        left &= left - 1;
        Some(set)
    })
}

/// The family with `more` added to each of its sets.
fn with(family: Family, more: Set) -> Family {
    sets(family).fold(0, |all, set| all | 1 << (set | more))
}

/// Without the sets that contain another one: whatever meets the smaller one meets the greater one.
fn least(family: Family) -> Family {
    let needed = |set: Set| sets(family).all(|other| other == set || other & !set != 0);
    sets(family)
        .filter(|set| needed(*set))
        .fold(0, |all, set| all | 1 << set)
}

/// The place of each number in their order; 0 stays 0.
fn ranks<const N: usize>(numbers: [u64; N]) -> [u8; N] {
    let mut sorted = numbers;
    sorted.sort_unstable();
    numbers.map(|number| match number {
        0 => 0,
        _ => {
            let mut below: Vec<u64> = sorted
                .into_iter()
                .filter(|n| *n < number && *n > 0)
                .collect();
            below.dedup();
            1 + below.len() as u8
        }
    })
}

fn bits<'a>(members: impl Iterator<Item = &'a MemberId>) -> Set {
    members.fold(0, |set, member| set | 1 << member.0)
}

fn data(member: u32) -> DataId {
    DataId(Uuid::from_u128(u128::from(member) + 1))
}

impl State {
    /// `n` voters out of `members`, with the master 0 open.
    pub fn start(n: u32, k: u32, members: u32, changes: u8) -> Self {
        let user = ClusterUser {
            name: "u".into(),
            authentication: Authentication {
                mysql: String::new(),
                mariadb: String::new(),
            },
        };
        let spec = spec(members, Durability::Majority);
        let mut record = ClusterRecord::new(
            spec,
            Uuid::nil(),
            String::new(),
            user,
            Timestamp::from_millis(0),
        );
        record.voters = Voters {
            version: 1,
            members: (0..n).map(|m| (MemberId(m), Some(data(m)))).collect(),
            k_floor: k,
        };
        transitions::begin_epoch(&mut record);
        let all = bits(record.voters.members.keys());
        let world = World {
            master: 0,
            marked: true,
            read: Goal {
                terms: (0, 0, 0),
                canary: 0,
            },
            k,
            barred: 0,
            in_force: record.terms.number,
            waiting: None,
            acknowledged: 0,
            reported: (0, 0),
            acknowledging: all,
            seen: [1; 7],
            member_reports: [(true, 1); 7],
            older: 0,
            newer: 0,
            changes_left: changes,
            epochs_left: 1,
        };
        let mut state = Self { record, world };
        state.world.read = state.goal();
        state.write();
        state
    }

    fn voters(&self) -> Set {
        bits(self.record.voters.members.keys())
    }

    fn goal(&self) -> Goal {
        let Terms {
            number,
            acknowledgements,
            barred,
            accounts: _,
        } = &self.record.terms;
        Goal {
            terms: (*number, *acknowledgements, bits(barred.iter())),
            canary: self.record.canary,
        }
    }

    fn in_force(&self, number: u64) -> Terms {
        // Terms of one number are the same; a number that is not the record's confirms nothing.
        Terms {
            number,
            ..self.record.terms.clone()
        }
    }

    /// Those whose acknowledgements the master gets.
    fn able(&self) -> Set {
        self.world.acknowledging & !self.world.barred & !(1 << self.world.master)
    }

    /// Notes whatever may be acknowledged in this state.
    fn write(&mut self) {
        let master = 1 << self.world.master;
        // Before the marker nobody can write but the master itself.
        if self.world.marked {
            for acknowledging in subsets(self.able(), self.world.k) {
                self.world.newer |= 1 << (acknowledging | master);
            }
        }
        self.world.newer = least(self.world.newer);
        self.world.older = least(self.world.older);
    }

    /// What an election in this state would do wrong, if anything.
    pub fn violation(&self) -> Option<String> {
        let voters = self.voters();
        let quorum = self.record.voters.quorum() as u32;
        let master = 1 << self.world.master;
        for electing in subsets(voters, quorum) {
            for holders in sets(self.world.older | self.world.newer) {
                if holders & electing == 0 {
                    return Some(format!(
                        "a write is held by {holders:07b}, and {electing:07b} elect"
                    ));
                }
            }
            let left = (self.able() & !electing).count_ones();
            if electing & master == 0 && left >= self.world.k {
                return Some(format!(
                    "{electing:07b} have elected, and the old master still gets {left} acknowledgements of {}",
                    self.world.k
                ));
            }
        }
        None
    }

    /// What tells states apart. Numbers matter only by their order, and versions only by being the newest.
    pub fn key(&self) -> Key {
        let world = &self.world;
        let goal = self.goal();
        let (kind, asked) = match &self.record.change {
            None => (0, 0),
            Some(change) => {
                let kind = match change.kind {
                    ChangeKind::Remove { member } => 1 + member.0,
                    ChangeKind::Raise { k_floor } => 16 + k_floor,
                };
                (kind, change.canary.unwrap_or(0))
            }
        };
        let version = self.record.voters.version;
        let newest = |seen: &[u64; 7]| {
            let bits = seen.iter().enumerate();
            bits.fold(0, |set: Set, (m, seen)| {
                set | Set::from(*seen == version) << m
            })
        };
        let reports = world.member_reports;
        let acknowledges = (0..7).fold(0, |set, m| set | Set::from(reports[m].0) << m);
        let numbers = [
            goal.terms.0,
            world.read.terms.0,
            world.in_force,
            world.reported.0,
        ];
        let canaries = [
            goal.canary,
            asked,
            world.read.canary,
            world.waiting.unwrap_or(0),
            world.acknowledged,
            world.reported.1,
        ];
        Key {
            voters: self.voters(),
            k_floor: self.record.voters.k_floor,
            kind,
            told: (goal.terms.1, goal.terms.2),
            read: (world.read.terms.1, world.read.terms.2),
            real: (world.k, world.barred, world.acknowledging),
            place: (
                world.master,
                world.marked,
                world.changes_left,
                world.epochs_left,
            ),
            numbers: ranks(numbers),
            canaries: ranks(canaries),
            members: (
                newest(&world.seen),
                newest(&reports.map(|r| r.1)),
                acknowledges,
            ),
            held: (world.older, world.newer),
        }
    }

    /// Every state that is one step away.
    pub fn next(&self, broken: Broken) -> Vec<(String, Self)> {
        let mut all = Vec::new();
        self.scheduler_steps(broken, &mut all);
        self.master_steps(&mut all);
        self.member_steps(&mut all);
        self.elections(&mut all);
        for (_, state) in &mut all {
            state.write();
        }
        all
    }

    fn scheduler_steps(&self, broken: Broken, all: &mut Vec<(String, Self)>) {
        let mut step = |what: String, act: &dyn Fn(&mut Self)| {
            let mut state = self.clone();
            act(&mut state);
            all.push((what, state));
        };
        let (number, canary) = self.world.reported;
        step("confirm and complete".into(), &|state| {
            let in_force = state.in_force(number);
            let record = &mut state.record;
            match broken {
                Broken::NoConfirmation if record.change.is_some() => {
                    let terms = record.terms.clone();
                    transitions::confirm(record, &terms);
                    transitions::complete(record, &terms, u64::MAX);
                }
                Broken::NoCanary => {
                    transitions::confirm(record, &in_force);
                    transitions::complete(record, &in_force, u64::MAX);
                }
                _ => {
                    transitions::complete(record, &in_force, canary);
                    transitions::confirm(record, &in_force);
                }
            }
        });
        if self.record.change.is_some() {
            step("give up".into(), &|state| {
                transitions::give_up(&mut state.record)
            });
        }
        for member in &self.record.terms.barred {
            let (acknowledges, seen) = self.world.member_reports[member.0 as usize];
            step(format!("let in {member}"), &|state| match broken {
                Broken::LetInAtOnce => {
                    let version = state.record.voters.version;
                    transitions::let_in(&mut state.record, *member, false, version);
                }
                _ => transitions::let_in(&mut state.record, *member, acknowledges, seen),
            });
        }
        if self.world.changes_left == 0 || !self.world.marked {
            return;
        }
        let voters = &self.record.voters;
        let members = self.record.members.keys().copied();
        let out: Vec<MemberId> = members
            .filter(|m| !voters.members.contains_key(m) && !self.record.terms.barred.contains(m))
            .collect();
        // Members that differ in nothing need not be tried one by one: the first and the last stand for all.
        if let Some(member) = out.first().copied() {
            step(format!("admit {member}"), &|state| {
                state.world.changes_left -= 1;
                transitions::admit(&mut state.record, member, data(member.0));
                if broken == Broken::GrowsAfterwards {
                    state.world.acknowledging |= 1 << member.0;
                    state.record.voters.members.remove(&member);
                }
            });
        }
        if voters.k_floor > 0 {
            step("lower".into(), &|state| {
                state.world.changes_left -= 1;
                let k = state.record.voters.k_floor - 1;
                transitions::lower(&mut state.record, k);
                if broken == Broken::GrowsAfterwards {
                    state.record.voters.k_floor = k + 1;
                }
            });
        }
        if self.record.change.is_some() {
            return;
        }
        let last = voters
            .members
            .keys()
            .rev()
            .find(|m| m.0 != u32::from(self.world.master));
        if let Some(member) = last.copied() {
            step(format!("remove {member}"), &|state| {
                state.world.changes_left -= 1;
                transitions::begin(&mut state.record, ChangeKind::Remove { member });
            });
        }
        if (voters.k_floor as usize + 1) < voters.members.len() {
            step("raise".into(), &|state| {
                state.world.changes_left -= 1;
                let k_floor = state.record.voters.k_floor + 1;
                transitions::begin(&mut state.record, ChangeKind::Raise { k_floor });
            });
        }
    }

    fn master_steps(&self, all: &mut Vec<(String, Self)>) {
        let mut step = |what: String, act: &dyn Fn(&mut World)| {
            let mut state = self.clone();
            act(&mut state.world);
            all.push((what, state));
        };
        let goal = self.goal();
        let world = &self.world;
        if world.read != goal {
            step("the master reads the goal".into(), &|world| {
                world.read = goal.clone();
            });
        }
        let (number, k, barred) = world.read.terms;
        if world.in_force != number && (world.in_force != 0 || world.k != k) {
            step("the master sets k".into(), &|world| {
                world.in_force = 0;
                world.k = k;
            });
        }
        if world.in_force == 0 && world.k == k {
            step("the master bars".into(), &|world| {
                world.barred = barred;
                world.in_force = number;
            });
        }
        let canary = world.read.canary;
        let due = canary > world.acknowledged && world.marked;
        if world.waiting.is_none() && due && world.in_force == number {
            step(format!("canary {canary} is begun"), &|world| {
                world.waiting = Some(canary);
                world.older |= world.newer;
                world.newer = 0;
            });
        }
        if let Some(canary) = world.waiting {
            for acknowledging in subsets(self.able(), world.k) {
                step(
                    format!("canary {canary} is acknowledged by {acknowledging:07b}"),
                    &|world| {
                        world.older = with(world.older, acknowledging);
                        world.waiting = None;
                        world.acknowledged = canary;
                        world.newer |= world.older;
                        world.older = 0;
                    },
                );
            }
        }
        if !world.marked && world.in_force != 0 {
            for acknowledging in subsets(self.able(), world.k) {
                step(
                    format!("the marker is acknowledged by {acknowledging:07b}"),
                    &|world| {
                        world.newer = with(world.newer, acknowledging);
                        world.marked = true;
                    },
                );
            }
        }
        let reported = (world.in_force, world.acknowledged);
        if world.reported != reported && world.marked {
            step("the master reports".into(), &|world| {
                world.reported = reported
            });
        }
    }

    fn member_steps(&self, all: &mut Vec<(String, Self)>) {
        let acknowledge = self.record.terms.acknowledgements > 0;
        let version = self.record.voters.version;
        for member in self.record.members.keys() {
            let (index, bit) = (member.0 as usize, 1 << member.0);
            let votes = self.voters() & bit != 0;
            let world = &self.world;
            if member.0 as u8 == world.master {
                continue;
            }
            // Members that vote and acknowledge all the time need not read: they are as bad as they can be.
            let dull = votes && acknowledge && world.acknowledging & bit != 0;
            if !dull && world.seen[index] != version {
                let mut state = self.clone();
                state.world.seen[index] = version;
                state.world.acknowledging &= !bit;
                if votes && acknowledge {
                    state.world.acknowledging |= bit;
                }
                all.push((format!("{member} reads the goal"), state));
            }
            let report = (world.acknowledging & bit != 0, world.seen[index]);
            let barred = self.record.terms.barred.contains(member);
            if barred && world.member_reports[index] != report {
                let mut state = self.clone();
                state.world.member_reports[index] = report;
                all.push((format!("{member} reports"), state));
            }
        }
    }

    /// The next epoch, elected by any quorum, led by any of it: all of them hold together what was acknowledged.
    fn elections(&self, all: &mut Vec<(String, Self)>) {
        if self.world.epochs_left == 0 {
            return;
        }
        let others = self.voters() & !(1 << self.world.master);
        let quorum = self.record.voters.quorum() as u32;
        if others.count_ones() < quorum {
            return;
        }
        // Which quorum it is does not matter once all of them meet all holders; any of its members may win.
        let winners = [others.trailing_zeros(), 7 - others.leading_zeros()];
        for winner in winners {
            let mut state = self.clone();
            transitions::begin_epoch(&mut state.record);
            transitions::begin_epoch(&mut state.record);
            let goal = state.goal();
            let voters = state.voters();
            let acknowledge = state.record.terms.acknowledgements > 0;
            let version = state.record.voters.version;
            let world = &mut state.world;
            world.epochs_left -= 1;
            world.master = winner as u8;
            world.marked = false;
            // It applies all of the history, and prepares with the terms of the goal.
            world.newer = with(world.older | world.newer, 1 << winner);
            world.older = 0;
            (world.k, world.barred) = (goal.terms.1, goal.terms.2);
            world.in_force = goal.terms.0;
            world.read = goal;
            world.waiting = None;
            world.reported = (0, 0);
            // Whoever points at the new master has read a goal of the epoch.
            world.acknowledging = if acknowledge { voters } else { 0 };
            world.seen = [version; 7];
            all.push((format!("epoch 2 with master {winner}"), state));
        }
    }
}
