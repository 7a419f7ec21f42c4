//! What is remembered of failovers is bounded, and what of it cannot be read hinders nobody.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
use uuid::Uuid;

use super::*;

fn record(epoch: u64) -> FailoverRecord {
    let decided = Timestamp::from_millis(1000);
    FailoverRecord {
        format: FORMAT,
        epoch: Epoch(epoch),
        attempt: 1,
        ending: Ending::new(Cause::SessionLost, "it is gone"),
        before: None,
        before_opened: true,
        quorum: Quorum {
            durability: Durability::Majority,
            voters: 3,
            k_floor: 1,
            needed: 2,
        },
        voters: Vec::new(),
        winner: None,
        data_loss: None,
        switchover: None,
        times: Times {
            noticed: None,
            decided,
            decision_stored: None,
            elected: None,
            choice_stored: None,
            opened: None,
            published: None,
        },
    }
}

fn voter(member: u32, reported: u64, text: &str) -> VoterAccount {
    VoterAccount {
        member: MemberId(member),
        held: Some(HeldAccount {
            marker: Epoch(1),
            received: text.to_owned(),
            unapplied: String::new(),
        }),
        missing: None,
        reported: Some(Timestamp::from_millis(reported)),
    }
}

fn phases(record: &FailoverRecord) -> Vec<(String, u64)> {
    let phases = record.phases().into_iter();
    phases.map(|phase| (phase.name, phase.millis)).collect()
}

#[test]
fn phases_follow_each_other_and_leave_out_what_nobody_noted() {
    let mut failover = record(2);
    assert_eq!(phases(&failover), []);
    failover.times.noticed = Some(Timestamp::from_millis(990));
    failover.voters = vec![voter(1, 1020, ""), voter(2, 1005, "")];
    failover.stored(Stage::Decided, Timestamp::from_millis(1010));
    failover.stored(Stage::Decided, Timestamp::from_millis(5000));
    failover.times.elected = Some(Timestamp::from_millis(1020));
    failover.times.opened = Some(Timestamp::from_millis(1100));
    failover.stored(failover.stage(), Timestamp::from_millis(1107));
    let expected = [
        ("deciding", 10),
        ("storing the decision", 10),
        ("collecting the reports", 10),
        ("choosing", 0),
        ("applying and opening", 80),
        ("publishing", 7),
    ];
    assert_eq!(
        phases(&failover),
        expected.map(|(name, millis)| (name.to_owned(), millis))
    );
    assert_eq!(failover.unpublished_millis(), Some(107));
}

#[test]
fn the_log_is_bounded_in_number_and_in_size() {
    let mut log = FailoverLog::default();
    for epoch in 2..100 {
        log.push(record(epoch));
    }
    log.shrink();
    let epochs: Vec<u64> = log.iter().map(|failover| failover.epoch.0).collect();
    assert_eq!(epochs, (84..100).collect::<Vec<_>>());
    let text = cut("x".repeat(1_000_000), MOST_OF_A_POSITION);
    assert!(text.len() < MOST_OF_A_POSITION + 50, "{}", text.len());
    assert!(text.ends_with("x... (999488 of 1000000 bytes left out)"));
    for epoch in 100..120 {
        let mut large = record(epoch);
        large.voters = (0..15).map(|n| voter(n, 0, &text)).collect();
        log.push(large);
        log.shrink();
        assert!(serde_json::to_vec(&log).unwrap().len() <= MOST_BYTES + 100);
    }
    assert_eq!(log.last().unwrap().epoch, Epoch(119));
}

#[test]
fn what_is_cut_stays_a_text() {
    assert_eq!(cut("ä".repeat(3), 5), "ää... (2 of 6 bytes left out)");
    assert_eq!(cut("short".to_owned(), 5), "short");
}

#[test]
fn a_later_format_hinders_nobody() {
    let mut later = serde_json::to_value(record(2)).unwrap();
    later["ending"]["cause"] = "bad-mood".into();
    later["another"] = 1.into();
    let unreadable = serde_json::json!({"epoch": "three"});
    let log = serde_json::json!([unreadable, later]);
    let log: FailoverLog = serde_json::from_value(log).unwrap();
    let causes: Vec<Cause> = log.iter().map(|failover| failover.ending.cause).collect();
    assert_eq!(causes, [Cause::Other]);
    let none: FailoverLog = serde_json::from_value(serde_json::json!("?")).unwrap();
    assert!(none.is_empty());
}

#[test]
fn it_comes_back_from_json_as_it_was() {
    let mut failover = record(7);
    failover.voters = vec![voter(0, 5, "0-1-1")];
    failover.winner = Some(Winner {
        master: Master {
            member: MemberId(0),
            task_id: TaskId::from_wire("t"),
            address: None,
            data: DataId(Uuid::from_u128(1)),
            process: ProcessId(Uuid::from_u128(2)),
        },
        won_by: WonBy::HeldMost,
    });
    let mut log = FailoverLog::default();
    log.push(failover);
    let text = serde_json::to_string(&log).unwrap();
    assert_eq!(serde_json::from_str::<FailoverLog>(&text).unwrap(), log);
    assert!(text.contains("\"won_by\":\"held-most\""), "{text}");
}
