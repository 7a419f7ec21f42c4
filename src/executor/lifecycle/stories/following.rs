//! Stories of members that follow: comparing, pointing, acknowledging, quarantine.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use crate::cluster::{control::Beyond, gtid};

#[test]
fn a_follower_compares_applies_and_then_points() {
    let mut story = Story::running();
    assert_eq!(
        story.goal(elected(1, OTHER, 1, "")),
        "promise 1 on 1; hold 1"
    );
    assert_eq!(story.done(held("", "")), "apply 1");
    assert_eq!(
        story.done(Outcome::Finished),
        "follow other:3307 1 acknowledge=true"
    );
    assert_eq!(
        story.done(Outcome::Finished),
        format!("admit 1 at {}", marker(1))
    );
    assert_eq!(
        story.member_state(),
        MemberState::Following {
            epoch: Epoch(1),
            ready: false
        }
    );
    assert_eq!(story.done(Outcome::Finished), "");
    assert_eq!(
        story.member_state(),
        MemberState::Following {
            epoch: Epoch(1),
            ready: true
        }
    );
}

fn marker(epoch: u64) -> Position {
    Position::marker(
        Flavour::Mariadb,
        CLUSTER,
        Epoch(epoch),
        data(9).server_id(OTHER),
    )
}

#[test]
fn a_slave_serves_readers_while_a_master_is_elected() {
    let mut story = Story::follower(1);
    assert_eq!(
        story.goal(goal(2, GoalPhase::Electing)),
        "promise 2 on 1; hold 2"
    );
    assert_eq!(
        story.member_state(),
        MemberState::Following {
            epoch: Epoch(1),
            ready: true
        }
    );
    assert_eq!(story.done(held("0-2-5", "0-2-5")), "");
    assert_eq!(
        story.member_state(),
        MemberState::Following {
            epoch: Epoch(1),
            ready: true
        }
    );
    assert_eq!(
        report::report(&story.state, story.now)
            .held
            .unwrap()
            .position,
        position("0-2-5")
    );
    assert_eq!(story.goal(elected(2, OTHER, 2, "0-2-5")), "apply 2");
    assert_eq!(
        story.done(Outcome::Finished),
        "follow other:3307 2 acknowledge=true"
    );
    assert_eq!(
        report::report(&story.state, story.now)
            .held
            .map(|h| h.epoch),
        Some(Epoch(2))
    );
    story.done(Outcome::Finished);
    assert_eq!(
        report::report(&story.state, story.now).held,
        None,
        "it receives again"
    );
}

#[test]
fn a_statement_under_way_is_waited_for_before_the_next_epoch() {
    let mut story = Story::running();
    story.goal(elected(1, OTHER, 1, ""));
    story.done(held("", ""));
    story.done(Outcome::Finished);
    // START SLAVE may be on its way: reading what is held now would read too early.
    assert_eq!(story.goal(goal(2, GoalPhase::Electing)), "promise 2 on 1");
    assert_eq!(story.done(Outcome::Finished), "hold 2");
}

#[test]
fn late_news_of_an_abandoned_step_changes_nothing() {
    let mut story = Story::running();
    story.goal(elected(1, OTHER, 1, ""));
    story.done(held("", ""));
    let number = story.state.step_under_way().unwrap();
    assert_eq!(
        story.goal(goal(2, GoalPhase::Electing)),
        "promise 2 on 1; abandon; hold 2"
    );
    assert_eq!(
        story.event(Event::Done {
            number,
            outcome: Ok(Outcome::Finished)
        }),
        ""
    );
    assert_eq!(story.state.role, Role::Held(Epoch(1)));
}

#[test]
fn data_outside_of_the_history_is_quarantined_and_replaced_once_the_master_has_opened() {
    let mut story = Story::running();
    let goal = elected(2, OTHER, 1, "0-2-5");
    story.goal(goal.clone());
    assert_eq!(story.done(held("0-1-6", "0-1-6")), "halt 2 refuse=true");
    assert_eq!(story.done(Outcome::Finished), "");
    assert_eq!(story.member_state(), MemberState::Quarantined);
    assert!(
        report::report(&story.state, story.now)
            .problem
            .unwrap()
            .contains("0-1-6")
    );
    assert_eq!(story.goal(opened(goal)), "KILL 1");
    assert_eq!(story.exited(1), "make data for 1");
    // What it holds beyond the history is exported beside the rest.
    assert_eq!(
        story.done(Outcome::DataMade(data(2))),
        "first start on 2; export 0-1-6 of 1"
    );
    assert_eq!(story.done(Outcome::Started(process(2))), "promise 2 on 2");
    assert_eq!(report::report(&story.state, story.now).data, None);
    let answer = story.event(Event::Promised {
        epoch: Epoch(2),
        data: Some(data(2)),
    });
    assert_eq!(answer, "hold 2");
    assert_eq!(report::report(&story.state, story.now).data, Some(data(2)));
    assert_eq!(story.done(held("", "")), "", "a donor is awaited");
    assert_eq!(story.after(10), "apply 2");
    // Its new data does not vote yet.
    assert_eq!(
        story.done(Outcome::Finished),
        "follow other:3307 2 acknowledge=false"
    );
}

#[test]
fn quarantined_data_is_kept_when_another_epoch_begins_first() {
    let mut story = Story::running();
    let over = elected(2, OTHER, 1, "0-2-5");
    story.goal(over.clone());
    story.done(held("0-1-6", "0-1-6"));
    story.done(Outcome::Finished);
    assert_eq!(story.goal(opened(over)), "KILL 1");
    // Between the kill and its effect.
    story.event(Event::Goal(Box::new(goal(3, GoalPhase::Electing))));
    story.event(Event::Promised {
        epoch: Epoch(3),
        data: Some(data(1)),
    });
    assert_eq!(story.exited(1), "start on 1");
}

#[test]
fn a_member_that_lost_its_data_reads_the_canary_until_it_has_it() {
    let mut story = Story::follower(1);
    let mut goal = opened(elected(1, OTHER, 1, ""));
    goal.voters.members.insert(ME, Some(data(77)));
    goal.canary = 3;
    // It may not acknowledge any more, which is settled when it starts to receive.
    assert_eq!(story.goal(goal), "read canary; hold 1");
    story.done(held(&marker(1).to_string(), ""));
    story.done(Outcome::Finished);
    assert_eq!(
        story.done(Outcome::Finished),
        "",
        "once admitted, always admitted in this epoch"
    );
    assert_eq!(
        story.event(Event::Canary {
            process: process(1),
            number: Ok(2)
        }),
        ""
    );
    assert_eq!(story.after(1), "read canary");
    story.event(Event::Canary {
        process: process(1),
        number: Ok(3),
    });
    assert_eq!(report::report(&story.state, story.now).canary, 3);
    assert_eq!(story.after(1), "");
}

#[test]
fn a_voter_begins_to_acknowledge_when_its_data_is_stored() {
    let mut story = Story::running();
    let mut first = elected(1, OTHER, 1, "0-2-5");
    first.voters.members.remove(&ME);
    story.goal(first);
    story.done(held("0-2-5", "0-2-5"));
    assert_eq!(
        story.done(Outcome::Finished),
        "follow other:3307 1 acknowledge=false"
    );
    story.done(Outcome::Finished);
    story.done(Outcome::Finished);
    assert_eq!(story.goal(elected(1, OTHER, 1, "0-2-5")), "hold 1");
    assert_eq!(story.done(held(&marker(1).to_string(), "")), "apply 1");
    assert_eq!(
        story.done(Outcome::Finished),
        "follow other:3307 1 acknowledge=true"
    );
    assert_eq!(story.done(Outcome::Finished), "");
    assert_eq!(
        story.member_state(),
        MemberState::Following {
            epoch: Epoch(1),
            ready: true
        }
    );
}

/// Goal: no member waits for a marker that waits for its acknowledgement.
#[test]
fn a_voter_that_waits_for_the_marker_begins_to_acknowledge_at_once() {
    let mut story = Story::running();
    let mut first = elected(1, OTHER, 1, "0-2-5");
    first.voters.members.remove(&ME);
    story.goal(first);
    story.done(held("0-2-5", "0-2-5"));
    story.done(Outcome::Finished);
    assert_eq!(
        story.done(Outcome::Finished),
        format!("admit 1 at {}", marker(1))
    );
    assert_eq!(story.goal(elected(1, OTHER, 1, "0-2-5")), "abandon; hold 1");
}

/// Goal: nobody receives the marker before it may acknowledge it.
#[test]
fn a_voter_whose_data_is_not_stored_yet_waits_for_that() {
    let mut story = Story::running();
    let mut first = elected(1, OTHER, 1, "");
    first.voters.members.insert(ME, None);
    story.goal(first);
    assert_eq!(story.done(held("", "")), "apply 1");
    assert_eq!(story.done(Outcome::Finished), "");
    let second = elected(1, OTHER, 1, "");
    assert_eq!(story.goal(second), "follow other:3307 1 acknowledge=true");
}

#[test]
fn an_applier_that_stops_takes_the_receiver_with_it() {
    let mut story = Story::follower(1);
    let broken = Box::new(seen(true, Some("duplicate key")));
    let answer = story.event(Event::Observed {
        process: process(1),
        seen: Ok(broken),
    });
    assert_eq!(answer, "halt 1 refuse=false");
    assert_eq!(story.done(Outcome::Finished), "");
    assert_eq!(
        story.member_state(),
        MemberState::Following {
            epoch: Epoch(1),
            ready: false
        }
    );
    assert!(
        report::report(&story.state, story.now)
            .problem
            .unwrap()
            .contains("duplicate key")
    );
    assert_eq!(story.after(29), "");
    assert_eq!(story.after(1), "hold 1");
}

#[test]
fn a_receiver_without_its_master_is_told_and_left_alone() {
    let mut story = Story::follower(1);
    let alone = Box::new(seen(false, None));
    assert_eq!(
        story.event(Event::Observed {
            process: process(1),
            seen: Ok(alone)
        }),
        ""
    );
    assert_eq!(
        story.member_state(),
        MemberState::Following {
            epoch: Epoch(1),
            ready: false
        }
    );
    assert!(
        report::report(&story.state, story.now)
            .problem
            .unwrap()
            .contains("no route")
    );
}

#[test]
fn an_export_that_fails_is_tried_again_and_told() {
    let mut story = Story::running();
    let goal = elected(2, OTHER, 1, "0-2-5");
    story.goal(goal.clone());
    story.done(held("0-1-6", "0-1-6"));
    story.done(Outcome::Finished);
    story.goal(opened(goal));
    story.exited(1);
    story.done(Outcome::DataMade(data(2)));
    let exported = |export: Result<&str, &str>| Event::Exported {
        data: data(1),
        export: export.map(str::to_owned).map_err(str::to_owned),
    };
    assert_eq!(story.event(exported(Err("the disk is full"))), "");
    let told = report::report(&story.state, story.now).set_aside.unwrap();
    assert_eq!(told.problem.as_deref(), Some("the disk is full"));
    assert_eq!(story.after(299), "");
    assert_eq!(story.after(1), "export 0-1-6 of 1");
    assert_eq!(story.event(exported(Ok("a/file"))), "");
    let told = report::report(&story.state, story.now).set_aside.unwrap();
    assert_eq!(
        (told.export.as_deref(), told.problem),
        (Some("a/file"), None)
    );
    assert_eq!(story.after(10_000), "");
}

/// Goal: what an executor did not live to export the next one of the member exports, once it has the tool.
#[test]
fn an_export_of_an_earlier_executor_is_made_after_all() {
    let beyond = Beyond {
        extras: position("0-1-6"),
        common: position("0-1-5"),
        executed: position("0-1-6"),
    };
    let mut story = Story::new();
    story.state = State::new(task(), Epoch(2), Some(data(2)), story.now)
        .with_unexported(Some((data(1), beyond)));
    assert_eq!(story.quiet(), "Starting; install");
    let begun = story.done(Outcome::Installed(server()));
    assert_eq!(begun, "start on 2; export 0-1-6 of 1");
    let told = report::report(&story.state, story.now).set_aside.unwrap();
    assert_eq!((told.data, told.export), (data(1), None));
}

/// Goal: a replica that is rightly ahead is not taken for one with extra transactions. It executes what its master has not
/// committed yet, and all that it received after the election is not in the history that the master was elected for. Method:
/// both have more than that history; one has the epoch's marker before it.
#[test]
fn a_replica_that_is_rightly_ahead_has_nothing_extra() {
    let ahead = "0-2-9,4412494-2-2";
    let mut story = Story::running();
    story.goal(opened(elected(2, OTHER, 1, "0-2-5")));
    assert_eq!(story.done(held(ahead, ahead)), "apply 2");
    assert_eq!(report::report(&story.state, story.now).problem, None);

    let mut story = Story::running();
    story.goal(opened(elected(2, OTHER, 1, "0-2-5")));
    assert_eq!(story.done(held("0-2-9", "0-2-9")), "halt 2 refuse=true");
}

/// Goal: a member that has a marker which nobody acknowledged follows, with all that it holds. Anything else that it has
/// and the history lacks is still an extra.
#[test]
fn a_marker_that_was_never_acknowledged_is_no_extra() {
    let marker = |epoch: u64, server: u32| format!("{}-{server}-{epoch}", gtid::MARKER_DOMAIN);
    let past = format!("0-1-5,{}", marker(1, 1));
    let mut third = elected(3, OTHER, 1, &past);
    let lineage = [(1, ""), (2, past.as_str()), (3, past.as_str())];
    third.lineage = lineage
        .map(|(epoch, history)| Lineage {
            epoch: Epoch(epoch),
            history: position(history),
        })
        .into();
    let stray = format!("0-1-5,{}", marker(2, 2));
    let mut story = Story::running();
    story.goal(third.clone());
    assert_eq!(story.done(held(&stray, &stray)), "apply 3");
    let written = format!("0-2-6,{}", marker(2, 2));
    let mut story = Story::running();
    story.goal(third);
    assert_eq!(story.done(held(&written, &written)), "halt 3 refuse=true");
}
