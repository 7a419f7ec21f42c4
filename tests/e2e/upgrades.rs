//! Another version of Cotton takes over: what runs goes on under the executors that it has, and what is launched
//! from then on gets those of the new version.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::{ClusterView, MemberView};

use crate::support::database::run;
use crate::support::process::{self, Process};
use crate::support::system::{Options, System, endpoint, master, slaves, tasks};
use crate::support::{CREATE_DEADLINE, FAILOVER_DEADLINE, eventually};

crate::for_both_flavours!(executors_are_replaced_one_by_one);

/// What the executor of a member was started as: its file's name carries the SHA-256 of what is in it.
fn executor(system: &System, member: &MemberView) -> String {
    let parent = system.mysqld(member).parent();
    parent.arguments().first().unwrap().clone()
}

fn executors(system: &System, view: &ClusterView) -> BTreeSet<String> {
    let executors = view.members.iter().map(|it| executor(system, it));
    executors.collect()
}

async fn executors_are_replaced_one_by_one(flavour: Flavour) {
    let mut options = Options::new(flavour);
    options.arguments.insert(0, "--no-restart".to_owned());
    let system = System::with_options(options);
    let old = system.create_running("old", 3).await;
    let view = system.show("old").await.unwrap();
    let servers: Vec<Process> = view.members.iter().map(|it| system.mysqld(it)).collect();
    let before = executors(&system, &view);
    assert_eq!(before.len(), 1);

    // The next version: the same program in another file, which the scheduler serves to agents as it is.
    let next = system.run_directory().join("cotton-next");
    fs::copy(env!("CARGO_BIN_EXE_cotton"), &next).unwrap();
    let mut bytes = fs::read(&next).unwrap();
    // Behind everything that the program's headers name.
    bytes.extend(b"the next version");
    fs::write(&next, bytes).unwrap();
    fs::set_permissions(&next, fs::Permissions::from_mode(0o755)).unwrap();
    let scheduler = system.scheduler().await;
    let arguments: Vec<String> = scheduler.arguments()[1..].to_vec();
    scheduler.kill();
    eventually("the scheduler has ended", FAILOVER_DEADLINE, async || {
        (!scheduler.runs()).then_some(())
    })
    .await;
    let log = File::create(system.run_directory().join("logs/scheduler-next.log")).unwrap();
    let mut command = Command::new(&next);
    command
        .args(arguments.iter().filter(|argument| !argument.is_empty()))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    let mut scheduler = process::spawn(command).unwrap();
    system.wait_registered().await;
    let taken_over = system.wait_running(&old, FAILOVER_DEADLINE).await;
    assert_eq!(tasks(&taken_over), tasks(&view));
    assert!(servers.iter().all(Process::runs), "a server was restarted");
    assert_eq!(taken_over.epoch, view.epoch);

    // What is launched now is of the next version.
    let new = system.create_running("new", 1).await;
    let shown = system.show("new").await.unwrap();
    let after = executors(&system, &shown);
    assert!(after.is_disjoint(&before), "{after:?} {before:?}");

    // So is a member that is launched again, and it works together with the others.
    let replaced = slaves(&view)[0].clone();
    system.mysqld(&replaced).parent().kill();
    let mixed = system
        .wait_until(&old, "has launched it again", CREATE_DEADLINE, |it| {
            let now = &it.members[replaced.id as usize];
            now.task_id.is_some() && now.task_id != replaced.task_id
        })
        .await;
    assert_eq!(mixed.epoch, view.epoch);
    let mixed = system.wait_running(&old, CREATE_DEADLINE).await;
    let again = &mixed.members[replaced.id as usize];
    assert!(after.contains(&executor(&system, again)));
    assert!(before.contains(&executor(&system, master(&mixed))));
    run(
        &endpoint(master(&mixed)),
        &old.account,
        &["CREATE DATABASE upgraded"],
    )
    .await;

    system.delete_and_wait(&new).await;
    system.delete_and_wait(&old).await;
    let _ = scheduler.kill();
    let _ = scheduler.wait();
}
