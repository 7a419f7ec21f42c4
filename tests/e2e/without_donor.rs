//! A cluster grows though nobody's data can be copied: the new member begins with a backup, and nothing that was acknowledged is missing at it.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::{ClusterState, ClusterView, MemberView};
use sqlx::ConnectOptions as _;
use sqlx::mysql::MySqlConnectOptions;
use tokio::task::JoinHandle;

use crate::backups::{back_up, store_in_a_folder, system};
use crate::membership::{ask, assert_complete, loaded};
use crate::support::database::run;
use crate::support::process::Process;
use crate::support::system::{System, endpoint, master};
use crate::support::{CREATE_DEADLINE, FAILOVER_DEADLINE};

crate::for_both_flavours!(a_new_member_begins_with_a_backup);

/// How many writes have to be acknowledged between two steps.
const SOME_WRITES: usize = 50;

/// Makes copies of the master impossible: MySQL's loses its clone plugin; with MariaDB the tool is killed each time it runs for a copy.
async fn forbid_copies(system: &System, flavour: Flavour, donor: &MemberView) -> JoinHandle<()> {
    match flavour {
        Flavour::Mysql => {
            let key = fs::read_to_string(system.run_directory().join("keys/admin.yml")).unwrap();
            let value = |name: &str| {
                let line = key.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap().trim().to_owned()
            };
            let sandbox = system.sandbox(donor.task_id.as_ref().unwrap());
            // The path itself is too long for a socket's address.
            let folder = fs::File::open(sandbox.join("run")).unwrap();
            let socket = format!("/proc/self/fd/{}/mysqld.sock", folder.as_raw_fd());
            let options = MySqlConnectOptions::new()
                .socket(socket)
                .username(&value("username:"))
                .password(&value("password:"));
            let mut connection = options.connect().await.unwrap();
            let uninstall = sqlx::raw_sql("UNINSTALL PLUGIN clone");
            uninstall.execute(&mut connection).await.unwrap();
            tokio::spawn(async {})
        }
        Flavour::Mariadb => {
            let executor = system.mysqld(donor).parent();
            tokio::spawn(async move {
                loop {
                    let is_copy = |process: &Process| {
                        process.arguments().iter().any(|given| given == "--backup")
                    };
                    for tool in executor.descendants().into_iter().filter(is_copy) {
                        tool.kill_if_it_runs();
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
        }
    }
}

async fn a_new_member_begins_with_a_backup(flavour: Flavour) {
    let (_store, key, folder) = store_in_a_folder();
    let system = System::with_options(system(flavour, &folder, &key));
    let cluster = system.create_running("orders", 1).await;
    let mut load = loaded(&system, &cluster).await;
    let before = system.show("orders").await.unwrap();
    // More than anybody replays who can copy.
    let large = [
        "CREATE TABLE load_db.large (n INT PRIMARY KEY, b LONGBLOB)",
        "INSERT INTO load_db.large VALUES (1, REPEAT('x', 1000000))",
        "INSERT INTO load_db.large VALUES (2, REPEAT('y', 1000000))",
    ];
    run(&endpoint(master(&before)), &cluster.account, &large).await;
    let (_, view) = back_up(&system, &cluster).await;
    let outcome = view.standing.last_backup.unwrap();
    assert!(outcome.done, "{}", outcome.sentence);
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;

    let forbidden = forbid_copies(&system, flavour, master(&before)).await;
    ask(&system, &cluster, ("PUT", ""), ("num_nodes", "2")).await;
    let says_so = |view: &ClusterView| {
        let mut told = view.standing.membership.iter();
        // What is stored, so that it is not removed meanwhile, comes a moment after what is told.
        view.standing.members_from == [outcome.id.clone()]
            && told.any(|sentence| sentence.contains("gets the data of the backup orders/"))
    };
    let what = "names a backup to its new member";
    system
        .wait_until(&cluster, what, CREATE_DEADLINE, says_so)
        .await;
    let has_two = |view: &ClusterView| {
        view.state == ClusterState::Running
            && view.members.len() == 2
            && view.members.iter().all(|member| member.voter)
    };
    let view = system
        .wait_until(&cluster, "has two members", CREATE_DEADLINE, has_two)
        .await;
    forbidden.abort();
    let new = view.members.iter().find(|member| member.id == 1).unwrap();
    let sandbox = system.sandbox(new.task_id.as_ref().unwrap());
    let log = fs::read_to_string(sandbox.join("stderr")).unwrap();
    assert!(log.contains("backup's data taken"), "{log}");
    assert!(!log.contains("donor's data copied"), "{log}");
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    assert_complete(&system, &cluster, &mut load).await;
    system.delete_and_wait(&cluster).await;
}
