//! Two of three hosts are gone for good, as far as anybody knows: an operator gives up what only they hold.

use std::collections::BTreeSet;
use std::process::{Output, Stdio};

use cotton::cluster::data_loss::{LossyFailover, Offer};
use cotton::cluster::flavour::Flavour;
use cotton::cluster::view::{MemberRole, MemberView, MemberViewState};
use nix::sys::signal::Signal;
use tokio::io::AsyncWriteExt as _;

use crate::support::database::{run, texts, wait_for_texts};
use crate::support::fleet::Fleet;
use crate::support::system::{Cluster, System, endpoint, master, slaves};
use crate::support::{CREATE_DEADLINE, FAILOVER_DEADLINE, REPLICATION_DEADLINE, eventually};

const READ: &str = "SELECT value FROM given_db.t";

/// Runs `cotton admin` with these words, the cluster's password as its standard input.
pub async fn admin(system: &System, words: &[&str], password: &str) -> Output {
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_cotton"))
        .arg("admin")
        .args(words)
        .args(["--password-file", "-"])
        .env("COTTON_API", &system.api)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(password.as_bytes()).await.unwrap();
    drop(stdin);
    let ended = tokio::time::timeout(CREATE_DEADLINE, child.wait_with_output()).await;
    ended
        .unwrap_or_else(|_| panic!("{words:?} does not end"))
        .unwrap()
}

fn values(values: &[&str]) -> BTreeSet<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

/// Goal: the survivor serves with what it has, the answer names what is lost, and in the end there is one history. Method: a
/// write that the survivor lacks was reported by the old master, which then is cut off; the third host is dead.
#[tokio::test]
async fn the_survivor_serves_and_the_loss_is_named() {
    let fleet = Fleet::start(Flavour::Mariadb, 3).await;
    let cluster = fleet.create_running("given-up", 3).await;
    let view = fleet.show("given-up").await.unwrap();
    let account = &cluster.account;
    let old = master(&view).clone();
    let (survivor, third) = (slaves(&view)[0].clone(), slaves(&view)[1].clone());
    let statements = [
        "CREATE DATABASE given_db",
        "CREATE TABLE given_db.t (value VARCHAR(20) PRIMARY KEY)",
        "INSERT INTO given_db.t VALUES ('early')",
    ];
    run(&endpoint(&old), account, &statements).await;
    for slave in slaves(&view) {
        let at = endpoint(slave);
        wait_for_texts(
            &at,
            account,
            READ,
            &values(&["early"]),
            REPLICATION_DEADLINE,
        )
        .await;
    }

    // What the survivor lacks is acknowledged by the third, whose host dies.
    let asleep = fleet.mysqld(&survivor).parent();
    asleep.signal(Signal::SIGSTOP);
    // Until it has ended it could still receive something.
    let server = fleet.mysqld(&survivor);
    server.kill();
    eventually("its server has ended", FAILOVER_DEADLINE, async || {
        (!server.runs()).then_some(())
    })
    .await;
    let late = ["INSERT INTO given_db.t VALUES ('late')"];
    run(&endpoint(&old), account, &late).await;
    let executor = fleet.mysqld(&third).parent();
    fleet.agent(fleet.host(&third)).kill();
    executor.kill();
    // The old master tells what it holds before its host is cut off.
    fleet.mysqld(&old).kill();
    eventually("the old master reports", FAILOVER_DEADLINE, async || {
        let waiting = fleet.explain("given-up").await.explanation.waiting?;
        waiting
            .voters
            .iter()
            .any(|voter| voter.held.is_some())
            .then_some(())
    })
    .await;
    fleet.network.isolate(fleet.host(&old));
    fleet
        .wait_until(&cluster, "misses all", FAILOVER_DEADLINE, |view| {
            view.members
                .iter()
                .all(|member| member.state == MemberViewState::Lost)
        })
        .await;
    asleep.signal(Signal::SIGCONT);

    let offer = offered(&fleet, &survivor).await;
    assert_eq!(
        offer.command,
        "cotton admin failover given-up --accept-data-loss"
    );
    refused(&fleet, &cluster, &old).await;
    let words = ["failover", "given-up", "--accept-data-loss", "--wait"];
    let accepted = admin(&fleet, &words, &account.password).await;
    assert!(accepted.status.success(), "{accepted:?}");
    let answer = String::from_utf8(accepted.stdout).unwrap();
    for missing in [&old, &third] {
        let address = format!(
            "{}:{}",
            missing.host.as_ref().unwrap(),
            missing.port.unwrap()
        );
        assert!(answer.contains(&address), "{answer}");
        assert!(
            answer.contains(missing.task_id.as_ref().unwrap()),
            "{answer}"
        );
    }
    let whose = format!("of member {}", old.id);
    let lost = answer
        .lines()
        .find(|line| line.starts_with("known to be lost: "));
    assert!(lost.is_some_and(|line| line.contains(&whose)), "{answer}");
    assert!(answer.contains("more may be lost"), "{answer}");
    let told = String::from_utf8(accepted.stderr).unwrap();
    assert!(told.contains("could not be fenced"), "{told}");

    let at = endpoint(&survivor);
    fleet
        .wait_until(&cluster, "has a master", FAILOVER_DEADLINE, |view| {
            view.members[survivor.id as usize].role == MemberRole::Master
        })
        .await;
    let after = ["INSERT INTO given_db.t VALUES ('after')"];
    run(&at, account, &after).await;
    assert_eq!(
        texts(&at, account, READ).await.unwrap(),
        values(&["early", "after"])
    );

    // Their hosts come back.
    fleet.network.heal();
    fleet.restart_agent(fleet.host(&third));
    let view = fleet.wait_running(&cluster, CREATE_DEADLINE).await;
    assert_eq!(slaves(&view).len(), 2);
    for member in &view.members {
        let at = endpoint(member);
        let all = values(&["early", "after"]);
        wait_for_texts(&at, account, READ, &all, REPLICATION_DEADLINE).await;
        assert_eq!(texts(&at, account, READ).await.unwrap(), all, "one history");
    }
    let lossy: LossyFailover = view.standing.lossy_failover.unwrap();
    let outcome = lossy.outcome.unwrap();
    assert_eq!(outcome.master.0, survivor.id);
    let unfenced: Vec<u32> = outcome.unfenced.iter().map(|one| one.member.0).collect();
    assert!(unfenced.contains(&old.id), "{unfenced:?}");
    fleet.delete_and_wait(&cluster).await;
}

/// The offer of a cluster that waits, once the survivor has reported.
async fn offered(fleet: &Fleet, survivor: &MemberView) -> Offer {
    eventually("the override is offered", FAILOVER_DEADLINE, async || {
        let explained = fleet.explain("given-up").await.explanation;
        let offer = explained.standing.failover_offer?;
        let candidate = offer.prospect.candidate.as_ref()?;
        assert_eq!(candidate.member.0, survivor.id);
        Some(offer)
    })
    .await
}

/// Neither a stranger nor somebody who has not read what it costs gets it.
async fn refused(fleet: &Fleet, cluster: &Cluster, old: &MemberView) {
    let ask = async |fields: &[(&str, &str)]| {
        let answer = fleet.post("given-up/failover", fields).await.unwrap();
        (answer.status, answer.text)
    };
    let accept = ("accept_data_loss", "true");
    let right = ("password", cluster.account.password.as_str());
    assert_eq!(ask(&[accept]).await.0, 401);
    assert_eq!(ask(&[accept, ("password", "wrong")]).await.0, 403);
    assert_eq!(ask(&[right, ("accept_data_loss", "perhaps")]).await.0, 400);
    let (status, text) = ask(&[right]).await;
    assert_eq!(status, 409, "{text}");
    assert!(text.contains("accept_data_loss=true"), "{text}");
    assert!(text.contains(old.task_id.as_ref().unwrap()), "{text}");
    let view = fleet.show("given-up").await.unwrap();
    assert_eq!(view.standing.lossy_failover, None);
}
