//! Positions in a cluster's history, and how they are compared.
//!
//! A [`Position`] says which transactions a server has. An election asks [`Position::more_complete`] of
//! two of them; a member that is to follow a new master asks [`extras`] whether it has anything that is
//! not part of the cluster's history.
//!
//! Histories are told apart by **markers**: the first transaction of each master's epoch. On MySQL it is
//! an empty transaction with the GTID `<cluster uuid>:<epoch>`; on MariaDB it is a row written in the
//! domain [`MARKER_DOMAIN`] with the sequence number `<epoch>`. The position with the higher marker wins
//! an election whatever else the other one holds, as the higher term does in Raft.
//!
//! A marker is never an [extra](extras). Who holds one that the history lacks was elected, or followed a master that
//! was, and that master died before its marker was acknowledged. `docs/design/failover.md` says why that is safe.

mod mariadb;
mod mysql;

use std::{cmp::Ordering, fmt};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{flavour::Flavour, id::Epoch};

pub use mariadb::{DATA_DOMAIN, GtidList, MARKER_DOMAIN};
pub use mysql::GtidSet;

/// Which transactions a server has, in the terms of its flavour.
///
/// In JSON it is one object with the flavour as key: `{"mysql": "uuid:1-5"}`, `{"mariadb": "0-1-100"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Position {
    /// Every transaction by its source and number.
    Mysql(#[serde(with = "as_text")] GtidSet),
    /// The last transaction of each domain.
    Mariadb(#[serde(with = "as_text")] GtidList),
}

/// Why a text is no position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not part of a valid {kind}")]
pub struct ParseGtidError {
    kind: &'static str,
    text: String,
}

impl ParseGtidError {
    /// The text may be long; what is kept of it is not.
    fn new(kind: &'static str, text: &str) -> Self {
        Self {
            kind,
            text: text.chars().take(100).collect(),
        }
    }
}

/// Positions of two flavours were put together; one cluster has one flavour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a MySQL position and a MariaDB position cannot be put together")]
pub struct FlavoursDiffer;

impl Position {
    /// The position of a server without any transaction.
    pub fn empty(flavour: Flavour) -> Self {
        match flavour {
            Flavour::Mysql => Self::Mysql(GtidSet::new()),
            Flavour::Mariadb => Self::Mariadb(GtidList::new()),
        }
    }

    /// Reads what a server of this flavour prints.
    ///
    /// # Errors
    /// When the text is not in the flavour's form.
    pub fn parse(flavour: Flavour, text: &str) -> Result<Self, ParseGtidError> {
        Ok(match flavour {
            Flavour::Mysql => Self::Mysql(text.parse()?),
            Flavour::Mariadb => Self::Mariadb(text.parse()?),
        })
    }

    /// How many transactions are in it, as far as numbers tell: on MariaDB the last number of the data's domain.
    pub fn length(&self) -> u64 {
        match self {
            Self::Mysql(set) => set.len(),
            Self::Mariadb(list) => list.sequence(DATA_DOMAIN),
        }
    }

    /// The flavour whose position it is.
    pub fn flavour(&self) -> Flavour {
        match self {
            Self::Mysql(_) => Flavour::Mysql,
            Self::Mariadb(_) => Flavour::Mariadb,
        }
    }

    /// Whether there is no transaction in it.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Mysql(set) => set.is_empty(),
            Self::Mariadb(list) => list.is_empty(),
        }
    }

    /// Whether it has everything that `other` has. Exact on MySQL. On MariaDB it compares numbers within
    /// domains, which is right only if both lie in one history: see [`extras`]. Positions of different
    /// flavours do not contain each other.
    pub fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Mysql(a), Self::Mysql(b)) => a.contains(b),
            (Self::Mariadb(a), Self::Mariadb(b)) => a.contains(b),
            (Self::Mysql(_), Self::Mariadb(_)) | (Self::Mariadb(_), Self::Mysql(_)) => false,
        }
    }

    /// What either of the two has.
    ///
    /// # Errors
    /// [`FlavoursDiffer`].
    pub fn union(&self, other: &Self) -> Result<Self, FlavoursDiffer> {
        match (self, other) {
            (Self::Mysql(a), Self::Mysql(b)) => Ok(Self::Mysql(a.union(b))),
            (Self::Mariadb(a), Self::Mariadb(b)) => Ok(Self::Mariadb(a.union(b))),
            (Self::Mysql(_), Self::Mariadb(_)) | (Self::Mariadb(_), Self::Mysql(_)) => {
                Err(FlavoursDiffer)
            }
        }
    }

    /// What both have. On MariaDB that is right only if both lie in one history. Positions of different flavours have nothing in common.
    pub fn intersection(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Mysql(a), Self::Mysql(b)) => Self::Mysql(a.intersection(b)),
            (Self::Mariadb(a), Self::Mariadb(b)) => Self::Mariadb(a.intersection(b)),
            (Self::Mysql(_), Self::Mariadb(_)) | (Self::Mariadb(_), Self::Mysql(_)) => {
                Self::empty(self.flavour())
            }
        }
    }

    /// What this position has and `other` lacks. Of another flavour, `other` lacks everything.
    pub fn minus(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Mysql(a), Self::Mysql(b)) => Self::Mysql(a.minus(b)),
            (Self::Mariadb(a), Self::Mariadb(b)) => Self::Mariadb(a.minus(b)),
            (Self::Mysql(_), Self::Mariadb(_)) | (Self::Mariadb(_), Self::Mysql(_)) => self.clone(),
        }
    }

    /// The marker of an epoch as a position. `server` is the `server_id` of the master that writes it; it
    /// stands in MariaDB's GTIDs only.
    pub fn marker(flavour: Flavour, cluster: Uuid, epoch: Epoch, server: u32) -> Self {
        match flavour {
            Flavour::Mysql => Self::Mysql(GtidSet::one(cluster, epoch.0)),
            Flavour::Mariadb => Self::Mariadb(GtidList::one(MARKER_DOMAIN, server, epoch.0)),
        }
    }

    /// The last epoch whose marker is in it; epoch 0 if there is none.
    pub fn highest_marker(&self, cluster: Uuid) -> Epoch {
        Epoch(match self {
            Self::Mysql(set) => set.highest_of(cluster),
            Self::Mariadb(list) => list.sequence(MARKER_DOMAIN),
        })
    }

    /// The same without markers.
    pub fn without_markers(&self, cluster: Uuid) -> Self {
        match self {
            Self::Mysql(set) => Self::Mysql(set.without(cluster)),
            Self::Mariadb(list) => Self::Mariadb(list.without(MARKER_DOMAIN)),
        }
    }

    /// Which of two voters' positions an election prefers: the higher marker; with the same marker, on
    /// MySQL the one that contains the other but for markers, on MariaDB the higher number in the domain of the data.
    ///
    /// `None`: neither contains the other (MySQL), or the flavours differ. With the same marker both hold
    /// a piece of the same master's history, one of which is the longer, *plus* whatever was written to
    /// them behind Cotton's back, or by a master that nobody acknowledged anything to; so `None` means that at least one
    /// of the two has such transactions.
    pub fn more_complete(&self, other: &Self, cluster: Uuid) -> Option<Ordering> {
        let by_marker = self
            .highest_marker(cluster)
            .cmp(&other.highest_marker(cluster));
        match (self, other) {
            (Self::Mysql(_), Self::Mysql(_)) | (Self::Mariadb(_), Self::Mariadb(_))
                if by_marker.is_ne() =>
            {
                Some(by_marker)
            }
            (Self::Mysql(a), Self::Mysql(b)) => {
                let (a, b) = (a.without(cluster), b.without(cluster));
                match (a.contains(&b), b.contains(&a)) {
                    (true, true) => Some(Ordering::Equal),
                    (true, false) => Some(Ordering::Greater),
                    (false, true) => Some(Ordering::Less),
                    (false, false) => None,
                }
            }
            (Self::Mariadb(a), Self::Mariadb(b)) => Some(a.compare_in(b, DATA_DOMAIN)),
            (Self::Mysql(_), Self::Mariadb(_)) | (Self::Mariadb(_), Self::Mysql(_)) => None,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mysql(set) => set.fmt(f),
            Self::Mariadb(list) => list.fmt(f),
        }
    }
}

/// What a member holds that is not part of the cluster's history, markers aside; `None` if nothing of that kind can be
/// seen. Only the difference to the *elected* history counts: what a member lacks it will receive.
///
/// `lineage` names for each of the last epochs, in ascending order, what its winner held when it was elected. If it does
/// not go back to the marker that the member holds, nothing says which part of that is in the history, and *all* of it
/// counts as extra.
///
/// All that a member holds was written in epochs up to its highest marker `m`. If `m` is the newest epoch,
/// or later, nothing can be said. On MySQL, where a GTID names one transaction only, `held` must otherwise
/// be contained in the newest history. On MariaDB numbers alone lie: 0-1-100 is no part of a history in
/// which server 1 got as far as 0-1-90 and server 2 went on to 0-2-150, though 150 is more than 100. There two positions
/// are compared only if they have the same highest marker, because both then lie in that master's history (`fork`).
pub fn extras(held: &Position, lineage: &[(Epoch, Position)], cluster: Uuid) -> Option<Position> {
    beyond(held, lineage, cluster).map(|(extras, _)| extras)
}

/// The same with the history that it was compared with.
pub fn beyond(
    held: &Position,
    lineage: &[(Epoch, Position)],
    cluster: Uuid,
) -> Option<(Position, Position)> {
    let (newest, newest_history) = lineage.last()?;
    if *newest <= held.highest_marker(cluster) {
        return None;
    }
    let compared_with = match held.flavour() {
        Flavour::Mysql => [None, Some(newest_history)],
        Flavour::Mariadb => match fork(held, newest_history, lineage, cluster) {
            Some(Fork { members, history }) => [members, Some(history)],
            // The lineage does not go back far enough, so nothing says which part of it is in the history.
            None => {
                let nothing = Position::empty(held.flavour());
                return (!held.is_empty()).then(|| (held.clone(), nothing));
            }
        },
    };
    compared_with.into_iter().flatten().find_map(|history| {
        let more = held.minus(history).without_markers(cluster);
        (!more.is_empty()).then(|| (more, history.clone()))
    })
}

/// Where a member's past and the cluster's history meet.
struct Fork<'a> {
    /// What the winner of the first epoch after it held, whose marker the member has and the history lacks; `None`
    /// if the member has no such marker. Nobody opened in such an epoch, so the member has no more than that.
    members: Option<&'a Position>,
    /// What the winner of the first epoch after it held, of those in the history: so much of the past survived.
    history: &'a Position,
}

/// Goes back from what a member holds, and from the newest history, to the last marker that is in both pasts: before a
/// marker was written, its epoch's winner held what the lineage says. `None` if the lineage ends before that.
fn fork<'a>(
    held: &Position,
    newest: &'a Position,
    lineage: &'a [(Epoch, Position)],
    cluster: Uuid,
) -> Option<Fork<'a>> {
    let winner_of = |epoch: Epoch| {
        let mut winners = lineage.iter();
        winners.find_map(|(known, held)| (*known == epoch).then_some(held))
    };
    let (mut members, mut history) = (None, newest);
    loop {
        let theirs = members.unwrap_or(held).highest_marker(cluster);
        let ours = history.highest_marker(cluster);
        match ours.cmp(&theirs) {
            Ordering::Equal => return Some(Fork { members, history }),
            Ordering::Greater => history = winner_of(ours)?,
            Ordering::Less => members = Some(winner_of(theirs)?),
        }
    }
}

/// Serialises what has a text form as that text.
mod as_text {
    use std::{fmt::Display, str::FromStr};

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<T: Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
