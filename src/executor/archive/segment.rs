//! Finding in a server's binlog files what is to be archived next. Files are read, nothing is written.

use std::{
    fs::File,
    io::{self, BufReader, Write},
    path::{Path, PathBuf},
};

use crate::{
    backup::{
        archive::is_ahead,
        binlog::{Gtid, Log},
    },
    cluster::{
        flavour::Flavour,
        gtid::{DATA_DOMAIN, GtidList, Position},
    },
    executor::quarantine,
    time::Timestamp,
};

/// A segment ends behind the transaction with which it gets this large, in bytes of binlog.
const LARGE: u64 = 32 << 20;

/// What the names of binlog files begin with.
const PREFIX: &str = "binlog.";

/// The binlogs cannot be archived.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// A file cannot be read.
    #[error("the binlog {path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There are no files.
    #[error("there is no binlog in {0} that says where it begins")]
    None(PathBuf),
    /// Numbers are missing.
    #[error("the binlogs lack what is between {reached} and {found}")]
    Missing {
        /// Up to where they were read.
        reached: Position,
        /// What comes next.
        found: String,
    },
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> ScanError {
    let path = path.to_owned();
    move |source| ScanError::Read { path, source }
}

/// A place in the binlogs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The file.
    pub file: String,
    /// Where an event begins; 0: with the first one.
    pub at: u64,
}

/// What is to become a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The file.
    pub file: String,
    /// Its parts, in their order: where each begins and ends.
    pub runs: Vec<(u64, u64)>,
    /// What the archive holds with it.
    pub to: Position,
    /// How many transactions it has.
    pub transactions: u64,
    /// The earliest and the latest time at which one of them was begun, in seconds since 1970, but for those ahead of the clock.
    pub stamps: (u32, u32),
    /// When they were found.
    pub read_at: Timestamp,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// The next segment, if there is anything.
    pub cut: Option<Cut>,
    /// Where to go on behind it.
    pub cursor: Cursor,
    /// Whether the end was reached.
    pub is_all: bool,
}

fn open(folder: &Path, file: &str) -> Result<Log<BufReader<File>>, ScanError> {
    let path = folder.join(file);
    File::open(&path)
        .and_then(|file| Log::open(BufReader::with_capacity(1 << 16, file)))
        .map_err(unreadable(&path))
}

/// Where the files go on behind `archived`, or behind where the archive begins: the last file that was begun before that. If none was, they begin later, with
/// what is returned. `purged` is what MySQL's files do not hold.
///
/// # Errors
/// When the files cannot be read.
pub fn begin(
    folder: &Path,
    flavour: Flavour,
    archived: Option<Position>,
    purged: &Position,
) -> Result<(Cursor, Position), ScanError> {
    let files = quarantine::logs(folder, PREFIX).map_err(unreadable(folder))?;
    let whole = |start: &Position| start.union(purged).unwrap_or_else(|_| start.clone());
    let mut earliest = None;
    for file in files.into_iter().rev() {
        let mut log = open(folder, &file)?;
        let start = log.start().map_err(unreadable(&folder.join(&file)))?;
        let Some(start) = start else { continue };
        let cursor = Cursor { file, at: 0 };
        match &archived {
            // An archive that is new begins with the file that is being written.
            None => return Ok((cursor, whole(&start))),
            Some(archived) if archived.contains(&start) => {
                let reached = match flavour {
                    Flavour::Mysql => whole(archived),
                    Flavour::Mariadb => archived.clone(),
                };
                return Ok((cursor, reached));
            }
            Some(_) => earliest = Some((cursor, start)),
        }
    }
    let (cursor, start) = earliest.ok_or_else(|| ScanError::None(folder.to_owned()))?;
    Ok((cursor, whole(&start)))
}

/// Finds what comes next behind `reached`, from a place on, up to an end.
///
/// # Errors
/// When the files cannot be read, or something is missing in them.
pub fn find(
    folder: &Path,
    mut cursor: Cursor,
    reached: Position,
    end: &(String, u64),
) -> Result<Found, ScanError> {
    let files = quarantine::logs(folder, PREFIX).map_err(unreadable(folder))?;
    let first = cursor.file.clone();
    let mut rest = files.into_iter().skip_while(|file| *file != first);
    let missing = || ScanError::None(folder.to_owned());
    let mut file = rest.next().ok_or_else(missing)?;
    loop {
        let is_last = file == end.0;
        let path = folder.join(&file);
        let until = match is_last {
            true => end.1,
            false => std::fs::metadata(&path).map_err(unreadable(&path))?.len(),
        };
        let mut log = open(folder, &file)?;
        if cursor.at > 0 {
            log.go_to(cursor.at).map_err(unreadable(&path))?;
        }
        let (cut, at) = cut(&mut log, &path, &file, reached.clone(), until)?;
        let is_through = at >= until;
        let next = if is_through && !is_last {
            rest.next()
        } else {
            None
        };
        cursor = match &next {
            Some(next) => Cursor {
                file: next.clone(),
                at: 0,
            },
            None => Cursor { file, at },
        };
        match next {
            Some(next) if cut.is_none() => file = next,
            next => {
                return Ok(Found {
                    cut,
                    cursor,
                    is_all: is_through && next.is_none(),
                });
            }
        }
    }
}

/// The next segment of one file, and where it ends.
fn cut(
    log: &mut Log<BufReader<File>>,
    path: &Path,
    file: &str,
    mut reached: Position,
    until: u64,
) -> Result<(Option<Cut>, u64), ScanError> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let mut transactions = 0;
    let mut stamps: Option<(u32, u32)> = None;
    // Whatever is in the file up to there was logged before.
    let read_at = Timestamp::now();
    let mut size = 0;
    let mut at = until;
    while let Some(group) = log.next(until).map_err(unreadable(path))? {
        // One that is not whole was taken back, and its number is another one's.
        if !group.is_whole || group.gtid.is_in(&reached) {
            continue;
        }
        follows(&group.gtid, &reached)?;
        group.gtid.enter(&mut reached);
        match runs.last_mut() {
            Some(last) if last.1 == group.begin => last.1 = group.end,
            _ => runs.push((group.begin, group.end)),
        }
        transactions += 1;
        // A session that has set its time ahead says nothing of when.
        if !is_ahead(group.stamp, read_at) {
            let (first, last) = stamps.unwrap_or((group.stamp, group.stamp));
            stamps = Some((first.min(group.stamp), last.max(group.stamp)));
        }
        size += group.end - group.begin;
        if size >= LARGE {
            at = group.end;
            break;
        }
    }
    let cut = (transactions > 0).then(|| Cut {
        file: file.to_owned(),
        runs,
        to: reached,
        transactions,
        stamps: stamps.unwrap_or_default(),
        read_at,
    });
    Ok((cut, at))
}

/// MariaDB numbers what clients write without a hole.
fn follows(gtid: &Gtid, reached: &Position) -> Result<(), ScanError> {
    let next = |list: &GtidList| list.sequence(DATA_DOMAIN) + 1;
    match (gtid, reached) {
        (
            Gtid::Mariadb {
                domain: DATA_DOMAIN,
                sequence,
                ..
            },
            Position::Mariadb(list),
        ) if next(list) != *sequence => Err(ScanError::Missing {
            reached: reached.clone(),
            found: gtid.to_string(),
        }),
        _ => Ok(()),
    }
}

/// Copies a segment's part of a file, as a file of its own.
///
/// # Errors
/// When the file cannot be read, or what takes the bytes does not.
pub fn copy(path: &Path, runs: &[(u64, u64)], to: &mut dyn Write) -> io::Result<()> {
    let mut log = Log::open(BufReader::with_capacity(1 << 16, File::open(path)?))?;
    to.write_all(log.preamble())?;
    for (begin, end) in runs {
        log.copy(*begin, *end, to)?;
    }
    Ok(())
}
