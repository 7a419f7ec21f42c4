//! A thousand clusters: how long they are without a scheduler when that which leads is killed.

use std::time::{Duration, Instant};

use cotton::cluster::control::{Authentication, ClusterUser};
use cotton::cluster::flavour::Flavour;
use cotton::cluster::record::ClusterRecord;
use cotton::cluster::spec::{ClusterSpec, CreateRequest, Rules};
use cotton::secret::Secret;
use cotton::time::Timestamp;
use cotton::zookeeper::acl::Acls;
use cotton::zookeeper::seal::{self, Key, NONCE_BYTES};
use cotton::zookeeper::session::{Session, SessionConfig};
use cotton::zookeeper::store::{StateStorage, Store};
use futures::future::join_all;
use uuid::Uuid;

use crate::schedulers::{is_leading, leader, schedulers};
use crate::support::eventually;
use crate::support::rest::curl;
use crate::support::system::{Options, System};

/// How many there are.
const CLUSTERS: usize = 1000;

/// How many records are written at the same time.
const AT_ONCE: usize = 100;

/// The session timeout of the one that was killed, 6 s, and what a loaded machine adds.
const SESSION: Duration = Duration::from_secs(20);

/// Loading all of them is to take less than 2 s. The rest is for a debug build on a loaded machine.
const LOADED: Duration = Duration::from_secs(10);

/// The record of a cluster that was just accepted.
fn record(number: usize, key: &Key) -> ClusterRecord {
    let request = CreateRequest {
        name: format!("c{number}"),
        cluster_user: Some("app".to_owned()),
        num_nodes: Some("3".to_owned()),
        ..CreateRequest::default()
    };
    let (spec, _) = ClusterSpec::check(request, &Rules::default()).unwrap();
    let authentication = Authentication {
        mysql: "m".to_owned(),
        mariadb: "a".to_owned(),
    };
    let user = ClusterUser {
        name: "app".to_owned(),
        authentication,
    };
    let mut nonce = [0; NONCE_BYTES];
    nonce[..8].copy_from_slice(&number.to_be_bytes());
    let sealed = seal::seal(key, &Secret::new(format!("password {number}")), nonce);
    ClusterRecord::new(
        spec,
        Uuid::new_v4(),
        sealed,
        user,
        Timestamp::from_millis(1),
    )
}

/// Writes the records as a scheduler does.
async fn write_records(system: &System) {
    let key = std::fs::read(system.run_directory().join("keys/scheduler.key")).unwrap();
    let key = Key::from_file_content(&key).unwrap();
    let session = Session::connect(SessionConfig {
        url: system.zk.parse().unwrap(),
        identities: Vec::new(),
        timeout: Duration::from_secs(10),
        root_acl: None,
    });
    session.connected(SESSION).await.unwrap();
    let store = Store::open(session, Acls::open(), StateStorage::Zk);
    let store = store.await.unwrap();
    let records: Vec<ClusterRecord> = (0..CLUSTERS).map(|number| record(number, &key)).collect();
    for some in records.chunks(AT_ONCE) {
        let commits = some.iter().map(|record| store.commit(record, None));
        for committed in join_all(commits).await {
            committed.unwrap();
        }
    }
}

/// For how many clusters the scheduler at this address answers.
async fn answers_for(api: &str) -> Option<usize> {
    let answer = curl(&["--max-time", "5", &format!("{api}/clusters")]).await?;
    let answer = (answer.status == 200).then(|| answer.json())?;
    Some(answer["clusters"].as_array()?.len())
}

#[tokio::test]
async fn a_thousand_clusters_are_taken_over() {
    let system = System::with_options(Options {
        agents: 0,
        arguments: ["--schedulers", "2", "--no-restart"]
            .map(str::to_owned)
            .into(),
        ..Options::new(Flavour::Mariadb)
    });
    let former = leader(&system, None).await;
    let mut others = schedulers(&system).into_iter();
    let follower = others.find(|it| it.process != former.process).unwrap();
    // The one that leads would not know of them: its store is its alone. Its successor reads them.
    write_records(&system).await;

    let begun = Instant::now();
    former.process.kill();
    eventually("the other one leads", SESSION, async || {
        is_leading(&follower.api).await.then_some(())
    })
    .await;
    let leads = begun.elapsed();
    eventually("it answers for all clusters", LOADED, async || {
        (answers_for(&follower.api).await == Some(CLUSTERS)).then_some(())
    })
    .await;
    let answers = begun.elapsed();
    eprintln!(
        "{CLUSTERS} clusters: another scheduler leads after {leads:?}, and answers for all after {answers:?}"
    );
    let shown = shown_by(&follower.api, CLUSTERS - 1).await;
    assert_eq!(shown["num_nodes"], 3, "{shown}");
}

/// What it says of one of them.
async fn shown_by(api: &str, number: usize) -> serde_json::Value {
    let answer = curl(&[&format!("{api}/clusters/c{number}")]).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}
