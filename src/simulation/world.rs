//! The world of one history: its clock, its queue, its network, and all that stands in it.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use uuid::Uuid;

use super::{
    Bend,
    chance::Chance,
    clients::Clients,
    executor::Executor,
    history::History,
    mesos::Mesos,
    mysqld::{Data, Process},
    scheduler::Scheduler,
    setup::Setup,
    zookeeper::ZooKeeper,
};
use crate::{cluster::voters::Durability, time::Timestamp};

/// Microseconds since the beginning of the history.
pub type Moment = u64;

pub const MILLISECOND: u64 = 1_000;
pub const SECOND: u64 = 1_000_000;

/// What happens at a moment.
pub type Deed = Box<dyn FnOnce(&mut World)>;

/// Places between which the network can break. The first ones are the hosts of agents.
pub const SCHEDULER: usize = 8;
pub const ZOOKEEPER: usize = 9;
pub const MESOS: usize = 10;
pub const CLIENT: usize = 11;
const PLACES: usize = 12;

struct Entry {
    at: Moment,
    number: u64,
    deed: Deed,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the greatest, which is what the heap gives first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// One simulated world.
pub struct World {
    pub setup: Setup,
    pub bend: Bend,
    pub now: Moment,
    queue: BinaryHeap<Entry>,
    next_number: u64,
    pub chance: Chance,
    /// What has happened, if somebody wants to read it.
    pub trace: Option<Vec<String>>,
    /// What must never be and was. The first one ends the history.
    pub violation: Option<String>,
    blocked: [[u8; PLACES]; PLACES],
    /// Until when the disk of a host does not answer.
    pub disk_stalls_until: [Moment; PLACES],
    /// Until when it has no space: what writes waits, and a promise fails.
    pub disk_full_until: [Moment; PLACES],
    /// Whether faults go on; afterwards progress is demanded.
    pub faults_go_on: bool,
    pub faults: u32,
    pub events: u64,
    pub zookeeper: ZooKeeper,
    pub mesos: Mesos,
    pub schedulers: Vec<Scheduler>,
    pub executors: Vec<Executor>,
    pub data: Vec<Data>,
    pub processes: Vec<Process>,
    /// Which process listens at a host and port.
    pub listening: BTreeMap<(usize, u16), usize>,
    pub history: History,
    pub clients: Clients,
    pub discovery_wrong_since: Option<Moment>,
    /// Servers that serve though another master has opened, and since when.
    pub replaced: BTreeMap<usize, Moment>,
    /// Whether a scheduler's clock has jumped: a wait that it measures may have been too short.
    pub clocks_jumped: bool,
}

/// Notes something in the trace. The text is made only if it is wanted.
macro_rules! note {
    ($world:expr, $($text:tt)*) => {
        if $world.trace.is_some() {
            let text = format!($($text)*);
            $world.write_down(text);
        }
    };
}
pub(super) use note;

impl World {
    pub fn new(seed: u64, setup: Setup, bend: Bend) -> Self {
        Self {
            bend,
            now: 0,
            queue: BinaryHeap::new(),
            next_number: 0,
            // The setup was drawn from the same seed by another generator.
            chance: Chance::new(!seed),
            trace: None,
            violation: None,
            blocked: [[0; PLACES]; PLACES],
            disk_stalls_until: [0; PLACES],
            disk_full_until: [0; PLACES],
            faults_go_on: true,
            faults: 0,
            events: 0,
            zookeeper: ZooKeeper::default(),
            mesos: Mesos::new(&setup),
            schedulers: Vec::new(),
            executors: Vec::new(),
            data: Vec::new(),
            processes: Vec::new(),
            listening: BTreeMap::new(),
            history: History {
                promised: setup.durability == Durability::Majority,
                ..History::default()
            },
            clients: Clients::new(setup.clients),
            discovery_wrong_since: None,
            replaced: BTreeMap::new(),
            clocks_jumped: false,
            setup,
        }
    }

    /// Has something happen later.
    pub fn after(&mut self, delay: u64, deed: impl FnOnce(&mut Self) + 'static) {
        self.at(self.now + delay, Box::new(deed));
    }

    pub fn at(&mut self, at: Moment, deed: Deed) {
        self.next_number += 1;
        self.queue.push(Entry {
            at,
            number: self.next_number,
            deed,
        });
    }

    /// Lets time pass until `end`, or until something is wrong.
    pub fn run_until(&mut self, end: Moment) {
        while self.violation.is_none() {
            if self.queue.peek().is_none_or(|entry| entry.at > end) {
                self.now = self.now.max(end);
                return;
            }
            let Some(entry) = self.queue.pop() else {
                return;
            };
            self.now = entry.at;
            self.events += 1;
            (entry.deed)(self);
        }
    }

    pub fn write_down(&mut self, text: String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>11.6} {text}", now as f64 / SECOND as f64));
        }
    }

    /// Ends the history: something is wrong.
    pub fn wrong(&mut self, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            let text = what();
            note!(self, "WRONG: {text}");
            self.violation = Some(text);
        }
    }

    pub fn uuid(&mut self) -> Uuid {
        let (high, low) = (self.chance.any(), self.chance.any());
        Uuid::from_u128(u128::from(high) << 64 | u128::from(low))
    }

    /// The time of day at a clock that is `offset` microseconds ahead.
    pub fn timestamp(&self, offset: i64) -> Timestamp {
        const BEGIN: u64 = 1_700_000_000_000;
        let micros = (self.now as i64 + offset).max(0) as u64;
        Timestamp::from_millis(BEGIN + micros / MILLISECOND)
    }

    // === network and disks ===

    /// Whether a message gets from one place to another.
    pub fn open(&self, from: usize, to: usize) -> bool {
        self.blocked[from][to] == 0
    }

    /// Whether a connection between two places can live.
    pub fn both_open(&self, a: usize, b: usize) -> bool {
        self.open(a, b) && self.open(b, a)
    }

    /// Breaks one direction between two places, or mends what was broken once.
    pub fn set_blocked(&mut self, from: usize, to: usize, block: bool) {
        let count = &mut self.blocked[from][to];
        *count = if block {
            count.saturating_add(1)
        } else {
            count.saturating_sub(1)
        };
    }

    pub fn mend_network(&mut self) {
        self.blocked = [[0; PLACES]; PLACES];
    }

    /// How long a message takes.
    pub fn network(&mut self) -> u64 {
        match self.chance.below(40) {
            0 => self.chance.between(2 * MILLISECOND, 60 * MILLISECOND),
            _ => self.chance.between(60, 900),
        }
    }

    /// How long it takes until something is on the disk of a host.
    pub fn disk(&mut self, host: usize) -> u64 {
        let until = self.disk_stalls_until[host].max(self.disk_full_until[host]);
        until.saturating_sub(self.now)
            + match self.chance.below(40) {
                0 => self.chance.between(5 * MILLISECOND, 80 * MILLISECOND),
                _ => self.chance.between(80, 2 * MILLISECOND),
            }
    }
}

/// A duration in microseconds.
pub fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}
