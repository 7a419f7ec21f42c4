//! The place of master is handed over on request, or taken back.

use super::*;
use crate::cluster::switchover::{AnswerState, Handover};

/// The goal of an opened master that is to hand over to the other member.
fn asked(number: u64) -> Goal {
    let mut goal = opened(elected(1, ME, 1, ""));
    goal.handover = Some(Handover {
        number,
        to: OTHER,
        closed_for_ms: 2_000,
    });
    goal
}

fn closed_at(position: &str) -> Outcome {
    Outcome::Closed {
        position: self::position(position),
        took: Duration::from_millis(7),
    }
}

/// A master that has nothing left to do of its opening.
fn tidy_master() -> Story {
    let mut story = Story::master(1);
    let process = process(1);
    assert_eq!(story.event(Event::Tidied { process }), "");
    story
}

/// The same, closed for switchover 1.
fn closed() -> Story {
    let mut story = tidy_master();
    assert_eq!(story.goal(asked(1)), "approach host1 1 number=1");
    assert_eq!(story.done(Outcome::Finished), "close 1 for host1");
    assert_eq!(story.done(closed_at("0-1-7")), "");
    story
}

impl Story {
    fn answer_to_switchover(&self) -> Option<AnswerState> {
        let answer = report::report(&self.state, self.now).handover?;
        assert_eq!(answer.number, 1);
        Some(answer.state)
    }

    fn kept(&self) -> String {
        match self.answer_to_switchover() {
            Some(AnswerState::Kept { why }) => why,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_closed_master_says_so_and_becomes_a_slave_without_a_restart() {
    let mut story = closed();
    let writable = false;
    let epoch = Epoch(1);
    assert_eq!(
        story.member_state(),
        MemberState::Master { epoch, writable }
    );
    let Some(AnswerState::Closed(closed)) = story.answer_to_switchover() else {
        panic!("it does not say that it is closed");
    };
    assert_eq!((closed.position, closed.millis), (position("0-1-7"), 7));
    // Nothing that would commit is begun meanwhile.
    assert_eq!(story.after(1), "");
    let electing = goal(2, GoalPhase::Electing);
    assert_eq!(story.goal(electing), "promise 2 on 1; yield 2 at 0-1-7");
    assert_eq!(story.done(held("0-1-7", "0-1-7")), "");
    assert_eq!(story.state.running(), Some(process(1)));
    let report = report::report(&story.state, story.now);
    assert_eq!(report.held.unwrap().epoch, Epoch(2));
    assert_eq!(report.handover, None);
    assert_eq!(story.goal(elected(2, OTHER, 1, "0-1-7")), "apply 2");
    let follow = "follow other:3307 2 acknowledge=true";
    assert_eq!(story.done(Outcome::Finished), follow);
}

#[test]
fn it_can_be_elected_again_and_opens_again() {
    let mut story = closed();
    story.goal(goal(2, GoalPhase::Electing));
    story.done(held("0-1-7", "0-1-7"));
    assert_eq!(story.goal(elected(2, ME, 1, "0-1-7")), "apply 2");
    assert_eq!(story.done(Outcome::Finished), "prepare 2 k=1");
    assert_eq!(story.done(Outcome::Finished), "mark 2");
    assert_eq!(story.done(Outcome::Finished), "open 2");
    assert_eq!(story.done(Outcome::Finished), "");
    let (epoch, writable) = (Epoch(2), true);
    assert_eq!(
        story.member_state(),
        MemberState::Master { epoch, writable }
    );
}

/// Goal: a master opens again by its own deadline, and is then deposed like any other.
#[test]
fn it_opens_again_when_nothing_comes_in_time() {
    let mut story = closed();
    assert_eq!(story.after(2), "reopen 1");
    assert_eq!(story.answer_to_switchover(), None);
    assert_eq!(story.done(Outcome::Finished), "");
    assert!(
        story.kept().contains("no other member was elected"),
        "{}",
        story.kept()
    );
    assert_eq!(story.goal(asked(1)), "", "it was asked for that already");
    let kill = "promise 2 on 1; KILL 1";
    assert_eq!(story.goal(goal(2, GoalPhase::Electing)), kill);
}

#[test]
fn it_opens_again_when_that_is_not_asked_for_any_more() {
    let mut story = closed();
    let withdrawn = opened(elected(1, ME, 1, ""));
    assert_eq!(story.goal(withdrawn), "reopen 1");
    // It may not have worked.
    assert_eq!(story.failed(), "");
    assert_eq!(story.after(1), "reopen 1");
    assert_eq!(story.done(Outcome::Finished), "");
    assert!(story.kept().contains("given up"), "{}", story.kept());
    assert_eq!(story.goal(asked(2)), "approach host1 1 number=2");
}

/// Goal: whoever has read of a higher epoch does not open, whether the promise is on the disk yet or not. Method: the
/// deadline passes while it is being written.
#[test]
fn it_does_not_open_while_it_promises() {
    let mut story = closed();
    let electing = goal(2, GoalPhase::Electing);
    assert_eq!(
        story.event(Event::Goal(Box::new(electing))),
        "promise 2 on 1"
    );
    assert_eq!(story.after(3), "");
    let (epoch, data) = (Epoch(2), Some(data(1)));
    let promised = Event::Promised { epoch, data };
    assert_eq!(story.event(promised), "yield 2 at 0-1-7");
    assert_eq!(story.after(3), "");
}

/// Goal: a deposed master is killed if it is being opened, or is not found as it was left.
#[test]
fn a_master_that_is_not_known_to_be_closed_is_killed() {
    let mut story = closed();
    assert_eq!(story.after(2), "reopen 1");
    let kill = "promise 2 on 1; KILL 1";
    assert_eq!(story.goal(goal(2, GoalPhase::Electing)), kill);

    let mut story = closed();
    story.goal(goal(2, GoalPhase::Electing));
    assert_eq!(story.failed(), "KILL 1", "it is not as it was");

    let mut story = tidy_master();
    story.goal(asked(1));
    assert_eq!(story.done(Outcome::Finished), "close 1 for host1");
    assert_eq!(
        story.goal(goal(2, GoalPhase::Electing)),
        kill,
        "half closed"
    );
}

#[test]
fn a_target_that_does_not_get_there_costs_nothing() {
    let mut story = tidy_master();
    assert_eq!(story.goal(asked(1)), "approach host1 1 number=1");
    // Its commits may be held back.
    assert_eq!(story.failed(), "reopen 1");
    assert_eq!(story.answer_to_switchover(), None);
    assert_eq!(story.done(Outcome::Finished), "");
    assert_eq!(story.kept(), "it broke");
    let (epoch, writable) = (Epoch(1), true);
    assert_eq!(
        story.member_state(),
        MemberState::Master { epoch, writable }
    );

    // Closed or not: that is not known.
    let mut story = tidy_master();
    story.goal(asked(1));
    story.done(Outcome::Finished);
    assert_eq!(story.failed(), "reopen 1");
    assert_eq!(story.done(Outcome::Finished), "");
    assert_eq!(story.kept(), "it broke");
}

/// Goal: no commit of the executor's own comes after what the target is to have. Method: one is under way.
#[test]
fn commits_of_its_own_end_first() {
    let mut story = tidy_master();
    story.goal(asked(1));
    story.commits = false;
    story.after(1);
    assert!(story.state.health.is_committing());
    assert_eq!(story.done(Outcome::Finished), "");
    let (process, committed) = (process(1), Ok(()));
    let checked = Event::Checked { process, committed };
    assert_eq!(story.event(checked), "close 1 for host1");

    let mut story = tidy_master();
    story.goal(asked(1));
    story.commits = false;
    story.after(1);
    story.done(Outcome::Finished);
    assert_eq!(story.after(2), "reopen 1", "they do not end");
}

/// Goal: what a new master still does when it is open meets no step of a slave.
#[test]
fn a_master_that_has_just_opened_hands_over_when_it_is_done() {
    let mut story = Story::master(1);
    assert_eq!(story.goal(asked(1)), "");
    let process = process(1);
    let approach = "approach host1 1 number=1";
    assert_eq!(story.event(Event::Tidied { process }), approach);
}

#[test]
fn a_statement_that_was_given_up_and_closes_it_later_is_undone() {
    let mut story = closed();
    story.after(2);
    story.done(Outcome::Finished);
    let mut seen = seen(false, None);
    seen.replication = None;
    let observed = |read_only| {
        let seen = Observation {
            read_only,
            ..seen.clone()
        };
        Event::Observed {
            process: process(1),
            seen: Ok(Box::new(seen)),
        }
    };
    assert_eq!(story.event(observed(false)), "");
    assert_eq!(story.event(observed(true)), "reopen 1");
    assert_eq!(story.done(Outcome::Finished), "");
    assert_eq!(story.event(observed(false)), "");
}
