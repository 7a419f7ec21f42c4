//! Whose data members get that start empty.

use super::world::World;
use crate::{
    cluster::{
        backup::{BackupId, BackupStore, RestoreFrom},
        control::{Lineage, MemberState, Report},
        donor::{COPIES_IN_A_ROW, UsableBackup, WantsDonor},
        flavour::Flavour,
        gtid::{MARKER_DOMAIN, Position},
        id::{Epoch, MemberId},
        record::ClusterRecord,
        verification::VerificationOutcome,
        voters::Durability,
    },
    scheduler::{
        observed::{Observed, ReportObservation},
        rebuild,
    },
};

/// A running cluster of three as the scheduler sees it: member 0 is master, 1 follows, 2 holds nothing.
struct Story {
    record: ClusterRecord,
    observed: Observed,
}

impl Story {
    fn new(flavour: Flavour) -> Self {
        Self::of(3, flavour)
    }

    fn of(members: u32, flavour: Flavour) -> Self {
        let world = World::running(members, Durability::Majority);
        let record = world.record().clone();
        let cluster = world.state.clusters.values().next().unwrap();
        let reports = cluster.observed.reports.clone();
        let mut story = Self {
            record,
            observed: Observed {
                reports,
                ..Default::default()
            },
        };
        for member in 0..members {
            story.change(member, |report| {
                if let Some(server) = &mut report.server {
                    server.flavour = flavour;
                }
            });
        }
        story.wants(0);
        story
    }

    fn change(&mut self, member: u32, change: impl FnOnce(&mut Report)) {
        let task = self.record.task(MemberId(member)).unwrap().task_id.clone();
        change(&mut self.observed.reports.get_mut(&task).unwrap().report);
    }

    fn wants(&mut self, failed: u32) {
        self.wants_as(2, failed);
    }

    fn wants_as(&mut self, member: u32, failed: u32) {
        self.change(member, |report| {
            report.state = MemberState::Closed;
            report.wants_donor = Some(WantsDonor {
                failed,
                ..WantsDonor::default()
            });
        });
    }

    fn silence(&mut self, member: u32) {
        let task = self.record.task(MemberId(member)).unwrap().task_id.clone();
        let ReportObservation { gone_since, .. } = self.observed.reports.get_mut(&task).unwrap();
        *gone_since = Some(crate::time::Timestamp::from_millis(1));
    }

    /// Who gets data, from whom, and whether that one is busy.
    fn named(&mut self) -> Vec<(u32, u32, bool)> {
        rebuild::advance(&mut self.record, &self.observed, &mut Vec::new());
        let goal = self.record.goal();
        let named = goal.donors.iter();
        named
            .map(|(member, donor)| (member.0, donor.member.0, donor.busy))
            .collect()
    }

    fn donor(&mut self) -> Option<u32> {
        rebuild::advance(&mut self.record, &self.observed, &mut Vec::new());
        let goal = self.record.goal();
        goal.donors.get(&MemberId(2)).map(|donor| donor.member.0)
    }
}

#[test]
fn a_ready_slave_gives_its_data_and_a_failure_asks_the_next() {
    let mut story = Story::new(Flavour::Mysql);
    assert_eq!(story.donor(), Some(1));
    story.wants(1);
    assert_eq!(
        story.donor(),
        Some(0),
        "the master, when the slave could not"
    );
    story.wants(2);
    assert_eq!(story.donor(), Some(1));
}

#[test]
fn a_choice_stands_until_it_is_not_wanted_any_more() {
    let mut story = Story::new(Flavour::Mysql);
    story.change(1, |report| report.state = MemberState::Closed);
    assert_eq!(story.donor(), Some(0), "nobody else is ready");
    let epoch = story.record.epoch;
    story.change(1, |report| {
        report.state = MemberState::Following { epoch, ready: true };
    });
    assert_eq!(story.donor(), Some(0));
    story.change(2, |report| report.wants_donor = None);
    assert_eq!(story.donor(), None);
}

#[test]
fn nobody_gives_before_the_master_has_opened() {
    let mut story = Story::new(Flavour::Mysql);
    if let crate::cluster::record::Mastership::Elected(elected) = &mut story.record.mastership {
        elected.opened = false;
    }
    assert_eq!(story.donor(), None);
}

#[test]
fn other_versions_give_nothing_and_executors_that_hand_nothing_out_come_last() {
    let mut story = Story::new(Flavour::Mariadb);
    assert_eq!(story.donor(), Some(1));
    story.wants(4);
    story.change(0, |report| report.stream_port = Some(4000));
    assert_eq!(story.donor(), Some(0));
    for member in 0..2 {
        story.change(member, |report| {
            report.server.as_mut().unwrap().version = "11.8.1".parse().unwrap();
        });
    }
    assert_eq!(story.donor(), None);
}

#[test]
fn a_silent_member_keeps_its_donor() {
    let mut story = Story::new(Flavour::Mysql);
    assert_eq!(story.donor(), Some(1));
    story.silence(2);
    assert_eq!(story.donor(), Some(1));
}

/// Goal: a donor gives to one member at a time, and who waits is not told to copy. Method: two empty members of four, whose master
/// and slave can both give, then only the master; then the first one has its data.
#[test]
fn a_donor_gives_to_one_at_a_time() {
    let mut story = Story::of(4, Flavour::Mysql);
    story.wants_as(3, 0);
    story.wants(0);
    assert_eq!(story.named(), [(2, 1, false), (3, 0, false)]);
    assert_eq!(story.named(), [(2, 1, false), (3, 0, false)]);
    story.change(1, |report| report.state = MemberState::Closed);
    assert_eq!(story.named(), [(2, 0, true), (3, 0, false)]);
    let epoch = story.record.epoch;
    story.change(1, |report| {
        report.state = MemberState::Following { epoch, ready: true };
    });
    assert_eq!(
        story.named(),
        [(2, 1, false), (3, 0, false)],
        "another one is free"
    );
    story.change(1, |report| report.state = MemberState::Closed);
    story.change(3, |report| report.wants_donor = None);
    assert_eq!(story.named(), [(2, 0, false)]);
}

/// Goal: a member that went silent while it copied keeps nobody from a donor for ever.
#[test]
fn who_is_not_heard_of_keeps_no_donor_busy() {
    let mut story = Story::of(4, Flavour::Mysql);
    story.change(1, |report| report.state = MemberState::Closed);
    story.wants_as(3, 0);
    assert_eq!(story.named(), [(2, 0, false), (3, 0, true)]);
    story.silence(2);
    assert_eq!(story.named(), [(2, 0, false), (3, 0, false)]);
}

/// What holds all up to this transaction, and the markers up to this epoch's.
fn position(last: u64, marker: u64) -> Position {
    let text = format!("0-1-{last},{MARKER_DOMAIN}-1-{marker}");
    Position::parse(Flavour::Mariadb, &text).unwrap()
}

fn id(day: u32) -> BackupId {
    format!("orders/2026020{day}T120000Z").parse().unwrap()
}

impl Story {
    /// A cluster of MariaDB in its second epoch, whose member 2 has failed to copy anybody and takes a backup.
    fn without_donor() -> Self {
        let mut story = Self::new(Flavour::Mariadb);
        for (epoch, last, marker) in [(1, 0, 0), (2, 100, 1)] {
            story.record.lineage.retain(|known| known.epoch.0 != epoch);
            let history = match last {
                0 => Position::empty(Flavour::Mariadb),
                _ => position(last, marker),
            };
            let epoch = Epoch(epoch);
            story.record.lineage.push(Lineage { epoch, history });
        }
        story.takes_backup(COPIES_IN_A_ROW, None);
        story
    }

    fn takes_backup(&mut self, failed: u32, unfit: Option<BackupId>) {
        self.change(2, |report| {
            report.wants_donor = Some(WantsDonor {
                failed,
                backup: true,
                unfit,
            });
        });
    }

    fn knows(&mut self, day: u32, position: Position) {
        let task = self.record.task(MemberId(2)).unwrap().task_id.clone();
        let server = self.observed.reports[&task].report.server.clone().unwrap();
        let from = RestoreFrom {
            id: id(day),
            store: BackupStore {
                url: "file:///b".to_owned(),
                region: None,
                endpoint: None,
                credentials: None,
                key: None,
                rate_mib: 0,
            },
            flavour: server.flavour,
            version: server.version,
            replay: None,
        };
        let usable = UsableBackup { from, position };
        self.record.backups.note_usable(usable);
    }

    /// The backup that is named to member 2.
    fn backup(&mut self) -> Option<BackupId> {
        let mut notes = Vec::new();
        rebuild::advance(&mut self.record, &self.observed, &mut notes);
        let goal = self.record.goal();
        let named = goal.from_backup.get(&MemberId(2));
        assert!(named.is_none() || goal.donors.is_empty());
        named.map(|named| named.from.id.clone())
    }
}

#[test]
fn the_newest_backup_is_named_when_copies_have_failed() {
    let mut story = Story::without_donor();
    assert_eq!(story.backup(), None, "none is known");
    story.knows(1, position(50, 1));
    story.knows(2, position(120, 2));
    assert_eq!(story.backup(), Some(id(2)));
    let told = rebuild::sentences(&story.record, &story.observed);
    assert!(
        told[0].contains("of the backup orders/20260202T120000Z")
            && told[0].contains("copies failed 3 times"),
        "{told:?}"
    );
    assert_eq!(rebuild::backups_named(&story.record), [id(2)]);
    story.change(2, |report| report.wants_donor = None);
    assert_eq!(story.backup(), None);
}

#[test]
fn whoever_can_be_copied_goes_before_a_backup() {
    let mut story = Story::without_donor();
    story.knows(1, position(50, 1));
    story.takes_backup(0, None);
    assert_eq!((story.donor(), story.backup()), (Some(1), None));
    for member in 0..2 {
        story.change(member, |report| {
            report.server.as_mut().unwrap().version = "11.8.1".parse().unwrap();
        });
    }
    assert_eq!((story.backup(), story.donor()), (Some(id(1)), None));
    story.wants(0);
    assert_eq!(story.backup(), None, "it has not waited yet");
}

/// Goal: no backup is named that is not part of the history, was found bad, or that no server of the member's kind can start on.
#[test]
fn a_backup_that_does_not_fit_is_passed_over() {
    // A failover with the loss of data has cut off what it holds.
    let mut story = Story::without_donor();
    story.knows(1, position(101, 1));
    assert_eq!(story.backup(), None);

    let mut story = Story::without_donor();
    story.knows(1, position(50, 1));
    story.knows(2, position(60, 1));
    story.record.backups.verification.last = Some(VerificationOutcome {
        id: id(2),
        at: crate::time::Timestamp::from_millis(1),
        good: false,
        sentence: "damaged".to_owned(),
        seconds: None,
    });
    assert_eq!(story.backup(), Some(id(1)));
    story.record.backups.usable[0].from.version = "99.1.1".parse().unwrap();
    assert_eq!(story.backup(), None);
    story.record.backups.usable[0].from.flavour = Flavour::Mysql;
    assert_eq!(story.backup(), None);

    let mut story = Story::without_donor();
    story.knows(1, Position::empty(Flavour::Mariadb));
    assert_eq!(story.backup(), None, "there is nothing in it");
}

#[test]
fn what_a_member_has_found_to_be_of_no_use_is_named_to_nobody_again() {
    let mut story = Story::without_donor();
    for day in 1..=4 {
        story.knows(day, position(50, 1));
    }
    assert_eq!(story.backup(), Some(id(4)));
    story.takes_backup(4, Some(id(4)));
    assert_eq!(story.backup(), Some(id(3)));
    assert_eq!(story.backup(), Some(id(3)), "the choice stands");
    story.takes_backup(5, Some(id(3)));
    assert_eq!(story.backup(), Some(id(2)));
    story.takes_backup(5, Some(id(2)));
    assert_eq!(story.backup(), None, "the first one gave way to the fourth");
    assert!(story.record.backups.usable.is_empty());
}
