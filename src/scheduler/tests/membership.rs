//! Members that come and go, and agents that are gone.

use std::{collections::BTreeSet, time::Duration};

use super::world::{Answers, PASSWORD, World, name, spec};
use crate::{
    cluster::{
        flavour::Flavour,
        id::{MemberId, TaskId},
        view::ClusterState,
        voters::Durability,
    },
    scheduler::{
        action::{Refusal, Reply},
        event::{Event, TaskState, Wish},
        report::view,
    },
};

pub const GRACE: Duration = Duration::from_secs(900);

pub const STEP: Duration = Duration::from_secs(10);

pub fn set<const N: usize>(members: [u32; N]) -> BTreeSet<u32> {
    members.into_iter().collect()
}

impl World {
    /// A cluster that runs on slots, with agents to spare.
    pub fn spacious(flavour: Flavour, num_nodes: u32, agents: u32, durability: Durability) -> Self {
        let mut world = Self::with_volumes(agents);
        world.flavour = flavour;
        world.create(spec(num_nodes, durability));
        world.go_on(Duration::from_secs(60));
        assert_eq!(
            world.state(),
            ClusterState::Running,
            "{:?}",
            world.told_of()
        );
        world
    }

    /// Time passes in which agents make offers and executors do what they are told.
    pub fn go_on(&mut self, time: Duration) {
        let end = self.now().plus(time);
        while self.now() < end {
            self.pass(STEP.min(end.since(self.now())));
            self.offer();
            self.settle();
            self.converge();
        }
    }

    pub fn members(&self) -> BTreeSet<u32> {
        self.record().members.keys().map(|id| id.0).collect()
    }

    pub fn who_votes(&self) -> BTreeSet<u32> {
        self.record().voters.members.keys().map(|id| id.0).collect()
    }

    pub fn shown(&self) -> (Option<u32>, BTreeSet<u32>) {
        let published = &self.record().published;
        let slaves = published.slaves.iter().map(|id| id.0);
        (published.master.map(|id| id.0), slaves.collect())
    }

    /// What is told of members that come and go.
    pub fn told_of(&self) -> String {
        let shown = view(&self.state.clusters[&name()], "zk://h/discover");
        format!("{}; {}", shown.reason, shown.standing.membership.join("; "))
    }

    pub fn scale(&mut self, num_nodes: u32) -> Option<Reply> {
        self.ask(Some(PASSWORD), Wish::Scale { num_nodes })
    }

    pub fn replace(&mut self, member: u32) -> Option<Reply> {
        let member = MemberId(member);
        self.ask(Some(PASSWORD), Wish::Replace { member })
    }

    /// Nothing is left of members that went.
    fn assert_tidy(&self) {
        let record = self.record();
        assert!(record.departed.is_empty(), "{}", self.told_of());
        assert!(record.terms.barred.is_empty());
        assert_eq!(self.slots.len(), record.members.len());
        assert_eq!(self.instances.len(), record.members.len());
        assert_eq!(self.state(), ClusterState::Running);
    }

    /// A member's agent with all that is on it is not reached any more.
    pub fn loses_agent_of(&mut self, member: u32) -> TaskId {
        let task = self.task_of(member);
        let agent = self
            .record()
            .task(MemberId(member))
            .unwrap()
            .agent_id
            .clone();
        self.away.insert(agent[1..].parse().unwrap());
        self.unreachable.insert(task.clone());
        self.vanish(member);
        self.update(&task, TaskState::Unreachable);
        task
    }

    /// All agents are back, with what was on them.
    pub fn agents_return(&mut self, task: &TaskId) {
        self.away.clear();
        self.unreachable.clear();
        self.update(task, TaskState::Running);
    }
}

/// Tells a story as it goes, and with the scheduler replaced after each of its first stored records.
fn at_every_cut(most: u32, start: impl Fn() -> World, story: impl Fn(&mut World)) {
    for cut in std::iter::once(None).chain((0..most).map(Some)) {
        let mut world = start();
        world.cut_after = cut;
        story(&mut world);
    }
}

/// Goal: a member whose agent is gone is replaced after the grace time, and its slot goes when the agent comes back, at every
/// cut. Method: a slave's agent does not answer; then it does.
#[test]
fn a_member_whose_agent_is_gone_is_replaced() {
    let start = || World::spacious(Flavour::Mariadb, 3, 4, Durability::Majority);
    at_every_cut(14, start, |world| {
        let task = world.loses_agent_of(2);
        let slot = world.record().members[&MemberId(2)].slot.clone().unwrap();
        world.go_on(GRACE - STEP);
        assert_eq!(world.members(), set([0, 1, 2]));
        // A successor counts from when it has come.
        world.go_on(GRACE + STEP * 6);
        assert_eq!(world.members(), set([0, 1, 3]), "{}", world.told_of());
        assert_eq!(world.who_votes(), set([0, 1, 3]));
        assert_eq!(world.shown(), (Some(0), set([1, 3])));
        assert_eq!(world.state(), ClusterState::Running);
        let left = &world.record().departed[&MemberId(2)];
        assert!(left.destroy && left.slot.is_some());
        assert_eq!(left.task.as_ref(), Some(&task));
        assert!(world.slots.contains_key(&slot.id), "it is out of reach");
        assert!(world.instances.contains_key(&task));

        world.agents_return(&task);
        world.go_on(Duration::from_secs(700));
        assert!(!world.instances.contains_key(&task), "it is killed");
        assert!(!world.slots.contains_key(&slot.id), "and its slot released");
        assert!(world.record().departed.is_empty());
        assert!(world.record().terms.barred.is_empty());
        assert_eq!(world.members(), set([0, 1, 3]));
        assert_eq!(world.record().next_member(), MemberId(4));
    });
}

/// Goal: of two voters the one that is out of reach leaves only after another one has come. Method: the records that were stored.
#[test]
fn where_two_vote_another_one_comes_first() {
    let mut world = World::spacious(Flavour::Mysql, 2, 3, Durability::Majority);
    world.loses_agent_of(1);
    world.voters_stored.clear();
    world.go_on(GRACE + STEP * 6);
    assert_eq!(
        (world.members(), world.who_votes()),
        (set([0, 2]), set([0, 2]))
    );
    let (fewest, k) = world.voters_stored.iter().min().copied().unwrap();
    assert_eq!((fewest, k), (2, 1));
    assert!(world.voters_stored.contains(&(3, 1)));
    assert!(
        world.record().terms.barred.contains(&MemberId(1)),
        "it may still run"
    );
}

#[test]
fn the_only_member_is_waited_for_and_that_is_said() {
    let mut world = World::spacious(Flavour::Mariadb, 1, 3, Durability::Async);
    let task = world.loses_agent_of(0);
    world.go_on(GRACE * 4);
    assert_eq!(world.members(), set([0]));
    assert_eq!(world.state(), ClusterState::Waiting);
    let told = world.told_of();
    assert!(
        told.contains("member 0 on 127.0.0.") && told.contains("since"),
        "{told}"
    );
    world.away.clear();
    world.unreachable.clear();
    world.instances.get_mut(&task).unwrap().silent = false;
    world.update(&task, TaskState::Running);
    world.go_on(STEP);
    assert_eq!(world.state(), ClusterState::Running);
    assert_eq!(world.task_of(0), task);
}

/// Goal: a task that ends while its agent is away is the same case, and an operator's word makes it short.
#[test]
fn a_slot_that_is_not_offered_is_replaced_too() {
    for (state, wait) in [
        (TaskState::Failed, GRACE),
        (TaskState::GoneByOperator, STEP),
    ] {
        let mut world = World::spacious(Flavour::Mariadb, 3, 4, Durability::Majority);
        let task = world.record().task(MemberId(1)).unwrap().clone();
        world.away.insert(task.agent_id[1..].parse().unwrap());
        world.vanish(1);
        world.end(1, state);
        world.go_on(wait + STEP * 8);
        assert_eq!(
            world.members(),
            set([0, 2, 3]),
            "{state:?} {}",
            world.told_of()
        );
        assert_eq!(world.who_votes(), set([0, 2, 3]));
        let forgotten = state == TaskState::GoneByOperator;
        assert_eq!(world.record().departed.is_empty(), forgotten);
        world.away.clear();
        world.go_on(Duration::from_secs(700));
        assert!(world.record().departed.is_empty());
    }
}

/// Goal: an outage of Mesos is no reason to replace anybody, and after it time begins anew.
#[test]
fn an_outage_of_mesos_does_not_count() {
    let mut world = World::spacious(Flavour::Mariadb, 3, 4, Durability::Majority);
    world.loses_agent_of(2);
    world.go_on(GRACE - STEP * 2);
    world.tell(Event::MesosLost);
    world.pass(GRACE * 2);
    world.converge();
    assert_eq!(world.members(), set([0, 1, 2]));
    let framework_id = "f".to_owned();
    world.tell(Event::Subscribed { framework_id });
    world.go_on(GRACE - STEP);
    assert_eq!(world.members(), set([0, 1, 2]));
    world.go_on(STEP * 8);
    assert_eq!(world.members(), set([0, 1, 3]));
}

/// Goal: whoever reports is there, whatever the master sees of its agent.
#[test]
fn a_member_that_is_heard_of_is_not_replaced() {
    let mut world = World::spacious(Flavour::Mariadb, 3, 4, Durability::Majority);
    let task = world.task_of(2);
    world.update(&task, TaskState::Unreachable);
    world.go_on(GRACE * 2);
    assert_eq!(world.members(), set([0, 1, 2]));
    assert_eq!(world.state(), ClusterState::Running);
}

/// Goal: what only the old master of an `async` cluster may have is kept, whatever becomes of the agent.
#[test]
fn data_that_may_be_nowhere_else_is_kept() {
    let mut world = World::spacious(Flavour::Mariadb, 2, 3, Durability::Async);
    let task = world.loses_agent_of(0);
    world.go_on(GRACE + Duration::from_secs(120));
    assert_eq!(world.members(), set([1, 2]), "{}", world.told_of());
    let left = world.record().departed[&MemberId(0)].clone();
    assert!(!left.destroy && left.slot.is_some());
    assert!(
        world
            .told_of()
            .contains("is kept until the cluster is deleted")
    );
    world.agents_return(&task);
    world.go_on(Duration::from_secs(1300));
    assert!(!world.instances.contains_key(&task));
    let slot = left.slot.unwrap().id;
    assert!(world.slots.contains_key(&slot));
    assert!(world.told_of().contains("is kept"));

    // Until an administrator gives it up, which is stored before anything is destroyed.
    world.away = (0..3).collect();
    let reply = world.reclaim(&slot);
    assert!(
        matches!(&reply, Some(Reply::Reclaiming { lost, .. }) if lost.contains("member 0 has left behind")),
        "{reply:?}"
    );
    assert!(world.record().departed[&MemberId(0)].destroy);
    assert_eq!(world.reclaim(&slot), reply, "the answer may have got lost");
    world.replace_scheduler();
    world.settle();
    world.away.clear();
    world.go_on(STEP * 2);
    assert_eq!(world.released, [(slot.clone(), true)]);
    assert!(world.record().departed.is_empty());
    assert_eq!(world.slots.len(), 2);
}

/// Goal: a single voter that comes back with its data leaves nobody's data in doubt. Method: it is restarted while the members that
/// have left the vote for it are being ended.
#[test]
fn a_single_voter_that_elects_itself_again_has_everything() {
    let mut world = World::spacious(Flavour::Mariadb, 3, 3, Durability::Majority);
    // Its kill takes a while.
    let task = world.task_of(2);
    world.unreachable.insert(task);
    world.scale(1);
    world.go_on(STEP * 4);
    assert_eq!(world.who_votes(), set([0]), "{}", world.told_of());
    assert_eq!(world.members(), set([0, 2]));
    world.vanish(2);
    let epoch = world.record().epoch;
    world.end(0, TaskState::Failed);
    world.go_on(STEP * 4);
    assert!(world.record().epoch > epoch);
    assert_eq!(world.members(), set([0, 2]));
    world.unreachable.clear();
    world.end(2, TaskState::Killed);
    world.go_on(Duration::from_secs(1300));
    assert_eq!(world.members(), set([0]));
    assert!(world.record().departed.is_empty(), "{}", world.told_of());
    assert_eq!(world.slots.len(), 1);
}

/// Goal: a cluster grows from one to five and shrinks to one, the voters and k with it, at every cut.
#[test]
fn a_cluster_grows_and_shrinks() {
    let start = || World::spacious(Flavour::Mysql, 1, 6, Durability::Majority);
    at_every_cut(60, start, |world| {
        let grown = world.scale(3);
        assert!(matches!(
            grown,
            Some(Reply::Scaling { from: 1, to: 3, .. }) | None
        ));
        world.go_on(STEP * 12);
        assert_eq!(world.who_votes(), set([0, 1, 2]), "{}", world.told_of());
        assert_eq!(world.record().voters.k_floor, 1);
        world.scale(5);
        world.go_on(STEP * 12);
        assert_eq!(
            world.who_votes(),
            set([0, 1, 2, 3, 4]),
            "{}",
            world.told_of()
        );
        assert_eq!(world.record().voters.k_floor, 2);
        world.assert_tidy();
        world.scale(1);
        world.go_on(STEP * 90);
        assert_eq!(world.members(), set([0]), "{}", world.told_of());
        assert_eq!(world.who_votes(), set([0]));
        assert_eq!(world.record().voters.k_floor, 0);
        assert_eq!(world.shown(), (Some(0), set([])));
        world.assert_tidy();
        assert_eq!(world.record().next_member(), MemberId(5));
        world.scale(2);
        world.go_on(STEP * 12);
        assert_eq!(world.who_votes(), set([0, 5]), "{}", world.told_of());
        assert_eq!(world.record().voters.k_floor, 1);
    });
}

/// Goal: to any number from any number, on both flavours, what is asked for comes about.
#[test]
fn any_number_follows_any_other() {
    for flavour in [Flavour::Mariadb, Flavour::Mysql] {
        for durability in [Durability::Majority, Durability::Async] {
            for from in 1..=5 {
                let mut world = World::spacious(flavour, from, 7, durability);
                for to in [5, 2, 4, 1, 3] {
                    world.scale(to);
                    world.go_on(STEP * 75);
                    assert_eq!(world.members().len(), to as usize, "{from} {to}");
                    world.assert_tidy();
                    let limit = durability.most_voters(flavour).min(to as usize);
                    assert_eq!(
                        world.who_votes().len(),
                        limit,
                        "{flavour} {durability} {to}"
                    );
                    let k = durability.acknowledgements(limit, flavour);
                    assert_eq!(world.record().voters.k_floor, k);
                }
            }
        }
    }
}

#[test]
fn the_least_useful_go_first_and_never_the_master() {
    let mut world = World::spacious(Flavour::Mysql, 5, 5, Durability::Majority);
    // It does not run; it is behind; the others are as good as each other.
    world.instance(2).process = None;
    let dead = world.task_of(2);
    world.report(&dead);
    world.instance(1).lag_seconds = 30;
    world.go_on(STEP);
    world.scale(4);
    world.go_on(STEP * 12);
    assert_eq!(world.members(), set([0, 1, 3, 4]));
    world.scale(3);
    world.go_on(STEP * 12);
    assert_eq!(world.members(), set([0, 3, 4]));
    world.scale(2);
    world.go_on(STEP * 12);
    assert_eq!(world.members(), set([0, 3]));
    let again = world.scale(2);
    assert!(matches!(again, Some(Reply::Scaling { from: 2, to: 2, .. })));
}

/// Goal: of members that are as good as each other one goes that shares its place, not the one that is alone in its own.
#[test]
fn who_shares_its_place_goes_first() {
    let mut world = World::spacious(Flavour::Mysql, 4, 4, Durability::Majority);
    let racks = [(0, "x"), (1, "y"), (2, "x"), (3, "z")];
    let cluster = world.state.clusters.values_mut().next().unwrap();
    for (id, rack) in racks {
        let places = [("rack".to_owned(), rack.to_owned())].into();
        let member = cluster.record.members.get_mut(&MemberId(id)).unwrap();
        member.places = places;
    }
    world.scale(3);
    world.go_on(STEP * 12);
    assert_eq!(world.members(), set([0, 1, 3]));
}

/// Goal: nobody leaves whose acknowledgements the others cannot give yet, as writes would wait. Method: two of five voters have not come to the
/// canary of those that joined.
#[test]
fn who_joins_keeps_up_before_others_leave() {
    let mut world = World::spacious(Flavour::Mysql, 3, 5, Durability::Majority);
    world.scale(5);
    world.go_on(STEP * 12);
    assert_eq!(world.who_votes(), set([0, 1, 2, 3, 4]));
    for member in [1, 2] {
        world.instance(member).behind = true;
    }
    world.go_on(STEP);
    world.scale(3);
    world.go_on(STEP * 12);
    assert_eq!(world.who_votes(), set([0, 1, 2, 3, 4]));
    for member in [1, 2] {
        world.instance(member).behind = false;
    }
    world.go_on(STEP * 12);
    assert_eq!(world.who_votes(), set([0, 1, 2]));
}

/// Goal: asked for something else while it is carried out, that is what comes about; who was to go and still is there stays.
#[test]
fn the_last_word_counts() {
    let mut world = World::spacious(Flavour::Mysql, 3, 4, Durability::Majority);
    let before: Vec<TaskId> = (0..3).map(|member| world.task_of(member)).collect();
    world.scale(1);
    world.scale(3);
    world.go_on(STEP * 12);
    let after: Vec<TaskId> = (0..3).map(|member| world.task_of(member)).collect();
    assert_eq!(before, after);
    assert_eq!(world.who_votes(), set([0, 1, 2]));
    world.assert_tidy();
}

/// Goal: whoever is replaced, the other one comes first, a master hands over, and nothing is left of the old one, at every cut.
#[test]
fn a_member_is_replaced() {
    for flavour in [Flavour::Mysql, Flavour::Mariadb] {
        for member in [0, 2] {
            let start = || World::spacious(flavour, 3, 4, Durability::Majority);
            at_every_cut(30, start, |world| {
                world.voters_stored.clear();
                world.replace(member);
                world.go_on(STEP * 90);
                let left: BTreeSet<u32> = (0..4).filter(|it| *it != member).collect();
                assert_eq!(world.members(), left, "{}", world.told_of());
                assert_eq!(world.who_votes(), left);
                assert_eq!(world.record().voters.k_floor, 1);
                world.assert_tidy();
                let fewest = world.voters_stored.iter().min().unwrap();
                assert!(*fewest >= (3, 1), "{:?}", world.voters_stored);
                assert_eq!(world.record().epoch.0, if member == 0 { 2 } else { 1 });
            });
        }
    }
}

#[test]
fn a_replacement_without_room_waits_and_says_so() {
    let mut world = World::spacious(Flavour::Mariadb, 3, 3, Durability::Majority);
    world.state.policy.spread_patience = None;
    let asked = world.replace(1);
    let replacement = Some(MemberId(3));
    assert!(matches!(&asked, Some(Reply::Replacing { replacement: it, .. }) if *it == replacement));
    world.go_on(STEP * 30);
    assert_eq!(world.members(), set([0, 1, 2, 3]));
    assert_eq!(world.who_votes(), set([0, 1, 2]));
    let told = world.told_of();
    assert!(
        told.contains("member 3 takes its place, and waits for an offer"),
        "{told}"
    );
    let Some(Reply::Replacing { .. }) = world.replace(1) else {
        panic!("the same request has the same answer");
    };
    let unknown = world.replace(9);
    assert!(matches!(
        unknown,
        Some(Reply::Refused(Refusal::NotPossible(_)))
    ));
}

/// Goal: a master that is to leave and cannot hand over stays, says why, and does so as soon as it can.
#[test]
fn a_master_that_cannot_hand_over_stays() {
    let mut world = World::spacious(Flavour::Mysql, 3, 4, Durability::Majority);
    world.instance(0).answers = Answers::Keeps;
    world.replace(0);
    world.go_on(STEP * 30);
    assert_eq!(world.shown().0, Some(0));
    assert!(
        world.told_of().contains("member 0 is to leave"),
        "{}",
        world.told_of()
    );
    assert!(
        world.record().switchover.as_ref().unwrap().number > 2,
        "it is asked again"
    );
    world.instance(0).answers = Answers::Closes;
    world.go_on(STEP * 90);
    assert_eq!(world.members(), set([1, 2, 3]));
    world.assert_tidy();
}
