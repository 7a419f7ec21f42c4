//! The model of a MySQL or MariaDB server: its binlog and relay log, who waits for whose acknowledgement, and what is
//! left of it after a crash.
//!
//! What it has in common with the real ones, each tried there: a commit is in the binlog, and synced, before it is sent
//! to replicas (`sync_binlog=1`, `AFTER_SYNC`), and what is in the binlog is committed after a restart. A replica
//! acknowledges what is synced in its relay log, applied or not. An acknowledgement covers all that comes before it, and
//! is never given for what a replica has already. A graceful end releases commits that wait.

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

impl World {
    // === the process ===

    /// A server begins on a data directory; it lets nobody in yet.
    pub fn spawn(&mut self, executor: usize, data: usize) -> usize {
        let (host, port) = {
            let executor = &self.executors[executor];
            (executor.host, executor.port)
        };
        let id = ProcessId(self.uuid());
        let held = &self.data[data];
        let closed = !self.bend.breaks(super::Shell::StartsClosed);
        let canary =
            held.binlog
                .iter()
                .filter_map(|id| match self.history.transactions[*id].kind {
                    Kind::Canary(number) => Some(number),
                    _ => None,
                });
        self.processes.push(Process {
            id,
            data,
            host,
            port,
            executor,
            alive: true,
            ready: false,
            hung: false,
            inbox: Deeds::default(),
            read_only: closed,
            admitted: !closed,
            k: 0,
            barred: BTreeSet::new(),
            committed: held.binlog.len(),
            executed: held.logged.clone(),
            canary: canary.max(),
            waiting: VecDeque::new(),
            acknowledged: BTreeMap::new(),
            links: BTreeMap::new(),
            receiver: Receiver::default(),
            applier: false,
            applier_error: None,
            applying: false,
            fed_at: 0,
        });
        self.data[data].synced = self.data[data].binlog.len();
        self.processes.len() - 1
    }

    /// It lets somebody in.
    pub fn becomes_ready(&mut self, process: usize) {
        let it = &mut self.processes[process];
        it.ready = true;
        self.listening.insert((it.host, it.port), process);
    }

    /// SIGKILL. A process that waits for its disk ends when the disk answers.
    pub fn kill_process(&mut self, process: usize) {
        let it = &mut self.processes[process];
        if !it.alive {
            return;
        }
        note!(self, "mysqld {process} is killed");
        let it = &mut self.processes[process];
        it.alive = false;
        it.ready = false;
        it.inbox.0.clear();
        let (host, port, executor) = (it.host, it.port, it.executor);
        let replicas: Vec<usize> = it.links.keys().copied().collect();
        let waiting: Vec<Waiter> = it.waiting.drain(..).map(|waiting| waiting.waiter).collect();
        if self.listening.get(&(host, port)) == Some(&process) {
            self.listening.remove(&(host, port));
        }
        self.disconnect(process);
        for replica in replicas {
            let delay = self.network();
            self.after(delay, move |world| world.connection_broke(replica, process));
        }
        for waiter in waiting {
            if let Waiter::Client { client, attempt } = waiter {
                self.tell_client(host, client, attempt, false);
            }
        }
        let delay = self.chance.between(MILLISECOND, 30 * MILLISECOND)
            + self.disk_stalls_until[host].saturating_sub(self.now);
        self.after(delay, move |world| world.process_ended(executor, process));
    }

    /// A watchdog that kills the server when it is not fed.
    pub fn guard(&mut self, process: usize, patience: u64) {
        self.processes[process].fed_at = self.now;
        self.watch(process, patience);
    }

    fn watch(&mut self, process: usize, patience: u64) {
        let it = &self.processes[process];
        if !it.alive {
            return;
        }
        let due = it.fed_at + patience;
        if due <= self.now {
            note!(self, "the watchdog of mysqld {process} is hungry");
            return self.kill_process(process);
        }
        self.at(due, Box::new(move |world| world.watch(process, patience)));
    }

    /// SIGTERM.
    pub fn terminate_process(&mut self, process: usize) {
        let delay = self.chance.between(20 * MILLISECOND, 2 * SECOND);
        self.after_on_process(delay, process, move |world| {
            // Commits that wait are released, as if they were acknowledged (tried on both flavours).
            let host = world.processes[process].host;
            let waiting: Vec<Waiting> = world.processes[process].waiting.drain(..).collect();
            for Waiting { index, waiter } in waiting {
                if let Waiter::Client { client, attempt } = waiter {
                    world.acknowledge(process, index);
                    world.tell_client(host, client, attempt, true);
                }
            }
            world.kill_process(process);
        });
    }

    /// SIGSTOP and SIGCONT.
    pub fn hang(&mut self, process: usize, hung: bool) {
        let it = &mut self.processes[process];
        if it.hung == hung || !it.alive {
            return;
        }
        it.hung = hung;
        if !hung {
            for deed in std::mem::take(&mut it.inbox.0) {
                self.at(self.now, deed);
            }
        }
        note!(
            self,
            "mysqld {process} {}",
            if hung { "hangs" } else { "goes on" }
        );
    }

    /// Does something in a process: never if it has ended, later if it hangs.
    pub fn on_process(&mut self, process: usize, deed: impl FnOnce(&mut Self) + 'static) {
        let it = &mut self.processes[process];
        if !it.alive {
            return;
        }
        if it.hung {
            it.inbox.0.push(Box::new(move |world: &mut Self| {
                world.on_process(process, deed);
            }));
        } else {
            deed(self);
        }
    }

    pub fn after_on_process(
        &mut self,
        delay: u64,
        process: usize,
        deed: impl FnOnce(&mut Self) + 'static,
    ) {
        self.after(delay, move |world| world.on_process(process, deed));
    }

    // === commits ===

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
        let index = self.log(process, id);
        let it = &mut self.processes[process];
        it.waiting.push_back(Waiting { index, waiter });
        let host = it.host;
        let delay = self.disk(host);
        self.after_on_process(delay, process, move |world| {
            world.binlog_synced(process, index)
        });
        id
    }

    /// Puts a transaction into the binlog.
    fn log(&mut self, process: usize, id: TransactionId) -> usize {
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
    fn release(&mut self, process: usize) {
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
            Waiter::Step { executor, number } => self.step_committed(executor, number),
            Waiter::Canary { executor, number } => {
                self.canary_written(executor, process, number);
            }
            Waiter::Proof { executor } => self.proved(executor, process),
            Waiter::Check { executor } => self.checked(executor, process),
        }
    }

    // === to the replicas ===

    fn send_to_all(&mut self, process: usize) {
        let replicas: Vec<usize> = self.processes[process].links.keys().copied().collect();
        for replica in replicas {
            self.send(process, replica);
        }
    }

    /// Sends what a replica lacks.
    fn send(&mut self, process: usize, replica: usize) {
        let most = self.chance.between(1, 8) as usize;
        let replicas_data = &self.data[self.processes[replica].data];
        let it = &mut self.processes[process];
        let Some(link) = it.links.get_mut(&replica).filter(|link| !link.in_flight) else {
            return;
        };
        let data = &self.data[it.data];
        let mut batch = Vec::new();
        while link.next < data.synced && batch.len() < most {
            let id = data.binlog[link.next];
            link.next += 1;
            if !replicas_data.has.contains(id) {
                batch.push(id);
            }
        }
        if batch.is_empty() {
            return;
        }
        link.in_flight = true;
        let upto = link.next;
        let connection = self.processes[replica].receiver.connection;
        let delay = self.network();
        let sent = self.now;
        self.after(delay, move |world| {
            world.arrives(process, replica, connection, batch, upto, sent);
        });
    }

    fn arrives(
        &mut self,
        process: usize,
        replica: usize,
        connection: u64,
        batch: Vec<TransactionId>,
        upto: usize,
        sent: Moment,
    ) {
        if self.processes[replica].receiver.connection != connection {
            return;
        }
        let (from, to) = (self.processes[process].host, self.processes[replica].host);
        if !self.open(from, to) {
            if self.now > sent + NETWORK_TIMEOUT {
                return self.connection_broke(replica, process);
            }
            return self.after(RETRANSMIT, move |world| {
                world.arrives(process, replica, connection, batch, upto, sent);
            });
        }
        let delay = self.disk(to);
        // Written and synced, then acknowledged: `sync_relay_log=1`.
        self.after_on_process(delay, replica, move |world| {
            if world.processes[replica].receiver.connection == connection {
                world.received(process, replica, &batch, upto);
            }
        });
    }

    fn received(&mut self, process: usize, replica: usize, batch: &[TransactionId], upto: usize) {
        let it = &self.processes[replica];
        let data = &mut self.data[it.data];
        for id in batch {
            data.has.insert(*id);
            data.relay.push_back(*id);
        }
        note!(self, "mysqld {replica} has received {batch:?}");
        let it = &self.processes[replica];
        let (from, to) = (it.host, self.processes[process].host);
        if it.receiver.acknowledges {
            let (data, sent) = (it.data, self.now);
            let delay = self.network();
            self.after(delay, move |world| {
                world.acknowledgement_arrives(process, data, from, to, upto, sent);
            });
        }
        if let Some(link) = self.processes[process].links.get_mut(&replica) {
            link.in_flight = false;
            if self.processes[process].alive {
                self.on_process(process, move |world| world.send(process, replica));
            }
        }
        self.apply_next(replica);
    }

    fn acknowledgement_arrives(
        &mut self,
        process: usize,
        data: usize,
        from: usize,
        to: usize,
        upto: usize,
        sent: Moment,
    ) {
        if !self.open(from, to) {
            // It is lost with its connection.
            if self.now < sent + NETWORK_TIMEOUT {
                self.after(RETRANSMIT, move |world| {
                    world.acknowledgement_arrives(process, data, from, to, upto, sent);
                });
            }
            return;
        }
        self.on_process(process, move |world| {
            let known = world.processes[process]
                .acknowledged
                .entry(data)
                .or_default();
            *known = (*known).max(upto);
            world.release(process);
        });
    }

    // === the receiver ===

    /// The connection of a replica to a master is gone.
    fn connection_broke(&mut self, replica: usize, process: usize) {
        if self.processes[replica].receiver.connected != Some(process) {
            return;
        }
        let (a, b) = (self.processes[replica].host, self.processes[process].host);
        if !self.open(b, a) && self.processes[process].alive {
            note!(self, "mysqld {replica} hears nothing of mysqld {process}");
        }
        self.disconnect(replica);
        self.try_to_connect(replica);
    }

    /// Locks the replication accounts of these members alone, and ends their connections.
    pub fn bar(&mut self, process: usize, barred: BTreeSet<MemberId>) {
        self.processes[process].barred = barred;
        let replicas: Vec<usize> = self.processes[process].links.keys().copied().collect();
        for replica in replicas {
            if self.is_barred(process, replica) {
                self.disconnect(replica);
                self.try_to_connect(replica);
            }
        }
        // Fewer acknowledgements may be enough now.
        self.release(process);
    }

    fn is_barred(&self, process: usize, replica: usize) -> bool {
        let member = self.executors[self.processes[replica].executor].member;
        self.processes[process].barred.contains(&member)
    }

    /// Ends the connection of a replica; what is under way in it is void.
    pub fn disconnect(&mut self, replica: usize) {
        let receiver = &mut self.processes[replica].receiver;
        receiver.connection += 1;
        if let Some(process) = receiver.connected.take() {
            self.processes[process].links.remove(&replica);
        }
    }

    pub fn try_to_connect(&mut self, replica: usize) {
        let receiver = &mut self.processes[replica].receiver;
        if !receiver.wanted || receiver.connected.is_some() || receiver.trying {
            return;
        }
        receiver.trying = true;
        let delay = self.network() * 2;
        self.after_on_process(delay, replica, move |world| world.connect(replica));
    }

    fn connect(&mut self, replica: usize) {
        let it = &mut self.processes[replica];
        it.receiver.trying = false;
        let Some(source) = it.receiver.source.filter(|_| it.receiver.wanted) else {
            return;
        };
        if it.receiver.connected.is_some() {
            return;
        }
        let host = it.host;
        let found = self.listening.get(&source).copied();
        let found = found.filter(|p| self.both_open(host, source.0) && !self.processes[*p].hung);
        let found = found.filter(|p| !self.is_barred(*p, replica));
        let Some(process) = found else {
            self.processes[replica].receiver.error =
                Some("the master cannot be reached".to_owned());
            self.processes[replica].receiver.trying = true;
            return self
                .after_on_process(CONNECT_RETRY, replica, move |world| world.connect(replica));
        };
        if let Some(refusal) = self.refuses_to_send(process, replica) {
            note!(
                self,
                "mysqld {process} sends nothing to mysqld {replica}: {refusal}"
            );
            self.processes[replica].receiver.error = Some(refusal);
            return;
        }
        let receiver = &mut self.processes[replica].receiver;
        receiver.error = None;
        receiver.connected = Some(process);
        receiver.connection += 1;
        let link = Link {
            acknowledges: receiver.acknowledges,
            next: 0,
            in_flight: false,
        };
        self.processes[process].links.insert(replica, link);
        note!(self, "mysqld {replica} receives from mysqld {process}");
        self.send(process, replica);
    }

    /// Why a master will not send to a replica (error 1236), if so.
    fn refuses_to_send(&self, process: usize, replica: usize) -> Option<String> {
        let master = &self.data[self.processes[process].data];
        let data = &self.data[self.processes[replica].data];
        let transactions = &self.history.transactions;
        match data.logged.flavour() {
            // More transactions with the master's own source than the master has.
            Flavour::Mysql => {
                let all = data.binlog.iter().chain(&data.relay);
                let mut of_master = all.filter(|id| transactions[**id].name.1 == master.server_id);
                of_master
                    .any(|id| !master.has.contains(*id))
                    .then(|| "the replica has more GTIDs than the master has".to_owned())
            }
            // In each domain, where the replica stands must be in the master's binlog.
            Flavour::Mariadb => DOMAINS
                .into_iter()
                .filter_map(|domain| data.last_of(domain, transactions))
                .any(|last| !master.has.contains(last))
                .then(|| "the replica's position is not in the master's binlog".to_owned()),
        }
    }

    // === the applier ===

    /// Applies the next of what was received.
    pub fn apply_next(&mut self, process: usize) {
        let it = &mut self.processes[process];
        let data = &self.data[it.data];
        if !it.alive || !it.applier || it.applying || data.relay.is_empty() {
            return;
        }
        if self.now < data.poisoned_until {
            it.applier = false;
            it.applier_error = Some("a row cannot be found".to_owned());
            return self.look_at_step(self.processes[process].executor);
        }
        it.applying = true;
        let host = it.host;
        let lag = self.setup.lag;
        let delay = self.disk(host) + self.chance.between(50, 400 + lag * 10);
        self.after_on_process(delay, process, move |world| {
            let it = &mut world.processes[process];
            it.applying = false;
            let data = &mut world.data[it.data];
            if !it.applier {
                return;
            }
            let Some(id) = data.relay.pop_front() else {
                return;
            };
            let index = world.log(process, id);
            let it = &mut world.processes[process];
            world.data[it.data].synced = index + 1;
            it.committed = index + 1;
            let transaction = &world.history.transactions[id];
            if transaction.gtid.flavour() == Flavour::Mysql {
                advance(&mut it.executed, &transaction.gtid);
            }
            if let Kind::Canary(number) = transaction.kind {
                it.canary = it.canary.max(Some(number));
            }
            world.send_to_all(process);
            world.look_at_step(world.processes[process].executor);
            world.apply_next(process);
        });
    }

    /// What was received and not applied.
    pub fn unapplied(&self, process: usize) -> Position {
        let data = &self.data[self.processes[process].data];
        let mut position = Position::empty(data.logged.flavour());
        for id in &data.relay {
            advance(&mut position, &self.history.transactions[*id].gtid);
        }
        position
    }

    /// What a data directory holds, received or executed.
    pub fn held_by(&self, data: &Data) -> Position {
        let mut position = data.logged.clone();
        for id in &data.relay {
            advance(&mut position, &self.history.transactions[*id].gtid);
        }
        position
    }

    /// What the server says of itself.
    pub fn observe(&self, process: usize) -> Observation {
        let it = &self.processes[process];
        let replication = it.receiver.source.map(|(host, port)| Replication {
            host: format!("h{host}"),
            port,
            receiving: it.receiver.connected.is_some(),
            applying: it.applier,
            receiver_error: it.receiver.error.clone(),
            applier_error: it.applier_error.clone(),
        });
        Observation {
            read_only: it.read_only,
            clients_admitted: it.admitted,
            acknowledging: it.receiver.connected.is_some() && it.receiver.acknowledges,
            replication,
            received: self.unapplied(process),
            executed: it.executed.clone(),
            waiting_sessions: it.waiting.len() as u32,
            clients: it.links.values().filter(|link| link.acknowledges).count() as u32,
        }
    }

    /// The host loses power: what no disk has is gone.
    pub fn lose_unsynced(&mut self, data: usize) {
        let data = &mut self.data[data];
        data.binlog.truncate(data.synced);
        let log = std::mem::take(&mut data.binlog);
        data.fill(log, &self.history.transactions);
    }
}
