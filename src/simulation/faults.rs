//! What goes wrong: drawn from the seed, in any combination that the weather allows.

use super::{
    checks::LARGEST_JUMP,
    setup::Weather,
    world::{CLIENT, MESOS, MILLISECOND, SCHEDULER, SECOND, World, ZOOKEEPER, note},
};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    ServerKilled,
    ServerHangs,
    ExecutorKilled,
    ExecutorPaused,
    HostLost,
    DiskStalls,
    DiskFull,
    ApplierStops,
    SchedulerKilled,
    SchedulerPaused,
    SchedulerReplaced,
    SchedulerCutOff,
    ClockJumps,
    ZooKeeperDown,
    MasterFailsOver,
    HostCutOff,
    HostsParted,
    OneWay,
    HostCutOffFromZooKeeper,
    AgentCutOff,
    AllEnd,
    AllHostsLost,
    AgentAnew,
    HostLostForGood,
}

const CONTROL: &[Fault] = &[
    Fault::SchedulerKilled,
    Fault::SchedulerKilled,
    Fault::SchedulerPaused,
    Fault::SchedulerReplaced,
    Fault::SchedulerCutOff,
    Fault::ClockJumps,
    Fault::ZooKeeperDown,
    Fault::ZooKeeperDown,
    Fault::MasterFailsOver,
    Fault::AgentCutOff,
];

const NETWORK: &[Fault] = &[
    Fault::ServerKilled,
    Fault::HostCutOff,
    Fault::HostCutOff,
    Fault::HostsParted,
    Fault::OneWay,
    Fault::OneWay,
    Fault::HostCutOffFromZooKeeper,
];

const STORM: &[Fault] = &[
    Fault::ServerKilled,
    Fault::ServerKilled,
    Fault::ServerKilled,
    Fault::ServerHangs,
    Fault::ExecutorKilled,
    Fault::ExecutorPaused,
    Fault::HostLost,
    Fault::DiskStalls,
    Fault::DiskFull,
    Fault::ApplierStops,
];

/// Where data lies in volumes.
const VOLUMES: &[Fault] = &[
    Fault::AllEnd,
    Fault::AllHostsLost,
    Fault::ExecutorKilled,
    Fault::HostLost,
    Fault::AgentAnew,
    Fault::AgentAnew,
    Fault::HostLostForGood,
];

impl World {
    pub fn faults_begin(&mut self) {
        if let Weather::Scene(family) = self.setup.weather {
            return self.scenes_begin(family);
        }
        let pause = self.chance.between(1, self.setup.calm * 2);
        self.after(pause, |world| {
            if world.faults_go_on {
                world.a_fault();
                world.faults_begin();
            }
        });
    }

    fn a_fault(&mut self) {
        let kinds: &[&[Fault]] = match self.setup.weather {
            Weather::Kills => &[&[Fault::ServerKilled]],
            Weather::Control => &[CONTROL],
            Weather::Network => &[NETWORK],
            Weather::Storm | Weather::Scene(_) if self.setup.volumes => {
                &[STORM, STORM, NETWORK, CONTROL, VOLUMES]
            }
            Weather::Storm | Weather::Scene(_) => &[STORM, STORM, NETWORK, CONTROL],
        };
        let kinds = self.chance.one_of(kinds);
        let fault = self.chance.one_of(kinds);
        self.faults += 1;
        note!(self, "fault: {fault:?}");
        let lasts = match self.chance.below(4) {
            0 => self.chance.between(50 * MILLISECOND, SECOND),
            1 => self.chance.between(SECOND, 5 * SECOND),
            _ => self.chance.between(3 * SECOND, 25 * SECOND),
        };
        match fault {
            Fault::ServerKilled | Fault::ServerHangs | Fault::ApplierStops => {
                self.fault_of_a_server(fault, lasts)
            }
            Fault::ExecutorKilled | Fault::ExecutorPaused => {
                self.fault_of_an_executor(fault, lasts)
            }
            Fault::HostLost
            | Fault::DiskStalls
            | Fault::DiskFull
            | Fault::AgentAnew
            | Fault::HostLostForGood => self.fault_of_a_host(fault, lasts),
            Fault::AllEnd | Fault::AllHostsLost => self.fault_of_all(fault, lasts),
            Fault::SchedulerKilled
            | Fault::SchedulerPaused
            | Fault::SchedulerReplaced
            | Fault::ClockJumps => self.fault_of_the_scheduler(fault, lasts),
            Fault::ZooKeeperDown => {
                self.set_zookeeper(false);
                self.after(lasts, |world| world.set_zookeeper(true));
            }
            Fault::MasterFailsOver => self.master_fails_over(lasts),
            Fault::SchedulerCutOff
            | Fault::HostCutOff
            | Fault::HostsParted
            | Fault::OneWay
            | Fault::HostCutOffFromZooKeeper
            | Fault::AgentCutOff => self.fault_of_the_network(fault, lasts),
        }
    }

    /// The member that a fault strikes, the master more often than the others.
    fn victim(&mut self) -> Option<usize> {
        let alive: Vec<usize> = (0..self.executors.len())
            .filter(|e| self.executors[*e].alive)
            .collect();
        if alive.is_empty() {
            return None;
        }
        let master = self.discovered_master();
        let leads = alive
            .iter()
            .copied()
            .find(|e| Some((self.executors[*e].host, self.executors[*e].port)) == master);
        match leads {
            Some(leads) if self.chance.percent(40) => Some(leads),
            _ => Some(self.chance.one_of(&alive)),
        }
    }

    fn fault_of_a_server(&mut self, fault: Fault, lasts: u64) {
        let Some(executor) = self.victim() else {
            return;
        };
        let it = &self.executors[executor];
        let Some(process) = it.process.or(it.starting) else {
            return;
        };
        match fault {
            Fault::ServerHangs => {
                self.hang(process, true);
                self.after(lasts, move |world| world.hang(process, false));
            }
            Fault::ApplierStops => {
                let data = self.processes[process].data;
                self.data[data].poisoned_until = self.now + lasts;
            }
            _ => self.kill_process(process),
        }
    }

    fn fault_of_an_executor(&mut self, fault: Fault, lasts: u64) {
        let Some(executor) = self.victim() else {
            return;
        };
        if fault == Fault::ExecutorPaused {
            self.pause_executor(executor, true);
            self.after(lasts, move |world| world.pause_executor(executor, false));
        } else if self.may_lose(self.executors[executor].host) {
            self.container_ends(executor, "the container has ended");
        }
    }

    /// Whether the cluster stays able to elect when all data on a host is lost, or, seldom, not.
    fn may_lose(&mut self, host: usize) -> bool {
        self.setup.volumes || self.may_lose_for_good(host)
    }

    /// The same where nothing outlives it.
    fn may_lose_for_good(&mut self, host: usize) -> bool {
        let Some((record, _)) = &self.zookeeper.record else {
            return true;
        };
        let left = record.voters.members.iter().filter(|(member, known)| {
            self.data.iter().any(|data| {
                let known = known.is_none_or(|known| known == data.id);
                data.member == **member && known && !data.gone && data.host != host
            })
        });
        left.count() >= record.voters.quorum() || self.chance.percent(2)
    }

    fn fault_of_a_host(&mut self, fault: Fault, lasts: u64) {
        let host = self.chance.below(self.setup.agents as u64) as usize;
        if fault == Fault::DiskFull {
            let until = &mut self.disk_full_until[host];
            *until = (*until).max(self.now + lasts);
        } else if fault == Fault::DiskStalls {
            let until = &mut self.disk_stalls_until[host];
            *until = (*until).max(self.now + lasts);
        } else if fault == Fault::HostLostForGood {
            if self.may_lose_for_good(host) {
                self.host_is_lost_for_good(host);
                if self.chance.percent(50) {
                    self.after(lasts / 2, move |world| world.operator_marks_gone(host));
                }
                self.after(lasts, move |world| world.host_comes_up(host));
            }
        } else if self.may_lose(host) {
            self.host_goes_down(host);
            self.mesos.agents[host].forgets_its_id |= fault == Fault::AgentAnew;
            self.after(lasts, move |world| world.host_comes_up(host));
        }
    }

    /// All members end at about the same time.
    fn fault_of_all(&mut self, fault: Fault, lasts: u64) {
        if fault == Fault::AllHostsLost {
            for host in 0..self.setup.agents {
                let delay = self.chance.between(0, 300 * MILLISECOND);
                self.after(delay, move |world| world.host_goes_down(host));
                let lasts = lasts + self.chance.between(300 * MILLISECOND, 2 * SECOND);
                self.after(lasts, move |world| world.host_comes_up(host));
            }
            return;
        }
        for executor in 0..self.executors.len() {
            let delay = self.chance.between(0, 300 * MILLISECOND);
            self.after(delay, move |world| {
                if world.executors[executor].alive {
                    world.container_ends(executor, "all containers have ended");
                }
            });
        }
    }

    fn fault_of_the_scheduler(&mut self, fault: Fault, lasts: u64) {
        let Some(scheduler) = self.leader() else {
            return;
        };
        match fault {
            Fault::SchedulerPaused | Fault::SchedulerReplaced => {
                self.pause_scheduler(scheduler, true);
                self.after(lasts, move |world| world.pause_scheduler(scheduler, false));
                if fault == Fault::SchedulerReplaced {
                    self.after(lasts / 2, |world| world.scheduler_starts());
                }
            }
            Fault::ClockJumps => {
                let jump = self.chance.between(0, 2 * LARGEST_JUMP) as i64 - LARGEST_JUMP as i64;
                self.schedulers[scheduler].clock += jump;
                self.clocks_jumped = true;
            }
            _ => self.scheduler_ends(scheduler, "it is killed"),
        }
    }

    fn fault_of_the_network(&mut self, fault: Fault, lasts: u64) {
        let agents = self.setup.agents as u64;
        let (a, b) = (
            self.chance.below(agents) as usize,
            self.chance.below(agents) as usize,
        );
        let others = |of: usize| {
            (0..agents as usize)
                .chain([SCHEDULER, ZOOKEEPER, MESOS, CLIENT])
                .filter(move |o| *o != of)
        };
        let both = |a: usize, b: usize| [(a, b), (b, a)];
        let blocked: Vec<(usize, usize)> = match fault {
            Fault::HostCutOff => others(a).flat_map(|other| both(a, other)).collect(),
            Fault::HostsParted => both(a, b).to_vec(),
            Fault::OneWay if self.chance.percent(50) => vec![(a, b)],
            Fault::OneWay if self.chance.percent(50) => others(a).map(|other| (a, other)).collect(),
            Fault::OneWay => others(a).map(|other| (other, a)).collect(),
            Fault::HostCutOffFromZooKeeper => both(a, ZOOKEEPER).to_vec(),
            Fault::AgentCutOff => both(a, MESOS).to_vec(),
            _ => match self.chance.below(3) {
                0 => both(SCHEDULER, ZOOKEEPER).to_vec(),
                1 => both(SCHEDULER, MESOS).to_vec(),
                _ => both(SCHEDULER, ZOOKEEPER)
                    .into_iter()
                    .chain(both(SCHEDULER, MESOS))
                    .collect(),
            },
        };
        self.block(&blocked, true);
        self.after(lasts, move |world| {
            if world.faults_go_on {
                world.block(&blocked, false);
            }
        });
    }

    pub fn block(&mut self, ways: &[(usize, usize)], block: bool) {
        for (from, to) in ways.iter().copied().filter(|(from, to)| from != to) {
            self.set_blocked(from, to, block);
        }
        note!(
            self,
            "{} {ways:?}",
            if block {
                "nothing gets through"
            } else {
                "mended"
            }
        );
        self.network_changed();
    }

    fn network_changed(&mut self) {
        self.relink();
        if !self.both_open(SCHEDULER, MESOS) {
            self.mesos_network_broke();
        }
        for agent in 0..self.setup.agents {
            if self.both_open(agent, MESOS) {
                if self.mesos.agents[agent].up {
                    self.agent_returns(agent);
                }
            } else {
                self.agent_is_missed(agent);
            }
        }
        self.allocate_soon();
    }

    /// Everything is as it should be, from now on.
    pub fn faults_end(&mut self) {
        note!(self, "no more faults");
        self.faults_go_on = false;
        self.maintenance_ends();
        self.mend();
    }

    /// Whatever a fault has broken works again.
    pub fn mend(&mut self) {
        self.mend_network();
        self.disk_stalls_until.fill(self.now);
        self.disk_full_until.fill(self.now);
        self.set_zookeeper(true);
        self.mesos.up = true;
        for host in 0..self.setup.agents {
            self.host_comes_up(host);
        }
        for data in &mut self.data {
            data.poisoned_until = 0;
        }
        for process in 0..self.processes.len() {
            self.hang(process, false);
        }
        for executor in 0..self.executors.len() {
            self.pause_executor(executor, false);
        }
        for scheduler in 0..self.schedulers.len() {
            self.pause_scheduler(scheduler, false);
        }
        self.network_changed();
    }
}
