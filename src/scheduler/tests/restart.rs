//! Restarts and changes that meet something else: maintenance, switchovers, a scheduler or a Mesos master that was away, a quorum
//! that is down.

use std::time::Duration;

use super::{
    rolling::{A_WHILE, SETTINGS, asked, refusal, restart, settings},
    world::{Answers, World},
};
use crate::{
    cluster::{flavour::Flavour, id::MemberId, voters::Durability},
    scheduler::{
        event::{Event, TaskState, Wish},
        maintenance::InverseOffer,
    },
};

const MINUTE: Duration = Duration::from_secs(60);

fn three() -> World {
    World::alike(Flavour::Mysql, 3, 3, Durability::Majority)
}

impl World {
    /// Mesos asks for the agent of a member, from in five minutes on. Whether it is given away.
    fn is_given_away(&mut self, member: u32) -> bool {
        self.inverse_answers.clear();
        let agent_id = self
            .record()
            .task(MemberId(member))
            .unwrap()
            .agent_id
            .clone();
        self.tell(Event::Inverse(InverseOffer {
            id: format!("i{member}"),
            agent_id,
            from: self.now().plus(MINUTE * 5),
            lasts: Some(MINUTE * 10),
        }));
        let answers = std::mem::take(&mut self.inverse_answers);
        assert_eq!(answers.len(), 1);
        answers[0].1
    }

    fn mesos_comes_back(&mut self) {
        let framework_id = "f".to_owned();
        self.tell(Event::Subscribed { framework_id });
    }

    fn is_released(&self, member: u32) -> Option<bool> {
        let restart = self.record().members[&MemberId(member)].restart.as_ref();
        restart.map(|it| it.released)
    }

    /// Time passes while executors report, and no agent offers anything.
    fn wait(&mut self, time: Duration) {
        self.pass(time);
        self.converge();
    }
}

/// Goal: who is on an agent that was promised is not counted on by a restart. Method: one of three is promised, another one is to be
/// restarted.
#[test]
fn an_agent_that_was_promised_is_not_counted_on() {
    let mut world = three();
    assert!(world.is_given_away(2));
    let why = refusal(world.wants(restart(1, false)));
    assert!(
        why.contains("the agent of member 2 is to be taken away"),
        "{why}"
    );
    world.wants(settings());
    world.wait(MINUTE);
    let launches = world.launches();
    assert_eq!(
        launches[..2],
        [1, 1],
        "a change takes the other one at most"
    );
    world.tell(Event::InverseWithdrawn("i2".to_owned()));
    world.go_on(A_WHILE * 3);
    assert!(world.is_over(), "{}", world.told_of());
}

/// The same the other way round: who is being restarted is not there, although its task goes on for a moment.
#[test]
fn no_agent_is_promised_while_another_member_is_restarted() {
    let mut world = three();
    let task = world.task_of(1);
    world.unreachable.insert(task);
    world.wants(restart(1, false));
    assert_eq!(world.is_released(1), Some(true));
    world.converge();
    assert!(!world.is_given_away(2));
    world.unreachable.clear();
    world.go_on(A_WHILE);
    assert_eq!(world.launches(), [1, 2, 1]);
    assert!(world.is_given_away(2));
}

/// Goal: what was released and is needed before it was killed stays, and is restarted later; also for a change, which must not take it
/// for changed. Method: the Mesos master is away when it is released, and another member fails then.
#[test]
fn who_is_needed_again_is_restarted_later() {
    for wish in [restart(2, false), settings()] {
        let mut world = three();
        world.tell(Event::MesosLost);
        world.wants(wish);
        assert_eq!(world.is_released(2), Some(true));
        world.instance(1).broken = true;
        world.converge();
        assert_eq!(world.is_released(2), Some(false));
        assert!(world.shown().1.contains(&2), "it is shown again");
        world.instance(1).broken = false;
        world.mesos_comes_back();
        world.go_on(A_WHILE * 3);
        assert!(world.is_over(), "{}", world.told_of());
        assert_eq!(world.launches()[2], 2, "{}", world.told_of());
    }
}

#[test]
fn nobody_is_switched_over_to_who_is_restarted() {
    let mut world = three();
    let task = world.task_of(1);
    world.unreachable.insert(task);
    world.wants(restart(1, false));
    world.converge();
    let why = refusal(world.wants(Wish::Switchover {
        to: Some(MemberId(1)),
    }));
    assert!(why.contains("is being restarted"), "{why}");
}

/// Goal: also by force nobody is restarted in the middle of a hand-over. Method: a master that does not answer.
#[test]
fn a_switchover_is_over_before_anybody_is_restarted() {
    for force in [false, true] {
        let mut world = three();
        world.instance(0).answers = Answers::Nothing;
        world.wants(Wish::Switchover {
            to: Some(MemberId(1)),
        });
        world.wants(restart(1, force));
        world.wait(Duration::from_secs(5));
        assert_eq!(world.is_released(1), Some(false));
        world.go_on(A_WHILE);
        assert_eq!(world.launches(), [1, 2, 1]);
    }
}

/// Goal: only the time counts in which a member could have come back. Method: one that does not; no Mesos master for long, then another
/// scheduler.
#[test]
fn a_change_is_not_stopped_for_time_that_nobody_had() {
    let mut world = three();
    world.wants(settings());
    world.offer();
    world.settle();
    assert_eq!(world.launches(), [1, 1, 2]);
    world.instance(2).broken = true;
    world.converge();
    world.wait(MINUTE * 9);
    world.tell(Event::MesosLost);
    world.wait(MINUTE * 30);
    world.mesos_comes_back();
    world.wait(MINUTE * 9);
    assert_eq!(world.stopped(), None);
    world.replace_scheduler();
    world.settle();
    world.converge();
    world.wait(MINUTE * 9);
    assert_eq!(world.stopped(), None);
    world.wait(MINUTE * 2);
    let told = world.stopped().unwrap();
    assert!(told.contains("it was not in its place after 10m"), "{told}");
}

/// Goal: what members have does not keep a cluster down. Method: all have ended when other settings are asked for.
#[test]
fn all_are_launched_with_what_is_wanted_while_there_is_no_master() {
    let mut world = three();
    world.away = [0, 1, 2].into();
    for member in 0..3 {
        world.end(member, TaskState::Failed);
    }
    world.wants(settings());
    world.away.clear();
    world.offer();
    world.settle();
    for member in 0..3 {
        assert_eq!(world.has(member).my_cnf.as_deref(), Some(SETTINGS));
    }
    world.go_on(A_WHILE);
    assert!(world.is_over(), "{}", world.told_of());
    assert_eq!(world.launches(), [2, 2, 2]);
}

/// Goal: a slot that nothing was ever on does not keep a member at its former size. Method: the launch of one that is to take another
/// one's place gets lost when its slot is made, and another size is asked for.
#[test]
fn a_slot_that_was_never_used_goes_with_its_size() {
    let mut world = World::alike(Flavour::Mysql, 3, 5, Durability::Majority);
    world.lose_after = Some(true);
    world.wants(Wish::Replace {
        member: MemberId(2),
    });
    world.offer();
    world.settle();
    let newcomer = MemberId(3);
    let slot = |world: &World| world.record().members[&newcomer].slot.clone();
    assert!(!slot(&world).unwrap().used);
    world.wants(asked(&[("mem", "1gb")]));
    world.offer();
    world.settle();
    assert_eq!(slot(&world).unwrap().size.mem_mib(), 1024);
    world.go_on(A_WHILE * 10);
    assert!(world.is_over(), "{}", world.told_of());
}
