//! Stories of members that hold nothing: waiting for a donor, copying, replaying.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use crate::cluster::{
    backup::{BackupStore, RestoreFrom},
    donor::{Donor, FromBackup, WantsDonor},
};

/// A goal in which this member's data votes no more: it was lost, and 1 is its new, empty data directory.
fn lost(goal: Goal) -> Goal {
    let mut goal = opened(goal);
    goal.voters.members.insert(ME, Some(data(77)));
    goal
}

fn with_donor(mut goal: Goal, instead_of: u128) -> Goal {
    let donor = Donor {
        instead_of: data(instead_of),
        member: MemberId(2),
        host: "third".into(),
        port: 3308,
        stream_port: None,
        busy: false,
    };
    goal.donors.insert(ME, donor);
    goal
}

/// A donor is wanted, after so many failures, and a backup only after three.
fn donor(failed: u32) -> Option<WantsDonor> {
    Some(WantsDonor {
        failed,
        backup: failed >= 3,
        unfit: None,
    })
}

fn wanted(story: &Story) -> Option<WantsDonor> {
    report::report(&story.state, story.now).wants_donor
}

/// An empty member of a cluster whose master has opened, for which a donor was named.
fn copying() -> (Story, Goal) {
    let mut story = Story::running();
    let goal = lost(elected(2, OTHER, 1, "0-2-5"));
    assert_eq!(story.goal(goal.clone()), "promise 2 on 1; hold 2");
    assert_eq!(story.done(held("", "")), "", "a donor is awaited");
    assert_eq!(wanted(&story), donor(0));
    let goal = with_donor(goal, 1);
    assert_eq!(story.goal(goal.clone()), "copy 2 from 2");
    (story, goal)
}

#[test]
fn a_copy_takes_the_place_of_an_empty_directory() {
    let (story, _) = copying();
    begins_on_the_copy(story, "0-2-5");
}

/// The copy is complete: a server runs on it and follows. It is compared as any other, and does not vote yet.
fn begins_on_the_copy(mut story: Story, position: &str) {
    assert_eq!(story.done(Outcome::Copied(data(5))), "KILL 1");
    assert_eq!(story.exited(1), "first start on the copy 5 instead of 1");
    assert_eq!(report::report(&story.state, story.now).data, None);
    assert_eq!(story.done(Outcome::Started(process(2))), "promise 2 on 5");
    let promised = Event::Promised {
        epoch: Epoch(2),
        data: Some(data(5)),
    };
    assert_eq!(story.event(promised), "hold 2");
    assert_eq!(wanted(&story), None);
    assert_eq!(story.done(held(position, position)), "apply 2");
    assert_eq!(
        story.done(Outcome::Finished),
        "follow other:3307 2 acknowledge=false"
    );
}

/// Goal: who has to wait for a donor does not replay instead, however long that takes.
#[test]
fn a_busy_donor_is_waited_for() {
    let mut story = Story::running();
    let goal = lost(elected(2, OTHER, 1, "0-2-5"));
    story.goal(goal.clone());
    story.done(held("", ""));
    let named = with_donor(goal.clone(), 1);
    let mut busy = named.clone();
    busy.donors.get_mut(&ME).unwrap().busy = true;
    assert_eq!(story.goal(busy.clone()), "");
    assert_eq!(story.after(3600), "");
    // Its donor is gone: there is time to name another one.
    assert_eq!(story.goal(goal.clone()), "");
    assert_eq!(story.after(4), "");
    assert_eq!(wanted(&story), donor(0));
    assert_eq!(story.goal(busy), "");
    assert_eq!(story.after(3600), "");
    assert_eq!(wanted(&story), donor(0));
    assert_eq!(story.goal(named), "copy 2 from 2");
}

#[test]
fn a_copy_of_what_is_no_part_of_the_history_is_quarantined() {
    let (mut story, _) = copying();
    on_the_copy(&mut story);
    assert_eq!(story.done(held("0-1-6", "0-1-6")), "halt 2 refuse=true");
    assert_eq!(story.done(Outcome::Finished), "KILL 2");
    assert_eq!(story.exited(2), "make data for 5");
}

#[test]
fn a_small_history_is_replayed() {
    let (mut story, _) = copying();
    assert_eq!(story.done(Outcome::ReplayIsCheaper), "apply 2");
    assert_eq!(wanted(&story), None);
    assert_eq!(
        story.done(Outcome::Finished),
        "follow other:3307 2 acknowledge=false"
    );
}

/// Goal: that replaying was cheaper once says nothing about the next time, when there may be no binlogs to replay.
#[test]
fn a_member_that_was_replayed_once_copies_the_next_time() {
    let (mut story, goal) = copying();
    story.done(Outcome::ReplayIsCheaper);
    for _ in ["apply", "follow", "admit"] {
        story.done(Outcome::Finished);
    }
    let mut next = opened(elected(3, OTHER, 1, "0-2-5"));
    next.voters = goal.voters;
    story.goal(next);
    assert_eq!(story.done(held("0-2-6", "0-2-6")), "halt 3 refuse=true");
    assert_eq!(story.done(Outcome::Finished), "KILL 1");
    assert_eq!(story.exited(1), "make data for 1");
    assert!(
        story
            .done(Outcome::DataMade(data(6)))
            .contains("first start on 6")
    );
    story.done(Outcome::Started(process(2)));
    story.event(Event::Promised {
        epoch: Epoch(3),
        data: Some(data(6)),
    });
    assert_eq!(story.done(held("", "")), "", "a donor is awaited");
    assert_eq!(wanted(&story), donor(0));
}

/// One that failed may have been too slow for its donor.
const AS_FAST: &str = "copy 2 from 2, as fast as it can";

#[test]
fn a_failed_copy_asks_for_another_donor_and_three_of_them_for_a_backup() {
    let (mut story, _) = copying();
    assert_eq!(story.failed(), "");
    assert_eq!(wanted(&story), donor(1));
    assert_eq!(story.after(2), AS_FAST);
    // The same when the server dies beneath it.
    assert_eq!(story.exited(1), "start on 1");
    story.done(Outcome::Started(process(2)));
    assert_eq!(story.done(held("", "")), AS_FAST);
    assert_eq!(story.failed(), "");
    assert_eq!(wanted(&story), donor(3));
    // There is none: the binlogs are replayed.
    let mut goal = story.state.goal.clone().unwrap();
    goal.donors.clear();
    assert_eq!(story.goal(goal), "");
    assert_eq!(story.after(17), "");
    assert_eq!(story.after(1), "apply 2");
}

#[test]
fn a_copy_that_no_server_starts_on_is_replaced() {
    let (mut story, goal) = copying();
    story.done(Outcome::Copied(data(5)));
    story.exited(1);
    assert_eq!(story.failed(), "make data");
    assert_eq!(story.done(Outcome::DataMade(data(6))), "");
    assert_eq!(story.after(2), "first start on 6");
    story.done(Outcome::Started(process(2)));
    story.event(Event::Promised {
        epoch: Epoch(2),
        data: Some(data(6)),
    });
    assert_eq!(
        story.done(held("", "")),
        "",
        "the donor was named for other data"
    );
    assert_eq!(wanted(&story), donor(1));
    assert_eq!(story.goal(with_donor(goal, 6)), AS_FAST);
}

#[test]
fn without_a_scheduler_the_binlogs_are_replayed_after_a_while() {
    let mut story = Story::running();
    story.goal(lost(elected(2, OTHER, 1, "0-2-5")));
    assert_eq!(story.done(held("", "")), "");
    assert_eq!(story.after(9), "");
    assert_eq!(story.after(1), "apply 2");
}

#[test]
fn nothing_is_copied_before_the_master_has_opened() {
    let mut story = Story::running();
    let mut goal = with_donor(lost(elected(2, OTHER, 1, "0-2-5")), 1);
    if let GoalPhase::Elected(master) = &mut goal.phase {
        master.opened = false;
    }
    story.goal(goal.clone());
    assert_eq!(story.done(held("", "")), "");
    assert_eq!(story.after(9), "");
    assert_eq!(wanted(&story), None);
    assert_eq!(story.goal(opened(goal)), "copy 2 from 2");
}

/// Goal: a master that cannot open, because all who could acknowledge are gone, gets a new voter: a member that holds
/// nothing and does not vote follows it after a while, by replaying.
#[test]
fn an_empty_member_that_does_not_vote_follows_a_master_that_does_not_open() {
    let mut goal = elected(2, OTHER, 1, "0-2-5");
    goal.voters.members.remove(&ME);
    let mut story = Story::running();
    story.goal(goal);
    assert_eq!(story.done(held("", "")), "");
    assert_eq!(story.after(29), "");
    assert_eq!(story.after(1), "apply 2");
}

/// Goal: no copy stops an election, and no election stops a copy that it does not need to.
#[test]
fn a_copy_goes_on_in_the_next_epoch_unless_the_member_votes() {
    let (mut story, mut goal) = copying();
    goal.epoch = Epoch(3);
    goal.phase = GoalPhase::Electing;
    assert_eq!(story.goal(goal), "promise 3 on 1");
    assert_eq!(story.done(Outcome::Copied(data(5))), "KILL 1");

    let (mut story, _) = copying();
    let answer = story.goal(super::goal(3, GoalPhase::Electing));
    assert_eq!(answer, "promise 3 on 1; KILL 1");
    assert_eq!(story.exited(1), "start on 1");
    story.done(Outcome::Started(process(2)));
    assert_eq!(story.done(held("", "")), "");
    assert_eq!(
        report::report(&story.state, story.now).held.unwrap().epoch,
        Epoch(3),
        "its empty data is reported"
    );
}

#[test]
fn a_member_that_holds_something_copies_nothing() {
    let mut story = Story::running();
    story.goal(with_donor(lost(elected(2, OTHER, 1, "0-2-5")), 1));
    assert_eq!(story.done(held("0-2-3", "0-2-3")), "apply 2");
}

/// A follower of the second epoch whose master refuses to send, with these words.
fn refused(story: &mut Story, words: &str) -> String {
    let mut refused = seen(false, None);
    refused.executed = position("0-2-3");
    if let Some(replication) = &mut refused.replication {
        replication.receiver_error = Some(words.to_owned());
    }
    story.event(Event::Observed {
        process: process(1),
        seen: Ok(Box::new(refused)),
    })
}

const PURGED: &str = "Got fatal error 1236 from master when reading data from binary log: 'Could not find GTID state requested by slave in any binlog files. Probably the slave state is too old and required binlog files have been purged.'";

/// A member that follows the master of the second epoch, which has opened, with something that it holds.
fn following(goal: Goal) -> Story {
    let mut story = Story::running();
    story.goal(goal);
    assert_eq!(story.done(held("0-2-3", "0-2-3")), "apply 2");
    for _ in ["apply", "follow", "admit"] {
        story.done(Outcome::Finished);
    }
    story
}

/// Goal: a member behind its master's oldest binlog is set aside, begins empty and copies.
#[test]
fn a_member_that_is_left_behind_begins_empty() {
    let goal = opened(elected(2, OTHER, 1, "0-2-5"));
    let mut story = following(goal.clone());
    assert_eq!(refused(&mut story, PURGED), "hold 2");
    assert_eq!(story.done(held("0-2-3", "0-2-3")), "KILL 1");
    assert_eq!(story.exited(1), "make data for 1");
    let aside = report::report(&story.state, story.now).set_aside.unwrap();
    assert!(aside.extras.is_empty());
    assert!(
        story
            .done(Outcome::DataMade(data(6)))
            .contains("first start on 6")
    );
    story.done(Outcome::Started(process(2)));
    story.event(Event::Promised {
        epoch: Epoch(2),
        data: Some(data(6)),
    });
    assert_eq!(story.done(held("", "")), "");
    assert_eq!(wanted(&story), donor(0));
    assert_eq!(story.goal(with_donor(goal, 6)), "copy 2 from 2");
}

/// Goal: nothing is set aside while a commit may still need it, nor for another error, nor because an earlier master
/// refused.
#[test]
fn a_member_is_left_behind_by_a_master_that_has_opened_and_says_so() {
    let unopened = elected(2, OTHER, 1, "0-2-5");
    let mut story = following(unopened.clone());
    assert_eq!(refused(&mut story, PURGED), "hold 2");
    assert_eq!(story.done(held("0-2-3", "0-2-3")), "");
    assert_eq!(story.goal(opened(unopened)), "KILL 1");

    let goal = opened(elected(2, OTHER, 1, "0-2-5"));
    let mut story = following(goal.clone());
    let corrupt = "Got fatal error 1236 from master: 'binlog truncated in the middle of event'";
    assert_eq!(refused(&mut story, corrupt), "");

    let mut story = following(goal);
    assert_eq!(refused(&mut story, PURGED), "hold 2");
    let next = elected(3, OTHER, 1, "0-2-5");
    story.goal(next);
    assert_eq!(story.done(held("0-2-3", "0-2-3")), "hold 3");
    assert_eq!(story.done(held("0-2-3", "0-2-3")), "apply 3");
}

/// Goal: a member that nobody can copy to is not stuck where nobody can replay from either.
#[test]
fn a_master_without_all_of_its_binlogs_is_copied_after_all() {
    let (mut story, _) = copying();
    story.done(Outcome::ReplayIsCheaper);
    for _ in ["apply", "follow"] {
        story.done(Outcome::Finished);
    }
    let mut refused = seen(false, None);
    if let Some(replication) = &mut refused.replication {
        replication.receiver_error = Some("Got fatal error 1236 from master".into());
    }
    let observed = Event::Observed {
        process: process(1),
        seen: Ok(Box::new(refused)),
    };
    assert_eq!(
        story.event(observed),
        "abandon; hold 2",
        "the marker will never come"
    );
    assert_eq!(story.done(held("", "")), "copy 2 from 2");
}

/// Goal: a voter that lost its data follows a master that cannot open without it, and gives nothing up for that.
#[test]
fn a_voter_without_its_data_follows_a_master_that_does_not_open() {
    let mut story = Story::running();
    let mut unopened = elected(2, OTHER, 1, "0-2-5");
    unopened.voters.members.insert(ME, Some(data(77)));
    story.goal(unopened.clone());
    assert_eq!(story.done(held("", "")), "", "it may open soon");
    assert_eq!(story.after(29), "");
    assert_eq!(story.after(1), "apply 2");
    assert_eq!(
        story.done(Outcome::Finished),
        "follow other:3307 2 acknowledge=false"
    );
    // The canary was found, and its data is stored.
    story.done(Outcome::Finished);
    unopened.voters.version += 1;
    unopened.voters.members.insert(ME, Some(data(1)));
    assert_eq!(story.goal(unopened), "abandon; hold 2");
    assert_eq!(story.done(held("0-2-5", "0-2-5")), "apply 2");
    assert_eq!(
        story.done(Outcome::Finished),
        "follow other:3307 2 acknowledge=true"
    );
}

fn with_backup(mut goal: Goal, instead_of: u128, id: &str) -> Goal {
    goal.donors.clear();
    let from = RestoreFrom {
        id: id.parse().unwrap(),
        store: BackupStore {
            url: "file:///backups".to_owned(),
            region: None,
            endpoint: None,
            credentials: None,
            key: None,
            rate_mib: 0,
        },
        flavour: Flavour::Mariadb,
        version: "10.11.14".parse().unwrap(),
        replay: None,
    };
    let instead_of = data(instead_of);
    goal.from_backup.insert(ME, FromBackup { instead_of, from });
    goal
}

/// An empty member for which no donor was named, and a backup was.
fn taking_a_backup() -> (Story, Goal) {
    let mut story = Story::running();
    let goal = lost(elected(2, OTHER, 1, "0-2-5"));
    story.goal(goal.clone());
    assert_eq!(story.done(held("", "")), "");
    assert_eq!(wanted(&story), donor(0));
    assert_eq!(story.after(5), "");
    assert!(
        wanted(&story).unwrap().backup,
        "nobody was named for a while"
    );
    let goal = with_backup(goal, 1, "c/1");
    assert_eq!(story.goal(goal.clone()), "copy 2 of the backup c/1");
    (story, goal)
}

/// Goal: data of a backup is used as a copy of another member is.
#[test]
fn a_backup_takes_the_place_of_an_empty_directory() {
    let (story, _) = taking_a_backup();
    begins_on_the_copy(story, "0-2-3");
}

/// An empty member's server runs on the copied data, be it of a backup, which is promised.
fn on_the_copy(story: &mut Story) {
    story.done(Outcome::Copied(data(5)));
    story.exited(1);
    story.done(Outcome::Started(process(2)));
    story.event(Event::Promised {
        epoch: Epoch(2),
        data: Some(data(5)),
    });
}

/// The data is set aside, and the member begins with the empty directory 6.
fn begins_again(story: &mut Story) {
    assert_eq!(story.exited(2), "make data for 5");
    story.done(Outcome::DataMade(data(6)));
    story.done(Outcome::Started(process(3)));
    story.event(Event::Promised {
        epoch: Epoch(2),
        data: Some(data(6)),
    });
    assert_eq!(story.done(held("", "")), "");
}

fn unfit(story: &Story) -> Option<String> {
    Some(wanted(story)?.unfit?.to_string())
}

/// Goal: a backup that is no part of the history is set aside, told, and not taken again.
#[test]
fn a_backup_of_what_is_no_part_of_the_history_is_not_taken_again() {
    let (mut story, goal) = taking_a_backup();
    on_the_copy(&mut story);
    assert_eq!(story.done(held("0-1-6", "0-1-6")), "halt 2 refuse=true");
    assert_eq!(story.done(Outcome::Finished), "KILL 2");
    begins_again(&mut story);
    assert_eq!(unfit(&story).as_deref(), Some("c/1"));
    assert_eq!(story.goal(with_backup(goal.clone(), 6, "c/1")), "");
    let older = with_backup(goal, 6, "c/0");
    assert_eq!(story.goal(older), "copy 2 of the backup c/0");
}

/// Goal: the same of one to which the master's binlogs do not go back.
#[test]
fn a_backup_behind_the_masters_oldest_binlog_is_not_taken_again() {
    let (mut story, _) = taking_a_backup();
    on_the_copy(&mut story);
    assert_eq!(story.done(held("0-2-3", "0-2-3")), "apply 2");
    story.done(Outcome::Finished);
    story.done(Outcome::Finished);
    let mut refused = seen(false, None);
    refused.executed = position("0-2-3");
    if let Some(replication) = &mut refused.replication {
        replication.receiver_error = Some(PURGED.to_owned());
    }
    let answer = story.event(Event::Observed {
        process: process(2),
        seen: Ok(Box::new(refused)),
    });
    assert_eq!(answer, "abandon; hold 2");
    assert_eq!(story.done(held("0-2-3", "0-2-3")), "KILL 2");
    begins_again(&mut story);
    assert_eq!(unfit(&story).as_deref(), Some("c/1"));
}

/// Goal: what becomes of the data later is not the backup's fault.
#[test]
fn a_backup_that_has_caught_up_was_a_good_one() {
    let (mut story, goal) = taking_a_backup();
    on_the_copy(&mut story);
    story.done(held("0-2-3", "0-2-3"));
    for _ in ["apply", "follow", "admit"] {
        story.done(Outcome::Finished);
    }
    let mut next = opened(elected(3, OTHER, 1, "0-2-5"));
    next.voters = goal.voters;
    story.goal(next);
    assert_eq!(story.done(held("0-2-6", "0-2-6")), "halt 3 refuse=true");
    assert_eq!(story.done(Outcome::Finished), "KILL 2");
    story.exited(2);
    story.done(Outcome::DataMade(data(6)));
    story.done(Outcome::Started(process(3)));
    story.event(Event::Promised {
        epoch: Epoch(3),
        data: Some(data(6)),
    });
    story.done(held("", ""));
    assert_eq!(wanted(&story), donor(0));
}

/// Goal: a store that is away is tried three times, and one that has no such backup once; then the binlogs are replayed.
#[test]
fn a_backup_that_cannot_be_had_ends_in_replaying() {
    let (mut story, goal) = taking_a_backup();
    for _ in 0..6 {
        assert_eq!(story.failed(), "");
        if wanted(&story).is_some() {
            assert_eq!(story.after(16), "copy 2 of the backup c/1");
        }
    }
    assert_eq!(wanted(&story), None);
    assert_eq!(story.after(16), "apply 2");

    let (mut story, _) = taking_a_backup();
    let why = "the backup store has no backup c/1".to_owned();
    assert_eq!(story.done(Outcome::Unfit { why: why.clone() }), "");
    let report = report::report(&story.state, story.now);
    assert_eq!(report.problem, Some(why));
    assert_eq!(unfit(&story).as_deref(), Some("c/1"));
    assert_eq!(story.after(11), "", "what is named is of no use");
    assert_eq!(story.after(1), "apply 2");
    drop(goal);
}
