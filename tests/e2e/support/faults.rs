//! What can break, done to a running cluster, and how long its clients notice.

use std::time::Duration;

use cotton::cluster::view::{ClusterView, MemberView};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::fleet::Fleet;
use super::hosts::End;
use super::load::Load;
use super::process::Process;
use super::rest::curl;
use super::system::{Cluster, master, slaves, tasks};

/// Who is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    /// The member that is master at the moment.
    Master,
    /// One of the others.
    Slave,
}

/// Something that breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL of the database server.
    ServerKilled(Victim),
    /// SIGSTOP of the database server, and SIGCONT in the end.
    ServerFrozen(Victim),
    /// SIGKILL of the executor, with which the server goes, and the data that lies in its sandbox.
    ExecutorKilled(Victim),
    /// SIGSTOP of the executor, and SIGCONT in the end.
    ExecutorFrozen(Victim),
    /// SIGKILL of the Mesos agent; it is started again in the end.
    AgentKilled(Victim),
    /// Nothing gets to the host or comes from it.
    HostCutOff(Victim),
    /// Nothing comes from the host.
    HostMute(Victim),
    /// Nothing gets to the host.
    HostDeaf(Victim),
    /// The master and one slave cannot reach each other; both reach everybody else.
    SlaveCutFromMaster,
    /// SIGKILL of the scheduler, which is started again at once.
    SchedulerKilled,
    /// SIGSTOP of the scheduler, and SIGCONT in the end.
    SchedulerFrozen,
    /// SIGKILL of ZooKeeper; it is started again in the end.
    ZooKeeperDown,
    /// SIGSTOP of ZooKeeper, and SIGCONT in the end.
    ZooKeeperFrozen,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::ServerKilled(Victim::Master),
        Self::ServerKilled(Victim::Slave),
        Self::ServerFrozen(Victim::Master),
        Self::ServerFrozen(Victim::Slave),
        Self::ExecutorKilled(Victim::Master),
        Self::ExecutorKilled(Victim::Slave),
        Self::ExecutorFrozen(Victim::Master),
        Self::ExecutorFrozen(Victim::Slave),
        Self::AgentKilled(Victim::Master),
        Self::AgentKilled(Victim::Slave),
        Self::HostCutOff(Victim::Master),
        Self::HostCutOff(Victim::Slave),
        Self::HostMute(Victim::Master),
        Self::HostMute(Victim::Slave),
        Self::HostDeaf(Victim::Master),
        Self::HostDeaf(Victim::Slave),
        Self::SlaveCutFromMaster,
        Self::SchedulerKilled,
        Self::SchedulerFrozen,
        Self::ZooKeeperDown,
        Self::ZooKeeperFrozen,
    ];

    /// Whether it is over in the moment in which it happens.
    pub fn is_a_moment(self) -> bool {
        matches!(
            self,
            Self::ServerKilled(_) | Self::ExecutorKilled(_) | Self::SchedulerKilled
        )
    }

    /// Whether it hits nothing that holds data: then nothing is restarted, and the master stays (invariant I5).
    pub fn is_an_outage(self) -> bool {
        matches!(
            self,
            Self::AgentKilled(_)
                | Self::SchedulerKilled
                | Self::SchedulerFrozen
                | Self::ZooKeeperDown
                | Self::ZooKeeperFrozen
        )
    }

    /// Lets it happen. What is given back mends it.
    pub async fn inject<'a>(self, fleet: &'a Fleet, view: &ClusterView) -> Mend<'a> {
        let mut mend = Mend {
            fleet,
            fault: self,
            frozen: None,
            host: 0,
        };
        match self {
            Self::ServerKilled(victim) => fleet.mysqld(hit(view, victim)).kill(),
            Self::ServerFrozen(victim) => mend.freeze(fleet.mysqld(hit(view, victim))),
            Self::ExecutorKilled(victim) => fleet.mysqld(hit(view, victim)).parent().kill(),
            Self::ExecutorFrozen(victim) => mend.freeze(fleet.mysqld(hit(view, victim)).parent()),
            Self::AgentKilled(victim) => {
                mend.host = fleet.host(hit(view, victim));
                fleet.agent(mend.host).kill();
            }
            Self::HostCutOff(victim) => fleet.network.isolate(fleet.host(hit(view, victim))),
            Self::HostMute(victim) => fleet.network.mute(fleet.host(hit(view, victim))),
            Self::HostDeaf(victim) => fleet.network.deafen(fleet.host(hit(view, victim))),
            Self::SlaveCutFromMaster => {
                let master = End::Host(fleet.host(hit(view, Victim::Master)));
                let slave = End::Host(fleet.host(hit(view, Victim::Slave)));
                fleet.network.cut(master, slave);
                fleet.network.cut(slave, master);
            }
            Self::SchedulerKilled => fleet.scheduler().await.kill(),
            Self::SchedulerFrozen => mend.freeze(fleet.scheduler().await),
            Self::ZooKeeperDown => fleet.zookeeper().stop(),
            Self::ZooKeeperFrozen => fleet.zookeeper().freeze(),
        }
        mend
    }
}

fn hit(view: &ClusterView, victim: Victim) -> &MemberView {
    match victim {
        Victim::Master => master(view),
        Victim::Slave => slaves(view)[0],
    }
}

/// A fault that lasts until it is mended.
pub struct Mend<'a> {
    fleet: &'a Fleet,
    fault: Fault,
    frozen: Option<Process>,
    host: u8,
}

impl Mend<'_> {
    fn freeze(&mut self, process: Process) {
        kill(Pid::from_raw(process.pid), Signal::SIGSTOP).unwrap();
        self.frozen = Some(process);
    }

    /// Mends it.
    pub async fn mend(self) {
        match self.fault {
            Fault::HostCutOff(_)
            | Fault::HostMute(_)
            | Fault::HostDeaf(_)
            | Fault::SlaveCutFromMaster => self.fleet.network.heal(),
            Fault::AgentKilled(_) => self.fleet.restart_agent(self.host),
            Fault::ZooKeeperDown => self.fleet.restart_zookeeper().await,
            Fault::ZooKeeperFrozen => self.fleet.zookeeper().thaw(),
            Fault::ServerKilled(_)
            | Fault::ServerFrozen(_)
            | Fault::ExecutorKilled(_)
            | Fault::ExecutorFrozen(_)
            | Fault::SchedulerKilled
            | Fault::SchedulerFrozen => {}
        }
        // One that was killed meanwhile does not go on; and its pid may be another's.
        if let Some(process) = self.frozen.filter(Process::runs) {
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGCONT);
        }
    }
}

/// How long everything may take to be as it was after a fault.
pub const RECOVERY_DEADLINE: Duration = Duration::from_secs(180);

/// How many writes show that a cluster goes on.
const SOME_WRITES: usize = 30;

/// Lets `fault` happen for `lasting` to a cluster that runs, under a load, and waits until all of it is as before.
/// Gives the longest time in which no client had anything acknowledged.
pub async fn survive(
    fleet: &Fleet,
    cluster: &Cluster,
    load: &Load,
    fault: Fault,
    lasting: Duration,
) -> Duration {
    let view = fleet.wait_running(cluster, RECOVERY_DEADLINE).await;
    load.wait_for_more(SOME_WRITES, RECOVERY_DEADLINE).await;
    load.measure_gap();
    let mend = fault.inject(fleet, &view).await;
    if !fault.is_a_moment() {
        tokio::time::sleep(lasting).await;
    }
    mend.mend().await;
    load.wait_for_more(SOME_WRITES, RECOVERY_DEADLINE).await;
    let gap = load.longest_gap();
    let after = fleet.wait_running(cluster, RECOVERY_DEADLINE).await;
    eprintln!(
        "{fault:?}: no write for {gap:?}; {}",
        failovers_since(fleet, &view).await
    );
    if fault.is_an_outage() {
        assert_eq!(after.epoch, view.epoch, "{fault:?} has changed the master");
        assert_eq!(tasks(&after), tasks(&view), "{fault:?} has ended a task");
    }
    gap
}

/// Why the master was replaced since `before`.
async fn failovers_since(fleet: &Fleet, before: &ClusterView) -> String {
    let url = format!("{}/clusters/{}/failovers", fleet.api, before.name);
    let Some(answer) = curl(&[&url]).await else {
        return "the scheduler does not answer".to_owned();
    };
    let answer = answer.json();
    let failovers = answer["failovers"].as_array().unwrap().iter().rev();
    let since = failovers.filter(|failover| failover["epoch"].as_u64() > Some(before.epoch));
    let told: Vec<String> = since
        .map(|failover| {
            format!(
                "epoch {}: {}",
                failover["epoch"], failover["ending"]["sentence"]
            )
        })
        .collect();
    match told.is_empty() {
        true => "the master stayed".to_owned(),
        false => told.join("; "),
    }
}
