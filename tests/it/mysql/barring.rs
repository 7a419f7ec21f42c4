//! Keeping one member from acknowledging, and letting it in again.

use std::collections::BTreeSet;

use cotton::cluster::flavour::Flavour;
use cotton::cluster::id::MemberId;
use cotton::mysql::{Error, accounts::replication_user};

use super::*;

both_flavours!(
    who_is_barred_acknowledges_nothing_until_let_in,
    the_acknowledgements_that_are_waited_for_change_at_run_time,
);

fn barred(members: &[u32]) -> BTreeSet<String> {
    members
        .iter()
        .map(|member| replication_user(MemberId(*member)))
        .collect()
}

/// Goal: a removed voter acknowledges nothing, though it streamed a moment ago and goes on trying; the other one does, and
/// the removed one gets all of it when it is let in again. Method: two followers with their own accounts.
async fn who_is_barred_acknowledges_nothing_until_let_in(flavour: Flavour) {
    let (master, server) = open_master(flavour, 1).await;
    let (_first, first) = follower_as(0, &master, 2, true).await;
    server.prepare_source(1).await.unwrap();
    server.write_canary(1, soon()).await.unwrap();

    let before = server.executed().await.unwrap();
    server.bar(&barred(&[0])).await.unwrap();
    let executed = server.executed().await.unwrap();
    assert_eq!(before, executed, "nothing of it is in the binlog");
    let result = server.write_canary(2, at_once()).await;
    assert!(matches!(result, Err(Error::TimedOut { .. })), "{result:?}");
    wait_for(&first, "the barred one is turned away", |seen| {
        seen.replication
            .as_ref()
            .is_some_and(|r| !r.receiving && r.receiver_error.is_some())
    })
    .await;

    let (_second, second) = follower_as(1, &master, 3, true).await;
    server.write_canary(3, soon()).await.unwrap();
    wait_for(&server, "only the other one is connected", |seen| {
        seen.clients == 1
    })
    .await;

    // The other way round, in one go.
    server.bar(&barred(&[1])).await.unwrap();
    server.write_canary(4, soon()).await.unwrap();
    let held = server.executed().await.unwrap();
    first.wait_executed(&held, soon()).await.unwrap();
    assert!(!second.executed().await.unwrap().contains(&held));

    server.bar(&barred(&[])).await.unwrap();
    second.wait_executed(&held, soon()).await.unwrap();
}

/// Goal: raising and lowering `k` on a master with clients. Method: from 0 to 1 and back, with and without an acknowledger.
async fn the_acknowledgements_that_are_waited_for_change_at_run_time(flavour: Flavour) {
    let (master, server) = open_master(flavour, 1).await;
    server.write_canary(1, soon()).await.unwrap();
    let (_other, _follower) = follower(&master, 2, true).await;
    server.prepare_source(1).await.unwrap();
    server.write_canary(2, soon()).await.unwrap();
    server.bar(&barred(&[0])).await.unwrap();
    let waits = server.write_canary(3, at_once()).await;
    assert!(matches!(waits, Err(Error::TimedOut { .. })), "{waits:?}");
    server.prepare_source(0).await.unwrap();
    server.write_canary(4, soon()).await.unwrap();
    wait_for(&server, "nothing waits", |seen| seen.waiting_sessions == 0).await;
}
