//! A member's host is gone for long: its vote goes without it, and comes back with it.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::{ClusterView, MemberView};
use sqlx::ConnectOptions as _;
use sqlx::mysql::MySqlConnectOptions;

use crate::support::database::{run, wait_for_texts};
use crate::support::discovery::Masters;
use crate::support::eventually;
use crate::support::fleet::Fleet;
use crate::support::load::{self, Load};
use crate::support::system::{endpoint, master, slaves};
use crate::support::{FAILOVER_DEADLINE, REPLICATION_DEADLINE};

crate::for_both_flavours!(a_member_that_is_gone_for_long_leaves_the_vote_and_comes_back);

/// How many writes have to be acknowledged before something is broken, and after.
const SOME_WRITES: usize = 50;

/// The shortest patience that there is.
const PATIENCE: [&str; 2] = ["--voter-patience", "10s"];

/// How long leaving may take: the patience, and before it the time in which silence does not count.
const LEAVES_WITHIN: Duration = Duration::from_secs(60);

/// Goal: a whole change of the voters with the real scheduler, under load: the member is barred at the master, a canary is
/// acknowledged, and only then it is no voter; when it is back it becomes one again, with all that was acknowledged meanwhile.
async fn a_member_that_is_gone_for_long_leaves_the_vote_and_comes_back(flavour: Flavour) {
    let fleet = Fleet::with_scheduler(flavour, 3, &PATIENCE).await;
    let cluster = fleet.create_running("leaving", 3).await;
    let masters = Masters::watch(&cluster.url).await;
    let before = fleet.show("leaving").await.unwrap();
    let at_master = endpoint(master(&before));
    let account = &cluster.account;
    run(
        &at_master,
        account,
        &["CREATE DATABASE load_db", load::TABLE],
    )
    .await;
    let mut load = Load::start(&cluster.url, account, 3);
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;

    let gone = slaves(&before)[0].clone();
    fleet.network.isolate(fleet.host(&gone));
    let left = |view: &ClusterView| !member(view, &gone).voter;
    fleet
        .wait_until(&cluster, "counts without it", LEAVES_WITHIN, left)
        .await;
    // That is told from the first moment on; the voters have changed when the quorum has.
    let explained = eventually("two voters are left", LEAVES_WITHIN, async || {
        let explained = fleet.explain("leaving").await.explanation;
        (explained.quorum.voters == 2).then_some(explained)
    })
    .await;
    assert_eq!((explained.quorum.k_floor, explained.quorum.needed), (1, 1));
    let told = explained.voters.join("\n");
    let sentence = format!("member {} does not vote", gone.id);
    assert!(told.contains(&sentence), "{told}");
    assert!(
        is_barred(&fleet, flavour, &before, &gone).await,
        "it could still acknowledge"
    );
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;

    fleet.network.heal();
    let after = fleet.wait_running(&cluster, LEAVES_WITHIN).await;
    assert_eq!(after.epoch, before.epoch, "the master has changed");
    assert_eq!(
        member(&after, &gone).task_id,
        gone.task_id,
        "it is the same task, with its data"
    );
    eventually("it votes again", LEAVES_WITHIN, async || {
        let explained = fleet.explain("leaving").await.explanation;
        (explained.quorum.voters == 3 && explained.voters.is_empty()).then_some(())
    })
    .await;
    assert!(!is_barred(&fleet, flavour, &before, &gone).await);
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    let acknowledged = load.stop().await;
    for member in &after.members {
        let at = endpoint(member);
        wait_for_texts(
            &at,
            account,
            load::READ,
            &acknowledged,
            REPLICATION_DEADLINE,
        )
        .await;
    }
    masters.check();
    fleet.delete_and_wait(&cluster).await;
}

fn member<'a>(view: &'a ClusterView, like: &MemberView) -> &'a MemberView {
    view.members.iter().find(|m| m.id == like.id).unwrap()
}

/// Whether the member's replication account is locked at the master, as its administration account sees it.
async fn is_barred(fleet: &Fleet, flavour: Flavour, view: &ClusterView, of: &MemberView) -> bool {
    let key = fs::read_to_string(fleet.run_directory().join("keys/admin.yml")).unwrap();
    let value = |name: &str| {
        let line = key.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().to_owned()
    };
    let sandbox = fleet.sandbox(master(view).task_id.as_ref().unwrap());
    // The path itself is too long for a socket's address.
    let folder = fs::File::open(sandbox.join("run")).unwrap();
    let socket = format!("/proc/self/fd/{}/mysqld.sock", folder.as_raw_fd());
    let options = MySqlConnectOptions::new()
        .socket(socket)
        .username(&value("username:"))
        .password(&value("password:"));
    let mut connection = options.connect().await.unwrap();
    let locked = match flavour {
        Flavour::Mysql => "SELECT account_locked = 'Y' FROM mysql.user WHERE User = ?",
        Flavour::Mariadb => {
            "SELECT COALESCE(JSON_VALUE(Priv, '$.account_locked') IN ('1', 'true'), 0) FROM mysql.global_priv WHERE User = ?"
        }
    };
    let user = format!("cotton_replication_{}", of.id);
    let query = sqlx::query_scalar::<_, i64>(locked).bind(user);
    query.fetch_one(&mut connection).await.unwrap() != 0
}
