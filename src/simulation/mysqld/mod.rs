//! The model of a MySQL or MariaDB server: its binlog and relay log, who waits for whose acknowledgement, and what is
//! left of it after a crash.
//!
//! What it has in common with the real ones, each tried there: a commit is in the binlog, and synced, before it is sent
//! to replicas (`sync_binlog=1`, `AFTER_SYNC`), and what is in the binlog is committed after a restart. A replica
//! acknowledges what is synced in its relay log, applied or not. An acknowledgement covers all that comes before it, and
//! is never given for what a replica has already. A graceful end releases commits that wait.

mod applying;
mod commits;
mod process;
mod receiving;
mod sending;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    history::{Bits, DOMAINS, Kind, Transaction, TransactionId},
    world::{Deed, MILLISECOND, Moment, SECOND, World, note},
};
use crate::{
    cluster::{
        flavour::Flavour,
        gtid::{DATA_DOMAIN, GtidList, GtidSet, MARKER_DOMAIN, Position},
        id::{DataId, Epoch, MemberId, ProcessId},
    },
    mysql::{Observation, Replication},
};
use uuid::Uuid;

/// How often a replica tries to reach its master (`SOURCE_CONNECT_RETRY`).
const CONNECT_RETRY: u64 = SECOND;

/// How long a connection may be silent (`replica_net_timeout`).
const NETWORK_TIMEOUT: u64 = 10 * SECOND;

/// How often a message is sent again while the network is broken.
const RETRANSMIT: u64 = 200 * MILLISECOND;

/// A data directory.
#[derive(Debug)]
pub struct Data {
    pub id: DataId,
    pub member: MemberId,
    pub host: usize,
    /// MySQL's `server_uuid`.
    pub uuid: Uuid,
    pub server_id: u32,
    pub binlog: Vec<TransactionId>,
    pub synced: usize,
    /// What the binlog holds.
    pub logged: Position,
    /// What is in the binlog or in the relay log.
    pub has: Bits,
    /// Received and not applied.
    pub relay: VecDeque<TransactionId>,
    /// Until when every transaction fails to be applied.
    pub poisoned_until: Moment,
    /// Set aside, or lost with its host.
    pub gone: bool,
    /// Lost with its host or its container.
    pub gone_by_fault: bool,
}

/// A run of a server.
#[derive(Debug)]
pub struct Process {
    pub id: ProcessId,
    pub data: usize,
    pub host: usize,
    pub port: u16,
    pub executor: usize,
    pub alive: bool,
    /// It lets somebody in.
    pub ready: bool,
    /// Stopped by SIGSTOP.
    pub hung: bool,
    inbox: Deeds,
    pub read_only: bool,
    pub admitted: bool,
    /// How many acknowledgements a commit waits for.
    pub k: u32,
    /// The members whose replication accounts are locked.
    barred: BTreeSet<MemberId>,
    /// How much of the binlog is committed.
    pub committed: usize,
    pub executed: Position,
    pub canary: Option<u64>,
    pub waiting: VecDeque<Waiting>,
    /// How much of the binlog each replica, by its data directory, has acknowledged.
    acknowledged: BTreeMap<usize, usize>,
    /// The dump threads by the replica's process.
    pub links: BTreeMap<usize, Link>,
    pub receiver: Receiver,
    pub applier: bool,
    pub applier_error: Option<String>,
    applying: bool,
    /// When its watchdog was fed last.
    pub fed_at: Moment,
}

/// What waits until a stopped process goes on.
#[derive(Default)]
pub struct Deeds(pub Vec<Deed>);

impl std::fmt::Debug for Deeds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} deeds", self.0.len())
    }
}

/// A commit that is not told to whoever made it yet.
#[derive(Debug)]
pub struct Waiting {
    pub index: usize,
    waiter: Waiter,
}

/// Who made a commit.
#[derive(Debug, Clone, Copy)]
pub enum Waiter {
    Nobody,
    Client { client: usize, attempt: u64 },
    Step { executor: usize, number: u64 },
    Canary { executor: usize, number: u64 },
    Proof { executor: usize },
    Check { executor: usize },
}

/// A dump thread.
#[derive(Debug)]
pub struct Link {
    acknowledges: bool,
    next: usize,
    in_flight: bool,
}

/// The receiver (I/O thread).
#[derive(Debug, Default)]
pub struct Receiver {
    pub wanted: bool,
    pub source: Option<(usize, u16)>,
    pub connected: Option<usize>,
    pub acknowledges: bool,
    pub error: Option<String>,
    /// Counts the connections: what belongs to an earlier one is void.
    connection: u64,
    trying: bool,
}

impl Data {
    pub fn new(id: DataId, member: MemberId, host: usize, uuid: Uuid, flavour: Flavour) -> Self {
        Self {
            id,
            member,
            host,
            uuid,
            server_id: id.server_id(member),
            binlog: Vec::new(),
            synced: 0,
            logged: Position::empty(flavour),
            has: Bits::default(),
            relay: VecDeque::new(),
            poisoned_until: 0,
            gone: false,
            gone_by_fault: false,
        }
    }

    /// Gives it a binlog that is on the disk.
    pub fn fill(&mut self, log: Vec<TransactionId>, transactions: &[Transaction]) {
        self.logged = Position::empty(self.logged.flavour());
        for id in &log {
            advance(&mut self.logged, &transactions[*id].gtid);
        }
        self.synced = log.len();
        self.binlog = log;
        self.has = self.binlog.iter().chain(&self.relay).copied().collect();
    }

    /// The last transaction of a domain in binlog and relay log.
    fn last_of(&self, domain: u32, transactions: &[Transaction]) -> Option<TransactionId> {
        let all = self.relay.iter().rev().chain(self.binlog.iter().rev());
        all.copied().find(|id| transactions[*id].domain() == domain)
    }
}

/// A position and one transaction more, which comes after it.
fn advance(position: &mut Position, gtid: &Position) {
    match (position, gtid) {
        (Position::Mysql(set), Position::Mysql(one)) => *set = set.union(one),
        (Position::Mariadb(list), Position::Mariadb(one)) => {
            for domain in DOMAINS {
                if let Some(server) = one.server(domain) {
                    list.advance(domain, server, one.sequence(domain));
                }
            }
        }
        _ => {}
    }
}
