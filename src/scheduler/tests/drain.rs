//! Agents that are to be taken away: masters hand over, members move where they have to, and then the agents are given away.

use std::time::Duration;

use super::{
    membership::set,
    world::{PASSWORD, World, name},
};
use crate::{
    cluster::{
        flavour::Flavour,
        id::{MemberId, TaskId},
        voters::Durability,
    },
    scheduler::{
        action::{Action, Plan},
        check::{check, refuse},
        event::{Event, TaskState, Wish},
        maintenance::InverseOffer,
    },
    time::Timestamp,
};

const MINUTE: Duration = Duration::from_secs(60);

/// Shorter than the grace time after which members are replaced.
const SHORT: Option<Duration> = Some(Duration::from_secs(600));

const LONG: Option<Duration> = Some(Duration::from_secs(3600));

/// What is planned for an agent.
#[derive(Clone, Copy)]
struct Planned<'a> {
    agent: &'a str,
    from: Timestamp,
    lasts: Option<Duration>,
}

impl World {
    fn on_slots(nodes: u32, agents: u32) -> Self {
        let mut world = Self::spacious(Flavour::Mysql, nodes, agents, Durability::Majority);
        world.pass(MINUTE);
        world.converge();
        world
    }

    fn agent_of(&self, member: u32) -> String {
        let task = self.record().task(MemberId(member)).unwrap();
        task.agent_id.clone()
    }

    fn master(&self) -> Option<u32> {
        self.record().published.master.map(|master| master.0)
    }

    /// Mesos asks for agents as it does, each minute, until all of them are given away or so many minutes have passed. What was
    /// answered last, in the order of `planned`.
    fn asked_for(&mut self, planned: &[Planned<'_>], minutes: u32) -> Vec<bool> {
        let mut last = Vec::new();
        for minute in 0..minutes {
            self.inverse_answers.clear();
            for (index, planned) in planned.iter().enumerate() {
                self.tell(Event::Inverse(InverseOffer {
                    id: format!("{minute}-{index}"),
                    agent_id: planned.agent.to_owned(),
                    from: planned.from,
                    lasts: planned.lasts,
                }));
            }
            let mut answers = std::mem::take(&mut self.inverse_answers);
            assert_eq!(answers.len(), planned.len(), "each is answered once");
            answers.sort();
            last = answers.into_iter().map(|(_, accepted)| accepted).collect();
            if last.iter().all(|accepted| *accepted) {
                return last;
            }
            self.go_on(MINUTE);
        }
        last
    }

    fn planned_for<'a>(&self, agent: &'a str, lasts: Option<Duration>) -> Planned<'a> {
        let from = self.now().plus(Duration::from_secs(1800));
        Planned { agent, from, lasts }
    }

    fn told_of_maintenance(&self) -> String {
        self.explanation().standing.maintenance.join("; ")
    }
}

#[test]
fn a_slave_that_comes_back_soon_stays() {
    let mut world = World::on_slots(3, 4);
    let agent = world.agent_of(2);
    let planned = world.planned_for(&agent, SHORT);
    assert_eq!(world.asked_for(&[planned], 1), [true]);
    assert_eq!(world.members(), set([0, 1, 2]));
    let told = world.told_of_maintenance();
    assert!(
        told.ends_with("member 2 runs there; it stays, and comes back with its agent"),
        "{told}"
    );
}

#[test]
fn a_master_hands_over_first() {
    let mut world = World::on_slots(3, 3);
    let agent = world.agent_of(0);
    let planned = world.planned_for(&agent, SHORT);
    assert_eq!(world.asked_for(&[planned], 1), [false]);
    assert_eq!(world.asked_for(&[planned], 2), [true]);
    assert_ne!(world.master(), Some(0));
    assert_eq!(world.members(), set([0, 1, 2]));
    let outcome = world.record().switchover.clone().unwrap();
    assert_eq!(outcome.from, MemberId(0));
}

#[test]
fn who_would_be_away_for_long_moves_first() {
    for (member, lasts) in [(2, LONG), (0, LONG), (1, None)] {
        let mut world = World::on_slots(3, 4);
        let agent = world.agent_of(member);
        let planned = world.planned_for(&agent, lasts);
        assert_eq!(world.asked_for(&[planned], 1), [false]);
        assert_eq!(
            world.asked_for(&[planned], 10),
            [true],
            "{}",
            world.told_of()
        );
        assert!(!world.members().contains(&member));
        assert!(world.members().contains(&3));
        assert_eq!(world.who_votes().len(), 3);
        assert_ne!(world.agent_of(3), agent);
    }
}

/// Goal: a member that comes while maintenance is planned for the only agent that it can have stays there if it comes back with the agent, and
/// waits for another one if it had to leave at once. Method: a fourth member is asked for, and a replacement; maintenance that
/// is short, long and for ever.
#[test]
fn a_newcomer_goes_where_it_may_stay() {
    for lasts in [SHORT, LONG, None] {
        for asks in [
            Wish::Scale { num_nodes: 4 },
            Wish::Replace {
                member: MemberId(1),
            },
        ] {
            let mut world = World::on_slots(3, 4);
            world.state.policy.spread_patience = None;
            let taken = [0, 1, 2].map(|member| world.agent_of(member));
            let all = (0..4).map(|agent| format!("a{agent}"));
            let free = all.into_iter().find(|it| !taken.contains(it)).unwrap();
            let planned = world.planned_for(&free, lasts);
            world.asked_for(&[planned], 1);
            world.ask(Some(PASSWORD), asks.clone());
            for _ in 0..10 {
                world.asked_for(&[planned], 1);
                world.go_on(MINUTE);
            }
            let told = world.told_of();
            assert_eq!(
                world.record().next_member(),
                MemberId(4),
                "{lasts:?} {asks:?}: {told}"
            );
            let task = world.record().task(MemberId(3));
            let agent = task.map(|task| task.agent_id.clone());
            let expected = (lasts == SHORT).then_some(free);
            assert_eq!(agent, expected, "{lasts:?} {asks:?}: {told}");
            assert!(world.record().members[&MemberId(3)].leaving.is_none());
            assert_eq!(world.master(), Some(0), "{told}");
        }
    }
}

/// Goal: a cluster that cannot do without a member has it elsewhere before the agent goes, at every cut. Method: clusters of one
/// and two, each member's agent, the scheduler replaced after each of the first stored records.
#[test]
fn nobody_falls_below_the_quorum() {
    for (nodes, member) in [(1, 0), (2, 0), (2, 1)] {
        for cut in std::iter::once(None).chain((0..12).map(Some)) {
            let mut world = World::on_slots(nodes, nodes + 1);
            let agent = world.agent_of(member);
            let planned = world.planned_for(&agent, SHORT);
            world.cut_after = cut;
            assert_eq!(world.asked_for(&[planned], 1), [false]);
            assert_eq!(
                world.asked_for(&[planned], 15),
                [true],
                "{}",
                world.told_of()
            );
            assert!(
                !world.members().contains(&member),
                "{nodes} {member} {cut:?}"
            );
            assert_eq!(world.members().len() as u32, nodes);
            let agents = world.record().members.values();
            let mut agents = agents.map(|it| it.task.as_ref().unwrap().agent_id.clone());
            assert!(agents.all(|other| other != agent));
        }
    }
}

#[test]
fn without_room_elsewhere_a_single_node_waits_and_says_so() {
    let mut world = World::on_slots(1, 2);
    let agent = world.agent_of(0);
    let other = if agent == "a0" { "a1" } else { "a0" };
    // The other agent is to go as well.
    let planned = [
        world.planned_for(&agent, SHORT),
        world.planned_for(other, SHORT),
    ];
    assert_eq!(world.asked_for(&planned, 20), [false, true]);
    assert_eq!(world.master(), Some(0));
    assert_eq!(
        world.record().task(MemberId(1)),
        None,
        "it waits for another agent"
    );
    let told = world.told_of();
    assert!(
        told.contains("waits for an offer with enough room"),
        "{told}"
    );
    // The plan is given up: what was begun is taken back.
    world.go_on(MINUTE * 10);
    assert_eq!(world.members(), set([0]), "{}", world.told_of());
    assert!(!world.record().is_leaving(MemberId(0)));
}

#[test]
fn of_several_that_go_at_once_only_as_many_move_as_it_takes() {
    let mut world = World::on_slots(3, 4);
    let agents = [world.agent_of(1), world.agent_of(2)];
    let planned = [
        world.planned_for(&agents[0], SHORT),
        world.planned_for(&agents[1], SHORT),
    ];
    assert_eq!(
        world.asked_for(&planned, 15),
        [true, true],
        "{}",
        world.told_of()
    );
    assert_eq!(world.members().len(), 3);
    let moved = [1, 2]
        .into_iter()
        .filter(|it| !world.members().contains(it));
    assert_eq!(moved.count(), 1);
}

/// Goal: all agents of a cluster go one after the other, and the master does not go back and forth. Method: three agents with
/// windows that do not overlap, and no other agent.
#[test]
fn agents_that_go_one_after_the_other_are_told_apart() {
    let mut world = World::on_slots(3, 3);
    let begin = world.now().plus(Duration::from_secs(1800));
    let agents = [world.agent_of(0), world.agent_of(1), world.agent_of(2)];
    let lasts = SHORT.unwrap();
    let window = |index: usize| Planned {
        agent: &agents[index],
        from: begin.plus(lasts * index as u32),
        lasts: SHORT,
    };
    let planned = [window(0), window(1), window(2)];
    assert_eq!(world.asked_for(&planned, 10), [true, true, false]);
    assert_eq!(world.master(), Some(2), "its agent goes last");
    let epoch = world.record().epoch;
    world.asked_for(&planned, 10);
    assert_eq!(world.record().epoch, epoch);
    assert_eq!(world.members(), set([0, 1, 2]));
    // The first one is back.
    world.tell(Event::InverseWithdrawn("9-0".to_owned()));
    assert_eq!(world.asked_for(&planned[1..], 10), [true, true]);
    assert_eq!(world.master(), Some(0));
}

#[test]
fn nothing_is_done_for_a_paused_cluster() {
    let mut world = World::on_slots(3, 4);
    world.ask(Some(PASSWORD), Wish::Pause(true));
    for member in [0, 2] {
        let agent = world.agent_of(member);
        let planned = world.planned_for(&agent, SHORT);
        assert_eq!(world.asked_for(&[planned], 3), [false]);
        let told = world.told_of_maintenance();
        assert!(told.contains("the cluster is paused"), "{told}");
        assert_eq!(world.master(), Some(0));
    }
}

/// Goal: what the plan thinks is looked at by somebody else. Method: a plan that gives the master's agent away.
#[test]
fn a_plan_that_gives_a_master_away_is_refused() {
    let mut world = World::on_slots(3, 4);
    let agent_id = world.agent_of(0);
    let offer = InverseOffer {
        id: "i".to_owned(),
        agent_id,
        from: world.now(),
        lasts: SHORT,
    };
    let now = world.now();
    world.state.apply(Event::Inverse(offer), now);
    let mut plan = Plan {
        actions: vec![Action::AcceptInverse {
            offers: vec!["i".to_owned()],
        }],
        ..Plan::default()
    };
    let violations = check(&world.state, &plan);
    assert_eq!(violations.len(), 1);
    assert_eq!(violations[0].cluster, name());
    refuse(&world.state, &mut plan, &violations);
    assert!(plan.actions.is_empty(), "{:?}", plan.actions);
}

/// Goal: the kill of a member that counts is not carried out, whatever the plan thinks; nor is anything else for its cluster.
#[test]
fn a_plan_that_kills_a_master_is_refused() {
    let world = World::on_slots(3, 3);
    let record = Box::new(world.record().clone());
    let kill = Action::Kill {
        task_id: world.task_of(0),
        agent_id: None,
    };
    let persist = Action::Persist {
        record,
        expected: None,
        password: None,
        launches: Vec::new(),
        replies: Vec::new(),
    };
    let mut plan = Plan {
        actions: vec![kill, persist, Action::Revive],
        ..Plan::default()
    };
    let violations = check(&world.state, &plan);
    assert_eq!(violations.len(), 1);
    refuse(&world.state, &mut plan, &violations);
    assert_eq!(plan.actions, [Action::Revive]);
}

#[test]
fn a_master_that_is_killed_from_outside_hands_over_at_once() {
    let mut world = World::on_slots(3, 3);
    let task: TaskId = world.task_of(0);
    world.instance(0).held_back = true;
    world.report(&task);
    world.converge();
    assert_ne!(world.master(), Some(0));
    assert!(world.master().is_some());
    let switchover = world.record().switchover.clone().unwrap();
    assert!(switchover.outcome.unwrap().done);
    assert_eq!(world.members(), set([0, 1, 2]));
}

/// Goal: of a machine that is down Mesos says TASK_LOST, and the member is replaced if that lasts. Method: the same, and
/// nothing is heard of its executor.
#[test]
fn a_machine_that_is_down_for_long_counts_as_away() {
    let mut world = World::on_slots(3, 4);
    let task = world.loses_agent_of(2);
    world.update(&task, TaskState::Lost);
    world.go_on(Duration::from_secs(800));
    assert_eq!(world.members(), set([0, 1, 2]));
    world.go_on(Duration::from_secs(400));
    assert_eq!(world.members(), set([0, 1, 3]), "{}", world.told_of());
}
