//! Faults that executors notice by themselves: servers that hang, disks that fill up, and masters that are out of
//! touch with ZooKeeper.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use cotton::cluster::control::{MemberState, Trouble};
use cotton::cluster::flavour::Flavour;
use cotton::cluster::timings::Timings;
use cotton::cluster::voters::Durability;
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::agent::DEADLINE;
use super::cluster::{born_in, born_of, has, more_complete};
use super::world::{Member, World, is_gone, runs};
use crate::support::{eventually, signal};

/// Short enough to wait for. A healthy server on a loaded machine still answers in time.
const TIMINGS: Timings = Timings {
    check_interval: Duration::from_millis(200),
    hang_timeout: Duration::from_secs(3),
    commit_timeout: Duration::from_secs(6),
    master_lease: Duration::from_secs(4),
};

/// How much longer than it should something may take on a loaded machine.
const SLACK: Duration = Duration::from_secs(20);

async fn world(flavour: Flavour) -> World {
    let mut world = World::new(flavour).await;
    world.timings = TIMINGS;
    world
}

fn executor(member: &Member) -> i32 {
    member.executor.id() as i32
}

/// Goal: a master that hangs is killed in seconds, its report says why, and an election takes what it had. Method:
/// SIGSTOP, which no statement gets an answer from.
async fn a_master_that_hangs_is_replaced(flavour: Flavour) {
    let (mut world, members) = born_in(world(flavour).await).await;
    let pid = members[0].mysqld().unwrap();
    signal(pid, Signal::SIGSTOP);
    let stopped = Instant::now();
    world
        .reported(&members[0], "that it hung", |r| {
            r.trouble == Some(Trouble::Hung)
        })
        .await;
    is_gone(pid).await;
    let took = stopped.elapsed();
    eprintln!("{flavour}: a server that hung was killed after {took:?}");
    assert!(took < TIMINGS.hang_timeout + SLACK, "{took:?}");
    world.begin_election().await;
    let (new_master, _) = more_complete(&world, &members[1], &members[2]).await;
    world.elect(new_master).await;
    world.opened(new_master).await;
    world.note_opened().await;
    new_master
        .execute("INSERT INTO d.t VALUES (2)")
        .await
        .unwrap();
    world.ready(&members[0]).await;
    has(&members[0], &[1, 2]).await;
}

#[tokio::test]
async fn a_mariadb_master_that_hangs_is_replaced() {
    a_master_that_hangs_is_replaced(Flavour::Mariadb).await;
}

#[tokio::test]
async fn a_mysql_master_that_hangs_is_replaced() {
    a_master_that_hangs_is_replaced(Flavour::Mysql).await;
}

/// Goal: a voter that hangs is killed, started again and follows, without an election and without a failed write.
async fn a_voter_that_hangs_is_started_again(flavour: Flavour) {
    let (world, members) = born_in(world(flavour).await).await;
    let (master, pid) = (members[0].mysqld(), members[1].mysqld().unwrap());
    signal(pid, Signal::SIGSTOP);
    world
        .reported(&members[1], "that it hung", |r| {
            r.trouble == Some(Trouble::Hung)
        })
        .await;
    is_gone(pid).await;
    members[0]
        .execute("INSERT INTO d.t VALUES (2)")
        .await
        .unwrap();
    world.ready(&members[1]).await;
    has(&members[1], &[1, 2]).await;
    assert_eq!(members[0].mysqld(), master);
}

#[tokio::test]
async fn a_mariadb_voter_that_hangs_is_started_again() {
    a_voter_that_hangs_is_started_again(Flavour::Mariadb).await;
}

#[tokio::test]
async fn a_mysql_voter_that_hangs_is_started_again() {
    a_voter_that_hangs_is_started_again(Flavour::Mysql).await;
}

/// Goal: ZooKeeper's outage alone ends no server of a majority (I5), however long: commits that are acknowledged
/// prove that the master is not replaced. Once nobody acknowledges any more, the lease ends.
async fn a_majority_outlives_zookeeper_as_long_as_it_streams(flavour: Flavour) {
    let (mut world, members) = born_in(world(flavour).await).await;
    let servers: Vec<_> = members.iter().map(|m| m.mysqld().unwrap()).collect();
    world.zookeeper.stop();
    let outage = Instant::now();
    let mut n = 1;
    // Longer than the session's timeout and than the lease.
    while outage.elapsed() < Duration::from_secs(12) {
        n += 1;
        members[0]
            .execute(&format!("INSERT INTO d.t VALUES ({n})"))
            .await
            .unwrap();
        // Mostly idle: the master's own commits have to prove it.
        sleep(Duration::from_secs(1)).await;
    }
    assert!(servers.iter().all(|pid| runs(*pid)), "{servers:?}");
    for (member, server) in members.iter().zip(&servers).skip(1) {
        signal(executor(member), Signal::SIGSTOP);
        signal(*server, Signal::SIGSTOP);
    }
    let cut_off = Instant::now();
    is_gone(servers[0]).await;
    let took = cut_off.elapsed();
    eprintln!("{flavour}: a master cut off from everybody was killed after {took:?}");
    assert!(
        took + Duration::from_secs(1) > TIMINGS.master_lease,
        "{took:?}"
    );
    assert!(took < TIMINGS.master_lease + SLACK, "{took:?}");
    world.zookeeper.restart();
    let report = world
        .reported(&members[0], "its closed server", |r| {
            r.state == MemberState::Closed
        })
        .await;
    assert!(report.process.is_some());
}

#[tokio::test]
async fn a_mariadb_majority_outlives_zookeeper_as_long_as_it_streams() {
    a_majority_outlives_zookeeper_as_long_as_it_streams(Flavour::Mariadb).await;
}

#[tokio::test]
async fn a_mysql_majority_outlives_zookeeper_as_long_as_it_streams() {
    a_majority_outlives_zookeeper_as_long_as_it_streams(Flavour::Mysql).await;
}

/// Two members, the first of which is the master and waits for nobody.
async fn pair(flavour: Flavour) -> (World, Vec<Member>) {
    pair_in(world(flavour).await).await
}

/// The same, in a world that was made ready for it.
async fn pair_in(mut world: World) -> (World, Vec<Member>) {
    let members = world.members(2).await;
    world
        .set_voters(&members.iter().collect::<Vec<_>>(), Durability::Async)
        .await;
    world.elect(&members[0]).await;
    world.opened(&members[0]).await;
    world.note_opened().await;
    world.ready(&members[1]).await;
    (world, members)
}

/// Goal: without acknowledgements a master that is out of touch goes on while all other voters say that they follow
/// it, and is killed when one does not.
async fn a_pair_outlives_zookeeper_as_long_as_it_follows(flavour: Flavour) {
    let mut world = world(flavour).await;
    // The watchdog waits for a check interval longer than the executor, which is to be first on a loaded machine too.
    world.timings = Timings {
        check_interval: Duration::from_secs(1),
        master_lease: Duration::from_secs(6),
        ..TIMINGS
    };
    let (mut world, members) = pair_in(world).await;
    let lease = world.timings.master_lease;
    let master = members[0].mysqld().unwrap();
    world.zookeeper.stop();
    sleep(Duration::from_secs(12)).await;
    assert!(runs(master), "its only voter follows: {}", members[0].log());
    signal(executor(&members[1]), Signal::SIGSTOP);
    members[1].kill_mysqld();
    let cut_off = Instant::now();
    is_gone(master).await;
    let took = cut_off.elapsed();
    eprintln!("{flavour}: a master whose voter does not answer was killed after {took:?}");
    // The last answer may be as old as a check interval.
    assert!(took + Duration::from_secs(2) > lease, "{took:?}");
    assert!(took < lease + SLACK, "{took:?}");
    let log = members[0].log();
    assert!(
        !log.contains("not fed in time"),
        "the executor did it: {log}"
    );
}

#[tokio::test]
async fn a_pair_of_mariadb_outlives_zookeeper_as_long_as_it_follows() {
    a_pair_outlives_zookeeper_as_long_as_it_follows(Flavour::Mariadb).await;
}

#[tokio::test]
async fn a_pair_of_mysql_outlives_zookeeper_as_long_as_it_follows() {
    a_pair_outlives_zookeeper_as_long_as_it_follows(Flavour::Mysql).await;
}

/// Goal: without acknowledgements a master does not outlive an executor that is stopped, nor do its processes.
#[tokio::test]
async fn a_watchdog_kills_the_master_of_an_executor_that_is_stopped() {
    let (world, members) = pair(Flavour::Mariadb).await;
    let before = world.told(&members[0]).await;
    let (executor, server) = (executor(&members[0]), members[0].mysqld().unwrap());
    let watchdog = child_called(executor, "watchdog").expect("it is guarded");
    signal(executor, Signal::SIGSTOP);
    let stopped = Instant::now();
    is_gone(server).await;
    let took = stopped.elapsed();
    eprintln!("the master of a stopped executor was killed after {took:?}");
    let patience = TIMINGS.master_lease + TIMINGS.check_interval;
    assert!(took + Duration::from_secs(1) > patience, "{took:?}");
    assert!(took < patience + SLACK, "{took:?}");
    is_gone(watchdog).await;
    signal(executor, Signal::SIGCONT);
    let after = world
        .reported(&members[0], "a server that runs again, closed", |r| {
            r.process.is_some() && r.process != before.process
        })
        .await;
    assert!(!matches!(after.state, MemberState::Master { .. }));
    assert_eq!(child_called(executor, "watchdog"), None);
}

/// Goal: a watchdog ends with its executor, and with its server.
#[tokio::test]
async fn a_watchdog_leaves_nothing_behind() {
    let (_world, members) = pair(Flavour::Mariadb).await;
    let executor = executor(&members[0]);
    let first = child_called(executor, "watchdog").expect("it is guarded");
    members[0].kill_mysqld();
    is_gone(first).await;

    let (_world, members) = pair(Flavour::Mariadb).await;
    let executor = self::executor(&members[0]);
    let second = child_called(executor, "watchdog").expect("it is guarded");
    let server = members[0].mysqld().unwrap();
    signal(executor, Signal::SIGKILL);
    is_gone(second).await;
    is_gone(server).await;
}

/// A child of a process whose arguments hold a word.
fn child_called(parent: i32, word: &str) -> Option<i32> {
    let children = std::fs::read_dir(format!("/proc/{parent}/task")).ok()?;
    children.flatten().find_map(|task| {
        let children = std::fs::read_to_string(task.path().join("children")).ok()?;
        children.split_whitespace().find_map(|pid| {
            let arguments = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            let found = arguments.split('\0').any(|argument| argument == word);
            found.then(|| pid.parse().ok())?
        })
    })
}

/// A sandbox on a disk of its own.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Needs to be root.
    fn mount(sandbox: &TempDir, mebibytes: u32) -> Self {
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"])
            .arg(sandbox.path())
            .status()
            .unwrap();
        assert!(status.success(), "a small file system can be mounted");
        Self {
            path: sandbox.path().to_owned(),
        }
    }

    /// Leaves no space on it.
    fn fill(&self) {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.path.join("filler")).unwrap();
        // The last write is one that does not fit as a whole, so smaller ones have to follow.
        for size in [1 << 20, 4096, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// Goal: a full disk is told at once; a master that cannot commit for it is ended where others have all of its
/// writes, and they go on.
async fn a_master_whose_disk_is_full_is_replaced(flavour: Flavour) {
    let mut world = world(flavour).await;
    let sandbox = tempfile::Builder::new()
        .prefix("cotton-sandbox-")
        .tempdir()
        .unwrap();
    let disk = SmallDisk::mount(&sandbox, 700);
    let first = world.launch_in(sandbox, 0, 1).await;
    let members = [first, world.launch(1).await, world.launch(2).await];
    for member in &members {
        world.closed(member).await;
    }
    born_of(&mut world, &members).await;
    let server = members[0].mysqld().unwrap();
    disk.fill();
    let filled = Instant::now();
    world
        .reported(&members[0], "a full disk", |r| {
            r.trouble == Some(Trouble::Full)
        })
        .await;
    eprintln!(
        "{flavour}: the full disk was told after {:?}",
        filled.elapsed()
    );
    // More than the server has at hand.
    let connection = members[0].connect().await;
    let big = "CREATE TABLE d.big AS SELECT REPEAT('x', 60000) AS x FROM \
               information_schema.columns LIMIT 500";
    let write = tokio::spawn(async move {
        // The server's own commits may have ended it already.
        let mut connection = connection?;
        for _ in 0..50 {
            sqlx::raw_sql(big).execute(&mut connection).await?;
            sqlx::raw_sql("DROP TABLE d.big")
                .execute(&mut connection)
                .await?;
        }
        Ok::<_, sqlx::Error>(())
    });
    eventually("the server has ended", DEADLINE, async || {
        (!runs(server)).then_some(())
    })
    .await;
    eprintln!("{flavour}: it has ended after {:?}", filled.elapsed());
    write.abort();
    world.begin_election().await;
    let (new_master, _) = more_complete(&world, &members[1], &members[2]).await;
    world.elect(new_master).await;
    world.opened(new_master).await;
    new_master
        .execute("INSERT INTO d.t VALUES (2)")
        .await
        .unwrap();
    has(new_master, &[1, 2]).await;
}

#[tokio::test]
async fn a_mariadb_master_whose_disk_is_full_is_replaced() {
    a_master_whose_disk_is_full_is_replaced(Flavour::Mariadb).await;
}

#[tokio::test]
async fn a_mysql_master_whose_disk_is_full_is_replaced() {
    a_master_whose_disk_is_full_is_replaced(Flavour::Mysql).await;
}
