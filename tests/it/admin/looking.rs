//! What only looks: lists, one cluster, why, and waiting.

use cotton::cluster::view::ClusterState;

use super::{admin, texts};
use crate::http::double::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_are_listed_shown_and_waited_for() {
    let server = Server::start().await;
    let view = crate::http::pages::view("orders");
    server.show(true, vec![view.clone()]);
    let (_, list, _) = texts(&admin(&server, &["list"], "").await);
    let expected = "\
NAME    STATE    NODES  MASTER                 SIZE
orders  running  2      db7.example.com:31007  1 cpus, 512mb memory, 2gb disk
";
    assert_eq!(list, expected);
    let (_, shown, _) = texts(&admin(&server, &["show", "orders"], "").await);
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines[0], "name        orders");
    assert_eq!(
        lines[10],
        "MEMBER  ROLE    STATE    ADDRESS                VOTES  AGENT"
    );
    assert_eq!(
        lines[11],
        "0       master  running  db7.example.com:31007  yes    agent-<1>"
    );
    let (_, json, _) = texts(&admin(&server, &["show", "orders", "--json"], "").await);
    let shown: cotton::cluster::view::ClusterView = serde_json::from_str(&json).unwrap();
    assert_eq!(shown, view);
    let (status, ..) = texts(&admin(&server, &["wait", "orders"], "").await);
    assert_eq!(status, Some(0));
    let late = texts(
        &admin(
            &server,
            &["wait", "orders", "--for", "gone", "--timeout", "10ms"],
            "",
        )
        .await,
    );
    assert_eq!(late.0, Some(1));
    assert!(
        late.2
            .ends_with("cotton: orders is still running after 10ms\n"),
        "{}",
        late.2
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_that_starts_again_is_waited_for() {
    let server = Server::start().await;
    server.views.send_replace(Default::default());
    let late = texts(
        &admin(
            &server,
            &["wait", "orders", "--for", "gone", "--timeout", "10ms"],
            "",
        )
        .await,
    );
    assert_eq!(late.0, Some(1), "nothing known is not gone");
    assert!(
        late.2.contains("nothing is known of orders after 10ms"),
        "{}",
        late.2
    );
    let waits = admin(
        &server,
        &["wait", "orders", "--for", "gone", "--timeout", "1m"],
        "",
    );
    let starts = async {
        // Some looks come before the start; whether they do does not change what is expected.
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
        server.show(true, vec![]);
    };
    let (output, ()) = tokio::join!(waits, starts);
    assert_eq!(texts(&output).0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_are_explained() {
    let server = Server::start().await;
    server.show(true, vec![crate::http::pages::view("orders")]);
    server.explain(crate::http::pages::explanation("orders"));
    let (status, text, stderr) = texts(&admin(&server, &["explain", "orders"], "").await);
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    // How long ago it was changes; everything else is as it stands here.
    let text: Vec<String> = text.lines().map(without_age).collect();
    let expected = "\
orders is waiting: electing in epoch 3
A write is acknowledged by the master and 1 other of 3 voters; an election needs the reports of 3 - 1 = 2 voters.

It accepts no writes until
  1 more report must count, of these:
  member 0: <it> must start
  VOTER  COUNTED  MARKER  HELD                     NOT YET APPLIED
  0      no       -       its server does not run
  1      yes      1       0-1-9,50-1-1             nothing
  2      yes      1       0-1-10,50-1-1            0-1-10

Epoch 3: member 2 lost its place, nobody has it yet
  when    AGE (2026-02-01 12:01:40.000 UTC), not over yet
  why     the task of member 2 has ended (task-ended)
  before  member 2, task orders.0.2.1
  quorum  an election needs the reports of 3 - 1 = 2 voters; 0 counted

Epoch 2: member 2 took over from member 0
  when    AGE (2026-02-01 12:00:00.000 UTC), 215 ms without a master
  why     the server of <member 0> has ended (server-ended)
  before  member 0 at db0:31007, task orders.0.0.1
  quorum  an election needs the reports of 3 - 1 = 2 voters; 2 counted
  winner  member 2 at db2:31007, task orders.0.2.1: it held the most transactions
  phases  deciding 1 ms, storing the decision 10 ms, collecting the reports 40 ms, choosing 0 ms, storing the choice 10 ms, applying and opening 140 ms, publishing 15 ms
  VOTER  COUNTED      MARKER  HELD                     NOT YET APPLIED
  0      no           -       its server does not run
  1      after 20 ms  1       0-1-9,50-1-1             nothing
  2      after 50 ms  1       0-1-10,50-1-1            0-1-10";
    assert_eq!(text.join("\n"), expected);
    let json = admin(&server, &["explain", "orders", "--json"], "").await;
    let json: serde_json::Value = serde_json::from_str(&texts(&json).1).unwrap();
    assert_eq!(json["failovers"][1]["ending"]["cause"], "server-ended");
    let unknown = texts(&admin(&server, &["explain", "other"], "").await);
    let sentence = "cotton: there is no cluster \"other\" (404 Not Found)\n";
    assert_eq!(unknown, (Some(1), String::new(), sentence.to_owned()));
    let (_, help, _) = texts(&admin(&server, &["explain", "--help"], "").await);
    assert!(
        help.contains("cotton admin explain orders --json"),
        "{help}"
    );
}

fn without_age(line: &str) -> String {
    match (line.strip_prefix("  when    "), line.find(" ago (")) {
        (Some(_), Some(age)) => format!("  when    AGE{}", &line[age + " ago".len()..]),
        _ => line.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_seen_when_it_happens() {
    let server = Server::start().await;
    let mut view = crate::http::pages::view("orders");
    view.state = ClusterState::Electing;
    server.show(true, vec![view.clone()]);
    let idle = server.views.receiver_count();
    let waits = admin(&server, &["wait", "orders", "--timeout", "5m"], "");
    let changes = async {
        // The process takes a while to start; a look that waits for a change is one more who watches.
        let deadline = std::time::Duration::from_secs(60);
        crate::support::eventually("it looks", deadline, async || {
            (server.views.receiver_count() > idle).then_some(())
        })
        .await;
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
        view.reason = "a new reason".to_owned();
        server.show(true, vec![view.clone()]);
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
        view.state = ClusterState::Running;
        server.show(true, vec![view]);
        tokio::time::Instant::now()
    };
    let (output, changed) = tokio::join!(waits, changes);
    let (status, _, stderr) = texts(&output);
    assert_eq!(status, Some(0));
    assert!(stderr.contains("a new reason"), "{stderr}");
    assert!(changed.elapsed() < std::time::Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_no_record_explains_are_told_of() {
    let server = Server::start().await;
    let quiet = texts(&admin(&server, &["list"], "").await);
    assert_eq!((quiet.0, quiet.2), (Some(0), String::new()));
    let none = texts(&admin(&server, &["unknown-tasks"], "").await);
    assert_eq!((none.0, none.1), (Some(0), String::new()));
    server.show_unknown_task(crate::http::pages::unknown_task(), 0);
    let (status, _, told) = texts(&admin(&server, &["list"], "").await);
    let sentence =
        "cotton: one task runs that no record explains; see cotton admin unknown-tasks\n";
    assert_eq!((status, told.as_str()), (Some(0), sentence));
    let (status, listed, told) = texts(&admin(&server, &["unknown-tasks"], "").await);
    assert_eq!(status, Some(0));
    assert!(
        listed.contains("orders.0123abcd.2.5  TASK_RUNNING  agent-<1>"),
        "{listed}"
    );
    assert!(
        listed.contains("the state knows no cluster orders"),
        "{listed}"
    );
    assert!(told.starts_with("they are left running"), "{told}");

    server.show_unknown_task(crate::http::pages::unknown_task(), 17);
    let (_, _, told) = texts(&admin(&server, &["list"], "").await);
    assert!(told.starts_with("cotton: 18 tasks run that"), "{told}");
    let (_, _, told) = texts(&admin(&server, &["unknown-tasks"], "").await);
    assert!(told.starts_with("and 17 more, which are not"), "{told}");
}
