//! Members that are restarted, and that get another configuration one after the other.

use std::time::Duration;

use super::{
    membership::set,
    world::{Answers, PASSWORD, World},
};
use crate::{
    cluster::{
        change::{Change, ChangeRequest},
        configuration::{Configuration, Package},
        control::{Installer, ServerKind},
        flavour::Flavour,
        id::MemberId,
        voters::Durability,
    },
    scheduler::{
        action::{Refusal, Reply},
        event::{TaskState, Wish},
        rolling::show,
    },
};

pub(super) const A_WHILE: Duration = Duration::from_secs(120);

pub(super) const SETTINGS: &str = "[mysqld]\nmax_connections=77\n";

pub(super) fn asked(fields: &[(&str, &str)]) -> Wish {
    let given = |name: &str| {
        let mut fields = fields.iter();
        let found = fields.find(|(field, _)| *field == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let request = ChangeRequest {
        mem: given("mem"),
        disk: given("disk"),
        my_cnf: given("my_cnf"),
        package: given("package"),
        force: given("force"),
        plan: given("plan"),
        ..ChangeRequest::default()
    };
    Wish::Change(Change::check(request).unwrap())
}

pub(super) fn settings() -> Wish {
    asked(&[("my_cnf", SETTINGS)])
}

pub(super) fn restart(member: u32, force: bool) -> Wish {
    let member = MemberId(member);
    Wish::Restart { member, force }
}

pub(super) fn refusal(reply: Option<Reply>) -> String {
    match reply {
        Some(Reply::Refused(Refusal::NotPossible(sentence))) => sentence,
        other => panic!("{other:?}"),
    }
}

fn steps(reply: Option<Reply>) -> Vec<String> {
    match reply {
        Some(Reply::Changed { course, .. }) => course.steps,
        other => panic!("{other:?}"),
    }
}

impl World {
    /// A cluster on slots whose members all hold the same.
    pub(super) fn alike(flavour: Flavour, nodes: u32, agents: u32, durability: Durability) -> Self {
        let mut world = Self::spacious(flavour, nodes, agents, durability);
        for member in 0..nodes {
            let position = match flavour {
                Flavour::Mariadb => "0-1-7,4412494-1-1",
                Flavour::Mysql => "",
            };
            world.instance(member).position = position.to_owned();
            world.copied = position.to_owned();
        }
        world.converge();
        world
    }

    pub(super) fn wants(&mut self, wish: Wish) -> Option<Reply> {
        self.ask(Some(PASSWORD), wish)
    }

    /// The configuration with which each member's task was launched.
    pub(super) fn has(&self, member: u32) -> Configuration {
        self.record().configuration_of(MemberId(member))
    }

    pub(super) fn launches(&self) -> Vec<u32> {
        let members = self.record().members.values();
        members.map(|member| member.launches).collect()
    }

    pub(super) fn is_over(&self) -> bool {
        show(self.record()).is_none()
    }

    pub(super) fn stopped(&self) -> Option<String> {
        show(self.record())?.stopped
    }

    /// Wants settings with which a member's server does not start, and waits until the change stops.
    fn stops_at(&mut self, member: u32) {
        self.refuses = Some((member, 1));
        self.wants(settings());
        self.go_on(A_WHILE);
        assert!(self.stopped().is_some(), "{}", self.told_of());
    }

    /// Whether each of these was launched so often, or once more where a launch was lost with a scheduler.
    fn were_launched<const N: usize>(&self, times: [u32; N]) -> bool {
        let launches = self.launches();
        let more = launches
            .iter()
            .zip(times)
            .map(|(n, times)| n.checked_sub(times));
        more.sum::<Option<u32>>().is_some_and(|more| more <= 1)
    }
}

/// Goal: whatever dies, every member is restarted once with the new settings, slaves first, and the master after it has handed
/// over; its data is what it was. Method: the story for both flavours, cut after each stored record.
#[test]
fn settings_reach_one_member_after_the_other() {
    for flavour in [Flavour::Mariadb, Flavour::Mysql] {
        for cut in std::iter::once(None).chain((0..24).map(Some)) {
            let mut world = World::alike(flavour, 3, 3, Durability::Majority);
            let data: Vec<_> = (0..3).map(|it| world.instance(it).data).collect();
            world.cut_after = cut;
            world.wants(settings());
            world.go_on(A_WHILE * 3);
            assert!(world.is_over(), "cut {cut:?}: {}", world.told_of());
            for member in 0..3 {
                assert_eq!(world.has(member).my_cnf.as_deref(), Some(SETTINGS));
                assert_eq!(world.instance(member).data, data[member as usize]);
            }
            assert!(
                world.were_launched([2, 2, 2]),
                "cut {cut:?}: {:?}",
                world.launches()
            );
            assert_eq!(world.who_votes(), set([0, 1, 2]));
            let (master, slaves) = world.shown();
            assert_eq!((master.is_some(), slaves.len()), (true, 2));
            assert_ne!(master, Some(0), "it has handed over");
            assert_eq!(world.record().epoch.0, 2, "nobody else lost the master");
            assert!(world.record().rolling.as_ref().unwrap().former.is_empty());
        }
    }
}

/// Goal: a member that is back has received what it had missed before the next one is restarted: until then it acknowledges nothing new, and
/// with another one missing no write would be acknowledged.
#[test]
fn what_a_member_has_missed_comes_before_the_next_turn() {
    let mut world = World::alike(Flavour::Mariadb, 3, 3, Durability::Majority);
    world.launched_behind = true;
    world.wants(settings());
    world.go_on(Duration::from_secs(120));
    assert_eq!(
        world.launches().iter().sum::<u32>(),
        4,
        "{}",
        world.told_of()
    );
    assert!(world.told_of().contains("is being changed"));
    world.launched_behind = false;
    for member in 0..3 {
        world.instance(member).behind = false;
    }
    world.go_on(A_WHILE * 3);
    assert!(world.is_over(), "{}", world.told_of());
}

#[test]
fn never_more_than_one_member_is_missing() {
    let mut world = World::alike(Flavour::Mariadb, 3, 3, Durability::Majority);
    world.wants(settings());
    for _ in 0..200 {
        world.pass(Duration::from_secs(1));
        world.offer();
        world.settle();
        assert!(world.instances.len() >= 2);
        world.converge();
    }
    assert!(world.is_over(), "{}", world.told_of());
}

/// Goal: a plan does nothing; the steps are slaves first.
#[test]
fn the_steps_are_told_and_not_taken() {
    let mut world = World::alike(Flavour::Mariadb, 3, 4, Durability::Majority);
    let before = world.record().clone();
    let told = steps(world.wants(asked(&[("my_cnf", SETTINGS), ("plan", "true")])));
    assert_eq!(
        told,
        [
            "member 2: restarted on its slot",
            "member 1: restarted on its slot",
            "member 0: hands over if it is still the master, and is restarted on its slot",
        ]
    );
    let told = steps(world.wants(asked(&[("mem", "1gb"), ("plan", "true")])));
    assert_eq!(told[0], "member 2: another one takes its place");
    world.go_on(A_WHILE);
    assert_eq!(*world.record(), before);
}

/// Goal: the change stops at the first member that does not come back, says so, and the others go on as they are; what was before
/// rolls back, and concerns that member alone. Method: the tasks of the first member end as soon as they are launched; cut after each
/// stored record.
#[test]
fn a_change_stops_at_who_does_not_come_back_and_rolls_back() {
    for cut in std::iter::once(None).chain((0..12).map(Some)) {
        let mut world = World::alike(Flavour::Mariadb, 3, 3, Durability::Majority);
        world.cut_after = cut;
        world.stops_at(2);
        let told = world.stopped().expect("it goes on");
        assert_eq!(
            told,
            "change stopped: member 2 did not come back with revision 1: as told"
        );
        assert!(world.told_of().contains(&told), "{}", world.told_of());
        let launched = world.launches();
        assert_eq!((launched[0], launched[1]), (1, 1), "cut {cut:?}");
        assert_eq!(world.shown(), (Some(0), set([1])));

        world.wants(asked(&[("my_cnf", "#")]));
        world.go_on(A_WHILE * 2);
        assert!(world.is_over(), "cut {cut:?}: {}", world.told_of());
        let launched = world.launches();
        assert_eq!((launched[0], launched[1]), (1, 1), "they had it");
        assert_eq!(world.shown(), (Some(0), set([1, 2])));
        assert_eq!(world.has(2).my_cnf, None);
    }
}

#[test]
fn the_same_request_resumes_what_has_stopped() {
    let mut world = World::alike(Flavour::Mariadb, 3, 3, Durability::Majority);
    world.stops_at(2);
    world.refuses = None;
    let Some(Reply::Changed {
        course, changed, ..
    }) = world.wants(settings())
    else {
        panic!("it is refused");
    };
    assert!(course.resumed && changed.is_empty());
    world.go_on(A_WHILE * 3);
    assert!(world.is_over(), "{}", world.told_of());
}

/// Goal: while a change has stopped, a member that ends comes back as it was.
#[test]
fn who_was_not_changed_comes_back_as_it_was() {
    let mut world = World::alike(Flavour::Mariadb, 3, 3, Durability::Majority);
    world.stops_at(2);
    world.end(1, TaskState::Failed);
    world.go_on(A_WHILE);
    assert_eq!(world.has(1).my_cnf, None);
    assert_eq!(world.has(2).my_cnf.as_deref(), Some(SETTINGS));
    assert!(world.shown().1.contains(&1));
}

/// Goal: another size comes with other members, each in its place before the next one's turn; writes always find acknowledgers.
#[test]
fn another_size_is_that_of_other_members() {
    for flavour in [Flavour::Mariadb, Flavour::Mysql] {
        let mut world = World::alike(flavour, 3, 4, Durability::Majority);
        world.wants(asked(&[("mem", "1gb")]));
        world.go_on(A_WHILE * 10);
        assert!(world.is_over(), "{}", world.told_of());
        assert_eq!(world.members(), set([3, 4, 5]));
        for member in 3..6 {
            assert_eq!(world.has(member).size.mem_mib(), 1024);
            let slot = world.record().members[&MemberId(member)].slot.as_ref();
            assert_eq!(slot.unwrap().size.mem_mib(), 1024);
        }
        let fewest = world.voters_stored.iter().skip(8).map(|it| it.0).min();
        assert!(fewest >= Some(2), "{fewest:?}");
    }
}

/// Goal: no volume grows under a server: another disk alone comes with other members, and so it is where the disk is the sandbox's.
#[test]
fn another_disk_is_that_of_other_members_too() {
    for mut world in [
        World::alike(Flavour::Mysql, 3, 4, Durability::Majority),
        World::running(3, Durability::Majority),
    ] {
        world.agents = 4;
        let told = steps(world.wants(asked(&[("disk", "3gb"), ("plan", "true")])));
        assert_eq!(
            told,
            [2, 1, 0].map(|member| format!("member {member}: another one takes its place"))
        );
        world.wants(asked(&[("disk", "3gb")]));
        world.go_on(A_WHILE * 10);
        assert!(world.is_over(), "{}", world.told_of());
        assert_eq!(world.members(), set([3, 4, 5]));
        for member in 3..6 {
            assert_eq!(world.has(member).size.disk_mib(), 3072);
            let slot = world.record().members[&MemberId(member)].slot.as_ref();
            assert!(slot.is_none_or(|slot| slot.size.disk_mib() == 3072));
        }
    }
}

/// Goal: half-way through a change of size, which has stopped, the former size concerns only those that were changed. Method: the first
/// newcomer comes, the second one's tasks end.
#[test]
fn half_of_another_size_rolls_back() {
    for cut in std::iter::once(None).chain((0..12).map(Some)) {
        let mut world = World::alike(Flavour::Mariadb, 3, 4, Durability::Majority);
        world.refuses = Some((4, 1));
        world.wants(asked(&[("mem", "1gb")]));
        world.go_on(A_WHILE * 4);
        assert!(world.stopped().is_some(), "{}", world.told_of());
        assert!(world.members().is_superset(&set([0, 1, 3])));
        world.cut_after = cut;
        world.wants(asked(&[("mem", "512mb")]));
        world.go_on(A_WHILE * 6);
        assert!(world.is_over(), "cut {cut:?}: {}", world.told_of());
        let members = world.members();
        assert!(
            members.is_superset(&set([0, 1])),
            "cut {cut:?}: {members:?}"
        );
        assert!(
            members.is_disjoint(&set([2, 3, 4])),
            "cut {cut:?}: {members:?}"
        );
        assert_eq!(world.launches()[..2], [1, 1], "cut {cut:?}");
        assert_eq!(world.record().epoch.0, 1, "the master was not touched");
        assert_eq!(world.record().spec.size.mem_mib(), 512);
    }
}

#[test]
fn size_and_package_are_not_changed_at_once() {
    let mut world = World::alike(Flavour::Mariadb, 3, 4, Durability::Majority);
    world.offers_package("next", "mariadb 11.8.6");
    let both = asked(&[("mem", "1gb"), ("package", "next")]);
    assert!(refusal(world.wants(both)).contains("at the same time"));
}

impl World {
    fn offers_package(&mut self, name: &str, server: &str) {
        let (flavour, version) = server.split_once(' ').unwrap();
        self.state.policy.packages.push(Package {
            name: name.to_owned(),
            installer: Installer::Installed {
                mysqld: format!("/opt/{name}/bin/mysqld"),
            },
            server: ServerKind {
                flavour: flavour.parse().unwrap(),
                version: version.parse().unwrap(),
            },
        });
    }
}

#[test]
fn packages_change_along_supported_ways_only() {
    let mut world = World::alike(Flavour::Mariadb, 3, 3, Durability::Majority);
    world.offers_package("next", "mariadb 11.8.6");
    world.offers_package("mysql", "mysql 9.7.4");
    let other = refusal(world.wants(asked(&[("package", "mysql")])));
    assert!(other.contains("make a new cluster"), "{other}");
    let unknown = refusal(world.wants(asked(&[("package", "none")])));
    assert_eq!(unknown, "there is no package none; there are next");
    // While nobody was changed the way back is free.
    world.wants(asked(&[("package", "next")]));
    let back = refusal(world.wants(asked(&[("package", "default")])));
    assert!(
        back.contains("member 2 has the package next") && back.contains("no way back"),
        "{back}"
    );
    world.go_on(A_WHILE * 3);
    assert!(world.is_over(), "{}", world.told_of());
    assert_eq!(world.launches(), [2, 2, 2]);
}

/// Goal: before anybody was changed, what was before is wanted again without a step.
#[test]
fn the_way_back_is_free_before_anybody_was_changed() {
    let mut world = World::alike(Flavour::Mariadb, 3, 3, Durability::Majority);
    world.offers_package("next", "mariadb 11.8.6");
    // The change waits for a switchover that is not answered.
    world.instance(0).answers = Answers::Nothing;
    world.wants(Wish::Switchover { to: None });
    world.wants(asked(&[("package", "next")]));
    assert_eq!(world.launches(), [1, 1, 1]);
    world.wants(asked(&[("package", "default")]));
    world.go_on(A_WHILE);
    assert!(world.is_over(), "{}", world.told_of());
    assert_eq!(world.launches(), [1, 1, 1]);
}

#[test]
fn a_member_is_restarted_at_every_cut() {
    for cut in std::iter::once(None).chain((0..10).map(Some)) {
        for member in [0, 1] {
            let mut world = World::alike(Flavour::Mysql, 3, 3, Durability::Majority);
            let data = world.instance(member).data;
            world.cut_after = cut;
            world.wants(restart(member, false));
            world.go_on(A_WHILE);
            let mut launches = [1, 1, 1];
            launches[member as usize] = 2;
            assert!(
                world.were_launched(launches),
                "cut {cut:?}: {:?}",
                world.launches()
            );
            assert_eq!(world.instance(member).data, data);
            assert_eq!(world.shown().1.len(), 2);
            assert!(world.record().members[&MemberId(member)].restart.is_none());
            let handed_over = u64::from(member == 0);
            assert_eq!(world.record().epoch.0, 1 + handed_over, "cut {cut:?}");
        }
    }
}

#[test]
fn a_restart_that_makes_writes_wait_needs_a_word() {
    let mut world = World::alike(Flavour::Mysql, 2, 2, Durability::Majority);
    let why = refusal(world.wants(restart(1, false)));
    assert!(why.contains("too few members to acknowledge"), "{why}");
    let why = refusal(world.wants(settings()));
    assert!(why.contains("with force"), "{why}");
    world.wants(restart(1, true));
    world.go_on(A_WHILE);
    assert_eq!(world.launches(), [1, 2]);
    world.wants(asked(&[("my_cnf", SETTINGS), ("force", "true")]));
    world.go_on(A_WHILE * 2);
    assert!(world.is_over(), "{}", world.told_of());
    assert_eq!(world.launches(), [2, 3]);
}

#[test]
fn a_single_node_is_down_meanwhile() {
    let mut world = World::alike(Flavour::Mariadb, 1, 1, Durability::Majority);
    let Some(Reply::Restarting { note, .. }) = world.wants(restart(0, false)) else {
        panic!("it is refused");
    };
    assert!(note.contains("the cluster is down meanwhile"), "{note}");
    world.go_on(A_WHILE);
    assert_eq!(world.launches(), [2]);
    assert_eq!(world.shown().0, Some(0));
    world.wants(settings());
    world.go_on(A_WHILE);
    assert!(world.is_over(), "{}", world.told_of());
    assert_eq!(world.launches(), [3]);
}

#[test]
fn without_a_slot_nobody_is_restarted_in_place() {
    let mut world = World::running(3, Durability::Majority);
    let why = refusal(world.wants(restart(1, true)));
    assert!(why.contains("no slot"), "{why}");
    let told = steps(world.wants(asked(&[("my_cnf", SETTINGS), ("plan", "true")])));
    assert_eq!(told[0], "member 2: another one takes its place");
}

/// Goal: nobody is restarted while another member is missing.
#[test]
fn a_member_that_is_missing_is_waited_for() {
    let mut world = World::alike(Flavour::Mariadb, 3, 3, Durability::Majority);
    world.instance(1).broken = true;
    world.go_on(Duration::from_secs(20));
    world.wants(settings());
    world.go_on(A_WHILE);
    // It is the first to be restarted, as nothing is lost with it; and then it is well.
    assert!(world.launches()[1] >= 2, "{:?}", world.launches());
    let mut world = World::alike(Flavour::Mariadb, 3, 3, Durability::Majority);
    let why = {
        world.instance(1).broken = true;
        world.go_on(Duration::from_secs(20));
        refusal(world.wants(restart(2, false)))
    };
    assert!(why.contains("too few"), "{why}");
}
