//! Election among schedulers: one leads, another follows and takes over, and nobody waits for a process that has ended.

use cotton::process_identity::ProcessIdentity;
use cotton::zookeeper::acl::Acls;
use cotton::zookeeper::leader::{Candidacy, LEADER_FORMAT, Leader, Standing};
use cotton::zookeeper::session::Session;
use tokio::sync::watch;
use uuid::Uuid;
use zookeeper_client::CreateMode;

use super::{DEADLINE, SHORT, config, connect, onlooker, write};
use crate::support::eventually;
use crate::support::zookeeper::ZooKeeper;

fn candidate(api: &str) -> Leader {
    Leader {
        format: LEADER_FORMAT,
        candidate: Uuid::new_v4(),
        api: api.to_owned(),
        has_local_state: false,
        process: None,
    }
}

fn stand(session: &Session, candidate: &Leader) -> Candidacy {
    Candidacy::start(session.clone(), candidate.clone(), Acls::open().state)
}

async fn wait_for(
    mut standing: watch::Receiver<Standing>,
    what: &str,
    is_so: impl FnMut(&Standing) -> bool,
) -> Standing {
    let reached = tokio::time::timeout(DEADLINE, standing.wait_for(is_so)).await;
    reached
        .unwrap_or_else(|_| panic!("{what} was not reached"))
        .unwrap()
        .clone()
}

async fn leads(candidacy: &Candidacy) -> u64 {
    let is_leading = |now: &Standing| matches!(now, Standing::Leading(_));
    match wait_for(candidacy.standing(), "leading", is_leading).await {
        Standing::Leading(generation) => generation,
        other => panic!("{other:?}"),
    }
}

async fn follows(candidacy: &Candidacy, leader: &Leader) {
    let is_following =
        |now: &Standing| matches!(now, Standing::Following(found) if found == leader);
    wait_for(candidacy.standing(), "following", is_following).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_and_when_it_ends_another_takes_over() {
    let server = ZooKeeper::start();
    let [one, two] = [candidate("one:1"), candidate("two:2")];
    let first_session = connect(&server).await;
    let first = stand(&first_session, &one);
    leads(&first).await;
    let second_session = connect(&server).await;
    let second = stand(&second_session, &two);
    follows(&second, &one).await;

    drop(first);
    first_session.close(DEADLINE).await;
    leads(&second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_lost_its_session_leads_on_in_the_next_if_nobody_else_does() {
    let mut server = ZooKeeper::start();
    let session = Session::connect(config(&server, SHORT));
    let first = stand(&session, &candidate("one:1"));
    let before = leads(&first).await;
    server.stop();
    let mut state = session.state();
    let lost = state.wait_for(|state| *state == cotton::zookeeper::session::SessionState::Lost);
    tokio::time::timeout(DEADLINE, lost).await.unwrap().unwrap();
    assert_eq!(*first.standing().borrow(), Standing::Leading(before));
    server.restart();
    let later =
        |now: &Standing| matches!(now, Standing::Leading(generation) if *generation > before);
    wait_for(first.standing(), "leading again", later).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_replaced_while_it_was_away_follows() {
    let mut server = ZooKeeper::start();
    let session = Session::connect(config(&server, SHORT));
    let first = stand(&session, &candidate("one:1"));
    leads(&first).await;
    let other = candidate("two:2");
    let data = serde_json::to_vec(&other).unwrap();
    server.stop();
    let mut state = session.state();
    let lost = state.wait_for(|state| *state == cotton::zookeeper::session::SessionState::Lost);
    tokio::time::timeout(DEADLINE, lost).await.unwrap().unwrap();
    server.restart();
    // Whoever comes first has the node; in the end it is the other's.
    let client = onlooker(&server).await;
    let options = CreateMode::Persistent.with_acls(zookeeper_client::Acls::anyone_all());
    eventually("the node is the other's", DEADLINE, || async {
        // Not the node of a session that ends and takes it along.
        let _ = client.delete("/cotton/leader", None).await;
        let written = client
            .create("/cotton/leader", &data, &options)
            .await
            .is_ok();
        written.then_some(())
    })
    .await;
    follows(&first, &other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_place_of_a_process_that_has_ended_is_taken_at_once() {
    let server = ZooKeeper::start();
    let own = ProcessIdentity::own().unwrap();
    let former = Leader {
        process: Some(ProcessIdentity {
            start_time: own.start_time - 1,
            ..own.clone()
        }),
        ..candidate("one:1")
    };
    // Its session lives on, as that of a process does that was killed.
    let former_session = connect(&server).await;
    let connection = former_session.connection().unwrap();
    let node = cotton::zookeeper::operations::Op::Create {
        path: "/leader".to_owned(),
        data: serde_json::to_vec(&former).unwrap(),
        acl: Acls::open().state,
        ephemeral: true,
    };
    connection.transact(&[node]).await.unwrap();

    let session = connect(&server).await;
    let unknowing = stand(&session, &candidate("two:2"));
    follows(&unknowing, &former).await;
    drop(unknowing);
    let next = Leader {
        process: Some(own),
        ..candidate("three:3")
    };
    leads(&stand(&session, &next)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_be_read_is_left_alone() {
    let server = ZooKeeper::start();
    let session = connect(&server).await;
    let client = onlooker(&server).await;
    write(&client, "/cotton/leader", br#"{"format": 2}"#).await;
    let candidacy = stand(&session, &candidate("one:1"));
    let gone = tokio::spawn(async move {
        // It stands until somebody takes it away; then the place is free.
        client.delete("/cotton/leader", None).await.unwrap();
    });
    leads(&candidacy).await;
    gone.await.unwrap();
}
