//! Goal: all offers of a batch are used, an offer by as many clusters as it has room for, the oldest first; and Mesos is told
//! once for each offer, when everything that it pays for is stored. Method: several clusters, offers by hand.

use std::collections::{BTreeMap, BTreeSet};

use super::world::{self, PASSWORD};
use crate::{
    cluster::{
        control::{Authentication, ClusterUser},
        id::{ClusterName, MemberId, TaskId},
        membership::{Leaving, Why},
        record::{ClusterRecord, TaskRecord},
        size::Size,
        spec::ClusterSpec,
        voters::Durability,
    },
    scheduler::{
        action::{Action, Plan},
        check::check,
        event::{Event, StoredCluster, Version},
        placement::{Launch, Offer, SpreadBy},
        plan,
        state::{Policy, State},
    },
    secret::Secret,
    time::Timestamp,
};

const NOW: Timestamp = Timestamp::from_millis(1_000_000);

/// A cluster of `nodes`, asked for at this second.
fn stored(name: &str, nodes: u32, second: u64) -> StoredCluster {
    let spec = ClusterSpec {
        name: name.parse().unwrap(),
        ..world::spec(nodes, Durability::Majority)
    };
    let user = ClusterUser {
        name: "shop".into(),
        authentication: Authentication {
            mysql: "m".into(),
            mariadb: "a".into(),
        },
    };
    let (uuid, at) = (
        uuid::Uuid::from_u128(second.into()),
        Timestamp::from_millis(second * 1000),
    );
    StoredCluster {
        record: ClusterRecord::new(spec, uuid, "sealed".into(), user, at),
        version: Version(0),
        password: Secret::new(PASSWORD),
    }
}

fn state(policy: Policy, clusters: Vec<StoredCluster>) -> State {
    let mut state = State::new(policy, Some("f".into()), clusters, BTreeSet::new());
    let framework_id = "f".into();
    state.apply(Event::Subscribed { framework_id }, NOW);
    look(&mut state);
    state
}

/// An offer with room for so many members of the default size.
fn offer(agent: u32, rooms: u32) -> Offer {
    Offer {
        id: format!("o{agent}"),
        agent_id: format!("a{agent}"),
        host: format!("127.0.0.{agent}"),
        role: "cotton".into(),
        cpus: Size::DEFAULT.cpus() * f64::from(rooms),
        mem_mib: 100_000.0,
        disk_mib: 1_000_000.0,
        ports: vec![(31000, 31999)],
        slots: Vec::new(),
        attributes: [("rack".to_owned(), format!("r{}", agent % 2))].into(),
        unavailable: None,
    }
}

fn look(state: &mut State) -> Plan {
    let due = state.take_due(NOW);
    let plan = plan::plan(state, &due, NOW);
    assert_eq!(check(state, &plan), []);
    state.begin(&plan, NOW);
    plan
}

fn offered(state: &mut State, offers: Vec<Offer>) -> BTreeMap<ClusterName, Vec<Launch>> {
    state.apply(Event::Offers(offers), NOW);
    let persisted = look(state)
        .actions
        .into_iter()
        .filter_map(|action| match action {
            Action::Persist {
                record, launches, ..
            } => Some((record.name().clone(), launches)),
            Action::Launch(_) => panic!("nothing is launched whose record is not stored"),
            _ => None,
        });
    persisted.collect()
}

/// What Mesos is told once this cluster's record is stored: the tasks of each message.
fn told_after(state: &mut State, cluster: &str) -> Vec<Vec<String>> {
    let cluster = cluster.parse().unwrap();
    let version = Version(1);
    state.apply(Event::Stored { cluster, version }, NOW);
    let launched = look(state)
        .actions
        .into_iter()
        .filter_map(|action| match action {
            Action::Launch(launches) => Some(launches),
            _ => None,
        });
    let names = |launches: Vec<Launch>| {
        let names = launches
            .iter()
            .map(|it| it.task.task_id.cluster().unwrap().to_string());
        names.collect()
    };
    launched.map(names).collect()
}

#[test]
fn an_offer_pays_for_members_of_several_clusters_and_mesos_is_told_once() {
    for volumes in [false, true] {
        let policy = Policy {
            volumes,
            ..world::policy()
        };
        let clusters = vec![stored("young", 1, 20), stored("old", 1, 10)];
        let mut state = state(policy, clusters);
        let placed = offered(&mut state, vec![offer(1, 3)]);
        let ports: BTreeSet<u16> = (placed.values().flatten())
            .map(|launch| launch.task.port)
            .collect();
        assert_eq!(ports.len(), 2, "each has a port of its own");
        assert_eq!(told_after(&mut state, "young"), Vec::<Vec<String>>::new());
        assert_eq!(told_after(&mut state, "old"), [["young", "old"]]);
        assert!(state.accepting.is_empty(), "it is not told again");
    }
}

#[test]
fn the_older_cluster_has_the_first_choice_and_the_younger_what_is_left() {
    let clusters = vec![stored("a-young", 1, 20), stored("b-old", 2, 10)];
    let mut state = state(world::policy(), clusters);
    let placed = offered(&mut state, vec![offer(1, 1), offer(2, 1)]);
    let names: Vec<&str> = placed.keys().map(ClusterName::as_str).collect();
    assert_eq!(names, ["b-old"]);
    assert_eq!(placed.values().flatten().count(), 2);
}

/// Goal: a cluster that grows comes after those that were waiting by then; one that has lost a member does not.
#[test]
fn who_grows_waits_like_everybody() {
    for (joined_at, first) in [(Some(30), "b-young"), (None, "a-old")] {
        let mut old = stored("a-old", 2, 10);
        launched(&mut old, 1, "x");
        let missing = old.record.members.get_mut(&MemberId(0)).unwrap();
        missing.joined_at = joined_at.map(|second| Timestamp::from_millis(second * 1000));
        let mut state = state(world::policy(), vec![old, stored("b-young", 1, 20)]);
        let placed = offered(&mut state, vec![offer(2, 1)]);
        let names: Vec<&str> = placed.keys().map(ClusterName::as_str).collect();
        assert_eq!(names, [first]);
    }
}

#[test]
fn what_does_not_fit_the_oldest_is_there_for_the_next() {
    let mut large = stored("large", 1, 10);
    large.record.spec.size = Size::parse(r#"{"cpus": 64.0}"#).unwrap();
    let mut state = state(world::policy(), vec![large, stored("small", 1, 20)]);
    let placed = offered(&mut state, vec![offer(1, 1)]);
    let names: Vec<&str> = placed.keys().map(ClusterName::as_str).collect();
    assert_eq!(names, ["small"]);
}

#[test]
fn members_of_one_cluster_go_to_racks_of_their_own() {
    let policy = Policy {
        spread_by: SpreadBy::names(["rack".to_owned()]),
        ..world::policy()
    };
    let mut state = state(policy, vec![stored("orders", 2, 990)]);
    let offers = vec![offer(1, 1), offer(3, 1), offer(4, 9)];
    let placed = offered(&mut state, offers);
    let agents: BTreeSet<&str> = (placed.values().flatten())
        .map(|launch| launch.task.agent_id.as_str())
        .collect();
    assert_eq!(agents, ["a1", "a4"].into());
}

fn spread_by_rack() -> Policy {
    Policy {
        spread_by: SpreadBy::names(["rack".to_owned()]),
        ..world::policy()
    }
}

/// An offer of an agent in this rack.
fn offer_in(rack: &str, agent: u32, rooms: u32) -> Offer {
    Offer {
        attributes: [("rack".to_owned(), rack.to_owned())].into(),
        ..offer(agent, rooms)
    }
}

/// A member's task that was launched long ago, on this agent in this rack.
fn launched(stored: &mut StoredCluster, id: u32, rack: &str) {
    let record = &mut stored.record;
    let task_id = TaskId::new(record.name(), record.uuid, MemberId(id), 1);
    let member = record.members.get_mut(&MemberId(id)).unwrap();
    member.launches = 1;
    member.places = [("rack".to_owned(), rack.to_owned())].into();
    member.task = Some(TaskRecord {
        task_id,
        agent_id: format!("a{id}"),
        host: format!("127.0.0.{id}"),
        port: 31000,
        launched_at: Timestamp::from_millis(10_000),
        unknown: Default::default(),
    });
}

/// Goal: who comes for a member that leaves takes its place, and does not crowd another one. Method: three racks with a member
/// each, one of which leaves; the agent of the tightest fit is in the rack of one that stays.
#[test]
fn who_comes_for_a_member_takes_its_place() {
    let mut stored = stored("orders", 4, 10);
    for (id, rack) in [(0, "x"), (1, "y"), (2, "z")] {
        launched(&mut stored, id, rack);
    }
    stored.record.members.get_mut(&MemberId(2)).unwrap().leaving = Some(Leaving {
        why: Why::Replaced,
        since: Timestamp::from_millis(20_000),
        replacement: Some(MemberId(3)),
        unknown: Default::default(),
    });
    stored.record.spec.num_nodes = 3;
    let mut state = state(spread_by_rack(), vec![stored]);
    let placed = offered(&mut state, vec![offer_in("x", 7, 1), offer_in("z", 8, 9)]);
    let agents: Vec<&str> = (placed.values().flatten())
        .map(|launch| launch.task.agent_id.as_str())
        .collect();
    assert_eq!(agents, ["a8"]);
}

/// Goal: a member whose task has just ended waits for an agent of its own for a while, however old its cluster is. Method: without
/// volumes, an offer of an agent with another member, at once and later.
#[test]
fn who_has_lost_its_task_does_not_share_an_agent_at_once() {
    for (ended, placed_on) in [(999_000, 0), (900_000, 1)] {
        let mut stored = stored("orders", 2, 10);
        launched(&mut stored, 1, "x");
        let lost = stored.record.members.get_mut(&MemberId(0)).unwrap();
        lost.launches = 1;
        lost.ended_at = Some(Timestamp::from_millis(ended));
        let mut state = state(world::policy(), vec![stored]);
        let placed = offered(&mut state, vec![offer(1, 9)]);
        assert_eq!(placed.values().flatten().count(), placed_on, "{ended}");
    }
}
