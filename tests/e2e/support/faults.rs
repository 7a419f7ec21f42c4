//! What can break, done to a running cluster, and how long its clients notice.

use std::time::{Duration, Instant};

use cotton::cluster::service_instance::Endpoint;
use cotton::cluster::view::{ClusterView, MemberView};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::task::JoinHandle;

use super::database::{Account, texts};
use super::fleet::Fleet;
use super::hosts::End;
use super::load::{self, Load};
use super::process::Process;
use super::rest::curl;
use super::system::{Cluster, endpoint, master, slaves, tasks};

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
    /// The host cannot be reached from where ZooKeeper, the scheduler, the Mesos master and the clients are, nor
    /// reach them; the members reach each other.
    HostCutFromHub(Victim),
    /// Nothing comes from the host.
    HostMute(Victim),
    /// Nothing gets to the host.
    HostDeaf(Victim),
    /// The master and one slave cannot reach each other; both reach everybody else.
    SlaveCutFromMaster,
    /// What the master sends to one slave does not arrive.
    SlaveDeafToMaster,
    /// What one slave sends to the master does not arrive.
    SlaveMuteToMaster,
    /// The host's disk is full.
    DiskFull(Victim),
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
    pub const ALL: [Self; 27] = [
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
        Self::HostCutFromHub(Victim::Master),
        Self::HostCutFromHub(Victim::Slave),
        Self::HostMute(Victim::Master),
        Self::HostMute(Victim::Slave),
        Self::HostDeaf(Victim::Master),
        Self::HostDeaf(Victim::Slave),
        Self::SlaveCutFromMaster,
        Self::SlaveDeafToMaster,
        Self::SlaveMuteToMaster,
        Self::DiskFull(Victim::Master),
        Self::DiskFull(Victim::Slave),
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

    /// Whether it hits nothing that holds data: then nothing is restarted, the master stays, and no write fails
    /// (invariant I5).
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
            filling: None,
            host: 0,
        };
        let hosts = || {
            let master = End::Host(fleet.host(hit(view, Victim::Master)));
            (master, End::Host(fleet.host(hit(view, Victim::Slave))))
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
            Self::HostCutFromHub(victim) => {
                let host = End::Host(fleet.host(hit(view, victim)));
                fleet.network.cut(host, End::Hub);
                fleet.network.cut(End::Hub, host);
            }
            Self::SlaveCutFromMaster => {
                let (master, slave) = hosts();
                fleet.network.cut(master, slave);
                fleet.network.cut(slave, master);
            }
            Self::SlaveDeafToMaster => {
                let (master, slave) = hosts();
                fleet.network.cut(master, slave);
            }
            Self::SlaveMuteToMaster => {
                let (master, slave) = hosts();
                fleet.network.cut(slave, master);
            }
            Self::DiskFull(victim) => {
                mend.host = fleet.host(hit(view, victim));
                mend.filling = Some(fleet.disk(mend.host).fill());
            }
            Self::SchedulerKilled => fleet.scheduler().await.kill(),
            Self::SchedulerFrozen => mend.freeze(fleet.scheduler().await),
            Self::ZooKeeperDown => fleet.zookeeper().stop(),
            Self::ZooKeeperFrozen => fleet.zookeeper().freeze(),
        }
        mend
    }
}

pub(super) fn hit(view: &ClusterView, victim: Victim) -> &MemberView {
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
    filling: Option<JoinHandle<()>>,
    host: u8,
}

impl Mend<'_> {
    fn freeze(&mut self, process: Process) {
        process.signal(Signal::SIGSTOP);
        self.frozen = Some(process);
    }

    /// Mends it.
    pub async fn mend(self) {
        match self.fault {
            Fault::HostCutOff(_)
            | Fault::HostCutFromHub(_)
            | Fault::HostMute(_)
            | Fault::HostDeaf(_)
            | Fault::SlaveCutFromMaster
            | Fault::SlaveDeafToMaster
            | Fault::SlaveMuteToMaster => self.fleet.network.heal(),
            Fault::DiskFull(_) => {
                if let Some(filling) = self.filling {
                    filling.abort();
                    let _ = filling.await;
                }
                self.fleet.disk(self.host).free();
                self.fleet.look_after_agent(self.host);
            }
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
pub const RECOVERY_DEADLINE: Duration = Duration::from_secs(300);

/// How long a slave that streams may take to show a write, before the cluster is looked at again.
const STREAMING: Duration = Duration::from_secs(5);

/// How many writes show that a cluster goes on.
const SOME_WRITES: usize = 10;

/// What a fault did.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// The longest time in which no client had anything acknowledged.
    pub gap: Duration,
    /// From the moment in which it was mended until everything was as before.
    pub recovery: Duration,
    /// Writes that were begun and not acknowledged.
    pub failed: usize,
    /// Changes of master.
    pub failovers: u64,
}

/// Lets `fault` happen for `lasting` to a cluster that is at rest, under a load, and waits until it is so again.
pub async fn survive(
    fleet: &Fleet,
    cluster: &Cluster,
    load: &Load,
    fault: Fault,
    lasting: Duration,
) -> Outcome {
    let (view, failed) = begin(fleet, cluster, load).await;
    let mend = fault.inject(fleet, &view).await;
    if !fault.is_a_moment() {
        tokio::time::sleep(lasting).await;
    }
    let mended = Instant::now();
    mend.mend().await;
    let (after, outcome) = end(fleet, cluster, load, (&view, failed), mended).await;
    tell(fleet, &view, &format!("{fault:?}: {outcome:?}")).await;
    if fault.is_an_outage() {
        assert_eq!(after.epoch, view.epoch, "{fault:?} has changed the master");
        assert_eq!(tasks(&after), tasks(&view), "{fault:?} has ended a task");
        assert_eq!(outcome.failed, 0, "writes failed: {fault:?}");
    }
    outcome
}

/// Waits until the cluster is at rest and written to, and tells how it is and how many writes have failed up to now.
pub(super) async fn begin(fleet: &Fleet, cluster: &Cluster, load: &Load) -> (ClusterView, usize) {
    let view = at_rest(fleet, cluster, load).await;
    load.wait_for_more(SOME_WRITES, RECOVERY_DEADLINE).await;
    load.measure_gap();
    (view, load.failed())
}

/// Waits until the cluster is at rest again, and tells how it is and what happened since it was as `before`.
pub(super) async fn end(
    fleet: &Fleet,
    cluster: &Cluster,
    load: &Load,
    (before, failed): (&ClusterView, usize),
    mended: Instant,
) -> (ClusterView, Outcome) {
    load.wait_for_more(SOME_WRITES, RECOVERY_DEADLINE).await;
    let gap = load.longest_gap();
    let after = at_rest(fleet, cluster, load).await;
    let outcome = Outcome {
        gap,
        recovery: mended.elapsed(),
        failed: load.failed() - failed,
        failovers: after.epoch - before.epoch,
    };
    (after, outcome)
}

/// Tells what was done, and why the master was replaced since `before`.
pub(super) async fn tell(fleet: &Fleet, before: &ClusterView, what: &str) {
    let since = failovers_since(fleet, before).await;
    eprintln!("{}: {what}; {since}", before.name);
}

/// Waits until the cluster runs and every slave acknowledges and shows what is written now.
///
/// Who breaks a slave before that may break two of three: one that was cut off calls itself connected as long as its
/// server does not know better, and one that has become a voter again acknowledges only when it has applied its backlog.
async fn at_rest(fleet: &Fleet, cluster: &Cluster, load: &Load) -> ClusterView {
    let start = Instant::now();
    loop {
        let view = fleet.wait_running(cluster, RECOVERY_DEADLINE).await;
        load.wait_for_more(1, RECOVERY_DEADLINE).await;
        let newest = load.newest().unwrap();
        let mut problem = None;
        for slave in slaves(&view) {
            let (at, asked) = (endpoint(slave), Instant::now());
            while !streams(&at, &cluster.account, &newest).await {
                if asked.elapsed() > STREAMING {
                    problem = Some(slave.id);
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        let Some(member) = problem else {
            return view;
        };
        assert!(
            start.elapsed() < RECOVERY_DEADLINE,
            "member {member} of {} does not acknowledge, or does not get what is written",
            cluster.name
        );
    }
}

/// Whether a slave acknowledges what it receives, and shows this value.
async fn streams(at: &Endpoint, account: &Account, value: &str) -> bool {
    // Of both flavours; each has one of them, and the other one's row is not there.
    let acknowledging = "SHOW GLOBAL STATUS WHERE Value = 'ON' AND Variable_name IN \
                         ('Rpl_semi_sync_slave_status', 'Rpl_semi_sync_replica_status')";
    let value = format!("{} WHERE value = '{value}'", load::READ);
    for sql in [acknowledging, &value] {
        if !texts(at, account, sql)
            .await
            .is_ok_and(|found| !found.is_empty())
        {
            return false;
        }
    }
    true
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
