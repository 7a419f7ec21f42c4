//! What a history is played with: drawn from its seed.

use std::time::Duration;

use super::{
    chance::Chance,
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
}

/// What a history is played with.
#[derive(Debug, Clone)]
pub struct Setup {
    pub nodes: u32,
    pub agents: usize,
    pub flavour: Flavour,
    pub durability: Durability,
    /// Whether a member that is launched again on its agent finds what it had there.
    pub volumes: bool,
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
    /// How many percent slower appliers are than the rest.
    pub lag: u64,
}

impl Setup {
    pub fn draw(seed: u64) -> Self {
        let chance = &mut Chance::new(seed);
        let nodes = chance.one_of(&[3, 3, 3, 3, 3, 5, 5, 2, 2, 1]);
        let durability = match nodes {
            1 | 2 => chance.one_of(&[Durability::Async, Durability::Async, Durability::Majority]),
            _ if chance.percent(12) => Durability::Async,
            _ => Durability::Majority,
        };
        Self {
            nodes,
            agents: nodes as usize + usize::from(chance.percent(30)),
            flavour: chance.one_of(&[Flavour::Mysql, Flavour::Mariadb]),
            durability,
            volumes: chance.percent(50),
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
            faults_for: chance.between(10 * SECOND, 60 * SECOND),
            disks_fail: chance.percent(20),
            answers_get_lost: chance.percent(50),
            messages_get_lost: chance.percent(30),
            lag: chance.one_of(&[0, 0, 100, 1000, 10_000]),
        }
    }
}
