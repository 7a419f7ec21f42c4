//! The process: how it begins, hangs and ends.

use super::*;

impl World {
    /// A server begins on a data directory; it lets nobody in yet.
    pub fn spawn(&mut self, executor: usize, data: usize) -> usize {
        let (host, port) = {
            let executor = &self.executors[executor];
            (executor.host, executor.port)
        };
        let id = ProcessId(self.uuid());
        let held = &self.data[data];
        let closed = !self.bend.breaks(crate::simulation::Shell::StartsClosed);
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
}
