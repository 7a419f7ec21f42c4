//! Clients: they find the master through discovery, write values that nobody else writes, and read.

use super::{
    history::Kind,
    mysqld::Waiter,
    world::{CLIENT, MILLISECOND, Moment, SECOND, World, ZOOKEEPER, note},
};

/// How long a client waits for an answer.
const PATIENCE: u64 = 3 * SECOND;

/// All clients.
#[derive(Debug)]
pub struct Clients(pub Vec<Client>);

#[derive(Debug, Default)]
pub struct Client {
    /// Counts its writes; an answer to an earlier one comes too late.
    attempt: u64,
    waiting: bool,
    /// Where discovery last said that the master is.
    master: Option<(usize, u16)>,
    /// When its last write was answered with success.
    pub last_success: Option<Moment>,
    /// Writes that failed or were not answered in time.
    pub failures: u64,
}

impl Clients {
    pub fn new(number: usize) -> Self {
        Self((0..number).map(|_| Client::default()).collect())
    }
}

impl World {
    pub fn clients_begin(&mut self) {
        for client in 0..self.clients.0.len() {
            self.client_pauses(client);
        }
    }

    fn client_pauses(&mut self, client: usize) {
        let pause = self.chance.between(1, self.setup.pause * 2);
        self.after(pause, move |world| world.client_writes(client));
    }

    fn client_writes(&mut self, client: usize) {
        if self.zookeeper.up && self.both_open(CLIENT, ZOOKEEPER) {
            self.clients.0[client].master = self.discovered_master();
        }
        let Some((host, port)) = self.clients.0[client].master else {
            return self.after(200 * MILLISECOND, move |world| world.client_writes(client));
        };
        let it = &mut self.clients.0[client];
        it.attempt += 1;
        it.waiting = true;
        let attempt = it.attempt;
        let delay = self.network();
        self.after(delay, move |world| {
            world.write_arrives(client, attempt, host, port)
        });
        self.after(PATIENCE, move |world| {
            let it = &mut world.clients.0[client];
            if it.waiting && it.attempt == attempt {
                it.waiting = false;
                it.failures += 1;
                note!(world, "client {client} gives a write up");
                world.client_failed("a write was not answered in time");
                world.client_pauses(client);
            }
        });
    }

    fn write_arrives(&mut self, client: usize, attempt: u64, host: usize, port: u16) {
        if !self.open(CLIENT, host) {
            return;
        }
        let Some(process) = self.listening.get(&(host, port)).copied() else {
            return self.tell_client(host, client, attempt, false);
        };
        self.on_process(process, move |world| {
            let it = &world.processes[process];
            if it.read_only || !it.admitted {
                return world.tell_client(host, client, attempt, false);
            }
            world.history.next_value += 1;
            let value = world.history.next_value;
            if world.chance.percent(10) {
                world.read_from_master(process);
            }
            world.commit(
                process,
                Kind::Write(value),
                Waiter::Client { client, attempt },
            );
        });
    }

    /// The answer, on its way to the client.
    pub fn tell_client(&mut self, host: usize, client: usize, attempt: u64, success: bool) {
        let delay = self.network();
        self.after(delay, move |world| {
            let open = world.open(host, CLIENT);
            let now = world.now;
            let it = &mut world.clients.0[client];
            if !open || !it.waiting || it.attempt != attempt {
                return;
            }
            it.waiting = false;
            if success {
                it.last_success = Some(now);
            } else {
                it.failures += 1;
                world.client_failed("a write was refused or cut off");
            }
            world.client_pauses(client);
        });
    }

    /// A client reads what is visible on a master that discovery names.
    fn read_from_master(&mut self, process: usize) {
        let it = &self.processes[process];
        if self.discovered_master() != Some((it.host, it.port)) {
            return;
        }
        let committed = &self.data[it.data].binlog[..it.committed];
        let is_write = |id: &&usize| matches!(self.history.transactions[**id].kind, Kind::Write(_));
        if let Some(last) = committed.iter().rev().find(is_write) {
            self.history.read.insert(*last);
        }
    }
}
