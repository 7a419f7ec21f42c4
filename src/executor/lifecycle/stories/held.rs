//! Masters whose tasks are killed from outside hold on for a moment.

use super::*;

const GRACE: Duration = Duration::from_secs(15);

fn killed(may_hold: bool) -> Event {
    let grace = GRACE;
    Event::Kill { grace, may_hold }
}

fn is_held(story: &Story) -> bool {
    report::report(&story.state, story.now).held_back
}

#[test]
fn a_master_goes_on_until_another_one_has_opened() {
    let mut story = Story::master(1);
    assert_eq!(story.event(killed(true)), "Killing");
    assert!(is_held(&story));
    let (epoch, writable) = (Epoch(1), true);
    assert_eq!(
        story.member_state(),
        MemberState::Master { epoch, writable }
    );
    // Another one takes over, which takes an election like any other.
    let other = opened(elected(2, OTHER, 1, ""));
    let answer = story.goal(other);
    assert!(answer.contains("KILL 1"), "{answer}");
    assert!(!is_held(&story));
    assert_eq!(story.exited(1), "Killed; exit");
}

#[test]
fn a_master_goes_on_for_half_of_the_grace_period_at_most() {
    let mut story = Story::master(1);
    story.event(killed(true));
    story.after(6);
    assert!(is_held(&story));
    let answer = story.after(1);
    assert!(answer.contains("KILL 1"), "{answer}");
    assert_eq!(story.member_state(), MemberState::Stopping);
}

/// Goal: whatever nobody could hand over ends at once. Method: a second kill, a shutdown, a slave, a deletion.
#[test]
fn nobody_else_is_held() {
    let mut story = Story::master(1);
    story.event(killed(true));
    let again = story.event(killed(true));
    assert!(again.contains("KILL 1"), "{again}");

    let mut story = Story::master(1);
    let shutdown = story.event(killed(false));
    assert!(shutdown.contains("KILL 1"), "{shutdown}");

    let mut story = Story::follower(1);
    assert_eq!(story.event(killed(true)), "Killing; TERM 1");

    let mut story = Story::master(1);
    story.event(killed(true));
    let deleted = story.goal(goal(1, GoalPhase::Deleting));
    assert!(deleted.contains("KILL 1"), "{deleted}");
}
