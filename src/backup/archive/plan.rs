//! Which segments lead from a backup to a point. Pure.
//!
//! Not all documents of an archive are read for that: segments that follow each other without a gap are one [`Stretch`], which
//! the documents at its two ends describe.

use super::{Segment, counted, limits};
use crate::{
    cluster::{
        backup::{Part, RestorePoint},
        flavour::Flavour,
        gtid::{self, Position},
        id::Epoch,
    },
    time::Timestamp,
};

/// There is no way to the point that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoWay {
    /// The archive ends before.
    #[error(
        "the archived binlogs behind this backup end at {at} ({position}); give a point up to there, or latest"
    )]
    Ends {
        /// When, as text.
        at: String,
        /// Where.
        position: String,
    },
    /// Nothing was archived behind the backup.
    #[error("no binlogs were archived behind this backup")]
    Nothing,
    /// Something is missing.
    #[error(
        "the archived binlogs have a gap behind {position}, over which nobody can restore; choose a later backup or a point before the gap"
    )]
    Gap {
        /// Up to where they go.
        position: String,
    },
    /// The backup is later.
    #[error("the backup is later than the point that was asked for; choose an earlier backup")]
    Before,
    /// The backup is of another history.
    #[error(
        "the backup holds transactions that the archived binlogs behind it do not: a failover has cut them off since; choose another backup"
    )]
    CutOff,
    /// The GTID is of the other flavour, or no GTID.
    #[error("{0} is not a GTID of the flavour of the backup")]
    Flavour(String),
}

/// The segments to read, and what restoring makes of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Which segments, in their order.
    pub parts: Vec<Part>,
    /// The size of their part of the binlog, in bytes.
    pub data_bytes: u64,
}

/// What a backup says of itself that matters here.
#[derive(Debug, Clone)]
pub struct Base {
    /// What its data holds.
    pub position: Position,
    /// When its data was stored.
    pub ended_at: Timestamp,
}

impl Base {
    /// Whether a backup is not after a point, as far as can be told without its data.
    ///
    /// # Errors
    /// [`NoWay::Flavour`], [`NoWay::Before`].
    pub fn is_before(&self, point: &RestorePoint) -> Result<(), NoWay> {
        let is_before = match point {
            RestorePoint::Latest => true,
            RestorePoint::Time(at) => self.ended_at.as_millis() < at.saturating_mul(1000),
            RestorePoint::Gtid(text) => {
                let target = target(self.position.flavour(), text)?;
                match (&self.position, &target) {
                    (Position::Mariadb(held), Position::Mariadb(target)) => {
                        target.contains(&held.in_domains_of(target))
                    }
                    (held, target) => !held.contains(target),
                }
            }
        };
        is_before.then_some(()).ok_or(NoWay::Before)
    }
}

/// Reads the GTID of a restore.
///
/// # Errors
/// [`NoWay::Flavour`].
pub fn target(flavour: Flavour, text: &str) -> Result<Position, NoWay> {
    let wrong = || NoWay::Flavour(text.to_owned());
    let target = Position::parse(flavour, text).map_err(|_| wrong())?;
    match target.is_empty() {
        true => Err(wrong()),
        false => Ok(target),
    }
}

/// A segment, or several of one epoch that follow each other without a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// Their epoch.
    pub epoch: Epoch,
    /// The numbers of the first and the last one.
    pub numbers: (u64, u64),
    /// What the archive held before them.
    pub from: Position,
    /// The same with them.
    pub to: Position,
    /// The latest time at which a transaction of the last one was begun, in seconds since 1970; see [`Segment::latest`].
    pub latest: Option<u64>,
    /// Everything that the master had logged before this moment is in them or before them.
    pub until: Timestamp,
    /// The size of their part of the binlog, in bytes.
    pub data_bytes: u64,
}

impl Stretch {
    /// A segment by itself.
    pub fn of(segment: &Segment) -> Self {
        Self {
            epoch: segment.epoch,
            numbers: (segment.number, segment.number),
            from: segment.from.clone(),
            to: segment.to.clone(),
            latest: segment.latest(),
            until: segment.until,
            data_bytes: segment.data_bytes,
        }
    }

    /// All from one segment to another one of its epoch, if their documents tell that nothing is missing in between. What an earlier version has
    /// archived does not tell it.
    pub fn between(first: &Segment, last: &Segment) -> Option<Self> {
        let (begun, chain) = (first.chain?, last.chain?);
        let is_unbroken = first.epoch == last.epoch && begun.first == chain.first;
        let behind = chain.data_bytes.checked_sub(begun.data_bytes);
        let behind = behind.filter(|_| is_unbroken && first.number <= last.number)?;
        Some(Self {
            numbers: (first.number, last.number),
            from: first.from.clone(),
            data_bytes: first.data_bytes + behind,
            ..Self::of(last)
        })
    }
}

/// Which segments lead from a backup to a point. `firsts` are the first segments of all epochs from the earliest stretch on; the order
/// of both does not matter.
///
/// # Errors
/// Why none do.
pub fn plan(
    base: &Base,
    firsts: &[Segment],
    stretches: &[Stretch],
    point: &RestorePoint,
) -> Result<Plan, NoWay> {
    base.is_before(point)?;
    let target = match point {
        RestorePoint::Gtid(text) => Some(target(base.position.flavour(), text)?),
        RestorePoint::Time(_) | RestorePoint::Latest => None,
    };
    let has_target = |reached: &Position| {
        let target = target.as_ref();
        target.is_some_and(|target| reached.contains(target))
    };
    let mut sorted: Vec<&Stretch> = stretches.iter().collect();
    sorted.sort_by_key(|stretch| (stretch.epoch, stretch.numbers));
    let limits = limits(firsts);
    let mut plan = Plan {
        parts: Vec::new(),
        data_bytes: 0,
    };
    let mut reached = base.position.clone();
    let mut gap = None;
    let mut last = None;
    for stretch in sorted {
        let counts = counted(stretch.epoch, &stretch.to, &limits);
        // Nothing in it counts that is not there yet: it is before the backup, or a former master went on behind what was cut off.
        let adds_nothing = reached.contains(&counts);
        if adds_nothing && (plan.parts.is_empty() || !reached.contains(&stretch.from)) {
            continue;
        }
        if !reached.contains(&stretch.from) {
            gap = Some(reached.to_string());
            break;
        }
        gap = None;
        enter(&mut plan.parts, stretch);
        plan.data_bytes += stretch.data_bytes;
        reached = reached.union(&counts).unwrap_or(reached);
        last = Some(stretch);
        let ends = match point {
            // Of what was cut off the time says nothing: a former master may have gone on for longer than its successor was there.
            RestorePoint::Time(at) => {
                stretch.latest.is_some_and(|latest| latest >= *at) && counts == stretch.to
            }
            RestorePoint::Gtid(_) => has_target(&reached),
            RestorePoint::Latest => false,
        };
        if ends {
            fits(base, firsts, stretch)?;
            return Ok(plan);
        }
    }
    if let Some(last) = last {
        fits(base, firsts, last)?;
    }
    let until = last.map(|last| last.until);
    let arrived = match point {
        RestorePoint::Latest => gap.is_none(),
        // Nothing was begun after the last transaction before that time.
        RestorePoint::Time(at) => {
            gap.is_none() && until.is_some_and(|until| until.as_millis() / 1000 >= *at)
        }
        RestorePoint::Gtid(_) => has_target(&reached),
    };
    match (arrived, gap, until) {
        (true, _, _) => Ok(plan),
        (false, Some(position), _) => Err(NoWay::Gap { position }),
        (false, None, None) => Err(NoWay::Nothing),
        (false, None, Some(until)) => Err(NoWay::Ends {
            at: until.to_string(),
            position: reached.to_string(),
        }),
    }
}

/// Whether what leads behind a backup holds all that the backup does. One that was made of a member whose data a failover has cut off since
/// would be a mixture of two histories.
///
/// Numbers alone do not tell that: those of what was cut off may be others' later. What the winners held, up to the epoch where the way ends, does, as it does for
/// a member. Where the archive does not say that far back, the numbers have to do.
fn fits(base: &Base, firsts: &[Segment], last: &Stretch) -> Result<(), NoWay> {
    let mut known: Vec<(Epoch, Position)> = firsts
        .iter()
        .filter(|first| first.epoch <= last.epoch)
        .flat_map(|first| &first.lineage)
        .map(|past| (past.epoch, past.history.clone()))
        .collect();
    known.sort_by_key(|(epoch, _)| *epoch);
    known.dedup_by_key(|(epoch, _)| *epoch);
    let uuid = firsts.first().map(|first| first.uuid).unwrap_or_default();
    // Without anything in common the lineage does not go back to the backup.
    let differs =
        gtid::beyond(&base.position, &known, uuid).is_some_and(|(_, common)| !common.is_empty());
    match last.to.contains(&base.position) && !differs {
        true => Ok(()),
        false => Err(NoWay::CutOff),
    }
}

fn enter(parts: &mut Vec<Part>, stretch: &Stretch) {
    let (first, end) = stretch.numbers;
    match parts.last_mut() {
        Some(last) if last.epoch == stretch.epoch && last.last + 1 == first => {
            last.last = end;
        }
        _ => parts.push(Part {
            epoch: stretch.epoch,
            first,
            last: end,
        }),
    }
}
