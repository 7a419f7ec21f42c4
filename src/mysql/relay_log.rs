//! What MariaDB's relay log files hold, from the rows of `SHOW RELAYLOG EVENTS`. Pure.
//!
//! After a restart MariaDB does not know what it received (`Gtid_IO_Pos` is empty), though the files have it.
//! The events of a transaction are a *group*: it begins with a Gtid event and is complete with its commit;
//! a single statement (DDL) has no BEGIN and is complete with that statement. Only complete groups count:
//! nothing else was ever acknowledged.

use crate::cluster::gtid::GtidList;

/// Reads events in the order of the files.
#[derive(Debug)]
pub struct Scanner {
    executed: GtidList,
    received: GtidList,
    first_unexecuted: Option<Place>,
    open: Option<Group>,
}

/// A place in the relay logs at which a group begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file's name, without directory.
    pub file: String,
    /// The offset in bytes.
    pub position: u64,
}

/// What the relay logs hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The last complete transaction per domain.
    pub received: GtidList,
    /// Where the first complete transaction begins that is not executed.
    pub first_unexecuted: Option<Place>,
}

/// A group whose end has not been read.
#[derive(Debug)]
struct Group {
    begin: Place,
    domain: u32,
    server: u32,
    sequence: u64,
    /// It consists of one statement, without BEGIN and COMMIT.
    standalone: bool,
}

impl Scanner {
    /// Begins to read; `executed` is what the server has executed.
    pub fn new(executed: GtidList) -> Self {
        Self {
            executed,
            received: GtidList::new(),
            first_unexecuted: None,
            open: None,
        }
    }

    /// Takes in one event: the file it stands in, its offset, its type and description, as
    /// `SHOW RELAYLOG EVENTS` names them.
    pub fn event(&mut self, file: &str, position: u64, kind: &str, info: &str) {
        if kind == "Gtid" {
            // A group that is still open was cut off when the receiver stopped; it is received again, whole.
            let begin = Place {
                file: file.to_owned(),
                position,
            };
            self.open = parse_gtid_event(info, begin);
            return;
        }
        if self
            .open
            .as_ref()
            .is_some_and(|group| ends_group(group.standalone, kind, info))
        {
            self.close();
        }
    }

    /// What was read.
    pub fn finish(self) -> Contents {
        Contents {
            received: self.received,
            first_unexecuted: self.first_unexecuted,
        }
    }

    fn close(&mut self) {
        let Some(Group {
            begin,
            domain,
            server,
            sequence,
            standalone: _,
        }) = self.open.take()
        else {
            return;
        };
        self.received.advance(domain, server, sequence);
        if self.first_unexecuted.is_none() && self.executed.sequence(domain) < sequence {
            self.first_unexecuted = Some(begin);
        }
    }
}

/// Reads `BEGIN GTID 0-1-4`, `GTID 0-1-1` (a single statement), `BEGIN GTID 0-1-7 cid=12`,
/// `XA START X'31',X'',1 GTID 0-1-9`.
fn parse_gtid_event(info: &str, begin: Place) -> Option<Group> {
    let (before, after) = info.rsplit_once("GTID ")?;
    let mut numbers = after.split_whitespace().next()?.split('-');
    let domain = numbers.next()?.parse().ok()?;
    let server = numbers.next()?.parse().ok()?;
    let sequence = numbers.next()?.parse().ok()?;
    Some(Group {
        begin,
        domain,
        server,
        sequence,
        standalone: before.is_empty(),
    })
}

/// Whether an event completes its group.
fn ends_group(standalone: bool, kind: &str, info: &str) -> bool {
    match kind {
        "Xid" | "XA_prepare" => true,
        // Before the statement of a group may stand events with its variables; the statement is a Query.
        "Query" | "Query_compressed" if standalone => true,
        "Query" | "Query_compressed" => {
            let statement = info.rsplit("; ").next().unwrap_or(info);
            statement.eq_ignore_ascii_case("COMMIT") || statement.eq_ignore_ascii_case("ROLLBACK")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    /// Events as MariaDB 10.11 shows them: two transactions, a statement, and what stands between.
    const EVENTS: &[(&str, u64, &str, &str)] = &[
        (
            "relay.000002",
            4,
            "Format_desc",
            "Server ver: 10.11.19-MariaDB-log, Binlog ver: 4",
        ),
        ("relay.000002", 256, "Rotate", "binlog.000001;pos=4"),
        ("relay.000002", 552, "Gtid_list", "[]"),
        ("relay.000002", 621, "Gtid", "BEGIN GTID 4412494-1-1"),
        (
            "relay.000002",
            722,
            "Table_map",
            "table_id: 18 (cotton.marker)",
        ),
        (
            "relay.000002",
            773,
            "Write_rows_v1",
            "table_id: 18 flags: STMT_END_F",
        ),
        ("relay.000002", 815, "Xid", "COMMIT /* xid=33 */"),
        ("relay.000002", 846, "Gtid", "GTID 0-1-1"),
        ("relay.000002", 888, "Query", "create database d"),
        ("relay.000002", 969, "Gtid", "BEGIN GTID 0-1-2 cid=7"),
        (
            "relay.000002",
            1000,
            "Query",
            "use `d`; insert into m values (1)",
        ),
        ("relay.000002", 1011, "Query", "use `d`; COMMIT"),
    ];

    fn scan(executed: &str, events: &[(&str, u64, &str, &str)]) -> Contents {
        let mut scanner = Scanner::new(executed.parse().unwrap());
        for (file, position, kind, info) in events {
            scanner.event(file, *position, kind, info);
        }
        scanner.finish()
    }

    fn place(file: &str, position: u64) -> Option<Place> {
        Some(Place {
            file: file.to_owned(),
            position,
        })
    }

    #[test]
    fn complete_groups_are_received_and_the_first_unexecuted_one_is_found() {
        let cases = [
            ("", place("relay.000002", 621)),
            ("4412494-1-1", place("relay.000002", 846)),
            ("4412494-1-1,0-1-1", place("relay.000002", 969)),
            ("4412494-1-1,0-1-2", None),
        ];
        for (executed, first_unexecuted) in cases {
            let contents = scan(executed, EVENTS);
            assert_eq!(contents.received.to_string(), "0-1-2,4412494-1-1");
            assert_eq!(contents.first_unexecuted, first_unexecuted, "{executed}");
        }
    }

    #[test]
    fn a_group_counts_from_its_last_event_only() {
        for (length, received) in [
            (6, ""),
            (7, "4412494-1-1"),
            (8, "4412494-1-1"),
            (9, "0-1-1,4412494-1-1"),
            (11, "0-1-1,4412494-1-1"),
        ] {
            let contents = scan("4412494-1-1,0-1-1", &EVENTS[..length]);
            assert_eq!(contents.received.to_string(), received, "{length} events");
            assert_eq!(contents.first_unexecuted, None, "{length} events");
        }
    }

    #[test]
    fn a_group_that_was_cut_off_and_received_again_counts_once() {
        let mut events = EVENTS[..6].to_vec();
        events.extend([
            ("relay.000003", 4, "Format_desc", ""),
            ("relay.000003", 300, "Gtid", "BEGIN GTID 4412494-1-1"),
            ("relay.000003", 400, "Xid", "COMMIT /* xid=33 */"),
        ]);
        let contents = scan("", &events);
        assert_eq!(contents.received.to_string(), "4412494-1-1");
        assert_eq!(contents.first_unexecuted, place("relay.000003", 300));
    }

    #[test]
    fn prepared_transactions_end_with_their_preparation() {
        let events = [
            ("r.1", 4, "Gtid", "XA START X'31',X'',1 GTID 0-1-9"),
            ("r.1", 50, "XA_prepare", "XA END..."),
        ];
        assert_eq!(scan("", &events).received.to_string(), "0-1-9");
    }
}
