//! ZooKeeper with three servers, credentials and access lists: one server is killed under load, answers are slow,
//! sessions expire, and no identity can do more than it has to.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::ClusterState;
use cotton::secret::Secret;
use cotton::zookeeper::acl::Acls;
use cotton::zookeeper::operations::{Connection, Error, Op, Refusal};
use cotton::zookeeper::session::{Session, SessionConfig};
use cotton::zookeeper::url::Credentials;
use nix::sys::signal::Signal;
use nix::unistd::{User, chown};

use crate::support::database::{run, texts};
use crate::support::ensemble::Ensemble;
use crate::support::load::{self, Load};
use crate::support::process::Process;
use crate::support::system::{Options, System, endpoint, master, slaves, tasks};
use crate::support::{CREATE_DEADLINE, FAILOVER_DEADLINE, eventually};

/// Longer than any session timeout here.
const AWAY: Duration = Duration::from_secs(12);

const SOME_WRITES: usize = 50;

/// How long ZooKeeper's answers are held. Sessions, which last for 6 s, can be kept with it.
const SLOW: Duration = Duration::from_millis(700);

/// A version that no node has.
const NO_VERSION: i32 = 1_000_000;

fn identity(user: &str) -> Credentials {
    Credentials {
        user: user.to_owned(),
        password: Secret::new("secret"),
    }
}

/// The executors' identity, in a file that the database servers' user can read: as `cotton local` chooses it.
fn key_file(folder: &Path) -> String {
    let path = folder.join("executor.yml");
    fs::write(&path, "username: executor\npassword: secret\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    if nix::unistd::geteuid().is_root() {
        let users = ["mysql", "nobody"].map(|name| User::from_name(name).unwrap());
        let user = users.into_iter().flatten().next().unwrap();
        chown(&path, Some(user.uid), None).unwrap();
    }
    path.display().to_string()
}

crate::for_both_flavours!(one_of_three_servers_is_killed_and_sessions_expire);

async fn one_of_three_servers_is_killed_and_sessions_expire(flavour: Flavour) {
    let mut ensemble = Ensemble::start().await;
    let keys = tempfile::tempdir().unwrap();
    let url = format!("zk://cotton:secret@{}/cotton", ensemble.delayed.addresses);
    let system = System::with_options(Options {
        arguments: [
            "--zk-url",
            &url,
            "--",
            "--executor-zk-keypath",
            &key_file(keys.path()),
        ]
        .map(str::to_owned)
        .to_vec(),
        ..Options::new(flavour)
    });
    let cluster = system.create_running("kept", 3).await;
    assert!(!cluster.url.contains("secret"), "{}", cluster.url);
    let view = system.show("kept").await.unwrap();
    check_access(&ensemble.servers(), "kept").await;
    let statements = ["CREATE DATABASE load_db", load::TABLE];
    run(&endpoint(master(&view)), &cluster.account, &statements).await;
    let mut load = Load::paced(&cluster.url, &cluster.account, 2, Duration::from_millis(50));
    let servers: Vec<Process> = view.members.iter().map(|it| system.mysqld(it)).collect();
    let unchanged = async |load: &Load| {
        let before = load.count();
        eventually("writes go on", FAILOVER_DEADLINE, async || {
            (load.count() > before + 20).then_some(())
        })
        .await;
        let now = system.wait_running(&cluster, FAILOVER_DEADLINE).await;
        assert_eq!((now.epoch, tasks(&now)), (view.epoch, tasks(&view)));
        assert!(servers.iter().all(Process::runs), "a server was restarted");
        assert_eq!(load.failed(), 0);
    };
    unchanged(&load).await;

    // A server of ZooKeeper is killed: one that follows, then the one that leads.
    for leading in [false, true] {
        // A server that is asked may take too long to answer.
        let victim = eventually(
            "the servers tell who leads",
            FAILOVER_DEADLINE,
            async || {
                let (leader, followers) = ensemble.roles();
                if leading {
                    leader
                } else {
                    followers.first().copied()
                }
            },
        )
        .await;
        ensemble.kill(victim);
        tokio::time::sleep(AWAY).await;
        ensemble.wait_for(2).await;
        unchanged(&load).await;
        ensemble.restart(victim);
        ensemble.wait_for(3).await;
        unchanged(&load).await;
    }

    // Answers are slow: nothing changes, and what has to be decided takes longer.
    ensemble.delayed.hold_answers(SLOW);
    tokio::time::sleep(AWAY).await;
    unchanged(&load).await;
    ensemble.delayed.hold_answers(Duration::ZERO);

    // The scheduler, then a slave's executor, stand still until their sessions have expired.
    let slave = slaves(&view)[0].clone();
    let executor = system.mysqld(&slave).parent();
    for paused in [system.scheduler().await, executor] {
        paused.signal(Signal::SIGSTOP);
        tokio::time::sleep(AWAY).await;
        paused.signal(Signal::SIGCONT);
        unchanged(&load).await;
        assert!(paused.runs());
    }

    // The master's server ends while answers are slow.
    ensemble.delayed.hold_answers(SLOW);
    system.mysqld(master(&view)).kill();
    let elected = "has another master, for all that answers are slow";
    // The old master is to be back too, and may have to get its data anew.
    system
        .wait_until(&cluster, elected, CREATE_DEADLINE, |now| {
            now.epoch > view.epoch && now.state == ClusterState::Running
        })
        .await;
    ensemble.delayed.hold_answers(Duration::ZERO);
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;

    let acknowledged = load.stop().await;
    for member in &view.members {
        let at = endpoint(member);
        eventually("a member has all", FAILOVER_DEADLINE, async || {
            let found = texts(&at, &cluster.account, load::READ).await.ok()?;
            acknowledged.is_subset(&found).then_some(())
        })
        .await;
    }
    system.delete_and_wait(&cluster).await;
}

async fn session(servers: &str, identities: &[&str]) -> Session {
    let session = Session::connect(SessionConfig {
        url: format!("zk://{servers}/cotton").parse().unwrap(),
        identities: identities.iter().map(|user| identity(user)).collect(),
        timeout: Duration::from_secs(10),
        root_acl: None,
    });
    session.connected(FAILOVER_DEADLINE).await.unwrap();
    session
}

/// What an identity may do with a node.
#[derive(Debug, PartialEq, Eq)]
struct Rights {
    read: bool,
    write: bool,
    create: bool,
    delete: bool,
}

fn allowed<T: std::fmt::Debug>(result: Result<T, Error>) -> bool {
    match result {
        Ok(_) => true,
        Err(error) => match error.refusal() {
            Some(Refusal::NoAuth) => false,
            Some(Refusal::BadVersion | Refusal::NotEmpty) => true,
            // Nothing is created below an ephemeral node, whoever asks.
            Some(Refusal::Other(zookeeper_client::Error::NoChildrenForEphemerals)) => true,
            _ => panic!("{error}"),
        },
    }
}

/// Nothing is changed: each attempt names a version that no node has, which is looked at after the rights.
async fn rights(connection: &Connection, path: &str) -> Rights {
    let version = Some(NO_VERSION);
    let set = Op::Set {
        path: path.to_owned(),
        data: Vec::new(),
        version,
    };
    let delete = Op::Delete {
        path: path.to_owned(),
        version,
    };
    let intruder = format!("{path}/intruder");
    let create = Op::create(&intruder, "", &Acls::open().state);
    // Of what may be created no version is this one, so that it is not.
    let never = Op::Check {
        path: intruder,
        version: NO_VERSION,
    };
    Rights {
        read: allowed(connection.get(path).await),
        create: allowed(connection.transact(&[create, never]).await),
        write: allowed(connection.transact(&[set]).await),
        delete: allowed(connection.transact(&[delete]).await),
    }
}

/// Every node of a cluster, tried by everybody.
async fn check_access(servers: &str, cluster: &str) {
    let all = session(servers, &["cotton", "executor"]).await;
    let all = all.connection().unwrap();
    let mut paths: Vec<String> = vec!["/fence", "/leader", "/state", "/control", "/discover"]
        .into_iter()
        .map(str::to_owned)
        .collect();
    let mut next = 0;
    while next < paths.len() {
        let path = paths[next].clone();
        let children = all.children(&path).await.unwrap().unwrap_or_default();
        paths.extend(children.into_iter().map(|child| format!("{path}/{child}")));
        next += 1;
    }
    let goal = format!("/control/{cluster}/goal");
    let members = format!("/control/{cluster}/members");
    for wanted in [&goal, &members, &format!("/state/clusters/{cluster}")] {
        assert!(paths.contains(wanted), "{wanted} in {paths:?}");
    }
    assert!(
        paths
            .iter()
            .filter(|path| path.starts_with(&format!("{members}/")))
            .count()
            == 3
    );
    assert!(paths.iter().any(|path| path.ends_with("member_0000000000")));

    let own = session(servers, &["cotton"]).await;
    let executor = session(servers, &["executor"]).await;
    let stranger = session(servers, &[]).await;
    for path in &paths {
        let discovery = path.starts_with("/discover");
        let control = path.starts_with("/control");
        let report = path.starts_with(&format!("{members}/"));
        let nothing = Rights {
            read: discovery,
            write: false,
            create: false,
            delete: false,
        };
        let found = rights(&stranger.connection().unwrap(), path).await;
        assert_eq!(found, nothing, "a stranger at {path}");
        let found = rights(&executor.connection().unwrap(), path).await;
        let expected = Rights {
            read: discovery || control,
            write: report,
            // Executors make and remove their reports, below `members`, and nothing else.
            create: report,
            delete: report,
        };
        if *path != members {
            assert_eq!(found, expected, "an executor at {path}");
        }
        let found = rights(&own.connection().unwrap(), path).await;
        assert_eq!(found.write, !report, "Cotton at {path}");
    }
    let executor = executor.connection().unwrap();
    let below = Op::create(format!("{members}/tried"), "", &Acls::open().report);
    assert!(allowed(executor.transact(&[below]).await));
    let below = Op::delete(format!("{members}/tried"));
    assert!(allowed(executor.transact(&[below]).await));
}
