//! Members are restarted and get other settings and another size under load: one after the other, nothing that was acknowledged is lost,
//! and a change that a server does not survive stops at the first member.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::{ChangeView, ClusterState, ClusterView};
use cotton::http::changes::ChangeAnswer;
use cotton::http::restarts::RestartAnswer;

use crate::backups::{back_up, store_in_a_folder};
use crate::support::database::{run, texts, wait_for_texts};
use crate::support::discovery::Masters;
use crate::support::load::{self, Load};
use crate::support::process::Process;
use crate::support::system::{
    Cluster, Options, System, endpoint, mariadb_package, master, mysql_package, slaves, tasks,
};
use crate::support::{CREATE_DEADLINE, FAILOVER_DEADLINE, REPLICATION_DEADLINE, eventually};

crate::for_both_flavours!(
    settings_reach_every_member,
    a_bad_setting_stops_at_the_first_member,
    another_size_comes_with_other_members,
);

/// How many writes have to be acknowledged between two steps.
const SOME_WRITES: usize = 50;

/// How long three members may take to be restarted or replaced.
const CHANGED_WITHIN: Duration = Duration::from_secs(300);

async fn change(system: &System, cluster: &Cluster, fields: &[(&str, &str)]) -> ChangeAnswer {
    let mut all = vec![("password", cluster.account.password.as_str())];
    all.extend(fields);
    let answer = system.request("PATCH", &cluster.name, &all).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    serde_json::from_value(answer.json()).unwrap()
}

async fn loaded(system: &System, cluster: &Cluster) -> Load {
    let view = system.show(&cluster.name).await.unwrap();
    let statements = ["CREATE DATABASE load_db", load::TABLE];
    run(&endpoint(master(&view)), &cluster.account, &statements).await;
    let load = Load::start(&cluster.url, &cluster.account, 2);
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    load
}

async fn assert_complete(system: &System, cluster: &Cluster, load: &mut Load) {
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    let acknowledged = load.stop().await;
    let view = system.wait_running(cluster, FAILOVER_DEADLINE).await;
    for member in &view.members {
        let (at, deadline) = (endpoint(member), REPLICATION_DEADLINE);
        wait_for_texts(&at, &cluster.account, load::READ, &acknowledged, deadline).await;
    }
}

/// Waits until no change is under way and everybody is in their place.
async fn changed(system: &System, cluster: &Cluster) -> ClusterView {
    let is_over = |view: &ClusterView| {
        view.standing.change.is_none()
            && view.state == ClusterState::Running
            && view.members.iter().all(|member| !member.leaving)
    };
    system
        .wait_until(cluster, "has been changed", CHANGED_WITHIN, is_over)
        .await
}

/// Kills the tasks that a change launches, each before its server is there, until the change stops.
async fn stopped_by_ends(system: &System, cluster: &Cluster, before: &ClusterView) -> ChangeView {
    let what = "the change stops when tasks end";
    eventually(what, CHANGED_WITHIN, async || {
        let view = system.show(&cluster.name).await?;
        let of_change = |task: &&String| {
            let mut former = before.members.iter();
            former.all(|it| it.task_id.as_ref() != Some(*task))
        };
        let tasks = view.members.iter().filter_map(|it| it.task_id.as_ref());
        for task in tasks.filter(of_change) {
            let executors = system.executors(task);
            executors.iter().for_each(Process::kill_if_it_runs);
        }
        view.standing.change.filter(|it| it.stopped.is_some())
    })
    .await
}

async fn most_connections(cluster: &Cluster, view: &ClusterView) -> Vec<String> {
    let mut found = Vec::new();
    for member in &view.members {
        let sql = "SELECT CAST(@@max_connections AS CHAR)";
        let told = texts(&endpoint(member), &cluster.account, sql).await;
        found.extend(told.unwrap());
    }
    found
}

async fn settings_reach_every_member(flavour: Flavour) {
    let system = System::start(flavour);
    let cluster = system.create_running("tuned", 3).await;
    let masters = Masters::watch(&cluster.url).await;
    let mut load = loaded(&system, &cluster).await;
    let before = system.show("tuned").await.unwrap();
    let (first, settings) = (master(&before).id, "[mysqld]\nmax_connections=77\n");

    let plan = change(&system, &cluster, &[("my_cnf", settings), ("plan", "true")]).await;
    assert!(
        plan.course.planned && plan.course.steps.len() == 3,
        "{plan:?}"
    );
    assert_eq!(system.show("tuned").await.unwrap().members, before.members);

    change(&system, &cluster, &[("my_cnf", settings)]).await;
    let stopped = stopped_by_ends(&system, &cluster, &before).await;
    assert_eq!(stopped.members_with_it.len(), 1, "{stopped:?}");
    assert_ne!(stopped.members_with_it, [first], "{stopped:?}");
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;

    // The same request resumes it.
    load.measure_gap();
    change(&system, &cluster, &[("my_cnf", settings)]).await;
    let view = changed(&system, &cluster).await;
    eprintln!("{flavour}: changed, no write for {:?}", load.longest_gap());
    assert_eq!(most_connections(&cluster, &view).await, ["77"; 3]);
    assert_ne!(master(&view).id, first, "it has handed over");
    assert_eq!(view.epoch, before.epoch + 1, "nobody failed");
    let addresses = |view: &ClusterView| -> Vec<_> {
        let members = view.members.iter();
        members
            .map(|it| (it.id, it.host.clone(), it.port))
            .collect()
    };
    assert_eq!(
        addresses(&view),
        addresses(&before),
        "they have their slots"
    );

    for member in [slaves(&view)[0].id, master(&view).id] {
        let number = member.to_string();
        let fields = [
            ("password", cluster.account.password.as_str()),
            ("member", &number),
        ];
        // It is refused for as long as writes would have to wait for one that has just come back.
        let answer = eventually("restarts it", CREATE_DEADLINE, async || {
            let answer = system.post("tuned/restart", &fields).await.unwrap();
            assert!([200, 409].contains(&answer.status), "{}", answer.text);
            (answer.status == 200).then_some(answer)
        });
        let answer = answer.await;
        let answer: RestartAnswer = serde_json::from_value(answer.json()).unwrap();
        let former = answer.task_id.to_string();
        let is_back = |view: &ClusterView| {
            let mut members = view.members.iter();
            let has_another = members
                .any(|it| it.id == member && it.task_id.as_deref().is_some_and(|it| it != former));
            has_another && view.state == ClusterState::Running
        };
        system
            .wait_until(&cluster, "has restarted it", CREATE_DEADLINE, is_back)
            .await;
    }
    assert_complete(&system, &cluster, &mut load).await;
    masters.check();
    system.delete_and_wait(&cluster).await;
}

async fn a_bad_setting_stops_at_the_first_member(flavour: Flavour) {
    let system = System::start(flavour);
    let cluster = system.create_running("spoilt", 3).await;
    let masters = Masters::watch(&cluster.url).await;
    let mut load = loaded(&system, &cluster).await;
    let before = system.show("spoilt").await.unwrap();
    let settings = "[mysqld]\nno_such_setting=1\n";
    change(&system, &cluster, &[("my_cnf", settings)]).await;
    let has_stopped = |view: &ClusterView| {
        let change = view.standing.change.as_ref();
        change.is_some_and(|change| change.stopped.is_some())
    };
    let view = system
        .wait_until(&cluster, "has stopped", CHANGED_WITHIN, has_stopped)
        .await;
    let told = view.standing.change.unwrap();
    eprintln!("{told:?}");
    assert_eq!(told.members_with_it.len(), 1, "{told:?}");
    let sentence = told.stopped.unwrap();
    assert!(sentence.contains("no_such_setting"), "{sentence}");
    assert_eq!(view.epoch, before.epoch, "the master was not touched");
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;

    change(&system, &cluster, &[("my_cnf", "# none")]).await;
    let view = changed(&system, &cluster).await;
    assert_eq!(view.epoch, before.epoch);
    let tasks: Vec<_> = view.members.iter().map(|it| &it.task_id).collect();
    let untouched = before
        .members
        .iter()
        .filter(|it| tasks.contains(&&it.task_id));
    assert_eq!(untouched.count(), 2, "{view:?}");
    assert_complete(&system, &cluster, &mut load).await;
    masters.check();
    system.delete_and_wait(&cluster).await;
}

async fn another_size_comes_with_other_members(flavour: Flavour) {
    let system = System::with_options(Options {
        agents: 4,
        ..Options::new(flavour)
    });
    let cluster = system.create_running("resized", 3).await;
    let masters = Masters::watch(&cluster.url).await;
    let mut load = loaded(&system, &cluster).await;
    let answer = change(&system, &cluster, &[("mem", "700mb"), ("cpus", "0.5")]).await;
    assert_eq!(answer.changed[0].field, "size");
    let view = changed(&system, &cluster).await;
    let ids: Vec<u32> = view.members.iter().map(|member| member.id).collect();
    assert_eq!(ids, [3, 4, 5]);
    assert_eq!(view.size.mem_mib(), 700);
    half_way_back(&system, &cluster, &load).await;
    assert_complete(&system, &cluster, &mut load).await;
    masters.check();
    system.delete_and_wait(&cluster).await;
}

/// Goal: of a change of size that does not get anywhere nothing is left when the former size is asked for again: the members stay who they
/// are, and their tasks go on. Method: a size that no agent has room for, and one whose first newcomer's tasks are killed.
async fn half_way_back(system: &System, cluster: &Cluster, load: &Load) {
    let before = system.show(&cluster.name).await.unwrap();
    let former = before.size.mem_mib().to_string();
    for mem in ["100gb", "600mb"] {
        change(system, cluster, &[("mem", mem)]).await;
        let waits = |view: &ClusterView| view.members.len() > before.members.len();
        system
            .wait_until(cluster, "has a newcomer", FAILOVER_DEADLINE, waits)
            .await;
        if mem == "600mb" {
            let stopped = stopped_by_ends(system, cluster, &before).await;
            assert_eq!(stopped.members_with_it.len(), 1, "{stopped:?}");
        }
        load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
        change(system, cluster, &[("mem", &format!("{former}mb"))]).await;
        let view = changed(system, cluster).await;
        assert_eq!(tasks(&view), tasks(&before), "{mem}");
        assert_eq!(view.epoch, before.epoch, "{mem}");
        load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    }
}

/// Goal: the members of a cluster get another package of the same server under load: slaves first, then the master after it has handed
/// over; nobody loses its data.
#[tokio::test]
async fn another_package_reaches_every_member() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (
        shared_package(&folder, mysql_package(), "first.tar.zst"),
        shared_package(&folder, mysql_package(), "second.tar.zst"),
    );
    let name = mysql_package().file_name().unwrap().to_str().unwrap();
    let version = name
        .trim_start_matches("mysql-")
        .trim_end_matches(".tar.zst");
    let packages = serde_json::json!({"package": first, "packages": {"second": {
        "package": second,
        "server": format!("mysql {version}"),
    }}});
    let arguments = ["--", "--installer-args", &packages.to_string()];
    let system = System::with_options(Options {
        arguments: arguments.map(str::to_owned).to_vec(),
        ..Options::new(Flavour::Mysql)
    });
    let cluster = system.create_running("packed", 3).await;
    let masters = Masters::watch(&cluster.url).await;
    let mut load = loaded(&system, &cluster).await;
    let before = system.show("packed").await.unwrap();
    let first = master(&before).clone();
    load.measure_gap();
    let answer = change(&system, &cluster, &[("package", "second")]).await;
    let steps = &answer.course.steps;
    let restarted = |step: &String| step.contains("restarted on its slot");
    assert!(steps.len() == 3 && steps.iter().all(restarted), "{steps:?}");
    let last = format!("member {}: hands over", first.id);
    assert!(steps[2].starts_with(&last), "{steps:?}");
    // The master is as it was until all others are changed.
    let only_it = |view: &ClusterView| {
        let change = view.standing.change.as_ref();
        change.is_some_and(|it| it.members_without_it == [first.id])
    };
    let view = system
        .wait_until(&cluster, "has changed its slaves", CHANGED_WITHIN, only_it)
        .await;
    assert_eq!(view.epoch, before.epoch);
    let view = changed(&system, &cluster).await;
    eprintln!("no write for {:?}", load.longest_gap());
    assert_eq!(view.epoch, before.epoch + 1, "nobody failed");
    assert_eq!(view.standing.package.as_deref(), Some("second"));
    for (is, was) in view.members.iter().zip(&before.members) {
        assert_eq!(
            (is.id, is.server_id),
            (was.id, was.server_id),
            "it has its data"
        );
        assert_ne!(is.task_id, was.task_id);
    }
    assert_complete(&system, &cluster, &mut load).await;
    masters.check();
    system.delete_and_wait(&cluster).await;
}

/// A copy of a package that the framework's user can read.
fn shared_package(folder: &tempfile::TempDir, package: &Path, name: &str) -> PathBuf {
    let readable = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(folder.path(), readable(0o755)).unwrap();
    let copy = folder.path().join(name);
    std::fs::copy(package, &copy).unwrap();
    std::fs::set_permissions(&copy, readable(0o644)).unwrap();
    copy
}

/// Goal: the members of a cluster go from MariaDB 10.11 to 11.8 under load, with the data that they have; there is no way back, and
/// a member that comes then has the later series too.
#[tokio::test]
async fn a_later_series_reaches_every_member() {
    let folder = tempfile::tempdir().unwrap();
    let package = shared_package(&folder, mariadb_package(), "later.tar.zst");
    let name = mariadb_package().file_name().unwrap().to_str().unwrap();
    let version = name
        .trim_start_matches("mariadb-")
        .trim_end_matches(".tar.zst");
    let packages = serde_json::json!({"packages": {"later": {
        "package": package,
        "server": format!("mariadb {version}"),
    }}});
    let (_around, _, store) = store_in_a_folder();
    let store = format!("file://{}", store.display());
    let packages = packages.to_string();
    let arguments = [
        "--",
        "--installer-args",
        &packages,
        "--backup-store",
        &store,
    ];
    let system = System::with_options(Options {
        agents: 4,
        arguments: arguments.map(str::to_owned).to_vec(),
        ..Options::new(Flavour::Mariadb)
    });
    let cluster = system.create_running("later", 3).await;
    let masters = Masters::watch(&cluster.url).await;
    let mut load = loaded(&system, &cluster).await;
    let before = system.show("later").await.unwrap();
    let written = load.so_far();
    let (backup, _) = back_up(&system, &cluster).await;
    load.measure_gap();
    change(&system, &cluster, &[("package", "later")]).await;
    let view = changed(&system, &cluster).await;
    eprintln!("no write for {:?}", load.longest_gap());
    assert_eq!(view.epoch, before.epoch + 1, "nobody failed");
    assert_eq!(view.version.as_deref(), Some(version));
    for member in &view.members {
        let at = endpoint(member);
        let sql = "SELECT VERSION()";
        let told = texts(&at, &cluster.account, sql).await.unwrap();
        assert!(told.first().unwrap().starts_with(version), "{told:?}");
    }
    let fields = [
        ("password", cluster.account.password.as_str()),
        ("package", "default"),
    ];
    let refused = system.request("PATCH", "later", &fields).await.unwrap();
    assert_eq!(refused.status, 409, "{}", refused.text);

    let gone = slaves(&view)[0].id;
    let number = gone.to_string();
    let fields = [
        ("password", cluster.account.password.as_str()),
        ("member", &number),
    ];
    let answer = system.post("later/replace", &fields).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text);
    let has_left = |view: &ClusterView| {
        view.members.iter().all(|it| it.id != gone) && view.state == ClusterState::Running
    };
    system
        .wait_until(&cluster, "has replaced it", CHANGED_WITHIN, has_left)
        .await;
    assert_complete(&system, &cluster, &mut load).await;
    masters.check();
    system.delete_and_wait(&cluster).await;
    settings_and_package_come_with_the_creation(&system, version).await;
    a_backup_of_the_earlier_series_is_restored(&system, backup.id.as_str(), version, &written)
        .await;
}

/// The backup was made after `written` was.
async fn a_backup_of_the_earlier_series_is_restored(
    system: &System,
    backup: &str,
    version: &str,
    written: &BTreeSet<String>,
) {
    let fields = [("package", "later"), ("backup_id", backup)];
    let cluster = system.create_with("restored", 2, &fields).await;
    let view = system.wait_running(&cluster, CHANGED_WITHIN).await;
    assert_eq!(view.version.as_deref(), Some(version));
    for member in &view.members {
        let (at, deadline) = (endpoint(member), REPLICATION_DEADLINE);
        wait_for_texts(&at, &cluster.account, load::READ, written, deadline).await;
    }
    system.delete_and_wait(&cluster).await;
}

async fn settings_and_package_come_with_the_creation(system: &System, version: &str) {
    let fields = [
        ("package", "later"),
        ("my_cnf", "[mysqld]\nmax_connections=77\n"),
    ];
    let cluster = system.create_with("chosen", 1, &fields).await;
    let running = |view: &ClusterView| view.state == ClusterState::Running;
    let view = system
        .wait_until(&cluster, "is there", CHANGED_WITHIN, running)
        .await;
    let sql = "SELECT CONCAT(VERSION(), ' ', @@max_connections)";
    let told = texts(&endpoint(&view.members[0]), &cluster.account, sql)
        .await
        .unwrap();
    let told = told.first().unwrap();
    assert!(told.starts_with(version) && told.ends_with(" 77"), "{told}");
    assert_eq!(view.version.as_deref(), Some(version));
    system.delete_and_wait(&cluster).await;
}
