//! A cluster of the default size stays within its memory when it is full of data, busy, and being backed up.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use cotton::cluster::flavour::Flavour;
use cotton::cluster::size::Size;
use cotton::cluster::view::{ClusterView, MemberView};
use sqlx::Connection as _;

use crate::backups::back_up;
use crate::support::database::{Account, connect, execute};
use crate::support::process::Process;
use crate::support::shared::s3::{BUCKET, S3};
use crate::support::system::{Cluster, Options, System, endpoint, master, slaves};
use crate::support::{CREATE_DEADLINE, eventually};

crate::for_both_flavours!(a_full_cluster_stays_within_its_memory);

const MIB: u64 = 1024 * 1024;

/// What one row holds, in KiB: half of it random, so that a backup has several parts.
const ROW_KIB: usize = 64;

/// The rows of one transaction, 8 MiB, and how many such transactions each client makes. Together that
/// is about 400 MiB, more than the buffer pool of either flavour has at this size.
const ROWS_OF_ONE_INSERT: usize = 128;
const CLIENTS: usize = 4;
const INSERTS_OF_ONE_CLIENT: usize = 12;

/// How often the processes are looked at.
const LOOK: Duration = Duration::from_millis(20);

async fn a_full_cluster_stays_within_its_memory(flavour: Flavour) {
    let s3 = S3::start();
    let system = System::with_options(options(flavour, &s3));
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
        let resident = container.look();
        eprintln!("with readers: {resident:?}");
        resident.check(&view.size);
    }
    back_up_while_it_is_read(&system, &cluster, &view, &containers).await;
    for container in &containers {
        container.check_that_nothing_was_killed();
    }
    system.delete_and_wait(&cluster).await;
}

/// With a store in S3, which takes data in parts that are kept in memory until they are stored.
fn options(flavour: Flavour, s3: &S3) -> Options {
    let args = serde_json::json!({
        "url": format!("s3://{BUCKET}/cotton"),
        "region": "eu-central-1",
        "endpoint": format!("http://127.0.0.1:{}", s3.port()),
        "credentials": s3.credentials(),
    });
    Options {
        arguments: ["--", "--backup-store-args", &args.to_string()]
            .map(str::to_owned)
            .to_vec(),
        ..Options::new(flavour)
    }
}

/// The slave is read by many while it is backed up, and looked at all the time.
async fn back_up_while_it_is_read(
    system: &System,
    cluster: &Cluster,
    view: &ClusterView,
    containers: &[Container],
) {
    let slave = slaves(view)[0];
    let at = endpoint(slave);
    let position = view.members.iter().position(|one| one.id == slave.id);
    let container = &containers[position.unwrap()];
    let mut most = container.look();
    let looking = async {
        loop {
            let now = container.look();
            most.server = most.server.max(now.server);
            most.executor = most.executor.max(now.executor);
            most.tools = most.tools.max(now.tools);
            now.check(&view.size);
            tokio::time::sleep(LOOK).await;
        }
    };
    let reading = async {
        let readers = (0..2).map(|_| read_all(&at, &cluster.account));
        futures::future::join_all(readers).await;
        std::future::pending::<()>().await
    };
    let (_, after) = tokio::select! {
        made = back_up(system, cluster) => made,
        () = looking => unreachable!("it looks for ever"),
        () = reading => unreachable!("it waits for ever"),
    };
    eprintln!("with a backup: at most {most:?}");
    let outcome = after.standing.last_backup.unwrap();
    assert!(outcome.done, "{}", outcome.sentence);
}

/// The server makes the rows itself: what travels is what it replicates.
async fn fill(at: &cotton::cluster::service_instance::Endpoint, account: &Account, client: usize) {
    let mut connection = connect(at, account).await.unwrap();
    let random = ["RANDOM_BYTES(1024)"; ROW_KIB / 2].join(", ");
    let rest = ROW_KIB / 2 * 1024;
    let sql = format!(
        "INSERT INTO full_db.t (tag, data) WITH RECURSIVE numbers (n) AS \
         (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {ROWS_OF_ONE_INSERT}) \
         SELECT {client}, CONCAT({random}, REPEAT(CHAR(97 + n % 26), {rest})) FROM numbers",
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

    fn look(&self) -> Resident {
        assert!(self.mysqld.runs(), "the server was restarted");
        assert!(self.executor.runs(), "the executor was restarted");
        let children = self.executor.children();
        let tools = children.iter().filter(|child| **child != self.mysqld);
        Resident {
            server: self.mysqld.resident_kib() * 1024,
            executor: self.executor.anonymous_kib() * 1024,
            tools: tools
                .filter_map(Process::anonymous_kib_if_it_runs)
                .sum::<u64>()
                * 1024,
        }
    }

    fn check_that_nothing_was_killed(&self) {
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

/// What the processes of one member have of the memory, in bytes: all of the server's, and what no file holds of the others'.
#[derive(Debug, Clone, Copy)]
struct Resident {
    server: u64,
    executor: u64,
    tools: u64,
}

impl Resident {
    fn check(&self, size: &Size) {
        let limit = size.mem_mib() * MIB;
        let all = self.server + self.executor + self.tools;
        assert!(all < limit, "{all} of {limit} bytes: {self:?}");
        let share = Size::EXECUTOR.mem_mib() * MIB;
        assert!(self.executor < share, "{share} bytes for it in {self:?}");
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
