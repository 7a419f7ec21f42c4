//! Deleted clusters come back with their data, and what no record explains goes when an operator says so.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use cotton::cluster::flavour::Flavour;
use cotton::cluster::slot_view::{SlotState, SlotView};
use cotton::http::slots::SlotsAnswer;
use zookeeper_client::Client;

use crate::slots::left_on_agents;
use crate::support::database::{run, wait_for_texts};
use crate::support::rest::curl;
use crate::support::system::{Cluster, Options, System, endpoint, master};
use crate::support::{CREATE_DEADLINE, FAILOVER_DEADLINE, REPLICATION_DEADLINE, eventually};
use crate::unknown_tasks::restart_scheduler;

crate::for_both_flavours!(a_deleted_cluster_comes_back);

const READ: &str = "SELECT CAST(a AS CHAR) FROM kept_db.t ORDER BY a";

async fn a_deleted_cluster_comes_back(flavour: Flavour) {
    let mut options = Options::new(flavour);
    let settings = ["--", "--keep-deleted", "10m"];
    options.arguments.extend(settings.map(str::to_owned));
    let system = System::with_options(options);
    let cluster = system.create_running("orders", 3).await;
    let before = system.show("orders").await.unwrap();
    let statements = [
        "CREATE DATABASE kept_db",
        "CREATE TABLE kept_db.t (a INT PRIMARY KEY)",
        "INSERT INTO kept_db.t VALUES (1)",
    ];
    run(&endpoint(master(&before)), &cluster.account, &statements).await;
    system.delete_and_wait(&cluster).await;

    // Under its own name, with user and password.
    let wrong = [("password", "wrong")];
    let refused = system.post("orders/undelete", &wrong).await.unwrap();
    assert_eq!(refused.status, 403, "{refused:?}");
    let password = [("password", cluster.account.password.as_str())];
    for _ in 0..2 {
        let back = system.post("orders/undelete", &password).await.unwrap();
        assert_eq!(back.status, 200, "{back:?}");
        assert_eq!(back.text_of("cluster_url"), cluster.url);
    }
    let after = assert_back(&system, &cluster, &["1"]).await;
    assert!(after > before.epoch, "a new master needs a new epoch");
    system.delete_and_wait(&cluster).await;

    // Under another one, while its own is in use.
    let other = system.create_running("orders", 1).await;
    let refused = system.post("orders/undelete", &password).await.unwrap();
    assert_eq!(refused.status, 409, "{refused:?}");
    assert!(refused.text.contains("--as NAME"), "{refused:?}");
    let words = ["undelete", "orders", "--as", "orders2", "--wait"];
    admin(&system, &words, &cluster.account.password);
    let renamed = Cluster {
        name: "orders2".to_owned(),
        url: format!("{}2", cluster.url),
        ..cluster.clone()
    };
    assert_back(&system, &renamed, &["1", "2"]).await;
    assert!(
        slots(&system)
            .await
            .iter()
            .all(|it| it.state == SlotState::InUse)
    );

    // It is deleted again, and what is kept of it is lost.
    system.delete_and_wait(&renamed).await;
    let incarnation = forget_what_is_kept(&system).await;
    restart_scheduler(&system).await;
    let orphans = eventually("orphans are listed", FAILOVER_DEADLINE, async || {
        let mut slots = slots(&system).await;
        slots.retain(|slot| slot.state == SlotState::Orphaned);
        (slots.len() == 3).then_some(slots)
    });
    let orphans = orphans.await;
    assert!(
        orphans
            .iter()
            .all(|slot| slot.incarnation.to_string() == incarnation)
    );
    assert_eq!(left_on_agents(&system).len(), 2 * 3 + 1);
    let keys = fs::read_to_string(system.run_directory().join("keys/admin.yml")).unwrap();
    let administrator = keys.split("password: ").nth(1).unwrap().trim();
    for orphan in &orphans {
        let words = ["slots", "--reclaim", orphan.slot.as_str()];
        admin(&system, &words, administrator);
    }
    eventually("the orphans are gone", FAILOVER_DEADLINE, async || {
        (left_on_agents(&system).len() == 2 && slots(&system).await.len() == 1).then_some(())
    })
    .await;
    system.wait_running(&other, FAILOVER_DEADLINE).await;
    system.delete_and_wait(&other).await;
}

/// All of it is there, it can be written, and it grows by a row. Returns its epoch.
async fn assert_back(system: &System, cluster: &Cluster, rows: &[&str]) -> u64 {
    let view = system.wait_running(cluster, CREATE_DEADLINE).await;
    let rows: BTreeSet<String> = rows.iter().map(ToString::to_string).collect();
    for member in &view.members {
        let at = endpoint(member);
        let deadline = REPLICATION_DEADLINE;
        wait_for_texts(&at, &cluster.account, READ, &rows, deadline).await;
    }
    let next = format!("INSERT INTO kept_db.t VALUES ({})", rows.len() + 1);
    run(&endpoint(master(&view)), &cluster.account, &[&next]).await;
    view.epoch
}

async fn slots(system: &System) -> Vec<SlotView> {
    let url = format!("{}/slots", system.api);
    eventually("slots are listed", FAILOVER_DEADLINE, async || {
        let answer = curl(&[&url]).await.filter(|answer| answer.status == 200)?;
        let listed: SlotsAnswer = serde_json::from_str(&answer.text).unwrap();
        Some(listed.slots)
    })
    .await
}

/// `cotton admin` with a password on its standard input.
fn admin(system: &System, words: &[&str], password: &str) {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_cotton"))
        .arg("admin")
        .args(words)
        .args(["--password-file", "-", "--api", &system.api])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(password.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success(), "{words:?}");
}

/// The node that explains the slots of the one deleted cluster is lost. Returns its incarnation.
async fn forget_what_is_kept(system: &System) -> String {
    let address = system.zk.strip_prefix("zk://").unwrap();
    let (address, root) = address.split_once('/').unwrap();
    let client = Client::connect(address).await.unwrap();
    let kept = format!("/{root}/state/retained");
    let found = client.list_children(&kept).await.unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    let path = format!("{kept}/{}", found[0]);
    client.delete(&path, None).await.unwrap();
    found[0].clone()
}
