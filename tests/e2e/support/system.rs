//! The whole system on this machine: `cotton local` as a child process, taken down in the end.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use cotton::cluster::flavour::Flavour;
use cotton::cluster::service_instance::Endpoint;
use cotton::cluster::view::{ClusterState, ClusterView, MemberRole, MemberView};
use cotton::http::explain::ExplainAnswer;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::database::Account;
use super::process::{self, Process};
use super::rest::{Answer, curl};
use super::{CREATE_DEADLINE, DELETE_DEADLINE, eventually};

/// Between two looks at a cluster, at the least and at the most.
const SOON: Duration = Duration::from_millis(50);
const LATER: Duration = Duration::from_millis(200);

/// How long `cotton local` may take to print its line.
const START_DEADLINE: Duration = Duration::from_secs(180);

/// How long it may take to end.
const STOP_DEADLINE: Duration = Duration::from_secs(60);

/// How much of each log a failed test shows.
const SHOWN_LINES: usize = 40;

/// With this variable the directory of a system in which a story failed is kept for looking around.
const KEEP: &str = "COTTON_KEEP";

/// The user of every cluster here.
pub const USER: &str = "app";

/// What a system is to be like.
#[derive(Debug, Clone)]
pub struct Options {
    /// The database server.
    pub flavour: Flavour,
    /// The binary; the tests' own if not given.
    pub binary: PathBuf,
    /// How many agents.
    pub agents: u8,
    /// Further arguments for `cotton local`.
    pub arguments: Vec<String>,
}

impl Options {
    /// Three agents with room for a few clusters.
    pub fn new(flavour: Flavour) -> Self {
        Self {
            flavour,
            binary: PathBuf::from(env!("CARGO_BIN_EXE_cotton")),
            agents: 3,
            arguments: Vec::new(),
        }
    }
}

/// A running `cotton local`.
pub struct System {
    /// Where the REST API is.
    pub api: String,
    /// Where the Mesos master is.
    pub mesos: String,
    /// Cotton's root in ZooKeeper.
    pub zk: String,
    options: Options,
    directory: TempDir,
    child: Mutex<Option<Child>>,
    failed: AtomicBool,
}

/// A created cluster, as its creator knows it.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Where it is in discovery.
    pub url: String,
    /// Its user.
    pub account: Account,
}

impl System {
    /// Starts one of its own.
    pub fn start(flavour: Flavour) -> Lease {
        Self::with_options(Options::new(flavour))
    }

    /// Starts one of its own.
    pub fn with_options(options: Options) -> Lease {
        Lease(Arc::new(Self::launch(options)))
    }

    /// The one that stories share which need no quiet. It is taken down when the test binary ends.
    pub fn shared(flavour: Flavour) -> Lease {
        static SHARED: Mutex<BTreeMap<Flavour, Arc<System>>> = Mutex::new(BTreeMap::new());
        extern "C" fn take_down() {
            let mut all = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
            for system in all.values() {
                system.stop();
            }
            all.clear();
        }
        // A story that failed in here must not take the others with it.
        let mut all = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let system = all.entry(flavour).or_insert_with(|| {
            static REGISTERED: OnceLock<()> = OnceLock::new();
            // SAFETY: the handler is a function without arguments that does not unwind.
            REGISTERED.get_or_init(|| assert_eq!(unsafe { libc::atexit(take_down) }, 0));
            Arc::new(Self::launch(Options::new(flavour)))
        });
        Lease(system.clone())
    }

    fn launch(options: Options) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("cotton-e2e-")
            .tempdir()
            .unwrap();
        // The database servers run as a user of their own and pass through.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = Command::new(&options.binary);
        command
            .arg("local")
            .args(["--agents", &options.agents.to_string()])
            .args(["--cpus", "16", "--mem", "12000", "--disk", "100000"])
            .arg("--work-dir")
            .arg(directory.path().join("run"));
        if options.flavour == Flavour::Mysql {
            command.arg("--package").arg(mysql_package());
        }
        command.args(&options.arguments);
        // What stories leave behind makes room for others.
        command.env("COTTON_KEEP_DELETED", "1s");
        let log = fs::File::create(directory.path().join("local.log")).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut child = process::spawn(command).unwrap();
        let line = first_line(&mut child);
        let mut system = Self {
            api: String::new(),
            mesos: String::new(),
            zk: String::new(),
            options,
            directory,
            child: Mutex::new(Some(child)),
            failed: AtomicBool::new(false),
        };
        let words = line.strip_prefix("ready ").unwrap_or_default();
        if words.is_empty() {
            system.show_logs();
            panic!("cotton local did not come up; it said {line:?}");
        }
        for word in words.split_whitespace() {
            match word.split_once('=') {
                Some(("api", url)) => system.api = url.to_owned(),
                Some(("mesos", url)) => system.mesos = url.to_owned(),
                Some(("zk", url)) => system.zk = url.to_owned(),
                _ => panic!("an unknown word in {line:?}"),
            }
        }
        system
    }

    /// Takes it down, once.
    fn stop(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut child) = child.take() else {
            return;
        };
        let pid = Pid::from_raw(child.id().cast_signed());
        let _ = kill(pid, Signal::SIGTERM);
        let start = Instant::now();
        while child.try_wait().is_ok_and(|status| status.is_none()) {
            if start.elapsed() > STOP_DEADLINE {
                let _ = writeln!(std::io::stderr(), "cotton local had to be killed");
                let _ = killpg(pid, Signal::SIGKILL);
                let _ = child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `cotton local` itself.
    pub fn process(&self) -> Process {
        let child = self.child.lock().unwrap();
        let pid = child.as_ref().unwrap().id().cast_signed();
        Process::find(pid).unwrap()
    }

    /// The scheduler, which `cotton local` starts again when it ends.
    pub async fn scheduler(&self) -> Process {
        let is_scheduler =
            |process: &Process| process.arguments().get(1).map(String::as_str) == Some("scheduler");
        let deadline = Duration::from_secs(20);
        eventually("a scheduler runs", deadline, async || {
            self.process().children().into_iter().find(is_scheduler)
        })
        .await
    }

    /// The id of the one framework that the Mesos master knows.
    pub async fn framework_id(&self) -> String {
        let answer = curl(&[&format!("{}/state", self.mesos)]).await.unwrap();
        let state = answer.json();
        let frameworks = state["frameworks"].as_array().unwrap();
        assert_eq!(frameworks.len(), 1, "{state}");
        frameworks[0]["id"].as_str().unwrap().to_owned()
    }

    /// Waits until the scheduler answers and is registered.
    pub async fn wait_registered(&self) {
        let url = format!("{}/vars.json", self.api);
        eventually("the scheduler is registered", START_DEADLINE, async || {
            let vars = curl(&[&url]).await?.json();
            (vars["scheduler.framework_registered"] == 1).then_some(())
        })
        .await;
    }

    /// Asks for a cluster.
    pub async fn post(&self, name: &str, fields: &[(&str, &str)]) -> Option<Answer> {
        self.request("POST", name, fields).await
    }

    /// Asks for a cluster's end.
    pub async fn delete(&self, cluster: &Cluster) -> Option<Answer> {
        let fields = [("password", cluster.account.password.as_str())];
        self.request("DELETE", &cluster.name, &fields).await
    }

    /// Asks something of a cluster by a form.
    pub async fn request(
        &self,
        method: &str,
        name: &str,
        fields: &[(&str, &str)],
    ) -> Option<Answer> {
        let url = format!("{}/clusters/{name}", self.api);
        let mut arguments = vec!["-X".to_owned(), method.to_owned(), url];
        for (key, value) in fields {
            arguments.extend(["--form".to_owned(), format!("{key}={value}")]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        curl(&arguments).await
    }

    /// Creates a cluster; it is not there yet.
    pub async fn create(&self, name: &str, nodes: u32) -> Cluster {
        self.create_with(name, nodes, &[]).await
    }

    /// Creates a cluster with further form fields.
    pub async fn create_with(&self, name: &str, nodes: u32, further: &[(&str, &str)]) -> Cluster {
        let nodes = nodes.to_string();
        let mut fields = vec![("cluster_user", USER), ("num_nodes", nodes.as_str())];
        fields.extend(further);
        let answer = self.post(name, &fields).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        Cluster {
            name: name.to_owned(),
            url: answer.text_of("cluster_url"),
            account: Account {
                user: USER.to_owned(),
                password: answer.text_of("cluster_password"),
            },
        }
    }

    /// Creates a cluster and waits until all its members are ready.
    pub async fn create_running(&self, name: &str, nodes: u32) -> Cluster {
        let cluster = self.create(name, nodes).await;
        self.wait_running(&cluster, CREATE_DEADLINE).await;
        cluster
    }

    /// The cluster as the API shows it; `None` without an answer or a cluster.
    pub async fn show(&self, name: &str) -> Option<ClusterView> {
        let answer = curl(&[&format!("{}/clusters/{name}", self.api)]).await?;
        (answer.status == 200).then(|| serde_json::from_str(&answer.text).unwrap())
    }

    /// What `cotton admin explain` says of the cluster.
    pub async fn explain(&self, name: &str) -> ExplainAnswer {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_cotton"))
            .args(["admin", "explain", name, "--json", "--api", &self.api])
            .output()
            .await
            .unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{complaint}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Waits until the cluster looks as wanted.
    pub async fn wait_until(
        &self,
        cluster: &Cluster,
        what: &str,
        deadline: Duration,
        is_so: impl Fn(&ClusterView) -> bool,
    ) -> ClusterView {
        let start = Instant::now();
        let mut last = None;
        while start.elapsed() < deadline {
            if let Some(view) = self.show(&cluster.name).await {
                if is_so(&view) {
                    return view;
                }
                last = Some(view);
            }
            // Each look starts a process, which takes time from what is waited for: so the longer it takes, the rarer.
            let pause = (start.elapsed() / 20).clamp(SOON, LATER);
            tokio::time::sleep(pause).await;
        }
        let last = last.map(|view| serde_json::to_string_pretty(&view).unwrap());
        panic!(
            "not within {deadline:?}: {} {what}; it is {}",
            cluster.name,
            last.unwrap_or_else(|| "unknown".to_owned())
        );
    }

    /// Waits until the cluster has a master and all its members are ready and vote.
    pub async fn wait_running(&self, cluster: &Cluster, deadline: Duration) -> ClusterView {
        self.wait_until(cluster, "runs", deadline, |view| {
            view.state == ClusterState::Running
                && view.members.len() == view.num_nodes as usize
                && view.members.iter().all(|member| member.voter)
        })
        .await
    }

    /// Deletes the cluster and waits until it is gone from the API.
    pub async fn delete_and_wait(&self, cluster: &Cluster) {
        let answer = self.delete(cluster).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        self.wait_gone(cluster).await;
    }

    /// Waits until the API does not know the cluster any more.
    pub async fn wait_gone(&self, cluster: &Cluster) {
        self.wait_unknown(&cluster.name).await;
    }

    /// Waits until the API does not know a cluster of this name.
    pub async fn wait_unknown(&self, name: &str) {
        let url = format!("{}/clusters/{name}", self.api);
        eventually("the cluster is gone", DELETE_DEADLINE, async || {
            let answer = curl(&[&url]).await?;
            (answer.status == 404).then_some(())
        })
        .await;
    }

    /// Where `cotton local` keeps everything.
    pub fn run_directory(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// The sandbox of a task.
    pub fn sandbox(&self, task: &str) -> PathBuf {
        self.find_sandbox(task)
            .unwrap_or_else(|| panic!("no sandbox of the task {task}"))
    }

    /// The sandbox of a task, if there was ever one.
    pub fn find_sandbox(&self, task: &str) -> Option<PathBuf> {
        let agents = self.directory.path().join("run/agents");
        let executor = Path::new("executors").join(task).join("runs/latest");
        let executors = folders(&agents)
            .into_iter()
            .flat_map(|agent| folders(&agent.join("slaves")))
            .flat_map(|agent| folders(&agent.join("frameworks")));
        executors
            .map(|framework| framework.join(&executor))
            .find_map(|path| path.canonicalize().ok())
    }

    /// What runs in the sandbox of a task: its executor, if it has one yet.
    pub fn executors(&self, task: &str) -> Vec<Process> {
        let Some(sandbox) = self.find_sandbox(task) else {
            return Vec::new();
        };
        let works_there = |process: &Process| {
            let folder = fs::read_link(format!("/proc/{}/cwd", process.pid));
            folder.is_ok_and(|folder| folder == sandbox)
        };
        let all = self.process().descendants().into_iter();
        all.filter(works_there).collect()
    }

    /// The server process of a member.
    pub fn mysqld(&self, member: &MemberView) -> Process {
        self.find_mysqld(member)
            .unwrap_or_else(|| panic!("no server of {member:?}"))
    }

    /// The server process of a member, unless there is none at this moment: it works in its data directory, and
    /// keeps its pid there.
    pub fn find_mysqld(&self, member: &MemberView) -> Option<Process> {
        let task = member.task_id.as_ref()?;
        let sandbox = self.sandbox(task);
        // The folder is a link to the member's volume, if there is one.
        let state = sandbox.join("state").canonicalize().unwrap();
        let running = folders(&state.join("data")).into_iter().filter_map(|data| {
            let text = fs::read_to_string(data.join("mysqld.pid")).ok()?;
            let process = Process::find(text.trim().parse().ok()?)?;
            let works_in = fs::read_link(format!("/proc/{}/cwd", process.pid)).ok()?;
            (works_in == data).then_some(process)
        });
        let running: Vec<Process> = running.collect();
        assert!(running.len() <= 1, "servers in {}", sandbox.display());
        running.first().copied()
    }

    /// The end of each log, for whoever looks into a failure.
    pub fn show_logs(&self) {
        let run = self.directory.path().join("run");
        let mut logs = vec![self.directory.path().join("local.log")];
        logs.extend(files(&run.join("logs")));
        for agent in folders(&run.join("agents")) {
            find_sandbox_logs(&agent, 8, &mut logs);
        }
        for log in logs {
            let bytes = fs::read(&log).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = text.lines().collect();
            let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
            if !shown.is_empty() {
                eprintln!("=== {}\n{}", log.display(), shown.join("\n"));
            }
        }
    }
}

impl Drop for System {
    fn drop(&mut self) {
        self.stop();
        if self.failed.load(Ordering::Relaxed) && std::env::var_os(KEEP).is_some() {
            let kept = self.directory.path().with_extension("kept");
            let _ = fs::rename(self.directory.path(), &kept);
            let _ = writeln!(std::io::stderr(), "kept: {}", kept.display());
        }
    }
}

/// One story's use of a system. A story that fails shows the logs.
pub struct Lease(Arc<System>);

impl Deref for Lease {
    type Target = System;

    fn deref(&self) -> &System {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.show_logs();
            self.0.failed.store(true, Ordering::Relaxed);
        }
    }
}

/// Where clients reach a member.
pub fn endpoint(member: &MemberView) -> Endpoint {
    Endpoint {
        host: member.host.clone().unwrap(),
        port: member.port.unwrap(),
    }
}

/// The member that is master.
pub fn master(view: &ClusterView) -> &MemberView {
    let is_master = |member: &&MemberView| member.role == MemberRole::Master;
    view.members.iter().find(is_master).unwrap()
}

/// The members that are slaves.
pub fn slaves(view: &ClusterView) -> Vec<&MemberView> {
    let is_slave = |member: &&MemberView| member.role == MemberRole::Slave;
    view.members.iter().filter(is_slave).collect()
}

/// The ids of all tasks, by member.
pub fn tasks(view: &ClusterView) -> Vec<String> {
    let tasks = view.members.iter().map(|member| member.task_id.clone());
    tasks.map(Option::unwrap).collect()
}

/// The package of MySQL that the project's script makes.
pub fn mysql_package() -> &'static Path {
    static PACKAGE: OnceLock<PathBuf> = OnceLock::new();
    PACKAGE.get_or_init(|| made_package(&[]))
}

/// The package with a MariaDB server of a later series than the machine's own.
pub fn mariadb_package() -> &'static Path {
    static PACKAGE: OnceLock<PathBuf> = OnceLock::new();
    PACKAGE.get_or_init(|| made_package(&["--mariadb"]))
}

fn made_package(arguments: &[&str]) -> PathBuf {
    let script = super::in_project("scripts/mysql-package");
    let output = Command::new(script).args(arguments).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    PathBuf::from(stdout.lines().last().unwrap())
}

/// The first line of its standard output, or nothing when it ended or the deadline has passed.
fn first_line(child: &mut Child) -> String {
    let stdout = child.stdout.take().unwrap();
    let (sender, line) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(stdout).read_line(&mut line);
        let _ = sender.send(line);
    });
    line.recv_timeout(START_DEADLINE).unwrap_or_default()
}

fn entries(folder: &Path) -> Vec<fs::DirEntry> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.flatten().collect()
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let folders = entries(folder).into_iter().filter(is_folder);
    folders.map(|entry| entry.path()).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let is_file = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_file());
    let files = entries(folder).into_iter().filter(is_file);
    files.map(|entry| entry.path()).collect()
}

fn find_sandbox_logs(folder: &Path, depth: usize, logs: &mut Vec<PathBuf>) {
    let is_log = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        name == "stderr" || name == "stdout" || name == "mysqld.log"
    };
    logs.extend(files(folder).into_iter().filter(is_log));
    // Data directories lie deeper and hold no logs.
    for inner in folders(folder) {
        if depth > 0 && !inner.ends_with("state") {
            find_sandbox_logs(&inner, depth - 1, logs);
        }
    }
}
