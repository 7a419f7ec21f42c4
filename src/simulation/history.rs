//! Every transaction that was ever begun, and what its client was told.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::world::Moment;
use crate::cluster::{
    gtid::{DATA_DOMAIN, MARKER_DOMAIN, Position},
    id::{Epoch, TaskId},
};

/// The number of a transaction in [`History::transactions`].
pub type TransactionId = usize;

/// What a transaction does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A client's write of a value that no other write has.
    Write(u64),
    Marker(Epoch),
    Canary(u64),
    Proof,
    /// The cluster's user is made.
    User,
}

#[derive(Debug)]
pub struct Transaction {
    pub kind: Kind,
    /// Its GTID as a position.
    pub gtid: Position,
    /// On MariaDB, the domain, the server and the number in it; on MySQL, the data directory that gave it and the number.
    pub name: (u32, u32, u64),
}

/// All transactions, and what is known of them outside of the servers.
#[derive(Debug, Default)]
pub struct History {
    pub transactions: Vec<Transaction>,
    /// Writes that were acknowledged to their clients.
    pub acknowledged: Vec<TransactionId>,
    /// Writes that a client has read from a master.
    pub read: BTreeSet<TransactionId>,
    /// The epochs that were opened, each with its master's data directory.
    pub opened: Vec<(Epoch, usize)>,
    /// The last epoch that has a master, with the data directory that was elected.
    pub elected: Option<(Epoch, usize)>,
    /// Whether what is acknowledged outlives failovers.
    pub promised: bool,
    /// Whether the cluster's end is stored.
    pub deleted: bool,
    /// The tasks whose end a scheduler has asked for.
    pub killed: BTreeSet<TaskId>,
    /// When the cluster was removed.
    pub removed_at: Moment,
    /// Since when it is back, if it was brought back after that.
    pub back_since: Option<Moment>,
    pub next_value: u64,
    /// The cluster's incarnation.
    pub cluster: Uuid,
}

impl Transaction {
    pub fn domain(&self) -> u32 {
        self.name.0
    }
}

/// Domains of MariaDB; on MySQL the marker has another source instead.
pub const DOMAINS: [u32; 2] = [DATA_DOMAIN, MARKER_DOMAIN];

/// A set of transactions.
#[derive(Debug, Clone, Default)]
pub struct Bits(Vec<u64>);

impl Bits {
    pub fn insert(&mut self, id: TransactionId) {
        if self.0.len() <= id / 64 {
            self.0.resize(id / 64 + 1, 0);
        }
        self.0[id / 64] |= 1 << (id % 64);
    }

    pub fn contains(&self, id: TransactionId) -> bool {
        self.0
            .get(id / 64)
            .is_some_and(|word| word & (1 << (id % 64)) != 0)
    }
}

impl FromIterator<TransactionId> for Bits {
    fn from_iter<I: IntoIterator<Item = TransactionId>>(ids: I) -> Self {
        let mut bits = Self::default();
        ids.into_iter().for_each(|id| bits.insert(id));
        bits
    }
}
