//! The dump threads: what goes to the replicas, and their acknowledgements on the way back.

use super::*;

impl World {
    pub(super) fn send_to_all(&mut self, process: usize) {
        let replicas: Vec<usize> = self.processes[process].links.keys().copied().collect();
        for replica in replicas {
            self.send(process, replica);
        }
    }

    /// The last marker that a replica is not sent any more. On MariaDB it begins behind the master's last one that is not
    /// above its own.
    fn passed_marker(&self, replicas_data: &Data) -> Epoch {
        match replicas_data.logged.flavour() {
            Flavour::Mysql => Epoch(0),
            Flavour::Mariadb => self
                .held_by(replicas_data)
                .highest_marker(self.history.cluster),
        }
    }

    /// Sends what a replica lacks.
    pub(super) fn send(&mut self, process: usize, replica: usize) {
        let most = self.chance.between(1, 8) as usize;
        let replicas_data = &self.data[self.processes[replica].data];
        let it = &self.processes[process];
        let Some(link) = it.links.get(&replica).filter(|link| !link.in_flight) else {
            return;
        };
        let data = &self.data[it.data];
        let (mut upto, mut batch) = (link.next, Vec::new());
        // Only markers need it, which are few; to find it out takes long.
        let mut passed = None;
        while upto < data.synced && batch.len() < most {
            let id = data.binlog[upto];
            upto += 1;
            let is_passed = match self.history.transactions[id].kind {
                Kind::Marker(epoch) => {
                    epoch <= *passed.get_or_insert_with(|| self.passed_marker(replicas_data))
                }
                _ => false,
            };
            if !replicas_data.has.contains(id) && !is_passed {
                batch.push(id);
            }
        }
        let is_sent = !batch.is_empty();
        if let Some(link) = self.processes[process].links.get_mut(&replica) {
            link.next = upto;
            link.in_flight = is_sent;
        }
        if !is_sent {
            return;
        }
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
}
