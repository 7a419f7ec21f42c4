//! A cluster of the default size stays within its memory when it is full of data and busy.

use std::fs;
use std::path::PathBuf;

use cotton::cluster::flavour::Flavour;
use cotton::cluster::size::Size;
use cotton::cluster::view::MemberView;
use sqlx::Connection as _;

use crate::support::database::{Account, connect, execute};
use crate::support::process::Process;
use crate::support::system::{System, endpoint, master};
use crate::support::{CREATE_DEADLINE, eventually};

crate::for_both_flavours!(a_full_cluster_stays_within_its_memory);

const MIB: u64 = 1024 * 1024;

/// What one row holds.
const ROW_BYTES: usize = 64 * 1024;

/// The rows of one transaction, 8 MiB, and how many such transactions each client makes. Together that
/// is about 400 MiB, more than the buffer pool of either flavour has at this size.
const ROWS_OF_ONE_INSERT: usize = 128;
const CLIENTS: usize = 4;
const INSERTS_OF_ONE_CLIENT: usize = 12;

async fn a_full_cluster_stays_within_its_memory(flavour: Flavour) {
    let system = System::shared(flavour);
    let cluster = system.create_running("full", 2).await;
    let view = system.show("full").await.unwrap();
    assert_eq!(view.size, Size::DEFAULT);
    let containers: Vec<Container> = view
        .members
        .iter()
        .map(|member| Container::of(&system, member))
        .collect();

    let at = endpoint(master(&view));
    let mut connection = connect(&at, &cluster.account).await.unwrap();
    for sql in [
        "CREATE DATABASE full_db",
        "CREATE TABLE full_db.t (id INT AUTO_INCREMENT PRIMARY KEY, tag INT, data MEDIUMBLOB, KEY (tag))",
    ] {
        execute(&mut connection, sql).await.unwrap();
    }
    let fillers = (0..CLIENTS).map(|client| fill(&at, &cluster.account, client));
    futures::future::join_all(fillers).await;

    // Everything is read, sorted and grouped by many at once, on master and slave.
    let rows = (CLIENTS * INSERTS_OF_ONE_CLIENT * ROWS_OF_ONE_INSERT) as i64;
    for member in &view.members {
        let at = endpoint(member);
        let what = format!("{rows} rows at {at:?}");
        // A slave has received all of it, and applies it more slowly than many clients have written it.
        eventually(&what, CREATE_DEADLINE, async || {
            let found = count(&at, &cluster.account).await;
            (found == Some(rows)).then_some(())
        })
        .await;
        let readers = (0..4).map(|_| read_all(&at, &cluster.account));
        futures::future::join_all(readers).await;
    }

    for container in &containers {
        container.check(&view.size);
    }
    system.delete_and_wait(&cluster).await;
}

/// The server makes the rows itself: what travels is what it replicates.
async fn fill(at: &cotton::cluster::service_instance::Endpoint, account: &Account, client: usize) {
    let mut connection = connect(at, account).await.unwrap();
    let row = |number| format!("({client}, REPEAT(CHAR(97 + {number} % 26), {ROW_BYTES}))");
    let rows: Vec<String> = (0..ROWS_OF_ONE_INSERT).map(row).collect();
    let sql = format!(
        "INSERT INTO full_db.t (tag, data) VALUES {}",
        rows.join(", ")
    );
    for _ in 0..INSERTS_OF_ONE_CLIENT {
        execute(&mut connection, &sql).await.unwrap();
    }
    connection.close().await.unwrap();
}

async fn count(at: &cotton::cluster::service_instance::Endpoint, account: &Account) -> Option<i64> {
    let mut connection = connect(at, account).await.ok()?;
    let query = sqlx::query_scalar("SELECT COUNT(*) FROM full_db.t");
    query.fetch_one(&mut connection).await.ok()
}

async fn read_all(at: &cotton::cluster::service_instance::Endpoint, account: &Account) {
    let mut connection = connect(at, account).await.unwrap();
    for sql in [
        "USE full_db",
        "SELECT tag, SUM(CRC32(data)) FROM full_db.t GROUP BY tag ORDER BY 2",
        "SELECT COUNT(*) FROM (SELECT DISTINCT id, LEFT(data, 2000) FROM full_db.t ORDER BY 2) AS d",
    ] {
        execute(&mut connection, sql).await.unwrap();
    }
}

/// The processes of one member, and the kernel's account of their memory where there is one.
struct Container {
    mysqld: Process,
    executor: Process,
    group: Option<PathBuf>,
}

impl Container {
    fn of(system: &System, member: &MemberView) -> Self {
        let mysqld = system.mysqld(member);
        Self {
            executor: mysqld.parent(),
            group: memory_group(mysqld.pid),
            mysqld,
        }
    }

    fn check(&self, size: &Size) {
        assert!(self.mysqld.runs(), "the server was restarted");
        assert!(self.executor.runs(), "the executor was restarted");
        let limit = size.mem_mib() * MIB;
        let server = self.mysqld.resident_kib() * 1024;
        let executor = self.executor.anonymous_kib() * 1024;
        eprintln!("resident: mysqld {server}, executor's own {executor}, limit {limit} bytes");
        let resident = server + executor;
        assert!(resident < limit, "{resident} of {limit} bytes are resident");
        let share = Size::EXECUTOR.mem_mib() * MIB;
        assert!(
            executor < share,
            "the executor has {executor} of {share} bytes"
        );
        let Some(group) = &self.group else { return };
        let read = |file: &str| fs::read_to_string(group.join(file)).unwrap_or_default();
        let killed = |text: &str| {
            let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
            count.and_then(|count| count.trim().parse::<u64>().ok())
        };
        let kills = killed(&read("memory.events")).or(killed(&read("memory.oom_control")));
        assert_eq!(kills, Some(0), "the kernel killed for memory in {group:?}");
    }
}

/// The control group that limits the memory of a process, when `cotton local` made one.
fn memory_group(pid: i32) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let groups = text
        .lines()
        .filter_map(|line| line.split_once(':')?.1.split_once(':'));
    for (controllers, path) in groups {
        let path = path.trim_start_matches('/');
        if !path.contains("cotton-local-") {
            continue;
        }
        match controllers {
            "" => return Some(PathBuf::from("/sys/fs/cgroup").join(path)),
            "memory" => return Some(PathBuf::from("/sys/fs/cgroup/memory").join(path)),
            _ => {}
        }
    }
    None
}
