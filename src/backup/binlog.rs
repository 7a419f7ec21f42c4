//! The format of binlog files, as far as archiving them takes: where transactions begin and end, and what they are called.
//!
//! A file is four bytes and events. Each event has a header of 19 bytes (MySQL source documentation, "Binary Log Event Header"; MariaDB knowledge
//! base, "2-Binlog Event Header"), little-endian:
//!
//! ```text
//! when: 4   type: 1   server id: 4   length of the event: 4   where the next one begins: 4   flags: 2
//! ```
//!
//! The first event describes the format, and a reader needs it. A transaction begins with an event that names its GTID and goes on until another one
//! begins or an event comes that belongs to the file. A server that dies leaves half a transaction, or half an event, at the end of a file;
//! it takes the transaction back when it starts again and begins another file. Such a transaction is told from a whole one by its last event
//! ([`Group::is_whole`]). Events are copied as they are, with their checksums.

use std::io::{self, Read, Seek, SeekFrom, Write};

use uuid::Uuid;

use crate::cluster::gtid::{GtidList, GtidSet, Position};

/// What a file begins with.
const MAGIC: [u8; 4] = *b"\xfebin";

/// The length of an event's header.
const HEADER: usize = 19;

/// In the flags of a format description: the file is being written. Its checksum does not count this.
const IN_USE: u8 = 1;

/// No event is longer than this, but those that carry rows; in bytes. Longer ones are not looked into.
const MOST_LOOKED_INTO: u64 = 1 << 20;

/// A statement that ends or begins a transaction is found in this much of its event.
const STATEMENT: usize = 4096;

mod kind {
    pub const QUERY: u8 = 2;
    pub const STOP: u8 = 3;
    pub const ROTATE: u8 = 4;
    pub const INTVAR: u8 = 5;
    pub const RAND: u8 = 13;
    pub const USER_VAR: u8 = 14;
    pub const FORMAT: u8 = 15;
    pub const XID: u8 = 16;
    pub const INCIDENT: u8 = 26;
    pub const HEARTBEAT: u8 = 27;
    pub const MYSQL_GTID: u8 = 33;
    pub const MYSQL_ANONYMOUS: u8 = 34;
    pub const MYSQL_PREVIOUS: u8 = 35;
    pub const XA_PREPARE: u8 = 38;
    pub const MYSQL_PAYLOAD: u8 = 40;
    pub const MYSQL_HEARTBEAT: u8 = 41;
    pub const MYSQL_TAGGED: u8 = 42;
    pub const ANNOTATE: u8 = 160;
    pub const MARIADB_CHECKPOINT: u8 = 161;
    pub const MARIADB_GTID: u8 = 162;
    pub const MARIADB_LIST: u8 = 163;
    pub const MARIADB_ENCRYPTION: u8 = 164;
}

/// A transaction's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gtid {
    /// MariaDB's: domain, server and number.
    Mariadb {
        /// The replication domain.
        domain: u32,
        /// The server that wrote it.
        server: u32,
        /// The number in the domain.
        sequence: u64,
    },
    /// MySQL's: a source and a number. Those with a tag are not known.
    Mysql {
        /// The source.
        uuid: Uuid,
        /// The number.
        number: u64,
    },
}

impl Gtid {
    /// Whether it is in a position, as far as numbers tell.
    pub fn is_in(&self, position: &Position) -> bool {
        match (self, position) {
            (
                Self::Mariadb {
                    domain, sequence, ..
                },
                Position::Mariadb(list),
            ) => list.sequence(*domain) >= *sequence,
            (Self::Mysql { uuid, number }, Position::Mysql(set)) => set.has(*uuid, *number),
            _ => false,
        }
    }

    /// Takes it into a position.
    pub fn enter(&self, position: &mut Position) {
        match (self, position) {
            (
                Self::Mariadb {
                    domain,
                    server,
                    sequence,
                },
                Position::Mariadb(list),
            ) => list.advance(*domain, *server, *sequence),
            (Self::Mysql { uuid, number }, Position::Mysql(set)) => set.insert(*uuid, *number),
            _ => {}
        }
    }
}

impl std::fmt::Display for Gtid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mariadb {
                domain,
                server,
                sequence,
            } => write!(f, "{domain}-{server}-{sequence}"),
            Self::Mysql { uuid, number } => write!(f, "{uuid}:{number}"),
        }
    }
}

/// A transaction in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub gtid: Gtid,
    /// When it was begun, by the clock of the server that wrote it, in seconds since 1970.
    pub stamp: u32,
    /// Where its first event begins in the file.
    pub begin: u64,
    /// Where its last event ends.
    pub end: u64,
    /// Whether it is complete. One that is not was taken back.
    pub is_whole: bool,
}

/// An event's header.
#[derive(Debug, Clone, Copy)]
struct Header {
    bytes: [u8; HEADER],
    stamp: u32,
    kind: u8,
    server: u32,
    length: u64,
}

fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(four.try_into().ok()?))
}

fn number64(bytes: &[u8], at: usize) -> Option<u64> {
    let eight = bytes.get(at..at + 8)?;
    Some(u64::from_le_bytes(eight.try_into().ok()?))
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Header {
    fn parse(bytes: [u8; HEADER]) -> io::Result<Self> {
        let number = |at| number32(&bytes, at).unwrap_or_default();
        let header = Self {
            bytes,
            stamp: number(0),
            kind: bytes[4],
            server: number(5),
            length: u64::from(number(9)),
        };
        if header.length < HEADER as u64 {
            return Err(damaged("an event of the binlog is shorter than its header"));
        }
        Ok(header)
    }

    fn body(&self) -> u64 {
        self.length - HEADER as u64
    }

    fn is_gtid(&self) -> bool {
        matches!(self.kind, kind::MYSQL_GTID | kind::MARIADB_GTID)
    }

    /// Whether it belongs to the file and to no transaction.
    fn is_of_file(&self) -> bool {
        matches!(
            self.kind,
            kind::FORMAT
                | kind::ROTATE
                | kind::STOP
                | kind::HEARTBEAT
                | kind::MYSQL_HEARTBEAT
                | kind::MYSQL_PREVIOUS
                | kind::MARIADB_CHECKPOINT
                | kind::MARIADB_LIST
        )
    }

    /// What cannot be archived is said, and never left out.
    fn refuse(&self) -> io::Result<()> {
        Err(match self.kind {
            kind::MARIADB_ENCRYPTION => damaged("the binlog is encrypted"),
            kind::INCIDENT => damaged("the binlog says that the server has lost events"),
            kind::MYSQL_ANONYMOUS => damaged("the binlog has a transaction without a GTID"),
            kind::MYSQL_TAGGED => damaged("the binlog has a transaction whose GTID has a tag"),
            _ => return Ok(()),
        })
    }

    /// The name of the transaction that this event begins, and whether it consists of a single statement (MariaDB).
    fn gtid(&self, body: &[u8]) -> Option<(Gtid, bool)> {
        Some(match self.kind {
            kind::MARIADB_GTID => {
                let gtid = Gtid::Mariadb {
                    domain: number32(body, 8)?,
                    server: self.server,
                    sequence: number64(body, 0)?,
                };
                (gtid, body.get(12)? & 1 != 0)
            }
            kind::MYSQL_GTID => {
                let uuid = Uuid::from_slice(body.get(1..17)?).ok()?;
                let number = number64(body, 17)?;
                (Gtid::Mysql { uuid, number }, false)
            }
            _ => return None,
        })
    }
}

/// Reads as much as there is; `None`: the file ends before.
fn fill(from: &mut (impl Read + ?Sized), bytes: &mut [u8]) -> io::Result<Option<()>> {
    match from.read_exact(bytes) {
        Ok(()) => Ok(Some(())),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn header(from: &mut (impl Read + ?Sized)) -> io::Result<Option<Header>> {
    let mut bytes = [0; HEADER];
    match fill(from, &mut bytes)? {
        Some(()) => Header::parse(bytes).map(Some),
        None => Ok(None),
    }
}

fn body(from: &mut (impl Read + ?Sized), header: &Header) -> io::Result<Option<Vec<u8>>> {
    if header.body() > MOST_LOOKED_INTO {
        return Err(damaged("an event of the binlog is longer than it can be"));
    }
    let mut bytes = vec![0; header.body() as usize];
    Ok(fill(from, &mut bytes)?.map(|()| bytes))
}

/// What a file begins with: the bytes that every reader of its transactions needs first.
fn preamble(from: &mut (impl Read + ?Sized)) -> io::Result<Vec<u8>> {
    let mut magic = [0; MAGIC.len()];
    let whole = fill(from, &mut magic)?.is_some() && magic == MAGIC;
    let not = || damaged("the file does not begin as a binlog does");
    if !whole {
        return Err(not());
    }
    let header = header(from)?
        .filter(|header| header.kind == kind::FORMAT)
        .ok_or_else(not)?;
    let mut bytes = header.bytes;
    bytes[17] &= !IN_USE;
    let body = body(from, &header)?.ok_or_else(not)?;
    Ok([&magic[..], &bytes, &body].concat())
}

// === looking through a server's file ===

/// A binlog file that is looked through, transaction by transaction.
pub struct Log<R> {
    file: R,
    preamble: Vec<u8>,
    /// Where the next event begins.
    at: u64,
    /// The header of the next event, and with a GTID its name.
    next: Option<Header>,
}

impl<R: Read + Seek> Log<R> {
    /// Begins at the file's first event.
    ///
    /// # Errors
    /// When the file cannot be read or is no binlog.
    pub fn open(mut file: R) -> io::Result<Self> {
        let preamble = preamble(&mut file)?;
        let at = preamble.len() as u64;
        Ok(Self {
            file,
            preamble,
            at,
            next: None,
        })
    }

    /// What a reader of its transactions needs first.
    pub fn preamble(&self) -> &[u8] {
        &self.preamble
    }

    /// Goes on at a place where an event begins.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn go_to(&mut self, at: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(at))?;
        self.at = at;
        self.next = None;
        Ok(())
    }

    /// What the server had logged when it began the file, if the file says so in a form that is known.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn start(&mut self) -> io::Result<Option<Position>> {
        self.go_to(self.preamble.len() as u64)?;
        // It is among the first events.
        for _ in 0..4 {
            let Some(header) = header(&mut self.file)? else {
                return Ok(None);
            };
            match header.kind {
                kind::MARIADB_LIST | kind::MYSQL_PREVIOUS => {
                    let Some(body) = body(&mut self.file, &header)? else {
                        return Ok(None);
                    };
                    return Ok(match header.kind {
                        kind::MARIADB_LIST => list(&body).map(Position::Mariadb),
                        _ => previous(&body).map(Position::Mysql),
                    });
                }
                _ if header.is_of_file() => {
                    self.file.seek(SeekFrom::Current(header.body() as i64))?;
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The next transaction that begins before `until`, which is where an event ends; `None` if there is no further one.
    ///
    /// # Errors
    /// When the file cannot be read, or holds what cannot be archived.
    pub fn next(&mut self, until: u64) -> io::Result<Option<Group>> {
        let Some(first) = self.seek_gtid(until)? else {
            return Ok(None);
        };
        let begin = self.at;
        let Some(gtid_body) = body(&mut self.file, &first)? else {
            return Ok(None);
        };
        let (gtid, is_single) = first
            .gtid(&gtid_body)
            .ok_or_else(|| damaged("a GTID event of the binlog cannot be read"))?;
        self.at += first.length;
        let mut ending = Ending::new(matches!(gtid, Gtid::Mariadb { .. }), is_single);
        while self.at < until {
            let Some(header) = header(&mut self.file)? else {
                break;
            };
            header.refuse()?;
            if header.is_gtid() || header.is_of_file() {
                self.next = Some(header);
                break;
            }
            if self.at + header.length > until {
                // Half an event.
                ending = Ending::new(true, false);
                self.at = until;
                break;
            }
            let looked_at = match header.kind {
                kind::QUERY => (header.body() as usize).min(STATEMENT),
                _ => 0,
            };
            let mut bytes = vec![0; looked_at];
            if fill(&mut self.file, &mut bytes)?.is_none() {
                break;
            }
            ending.saw(header.kind, &bytes);
            let rest = header.body() - looked_at as u64;
            self.file.seek(SeekFrom::Current(rest as i64))?;
            self.at += header.length;
        }
        Ok(Some(Group {
            gtid,
            stamp: first.stamp,
            begin,
            end: self.at,
            is_whole: ending.is_whole(),
        }))
    }

    /// Goes to the next event that begins a transaction; its header is read then, its body not.
    fn seek_gtid(&mut self, until: u64) -> io::Result<Option<Header>> {
        while self.at < until {
            let next = match self.next.take() {
                Some(next) => Some(next),
                None => header(&mut self.file)?,
            };
            let Some(next) = next else {
                return Ok(None);
            };
            next.refuse()?;
            if next.is_gtid() {
                return Ok(Some(next));
            }
            self.file.seek(SeekFrom::Current(next.body() as i64))?;
            self.at += next.length;
        }
        Ok(None)
    }

    /// Copies a part of the file.
    ///
    /// # Errors
    /// When the file ends before, or what takes the bytes does not.
    pub fn copy(&mut self, begin: u64, end: u64, to: &mut dyn Write) -> io::Result<()> {
        self.go_to(begin)?;
        let copied = io::copy(&mut (&mut self.file).take(end - begin), to)?;
        match copied == end - begin {
            true => Ok(()),
            false => Err(damaged("the binlog has become shorter")),
        }
    }
}

/// Whether a transaction has its last event.
struct Ending {
    is_mariadb: bool,
    /// MariaDB: it is one statement, without a commit of its own.
    is_single: bool,
    /// MySQL: it was begun by a statement, so that it is ended by one.
    is_begun: bool,
    is_whole: bool,
}

impl Ending {
    fn new(is_mariadb: bool, is_single: bool) -> Self {
        Self {
            is_mariadb,
            is_single,
            is_begun: false,
            is_whole: false,
        }
    }

    /// The next event; of a statement as much as was looked at.
    fn saw(&mut self, kind: u8, bytes: &[u8]) {
        self.is_whole = match kind {
            kind::XID | kind::XA_PREPARE | kind::MYSQL_PAYLOAD => true,
            kind::QUERY => {
                let statement = statement(bytes);
                let is = |word: &str| statement.starts_with(word.as_bytes());
                let is_begin = is("BEGIN") || is("XA START");
                let is_end = is("COMMIT") || is("ROLLBACK") || is("XA COMMIT") || is("XA ROLLBACK");
                self.is_begun |= is_begin;
                is_end || !is_begin && (self.is_single || !self.is_mariadb && !self.is_begun)
            }
            kind::INTVAR | kind::RAND | kind::USER_VAR | kind::ANNOTATE => false,
            _ => self.is_single,
        };
    }

    fn is_whole(&self) -> bool {
        self.is_whole
    }
}

/// The statement of a query event, with what follows it; empty if it is not in these bytes.
fn statement(body: &[u8]) -> &[u8] {
    // Thread 4, time 4, length of the schema's name 1, error 2, length of the status variables 2; those; the name and a zero.
    let found = || {
        let schema = usize::from(*body.get(8)?);
        let variables = u16::from_le_bytes(body.get(11..13)?.try_into().ok()?);
        body.get(13 + usize::from(variables) + schema + 1..)
    };
    found().unwrap_or_default()
}

/// MariaDB's list: a count whose upper four bits are flags, then domain, server and number of each.
fn list(body: &[u8]) -> Option<GtidList> {
    let count = (number32(body, 0)? & 0x0fff_ffff) as usize;
    let mut list = GtidList::new();
    for index in 0..count {
        let at = 4 + 16 * index;
        let one = GtidList::one(
            number32(body, at)?,
            number32(body, at + 4)?,
            number64(body, at + 8)?,
        );
        list = list.union(&one);
    }
    Some(list)
}

/// MySQL's set: a count of sources, and of each its UUID, a count of ranges, and their first and one beyond their last number. Another form with
/// tags is told by the count's highest byte.
fn previous(body: &[u8]) -> Option<GtidSet> {
    let sources = number64(body, 0).filter(|count| count >> 56 == 0)?;
    let mut set = GtidSet::new();
    let mut at = 8;
    for _ in 0..sources {
        let uuid = Uuid::from_slice(body.get(at..at + 16)?).ok()?;
        let ranges = number64(body, at + 16)?;
        at += 24;
        for _ in 0..ranges {
            let (first, beyond) = (number64(body, at)?, number64(body, at + 8)?);
            set.insert_range(uuid, first, beyond.checked_sub(1)?);
            at += 16;
        }
    }
    Some(set)
}

// === reading what was archived ===

/// What is to be done with a transaction that was archived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Hand it on.
    Take,
    /// Leave it out.
    Skip,
    /// Leave it and all that follow out.
    Stop,
}

/// Hands on those transactions of an archived part of a binlog that `judge` takes; with what a file begins with if `is_first`. Returns
/// whether `judge` has stopped it.
///
/// # Errors
/// When it is no such part, is cut off, or holds a transaction that `judge` refuses.
pub fn filter(
    from: &mut dyn Read,
    to: &mut dyn Write,
    is_first: bool,
    mut judge: impl FnMut(&Gtid, u32) -> io::Result<Verdict>,
) -> io::Result<bool> {
    let preamble = preamble(from)?;
    let begin = if is_first { 0 } else { MAGIC.len() };
    to.write_all(&preamble[begin..])?;
    let mut takes = false;
    while let Some(header) = header(from)? {
        header.refuse()?;
        let cut_off = || damaged("an archived part of the binlog is cut off");
        if header.is_gtid() {
            let body = body(from, &header)?.ok_or_else(cut_off)?;
            let (gtid, _) = header
                .gtid(&body)
                .ok_or_else(|| damaged("a GTID event of the binlog cannot be read"))?;
            takes = match judge(&gtid, header.stamp)? {
                Verdict::Take => true,
                Verdict::Skip => false,
                Verdict::Stop => return Ok(true),
            };
            if takes {
                to.write_all(&header.bytes)?;
                to.write_all(&body)?;
            }
            continue;
        }
        let mut rest = from.take(header.body());
        let copied = if takes {
            to.write_all(&header.bytes)?;
            io::copy(&mut rest, to)?
        } else {
            io::copy(&mut rest, &mut io::sink())?
        };
        if copied != header.body() {
            return Err(cut_off());
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests;
