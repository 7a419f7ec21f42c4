//! The receiver (I/O thread): whom a replica connects to, and who refuses it.

use super::*;

impl World {
    /// The connection of a replica to a master is gone.
    pub(super) fn connection_broke(&mut self, replica: usize, process: usize) {
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

    pub(super) fn is_barred(&self, process: usize, replica: usize) -> bool {
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
            // Where the replica stands must be in the master's binlog. The step has looked for such a place in the
            // markers' domain (`Server::marker_to_begin_at`).
            Flavour::Mariadb => data
                .last_of(DATA_DOMAIN, transactions)
                .is_some_and(|last| !master.has.contains(last))
                .then(|| "the replica's position is not in the master's binlog".to_owned()),
        }
    }
}
