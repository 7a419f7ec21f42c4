//! The scheduler is killed a hundred times by chance while twenty clusters are created, fail over and are deleted: every
//! accepted request is carried out, and nothing is left that no record explains.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::{ClusterState, ClusterView, MemberRole};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;
use zookeeper_client::Client;

use crate::support::process::Process;
use crate::support::rest::curl;
use crate::support::system::{Options, System, USER};
use crate::support::{eventually, system};

/// How often the scheduler is killed.
const RESTARTS: usize = 100;

/// Between two kills, in milliseconds. `cotton local` gives up on a part that ends ten times within 30 s.
const BETWEEN: std::ops::Range<u64> = 3_200..5_000;

/// Clusters of one node, which come first, and of three. So many servers fit into 8 GB.
const SINGLE: usize = 14;
const TRIPLE: usize = 6;

/// Soon enough that the volumes of deleted clusters are destroyed while schedulers are killed.
const KEEP_DELETED: &str = "5s";

/// How long everything may take to come to rest, and a request to be answered by one scheduler or the next.
const AT_REST: Duration = Duration::from_secs(600);

/// A cluster as it was asked for.
#[derive(Debug)]
struct Wanted {
    name: String,
    nodes: u32,
    /// Counts its incarnations.
    number: usize,
    /// Whether it was asked for last, not deleted.
    exists: bool,
}

impl Wanted {
    fn password(&self) -> String {
        format!("secret-{}-{}", self.name, self.number)
    }
}

/// What was done.
#[derive(Debug, Default)]
struct Done {
    created: usize,
    deleted: usize,
    failovers: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "ten minutes; make restarts"]
async fn a_hundred_restarts_leave_nothing_undone() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    eprintln!("{RESTARTS} restarts, SEED={seed}");
    // Agents fetch executors from a file here: from a scheduler that is killed every few seconds they hardly could.
    let files = tempfile::tempdir().unwrap();
    fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let executor = files.path().join("cotton");
    fs::copy(env!("CARGO_BIN_EXE_cotton"), &executor).unwrap();
    let uri = format!("file://{}", executor.display());
    let system = System::with_options(Options {
        arguments: ["--", "--executor-uri", &uri, "--keep-deleted", KEEP_DELETED]
            .map(str::to_owned)
            .to_vec(),
        ..Options::new(Flavour::Mariadb)
    });
    let begun = Instant::now();
    let killed = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    let framework = system.framework_id().await;
    let (done, wanted) = tokio::join!(
        async {
            kill_schedulers(&system, StdRng::seed_from_u64(seed), &killed).await;
            over.store(true, Ordering::Relaxed);
        },
        ask(&system, StdRng::seed_from_u64(!seed), &over),
    )
    .1;
    eprintln!("after {:.0?}: {done:?}", begun.elapsed());
    let resting = Instant::now();
    check(&system, &wanted).await;
    assert_eq!(system.framework_id().await, framework);
    eprintln!(
        "{} schedulers killed in {:.0?}; {done:?}; everything carried out and explained {:.0?} after the last",
        killed.load(Ordering::Relaxed),
        begun.elapsed(),
        resting.elapsed()
    );
}

async fn kill_schedulers(system: &System, mut random: StdRng, killed: &AtomicUsize) {
    while killed.load(Ordering::Relaxed) < RESTARTS {
        let pause = random.random_range(BETWEEN);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let scheduler = system.scheduler().await;
        if scheduler.runs() {
            scheduler.kill();
            killed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Asks for all of them, then for one thing after the other by chance until it is over.
async fn ask(system: &System, mut random: StdRng, over: &AtomicBool) -> (Done, Vec<Wanted>) {
    let mut done = Done::default();
    let wanted = |place: usize| Wanted {
        name: format!("c{place}"),
        nodes: if place < SINGLE { 1 } else { 3 },
        number: 0,
        exists: false,
    };
    let mut wanted: Vec<Wanted> = (0..SINGLE + TRIPLE).map(wanted).collect();
    for cluster in &mut wanted {
        create(system, cluster, &mut done).await;
    }
    while !over.load(Ordering::Relaxed) {
        // As often one of those that can fail over as one of the others.
        let place = match random.random_bool(0.5) {
            true => random.random_range(SINGLE..wanted.len()),
            false => random.random_range(0..SINGLE),
        };
        let cluster = &mut wanted[place];
        let delete = random.random_bool(if cluster.nodes == 1 { 0.5 } else { 0.1 });
        if !cluster.exists {
            create(system, cluster, &mut done).await;
        } else if delete {
            delete_it(system, cluster, &mut done).await;
        } else if cluster.nodes > 1 {
            kill_master(system, cluster, &mut done).await;
        }
        let pause = random.random_range(0..1_500);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    (done, wanted)
}

/// Asks until it is accepted. An answer that got lost is asked for again with the same request.
async fn create(system: &System, cluster: &mut Wanted, done: &mut Done) {
    cluster.number += 1;
    cluster.exists = true;
    let (nodes, password) = (cluster.nodes.to_string(), cluster.password());
    let fields = [
        ("cluster_user", USER),
        ("num_nodes", nodes.as_str()),
        ("cluster_password", password.as_str()),
    ];
    eventually("a creation is accepted", AT_REST, async || {
        let answer = system.post(&cluster.name, &fields).await?;
        match answer.status {
            200 => Some(()),
            // Its predecessor is still going, or the scheduler is.
            409 | 503 | 504 => None,
            _ => panic!("{answer:?}"),
        }
    })
    .await;
    done.created += 1;
}

async fn delete_it(system: &System, cluster: &mut Wanted, done: &mut Done) {
    cluster.exists = false;
    let account = crate::support::database::Account {
        user: USER.to_owned(),
        password: cluster.password(),
    };
    let known = system::Cluster {
        name: cluster.name.clone(),
        url: String::new(),
        account,
    };
    eventually("a deletion is accepted", AT_REST, async || {
        let answer = system.delete(&known).await?;
        match answer.status {
            // It was accepted, the answer lost, and carried out.
            200 | 404 => Some(()),
            503 | 504 => None,
            _ => panic!("{answer:?}"),
        }
    })
    .await;
    done.deleted += 1;
}

/// Kills the master's server, if there is one.
async fn kill_master(system: &System, cluster: &Wanted, done: &mut Done) {
    let Some(view) = system.show(&cluster.name).await else {
        return;
    };
    let is_master = |member: &&cotton::cluster::view::MemberView| member.role == MemberRole::Master;
    // One that is coming up anyway has no server to kill.
    let Some(master) = view.members.iter().find(is_master) else {
        return;
    };
    if view.state != ClusterState::Running {
        return;
    }
    // The view may be of a moment ago.
    if let Some(server) = system.find_mysqld(master) {
        server.kill_if_it_runs();
        done.failovers += 1;
    }
}

/// Waits until everything is as it was asked for, and looks for what no record explains.
async fn check(system: &System, wanted: &[Wanted]) {
    let expected: BTreeSet<String> = wanted
        .iter()
        .filter(|cluster| cluster.exists)
        .map(|cluster| cluster.name.clone())
        .collect();
    let clusters = eventually("every cluster runs or is gone", AT_REST, async || {
        let answer = curl(&[&format!("{}/clusters", system.api)]).await?;
        let listed = answer.json()["clusters"].clone();
        let listed: Vec<ClusterView> = serde_json::from_value(listed).ok()?;
        let names: BTreeSet<String> = listed.iter().map(|it| it.name.to_string()).collect();
        let runs = |it: &ClusterView| it.state == ClusterState::Running;
        (names == expected && listed.iter().all(runs)).then_some(listed)
    })
    .await;
    for view in &clusters {
        let asked = wanted.iter().find(|it| it.name == view.name.as_str());
        assert_eq!(Some(view.num_nodes), asked.map(|it| it.nodes), "{view:?}");
    }
    let explained: BTreeSet<String> = clusters.iter().flat_map(system::tasks).collect();
    eventually(
        "no task, no process, no slot and no node is left over",
        AT_REST,
        async || {
            let left = leftovers(system, &explained, &expected).await?;
            if !left.is_empty() {
                eprintln!("left over: {left:?}");
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            left.is_empty().then_some(())
        },
    )
    .await;
    // The scheduler hears of slots that are gone with the next offer of their agents.
    let url = format!("{}/vars.json", system.api);
    eventually("nothing is told of as unknown", AT_REST, async || {
        let vars = curl(&[&url]).await?.json();
        let unknown = &vars["scheduler.unknown_tasks"];
        (*unknown == 0 && vars["scheduler.orphaned_slots"] == 0).then_some(())
    })
    .await;
}

/// What differs from the records, by where it was found.
async fn leftovers(
    system: &System,
    tasks: &BTreeSet<String>,
    clusters: &BTreeSet<String>,
) -> Option<BTreeMap<String, Vec<String>>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let state = curl(&[&format!("{}/state", system.mesos)]).await?.json();
    let known = state["frameworks"][0]["tasks"].as_array()?.clone();
    let running = known.iter().filter(|task| task["state"] == "TASK_RUNNING");
    let running = running.map(|task| task["id"].as_str().unwrap_or_default().to_owned());
    found.insert("Mesos tasks".to_owned(), running.collect());
    let processes = system.process().descendants();
    let executors = processes.iter().filter_map(|process| {
        let arguments = process.arguments();
        let is_executor = arguments.get(1).is_some_and(|it| it == "executor");
        is_executor.then(|| task_of(process.pid)).flatten()
    });
    found.insert("executors".to_owned(), executors.collect());
    // Asked from above: a server that ends meanwhile has no parent any more.
    let is_server = |process: &Process| {
        let arguments = process.arguments();
        let program = arguments.first().map_or("", String::as_str);
        program.ends_with("mariadbd") || program.ends_with("mysqld")
    };
    let servers = processes.iter().filter_map(|parent| {
        let runs_one = parent.children().iter().any(is_server);
        runs_one.then(|| task_of(parent.pid)).flatten()
    });
    found.insert("servers".to_owned(), servers.collect());
    let mut left = BTreeMap::new();
    for (place, found) in found {
        differ(&mut left, place, &found, tasks);
    }
    let (servers, root) = system.zk.strip_prefix("zk://")?.split_once('/')?;
    let client = Client::connect(servers).await.ok()?;
    for parent in ["state/clusters", "control", "discover"] {
        let path = format!("/{root}/{parent}");
        let names = client.list_children(&path).await.ok()?;
        let names: BTreeSet<String> = names.into_iter().collect();
        differ(&mut left, path, &names, clusters);
    }
    let path = format!("/{root}/state/retained");
    let kept = client.list_children(&path).await.ok()?;
    differ(
        &mut left,
        path,
        &kept.into_iter().collect(),
        &BTreeSet::new(),
    );
    let slots = slots(&client, root, clusters).await?;
    for (place, found) in reserved(&state)? {
        let found = found.difference(&slots.given_up).cloned().collect();
        differ(&mut left, place, &found, &slots.in_use);
    }
    Some(left)
}

/// The slots of all records.
#[derive(Default)]
struct Slots {
    in_use: BTreeSet<String>,
    /// They may have come to be or not.
    given_up: BTreeSet<String>,
}

async fn slots(client: &Client, root: &str, clusters: &BTreeSet<String>) -> Option<Slots> {
    let mut slots = Slots::default();
    for name in clusters {
        let path = format!("/{root}/state/clusters/{name}");
        let (record, _) = client.get_data(&path).await.ok()?;
        let record: Value = serde_json::from_slice(&record).ok()?;
        for member in record["members"].as_object()?.values() {
            let id = |slot: &Value| slot["id"].as_str().map(str::to_owned);
            slots.in_use.extend(id(&member["slot"]));
            let given_up = member["given_up"].as_array().cloned().unwrap_or_default();
            slots.given_up.extend(given_up.iter().filter_map(id));
        }
    }
    Some(slots)
}

/// What is reserved on all agents, and what has a volume, by the slots' ids.
fn reserved(state: &Value) -> Option<BTreeMap<String, BTreeSet<String>>> {
    let (mut reservations, mut volumes) = (BTreeSet::new(), BTreeSet::new());
    for agent in state["slaves"].as_array()? {
        let of_roles = agent["reserved_resources_full"].as_object()?.values();
        for resource in of_roles.filter_map(Value::as_array).flatten() {
            let labels = resource
                .pointer("/reservations/0/labels/labels")?
                .as_array()?;
            let slot = labels.iter().find(|label| label["key"] == "cotton.slot")?;
            reservations.insert(slot["value"].as_str()?.to_owned());
            if let Some(volume) = resource.pointer("/disk/persistence/id") {
                volumes.insert(volume.as_str()?.to_owned());
            }
        }
    }
    Some(BTreeMap::from([
        ("reservations".to_owned(), reservations),
        ("volumes".to_owned(), volumes),
    ]))
}

fn differ(
    left: &mut BTreeMap<String, Vec<String>>,
    place: String,
    found: &BTreeSet<String>,
    expected: &BTreeSet<String>,
) {
    let difference: Vec<String> = found.symmetric_difference(expected).cloned().collect();
    if !difference.is_empty() {
        left.insert(place, difference);
    }
}

/// The task of an executor, which is its id.
fn task_of(executor: i32) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{executor}/environ")).ok()?;
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let mut variables = environment.split('\0');
    let id = variables.find_map(|it| it.strip_prefix("MESOS_EXECUTOR_ID="))?;
    Some(id.to_owned())
}
