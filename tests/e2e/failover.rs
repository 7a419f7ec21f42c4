//! A master dies, or a member with all its data: nothing that was acknowledged is lost.

use cotton::cluster::failover_record::{Cause, Phase};
use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::{MemberRole, MemberView};
use cotton::http::explain::ExplainAnswer;

use crate::support::database::{run, wait_for_texts};
use crate::support::discovery::Masters;
use crate::support::load::{self, Load};
use crate::support::rest::curl;
use crate::support::system::{System, endpoint, master, slaves, tasks};
use crate::support::{CREATE_DEADLINE, FAILOVER_DEADLINE, REPLICATION_DEADLINE, eventually};

crate::for_both_flavours!(
    the_master_is_killed_under_load,
    members_lose_their_executors_and_their_data
);

/// How many writes have to be acknowledged before something is broken, and after.
const SOME_WRITES: usize = 100;

async fn the_master_is_killed_under_load(flavour: Flavour) {
    let system = System::shared(flavour);
    let cluster = system.create_running("killed", 3).await;
    let masters = Masters::watch(&cluster.url).await;
    let before = system.show("killed").await.unwrap();
    let old = master(&before).clone();
    let account = &cluster.account;
    run(
        &endpoint(&old),
        account,
        &["CREATE DATABASE load_db", load::TABLE],
    )
    .await;
    let mut load = Load::start(&cluster.url, account, 4);
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;

    let mysqld = system.mysqld(&old);
    mysqld.kill();
    system
        .wait_until(&cluster, "has a new master", FAILOVER_DEADLINE, |view| {
            view.epoch > before.epoch
                && view
                    .members
                    .iter()
                    .any(|member| member.role == MemberRole::Master)
        })
        .await;
    load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;

    // The old one comes back as a slave: its task was never ended, its data is still there. If a write waited there for its
    // acknowledgement, it copies the others' data first.
    let after = system.wait_running(&cluster, CREATE_DEADLINE).await;
    assert_eq!(tasks(&before), tasks(&after));
    assert_eq!(slaves(&after).len(), 2);
    explained(&system, &old, master(&after)).await;
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
    // The watch may hear of the last change later than the API.
    let last = [format!("member_{:010}", master(&after).id)];
    eventually(
        "discovery names the master",
        FAILOVER_DEADLINE,
        async || {
            let seen = masters.check();
            (*seen.last()? == last).then_some(())
        },
    )
    .await;
    system.delete_and_wait(&cluster).await;
}

/// The first failover is explained: who was killed, how many had to report, and where the time went. (More
/// than one is possible on a busy machine.)
async fn explained(system: &System, old: &MemberView, new: &MemberView) {
    let explained: ExplainAnswer = system.explain("killed").await;
    let failovers = &explained.explanation.failovers;
    let first = failovers.last().unwrap();
    let record = &first.record;
    assert_eq!(record.ending.cause, Cause::ServerEnded, "{first:?}");
    let before = record.before.as_ref().unwrap();
    assert_eq!(before.member.0, old.id);
    assert_eq!(Some(before.task_id.as_str()), old.task_id.as_deref());
    let address = format!("{}:{}", old.host.as_ref().unwrap(), old.port.unwrap());
    assert_eq!(before.address, Some(address));
    let quorum = record.quorum;
    assert_eq!((quorum.voters, quorum.k_floor, quorum.needed), (3, 1, 2));
    assert!(first.counted >= quorum.needed, "{first:?}");
    let last = failovers.first().unwrap().record.winner.as_ref().unwrap();
    assert_eq!(last.master.member.0, new.id);
    // The phases fill the time, which is no longer than what the story allows. One whose winner has not opened has no end.
    let first = failovers.iter().rfind(|it| it.unpublished_millis.is_some());
    let first = first.unwrap();
    let names: Vec<&str> = first.phases.iter().map(|phase| &*phase.name).collect();
    for name in ["collecting the reports", "applying and opening"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let deciding = |phase: &&Phase| phase.name == "deciding";
    let whole: u64 = first.phases.iter().map(|phase| phase.millis).sum();
    let before: u64 = first
        .phases
        .iter()
        .filter(deciding)
        .map(|phase| phase.millis)
        .sum();
    let took = first.unpublished_millis.unwrap();
    assert_eq!(whole - before, took, "{first:?}");
    let most = FAILOVER_DEADLINE.as_millis() as u64;
    assert!((1..most).contains(&took), "{first:?}");
    let vars = curl(&[&format!("{}/vars.json", system.api)]).await.unwrap();
    let vars = vars.json();
    let counted = vars["scheduler.failovers"].as_u64().unwrap();
    assert!(counted >= 1, "{vars}");
    assert_eq!(vars["scheduler.failover_seconds_count"], counted);
    assert!(vars["scheduler.failover_seconds_sum"].as_f64().unwrap() > 0.0);
}

/// A member without its executor is launched anew, starts empty, gets everything from the others and
/// votes again: first a slave, then the master.
async fn members_lose_their_executors_and_their_data(flavour: Flavour) {
    let system = System::shared(flavour);
    let cluster = system.create_running("bereft", 3).await;
    let masters = Masters::watch(&cluster.url).await;
    let view = system.show("bereft").await.unwrap();
    let account = &cluster.account;
    let at_master = endpoint(master(&view));
    let statements = ["CREATE DATABASE load_db", load::TABLE];
    run(&at_master, account, &statements).await;
    let mut load = Load::start(&cluster.url, account, 2);

    for of_master in [false, true] {
        load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
        let before = system.wait_running(&cluster, CREATE_DEADLINE).await;
        let victim = if of_master {
            master(&before).clone()
        } else {
            slaves(&before)[0].clone()
        };
        let mysqld = system.mysqld(&victim);
        mysqld.parent().kill();
        // The majority goes on meanwhile.
        load.wait_for_more(SOME_WRITES, FAILOVER_DEADLINE).await;
        let after = system
            .wait_until(&cluster, "has its member back", CREATE_DEADLINE, |view| {
                let member = view.members.iter().find(|member| member.id == victim.id);
                member.is_some_and(|member| {
                    member.role == MemberRole::Slave
                        && member.voter
                        && member.task_id != victim.task_id
                })
            })
            .await;
        assert!(!mysqld.runs(), "a server has outlived its executor");
        let changed = master(&after).id != master(&before).id;
        assert_eq!(changed, of_master, "the master changed, or did not");
    }
    let acknowledged = load.stop().await;
    let after = system.wait_running(&cluster, CREATE_DEADLINE).await;
    for member in &after.members {
        let at = endpoint(member);
        let deadline = REPLICATION_DEADLINE;
        wait_for_texts(&at, account, load::READ, &acknowledged, deadline).await;
    }
    masters.check();
    system.delete_and_wait(&cluster).await;
}
