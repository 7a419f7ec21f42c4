//! Replaying an archive transaction by transaction: what is taken, what is left out, and where it ends. Pure.

use super::{Segment, counted, is_ahead, limits};
use crate::{
    backup::binlog::{Gtid, Verdict},
    cluster::{
        backup::RestorePoint,
        gtid::{DATA_DOMAIN, Position},
        id::Epoch,
    },
    time::Timestamp,
};

/// An archive does not fit together, or does not hold what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Numbers are missing.
    #[error(
        "the archived binlogs lack what is between {reached} and {found}, so nothing behind it can be restored"
    )]
    Gap {
        /// What was replayed.
        reached: String,
        /// What came next.
        found: String,
    },
    /// The same number is another transaction.
    #[error(
        "the archived binlogs have {found} where the backup or the point that was asked for has {expected}: they are of two histories; choose another backup"
    )]
    Other {
        /// What was expected.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The end came first.
    #[error("the archived binlogs end at {0}, before the point that was asked for")]
    Ends(String),
    /// The data is later.
    #[error(
        "the backup's data holds {0} already, which is as late as the point that was asked for or later; choose an earlier backup"
    )]
    Later(String),
}

/// Judges transaction by transaction what is replayed, up to the point that was asked for.
#[derive(Debug, Clone)]
pub struct Replay {
    reached: Position,
    /// Time in seconds, if it is one.
    time: Option<u64>,
    target: Option<Position>,
    limits: Vec<(Epoch, Position)>,
    arrived: bool,
}

impl Replay {
    /// Begins at what the data holds. `firsts` are the first segments of all epochs of the plan but the earliest, which limit what counts before them.
    ///
    /// # Errors
    /// [`Mismatch::Later`].
    pub fn new(
        held: Position,
        point: &RestorePoint,
        target: Option<Position>,
        firsts: &[Segment],
    ) -> Result<Self, Mismatch> {
        let arrived = target.as_ref().is_some_and(|target| held.contains(target));
        let goes_beyond = match (&held, &target) {
            (Position::Mariadb(held), Some(Position::Mariadb(target))) => {
                held.sequence(DATA_DOMAIN) > target.sequence(DATA_DOMAIN)
            }
            // Which of them came last is not known.
            _ => arrived,
        };
        if arrived && goes_beyond {
            return Err(Mismatch::Later(held.to_string()));
        }
        Ok(Self {
            reached: held,
            time: match point {
                RestorePoint::Time(at) => Some(*at),
                RestorePoint::Gtid(_) | RestorePoint::Latest => None,
            },
            target,
            limits: limits(firsts),
            arrived,
        })
    }

    /// Looks whether a segment begins where the replay is, or before. On MySQL numbers tell no gap.
    ///
    /// # Errors
    /// [`Mismatch::Gap`].
    pub fn enters(&self, segment: &Segment) -> Result<(), Mismatch> {
        let before = counted(segment.epoch, &segment.from, &self.limits);
        match self.arrived || self.reached.contains(&before) {
            true => Ok(()),
            false => Err(Mismatch::Gap {
                reached: self.reached.to_string(),
                found: before.to_string(),
            }),
        }
    }

    /// What is to be done with the next transaction, in a segment of an epoch that was archived at a time.
    ///
    /// # Errors
    /// When it does not fit behind what was replayed.
    pub fn judge(
        &mut self,
        epoch: Epoch,
        gtid: &Gtid,
        stamp: u32,
        read_at: Timestamp,
    ) -> Result<Verdict, Mismatch> {
        if self.arrived {
            return Ok(Verdict::Stop);
        }
        let mut later = self.limits.iter().filter(|(other, _)| *other > epoch);
        if later.any(|(_, from)| !gtid.is_in(from)) {
            // A failover has cut it off.
            return Ok(Verdict::Skip);
        }
        if gtid.is_in(&self.reached) {
            self.compare(gtid, &self.reached)?;
            return Ok(Verdict::Skip);
        }
        self.follows(gtid)?;
        // A time that nobody's clock had shown yet does not end it.
        let is_late = self.time.is_some_and(|time| u64::from(stamp) >= time);
        if is_late && !is_ahead(stamp, read_at) {
            self.arrived = true;
            return Ok(Verdict::Stop);
        }
        if let Some(target) = &self.target {
            self.compare(gtid, target)?;
        }
        gtid.enter(&mut self.reached);
        self.arrived = self
            .target
            .as_ref()
            .is_some_and(|target| self.reached.contains(target));
        Ok(Verdict::Take)
    }

    /// The same number of MariaDB's must be by the same server.
    fn compare(&self, gtid: &Gtid, with: &Position) -> Result<(), Mismatch> {
        let (
            Gtid::Mariadb {
                domain,
                server,
                sequence,
            },
            Position::Mariadb(list),
        ) = (gtid, with)
        else {
            return Ok(());
        };
        match list.server(*domain) {
            Some(expected) if list.sequence(*domain) == *sequence && expected != *server => {
                Err(Mismatch::Other {
                    expected: format!("{domain}-{expected}-{sequence}"),
                    found: gtid.to_string(),
                })
            }
            _ => Ok(()),
        }
    }

    /// MariaDB numbers what clients write without a hole.
    fn follows(&self, gtid: &Gtid) -> Result<(), Mismatch> {
        let (
            Gtid::Mariadb {
                domain, sequence, ..
            },
            Position::Mariadb(reached),
        ) = (gtid, &self.reached)
        else {
            return Ok(());
        };
        if *domain != DATA_DOMAIN || reached.sequence(*domain) + 1 == *sequence {
            return Ok(());
        }
        Err(Mismatch::Gap {
            reached: self.reached.to_string(),
            found: gtid.to_string(),
        })
    }

    /// What was reached, when all was read.
    ///
    /// # Errors
    /// [`Mismatch::Ends`].
    pub fn end(self) -> Result<Position, Mismatch> {
        match self.target.is_some() && !self.arrived {
            true => Err(Mismatch::Ends(self.reached.to_string())),
            false => Ok(self.reached),
        }
    }
}
