//! Stories of an instance: what arrives, and what is asked of the world in answer.
//!
//! Goal: every rule of the role machine, by example. Method: each line of a story is an event; the actions
//! that follow, planned until nothing new comes, are compared as text. After every line the rules that must
//! never be broken are checked on the state and on the actions ([`Story::check`]).
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod backups;
mod ending;
mod following;
mod handover;
mod health;
mod held;
mod leading;
mod rebuilding;

use std::collections::BTreeMap;

use uuid::Uuid;

use std::time::Duration;

use super::{
    apply::{ENDS_IN_A_ROW, STEADY_AFTER},
    *,
};
use crate::{
    cluster::{
        control::{
            self, Address, Authentication, ClusterUser, Installer, Lineage, MemberState, ServerKind,
        },
        flavour::{Flavour, ServerVersion},
        gtid::Position,
        id::{MemberId, TaskId},
        timings::Timings,
        voters::{Terms, Voters},
    },
    executor::{
        action::{Birth, CopySource},
        event::{Event, Outcome},
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
        session_timeout_ms: 6_000,
        admin_keypath: "/key".into(),
        installer: Installer::Search,
        my_cnf: None,
        timings: Timings::default(),
        copy_rate_mib: 0,
        copy_cost_percent: 10,
        restore: None,
        verify: None,
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
        terms: Terms {
            number: 1,
            ..Terms::default()
        },
        canary: 0,
        lineage: Vec::new(),
        user: user(),
        addresses: [ME, OTHER, MemberId(2)]
            .map(|member| (member, address(member)))
            .into(),
        donors: BTreeMap::new(),
        from_backup: BTreeMap::new(),
        handover: None,
        backup: None,
        archive: None,
    }
}

fn address(member: MemberId) -> Address {
    Address {
        host: format!("host{member}"),
        port: 3306,
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
    /// Whether the server gives signs of life by itself.
    lives: bool,
    /// Whether commits come through by themselves.
    commits: bool,
}

impl Story {
    fn new() -> Self {
        let now = Timestamp::from_millis(1_000_000);
        Self {
            state: State::new(task(), Epoch(0), None, now),
            now,
            lives: true,
            commits: true,
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
        report::report(&self.state, self.now).state
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
                self.answer(&action);
            }
        }
        panic!("it never comes to rest: {lines:?}");
    }

    /// What a healthy server does by itself.
    fn answer(&mut self, action: &Action) {
        let event = match *action {
            Action::Ping { process } if self.lives => Event::Answered {
                process,
                alive: true,
            },
            Action::Check { process } if self.lives && self.commits => Event::Checked {
                process,
                committed: Ok(()),
            },
            _ => return,
        };
        self.state.apply(event, self.now);
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
            if let Step::MakeData {
                set_aside: Some(_),
                beyond,
            } = step
            {
                assert!(beyond.is_some(), "set aside, and nobody knows why");
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
            Step::MakeData {
                set_aside: None, ..
            } => "make data".into(),
            Step::Restore => "restore".into(),
            Step::MakeData {
                set_aside: Some(old),
                ..
            } => format!("make data for {}", old.0.as_u128()),
            Step::Start { data, birth } => match birth {
                Birth::Past => format!("start on {}", data.0.as_u128()),
                Birth::Restored => format!("first start on the restored {}", data.0.as_u128()),
                Birth::Empty => format!("first start on {}", data.0.as_u128()),
                Birth::Copied { instead_of } => format!(
                    "first start on the copy {} instead of {}",
                    data.0.as_u128(),
                    instead_of.0.as_u128()
                ),
            },
            Step::Copy {
                epoch,
                source,
                gives_way,
                ..
            } => match source {
                CopySource::Donor(donor) => {
                    let manner = if *gives_way {
                        ""
                    } else {
                        ", as fast as it can"
                    };
                    format!("copy {epoch} from {}{manner}", donor.member)
                }
                CopySource::Backup(from) => format!("copy {epoch} of the backup {}", from.id),
            },
            Step::Hold { epoch } => format!("hold {epoch}"),
            Step::Apply { epoch, .. } => format!("apply {epoch}"),
            Step::Prepare { epoch, terms } => {
                format!("prepare {epoch} k={}", terms.acknowledgements)
            }
            Step::Mark { epoch } => format!("mark {epoch}"),
            Step::Open { epoch, .. } => format!("open {epoch}"),
            Step::Follow {
                epoch,
                host,
                port,
                acknowledge,
                history: _,
            } => {
                format!("follow {host}:{port} {epoch} acknowledge={acknowledge}")
            }
            Step::Admit { epoch, marker } => format!("admit {epoch} at {marker}"),
            Step::Halt {
                epoch,
                refuse_clients,
            } => format!("halt {epoch} refuse={refuse_clients}"),
            Step::Approach {
                epoch,
                number,
                target,
                ..
            } => format!("approach {} {epoch} number={number}", target.host),
            Step::Close { epoch, target, .. } => format!("close {epoch} for {}", target.host),
            Step::Reopen { epoch, .. } => format!("reopen {epoch}"),
            Step::Yield { epoch, position } => match position {
                Some(position) => format!("yield {epoch} at {position}"),
                None => format!("yield {epoch}"),
            },
        },
        Action::Abandon { .. } => "abandon".into(),
        Action::Kill { process } => format!("KILL {}", process.0.as_u128()),
        Action::Terminate { process } => format!("TERM {}", process.0.as_u128()),
        Action::WriteCanary { number, opened, .. } => match opened {
            true => format!("write canary {number}"),
            false => format!("write canary {number} closed"),
        },
        Action::SetTerms { terms, .. } => format!(
            "set terms {} k={} barred={:?}",
            terms.number,
            terms.acknowledgements,
            terms.barred.iter().map(|m| m.0).collect::<Vec<_>>()
        ),
        Action::ReadCanary { .. } => "read canary".into(),
        Action::Prove { .. } => "prove".into(),
        Action::BackUp { order, .. } => format!("back up {}", order.number),
        Action::AbandonBackup { number } => format!("give up backup {number}"),
        Action::Archive { number, epoch, .. } => format!("archive {number} in epoch {epoch}"),
        Action::AbandonArchive { number } => format!("give up archive {number}"),
        Action::Export { data, beyond } => {
            format!("export {} of {}", beyond.extras, data.0.as_u128())
        }
        Action::Update(update) => format!("{update:?}"),
        Action::Exit => "exit".into(),
        Action::AskVoters { voters, .. } => {
            let voters: Vec<_> = voters
                .iter()
                .map(|(member, _)| member.to_string())
                .collect();
            format!("ask {}", voters.join(","))
        }
        Action::Guard { patience, .. } => format!("guard for {patience:?}"),
        Action::Feed { .. } => "feed".into(),
        Action::Ping { .. } | Action::Check { .. } => return None,
        Action::Observe { .. } | Action::Report(_) => return None,
    })
}
