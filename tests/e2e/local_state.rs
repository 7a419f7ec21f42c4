//! `--state-storage=local`: records in files, which one scheduler sees. Another one with the same state is refused, in words, and
//! the one that leads notices nothing of it.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use cotton::cluster::flavour::Flavour;

use crate::support::database::run;
use crate::support::process::{self, Process};
use crate::support::rest::curl;
use crate::support::system::{Cluster, Options, System, endpoint, master};
use crate::support::{CREATE_DEADLINE, FAILOVER_DEADLINE, eventually, free_port};

/// Two session timeouts of 6 s, for which a scheduler that must be alone waits, and what a loaded machine adds.
const REFUSED_WITHIN: Duration = Duration::from_secs(40);

/// How long it takes another scheduler to lead, on the machine of one that has ended.
const TAKEOVER: Duration = Duration::from_secs(30);

/// Another scheduler beside that of a system, with the same settings but for some.
struct Another {
    name: &'static str,
    child: Mutex<Child>,
    api: String,
    log: PathBuf,
}

impl Another {
    /// Starts it below the same root in ZooKeeper. `settings` take the place of the first one's own.
    async fn start(system: &System, name: &'static str, settings: &[(&str, &str)]) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let (_, port) = address.split_once(':').unwrap();
        let mut arguments = system.scheduler().await.arguments();
        arguments.retain(|argument| !argument.is_empty());
        let places = [("--port", port), ("--advertise", address.as_str())];
        for (name, value) in places.iter().chain(settings) {
            match arguments.iter().position(|argument| argument == name) {
                Some(at) => arguments[at + 1] = (*value).to_owned(),
                None => arguments.extend([(*name).to_owned(), (*value).to_owned()]),
            }
        }
        let log = system.run_directory().join(format!("logs/{name}.log"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_cotton"));
        command
            .args(&arguments[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap());
        Self {
            name,
            child: Mutex::new(process::spawn(command).unwrap()),
            api: format!("http://{address}"),
            log,
        }
    }

    fn told(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until it has ended by itself, as one that failed, and for what it says then.
    async fn refused(&self) -> String {
        let what = format!("the scheduler with {} is refused", self.name);
        let status = eventually(&what, REFUSED_WITHIN, async || {
            self.child.lock().unwrap().try_wait().unwrap()
        })
        .await;
        let told = self.told();
        assert!(!status.success(), "{}: {told}", self.name);
        told
    }

    /// Waits until it has found who leads, and waits for that one's end.
    async fn waits(&self) {
        eventually(
            "it waits for the other one's end",
            REFUSED_WITHIN,
            async || {
                self.told()
                    .contains("waiting for the session of the other one to end")
                    .then_some(())
            },
        )
        .await;
    }
}

impl Drop for Another {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// What the one that is refused says last: who leads, where, whose state is in files, and what to do.
fn assert_sentence(told: &str, system: &System, whose: &str) {
    let leader = system.api.strip_prefix("http://").unwrap();
    let sentence = format!(
        "another scheduler, {leader}, leads below {} and {whose} its state in local files (--state-storage=local), which no \
         other scheduler can see: end one of the two, or let all keep their state in ZooKeeper",
        system.zk
    );
    assert!(told.contains(&sentence), "not {sentence:?} in:\n{told}");
}

async fn insert(system: &System, cluster: &Cluster, value: u32) {
    let view = system.wait_running(cluster, FAILOVER_DEADLINE).await;
    let insert = format!("INSERT INTO files_db.t VALUES ({value})");
    run(&endpoint(master(&view)), &cluster.account, &[&insert]).await;
}

#[tokio::test]
async fn a_second_scheduler_is_refused_where_state_is_in_files() {
    let mut options = Options::new(Flavour::Mariadb);
    let arguments = ["--no-restart", "--", "--state-storage", "local"];
    options.arguments.extend(arguments.map(str::to_owned));
    let system = System::with_options(options);
    let first = system.scheduler().await;
    let framework = system.framework_id().await;
    let cluster = system.create_running("in-files", 1).await;
    let before = system.show("in-files").await.unwrap();
    let tables = [
        "CREATE DATABASE files_db",
        "CREATE TABLE files_db.t (value INT PRIMARY KEY)",
    ];
    run(&endpoint(master(&before)), &cluster.account, &tables).await;

    let elsewhere = system.run_directory().join("elsewhere");
    let elsewhere = elsewhere.to_str().unwrap();
    let in_files = ("--state-storage", "local");
    let refused = [
        (
            Another::start(&system, "the-same-files", &[in_files]).await,
            "this one keeps",
        ),
        (
            Another::start(
                &system,
                "other-files",
                &[in_files, ("--work-dir", elsewhere)],
            )
            .await,
            "this one keeps",
        ),
        (
            Another::start(
                &system,
                "its-state-in-zookeeper",
                &[("--state-storage", "zk")],
            )
            .await,
            "that one keeps",
        ),
    ];
    for (another, whose) in &refused {
        assert_sentence(&another.refused().await, &system, whose);
    }
    assert!(first.runs(), "the one that leads has ended");
    assert_eq!(system.framework_id().await, framework);
    let after = system.wait_running(&cluster, FAILOVER_DEADLINE).await;
    assert_eq!(after, before, "the clusters noticed it");
    insert(&system, &cluster, 1).await;

    // One that is started in the place of the first, before that has ended, takes over with the same files.
    let next = Another::start(&system, "the-next", &[in_files]).await;
    next.waits().await;
    let server = system.mysqld(master(&after));
    first.kill();
    takes_over(&next, &before.name.to_string()).await;
    assert_eq!(system.framework_id().await, framework);
    assert!(server.runs(), "the server was restarted");
    let answer = curl(&[
        "-X",
        "DELETE",
        &format!("{}/clusters/in-files", next.api),
        "--form",
        &format!("password={}", cluster.account.password),
    ])
    .await;
    assert_eq!(answer.unwrap().status, 200);
    gone(&next, "in-files", server).await;
}

/// It leads, and knows the cluster as running.
async fn takes_over(next: &Another, cluster: &str) {
    let url = format!("{}/clusters/{cluster}", next.api);
    eventually("the next one shows the cluster", TAKEOVER, async || {
        let answer = curl(&[&url]).await?;
        (answer.status == 200 && answer.json()["state"] == "running").then_some(())
    })
    .await;
    // What is stored is shown at once; deletions are refused until it is registered.
    let url = format!("{}/vars.json", next.api);
    let vars = eventually("the next one is registered", TAKEOVER, async || {
        let vars = curl(&[&url]).await?.json();
        (vars["scheduler.framework_registered"] == 1).then_some(vars)
    })
    .await;
    assert_eq!(vars["scheduler.leading"], 1);
}

async fn gone(next: &Another, cluster: &str, server: Process) {
    let url = format!("{}/clusters/{cluster}", next.api);
    eventually(
        "the cluster and its server are gone",
        CREATE_DEADLINE,
        async || {
            let answer = curl(&[&url]).await?;
            (answer.status == 404 && !server.runs()).then_some(())
        },
    )
    .await;
}

/// The other way round: all keep their state in ZooKeeper, and one that comes does not.
#[tokio::test]
async fn a_scheduler_with_files_is_refused_where_state_is_in_zookeeper() {
    let system = System::shared(Flavour::Mariadb);
    let another = Another::start(&system, "with-files", &[("--state-storage", "local")]).await;
    assert_sentence(&another.refused().await, &system, "this one keeps");
}
