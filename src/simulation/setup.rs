//! What a history is played with: drawn from its seed.

use std::time::Duration;

use super::{
    chance::Chance,
    scenes::Family,
    world::{MILLISECOND, SECOND},
};
use crate::cluster::{flavour::Flavour, voters::Durability};

/// The ZooKeeper session timeout.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

/// Which faults there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Servers are killed, and nothing else.
    Kills,
    /// Scheduler, Mesos and ZooKeeper fail, and nothing else: no server may notice.
    Control,
    /// The network breaks, and servers are killed.
    Network,
    /// Everything.
    Storm,
    /// What a narrow history is about.
    Scene(Family),
}

/// What a history is played with.
#[derive(Debug, Clone)]
pub struct Setup {
    pub nodes: u32,
    pub agents: usize,
    pub flavour: Flavour,
    pub durability: Durability,
    /// Whether members have slots, with volumes that hold their data.
    pub volumes: bool,
    /// How many members fit on an agent.
    pub room: usize,
    /// Whether agents say what became of an operation.
    pub feedback: bool,
    /// After how long the master gives up on an agent that does not answer.
    pub agent_timeout: u64,
    /// How long the data of a deleted cluster is kept.
    pub keep_deleted: u64,
    pub weather: Weather,
    pub clients: usize,
    /// The mean pause of a client between two writes.
    pub pause: u64,
    /// The mean time between two faults.
    pub calm: u64,
    /// How long faults go on.
    pub faults_for: u64,
    /// Whether disks refuse a promise now and then.
    pub disks_fail: bool,
    /// Whether answers of ZooKeeper get lost now and then.
    pub answers_get_lost: bool,
    /// Whether messages of Mesos get lost or are repeated now and then.
    pub messages_get_lost: bool,
    /// How long a voter may be out of its place before it leaves.
    pub voter_patience: u64,
    /// How long an `async` cluster waits for voters that do not answer.
    pub election_timeout: u64,
    /// When an operator deletes the cluster.
    pub deleted_at: Option<u64>,
    /// How long after that its owner begins to ask for it back, if they do.
    pub undeleted_after: Option<u64>,
    /// How many percent slower appliers are than the rest.
    pub lag: u64,
    /// The mean time between two switchovers that an operator asks for, if one does.
    pub switchover_every: Option<u64>,
    /// The mean time between two changes of the members that an operator asks for, if one does.
    pub membership_every: Option<u64>,
    /// The mean time between two hosts that an operator takes down for maintenance, if one does.
    pub maintenance_every: Option<u64>,
    /// The mean time between two restarts or changes of settings that an operator asks for, if one does.
    pub changes_every: Option<u64>,
    /// The mean time between two changes of the durability that an operator asks for, if one does.
    pub durability_every: Option<u64>,
}

impl Setup {
    /// A history of any kind.
    pub fn draw(seed: u64) -> Self {
        let setup = Self::draw_ordinary(seed);
        let chance = &mut Chance::new(seed ^ 0x5ce7e);
        match chance.below(4) {
            0 => chance.one_of(Family::ALL).narrow(setup),
            _ => setup,
        }
    }

    /// A history of which only the weather is known.
    pub fn draw_ordinary(seed: u64) -> Self {
        let chance = &mut Chance::new(seed);
        let nodes = chance.one_of(&[3, 3, 3, 3, 3, 5, 5, 2, 2, 1]);
        let durability = match nodes {
            1 | 2 => chance.one_of(&[Durability::Async, Durability::Async, Durability::Majority]),
            _ if chance.percent(12) => Durability::Async,
            _ => Durability::Majority,
        };
        let kept = &mut Chance::new(seed ^ 0x5107);
        let mut setup = Self {
            nodes,
            room: kept.one_of(&[1, 1, 1, 2]),
            feedback: kept.percent(80),
            agent_timeout: kept.one_of(&[75 * SECOND, 75 * SECOND, 10 * SECOND]),
            keep_deleted: kept.one_of(&[0, 5 * SECOND, 60 * SECOND]),
            agents: nodes as usize + usize::from(chance.percent(30)),
            flavour: chance.one_of(&[Flavour::Mysql, Flavour::Mariadb]),
            durability,
            volumes: chance.percent(70),
            weather: chance.one_of(&[
                Weather::Kills,
                Weather::Control,
                Weather::Network,
                Weather::Network,
                Weather::Storm,
                Weather::Storm,
                Weather::Storm,
                Weather::Storm,
            ]),
            clients: chance.between(1, 3) as usize,
            pause: chance.between(20 * MILLISECOND, 1500 * MILLISECOND),
            calm: chance.one_of(&[SECOND, 2 * SECOND, 4 * SECOND, 8 * SECOND]),
            faults_for: match chance.percent(6) {
                true => chance.between(60 * SECOND, 280 * SECOND),
                false => chance.between(10 * SECOND, 60 * SECOND),
            },
            disks_fail: chance.percent(20),
            answers_get_lost: chance.percent(50),
            messages_get_lost: chance.percent(30),
            lag: chance.one_of(&[0, 0, 100, 1000, 10_000]),
            voter_patience: chance.one_of(&[600 * SECOND, 600 * SECOND, 2 * SECOND, 10 * SECOND]),
            deleted_at: chance
                .percent(6)
                .then(|| chance.between(SECOND, 40 * SECOND)),
            undeleted_after: kept.percent(60).then(|| kept.between(0, 20 * SECOND)),
            election_timeout: chance.one_of(&[20 * SECOND, 2 * SECOND]),
            switchover_every: chance
                .percent(40)
                .then(|| chance.between(2 * SECOND, 20 * SECOND)),
            membership_every: None,
            maintenance_every: None,
            changes_every: None,
            durability_every: None,
        };
        // Drawn last, so that the other histories stay what they were. A replacement needs an agent of its own, and of two voters
        // none leaves before both of those have come that are to take their places.
        if chance.percent(20) {
            setup.membership_every = Some(chance.between(5 * SECOND, 30 * SECOND));
            setup.agents = setup.agents.max(nodes as usize + 3);
        }
        let planned = &mut Chance::new(seed ^ 0xd2a1);
        if planned.percent(15) {
            setup.maintenance_every = Some(planned.between(4 * SECOND, 30 * SECOND));
            setup.agents = setup.agents.max(nodes as usize + 2);
        }
        let chance = &mut Chance::new(seed ^ 0xc4a6e);
        if chance.percent(15) {
            setup.changes_every = Some(chance.between(3 * SECOND, 20 * SECOND));
            setup.agents = setup.agents.max(nodes as usize + 1);
        }
        let durable = &mut Chance::new(seed ^ 0xd04a);
        if nodes > 1 && durable.percent(12) {
            setup.durability_every = Some(durable.between(4 * SECOND, 30 * SECOND));
        }
        setup
    }
}
