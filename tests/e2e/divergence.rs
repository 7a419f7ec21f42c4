//! A former master comes back with transactions that nobody else has: they are kept aside, and it gets the cluster's data.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::{ClusterView, MemberRole, MemberView};

use crate::support::database::{connect, execute, run, wait_for_texts};
use crate::support::discovery::Masters;
use crate::support::fleet::Fleet;
use crate::support::hosts::End;
use crate::support::load::{self, Load};
use crate::support::system::{Cluster, endpoint, master, slaves};
use crate::support::{CREATE_DEADLINE, FAILOVER_DEADLINE, REPLICATION_DEADLINE, eventually};

crate::for_both_flavours!(a_former_master_with_a_tail_is_rebuilt_and_elected_again);

/// How many writes have to be acknowledged before something is broken, and after.
const SOME_WRITES: usize = 50;

/// What the former master alone has.
const TAIL: &str = "never-acknowledged";

/// How many masters are killed until the rebuilt member is one. Of equal candidates the lowest number wins, so
/// two are enough unless it has the highest. One that has not received the last transaction yet is no equal: then it takes more.
const KILLS: usize = 2;

/// Goal: the master is cut off while a write waits for its acknowledgement; it comes back and is quarantined, its tail exported,
/// its data copied from the others; it votes again, is elected, and has all that was ever acknowledged and nothing of the tail.
async fn a_former_master_with_a_tail_is_rebuilt_and_elected_again(flavour: Flavour) {
    let fleet = Fleet::with_scheduler(flavour, 3, &[]).await;
    let cluster = fleet.create_running("diverging", 3).await;
    let masters = Masters::watch(&cluster.url).await;
    let before = fleet.show("diverging").await.unwrap();
    let old = master(&before).clone();
    fill(&cluster, &before).await;
    let mut load = Load::start(&cluster.url, &cluster.account, 2);
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;

    leave_with_a_tail(&fleet, &cluster, &before).await;
    fleet
        .wait_until(&cluster, "has a new master", FAILOVER_DEADLINE, |view| {
            view.members
                .iter()
                .any(|m| m.role == MemberRole::Master && m.id != old.id)
        })
        .await;
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;

    fleet.network.heal();
    let told = rejoins(&fleet, &cluster, &old).await;
    let says = |what: &str| told.iter().any(|sentence| sentence.contains(what));
    assert!(says("its data was lost; it votes again"), "{told:#?}");
    let after = fleet.wait_running(&cluster, CREATE_DEADLINE).await;
    let back = member(&after, &old);
    assert_eq!(back.task_id, old.task_id, "it is the same task");
    let sandbox = fleet.sandbox(old.task_id.as_ref().unwrap());
    exported(&fleet, &sandbox).await;
    let log = fs::read_to_string(sandbox.join("stderr")).unwrap();
    assert!(log.contains("donor's data copied"), "{log}");
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;

    let acknowledged = load.stop().await;
    compare(&cluster, &after, &acknowledged).await;
    becomes_master(&fleet, &cluster, &old).await;
    let last = fleet.wait_running(&cluster, CREATE_DEADLINE).await;
    compare(&cluster, &last, &acknowledged).await;
    masters.check();
    fleet.delete_and_wait(&cluster).await;
}

fn member<'a>(view: &'a ClusterView, like: &MemberView) -> &'a MemberView {
    view.members.iter().find(|m| m.id == like.id).unwrap()
}

/// So much that nobody replays it.
async fn fill(cluster: &Cluster, view: &ClusterView) {
    let mut statements = vec![
        "CREATE DATABASE load_db".to_owned(),
        load::TABLE.to_owned(),
        "CREATE TABLE load_db.large (n INT PRIMARY KEY, b LONGBLOB)".to_owned(),
    ];
    let row = |n| format!("INSERT INTO load_db.large VALUES ({n}, REPEAT('x', 1000000))");
    statements.extend((0..12).map(row));
    let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
    run(&endpoint(master(view)), &cluster.account, &statements).await;
}

/// First nothing gets from the master to the slaves, then a write waits there, and then its host is cut off from
/// everything: not even what its kernel still sends arrives.
async fn leave_with_a_tail(fleet: &Fleet, cluster: &Cluster, view: &ClusterView) {
    let old = master(view);
    let mut connection = connect(&endpoint(old), &cluster.account).await.unwrap();
    let host = fleet.host(old);
    for slave in slaves(view) {
        fleet
            .network
            .cut(End::Host(host), End::Host(fleet.host(slave)));
    }
    let insert = format!("INSERT INTO load_db.writes VALUES ('{TAIL}')");
    let waits = tokio::time::timeout(Duration::from_secs(2), execute(&mut connection, &insert));
    assert!(waits.await.is_err(), "it was acknowledged, or failed");
    fleet.network.isolate(host);
}

/// Waits until the member is a voting slave. Gives all that was explained meanwhile.
async fn rejoins(fleet: &Fleet, cluster: &Cluster, old: &MemberView) -> BTreeSet<String> {
    let mut told = BTreeSet::new();
    let start = tokio::time::Instant::now();
    let mut aside = false;
    loop {
        let explained = fleet.explain(&cluster.name).await.explanation;
        aside |= !explained.set_aside.is_empty();
        told.insert(explained.reason);
        told.extend(explained.set_aside);
        told.extend(explained.voters);
        told.extend(explained.waiting.into_iter().flat_map(|w| w.ends_when));
        let view = fleet.show(&cluster.name).await.unwrap();
        let member = member(&view, old);
        if aside && member.role == MemberRole::Slave && member.voter {
            return told;
        }
        assert!(
            start.elapsed() < CREATE_DEADLINE,
            "it does not rejoin: {told:#?}"
        );
    }
}

/// The tail is in the export, and what everybody has is not.
async fn exported(fleet: &Fleet, sandbox: &Path) {
    let path = eventually("the export", FAILOVER_DEADLINE, async || {
        let explained = fleet.explain("diverging").await.explanation;
        let told = explained.set_aside.join("\n");
        let path = told
            .split_whitespace()
            .find(|word| word.ends_with(".sql.gz"))?;
        Some(sandbox.join(path))
    })
    .await;
    let mut text = String::new();
    let file = fs::File::open(path).unwrap();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .unwrap();
    assert!(text.contains(TAIL), "{text}");
    assert!(
        !text.contains("'0-1'"),
        "the first write is no extra: {text}"
    );
}

async fn compare(cluster: &Cluster, view: &ClusterView, acknowledged: &BTreeSet<String>) {
    let tail = format!("SELECT value FROM load_db.writes WHERE value = '{TAIL}'");
    for member in &view.members {
        let (at, account) = (endpoint(member), &cluster.account);
        wait_for_texts(&at, account, load::READ, acknowledged, REPLICATION_DEADLINE).await;
        let found = crate::support::database::texts(&at, account, &tail).await;
        assert_eq!(found, Ok(BTreeSet::new()), "member {}", member.id);
    }
}

/// Masters are killed until the member is one.
async fn becomes_master(fleet: &Fleet, cluster: &Cluster, wanted: &MemberView) {
    for killed in 0..2 * KILLS {
        let view = fleet.wait_running(cluster, CREATE_DEADLINE).await;
        let is_highest = view.members.iter().all(|m| m.id <= wanted.id);
        if master(&view).id == wanted.id || is_highest && killed >= KILLS {
            return;
        }
        fleet.mysqld(master(&view)).kill();
        fleet
            .wait_until(cluster, "has a new master", FAILOVER_DEADLINE, |after| {
                let has_master = after.members.iter().any(|m| m.role == MemberRole::Master);
                after.epoch > view.epoch && has_master
            })
            .await;
    }
    let view = fleet.wait_running(cluster, CREATE_DEADLINE).await;
    let highest = view.members.iter().map(|m| m.id).max().unwrap();
    assert!(
        master(&view).id == wanted.id || wanted.id == highest,
        "it was not elected: {view:?}"
    );
}
