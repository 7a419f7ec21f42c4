//! The applier, and what can be seen of a server from outside.

use super::*;

impl World {
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
