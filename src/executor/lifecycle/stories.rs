//! Stories of an instance: what arrives, and what is asked of the world in answer.
//!
//! Goal: every rule of the role machine, by example. Method: each line of a story is an event; the actions
//! that follow, planned until nothing new comes, are compared as text. After every line the rules that must
//! never be broken are checked on the state and on the actions ([`Story::check`]).
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;

use uuid::Uuid;

use super::*;
use crate::{
    cluster::{
        control::{self, Authentication, ClusterUser, Installer, Lineage, MemberState, ServerKind},
        flavour::{Flavour, ServerVersion},
        gtid::Position,
        id::{MemberId, TaskId},
        voters::Voters,
    },
    mysql::{Observation, Replication},
};

const ME: MemberId = MemberId(0);
const OTHER: MemberId = MemberId(1);
const CLUSTER: Uuid = Uuid::from_u128(0xc);

fn data(n: u128) -> DataId {
    DataId(Uuid::from_u128(n))
}

fn process(n: u128) -> ProcessId {
    ProcessId(Uuid::from_u128(n))
}

fn position(text: &str) -> Position {
    Position::parse(Flavour::Mariadb, text).unwrap()
}

fn user() -> ClusterUser {
    let authentication = Authentication {
        mysql: "m".into(),
        mariadb: "d".into(),
    };
    ClusterUser {
        name: "u".into(),
        authentication,
    }
}

fn server() -> ServerKind {
    ServerKind {
        flavour: Flavour::Mariadb,
        version: ServerVersion::new(10, 11, 19),
    }
}

fn task() -> TaskData {
    TaskData {
        format: control::FORMAT,
        cluster: "c".parse().unwrap(),
        uuid: CLUSTER,
        member: ME,
        task_id: TaskId::from_wire("t"),
        port: 3306,
        memory_mib: 512,
        zookeeper: "zk://localhost/cotton".into(),
        zookeeper_identity: None,
        session_timeout_ms: 10_000,
        admin_keypath: "/key".into(),
        installer: Installer::Search,
    }
}

/// A goal of three voters, all with their data stored, whose lineage is empty.
fn goal(epoch: u64, phase: GoalPhase) -> Goal {
    Goal {
        format: control::FORMAT,
        uuid: CLUSTER,
        epoch: Epoch(epoch),
        phase,
        voters: Voters {
            version: 1,
            members: BTreeMap::from([
                (ME, Some(data(1))),
                (OTHER, Some(data(9))),
                (MemberId(2), None),
            ]),
            k_floor: 1,
        },
        canary: 0,
        lineage: Vec::new(),
        user: user(),
    }
}

/// `member`, with data and process of that number, is elected for what it held.
fn elected(epoch: u64, member: MemberId, incarnation: u128, history: &str) -> Goal {
    let master = MasterGoal {
        member,
        data: data(if member == ME { 1 } else { 9 }),
        process: process(incarnation),
        host: "other".into(),
        port: 3307,
        history: position(history),
        opened: false,
    };
    let mut goal = goal(epoch, GoalPhase::Elected(master));
    goal.lineage = vec![Lineage {
        epoch: Epoch(epoch),
        history: position(history),
    }];
    goal
}

fn opened(mut goal: Goal) -> Goal {
    if let GoalPhase::Elected(master) = &mut goal.phase {
        master.opened = true;
    }
    goal
}

fn held(held: &str, executed: &str) -> Outcome {
    Outcome::Held {
        position: position(held),
        executed: position(executed),
    }
}

fn seen(receiving: bool, applier_error: Option<&str>) -> Observation {
    Observation {
        read_only: true,
        clients_admitted: true,
        replication: Some(Replication {
            host: "other".into(),
            port: 3307,
            receiving,
            applying: applier_error.is_none(),
            receiver_error: (!receiving).then(|| "no route".into()),
            applier_error: applier_error.map(str::to_owned),
        }),
        received: position(""),
        executed: position(""),
        acknowledging: receiving,
        waiting_sessions: 0,
        clients: 0,
    }
}

struct Story {
    state: State,
    now: Timestamp,
}

impl Story {
    fn new() -> Self {
        let now = Timestamp::from_millis(1_000_000);
        Self {
            state: State::new(task(), Epoch(0), None, now),
            now,
        }
    }

    /// A member that runs, closed, with data 1 and process 1.
    fn running() -> Self {
        let mut story = Self::new();
        story.quiet();
        story.done(Outcome::Installed(server()));
        story.done(Outcome::DataMade(data(1)));
        story.done(Outcome::Started(process(1)));
        story.event(Event::Promised {
            epoch: Epoch(0),
            data: Some(data(1)),
        });
        story
    }

    /// The master of an epoch.
    fn master(epoch: u64) -> Self {
        let mut story = Self::running();
        story.goal(elected(epoch, ME, 1, ""));
        story.done(held("", ""));
        for _ in ["apply", "prepare", "mark", "open"] {
            story.done(Outcome::Finished);
        }
        assert_eq!(
            story.member_state(),
            MemberState::Master {
                epoch: Epoch(epoch),
                writable: true
            }
        );
        story
    }

    /// A ready follower of the other member.
    fn follower(epoch: u64) -> Self {
        let mut story = Self::running();
        story.goal(elected(epoch, OTHER, 1, ""));
        story.done(held("", ""));
        for _ in ["apply", "follow", "admit"] {
            story.done(Outcome::Finished);
        }
        assert_eq!(
            story.member_state(),
            MemberState::Following {
                epoch: Epoch(epoch),
                ready: true
            }
        );
        story.event(Event::Observed {
            process: process(1),
            seen: Ok(Box::new(seen(true, None))),
        });
        story
    }

    fn member_state(&self) -> MemberState {
        report::report(&self.state).state
    }

    /// Plans until nothing new comes; the actions as text, without reports and looks.
    fn quiet(&mut self) -> String {
        let mut lines = Vec::new();
        for _ in 0..20 {
            let plan = plan(&self.state, self.now);
            if plan.actions.is_empty() {
                return lines.join("; ");
            }
            for action in plan.actions {
                self.check(&action);
                self.state.begin(&action, self.now);
                lines.extend(text(&action));
            }
        }
        panic!("it never comes to rest: {lines:?}");
    }

    fn event(&mut self, event: Event) -> String {
        self.state.apply(event, self.now);
        self.quiet()
    }

    /// A goal, and the promise that it needs.
    fn goal(&mut self, goal: Goal) -> String {
        let epoch = goal.epoch;
        let first = self.event(Event::Goal(Box::new(goal)));
        if !first.contains("promise") {
            return first;
        }
        let data = self.state.promised.data;
        let second = self.event(Event::Promised { epoch, data });
        if second.is_empty() {
            first
        } else {
            format!("{first}; {second}")
        }
    }

    fn outcome(&mut self, outcome: Result<Outcome, String>) -> String {
        let number = self.state.step_under_way().expect("a step is under way");
        self.event(Event::Done { number, outcome })
    }

    fn done(&mut self, outcome: Outcome) -> String {
        self.outcome(Ok(outcome))
    }

    fn failed(&mut self) -> String {
        self.outcome(Err("it broke".into()))
    }

    fn exited(&mut self, n: u128) -> String {
        self.event(Event::Exited {
            process: process(n),
            how: "ended with signal 9".into(),
        })
    }

    fn after(&mut self, seconds: u64) -> String {
        self.now = self.now.plus(Duration::from_secs(seconds));
        self.quiet()
    }

    /// What must never be asked, whatever the story.
    fn check(&self, action: &Action) {
        let state = &self.state;
        if let Action::Begin { step, .. } = action {
            assert!(state.lane.is_none(), "two steps at once");
            if let Some(epoch) = step.epoch() {
                assert_eq!(
                    epoch, state.promised.epoch,
                    "a step of an epoch that is not promised"
                );
                assert!(
                    state.data_in_use().is_some(),
                    "a step on data that is not promised"
                );
            }
            if step.is_masters() {
                let epoch = step.epoch().unwrap();
                assert!(
                    state.my_mastership(epoch).is_some(),
                    "only the elected process may lead"
                );
                assert!(!plan::lacks_history(state));
            }
            if let Step::Open { epoch, .. } = step {
                assert_eq!(
                    state.role,
                    Role::Marked(*epoch),
                    "opened without the marker"
                );
            }
            if let Step::Follow { .. } = step {
                assert!(
                    state.held.is_some() && plan::extras(state).is_none(),
                    "pointed unseen"
                );
            }
            if let Step::MakeData { set_aside: Some(_) } = step {
                let goal = state.goal.as_ref().unwrap();
                let GoalPhase::Elected(master) = &goal.phase else {
                    panic!("set aside too early")
                };
                assert!(
                    master.opened,
                    "set aside before the marker was acknowledged"
                );
            }
        }
        if let Action::Report(report) = action {
            assert_eq!(
                report.promised, state.promised.epoch,
                "reported before it was promised"
            );
            assert!(
                report
                    .held
                    .as_ref()
                    .is_none_or(|held| held.epoch <= report.promised)
            );
        }
    }
}

fn text(action: &Action) -> Option<String> {
    Some(match action {
        Action::Promise { epoch, data } => match data {
            Some(data) => format!("promise {epoch} on {}", data.0.as_u128()),
            None => format!("promise {epoch}"),
        },
        Action::Begin { step, .. } => match step {
            Step::Install => "install".into(),
            Step::MakeData { set_aside: None } => "make data".into(),
            Step::MakeData {
                set_aside: Some(old),
            } => format!("make data for {}", old.0.as_u128()),
            Step::Start { data, birth: true } => format!("first start on {}", data.0.as_u128()),
            Step::Start { data, birth: false } => format!("start on {}", data.0.as_u128()),
            Step::Hold { epoch } => format!("hold {epoch}"),
            Step::Apply { epoch, .. } => format!("apply {epoch}"),
            Step::Prepare {
                epoch,
                acknowledgements,
            } => format!("prepare {epoch} k={acknowledgements}"),
            Step::Mark { epoch } => format!("mark {epoch}"),
            Step::Open { epoch, .. } => format!("open {epoch}"),
            Step::Follow {
                epoch,
                host,
                port,
                acknowledge,
            } => {
                format!("follow {host}:{port} {epoch} acknowledge={acknowledge}")
            }
            Step::Admit { epoch, marker } => format!("admit {epoch} at {marker}"),
            Step::Halt {
                epoch,
                refuse_clients,
            } => format!("halt {epoch} refuse={refuse_clients}"),
        },
        Action::Abandon { .. } => "abandon".into(),
        Action::Kill { process } => format!("KILL {}", process.0.as_u128()),
        Action::Terminate { process } => format!("TERM {}", process.0.as_u128()),
        Action::WriteCanary { number, .. } => format!("write canary {number}"),
        Action::ReadCanary { .. } => "read canary".into(),
        Action::Prove { .. } => "prove".into(),
        Action::Update(update) => format!("{update:?}"),
        Action::Exit => "exit".into(),
        Action::Observe { .. } | Action::Report(_) => return None,
    })
}

#[test]
fn an_instance_comes_up_closed() {
    let mut story = Story::new();
    assert_eq!(story.quiet(), "Starting; install");
    assert_eq!(story.member_state(), MemberState::Provisioning);
    assert_eq!(story.done(Outcome::Installed(server())), "make data");
    assert_eq!(story.done(Outcome::DataMade(data(1))), "first start on 1");
    assert_eq!(story.done(Outcome::Started(process(1))), "promise 0 on 1");
    assert_eq!(
        report::report(&story.state).data,
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
        assert_eq!(report::report(&story.state).held.unwrap().epoch, Epoch(1));
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
    assert!(report::report(&story.state).problem.is_some());
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
            report::report(&story.state).held,
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
    assert_eq!(report::report(&story.state).promised, Epoch(1));
    assert_eq!(story.after(1), "promise 2 on 1");
}

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
        report::report(&story.state).held.unwrap().position,
        position("0-2-5")
    );
    assert_eq!(story.goal(elected(2, OTHER, 2, "0-2-5")), "apply 2");
    assert_eq!(
        story.done(Outcome::Finished),
        "follow other:3307 2 acknowledge=true"
    );
    assert_eq!(
        report::report(&story.state).held.map(|h| h.epoch),
        Some(Epoch(2))
    );
    story.done(Outcome::Finished);
    assert_eq!(report::report(&story.state).held, None, "it receives again");
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
        report::report(&story.state)
            .problem
            .unwrap()
            .contains("0-1-6")
    );
    assert_eq!(story.goal(opened(goal)), "KILL 1");
    assert_eq!(story.exited(1), "make data for 1");
    assert_eq!(story.done(Outcome::DataMade(data(2))), "first start on 2");
    assert_eq!(story.done(Outcome::Started(process(2))), "promise 2 on 2");
    assert_eq!(report::report(&story.state).data, None);
    let answer = story.event(Event::Promised {
        epoch: Epoch(2),
        data: Some(data(2)),
    });
    assert_eq!(answer, "hold 2");
    assert_eq!(report::report(&story.state).data, Some(data(2)));
    assert_eq!(story.done(held("", "")), "apply 2");
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
    assert_eq!(report::report(&story.state).canary, 3);
    assert_eq!(story.after(1), "");
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

#[test]
fn a_voter_begins_to_acknowledge_when_its_data_is_stored() {
    let mut story = Story::running();
    let mut first = elected(1, OTHER, 1, "");
    first.voters.members.remove(&ME);
    story.goal(first);
    story.done(held("", ""));
    assert_eq!(
        story.done(Outcome::Finished),
        "follow other:3307 1 acknowledge=false"
    );
    story.done(Outcome::Finished);
    story.done(Outcome::Finished);
    assert_eq!(story.goal(elected(1, OTHER, 1, "")), "hold 1");
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
    let mut first = elected(1, OTHER, 1, "");
    first.voters.members.remove(&ME);
    story.goal(first);
    story.done(held("", ""));
    story.done(Outcome::Finished);
    assert_eq!(
        story.done(Outcome::Finished),
        format!("admit 1 at {}", marker(1))
    );
    assert_eq!(story.goal(elected(1, OTHER, 1, "")), "abandon; hold 1");
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
        report::report(&story.state)
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
    assert_eq!(report::report(&story.state).problem, None);
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
        report::report(&story.state)
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
        report::report(&story.state)
            .problem
            .unwrap()
            .contains("no route")
    );
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
    let report = report::report(&story.state);
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
    assert_eq!(story.event(Event::Kill { grace }), "Killing; TERM 1");
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
    });
    assert_eq!(story.after(3), "");
    assert_eq!(story.after(1), "KILL 1");
}

#[test]
fn a_master_whose_commits_may_wait_is_killed_at_once() {
    let mut story = Story::master(1);
    let kill = Event::Kill {
        grace: Duration::from_secs(15),
    };
    assert_eq!(story.event(kill), "Killing; KILL 1");
}

#[test]
fn a_task_that_is_killed_while_it_is_made_ready_ends() {
    let mut story = Story::new();
    story.quiet();
    let kill = Event::Kill {
        grace: Duration::from_secs(15),
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
    };
    assert_eq!(story.quiet(), "Starting; install");
    assert_eq!(story.done(Outcome::Installed(server())), "start on 1");
    assert_eq!(story.done(Outcome::Started(process(1))), "Running");
    assert_eq!(story.goal(elected(3, ME, 1, "")), "");
    assert_eq!(story.goal(goal(4, GoalPhase::Electing)), "hold 4");
}
