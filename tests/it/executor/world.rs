//! A cluster without a scheduler: real executors with real servers on this machine, a real ZooKeeper, and the
//! test in the scheduler's place, which writes goals and reads reports.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cotton::cluster::control::{
    self, Address, Authentication, ClusterUser, Goal, GoalPhase, Installer, Lineage, MasterGoal,
    MemberState, Report, TaskData,
};
use cotton::cluster::flavour::Flavour;
use cotton::cluster::gtid::Position;
use cotton::cluster::id::{ClusterName, Epoch, MemberId, TaskId};
use cotton::cluster::timings::Timings;
use cotton::cluster::verification::VerifyTask;
use cotton::cluster::voters::{Durability, Terms, Voters};
use cotton::mesos::v1;
use cotton::mysql::authentication;
use cotton::secret::Secret;
use cotton::zookeeper::acl::Acls;
use cotton::zookeeper::operations::Op;
use cotton::zookeeper::paths;
use cotton::zookeeper::session::{Session, SessionConfig};
use nix::sys::signal::Signal;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{ConnectOptions as _, Row as _};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::agent::{Agent, DEADLINE};
use crate::support::free_port;
use crate::support::zookeeper::ZooKeeper;
use crate::support::{eventually, mysqld, signal, spawn};

const USER: &str = "owner";
const PASSWORD: &str = "a password";

const ADMIN: &str = "cotton_admin";
const ADMIN_PASSWORD: &str = "it's \\ a secret";

/// The cluster and everything around it. All of it is gone when this is dropped.
pub struct World {
    pub zookeeper: ZooKeeper,
    session: Session,
    pub cluster: ClusterName,
    pub uuid: Uuid,
    pub flavour: Flavour,
    installer: Installer,
    keys: TempDir,
    pub timings: Timings,
    pub copy_rate_mib: u32,
    pub goal: Goal,
}

/// One member: its agent, its executor, its sandbox.
pub struct Member {
    pub id: MemberId,
    pub agent: Agent,
    pub port: u16,
    pub task_id: TaskId,
    pub sandbox: TempDir,
    pub executor: Child,
    pub begun: Instant,
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.executor.kill();
        let _ = self.executor.wait();
    }
}

impl World {
    pub async fn new(flavour: Flavour) -> Self {
        let installer = match flavour {
            Flavour::Mariadb => Installer::Installed {
                mysqld: "/usr/sbin/mariadbd".into(),
            },
            Flavour::Mysql => {
                let package = mysqld::mysql_package_file();
                let checksum = sha256(&package);
                Installer::Package {
                    package: package.display().to_string(),
                    sha256: Some(checksum),
                }
            }
        };
        Self::with(flavour, installer).await
    }

    pub async fn with(flavour: Flavour, installer: Installer) -> Self {
        let zookeeper = ZooKeeper::start();
        let session = Session::connect(SessionConfig {
            url: zookeeper.url("/cotton").parse().unwrap(),
            identities: Vec::new(),
            timeout: Duration::from_secs(10),
            root_acl: Some(Acls::open().root),
        });
        let keys = tempfile::tempdir().unwrap();
        let key = format!("username: {ADMIN}\npassword: {ADMIN_PASSWORD}\n");
        std::fs::write(keys.path().join("admin"), key).unwrap();
        let cluster: ClusterName = "c1".parse().unwrap();
        let uuid = Uuid::new_v4();
        let hashed = authentication::Authentication::of(&Secret::new(PASSWORD), [3; 20]);
        let authentication = Authentication {
            mysql: hashed.mysql,
            mariadb: hashed.mariadb,
        };
        let goal = Goal {
            backup: None,
            archive: None,
            format: control::FORMAT,
            uuid,
            epoch: Epoch(0),
            phase: GoalPhase::Unborn,
            voters: Voters::default(),
            terms: Terms::default(),
            canary: 0,
            lineage: Vec::new(),
            user: ClusterUser {
                name: USER.into(),
                authentication,
            },
            addresses: BTreeMap::new(),
            donors: BTreeMap::new(),
            from_backup: BTreeMap::new(),
            handover: None,
        };
        let connection = session.connected(DEADLINE).await.unwrap();
        let acl = Acls::open().control;
        for path in [paths::control(&cluster), paths::members(&cluster)] {
            connection.ensure_path(&path, &acl).await.unwrap();
        }
        let create = Op::create(
            paths::goal(&cluster),
            serde_json::to_vec(&goal).unwrap(),
            &acl,
        );
        connection.transact(&[create]).await.unwrap();
        Self {
            zookeeper,
            session,
            cluster,
            uuid,
            flavour,
            installer,
            keys,
            // Generous, so that a loaded machine does not pass for a server that hangs: the tests of that set their own.
            timings: Timings {
                hang_timeout: Duration::from_secs(30),
                commit_timeout: Duration::from_secs(60),
                ..Timings::default()
            },
            copy_rate_mib: 0,
            goal,
        }
    }

    /// Starts an executor and launches the member's task on it.
    pub async fn launch(&self, number: u32) -> Member {
        self.launch_again(number, 1).await
    }

    /// The same for the member's next task, which finds nothing of the one before.
    pub async fn launch_again(&self, number: u32, launch: u32) -> Member {
        let sandbox = tempfile::Builder::new()
            .prefix("cotton-sandbox-")
            .tempdir()
            .unwrap();
        self.launch_in(sandbox, number, launch).await
    }

    /// The same, in a sandbox that was made for it.
    pub async fn launch_in(&self, sandbox: TempDir, number: u32, launch: u32) -> Member {
        self.launch_with(sandbox, number, launch, None).await
    }

    /// Launches a task that verifies a backup, under the name of no member.
    pub async fn verify(&self, order: VerifyTask) -> Member {
        let sandbox = tempfile::Builder::new()
            .prefix("cotton-sandbox-")
            .tempdir()
            .unwrap();
        self.launch_with(sandbox, 99, 1, Some(order)).await
    }

    async fn launch_with(
        &self,
        sandbox: TempDir,
        number: u32,
        launch: u32,
        verify: Option<VerifyTask>,
    ) -> Member {
        let id = MemberId(number);
        let task_id = TaskId::new(&self.cluster, self.uuid, id, launch);
        let port = free_port();
        let data = TaskData {
            restore: None,
            format: match verify {
                Some(_) => control::VERIFY_FORMAT,
                None => control::FORMAT,
            },
            verify,
            cluster: self.cluster.clone(),
            uuid: self.uuid,
            member: id,
            task_id: task_id.clone(),
            port,
            memory_mib: 512,
            zookeeper: self.zookeeper.url("/cotton"),
            zookeeper_identity: None,
            session_timeout_ms: 4_000,
            admin_keypath: self.keys.path().join("admin").display().to_string(),
            installer: self.installer.clone(),
            my_cnf: None,
            timings: self.timings,
            copy_rate_mib: self.copy_rate_mib,
            copy_cost_percent: 10,
        };
        let agent = Agent::start(v1::TaskInfo {
            name: "mysqld".into(),
            task_id: v1::TaskId {
                value: task_id.as_str().to_owned(),
            },
            data: Some(serde_json::to_vec(&data).unwrap()),
            ..Default::default()
        })
        .await;
        let begun = Instant::now();
        let executor = spawn_executor(&agent, &sandbox);
        Member {
            id,
            agent,
            port,
            task_id,
            sandbox,
            executor,
            begun,
        }
    }

    /// Launches `n` members and waits until they run, closed.
    pub async fn members(&self, n: u32) -> Vec<Member> {
        let members = futures::future::join_all((0..n).map(|number| self.launch(number))).await;
        for member in &members {
            self.closed(member).await;
        }
        members
    }

    /// Waits until a member runs, closed, and has told what it holds.
    pub async fn closed(&self, member: &Member) {
        self.reported(member, "closed", |r| {
            r.state == MemberState::Closed && r.held.is_some()
        })
        .await;
    }

    /// Writes the goal as it stands in `self.goal`.
    pub async fn write_goal(&self) {
        let connection = self.session.connected(DEADLINE).await.unwrap();
        let data = serde_json::to_vec(&self.goal).unwrap();
        let set = Op::Set {
            path: paths::goal(&self.cluster),
            data,
            version: None,
        };
        connection.transact(&[set]).await.unwrap();
    }

    /// The member's report, if there is one.
    pub async fn report(&self, member: &Member) -> Option<Report> {
        let connection = self.session.connected(DEADLINE).await.unwrap();
        let path = paths::report(&self.cluster, &member.task_id);
        let (data, _) = connection.get(&path).await.unwrap()?;
        Some(serde_json::from_slice(&data).unwrap())
    }

    /// The member's report. There is none for a moment when the executor's session had to be replaced.
    pub async fn told(&self, member: &Member) -> Report {
        self.reported(member, "anything", |_| true).await
    }

    /// Waits for a report.
    pub async fn reported(
        &self,
        member: &Member,
        what: &str,
        wanted: impl Fn(&Report) -> bool,
    ) -> Report {
        let begun = Instant::now();
        loop {
            let report = self.report(member).await;
            if let Some(report) = report.clone().filter(|report| wanted(report)) {
                return report;
            }
            assert!(
                begun.elapsed() < DEADLINE,
                "member {} does not report {what} but {report:#?}; its log ends with:\n{}",
                member.id,
                member.log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The voters of a new cluster of `members`, each with the data that it reports.
    pub async fn set_voters(&mut self, members: &[&Member], durability: Durability) {
        let ids = members.iter().map(|member| member.id);
        let mut voters = Voters::at_birth(members[0].id, ids, durability, self.flavour);
        for member in members {
            let address = Address {
                host: "127.0.0.1".into(),
                port: member.port,
            };
            self.goal.addresses.insert(member.id, address);
            let report = self.told(member).await;
            voters.members.insert(member.id, report.data);
        }
        voters.version = self.goal.voters.version + 1;
        self.goal.voters = voters;
    }

    /// Stores the next epoch: electing.
    pub async fn begin_election(&mut self) -> Epoch {
        self.goal.epoch = self.goal.epoch.next();
        self.goal.phase = GoalPhase::Electing;
        self.write_goal().await;
        self.goal.epoch
    }

    /// Elects a member for what it has reported, in the current epoch or, at birth, in the first.
    pub async fn elect(&mut self, member: &Member) {
        if self.goal.phase == GoalPhase::Unborn {
            self.goal.epoch = Epoch(1);
        }
        // It is told anew whenever the executor had to begin another session.
        let report = self
            .reported(member, "what it is elected for", |r| {
                r.data.is_some() && r.process.is_some() && r.held.is_some()
            })
            .await;
        let empty = Position::empty(self.flavour);
        let history = report.held.map_or(empty, |held| held.position);
        self.goal.lineage.push(Lineage {
            epoch: self.goal.epoch,
            history: history.clone(),
        });
        self.goal.phase = GoalPhase::Elected(MasterGoal {
            member: member.id,
            data: report.data.unwrap(),
            process: report.process.unwrap(),
            host: "127.0.0.1".into(),
            port: member.port,
            history,
            opened: false,
        });
        self.write_goal().await;
    }

    /// Notes that the master has opened.
    pub async fn note_opened(&mut self) {
        if let GoalPhase::Elected(master) = &mut self.goal.phase {
            master.opened = true;
        }
        self.write_goal().await;
    }

    /// Waits until a member is the master of the current epoch and accepts writes.
    pub async fn opened(&self, member: &Member) -> Report {
        let state = MemberState::Master {
            epoch: self.goal.epoch,
            writable: true,
        };
        self.reported(member, "writable", |report| report.state == state)
            .await
    }

    /// Waits until a member follows in the current epoch and is ready.
    pub async fn ready(&self, member: &Member) -> Report {
        let state = MemberState::Following {
            epoch: self.goal.epoch,
            ready: true,
        };
        self.reported(member, "ready", |report| report.state == state)
            .await
    }

    /// Kills the master's server when the others have all that it holds. Its executor is stopped first, for it has the
    /// master commit something every second, which one of the others may get and the next one not; it stays so until
    /// [`Member::go_on`].
    pub async fn kill_followed(&self, master: &Member, others: &[&Member]) {
        signal(master.executor.id() as i32, Signal::SIGSTOP);
        let begun = Instant::now();
        let mut before = None;
        loop {
            let executed = master.executed(self.flavour).await;
            let mut all_have_it = true;
            for other in others {
                all_have_it &= other.executed(self.flavour).await.contains(&executed);
            }
            // Twice in a row: a commit may have been on its way when the executor was stopped.
            if all_have_it && before.as_ref() == Some(&executed) {
                break;
            }
            assert!(
                begun.elapsed() < DEADLINE,
                "not all have {executed:?}:\n{}",
                master.log()
            );
            before = all_have_it.then_some(executed);
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        master.kill_mysqld();
    }

    /// Waits until a member has reported what it holds in the current epoch.
    pub async fn held(&self, member: &Member) -> Report {
        let epoch = self.goal.epoch;
        self.reported(member, "what it holds", |report| {
            report.promised == epoch && report.held.as_ref().is_some_and(|held| held.epoch == epoch)
        })
        .await
    }
}

/// Starts the real binary as an agent would.
pub fn spawn_executor(agent: &Agent, sandbox: &TempDir) -> Child {
    let log = std::fs::File::create(sandbox.path().join("stderr")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cotton"));
    command
        .arg("executor")
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("LIBPROCESS_IP", "127.0.0.1")
        .env("MESOS_AGENT_ENDPOINT", &agent.address)
        .env("MESOS_FRAMEWORK_ID", "f1")
        .env("MESOS_EXECUTOR_ID", "e1")
        .env("MESOS_SLAVE_ID", "a1")
        .env("MESOS_SANDBOX", sandbox.path())
        .env("MESOS_CHECKPOINT", "1")
        // Templates and packages are shared by all tests of this build, and by nobody else.
        .env("TMPDIR", env!("CARGO_TARGET_TMPDIR"))
        .current_dir(sandbox.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0);
    spawn(command).unwrap()
}

impl Member {
    /// What the executor and its server have logged last.
    pub fn log(&self) -> String {
        let end = |name: &str| {
            let text = std::fs::read_to_string(self.sandbox.path().join(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(25)..].join("\n")
        };
        format!("{}\n--- mysqld.log\n{}", end("stderr"), end("mysqld.log"))
    }

    /// All that the executor has logged.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.sandbox.path().join("stderr")).unwrap_or_default()
    }

    /// The pid of the server.
    pub fn mysqld(&self) -> Option<i32> {
        let data = std::fs::read_dir(self.sandbox.path().join("state/data")).ok()?;
        data.flatten().find_map(|folder| {
            let text = std::fs::read_to_string(folder.path().join("mysqld.pid")).ok()?;
            text.trim().parse().ok()
        })
    }

    /// Sends SIGKILL to the server.
    pub fn kill_mysqld(&self) {
        signal(self.mysqld().unwrap(), Signal::SIGKILL);
    }

    /// Lets an executor that was stopped go on.
    pub fn go_on(&self) {
        signal(self.executor.id() as i32, Signal::SIGCONT);
    }

    /// What the server has executed.
    pub async fn executed(&self, flavour: Flavour) -> Position {
        let query = match flavour {
            Flavour::Mariadb => "SELECT @@gtid_binlog_pos",
            Flavour::Mysql => "SELECT @@gtid_executed",
        };
        let text = self.administer(query).await.concat();
        Position::parse(flavour, &text).unwrap()
    }

    /// Connects as the cluster's user, as a client would.
    pub async fn connect(&self) -> Result<MySqlConnection, sqlx::Error> {
        let options = MySqlConnectOptions::new()
            .host("127.0.0.1")
            .port(self.port)
            .username(USER)
            .password(PASSWORD)
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .timezone(None)
            .disable_statement_logging();
        timeout(DEADLINE, options.connect())
            .await
            .expect("an answer comes")
    }

    /// Runs a statement as the cluster's user.
    pub async fn execute(&self, statement: &str) -> Result<(), sqlx::Error> {
        let mut connection = self.connect().await?;
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        let work = sqlx::raw_sql(statement).execute(&mut connection);
        timeout(DEADLINE, work)
            .await
            .expect("an answer comes")
            .map(|_| ())
    }

    /// Runs a query as the administration account, through the socket. Gives the first column.
    pub async fn administer(&self, query: &str) -> Vec<String> {
        let options = MySqlConnectOptions::new()
            .socket(self.sandbox.path().join("run/mysqld.sock"))
            .username(ADMIN)
            .password(ADMIN_PASSWORD)
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .timezone(None)
            .disable_statement_logging();
        let mut connection = options.connect().await.unwrap();
        let query = sqlx::AssertSqlSafe(query.to_owned());
        let rows = sqlx::raw_sql(query).fetch_all(&mut connection).await;
        let first = |row: &sqlx::mysql::MySqlRow| row.get_unchecked::<String, _>(0);
        rows.unwrap().iter().map(first).collect()
    }

    /// The numbers in the table `d.t`.
    pub async fn numbers(&self) -> Result<Vec<i64>, sqlx::Error> {
        let mut connection = self.connect().await?;
        let rows = sqlx::raw_sql("SELECT n FROM d.t ORDER BY n")
            .fetch_all(&mut connection)
            .await?;
        Ok(rows
            .iter()
            .map(|row| row.get_unchecked::<i64, _>(0))
            .collect())
    }

    /// Waits until the executor's process has ended.
    pub async fn ended(&mut self) -> std::process::ExitStatus {
        let executor = &mut self.executor;
        let begun = Instant::now();
        loop {
            if let Some(status) = executor.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < DEADLINE, "the executor does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Whether a process runs.
pub fn runs(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .next()
            != Some("Z")
    })
}

/// Waits until a process does not run any more.
pub async fn is_gone(pid: i32) {
    eventually("the process is gone", DEADLINE, async || {
        (!runs(pid)).then_some(())
    })
    .await;
}

fn sha256(file: &PathBuf) -> String {
    use sha2::{Digest as _, Sha256};
    hex::encode(Sha256::digest(std::fs::read(file).unwrap()))
}
