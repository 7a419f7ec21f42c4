//! Who may acknowledge a commit, how many acknowledgements a master waits for, and how many reports
//! an election therefore needs.
//!
//! The rule behind every number here: any set of members that can acknowledge a write meets any
//! set that can elect a master. With `|V|` voters of which the master waits for `k`, a write is on
//! the master and `k` others; `|V| - k` reports cannot all come from members without it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    flavour::Flavour,
    id::{DataId, MemberId},
};

/// What a cluster promises for an acknowledged write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// A write is acknowledged when so many voters have it that no failover can lose it.
    Majority,
    /// A write is acknowledged by the master alone; a failover can lose the last ones.
    Async,
}

impl Durability {
    /// `majority` from three nodes on, `async` below: two nodes of which both must answer would
    /// stop for every fault of either.
    pub fn default_for(num_nodes: u32) -> Self {
        if num_nodes >= 3 {
            Self::Majority
        } else {
            Self::Async
        }
    }

    /// How many acknowledgements a master waits for (`k`) when it has `voters` voters, itself included.
    ///
    /// Half of them, rounded down: then any `k + 1` that hold a write meet any `voters - k` that elect, and both
    /// numbers are as small as they can be together. MariaDB waits for one at most (see [`Voters::limit`]).
    pub fn acknowledgements(self, voters: usize, flavour: Flavour) -> u32 {
        let half = match self {
            Self::Majority => u32::try_from(voters / 2).unwrap_or(u32::MAX),
            Self::Async => 0,
        };
        match flavour {
            Flavour::Mysql => half,
            Flavour::Mariadb => half.min(1),
        }
    }

    /// The most voters that a cluster can make use of.
    pub fn most_voters(self, flavour: Flavour) -> usize {
        match self {
            Self::Majority => Voters::limit(flavour),
            Self::Async => usize::MAX,
        }
    }

    /// The word in the API and in stored data.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Majority => "majority",
            Self::Async => "async",
        }
    }
}

impl std::fmt::Display for Durability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The voters of a cluster and the acknowledgements its master waits for, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Voters {
    /// Grows with every change.
    pub version: u64,
    /// Each voter with the data directory whose acknowledgements count. `None`: it has not had any
    /// data yet and so has acknowledged nothing; the first that it reports is taken over.
    pub members: BTreeMap<MemberId, Option<DataId>>,
    /// The least number of acknowledgements (`k`) that a master of this cluster waits for.
    pub k_floor: u32,
}

impl Voters {
    /// The most voters that a flavour can have. MariaDB's semi-synchronous replication waits for
    /// one acknowledgement, whatever the number of replicas (MariaDB manual, "Semisynchronous
    /// Replication"), and `floor(4 / 2)` is already two.
    pub const fn limit(flavour: Flavour) -> usize {
        match flavour {
            Flavour::Mysql => usize::MAX,
            Flavour::Mariadb => 3,
        }
    }

    /// The voters of a new cluster: `first` and then the lowest numbers, up to the flavour's limit.
    pub fn at_birth(
        first: MemberId,
        members: impl IntoIterator<Item = MemberId>,
        durability: Durability,
        flavour: Flavour,
    ) -> Self {
        let rest: BTreeSet<MemberId> = members.into_iter().filter(|m| *m != first).collect();
        let limit = durability.most_voters(flavour);
        let members: BTreeMap<_, _> = std::iter::once(first)
            .chain(rest)
            .take(limit)
            .map(|m| (m, None))
            .collect();
        let k_floor = durability.acknowledgements(members.len(), flavour);
        Self {
            version: 1,
            members,
            k_floor,
        }
    }

    /// How many voters must report before a master can be elected: `q = |V| - k_floor`.
    pub fn quorum(&self) -> usize {
        self.members.len() - (self.k_floor as usize).min(self.members.len())
    }

    /// Whether `member` is a voter and `data` is what its acknowledgements and reports count for.
    pub fn counts(&self, member: MemberId, data: DataId) -> bool {
        self.members
            .get(&member)
            .is_some_and(|known| known.is_none_or(|known| known == data))
    }

    /// Whether `member` may acknowledge commits from `data`. Unlike a report, an acknowledgement
    /// needs the data directory to be stored first: everyone who may acknowledge is in `V`.
    pub fn may_acknowledge(&self, member: MemberId, data: DataId) -> bool {
        self.members.get(&member) == Some(&Some(data))
    }
}

/// What the master of an epoch does about acknowledgements: how many it really waits for, and whom it keeps from
/// acknowledging.
///
/// It is told to the master in its goal, and the master reports what is in force. Both name the number, which tells
/// terms apart that look alike: a report of earlier ones confirms nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Terms {
    /// Grows with every change, over all epochs.
    pub number: u64,
    /// How many acknowledgements each commit waits for; never below [`Voters::k_floor`].
    pub acknowledgements: u32,
    /// The members that cannot receive from the master: their replication accounts are locked there, and their
    /// connections ended.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub barred: BTreeSet<MemberId>,
    /// For how many members there must be replication accounts, where that is more than a data directory is born with.
    #[serde(default, skip_serializing_if = "crate::cluster::is_default")]
    pub accounts: u32,
}

/// A change of the voters that is under way: one that is stored after the world has changed.
///
/// The master is told by its [`Terms`]. When it has confirmed them, a canary is asked for; when that was
/// acknowledged, everything that was acknowledged under the earlier terms is held by enough of the voters that
/// remain, and the change is stored. Until then it can be given up, and ends with its epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterChange {
    /// What is to become different.
    pub kind: ChangeKind,
    /// The canary that was asked for after the master had confirmed its terms.
    pub canary: Option<u64>,
}

/// What a change makes different.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum ChangeKind {
    /// This member leaves the voters. It is barred meanwhile.
    Remove {
        /// The member.
        member: MemberId,
    },
    /// [`Voters::k_floor`] grows to this.
    Raise {
        /// The new one.
        k_floor: u32,
    },
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn voters(n: u32, durability: Durability, flavour: Flavour) -> Voters {
        Voters::at_birth(MemberId(0), (0..n).map(MemberId), durability, flavour)
    }

    /// Goal: any acknowledging set meets any electing set. Method: all subsets for 1 to 7 voters.
    #[test]
    fn acknowledging_and_electing_sets_meet() {
        for n in 1..=7u32 {
            let voters = voters(n, Durability::Majority, Flavour::Mysql);
            let (k, q) = (voters.k_floor, voters.quorum() as u32);
            for holders in 0u32..1 << n {
                for reporting in 0u32..1 << n {
                    let acknowledged = holders.count_ones() == k + 1;
                    let elects = reporting.count_ones() == q;
                    if acknowledged && elects {
                        assert_ne!(holders & reporting, 0, "n={n} {holders:b} {reporting:b}");
                    }
                }
            }
        }
    }

    #[test]
    fn mariadb_has_three_voters_at_most() {
        let five = voters(5, Durability::Majority, Flavour::Mariadb);
        assert_eq!((five.members.len(), five.k_floor, five.quorum()), (3, 1, 2));
        let first = Voters::at_birth(
            MemberId(4),
            (0..5).map(MemberId),
            Durability::Majority,
            Flavour::Mariadb,
        );
        assert!(
            first.members.contains_key(&MemberId(4)),
            "the first master votes"
        );
    }

    #[test]
    fn async_clusters_wait_for_nobody_and_ask_everybody() {
        let two = voters(2, Durability::Async, Flavour::Mariadb);
        assert_eq!((two.k_floor, two.quorum()), (0, 2));
    }

    #[test]
    fn only_stored_data_may_acknowledge() {
        let (old, new) = (DataId(Uuid::from_u128(1)), DataId(Uuid::from_u128(2)));
        let mut voters = voters(3, Durability::Majority, Flavour::Mysql);
        assert!(voters.counts(MemberId(1), old));
        assert!(!voters.may_acknowledge(MemberId(1), old));
        voters.members.insert(MemberId(1), Some(old));
        assert!(voters.may_acknowledge(MemberId(1), old));
        assert!(
            !voters.counts(MemberId(1), new),
            "a wiped voter does not count"
        );
        assert!(!voters.counts(MemberId(9), old), "nor does a stranger");
    }
}
