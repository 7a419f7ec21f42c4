//! A backup is made beside everything else, and a member begins with one.

use super::*;
use crate::cluster::{
    backup::{
        ArchiveOrder, ArchiveReport, BackupOrder, BackupReport, BackupState, BackupStore,
        RestoreFrom,
    },
    control::RestoreTask,
};

fn store() -> BackupStore {
    BackupStore {
        url: "file:///backups".to_owned(),
        region: None,
        endpoint: None,
        credentials: None,
        key: None,
        rate_mib: 0,
    }
}

fn ordered(mut goal: Goal, number: u64, task: &str) -> Goal {
    goal.backup = Some(BackupOrder {
        follows: None,
        number,
        id: "c/1".parse().unwrap(),
        store: store(),
        member: ME,
        task_id: TaskId::from_wire(task),
    });
    goal
}

impl Story {
    fn told_of_backup(&self) -> Option<BackupReport> {
        report::report(&self.state, self.now).backup
    }

    fn backup_is(&mut self, number: u64, state: BackupState) {
        assert_eq!(self.event(Event::Backup { number, state }), "");
    }
}

fn following() -> Goal {
    opened(elected(1, OTHER, 1, ""))
}

#[test]
fn it_is_made_once_and_told_as_long_as_it_is_asked_for() {
    let mut story = Story::follower(1);
    assert_eq!(story.goal(ordered(following(), 1, "t")), "back up 1");
    let running = |bytes| BackupState::Running { bytes };
    assert_eq!(story.told_of_backup().unwrap().state, running(0));
    story.backup_is(1, running(5));
    assert_eq!(story.told_of_backup().unwrap().state, running(5));
    let failed = BackupState::Failed {
        why: "no".to_owned(),
    };
    story.backup_is(1, failed.clone());
    assert_eq!(story.told_of_backup().unwrap().state, failed);
    assert_eq!(
        story.goal(ordered(following(), 1, "t")),
        "",
        "it was made already"
    );
    assert_eq!(story.goal(following()), "");
    assert_eq!(story.told_of_backup(), None);
    assert_eq!(story.goal(ordered(following(), 2, "t")), "back up 2");
    // What an earlier one says late means nothing.
    story.backup_is(1, running(9));
    assert_eq!(story.told_of_backup().unwrap().state, running(0));
}

#[test]
fn one_that_is_not_wanted_any_more_is_given_up() {
    let mut story = Story::follower(1);
    story.goal(ordered(following(), 1, "t"));
    assert_eq!(story.goal(following()), "give up backup 1");
    let mut story = Story::follower(1);
    story.goal(ordered(following(), 1, "t"));
    assert_eq!(
        story.goal(ordered(following(), 2, "t")),
        "give up backup 1; back up 2"
    );
}

#[test]
fn an_order_for_another_task_is_none() {
    let mut story = Story::follower(1);
    assert_eq!(story.goal(ordered(following(), 1, "an earlier one")), "");
    assert_eq!(story.told_of_backup(), None);
}

#[test]
fn a_member_that_is_not_ready_makes_none_yet() {
    let mut story = Story::running();
    assert!(
        !story
            .goal(ordered(elected(1, OTHER, 1, ""), 1, "t"))
            .contains("back up")
    );
    story.done(held("", ""));
    for _ in ["apply", "follow"] {
        assert!(!story.done(Outcome::Finished).contains("back up"));
    }
    assert!(story.done(Outcome::Finished).contains("back up 1"));
}

#[test]
fn the_data_of_a_backup_takes_the_place_of_an_empty_directory() {
    let mut task = task();
    task.restore = Some(RestoreTask {
        from: RestoreFrom {
            id: "others/1".parse().unwrap(),
            store: store(),
            flavour: Flavour::Mariadb,
            version: ServerVersion::new(10, 11, 19),
            replay: None,
        },
        user: "u".to_owned(),
    });
    let mut story = Story::new();
    story.state = State::new(task.clone(), Epoch(0), None, story.now);
    story.quiet();
    assert_eq!(story.done(Outcome::Installed(server())), "restore");
    assert_eq!(
        story.done(Outcome::Restored(data(1))),
        "first start on the restored 1"
    );
    let promised = story.done(Outcome::Started(process(1)));
    assert!(promised.contains("promise 0 on 1"), "{promised}");

    // With data that was promised, nothing is restored any more.
    let mut story = Story::new();
    story.state = State::new(task.clone(), Epoch(0), Some(data(1)), story.now);
    story.quiet();
    assert_eq!(story.done(Outcome::Installed(server())), "start on 1");

    let mut story = Story::new();
    story.state = State::new(task, Epoch(0), None, story.now);
    story.quiet();
    story.done(Outcome::Installed(server()));
    let failed = story.outcome(Err("the backup is damaged".to_owned()));
    assert!(failed.contains("the backup is damaged"), "{failed}");
}

/// Goal: the open master archives, and nobody else. Method: an order, its end, another one, and another epoch.
#[test]
fn the_open_master_archives_its_binlogs() {
    let archiving = |mut goal: Goal| {
        goal.archive = Some(ArchiveOrder::new(store()));
        goal
    };
    let mine = || opened(elected(1, ME, 1, ""));
    let mut follower = Story::follower(1);
    assert_eq!(follower.goal(archiving(following())), "");
    let mut story = Story::master(1);
    assert_eq!(story.goal(archiving(mine())), "archive 1 in epoch 1");
    let report = ArchiveReport {
        until: Some(Timestamp::from_millis(7)),
        problem: None,
        begun_in: None,
    };
    let number = 1;
    let event = Event::Archived {
        number,
        report: report.clone(),
    };
    assert_eq!(story.event(event.clone()), "");
    let told = |story: &Story| report::report(&story.state, story.now).archive;
    // That it was begun is no other order.
    let mut begun = archiving(mine());
    begun.archive = begun.archive.map(|order| ArchiveOrder {
        begun: true,
        ..order
    });
    assert_eq!(story.goal(begun), "");
    assert_eq!(told(&story), Some(report));
    assert_eq!(story.goal(mine()), "give up archive 1");
    assert_eq!(story.event(event), "");
    assert_eq!(told(&story), None);
    assert_eq!(story.goal(archiving(mine())), "archive 2 in epoch 1");
    // Its server is killed as the master of an epoch that is over, and with it this ends.
    let actions = story.goal(archiving(elected(2, OTHER, 1, "")));
    assert!(!actions.contains("; archive"), "{actions}");
}
