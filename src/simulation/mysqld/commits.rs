//! Commits: into the binlog, onto the disk, and done when enough replicas have acknowledged them.

use super::*;

impl World {
    fn name_transaction(&self, process: usize, kind: Kind) -> Transaction {
        let data = &self.data[self.processes[process].data];
        match (&data.logged, kind) {
            (Position::Mysql(_), Kind::Marker(epoch)) => Transaction {
                kind,
                gtid: Position::Mysql(GtidSet::one(self.history.cluster, epoch.0)),
                name: (MARKER_DOMAIN, 0, epoch.0),
            },
            (Position::Mysql(set), _) => {
                let number = set.highest_of(data.uuid) + 1;
                Transaction {
                    kind,
                    gtid: Position::Mysql(GtidSet::one(data.uuid, number)),
                    name: (DATA_DOMAIN, data.server_id, number),
                }
            }
            (Position::Mariadb(list), _) => {
                let (domain, number) = match kind {
                    Kind::Marker(Epoch(epoch)) => (MARKER_DOMAIN, epoch),
                    _ => (DATA_DOMAIN, list.sequence(DATA_DOMAIN) + 1),
                };
                Transaction {
                    kind,
                    gtid: Position::Mariadb(GtidList::one(domain, data.server_id, number)),
                    name: (domain, data.server_id, number),
                }
            }
        }
    }

    /// MySQL: writes the markers of earlier epochs that the master has not. Those that others have are the same
    /// transactions.
    pub fn fill_markers(&mut self, process: usize, epoch: Epoch) {
        let Position::Mysql(executed) = &self.processes[process].executed else {
            return;
        };
        for hole in executed.holes_of(self.history.cluster, epoch.0) {
            let kind = Kind::Marker(Epoch(hole));
            let mut known = self.history.transactions.iter();
            match known.position(|transaction| transaction.kind == kind) {
                Some(id) => self.commit_as(process, id, Waiter::Nobody),
                None => {
                    self.commit(process, kind, Waiter::Nobody);
                }
            }
        }
    }

    /// Commits something: into the binlog, onto the disk, to the replicas, and when `k` of them have it, done.
    pub fn commit(&mut self, process: usize, kind: Kind, waiter: Waiter) -> TransactionId {
        let transaction = self.name_transaction(process, kind);
        let id = self.history.transactions.len();
        note!(
            self,
            "mysqld {process} logs {id} {kind:?} {}",
            transaction.gtid
        );
        self.history.transactions.push(transaction);
        self.commit_as(process, id, waiter);
        id
    }

    fn commit_as(&mut self, process: usize, id: TransactionId, waiter: Waiter) {
        let index = self.log(process, id);
        let it = &mut self.processes[process];
        it.waiting.push_back(Waiting { index, waiter });
        let host = it.host;
        let delay = self.disk(host);
        self.after_on_process(delay, process, move |world| {
            world.binlog_synced(process, index)
        });
    }

    /// Puts a transaction into the binlog.
    pub(super) fn log(&mut self, process: usize, id: TransactionId) -> usize {
        let it = &mut self.processes[process];
        let data = &mut self.data[it.data];
        let gtid = &self.history.transactions[id].gtid;
        data.binlog.push(id);
        data.has.insert(id);
        advance(&mut data.logged, gtid);
        if data.logged.flavour() == Flavour::Mariadb {
            // There it counts as executed from now on.
            advance(&mut it.executed, gtid);
        }
        data.binlog.len() - 1
    }

    fn binlog_synced(&mut self, process: usize, index: usize) {
        let data = &mut self.data[self.processes[process].data];
        data.synced = data.synced.max(index + 1);
        self.send_to_all(process);
        self.release(process);
    }

    /// Commits what has enough acknowledgements.
    pub fn release(&mut self, process: usize) {
        loop {
            let it = &mut self.processes[process];
            let data = &self.data[it.data];
            let mut acknowledged: Vec<usize> = it.acknowledged.values().copied().collect();
            acknowledged.sort_unstable_by(|a, b| b.cmp(a));
            let enough = match it.k as usize {
                0 => usize::MAX,
                k => acknowledged.get(k - 1).copied().unwrap_or(0),
            };
            let is_done = |waiting: &Waiting| waiting.index < data.synced && waiting.index < enough;
            if !it.waiting.front().is_some_and(is_done) {
                return;
            }
            let Some(Waiting { index, waiter }) = it.waiting.pop_front() else {
                return;
            };
            let id = data.binlog[index];
            let transaction = &self.history.transactions[id];
            it.committed = it.committed.max(index + 1);
            if data.logged.flavour() == Flavour::Mysql {
                advance(&mut it.executed, &transaction.gtid);
            }
            if let Kind::Canary(number) = transaction.kind {
                it.canary = it.canary.max(Some(number));
            }
            self.committed(process, index, waiter);
        }
    }

    fn committed(&mut self, process: usize, index: usize, waiter: Waiter) {
        match waiter {
            Waiter::Client { client, attempt } => {
                self.acknowledge(process, index);
                self.tell_client(self.processes[process].host, client, attempt, true);
            }
            Waiter::Nobody => {}
            Waiter::Step { executor, number } => self.step_committed(executor, number),
            Waiter::Canary { executor, number } => {
                self.canary_written(executor, process, number);
            }
            Waiter::Proof { executor } => self.proved(executor, process),
            Waiter::Check { executor } => self.checked(executor, process),
        }
    }
}
