//! Stories of members that are elected: opening after the marker, and being killed for another epoch.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::*;

#[test]
fn the_elected_member_opens_after_its_marker() {
    let mut story = Story::running();
    assert_eq!(story.goal(elected(1, ME, 1, "")), "promise 1 on 1; hold 1");
    assert_eq!(story.done(held("", "")), "apply 1");
    assert_eq!(story.done(Outcome::Finished), "prepare 1 k=1");
    assert_eq!(
        story.member_state(),
        MemberState::Master {
            epoch: Epoch(1),
            writable: false
        }
    );
    assert_eq!(story.done(Outcome::Finished), "mark 1");
    assert_eq!(story.done(Outcome::Finished), "open 1");
    assert_eq!(
        story.member_state(),
        MemberState::Master {
            epoch: Epoch(1),
            writable: false
        }
    );
    assert_eq!(story.done(Outcome::Finished), "");
    assert_eq!(
        story.member_state(),
        MemberState::Master {
            epoch: Epoch(1),
            writable: true
        }
    );
}

/// Goal: the simulation can bend what it claims to bend. Method: one rule, seen in what is asked of the world.
#[test]
fn a_broken_rule_is_not_kept() {
    let mut story = Story::running();
    story.state = story.state.under(Rules::without(Rule::MarkerBeforeOpening));
    story.goal(elected(1, ME, 1, ""));
    story.done(held("", ""));
    assert_eq!(story.done(Outcome::Finished), "prepare 1 k=1");
    let mut lawful = story.state.clone().under(Rules::LAW);
    lawful.role = Role::Prepared(Epoch(1));
    lawful.lane = None;
    assert_eq!(
        plan(&lawful, story.now).reason,
        "the epoch begins with its marker"
    );
    lawful.rules = Rules::without(Rule::MarkerBeforeOpening);
    assert_eq!(
        plan(&lawful, story.now).reason,
        "the epoch's marker is acknowledged"
    );
}

#[test]
fn only_the_elected_incarnations_become_master() {
    for (data_number, process_number) in [(2, 1), (1, 2)] {
        let mut story = Story::running();
        let mut goal = elected(1, ME, process_number, "");
        if let GoalPhase::Elected(master) = &mut goal.phase {
            master.data = data(data_number);
        }
        assert_eq!(story.goal(goal), "promise 1 on 1; hold 1");
        assert_eq!(
            story.done(held("", "")),
            "",
            "it stays closed and has reported what it holds"
        );
        assert_eq!(story.member_state(), MemberState::Closed);
        assert_eq!(
            report::report(&story.state, story.now).held.unwrap().epoch,
            Epoch(1)
        );
    }
}

#[test]
fn a_winner_without_the_history_refuses() {
    let mut story = Story::running();
    story.goal(elected(1, ME, 1, "0-1-7"));
    assert_eq!(story.done(held("0-1-6", "0-1-6")), "");
    assert_eq!(
        story.member_state(),
        MemberState::Refused { epoch: Epoch(1) }
    );
    assert!(report::report(&story.state, story.now).problem.is_some());
}

#[test]
fn a_winner_that_cannot_apply_refuses_and_helps_in_the_next_epoch() {
    let mut story = Story::running();
    story.goal(elected(1, ME, 1, "0-1-7"));
    assert_eq!(story.done(held("0-1-7", "0-1-3")), "apply 1");
    assert_eq!(story.failed(), "");
    assert_eq!(
        story.member_state(),
        MemberState::Refused { epoch: Epoch(1) }
    );
    assert_eq!(
        story.goal(goal(2, GoalPhase::Electing)),
        "promise 2 on 1; hold 2"
    );
}

#[test]
fn a_master_is_killed_when_another_epoch_begins() {
    for phase in [goal(2, GoalPhase::Electing), elected(2, OTHER, 1, "")] {
        let mut story = Story::master(1);
        assert_eq!(story.goal(phase), "promise 2 on 1; KILL 1");
        assert_eq!(
            report::report(&story.state, story.now).held,
            None,
            "killed but not read does not count"
        );
        assert_eq!(story.exited(1), "start on 1");
        assert_eq!(story.member_state(), MemberState::Dead);
        assert_eq!(story.done(Outcome::Started(process(2))), "hold 2");
    }
}

/// Goal: whatever a coming master is at, a higher epoch ends the process. Method: cut after each step.
#[test]
fn a_coming_master_is_killed_at_every_step() {
    for steps in 0..4 {
        let mut story = Story::running();
        story.goal(elected(1, ME, 1, ""));
        story.done(held("", ""));
        for _ in 0..steps {
            story.done(Outcome::Finished);
        }
        let answer = story.goal(goal(2, GoalPhase::Electing));
        match steps {
            // Nothing was asked of it that a master does: what it waits for is given up.
            0 => assert_eq!(answer, "promise 2 on 1; abandon; hold 2"),
            _ => assert_eq!(answer, "promise 2 on 1; KILL 1", "after {steps} steps"),
        }
    }
}

#[test]
fn a_step_that_fails_half_way_to_mastership_ends_the_process() {
    for steps in 1..4 {
        let mut story = Story::running();
        story.goal(elected(1, ME, 1, ""));
        story.done(held("", ""));
        for _ in 0..steps {
            story.done(Outcome::Finished);
        }
        assert_eq!(story.failed(), "KILL 1");
        assert_eq!(story.exited(1), "start on 1");
        assert_eq!(story.done(Outcome::Started(process(2))), "hold 1");
        assert_eq!(
            story.done(held("", "")),
            "",
            "it was elected as another process"
        );
    }
}

#[test]
fn a_deposed_master_is_killed_though_the_promise_cannot_be_stored() {
    let mut story = Story::master(1);
    assert_eq!(
        story.event(Event::Goal(Box::new(goal(2, GoalPhase::Electing)))),
        "promise 2 on 1"
    );
    let problem = "the disk is full".to_owned();
    assert_eq!(story.event(Event::PromiseFailed { problem }), "KILL 1");
    assert_eq!(story.exited(1), "start on 1");
    assert_eq!(
        story.done(Outcome::Started(process(2))),
        "",
        "nothing is done for the epoch"
    );
    assert_eq!(report::report(&story.state, story.now).promised, Epoch(1));
    assert_eq!(story.after(1), "promise 2 on 1");
}

#[test]
fn a_master_writes_each_canary_once() {
    let mut story = Story::master(1);
    let mut goal = opened(elected(1, ME, 1, ""));
    goal.canary = 2;
    assert_eq!(story.goal(goal.clone()), "write canary 2");
    assert_eq!(story.after(1), "", "it waits for acknowledgements");
    story.event(Event::Canary {
        process: process(1),
        number: Ok(2),
    });
    assert_eq!(story.after(1), "");
    goal.canary = 3;
    assert_eq!(story.goal(goal), "write canary 3");
    story.event(Event::Canary {
        process: process(1),
        number: Err("deadline".into()),
    });
    assert_eq!(story.after(1), "write canary 3");
}

/// Goal: a lost acknowledgement does not hang the master. Method: looks at commits that wait, with and without
/// replicas that could acknowledge.
#[test]
fn commits_whose_acknowledgement_was_lost_are_released_by_another_commit() {
    let mut story = Story::master(1);
    let look = |story: &mut Story, executed: &str, clients| {
        let executed = position(executed);
        let waiting = Observation {
            waiting_sessions: 1,
            clients,
            executed,
            ..seen(false, None)
        };
        let answer = story.event(Event::Observed {
            process: process(1),
            seen: Ok(Box::new(waiting)),
        });
        story.after(1);
        answer
    };
    for n in 0..9 {
        assert_eq!(
            look(&mut story, &format!("0-1-{n}"), 1),
            "",
            "a busy master"
        );
    }
    for _ in 0..9 {
        assert_eq!(look(&mut story, "0-1-9", 0), "", "nobody could acknowledge");
    }
    assert!(
        report::report(&story.state, story.now)
            .problem
            .unwrap()
            .contains("no commit gets")
    );
    assert_eq!(look(&mut story, "0-1-9", 1), "prove");
    assert_eq!(look(&mut story, "0-1-9", 1), "", "one is under way");
    story.event(Event::Proved {
        process: process(1),
    });
    assert_eq!(look(&mut story, "0-1-10", 1), "", "it goes on");
    assert_eq!(report::report(&story.state, story.now).problem, None);
}

/// Goal: a voter that lost its data can get a canary from a master that waits for just this voter, and not before the
/// marker stands in the binlog, which is the first transaction of its epoch.
#[test]
fn a_canary_is_written_before_opening_once_the_marker_waits() {
    let mut story = Story::running();
    let mut mine = elected(1, ME, 1, "");
    mine.canary = 4;
    story.goal(mine);
    story.done(held("", ""));
    story.done(Outcome::Finished);
    assert_eq!(story.done(Outcome::Finished), "mark 1");
    let look = |waiting_sessions| Event::Observed {
        process: process(1),
        seen: Ok(Box::new(Observation {
            replication: None,
            waiting_sessions,
            ..seen(false, None)
        })),
    };
    for _ in 0..5 {
        assert_eq!(story.event(look(0)), "", "it is not written yet");
    }
    let written: Vec<String> = (0..5).map(|_| story.event(look(1))).collect();
    assert_eq!(written.concat(), "write canary 4 closed", "once");
    let acknowledged = Event::Canary {
        process: process(1),
        number: Ok(4),
    };
    assert_eq!(story.event(acknowledged), "");
    assert_eq!(story.done(Outcome::Finished), "open 1");
    assert_eq!(story.done(Outcome::Finished), "", "it is written already");
}
