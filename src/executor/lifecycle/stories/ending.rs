//! Stories of beginnings and ends: coming up, crashes, kills, goals that are not obeyed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::*;

#[test]
fn an_instance_comes_up_closed() {
    let mut story = Story::new();
    assert_eq!(story.quiet(), "Starting; install");
    assert_eq!(story.member_state(), MemberState::Provisioning);
    assert_eq!(story.done(Outcome::Installed(server())), "make data");
    assert_eq!(story.done(Outcome::DataMade(data(1))), "first start on 1");
    assert_eq!(story.done(Outcome::Started(process(1))), "promise 0 on 1");
    assert_eq!(
        report::report(&story.state, story.now).data,
        None,
        "not before it is promised"
    );
    assert_eq!(
        story.event(Event::Promised {
            epoch: Epoch(0),
            data: Some(data(1))
        }),
        "Running"
    );
    assert_eq!(story.member_state(), MemberState::Closed);
    assert_eq!(story.goal(goal(0, GoalPhase::Unborn)), "hold 0");
    assert_eq!(story.done(held("", "")), "");
    assert_eq!(story.member_state(), MemberState::Closed);
}

#[test]
fn goals_of_the_past_or_of_another_cluster_are_ignored() {
    let mut story = Story::master(3);
    assert_eq!(story.goal(goal(2, GoalPhase::Electing)), "");
    let stranger = Goal {
        uuid: Uuid::from_u128(5),
        ..goal(9, GoalPhase::Electing)
    };
    assert_eq!(story.goal(stranger), "");
    assert_eq!(
        story.member_state(),
        MemberState::Master {
            epoch: Epoch(3),
            writable: true
        }
    );
}

#[test]
fn a_server_that_ends_is_reported_at_once_and_started_closed() {
    let mut story = Story::master(1);
    assert_eq!(story.exited(1), "start on 1");
    let report = report::report(&story.state, story.now);
    assert_eq!((report.process, report.state), (None, MemberState::Dead));
    assert_eq!(report.promised, Epoch(1));
    assert_eq!(story.done(Outcome::Started(process(2))), "hold 1");
    assert_eq!(story.done(held("0-1-9", "0-1-9")), "");
    assert_eq!(story.member_state(), MemberState::Closed);
}

#[test]
fn a_server_that_keeps_ending_is_given_up() {
    let mut story = Story::running();
    let mut waited = 0;
    for n in 1..u128::from(ENDS_IN_A_ROW) {
        story.exited(n);
        while story.state.step_under_way().is_none() {
            story.after(1);
            waited += 1;
            assert!(waited < 200, "it is not started again");
        }
        story.done(Outcome::Started(process(n + 1)));
    }
    let answer = story.exited(u128::from(ENDS_IN_A_ROW));
    assert_eq!(
        answer,
        "Failed { problem: \"the server ended with signal 9\" }; exit"
    );
    assert!(waited > 30, "the pauses grow");
}

#[test]
fn a_server_that_ran_for_long_starts_counting_anew() {
    let mut story = Story::running();
    for n in 1..20 {
        story.after(STEADY_AFTER.as_secs());
        assert_eq!(story.exited(n), "start on 1");
        story.done(Outcome::Started(process(n + 1)));
    }
}

#[test]
fn what_fails_before_the_first_start_ends_the_task() {
    for steps in 0..3 {
        let mut story = Story::new();
        story.quiet();
        for outcome in [Outcome::Installed(server()), Outcome::DataMade(data(1))]
            .into_iter()
            .take(steps)
        {
            story.done(outcome);
        }
        assert_eq!(story.failed(), "Failed { problem: \"it broke\" }; exit");
    }
}

#[test]
fn a_task_is_stopped_with_term_and_then_kill() {
    let mut story = Story::follower(1);
    let grace = Duration::from_secs(15);
    assert_eq!(
        story.event(Event::Kill {
            grace,
            may_hold: false,
        }),
        "Killing; TERM 1"
    );
    assert_eq!(story.member_state(), MemberState::Stopping);
    assert_eq!(story.after(9), "");
    assert_eq!(story.after(1), "KILL 1");
    assert_eq!(story.exited(1), "Killed; exit");
}

#[test]
fn the_grace_period_of_mesos_is_kept() {
    let mut story = Story::follower(1);
    story.event(Event::Kill {
        grace: Duration::from_secs(5),
        may_hold: false,
    });
    assert_eq!(story.after(3), "");
    assert_eq!(story.after(1), "KILL 1");
}

#[test]
fn a_master_whose_commits_may_wait_is_killed_at_once() {
    let mut story = Story::master(1);
    let kill = Event::Kill {
        grace: Duration::from_secs(15),
        may_hold: false,
    };
    assert_eq!(story.event(kill), "Killing; KILL 1");
}

#[test]
fn a_task_that_is_killed_while_it_is_made_ready_ends() {
    let mut story = Story::new();
    story.quiet();
    let kill = Event::Kill {
        grace: Duration::from_secs(15),
        may_hold: false,
    };
    assert_eq!(story.event(kill), "Killing; abandon; Killed; exit");
}

#[test]
fn a_deleted_cluster_stops_serving_and_waits_for_mesos() {
    let mut story = Story::follower(1);
    assert_eq!(story.goal(goal(1, GoalPhase::Deleting)), "TERM 1");
    assert_eq!(story.after(10), "KILL 1");
    assert_eq!(story.exited(1), "");
    assert_eq!(story.member_state(), MemberState::Stopping);
    let kill = Event::Kill {
        grace: Duration::from_secs(15),
        may_hold: false,
    };
    assert_eq!(story.event(kill), "Killing; Killed; exit");
}

/// Goal: an earlier executor's promise holds. Method: a new one that finds it, and a lower goal.
#[test]
fn a_promise_that_was_found_is_kept() {
    let now = Timestamp::from_millis(1);
    let mut story = Story {
        state: State::new(task(), Epoch(4), Some(data(1)), now),
        now,
        ..Story::new()
    };
    assert_eq!(story.quiet(), "Starting; install");
    assert_eq!(story.done(Outcome::Installed(server())), "start on 1");
    assert_eq!(story.done(Outcome::Started(process(1))), "Running");
    assert_eq!(story.goal(elected(3, ME, 1, "")), "");
    assert_eq!(story.goal(goal(4, GoalPhase::Electing)), "hold 4");
}
