//! A backup and its restoration, beside the same programs in a pipeline.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::ClusterView;
use cotton::http::backups::BackupAnswer;

use crate::bare::Server;
use crate::bulk;
use crate::figures::{Figures, line};
use crate::pipeline;
use crate::support::database::{Account, texts, wait_for_texts};
use crate::support::process::Process;
use crate::support::system::{Cluster, Options, System, USER, endpoint, master, slaves};
use crate::support::{CREATE_DEADLINE, REPLICATION_DEADLINE};

/// The word that asks for it.
pub const WORD: &str = "backup";

/// How often each is done, in turn.
const ROUNDS: usize = 3;

/// How long one backup or restoration may take.
const DEADLINE: Duration = Duration::from_secs(900);

/// How often the executor's memory is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The times of one round.
struct Round {
    bare_backup: Duration,
    backup: Duration,
    bare_restore: Duration,
    restore: Duration,
}

/// The same data in a server and in a cluster is backed up and restored in turn.
pub async fn measure(flavour: Flavour) {
    let store = pipeline::world_writable();
    let server = Server::new(flavour).start().await;
    bulk::fill_through(&mut server.connect().await).await;
    if flavour == Flavour::Mysql {
        pipeline::prepare_clone(&server).await;
    }
    let (system, cluster) = cluster(flavour, store.path()).await;
    let mut rounds = Vec::new();
    let mut most_memory = 0;
    for number in 0..ROUNDS {
        let (bare_backup, stream) = pipeline::back_up(&server, store.path()).await;
        let (backup, id, memory) = back_up(&system, &cluster).await;
        most_memory = most_memory.max(memory);
        let bare_restore = pipeline::restore(flavour, &stream);
        let restore = restore(&system, &format!("again{number}"), &id).await;
        eprintln!("backup, round {} of {ROUNDS}", number + 1);
        rounds.push(Round {
            bare_backup,
            backup,
            bare_restore,
            restore,
        });
    }
    let figures = |pick: fn(&Round) -> Duration| rounds.iter().map(pick).collect::<Figures>();
    let against = |bare: &Figures, ours: &Figures, aim: &str| {
        let ratio = bare.median().as_secs_f64() / ours.median().as_secs_f64();
        format!("{ratio:.2} x the bare throughput{aim}")
    };
    let (bare, ours) = (figures(|it| it.bare_backup), figures(|it| it.backup));
    let (there, back) = match flavour {
        Flavour::Mariadb => (
            "mariadb-backup | zstd > file",
            "zstd -d | mbstream, --prepare",
        ),
        Flavour::Mysql => ("CLONE LOCAL, tar | zstd > file", "zstd -d | tar"),
    };
    line(there, &bare.seconds(), "");
    let remark = against(&bare, &ours, "; aim: 0.9");
    line("backup, from the request", &ours.seconds(), &remark);
    let (bare, ours) = (figures(|it| it.bare_restore), figures(|it| it.restore));
    line(back, &bare.seconds(), "");
    let remark = against(&bare, &ours, ", with the start of the server; aim: 0.9");
    line("restored to a published master", &ours.seconds(), &remark);
    let figure = format!("{:.1} MB", most_memory as f64 * 1024.0 / 1e6);
    line(
        "executor's memory meanwhile, at most",
        &figure,
        "aim: under 64 MB",
    );
}

/// A cluster of two with the data, and a store in a folder.
async fn cluster(
    flavour: Flavour,
    store: &Path,
) -> (impl std::ops::Deref<Target = System>, Cluster) {
    let url = format!("file://{}", store.display());
    let system = System::with_options(Options {
        arguments: ["--", "--backup-store", &url].map(str::to_owned).to_vec(),
        ..Options::new(flavour)
    });
    let cluster = system.create_running("filled", 2).await;
    let view = system.show("filled").await.unwrap();
    let at = endpoint(master(&view));
    bulk::fill(&at, &cluster.account).await;
    let rows = texts(&at, &cluster.account, bulk::COUNT).await.unwrap();
    let slave = endpoint(slaves(&view)[0]);
    let deadline = REPLICATION_DEADLINE * 5;
    wait_for_texts(&slave, &cluster.account, bulk::COUNT, &rows, deadline).await;
    (system, cluster)
}

/// From the request until the scheduler knows that it is done; its id; the most memory of its executor, in KiB.
async fn back_up(system: &System, cluster: &Cluster) -> (Duration, String, u64) {
    let view = system.show(&cluster.name).await.unwrap();
    let executor = system.mysqld(slaves(&view)[0]).parent();
    let most = Arc::new(AtomicU64::new(0));
    let watched = tokio::spawn(watch_memory(executor, most.clone()));
    let start = Instant::now();
    let fields = [("password", cluster.account.password.as_str())];
    let path = format!("{}/backups", cluster.name);
    let answer = system.post(&path, &fields).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let asked: BackupAnswer = serde_json::from_value(answer.json()).unwrap();
    let is_over = |view: &ClusterView| {
        let last = view.standing.last_backup.as_ref();
        last.is_some_and(|last| last.number == asked.number)
    };
    let view = system
        .wait_until(cluster, "has ended its backup", DEADLINE, is_over)
        .await;
    let took = start.elapsed();
    let outcome = view.standing.last_backup.unwrap();
    assert!(outcome.done, "{}", outcome.sentence);
    watched.abort();
    (took, asked.id.to_string(), most.load(Ordering::Relaxed))
}

/// Keeps the most that the executor was seen to have, in KiB.
async fn watch_memory(executor: Process, most: Arc<AtomicU64>) {
    loop {
        most.fetch_max(executor.resident_kib(), Ordering::Relaxed);
        tokio::time::sleep(LOOK).await;
    }
}

/// From the request to a master that is published; the cluster is deleted afterwards.
async fn restore(system: &System, name: &str, backup: &str) -> Duration {
    let start = Instant::now();
    // With its log the server holds more than the data that was put into it.
    let size = r#"{"cpus": 1, "mem": "512mb", "disk": "4gb"}"#;
    let fields = [
        ("cluster_user", USER),
        ("num_nodes", "1"),
        ("size", size),
        ("backup_id", backup),
    ];
    let answer = system.post(name, &fields).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let cluster = Cluster {
        name: name.to_owned(),
        url: answer.text_of("cluster_url"),
        account: Account {
            user: USER.to_owned(),
            password: answer.text_of("cluster_password"),
        },
    };
    let view = system
        .wait_running(&cluster, DEADLINE.max(CREATE_DEADLINE))
        .await;
    let took = start.elapsed();
    let at = endpoint(master(&view));
    assert!(texts(&at, &cluster.account, bulk::COUNT).await.is_ok());
    system.delete_and_wait(&cluster).await;
    took
}
