#![allow(clippy::unwrap_used, reason = "a test may panic")]
//! Goal: transactions are found as servers write them, whole ones are told from others, and only those that are judged good are handed on.
//! Method: files made of events as the manuals describe them. Files of real servers are read in `tests/it` and `tests/e2e`.

use std::io::Cursor;

use super::*;

fn event(kind: u8, server: u32, body: &[u8]) -> Vec<u8> {
    let length = (HEADER + body.len()) as u32;
    let mut bytes = 100u32.to_le_bytes().to_vec();
    bytes.push(kind);
    bytes.extend(server.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes.extend([0; 6]);
    bytes.extend(body);
    bytes
}

fn begin() -> Vec<u8> {
    let mut format = event(kind::FORMAT, 1, &[4; 80]);
    format[17] = IN_USE;
    [&MAGIC[..], &format].concat()
}

fn query(text: &str) -> Vec<u8> {
    let mut body = vec![0; 13];
    body[8] = 2;
    body[11] = 3;
    body.extend([7; 3]);
    body.extend(b"db\0");
    body.extend(text.as_bytes());
    body.extend([1, 2, 3, 4]);
    event(kind::QUERY, 1, &body)
}

fn mariadb(domain: u32, server: u32, sequence: u64, is_single: bool) -> Vec<u8> {
    let mut body = sequence.to_le_bytes().to_vec();
    body.extend(domain.to_le_bytes());
    body.push(u8::from(is_single));
    body.extend([0; 10]);
    event(kind::MARIADB_GTID, server, &body)
}

fn mysql(uuid: Uuid, number: u64) -> Vec<u8> {
    let mut body = vec![1];
    body.extend(uuid.as_bytes());
    body.extend(number.to_le_bytes());
    body.extend([0; 20]);
    event(kind::MYSQL_GTID, 1, &body)
}

fn rows() -> Vec<u8> {
    event(30, 1, &[9; 50])
}

fn xid() -> Vec<u8> {
    event(kind::XID, 1, &[0; 12])
}

fn groups(file: &[u8]) -> Vec<(String, bool)> {
    let mut log = Log::open(Cursor::new(file.to_vec())).unwrap();
    let mut found = Vec::new();
    let mut last = log.preamble().len() as u64;
    while let Some(group) = log.next(file.len() as u64).unwrap() {
        assert!(group.begin >= last && group.end > group.begin);
        assert_eq!(group.stamp, 100);
        last = group.end;
        found.push((group.gtid.to_string(), group.is_whole));
    }
    found
}

fn named(names: &[(&str, bool)]) -> Vec<(String, bool)> {
    let names = names.iter();
    names
        .map(|(name, whole)| ((*name).to_owned(), *whole))
        .collect()
}

#[test]
fn mariadbs_transactions_are_found() {
    let mut list = 1u32.to_le_bytes().to_vec();
    list.extend(0u32.to_le_bytes());
    list.extend(7u32.to_le_bytes());
    list.extend(41u64.to_le_bytes());
    let file = [
        begin(),
        event(kind::MARIADB_LIST, 1, &list),
        event(kind::MARIADB_CHECKPOINT, 1, &[0; 20]),
        mariadb(0, 7, 42, false),
        event(kind::ANNOTATE, 1, b"INSERT"),
        rows(),
        xid(),
        mariadb(0, 7, 43, true),
        query("CREATE TABLE t (id INT)"),
        mariadb(0x43_54_4e, 8, 3, false),
        rows(),
        query("COMMIT"),
        event(kind::ROTATE, 1, &[0; 20]),
    ]
    .concat();
    assert_eq!(
        groups(&file),
        named(&[("0-7-42", true), ("0-7-43", true), ("4412494-8-3", true)])
    );
    let mut log = Log::open(Cursor::new(file)).unwrap();
    assert_eq!(
        log.start().unwrap().unwrap().to_string(),
        "0-7-41".to_owned()
    );
    assert_eq!(log.preamble()[4 + 17], 0, "the file is in use no more");
}

#[test]
fn mysqls_transactions_are_found() {
    let uuid = Uuid::from_u128(5);
    let mut previous = 1u64.to_le_bytes().to_vec();
    previous.extend(uuid.as_bytes());
    for number in [1u64, 1, 4] {
        previous.extend(number.to_le_bytes());
    }
    let file = [
        begin(),
        event(kind::MYSQL_PREVIOUS, 1, &previous),
        mysql(uuid, 4),
        query("BEGIN"),
        rows(),
        xid(),
        mysql(uuid, 5),
        query("DROP TABLE t"),
        mysql(uuid, 6),
        query("BEGIN"),
        query("COMMIT"),
        mysql(uuid, 7),
        event(kind::MYSQL_PAYLOAD, 1, &[0; 9]),
        event(kind::STOP, 1, &[]),
    ]
    .concat();
    let names: Vec<String> = (4..8).map(|number| format!("{uuid}:{number}")).collect();
    let expected: Vec<_> = names.into_iter().map(|name| (name, true)).collect();
    assert_eq!(groups(&file), expected);
    let mut log = Log::open(Cursor::new(file)).unwrap();
    assert_eq!(
        log.start().unwrap().unwrap().to_string(),
        format!("{uuid}:1-3")
    );
}

/// Goal: what a server that died has left is never taken for a transaction. Method: the file is cut off everywhere.
#[test]
fn half_transactions_are_told_from_whole_ones() {
    let uuid = Uuid::from_u128(5);
    let mariadbs = [mariadb(0, 1, 1, false), rows(), rows(), xid()].concat();
    let mysqls = [mysql(uuid, 1), query("BEGIN"), rows(), xid()].concat();
    let singles = [mariadb(0, 1, 1, true), query("DROP TABLE t")].concat();
    let ddl = [mysql(uuid, 1), query("DROP TABLE t")].concat();
    for group in [mariadbs, mysqls, singles, ddl] {
        let begin = begin();
        for cut in 0..group.len() {
            let file = [&begin[..], &group[..cut]].concat();
            assert!(
                groups(&file).iter().all(|(_, whole)| !whole),
                "cut at {cut}"
            );
        }
        let file = [&begin[..], &group].concat();
        assert_eq!(groups(&file).len(), 1);
        assert!(groups(&file)[0].1);
    }
}

#[test]
fn what_cannot_be_archived_is_refused() {
    for kind in [
        kind::MARIADB_ENCRYPTION,
        kind::INCIDENT,
        kind::MYSQL_ANONYMOUS,
        kind::MYSQL_TAGGED,
    ] {
        let file = [begin(), event(kind, 1, &[0; 40])].concat();
        let mut log = Log::open(Cursor::new(file.clone())).unwrap();
        assert!(log.next(file.len() as u64).is_err(), "{kind}");
    }
    assert!(Log::open(Cursor::new(b"no binlog at all, but long enough".to_vec())).is_err());
}

#[test]
fn transactions_are_handed_on_as_they_are_judged() {
    let transaction = |number| [mariadb(0, 1, number, false), rows(), xid()].concat();
    let file = [
        begin(),
        transaction(1),
        transaction(2),
        transaction(3),
        transaction(4),
    ]
    .concat();
    let judged = |is_first| {
        let mut taken = Vec::new();
        let mut verdicts = [Verdict::Take, Verdict::Skip, Verdict::Take, Verdict::Stop].into_iter();
        let stopped = filter(&mut &file[..], &mut taken, is_first, |_, _| {
            Ok(verdicts.next().unwrap())
        });
        assert!(stopped.unwrap());
        taken
    };
    let taken = judged(true);
    assert_eq!(groups(&taken), named(&[("0-1-1", true), ("0-1-3", true)]));
    // The next part goes on where this one ended.
    let second = judged(false);
    assert_eq!(second, taken[MAGIC.len()..]);
    let both = [taken, second].concat();
    assert_eq!(groups(&both).len(), 4);

    for cut in 0..file.len() {
        let read = filter(&mut &file[..cut], &mut Vec::new(), true, |_, _| {
            Ok(Verdict::Take)
        });
        let is_between = groups_end(&file).contains(&cut);
        assert_eq!(read.is_ok(), is_between, "cut at {cut}");
    }
}

/// Where events end.
fn groups_end(file: &[u8]) -> Vec<usize> {
    let mut ends = vec![begin().len()];
    let mut at = begin().len();
    while at < file.len() {
        at += u32::from_le_bytes(file[at + 9..at + 13].try_into().unwrap()) as usize;
        ends.push(at);
    }
    // Half a header is no event, so that the reader does not see it.
    let begins = ends.clone();
    let headers = begins.iter().flat_map(|end| *end..*end + HEADER);
    headers.collect()
}
