//! Whose data members get that start empty.

use super::world::World;
use crate::{
    cluster::{
        control::{MemberState, Report},
        donor::WantsDonor,
        flavour::Flavour,
        id::MemberId,
        record::ClusterRecord,
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
        let world = World::running(3, Durability::Majority);
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
        for member in 0..3 {
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
        self.change(2, |report| {
            report.state = MemberState::Closed;
            report.wants_donor = Some(WantsDonor { failed });
        });
    }

    fn donor(&mut self) -> Option<u32> {
        rebuild::advance(&mut self.record, &self.observed);
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
    let task = story.record.task(MemberId(2)).unwrap().task_id.clone();
    let ReportObservation { gone_since, .. } = story.observed.reports.get_mut(&task).unwrap();
    *gone_since = Some(crate::time::Timestamp::from_millis(1));
    assert_eq!(story.donor(), Some(1));
}
