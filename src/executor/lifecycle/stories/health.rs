//! Faults of the server told apart, and the lease of a master that is out of touch with ZooKeeper.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use crate::cluster::control::Trouble;

impl Story {
    fn trouble(&self) -> Option<Trouble> {
        report::report(&self.state, self.now).trouble
    }

    fn problem(&self) -> String {
        report::report(&self.state, self.now)
            .problem
            .unwrap_or_default()
    }

    /// The master of a cluster whose commits wait for nobody.
    fn lone_master(voters: &[MemberId]) -> Self {
        let mut story = Self::running();
        let mut goal = elected(1, ME, 1, "");
        goal.voters.k_floor = 0;
        goal.voters.members = voters.iter().map(|member| (*member, None)).collect();
        story.goal(goal);
        story.done(held("", ""));
        for _ in ["apply", "prepare", "mark"] {
            story.done(Outcome::Finished);
        }
        story
    }

    /// The same, guarded and open.
    fn guarded_master() -> Self {
        let mut story = Self::lone_master(&[ME, OTHER]);
        assert_eq!(story.guarded(Ok(())), "open 1");
        story.done(Outcome::Finished);
        story
    }

    fn guarded(&mut self, started: Result<(), String>) -> String {
        self.event(Event::Guarded {
            process: process(1),
            started,
        })
    }

    fn contact(&mut self, in_touch: bool) -> String {
        self.event(Event::Contact { in_touch })
    }

    fn voters_say(&mut self, all_receive: Result<(), String>) -> String {
        self.event(Event::VotersAsked {
            process: process(1),
            all_receive,
        })
    }

    /// A look that sees so many commits wait, with this executed.
    fn look(&mut self, waiting_sessions: u32, executed: &str) -> String {
        let executed = position(executed);
        self.event(Event::Observed {
            process: process(1),
            seen: Ok(Box::new(Observation {
                waiting_sessions,
                executed,
                clients: 2,
                ..seen(false, None)
            })),
        })
    }

    fn space(&mut self, available: u64) -> String {
        self.event(Event::Space {
            available: Some(available),
        })
    }

    /// Lets seconds pass one by one, with looks that see the same.
    fn pass(&mut self, seconds: u64, waiting_sessions: u32) -> String {
        let mut lines = Vec::new();
        for _ in 0..seconds {
            lines.push(self.after(1));
            lines.push(self.look(waiting_sessions, ""));
        }
        lines.retain(|line| !line.is_empty());
        lines.join("; ")
    }
}

/// Goal: a server that gives no sign of life is killed after the hang timeout, started again closed, and the report
/// tells why it died until it is up again.
#[test]
fn a_server_that_hangs_is_killed() {
    for mut story in [Story::master(1), Story::follower(1), Story::running()] {
        story.lives = false;
        story.after(1);
        assert_eq!(story.after(2), "", "asked a second ago");
        assert_eq!(story.after(1), "KILL 1");
        assert_eq!(story.trouble(), Some(Trouble::Hung));
        assert_eq!(story.exited(1), "start on 1");
        assert_eq!(story.member_state(), MemberState::Dead);
        assert_eq!(story.trouble(), Some(Trouble::Hung));
        assert!(story.problem().contains("no sign of life for 3s"));
        story.lives = true;
        story.done(Outcome::Started(process(2)));
        assert_eq!(story.trouble(), None);
        assert_eq!(story.problem(), "");
    }
}

#[test]
fn a_master_that_hangs_is_no_master_from_when_it_is_killed() {
    let mut story = Story::master(1);
    story.lives = false;
    story.after(1);
    story.after(3);
    let refused = MemberState::Refused { epoch: Epoch(1) };
    assert_eq!(story.member_state(), refused, "its end may take a while");
}

#[test]
fn any_answer_is_a_sign_of_life() {
    let mut story = Story::follower(1);
    story.lives = false;
    story.after(1);
    for _ in 0..10 {
        assert_eq!(story.after(2), "");
        assert_eq!(story.look(0, ""), "");
    }
    assert_eq!(story.after(3), "KILL 1");
}

#[test]
fn an_executor_that_overslept_gives_the_server_its_time_anew() {
    let mut story = Story::master(1);
    story.lives = false;
    story.after(1);
    story.now = story.now.plus(Duration::from_secs(60));
    assert_eq!(story.event(Event::Overslept), "");
    assert_eq!(story.after(2), "");
    assert_eq!(story.after(1), "KILL 1");
}

#[test]
fn a_server_that_hangs_each_time_is_given_up() {
    let mut story = Story::master(1);
    let mut told = String::new();
    for n in 1..=ENDS_IN_A_ROW as u128 {
        story.lives = false;
        story.after(1);
        story.after(3);
        told = story.exited(n);
        story.lives = true;
        if told.is_empty() {
            told = story.after(60);
        }
        if told.starts_with("start") {
            story.done(Outcome::Started(process(n + 1)));
        }
    }
    assert!(told.contains("Failed") && told.ends_with("exit"), "{told}");
}

/// Goal: commits that do not come through although nobody waits end the server, and no sooner than in the commit
/// timeout.
#[test]
fn a_master_whose_disk_stalls_is_killed() {
    let mut story = Story::master(1);
    story.look(0, "");
    story.commits = false;
    story.after(1);
    assert_eq!(story.pass(9, 0), "");
    assert_eq!(story.trouble(), None);
    assert_eq!(story.after(1), "KILL 1");
    assert_eq!(story.trouble(), Some(Trouble::Stalled));
}

#[test]
fn a_marker_that_does_not_reach_the_disk_ends_the_server_too() {
    let mut story = Story::running();
    story.goal(elected(1, ME, 1, ""));
    story.done(held("", ""));
    story.done(Outcome::Finished);
    assert_eq!(story.done(Outcome::Finished), "mark 1");
    assert_eq!(story.pass(9, 0), "");
    assert_eq!(story.pass(2, 0), "KILL 1");
}

/// Goal: an acknowledgement that comes at last is not taken for a stalled disk. Method: commits wait for longer than
/// the commit timeout; then a look sees none wait, before the commit's own end has arrived.
#[test]
fn commits_that_wait_for_acknowledgements_are_no_stalled_disk() {
    let mut story = Story::master(1);
    story.commits = false;
    story.after(1);
    story.pass(12, 1);
    assert_eq!(story.trouble(), Some(Trouble::Unacknowledged));
    assert_eq!(story.look(0, ""), "");
    assert_eq!(story.pass(8, 0), "");
}

#[test]
fn after_three_commit_timeouts_without_acknowledgement_another_master_is_asked_for() {
    let mut story = Story::master(1);
    story.commits = false;
    story.after(1);
    story.pass(28, 1);
    assert_eq!(story.trouble(), Some(Trouble::Unacknowledged));
    story.pass(3, 1);
    assert_eq!(story.trouble(), Some(Trouble::Stuck));
    assert!(story.problem().contains("another member should be master"));
    let master = MemberState::Master {
        epoch: Epoch(1),
        writable: true,
    };
    assert_eq!(story.member_state(), master, "it goes on until then");
}

#[test]
fn a_full_disk_is_told_at_once_and_kills_where_every_acknowledged_write_is_elsewhere() {
    let mut story = Story::master(1);
    story.look(0, "");
    story.space(0);
    assert_eq!(story.trouble(), Some(Trouble::Full));
    story.commits = false;
    story.after(1);
    assert_eq!(story.pass(9, 0), "");
    assert_eq!(story.after(1), "KILL 1");

    let mut story = Story::guarded_master();
    story.space(0);
    story.commits = false;
    assert!(!story.pass(60, 0).contains("KILL"), "here only, perhaps");
    assert_eq!(story.trouble(), Some(Trouble::Full));
    story.commits = true;
    story.event(Event::Checked {
        process: process(1),
        committed: Ok(()),
    });
    story.space(1 << 30);
    assert_eq!(story.trouble(), None);
}

#[test]
fn a_server_that_is_alone_is_not_killed_for_its_disk() {
    let mut story = Story::lone_master(&[ME]);
    story.done(Outcome::Finished);
    story.commits = false;
    assert_eq!(story.pass(60, 0), "");
    assert_eq!(story.trouble(), Some(Trouble::Stalled));
}

/// Goal: no commits of our own where clients' commits show the same.
#[test]
fn a_busy_master_makes_no_commits_of_its_own() {
    let mut story = Story::master(1);
    story.look(0, "0-1-10");
    // The first of these looks may still count a check's own commit.
    story.after(1);
    story.look(0, "0-1-20");
    story.commits = false;
    for n in 3..40 {
        story.after(1);
        story.look(0, &format!("0-1-{n}0"));
    }
    assert_eq!(
        story.trouble(),
        None,
        "none was under way, or it had stalled"
    );
    // One of its own is not somebody else's.
    let mut story = Story::master(1);
    for n in 1..40 {
        story.look(0, &format!("0-1-{n}"));
        story.after(1);
    }
    story.commits = false;
    story.after(1);
    story.look(0, "0-1-40");
    assert_eq!(story.pass(11, 0), "KILL 1");
}

// === the lease ===

/// Goal: a master of a majority goes on without ZooKeeper for as long as its commits are acknowledged (I5), and
/// no longer.
#[test]
fn without_zookeeper_acknowledged_commits_prove_that_a_master_is_not_replaced() {
    let mut story = Story::master(1);
    assert_eq!(story.contact(false), "");
    assert_eq!(story.pass(60, 0), "");
    story.commits = false;
    let told = story.pass(5, 1);
    assert!(!told.contains("KILL"), "the last proof is five seconds old");
    assert_eq!(story.after(1), "KILL 1");
    assert_eq!(story.trouble(), Some(Trouble::Lapsed));
    assert_eq!(story.exited(1), "start on 1", "closed, and at once");
    assert!(
        story.problem().contains("lease of 6s"),
        "{}",
        story.problem()
    );
}

/// Goal: what clients commit, and a commit begun before the touch was lost, prove nothing.
#[test]
fn only_commits_begun_since_are_proof() {
    let mut story = Story::master(1);
    story.commits = false;
    story.after(1);
    story.now = story.now.plus(Duration::from_millis(1));
    story.contact(false);
    story.event(Event::Checked {
        process: process(1),
        committed: Ok(()),
    });
    let mut told = String::new();
    for n in 1..=3 {
        told = story.after(1);
        story.look(0, &format!("0-1-{n}0"));
    }
    assert_eq!(
        told, "",
        "the client library sees it late: 2.4 s of it are gone"
    );
    assert_eq!(story.after(1), "KILL 1");
}

#[test]
fn in_touch_again_the_lease_is_whole_again() {
    let mut story = Story::master(1);
    story.commits = false;
    for _ in 0..5 {
        story.contact(false);
        assert_eq!(story.pass(3, 1), "");
        assert_eq!(story.contact(true), "");
        story.pass(1, 1);
    }
    assert_ne!(story.trouble(), Some(Trouble::Lapsed));
}

#[test]
fn a_master_that_is_alone_goes_on_for_ever() {
    let mut story = Story::lone_master(&[ME]);
    story.done(Outcome::Finished);
    story.contact(false);
    assert_eq!(story.pass(100, 0), "", "and it needs no watchdog");
}

/// Goal: with `k = 0` every other voter has to say that it still follows.
#[test]
fn without_acknowledgements_all_voters_must_say_that_they_follow() {
    let mut story = Story::guarded_master();
    assert_eq!(story.contact(false), "ask 1");
    assert_eq!(story.voters_say(Ok(())), "");
    for _ in 0..20 {
        assert_eq!(story.after(1), "ask 1");
        assert_eq!(story.voters_say(Ok(())), "feed");
    }
    let denied = "member 1 does not follow it any more";
    for _ in 0..5 {
        assert_eq!(story.after(1), "ask 1");
        assert_eq!(
            story.voters_say(Err(denied.into())),
            "",
            "no food without proof"
        );
    }
    assert_eq!(story.after(1), "KILL 1");
    assert!(
        story
            .problem()
            .contains("member 1 does not follow it any more")
    );
    story.exited(1);
    assert!(
        story
            .problem()
            .contains("member 1 does not follow it any more")
    );
}

#[test]
fn no_answer_is_no_proof() {
    let mut story = Story::guarded_master();
    story.contact(false);
    assert_eq!(story.after(3), "");
    assert_eq!(story.after(1), "KILL 1");
}

/// Goal: with `k = 0` no master opens without a watchdog, and it is fed while there is proof.
#[test]
fn a_watchdog_comes_before_opening() {
    let mut story = Story::lone_master(&[ME, OTHER]);
    assert_eq!(story.quiet(), "", "it is being started");
    assert_eq!(story.guarded(Err("no process left".into())), "");
    assert!(story.problem().contains("no process left"));
    assert_eq!(story.after(1), "guard for 7s");
    assert_eq!(story.guarded(Ok(())), "open 1");
    assert_eq!(story.done(Outcome::Finished), "");
    assert_eq!(story.after(1), "feed");
    let ended = Event::GuardEnded {
        process: process(1),
    };
    assert_eq!(story.event(ended), "guard for 7s");
}

#[test]
fn a_server_that_is_being_stopped_is_fed() {
    let mut story = Story::guarded_master();
    let kill = Event::Kill {
        grace: Duration::from_secs(15),
        may_hold: false,
    };
    assert_eq!(story.event(kill), "Killing; TERM 1");
    assert_eq!(story.after(1), "feed");
}

#[test]
fn nobody_opens_who_may_have_been_replaced() {
    let mut story = Story::lone_master(&[ME, OTHER]);
    story.contact(false);
    story.after(10);
    assert_eq!(story.guarded(Ok(())), "");
    assert_eq!(story.contact(true), "open 1");
}

/// Goal: a voter that receives nothing although it is connected connects anew, once in so long. Method: looks that see
/// the same; one that sees more in between.
#[test]
fn a_voter_that_receives_nothing_connects_anew() {
    let mut story = Story::follower(1);
    story.goal(opened(elected(1, OTHER, 1, "")));
    let look = |story: &mut Story, received: &str| {
        let begun = story.after(1);
        let seen = Observation {
            received: position(received),
            ..seen(true, None)
        };
        let told = story.event(Event::Observed {
            process: process(1),
            seen: Ok(Box::new(seen)),
        });
        begun + &told
    };
    for n in 1..20 {
        assert_eq!(look(&mut story, &format!("0-1-{n}")), "");
    }
    for _ in 0..11 {
        assert_eq!(look(&mut story, "0-1-19"), "");
    }
    assert_eq!(look(&mut story, "0-1-19"), "hold 1");
    assert_eq!(story.done(held("", "")), "apply 1");
    assert!(story.done(Outcome::Finished).starts_with("follow"));
    story.done(Outcome::Finished);
    for _ in 0..11 {
        assert_eq!(look(&mut story, "0-1-19"), "");
    }
}

/// Goal: a voter whose master has still to apply what it had received itself asks it again, also while it waits for the marker,
/// which waits for the voter. Method: looks that see the refusal of a MariaDB server.
#[test]
fn a_voter_that_was_sooner_than_its_master_asks_again() {
    let mut story = Story::running();
    story.goal(elected(2, OTHER, 1, "0-2-5"));
    assert_eq!(story.done(held("0-2-5", "0-2-3")), "apply 2");
    assert!(story.done(Outcome::Finished).starts_with("follow"));
    assert!(story.done(Outcome::Finished).starts_with("admit"));
    let words = "Got fatal error 1236 from master when reading data from binary log: 'Error: connecting slave requested to start from GTID 0-2-5, which is not in the master's binlog'";
    let look = |story: &mut Story| {
        let mut refused = seen(false, None);
        refused.executed = position("0-2-5");
        if let Some(replication) = &mut refused.replication {
            replication.receiver_error = Some(words.to_owned());
        }
        story.event(Event::Observed {
            process: process(1),
            seen: Ok(Box::new(refused)),
        })
    };
    assert_eq!(look(&mut story), "");
    story.after(1);
    assert_eq!(look(&mut story), "abandon; hold 2");
    assert_eq!(story.done(held("0-2-5", "0-2-5")), "apply 2");
    assert!(story.done(Outcome::Finished).starts_with("follow"));
}
