//! Agents that a Mesos master cannot reach: what only they have is waited for, what others have is replaced, and whatever runs there
//! when they come back is ended before it serves anybody.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cotton::cluster::flavour::Flavour;
use cotton::cluster::service_instance::Endpoint;
use cotton::cluster::view::{ClusterState, ClusterView};

use crate::membership::{ask, assert_complete, assert_released, ids, loaded};
use crate::slots::all_data;
use crate::support::database::{Account, connect, execute};
use crate::support::discovery::Masters;
use crate::support::fleet::Fleet;
use crate::support::system::{Cluster, endpoint, master, tasks};
use crate::support::{CREATE_DEADLINE, FAILOVER_DEADLINE, eventually};

crate::for_both_flavours!(
    a_single_node_waits_for_its_agent,
    members_that_were_replaced_end_when_their_agent_is_back,
);

/// How many writes have to be acknowledged between two steps.
const SOME_WRITES: usize = 50;

/// The shortest grace time there is.
const REPLACE_AFTER: Duration = Duration::from_secs(10);

/// How long the quick Mesos master takes to give an agent up, 15 s, and what a loaded machine adds.
const NOTICED_WITHIN: Duration = Duration::from_secs(60);

/// How long an agent that was cut off takes to be registered again, and what the scheduler and the executors have to do then.
const BACK_WITHIN: Duration = Duration::from_secs(120);

/// Waits until the Mesos master has given an agent up, and the cluster says that it waits for it; then for longer than its grace time.
async fn waits_for_its_agent(fleet: &Fleet, cluster: &Cluster, host: &str) -> ClusterView {
    let told = format!(
        "it waits for agents that are away and hold the cluster's data: member 0 on {host} since "
    );
    let says_so =
        |view: &ClusterView| view.state == ClusterState::Waiting && view.reason.contains(&told);
    let what = "says what it waits for";
    fleet
        .wait_until(cluster, what, NOTICED_WITHIN, says_so)
        .await;
    assert_eq!(fleet.registered_agents().await, Some(1));
    tokio::time::sleep(REPLACE_AFTER + Duration::from_secs(2)).await;
    let view = fleet.show(&cluster.name).await.unwrap();
    assert!(says_so(&view), "{view:?}");
    assert_eq!(ids(&view), [0], "its only data was given up");
    let explained = fleet.explain(&cluster.name).await.explanation;
    assert!(explained.reason.contains(&told), "{}", explained.reason);
    let course = "it is waited for, because no other member is a master that accepts writes and so has all of the data";
    let membership = &explained.standing.membership;
    assert!(
        membership.iter().any(|it| it.contains(course)),
        "{membership:?}"
    );
    view
}

/// Its host is cut off first, and comes back with the server that it had; then it loses power, and comes back without. There is
/// another host with room, which nothing is moved to.
async fn a_single_node_waits_for_its_agent(flavour: Flavour) {
    let fleet = Fleet::with_quick_master(flavour, 2, &["--replace-after", "10s"]).await;
    let cluster = fleet.create_running("alone", 1).await;
    let masters = Masters::watch(&cluster.url).await;
    let mut load = loaded(&fleet, &cluster).await;
    let before = fleet.show("alone").await.unwrap();
    let (had, member) = (all_data(&fleet, &before), master(&before).clone());
    let (host, address) = (fleet.host(&member), member.host.clone().unwrap());
    let executor = fleet.mysqld(&member).parent();

    fleet.network.isolate(host);
    waits_for_its_agent(&fleet, &cluster, &address).await;
    fleet.network.heal();
    let view = fleet.wait_running(&cluster, BACK_WITHIN).await;
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    assert_eq!(tasks(&view), tasks(&before), "its task was ended");
    assert!(executor.runs(), "its executor was ended");

    // The member is heard of before its agent has registered again, and until then it goes on to be called away.
    fleet.wait_for_agents(2).await;
    fleet.kill_host(host);
    waits_for_its_agent(&fleet, &cluster, &address).await;
    fleet.restart_agent(host);
    let view = fleet.wait_running(&cluster, BACK_WITHIN).await;
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    assert_eq!(master(&view).host, member.host);
    assert_eq!(all_data(&fleet, &view), had, "the data was made anew");
    assert_complete(&fleet, &cluster, &mut load).await;
    masters.check();
    fleet.delete_and_wait(&cluster).await;
}

/// A client on a host that is cut off, which writes at a server there as long as it can.
struct Insider {
    acknowledged: Arc<AtomicUsize>,
    tried: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Insider {
    fn start(namespace: PathBuf, at: Endpoint, account: Account) -> Self {
        let (acknowledged, tried): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
        let stop: Arc<AtomicBool> = Arc::default();
        let counts = (
            Arc::clone(&acknowledged),
            Arc::clone(&tried),
            Arc::clone(&stop),
        );
        let thread = std::thread::spawn(move || {
            let namespace = File::open(namespace).unwrap();
            // SAFETY: it moves this thread alone, which ends with what follows, and the file is a network namespace.
            let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(entered, 0, "{}", std::io::Error::last_os_error());
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            let (acknowledged, tried, stop) = counts;
            runtime.block_on(async {
                while !stop.load(Ordering::Relaxed) {
                    if write_at(&at, &account, tried.load(Ordering::Relaxed)).await {
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                    tried.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        });
        Self {
            acknowledged,
            tried,
            stop,
            thread: Some(thread),
        }
    }

    /// How many writes were tried, and how many of them acknowledged.
    fn stop(&mut self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        (
            self.tried.load(Ordering::Relaxed),
            self.acknowledged.load(Ordering::Relaxed),
        )
    }
}

/// It is told to end even if the story fails; its statements have a deadline.
impl Drop for Insider {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Whether a write is acknowledged there.
async fn write_at(at: &Endpoint, account: &Account, number: usize) -> bool {
    let Ok(mut connection) = connect(at, account).await else {
        return false;
    };
    let insert = format!("INSERT INTO load_db.writes VALUES ('inside {number}')");
    execute(&mut connection, &insert).await.is_ok()
}

/// The host of the master is cut off, from the Mesos master too, with everything on it alive. The grace time is the cluster's own; the
/// scheduler's is a quarter of an hour.
async fn members_that_were_replaced_end_when_their_agent_is_back(flavour: Flavour) {
    let fleet = Fleet::with_quick_master(flavour, 4, &[]).await;
    let cluster = fleet.create_running("cut-off", 3).await;
    ask(&fleet, &cluster, ("PATCH", ""), ("replace_after", "10s")).await;
    let masters = Masters::watch(&cluster.url).await;
    let mut load = loaded(&fleet, &cluster).await;
    let before = fleet.wait_running(&cluster, FAILOVER_DEADLINE).await;
    let gone = master(&before).clone();
    let (host, at) = (fleet.host(&gone), endpoint(&gone));
    let executor = fleet.mysqld(&gone).parent();

    fleet.network.isolate(host);
    let namespace = fleet.network.namespace_path(host);
    let mut insider = Insider::start(namespace, at.clone(), cluster.account.clone());
    let begun = Instant::now();
    let left = |view: &ClusterView| !ids(view).contains(&gone.id);
    let what = "has replaced the member on the host that is cut off";
    let deadline = NOTICED_WITHIN + CREATE_DEADLINE;
    fleet.wait_until(&cluster, what, deadline, left).await;
    assert!(begun.elapsed() > REPLACE_AFTER, "before its grace time");
    eprintln!("{flavour}: replaced after {:?}", begun.elapsed());
    assert!(
        executor.runs(),
        "nothing is left there that would have to end"
    );

    // From now on the client goes on at the server from its own host, and everybody else reaches it too.
    let begun = Instant::now();
    fleet.network.heal();
    eventually("the former task is ended", BACK_WITHIN, async || {
        let acknowledged = write_at(&at, &cluster.account, usize::MAX).await;
        assert!(
            !acknowledged,
            "a server that was replaced has taken a write"
        );
        (!executor.runs()).then_some(())
    })
    .await;
    eprintln!(
        "{flavour}: ended {:?} after its host was back",
        begun.elapsed()
    );
    let (tried, acknowledged) = insider.stop();
    assert!(tried > 0);
    assert_eq!(
        acknowledged, 0,
        "of {tried} writes on the host that was cut off"
    );
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    assert_released(&fleet, 3).await;
    // The scheduler knows it from the next offer.
    let is_over = |view: &ClusterView| view.standing.membership.is_empty();
    let what = "has nobody who leaves";
    fleet
        .wait_until(&cluster, what, FAILOVER_DEADLINE, is_over)
        .await;
    let after = fleet.wait_running(&cluster, FAILOVER_DEADLINE).await;
    assert_eq!(ids(&after).last(), Some(&3));
    assert_complete(&fleet, &cluster, &mut load).await;
    masters.check();
    fleet.delete_and_wait(&cluster).await;
}
