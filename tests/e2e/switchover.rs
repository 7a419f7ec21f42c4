//! A master hands over on request: no server is restarted, nothing that was acknowledged is lost, and if it cannot be done
//! the old master goes on.

use std::time::Duration;

use cotton::cluster::failover_record::Cause;
use cotton::cluster::flavour::Flavour;
use cotton::cluster::service_instance::Endpoint;
use cotton::cluster::view::{ClusterView, MemberView};
use cotton::http::changes::SwitchoverAnswer;
use nix::sys::signal::Signal;
use sqlx::Connection as _;

use crate::support::database::{Account, connect, execute, run, texts, wait_for_texts};
use crate::support::discovery::Masters;
use crate::support::load::{self, Load};
use crate::support::system::{Cluster, System, endpoint, master, slaves};
use crate::support::{FAILOVER_DEADLINE, REPLICATION_DEADLINE, eventually};

crate::for_both_flavours!(
    masters_hand_over_there_and_back,
    a_target_that_stands_still_changes_nothing,
    a_master_that_is_closed_in_vain_opens_again
);

/// How many writes have to be acknowledged between two steps.
const SOME_WRITES: usize = 100;

/// The longest pause of a switchover that does not come about: a second for the statement that closes, two for the target.
const LONGEST_GAP: Duration = Duration::from_secs(5);

/// Asks for a switchover and waits for its outcome.
async fn switch_over(system: &System, cluster: &Cluster, to: Option<u32>) -> ClusterView {
    let to = to.map(|to| to.to_string());
    let mut fields = vec![("password", cluster.account.password.as_str())];
    fields.extend(to.as_deref().map(|to| ("to", to)));
    let path = format!("{}/switchover", cluster.name);
    // It is refused as long as who has handed over before does not follow the new master yet, or the voters are being changed.
    let answer = eventually("a switchover is accepted", FAILOVER_DEADLINE, async || {
        let answer = system.post(&path, &fields).await?;
        (answer.status != 409).then_some(answer)
    })
    .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer: SwitchoverAnswer = serde_json::from_value(answer.json()).unwrap();
    let number = answer.switchover.unwrap().number;
    let is_over = |view: &ClusterView| {
        let last = view.standing.switchover.as_ref();
        last.is_some_and(|last| last.number == number && !last.is_pending())
    };
    system
        .wait_until(
            cluster,
            "has ended its switchover",
            FAILOVER_DEADLINE,
            is_over,
        )
        .await
}

fn mysqlds(system: &System, view: &ClusterView) -> Vec<String> {
    let members: &Vec<MemberView> = &view.members;
    let pids = members
        .iter()
        .map(|member| format!("{:?}", system.mysqld(member)));
    pids.collect()
}

async fn masters_hand_over_there_and_back(flavour: Flavour) {
    let system = System::shared(flavour);
    let cluster = system.create_running("handed", 3).await;
    let masters = Masters::watch(&cluster.url).await;
    let before = system.show("handed").await.unwrap();
    let account = &cluster.account;
    let statements = ["CREATE DATABASE load_db", load::TABLE];
    run(&endpoint(master(&before)), account, &statements).await;
    let mut load = Load::start(&cluster.url, account, 4);
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;

    let (first, second) = (master(&before).id, slaves(&before)[0].id);
    let servers = mysqlds(&system, &before);
    for to in [Some(second), Some(first), None] {
        load.measure_gap();
        let view = switch_over(&system, &cluster, to).await;
        let switchover = view.standing.switchover.as_ref().unwrap();
        let outcome = switchover.outcome.as_ref().unwrap();
        assert!(outcome.done, "{}", outcome.sentence);
        load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
        eprintln!("{flavour}: no write for {:?}", load.longest_gap());
        let running = system.wait_running(&cluster, FAILOVER_DEADLINE).await;
        assert_eq!(master(&running).id, switchover.to.0);
        assert_eq!(
            mysqlds(&system, &running),
            servers,
            "a server was restarted"
        );
        let explained = system.explain("handed").await.explanation;
        let last = &explained.failovers[0];
        eprintln!("{:?}", last.phases);
        assert_eq!(last.record.ending.cause, Cause::Switchover);
        assert_eq!(
            last.record.switchover.as_ref().unwrap().number,
            switchover.number
        );
    }
    let acknowledged = load.stop().await;
    for member in &before.members {
        let (at, deadline) = (endpoint(member), REPLICATION_DEADLINE);
        wait_for_texts(&at, account, load::READ, &acknowledged, deadline).await;
    }
    masters.check();
    system.delete_and_wait(&cluster).await;
}

async fn a_target_that_stands_still_changes_nothing(flavour: Flavour) {
    let system = System::shared(flavour);
    let cluster = system.create_running("kept", 3).await;
    let before = system.show("kept").await.unwrap();
    let account = &cluster.account;
    let statements = ["CREATE DATABASE load_db", load::TABLE];
    run(&endpoint(master(&before)), account, &statements).await;
    let mut load = Load::start(&cluster.url, account, 4);
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;

    // Its executor would kill it and start it again.
    let target = slaves(&before)[0];
    let mysqld = system.mysqld(target);
    let executor = mysqld.parent();
    executor.signal(Signal::SIGSTOP);
    mysqld.signal(Signal::SIGSTOP);
    load.measure_gap();
    let failed = load.failed();
    let view = switch_over(&system, &cluster, Some(target.id)).await;
    let switchover = view.standing.switchover.as_ref().unwrap();
    let outcome = switchover.outcome.as_ref().unwrap();
    assert!(!outcome.done, "{}", outcome.sentence);
    assert!(
        outcome.sentence.contains("still the master"),
        "{}",
        outcome.sentence
    );
    assert_eq!(view.epoch, before.epoch);
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    assert_eq!(load.failed(), failed, "a write was refused");
    assert!(load.longest_gap() < Duration::from_secs(3));
    mysqld.signal(Signal::SIGCONT);
    executor.signal(Signal::SIGCONT);
    let acknowledged = load.stop().await;
    let after = system.wait_running(&cluster, FAILOVER_DEADLINE).await;
    assert_eq!(master(&after).id, master(&before).id);
    for member in &after.members {
        let (at, deadline) = (endpoint(member), REPLICATION_DEADLINE);
        wait_for_texts(&at, account, load::READ, &acknowledged, deadline).await;
    }
    system.delete_and_wait(&cluster).await;
}

/// A client's lock holds up the statement that closes, first for too long, then until the target stands still.
async fn a_master_that_is_closed_in_vain_opens_again(flavour: Flavour) {
    let system = System::shared(flavour);
    let cluster = system.create_running("reopened", 3).await;
    let before = system.show("reopened").await.unwrap();
    let (account, at) = (&cluster.account, endpoint(master(&before)));
    let locked = "CREATE TABLE load_db.locked (id INT PRIMARY KEY)";
    let statements = ["CREATE DATABASE load_db", load::TABLE, locked];
    run(&at, account, &statements).await;
    let mut load = Load::start(&cluster.url, account, 4);
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    let target = slaves(&before)[0];
    let mut holder = connect(&at, account).await.unwrap();

    let lock = "LOCK TABLES load_db.locked WRITE";
    execute(&mut holder, lock).await.unwrap();
    load.measure_gap();
    let view = switch_over(&system, &cluster, Some(target.id)).await;
    is_kept(&view, "it could not be closed for writes");
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;

    let (mysqld, executor) = (system.mysqld(target), system.mysqld(target).parent());
    let asked = switch_over(&system, &cluster, Some(target.id));
    let stopping = async {
        wait_until_closing(&at, account).await;
        executor.signal(Signal::SIGSTOP);
        mysqld.signal(Signal::SIGSTOP);
        execute(&mut holder, "UNLOCK TABLES").await.unwrap();
    };
    let (view, ()) = tokio::join!(asked, stopping);
    is_kept(&view, "the target could not be seen to have all");
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
    let gap = load.longest_gap();
    eprintln!("{flavour}: no write for {gap:?}, twice closed in vain");
    assert!(gap < LONGEST_GAP, "{gap:?}");
    mysqld.signal(Signal::SIGCONT);
    executor.signal(Signal::SIGCONT);
    holder.close().await.unwrap();

    let acknowledged = load.stop().await;
    let after = system.wait_running(&cluster, FAILOVER_DEADLINE).await;
    assert_eq!(after.epoch, before.epoch);
    for member in &after.members {
        let (at, deadline) = (endpoint(member), REPLICATION_DEADLINE);
        wait_for_texts(&at, account, load::READ, &acknowledged, deadline).await;
    }
    system.delete_and_wait(&cluster).await;
}

fn is_kept(view: &ClusterView, why: &str) {
    let switchover = view.standing.switchover.as_ref().unwrap();
    let outcome = switchover.outcome.as_ref().unwrap();
    let sentence = &outcome.sentence;
    assert!(
        !outcome.done && sentence.contains("still the master") && sentence.contains(why),
        "{sentence}"
    );
}

/// Waits until the server is about to be closed for writes.
async fn wait_until_closing(at: &Endpoint, account: &Account) {
    const STATEMENTS: &str = "SELECT COALESCE(info, '') FROM information_schema.processlist";
    let deadline = Duration::from_secs(10);
    eventually("the statement that closes waits", deadline, async || {
        let statements = texts(at, account, STATEMENTS).await.unwrap();
        let mut closing = statements.iter().filter(|it| it.contains("read_only = ON"));
        closing.next().map(drop)
    })
    .await;
}
