#![allow(clippy::unwrap_used, reason = "a test may panic")]
//! Goal: of an archive exactly the cluster's history is replayed, up to the point that was asked for, and a gap is never passed over. Method: archives as
//! masters of several epochs leave them behind, MariaDB's numbers with their ambiguity first.

use super::*;
use crate::{
    backup::binlog::{Gtid, Verdict},
    cluster::{
        backup::{Part, RestorePoint},
        gtid::MARKER_DOMAIN,
    },
};

const UUID: Uuid = Uuid::from_u128(9);

fn mariadb(text: &str) -> Position {
    Position::parse(Flavour::Mariadb, text).unwrap()
}

/// A position with a marker.
fn at(epoch: u64, data: &str) -> Position {
    mariadb(&format!("{data},{MARKER_DOMAIN}-{epoch}-{epoch}"))
}

fn segment(epoch: u64, number: u64, from: &Position, to: &Position, stamps: (u32, u32)) -> Segment {
    Segment {
        cluster: "orders".parse().unwrap(),
        uuid: UUID,
        epoch: Epoch(epoch),
        number,
        data: DataId(Uuid::from_u128(1)),
        file: "binlog.000001".to_owned(),
        range: (4, 100),
        flavour: from.flavour(),
        from: from.clone(),
        to: to.clone(),
        transactions: 1,
        stamps,
        until: Timestamp::from_millis(u64::from(stamps.1) * 1000 + 5000),
        data_bytes: 10,
        key_id: None,
        object: Object {
            name: data_name(number, 7),
            bytes: 5,
            sha256: String::new(),
        },
        read_at: None,
        chain: None,
        lineage: Vec::new(),
    }
}

/// The first segments of all epochs.
fn firsts(segments: &[Segment]) -> Vec<Segment> {
    let mut firsts: Vec<Segment> = segments.to_vec();
    firsts.sort_by_key(|segment| (segment.epoch, segment.number));
    firsts.dedup_by_key(|segment| segment.epoch);
    firsts
}

/// The plan with each segment by itself.
fn plan(base: &Base, segments: &[Segment], point: &RestorePoint) -> Result<Plan, NoWay> {
    let stretches: Vec<Stretch> = segments.iter().map(Stretch::of).collect();
    super::plan(base, &firsts(segments), &stretches, point)
}

/// Epoch 1 got as far as 0-1-105, of which its successor had 0-1-100; epoch 2 was master up to 0-2-120.
fn archive() -> Vec<Segment> {
    vec![
        segment(1, 1, &mariadb(""), &at(1, "0-1-50"), (100, 150)),
        segment(1, 2, &at(1, "0-1-50"), &at(1, "0-1-105"), (151, 205)),
        segment(2, 1, &at(1, "0-1-100"), &at(2, "0-2-110"), (210, 220)),
        segment(2, 2, &at(2, "0-2-110"), &at(2, "0-2-120"), (221, 230)),
    ]
}

fn base(position: Position, seconds: u64) -> Base {
    Base {
        position,
        ended_at: Timestamp::from_millis(seconds * 1000),
    }
}

fn gtid(text: &str) -> RestorePoint {
    RestorePoint::Gtid(text.to_owned())
}

fn part(epoch: u64, first: u64, last: u64) -> Part {
    Part {
        epoch: Epoch(epoch),
        first,
        last,
    }
}

#[test]
fn documents_are_read_as_they_were_written_and_damage_is_noticed() {
    let segment = archive().remove(0);
    let text = segment.to_json();
    assert_eq!(Segment::from_json(&text).unwrap(), segment);
    for byte in 0..text.len() {
        let mut bad = text.clone();
        bad[byte] ^= 1;
        assert!(Segment::from_json(&bad).is_err(), "byte {byte}");
        assert!(Segment::from_json(&text[..byte]).is_err());
    }
}

#[test]
fn names_have_the_order_of_numbers() {
    assert!(epoch_name(Epoch(9)) < epoch_name(Epoch(10)));
    assert_eq!(epoch_of("0000000012/"), Some(Epoch(12)));
    assert_eq!(epoch_of("12"), None);
    assert_eq!(number_of("0000000012.json"), Some(12));
    assert_eq!(number_of("0000000012-00000001.data"), None);
    let folder = folder(&"a".repeat(64).parse().unwrap(), UUID);
    assert!(seal_id(&folder, Epoch(u64::MAX), u64::MAX).is_ok());
}

#[test]
fn a_plan_leads_from_a_backup_to_the_point() {
    let archive = archive();
    let early = base(at(1, "0-1-20"), 120);
    let cases = [
        (gtid("0-1-60"), vec![part(1, 1, 2)]),
        (gtid("0-1-30"), vec![part(1, 1, 1)]),
        (gtid("0-2-115"), vec![part(1, 1, 2), part(2, 1, 2)]),
        (RestorePoint::Time(140), vec![part(1, 1, 1)]),
        // What a failover has cut off says nothing of the time: its successor may have written before it.
        (RestorePoint::Time(160), vec![part(1, 1, 2), part(2, 1, 1)]),
        (RestorePoint::Time(203), vec![part(1, 1, 2), part(2, 1, 1)]),
        (RestorePoint::Time(233), vec![part(1, 1, 2), part(2, 1, 2)]),
        (RestorePoint::Latest, vec![part(1, 1, 2), part(2, 1, 2)]),
    ];
    for (point, parts) in cases {
        assert_eq!(
            plan(&early, &archive, &point).unwrap().parts,
            parts,
            "{point}"
        );
    }
    // What lies wholly before the backup is not read.
    let late = base(at(2, "0-2-111"), 222);
    let found = plan(&late, &archive, &RestorePoint::Latest).unwrap();
    assert_eq!((found.parts, found.data_bytes), (vec![part(2, 2, 2)], 10));
}

/// Goal: what a former master archives after it was replaced is passed over, and is no gap.
#[test]
fn a_former_master_that_goes_on_is_passed_over() {
    let mut archive = archive();
    let beyond = segment(1, 3, &at(1, "0-1-105"), &at(1, "0-1-108"), (206, 240));
    archive.insert(2, beyond);
    let early = base(at(1, "0-1-20"), 120);
    for point in [RestorePoint::Latest, RestorePoint::Time(229)] {
        let found = plan(&early, &archive, &point).unwrap();
        assert_eq!(found.parts, [part(1, 1, 2), part(2, 1, 2)], "{point}");
    }
}

/// Goal: nothing is replayed behind a backup that holds what a failover has cut off.
#[test]
fn a_backup_with_a_cut_off_tail_is_refused() {
    let mut archive = archive();
    archive.truncate(2);
    archive.push(segment(
        2,
        1,
        &at(1, "0-1-100"),
        &at(2, "0-2-103"),
        (210, 220),
    ));
    let with_tail = base(at(1, "0-1-105"), 206);
    let found = plan(&with_tail, &archive, &RestorePoint::Time(215));
    assert_eq!(found, Err(NoWay::CutOff));
    let without = base(at(1, "0-1-100"), 206);
    assert!(plan(&without, &archive, &RestorePoint::Time(215)).is_ok());
}

#[test]
fn there_is_no_plan_over_a_gap_or_beyond_the_ends() {
    let mut archive = archive();
    let early = base(at(1, "0-1-20"), 120);
    let no = |archive: &[Segment], base: &Base, point| plan(base, archive, &point).unwrap_err();
    let ends = |error| matches!(error, NoWay::Ends { .. });
    assert!(ends(no(&archive, &early, gtid("0-2-121"))));
    assert!(ends(no(&archive, &early, RestorePoint::Time(236))));
    assert_eq!(no(&archive, &early, gtid("0-1-10")), NoWay::Before);
    assert_eq!(no(&archive, &early, RestorePoint::Time(120)), NoWay::Before);
    assert!(matches!(
        no(&archive, &early, gtid(&format!("{UUID}:1"))),
        NoWay::Flavour(_)
    ));
    assert_eq!(no(&[], &early, gtid("0-1-30")), NoWay::Nothing);
    // The number of an unacknowledged transaction is that of another one later.
    assert!(plan(&early, &archive, &gtid("0-1-105")).is_ok());
    archive.remove(2);
    assert!(matches!(
        no(&archive, &early, gtid("0-2-115")),
        NoWay::Gap { .. }
    ));
    assert!(matches!(
        no(&archive, &early, RestorePoint::Latest),
        NoWay::Gap { .. }
    ));
    assert!(plan(&early, &archive, &gtid("0-1-60")).is_ok());
}

/// A transaction of MariaDB's.
fn tx(domain: u32, server: u32, sequence: u64) -> Gtid {
    Gtid::Mariadb {
        domain,
        server,
        sequence,
    }
}

/// Everything that the archive's masters have logged, with their markers.
fn logged() -> Vec<(Epoch, Gtid, u32)> {
    let first = (1..=105).map(|number| (Epoch(1), tx(0, 1, number), 100 + number as u32));
    let second = (101..=120).map(|number| (Epoch(2), tx(0, 2, number), 110 + number as u32));
    std::iter::once((Epoch(1), tx(MARKER_DOMAIN, 1, 1), 100))
        .chain(first)
        .chain([(Epoch(2), tx(MARKER_DOMAIN, 2, 2), 210)])
        .chain(second)
        .collect()
}

/// When all of it had been logged.
fn read_later() -> Timestamp {
    Timestamp::from_millis(1_000_000)
}

fn replayed(held: Position, point: &RestorePoint) -> Result<(Vec<String>, Position), Mismatch> {
    let target = match point {
        RestorePoint::Gtid(text) => Some(target(Flavour::Mariadb, text).unwrap()),
        _ => None,
    };
    let mut replay = Replay::new(held, point, target, &[archive().remove(2)])?;
    let mut taken = Vec::new();
    for (epoch, gtid, stamp) in logged() {
        match replay.judge(epoch, &gtid, stamp, read_later())? {
            Verdict::Take => taken.push(gtid.to_string()),
            Verdict::Skip => {}
            Verdict::Stop => break,
        }
    }
    Ok((taken, replay.end()?))
}

#[test]
fn a_tail_that_a_failover_cut_off_is_not_replayed() {
    let (taken, reached) = replayed(at(1, "0-1-98"), &RestorePoint::Latest).unwrap();
    let expected = ["0-1-99", "0-1-100", "4412494-2-2", "0-2-101"];
    assert_eq!(taken[..4], expected);
    assert_eq!((taken.len(), reached), (23, at(2, "0-2-120")));
}

#[test]
fn a_replay_ends_exactly_where_it_is_to() {
    let (taken, _) = replayed(at(1, "0-1-98"), &gtid("0-2-103")).unwrap();
    assert_eq!(taken.last().unwrap(), "0-2-103");
    // The first one that was begun at this second or later has the stamp 213.
    let (taken, _) = replayed(at(1, "0-1-98"), &RestorePoint::Time(213)).unwrap();
    assert_eq!(taken.last().unwrap(), "0-2-102");
    let (taken, _) = replayed(at(1, "0-1-98"), &gtid("0-1-98")).unwrap();
    assert!(taken.is_empty());
}

#[test]
fn what_does_not_fit_is_never_replayed() {
    let other = replayed(at(1, "0-1-98"), &gtid("0-1-103")).unwrap_err();
    assert!(matches!(other, Mismatch::Other { .. }), "{other}");
    // The backup has what the failover cut off.
    let tail = replayed(at(1, "0-1-103"), &RestorePoint::Latest).unwrap_err();
    assert!(matches!(tail, Mismatch::Other { .. }), "{tail}");
    let later = replayed(at(1, "0-1-98"), &gtid("0-1-97")).unwrap_err();
    assert!(matches!(later, Mismatch::Later(_)));
    let ends = replayed(at(1, "0-1-98"), &gtid("0-2-121")).unwrap_err();
    assert!(matches!(ends, Mismatch::Ends(_)));
    let firsts = [archive()[0].clone()];
    let mut replay = Replay::new(at(1, "0-1-98"), &RestorePoint::Latest, None, &firsts).unwrap();
    let gap = replay
        .judge(Epoch(1), &tx(0, 1, 100), 1, read_later())
        .unwrap_err();
    assert!(matches!(gap, Mismatch::Gap { .. }));
}

/// Goal: a new master begins where its history and the archive part. Method: MariaDB's numbers, where an epoch in between has archived nothing.
#[test]
fn a_new_master_begins_at_the_common_past() {
    let lineage = [
        (Epoch(1), mariadb("")),
        (Epoch(2), at(1, "0-1-100")),
        (Epoch(3), at(2, "0-2-110")),
    ];
    assert_eq!(begin(&at(1, "0-1-105"), &lineage, UUID), at(1, "0-1-100"));
    assert_eq!(begin(&at(1, "0-1-90"), &lineage, UUID), at(1, "0-1-90"));
    assert_eq!(begin(&at(2, "0-2-105"), &lineage, UUID), at(2, "0-2-105"));
    let mysql = |text: &str| Position::parse(Flavour::Mysql, text).unwrap();
    let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let lineage = [(Epoch(2), mysql(&format!("{a}:1-100,{UUID}:1")))];
    let archived = mysql(&format!("{a}:1-105,{UUID}:1"));
    let common = mysql(&format!("{a}:1-100,{UUID}:1"));
    assert_eq!(begin(&archived, &lineage, UUID), common);
    // On MySQL each transaction is told from all others.
    let first = segment(
        2,
        1,
        &common,
        &mysql(&format!("{a}:1-100,{b}:1-5,{UUID}:1-2")),
        (1, 2),
    );
    let mut replay = Replay::new(mysql(""), &RestorePoint::Latest, None, &[first]).unwrap();
    let tail = |number| Gtid::Mysql { uuid: a, number };
    let mut judge = |number| replay.judge(Epoch(1), &tail(number), 1, read_later());
    assert_eq!(judge(100), Ok(Verdict::Take));
    assert_eq!(judge(101), Ok(Verdict::Skip));
}

/// Goal: a new master does not say of its own binlog what a former one has said of another. Method: a former master that has archived on until long after
/// the new one was elected.
#[test]
fn up_to_when_was_archived_is_said_of_an_epoch() {
    let lineage = [(Epoch(1), mariadb("")), (Epoch(2), at(1, "0-1-100"))];
    let mut last = segment(1, 7, &at(1, "0-1-90"), &at(1, "0-1-105"), (1, 9000));
    last.chain = Some(Chain::and(None, 7, 10));
    let resumed = |epoch: u64, last| resume(last, Epoch(epoch), &lineage, UUID);
    let same = Resumption {
        archived: Some(at(1, "0-1-105")),
        number: 8,
        chain: last.chain,
        until: last.until,
    };
    assert_eq!(resumed(1, Some(&last)), same);
    let later = Resumption {
        archived: Some(at(1, "0-1-100")),
        number: 1,
        chain: None,
        until: Timestamp::from_millis(0),
    };
    assert_eq!(resumed(2, Some(&last)), later);
    assert_eq!(
        resumed(2, None),
        Resumption {
            archived: None,
            ..later
        }
    );
}

#[test]
fn segments_behind_the_earliest_backup_are_needed() {
    let archive = archive();
    let limits = limits(&firsts(&archive));
    let needed = |bases: &[Position]| -> Vec<(u64, u64)> {
        let needed = archive
            .iter()
            .filter(|segment| is_needed(segment, bases, &limits));
        needed
            .map(|segment| (segment.epoch.0, segment.number))
            .collect()
    };
    assert!(needed(&[]).is_empty());
    let late = at(2, "0-2-111");
    assert_eq!(needed(std::slice::from_ref(&late)), [(2, 2)]);
    let early = at(1, "0-1-60");
    assert_eq!(needed(&[late, early]), [(1, 2), (2, 1), (2, 2)]);
}

/// Goal: what a failover has cut off keeps nothing for ever. Method: MySQL, where a later backup never has it.
#[test]
fn what_was_cut_off_is_not_needed() {
    let mysql = |text: String| Position::parse(Flavour::Mysql, &text).unwrap();
    let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let common = mysql(format!("{a}:1-100,{UUID}:1"));
    let tail = segment(
        1,
        1,
        &mysql(String::new()),
        &mysql(format!("{a}:1-105,{UUID}:1")),
        (1, 2),
    );
    let to = mysql(format!("{a}:1-100,{b}:1-9,{UUID}:1-2"));
    let next = segment(2, 1, &common, &to, (3, 4));
    let base = [mysql(format!("{a}:1-100,{b}:1-5,{UUID}:1-2"))];
    let limits = limits(&[tail.clone(), next.clone()]);
    assert!(!is_needed(&tail, &base, &limits));
    assert!(is_needed(&next, &base, &limits));
    assert!(is_needed(&tail, &[mysql(format!("{a}:1-99"))], &limits));
}

#[test]
fn names_of_files_tell_their_segment() {
    assert_eq!(file_of(&document_name(7)), Some((7, false)));
    assert_eq!(file_of(&data_name(7, 0xab)), Some((7, true)));
    for other in ["7.json", "0000000007-ab.data", "notes", "0000000007.data"] {
        assert_eq!(file_of(other), None, "{other}");
    }
}

/// Goal: documents at two ends describe what is between them, and only where nothing is missing.
#[test]
fn a_stretch_is_described_by_its_ends() {
    let mut segments: Vec<Segment> = (1..=5)
        .map(|n| {
            let position = |n: u64| at(1, &format!("0-1-{}", n * 10));
            let stamp = n as u32 * 10;
            segment(1, n, &position(n - 1), &position(n), (stamp, stamp + 9))
        })
        .collect();
    assert_eq!(Stretch::between(&segments[0], &segments[4]), None);
    let mut chain = None;
    for segment in &mut segments {
        // Behind the third one something is missing.
        let before = chain.filter(|_| segment.number != 4);
        segment.chain = Some(Chain::and(before, segment.number, segment.data_bytes));
        chain = segment.chain;
    }
    let whole = Stretch::between(&segments[1], &segments[2]).unwrap();
    assert_eq!((whole.numbers, whole.data_bytes), ((2, 3), 20));
    assert_eq!((whole.from, whole.to), (at(1, "0-1-10"), at(1, "0-1-30")));
    assert_eq!(Stretch::between(&segments[2], &segments[3]), None);
    assert_eq!(
        Stretch::between(&segments[3], &segments[3]),
        Some(Stretch::of(&segments[3]))
    );
}

/// Goal: a backup of a member whose tail was cut off is refused though later transactions have the same numbers. Method: MariaDB, where the
/// same server goes on with the numbers that it lost.
#[test]
fn the_lineage_tells_what_was_cut_off_where_numbers_do_not() {
    let mut archive = archive();
    let with_tail = base(at(1, "0-1-103"), 204);
    let to = gtid("0-2-115");
    assert!(
        plan(&with_tail, &archive, &to).is_ok(),
        "numbers do not tell"
    );
    let past = |epoch, history| Lineage {
        epoch: Epoch(epoch),
        history,
    };
    archive[0].lineage = vec![past(1, mariadb(""))];
    archive[2].lineage = vec![past(1, mariadb("")), past(2, at(1, "0-1-100"))];
    assert_eq!(plan(&with_tail, &archive, &to), Err(NoWay::CutOff));
    for held in ["0-1-98", "0-1-100"] {
        let good = base(at(1, held), 204);
        assert!(plan(&good, &archive, &to).is_ok(), "{held}");
        assert!(plan(&good, &archive, &RestorePoint::Latest).is_ok());
    }
    // Before the failover it is as good as any.
    let before = plan(&base(at(1, "0-1-60"), 160), &archive, &gtid("0-1-99"));
    assert!(before.is_ok(), "{before:?}");
    let later = base(at(2, "0-2-112"), 222);
    assert!(plan(&later, &archive, &RestorePoint::Latest).is_ok());
}

/// Goal: a time that a session has set ahead ends no restore early.
#[test]
fn a_time_ahead_of_the_clock_ends_nothing() {
    let read_at = Timestamp::from_millis(200_000);
    assert!(is_ahead(206, read_at) && !is_ahead(205, read_at));
    let point = RestorePoint::Time(190);
    let mut replay = Replay::new(at(1, "0-1-98"), &point, None, &[]).unwrap();
    let mut judge = |number, stamp| {
        let verdict = replay.judge(Epoch(1), &tx(0, 1, number), stamp, read_at);
        verdict.unwrap()
    };
    assert_eq!(judge(99, 180), Verdict::Take);
    assert_eq!(judge(100, 4_000_000_000), Verdict::Take);
    assert_eq!(judge(101, 189), Verdict::Take);
    assert_eq!(judge(102, 190), Verdict::Stop);

    // Nor is it taken for the end when the way is looked for.
    let mut archive = archive();
    archive[2].stamps.1 = 4_000_000_000;
    archive[2].read_at = Some(Timestamp::from_millis(225_000));
    let found = plan(
        &base(at(1, "0-1-20"), 120),
        &archive,
        &RestorePoint::Time(222),
    );
    assert_eq!(found.unwrap().parts, [part(1, 1, 2), part(2, 1, 2)]);
}

/// Goal: what is missing between two segments is noticed where numbers do not tell.
#[test]
fn a_segment_that_begins_later_is_refused() {
    let mysql = |text: &str| Position::parse(Flavour::Mysql, &format!("{UUID}:{text}")).unwrap();
    let replay = Replay::new(mysql("1-5"), &RestorePoint::Latest, None, &[]).unwrap();
    let next = |from: &str| segment(1, 2, &mysql(from), &mysql("1-9"), (1, 2));
    assert_eq!(replay.enters(&next("1-4")), Ok(()));
    assert!(matches!(
        replay.enters(&next("1-6")),
        Err(Mismatch::Gap { .. })
    ));
}
