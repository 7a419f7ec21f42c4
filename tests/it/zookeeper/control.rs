//! Goals and reports through restarts, lost sessions and damage: whatever happens to the server, the
//! newest goal and every member's newest report arrive, and what vanished is told.

use std::time::Duration;

use cotton::cluster::control::{FORMAT, MemberState, Report};
use cotton::cluster::id::{ClusterName, Epoch, MemberId, TaskId};
use cotton::zookeeper::acl::Acls;
use cotton::zookeeper::control::{
    GoalSeen, GoalState, GoalWatch, GoneKind, ReportEvent, ReportWatch, ReportWriter,
};
use cotton::zookeeper::session::{Session, SessionConfig, SessionState};
use cotton::zookeeper::store::{StateStorage, Store, Version};
use uuid::Uuid;

use super::store::{name, record};
use super::{DEADLINE, SHORT, config, connect, connect_for_long, onlooker, write};
use crate::support::proxy::Proxy;
use crate::support::zookeeper::ZooKeeper;

fn task(member: u32) -> TaskId {
    TaskId::new(&name("a"), Uuid::from_u128(7), MemberId(member), 1)
}

fn report(member: u32, promised: u64) -> Report {
    Report {
        backup: None,
        archive: None,
        format: FORMAT,
        uuid: Uuid::from_u128(7),
        member: MemberId(member),
        task_id: task(member),
        server: None,
        data: None,
        process: None,
        promised: Epoch(promised),
        state: MemberState::Closed,
        held: None,
        canary: 0,
        terms: None,
        voters_seen: 0,
        acknowledges: true,
        problem: None,
        trouble: None,
        wants_donor: None,
        set_aside: None,
        stream_port: None,
        lag_seconds: 0,
        handover: None,
        held_back: false,
    }
}

/// A scheduler with one cluster, `a`.
struct Scheduler {
    store: Store,
    version: Version,
}

impl Scheduler {
    async fn with_cluster(server: &ZooKeeper) -> Self {
        let session = connect(server).await;
        let store = Store::open(session, Acls::open(), StateStorage::Zk)
            .await
            .unwrap();
        let version = store.commit(&record("a"), None).await.unwrap();
        Self { store, version }
    }

    /// Writes a goal of this epoch, as often as an outage makes necessary.
    async fn set_epoch(&mut self, epoch: u64) {
        let mut next = record("a");
        next.epoch = Epoch(epoch);
        let start = std::time::Instant::now();
        while start.elapsed() < DEADLINE {
            match self.store.commit(&next, Some(self.version)).await {
                Ok(version) => {
                    self.version = version;
                    return;
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
            if let Ok(Some(Ok(loaded))) = self.store.load(&name("a")).await {
                self.version = loaded.version;
            }
        }
        panic!("the goal was not written");
    }
}

async fn next_goal(watch: &mut GoalWatch) -> GoalSeen {
    tokio::time::timeout(DEADLINE, watch.next())
        .await
        .expect("no goal came")
}

/// Reads goals until one of this epoch comes.
async fn goal_of(watch: &mut GoalWatch, epoch: u64) -> GoalSeen {
    loop {
        let seen = next_goal(watch).await;
        if matches!(&seen.goal, GoalState::Present(goal) if goal.epoch == Epoch(epoch)) {
            return seen;
        }
    }
}

async fn next_event(watch: &mut ReportWatch) -> ReportEvent {
    tokio::time::timeout(DEADLINE, watch.next())
        .await
        .expect("no event came")
}

/// Reads events up to the end of a listing, and returns those before it.
async fn until_synced(watch: &mut ReportWatch) -> Vec<ReportEvent> {
    let mut events = Vec::new();
    loop {
        match next_event(watch).await {
            ReportEvent::Synced => return events,
            event => events.push(event),
        }
    }
}

fn changed(member: u32, promised: u64) -> ReportEvent {
    ReportEvent::Changed {
        cluster: name("a"),
        report: Box::new(report(member, promised)),
    }
}

fn gone(member: u32, kind: GoneKind) -> ReportEvent {
    ReportEvent::Gone {
        cluster: name("a"),
        task: task(member),
        kind,
    }
}

fn writer(session: &Session, member: u32) -> ReportWriter {
    ReportWriter::start(
        session.clone(),
        &name("a"),
        &task(member),
        Acls::of_reports(None),
    )
}

async fn put(writer: &ReportWriter, report: &Report) {
    let number = writer.put(report).unwrap();
    assert!(
        writer.written(number, DEADLINE).await,
        "the report was not written"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goal_comes_changes_and_goes() {
    let server = ZooKeeper::start();
    let cluster: ClusterName = name("a");
    let mut watch = GoalWatch::start(connect(&server).await, &cluster);
    assert_eq!(next_goal(&mut watch).await.goal, GoalState::Absent);
    let mut scheduler = Scheduler::with_cluster(&server).await;
    assert_eq!(
        next_goal(&mut watch).await.goal,
        GoalState::Present(Box::new(record("a").goal()))
    );
    for epoch in 1..5 {
        scheduler.set_epoch(epoch).await;
        goal_of(&mut watch, epoch).await;
    }
    scheduler
        .store
        .remove(&cluster, scheduler.version, None)
        .await
        .unwrap();
    assert_eq!(next_goal(&mut watch).await.goal, GoalState::Absent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goal_that_changed_around_a_restart_arrives() {
    let mut server = ZooKeeper::start();
    let mut scheduler = Scheduler::with_cluster(&server).await;
    let mut watch = GoalWatch::start(connect_for_long(&server).await, &name("a"));
    goal_of(&mut watch, 0).await;
    for epoch in 1..4 {
        server.restart();
        scheduler.set_epoch(epoch).await;
        assert_eq!(goal_of(&mut watch, epoch).await.generation, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_session_reads_the_goal_again() {
    let mut server = ZooKeeper::start();
    let mut scheduler = Scheduler::with_cluster(&server).await;
    let session = Session::connect(config(&server, SHORT));
    let mut watch = GoalWatch::start(session.clone(), &name("a"));
    let first = goal_of(&mut watch, 0).await;
    server.stop();
    let mut state = session.state();
    tokio::time::timeout(
        DEADLINE,
        state.wait_for(|state| *state == SessionState::Lost),
    )
    .await
    .unwrap()
    .unwrap();
    server.restart();
    let again = goal_of(&mut watch, 0).await;
    assert!(again.generation > first.generation);
    scheduler.set_epoch(1).await;
    goal_of(&mut watch, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_goal_is_told_and_the_next_one_read() {
    let server = ZooKeeper::start();
    let mut scheduler = Scheduler::with_cluster(&server).await;
    let client = onlooker(&server).await;
    let mut watch = GoalWatch::start(connect(&server).await, &name("a"));
    goal_of(&mut watch, 0).await;
    let huge = vec![b' '; 300_000];
    for (data, sentence) in [
        (b"{".as_slice(), "EOF"),
        (b"{\"format\":9}", "format 9"),
        (&huge, "bytes"),
    ] {
        write(&client, "/cotton/control/a/goal", data).await;
        match next_goal(&mut watch).await.goal {
            GoalState::Unreadable(fault) => {
                assert!(
                    fault.contains(sentence) && fault.contains("/control/a/goal"),
                    "{fault}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    scheduler.set_epoch(1).await;
    goal_of(&mut watch, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_are_told_as_they_come_change_and_go() {
    let server = ZooKeeper::start();
    let _scheduler = Scheduler::with_cluster(&server).await;
    let session = connect(&server).await;
    let early = writer(&session, 0);
    put(&early, &report(0, 1)).await;

    let mut watch = ReportWatch::start(connect(&server).await);
    assert_eq!(until_synced(&mut watch).await, [changed(0, 1)]);
    let late = connect(&server).await;
    let second = writer(&late, 1);
    put(&second, &report(1, 1)).await;
    assert_eq!(next_event(&mut watch).await, changed(1, 1));
    put(&early, &report(0, 2)).await;
    assert_eq!(next_event(&mut watch).await, changed(0, 2));

    drop(second);
    late.close(DEADLINE).await;
    assert_eq!(next_event(&mut watch).await, gone(1, GoneKind::Watched));
}

/// Goal: a report that somebody removes comes back, though nothing in it changes. Method: remove the node behind the writer.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_was_removed_comes_back() {
    let server = ZooKeeper::start();
    let _scheduler = Scheduler::with_cluster(&server).await;
    let session = connect(&server).await;
    let writer = writer(&session, 0);
    put(&writer, &report(0, 1)).await;
    let mut watch = ReportWatch::start(connect(&server).await);
    assert_eq!(until_synced(&mut watch).await, [changed(0, 1)]);

    let path = format!("/cotton/control/a/members/{}", task(0));
    for _ in 0..2 {
        onlooker(&server).await.delete(&path, None).await.unwrap();
        while next_event(&mut watch).await != changed(0, 1) {}
    }
    put(&writer, &report(0, 2)).await;
    assert_eq!(next_event(&mut watch).await, changed(0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_that_changed_around_a_restart_are_told() {
    let mut server = ZooKeeper::start();
    let _scheduler = Scheduler::with_cluster(&server).await;
    let session = connect_for_long(&server).await;
    let writers = [writer(&session, 0), writer(&session, 1)];
    for (member, writer) in (0..).zip(&writers) {
        put(writer, &report(member, 1)).await;
    }
    let mut watch = ReportWatch::start(connect_for_long(&server).await);
    assert_eq!(until_synced(&mut watch).await.len(), 2);
    for epoch in 2..5 {
        server.stop();
        // Only the newest of these is ever written.
        for promised in [100, 200, epoch] {
            writers[0].put(&report(0, promised)).unwrap();
        }
        server.restart();
        let told = until_synced(&mut watch).await;
        assert_eq!(told.first(), Some(&ReportEvent::Suspended));
        // The report is written before the listing or after it, and is told in either case.
        if !told.contains(&changed(0, epoch)) {
            assert_eq!(next_event(&mut watch).await, changed(0, epoch));
        }
        assert!(
            !told
                .iter()
                .any(|event| matches!(event, ReportEvent::Gone { .. })),
            "{told:?}"
        );
        // And the watch lives.
        put(&writers[1], &report(1, epoch)).await;
        assert_eq!(next_event(&mut watch).await, changed(1, epoch));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_behind_a_partition_is_told_after_it() {
    let server = ZooKeeper::start();
    let _scheduler = Scheduler::with_cluster(&server).await;
    let (leaves, stays) = (connect(&server).await, connect(&server).await);
    let (leaver, stayer) = (writer(&leaves, 0), writer(&stays, 1));
    put(&leaver, &report(0, 1)).await;
    put(&stayer, &report(1, 1)).await;

    let proxy = Proxy::start(server.address()).await;
    let url = format!("zk://{}/cotton", proxy.address());
    let url = url.parse().unwrap();
    let session = Session::connect(SessionConfig {
        url,
        ..config(&server, Duration::from_secs(60))
    });
    let mut watch = ReportWatch::start(session);
    assert_eq!(until_synced(&mut watch).await.len(), 2);

    proxy.cut();
    assert_eq!(next_event(&mut watch).await, ReportEvent::Suspended);
    drop(leaver);
    leaves.close(DEADLINE).await;
    put(&stayer, &report(1, 2)).await;
    let newcomer = writer(&stays, 2);
    put(&newcomer, &report(2, 1)).await;
    proxy.restore();
    let told = until_synced(&mut watch).await;
    for expected in [
        gone(0, GoneKind::FoundMissing),
        changed(1, 2),
        changed(2, 1),
    ] {
        assert!(told.contains(&expected), "{expected:?} is not in {told:?}");
    }
    assert_eq!(told.len(), 3, "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goal_that_changed_behind_a_partition_arrives_after_it() {
    let server = ZooKeeper::start();
    let mut scheduler = Scheduler::with_cluster(&server).await;
    let proxy = Proxy::start(server.address()).await;
    let url = format!("zk://{}/cotton", proxy.address()).parse().unwrap();
    let session = Session::connect(SessionConfig {
        url,
        ..config(&server, Duration::from_secs(60))
    });
    let mut watch = GoalWatch::start(session.clone(), &name("a"));
    goal_of(&mut watch, 0).await;
    proxy.cut();
    let mut state = session.state();
    let suspended = state.wait_for(|state| *state == SessionState::Suspended);
    tokio::time::timeout(DEADLINE, suspended)
        .await
        .unwrap()
        .unwrap();
    scheduler.set_epoch(1).await;
    scheduler.set_epoch(2).await;
    proxy.restore();
    let seen = next_goal(&mut watch).await;
    assert!(
        matches!(&seen.goal, GoalState::Present(goal) if goal.epoch == Epoch(2)),
        "{seen:?}"
    );
    assert_eq!(seen.generation, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_session_replaces_the_old_ones_node_without_a_gap() {
    let server = ZooKeeper::start();
    let _scheduler = Scheduler::with_cluster(&server).await;
    let client = onlooker(&server).await;
    let old = Session::connect(config(&server, Duration::from_secs(60)));
    old.connected(DEADLINE).await.unwrap();
    let first = writer(&old, 0);
    put(&first, &report(0, 1)).await;
    let mut watch = ReportWatch::start(connect(&server).await);
    until_synced(&mut watch).await;

    let new = connect(&server).await;
    let second = writer(&new, 0);
    put(&second, &report(0, 2)).await;
    assert_eq!(next_event(&mut watch).await, changed(0, 2));
    let path = format!("/cotton/control/a/members/{}", task(0));
    let owner = client
        .check_stat(&path)
        .await
        .unwrap()
        .unwrap()
        .ephemeral_owner;
    assert_eq!(owner, new.connection().unwrap().session_id());

    // The old session's end takes nothing away.
    drop(first);
    old.close(DEADLINE).await;
    put(&second, &report(0, 3)).await;
    assert_eq!(next_event(&mut watch).await, changed(0, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_written_again_in_a_new_session() {
    let mut server = ZooKeeper::start();
    let _scheduler = Scheduler::with_cluster(&server).await;
    let session = Session::connect(config(&server, SHORT));
    let reporter = writer(&session, 0);
    put(&reporter, &report(0, 1)).await;
    let mut watch = ReportWatch::start(connect(&server).await);
    until_synced(&mut watch).await;
    server.stop();
    let mut state = session.state();
    tokio::time::timeout(
        DEADLINE,
        state.wait_for(|state| *state == SessionState::Lost),
    )
    .await
    .unwrap()
    .unwrap();
    server.restart();
    let new = session.connected(DEADLINE).await.unwrap();
    let client = onlooker(&server).await;
    let path = format!("/cotton/control/a/members/{}", task(0));
    crate::support::eventually("the node is the new session's", DEADLINE, || async {
        let stat = client.check_stat(&path).await.unwrap();
        stat.is_some_and(|stat| stat.ephemeral_owner == new.session_id())
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_report_is_told_by_name() {
    let server = ZooKeeper::start();
    let _scheduler = Scheduler::with_cluster(&server).await;
    let client = onlooker(&server).await;
    let mut watch = ReportWatch::start(connect(&server).await);
    until_synced(&mut watch).await;
    let ephemeral =
        zookeeper_client::CreateMode::Ephemeral.with_acls(zookeeper_client::Acls::anyone_all());
    let foreign = serde_json::to_vec(&report(0, 1)).unwrap();
    let huge = vec![b' '; 300_000];
    let table = [
        ("torn", b"{".as_slice(), "EOF"),
        ("newer", b"{\"format\":9}", "format 9"),
        ("strange", b"{\"format\":1}", "missing field"),
        ("foreign", &foreign, "a report of a."),
        ("huge", &huge, "bytes"),
    ];
    for (node, data, sentence) in table {
        client
            .create(
                &format!("/cotton/control/a/members/{node}"),
                data,
                &ephemeral,
            )
            .await
            .unwrap();
        match next_event(&mut watch).await {
            ReportEvent::Unreadable { path, fault } => {
                assert_eq!(path, format!("/control/a/members/{node}"));
                assert!(fault.contains(sentence), "{fault}");
            }
            other => panic!("{other:?}"),
        }
    }
    write(&client, "/cotton/control/a/members/lasting", &foreign).await;
    let event = next_event(&mut watch).await;
    assert!(
        matches!(&event, ReportEvent::Unreadable { fault, .. } if fault.contains("not ephemeral")),
        "{event:?}"
    );
    write(&client, "/cotton/control/stray", b"").await;
    let session = connect(&server).await;
    put(&writer(&session, 0), &report(0, 1)).await;
    assert_eq!(next_event(&mut watch).await, changed(0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_is_too_large_is_refused_at_once() {
    let server = ZooKeeper::start();
    let session = connect(&server).await;
    let mut large = report(0, 1);
    large.problem = Some("x".repeat(300_000));
    assert!(writer(&session, 0).put(&large).is_err());
}
