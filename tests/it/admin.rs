//! `cotton admin` as a process of its own against a listening server.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{path::PathBuf, process::Output};

use cotton::cluster::view::{ChangeView, ClusterState};

use crate::http::double::{MADE_PASSWORD, Server};

/// Runs `cotton admin` with these words, `stdin` as its standard input.
async fn admin(server: &Server, words: &[&str], stdin: &str) -> Output {
    let mut command = assert_cmd::Command::cargo_bin("cotton").unwrap();
    command
        .arg("admin")
        .args(words)
        .env("COTTON_API", server.url())
        .write_stdin(stdin);
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

fn texts(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn password_file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn create_prints_the_answer() {
    let server = Server::start().await;
    let output = admin(
        &server,
        &["create", "orders", "--user", "app", "--num-nodes", "2"],
        "",
    )
    .await;
    let answer = format!(
        "{{\"cluster_password\":\"{MADE_PASSWORD}\",\"cluster_url\":\"zk://z:2181/cotton/discover/orders\"}}\n"
    );
    assert_eq!(texts(&output), (Some(0), answer, String::new()));
    assert_eq!(server.clusters()[0].num_nodes, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_come_from_files_and_standard_input() {
    let server = Server::start().await;
    let (_folder, file) = password_file("p&w= ä\n");
    let file = file.to_str().unwrap();
    let create = [
        "create",
        "a",
        "--user",
        "app",
        "--size",
        r#"{"mem": "1gb"}"#,
        "--password-file",
        file,
    ];
    let (status, stdout, stderr) = texts(&admin(&server, &create, "").await);
    assert_eq!(status, Some(0), "{stderr}");
    assert!(
        stdout.contains("\"cluster_password\":\"p&w= ä\""),
        "{stdout}"
    );
    assert_eq!(server.clusters()[0].size.mem_mib(), 1024);
    let wrong = texts(&admin(&server, &["delete", "a", "--password-file", "-"], "wrong\n").await);
    let sentence = "cotton: the password is not that of the cluster's user (403 Forbidden)\n";
    assert_eq!(wrong, (Some(1), String::new(), sentence.to_owned()));
    let right = texts(
        &admin(
            &server,
            &["delete", "a", "--password-file", "-"],
            "p&w= ä\n",
        )
        .await,
    );
    let answer = "{\"cluster_url\":\"zk://z:2181/cotton/discover/a\"}\n";
    assert_eq!(right, (Some(0), answer.to_owned(), String::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_told_in_the_words_of_the_scheduler() {
    let server = Server::start().await;
    for (words, stdin, status, sentence) in [
        (
            &["create", "../x", "--user", "app"][..],
            "",
            1,
            "cotton: the cluster name \"../x\" is not valid: use 1 to 64 letters, digits, '_' and '-', starting with a letter or digit (400 Bad Request)\n",
        ),
        (
            &["create", "a", "--user", "root"],
            "",
            1,
            "cotton: cluster_user \"root\" is the name of an account that the server or Cotton has for itself; take another name (400 Bad Request)\n",
        ),
        (
            &["create", "a", "--user", "app", "--num-nodes", "99"],
            "",
            1,
            "cotton: num_nodes must be a whole number from 1 to 15, not \"99\" (400 Bad Request)\n",
        ),
        (
            &["show", "a"],
            "",
            1,
            "cotton: there is no cluster \"a\" (404 Not Found)\n",
        ),
        (&["wait", "a"], "", 1, "cotton: there is no cluster \"a\"\n"),
        (&["wait", "a", "--for", "gone"], "", 0, ""),
        (
            &["delete", "a"],
            "",
            1,
            "cotton: the password of a is needed: give --password-file FILE, or - for standard input\n",
        ),
        (
            &["delete", "a", "--password-file", "-"],
            "",
            1,
            "cotton: read the password from standard input: it is empty\n",
        ),
        (
            &["delete", "a", "--password-file", "/nonexistent"],
            "",
            1,
            "cotton: read the password from /nonexistent: No such file or directory (os error 2)\n",
        ),
        (
            &["wait", "a", "--for", "happiness"],
            "",
            2,
            "cotton: invalid value 'happiness' for '--for <STATE>': it is none of creating, running, degraded, electing, waiting, deleting, failed, gone; see --help\n",
        ),
        (
            &["wait", "a", "--timeout", "5"],
            "",
            2,
            "cotton: invalid value '5' for '--timeout <TIME>': it is not a time such as 30s, 5m or 1h; see --help\n",
        ),
        (
            &["list", "--api", "https://a"],
            "",
            2,
            "cotton: invalid value 'https://a' for '--api <URL>': https is not supported; give an http:// URL, if need be of a local TLS tunnel; see --help\n",
        ),
        (
            &["create", "a"],
            "",
            2,
            "cotton: the following required arguments were not provided: --user <NAME>; see --help\n",
        ),
    ] {
        let output = texts(&admin(&server, words, stdin).await);
        assert_eq!(
            output,
            (Some(status), String::new(), sentence.to_owned()),
            "{words:?}"
        );
    }
    assert_eq!(server.clusters(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_that_is_not_there_is_told() {
    let output = assert_cmd::Command::cargo_bin("cotton")
        .unwrap()
        .args(["admin", "--api", "http://127.0.0.1:1", "list"])
        .output()
        .unwrap();
    let (status, _, stderr) = texts(&output);
    assert_eq!(status, Some(1));
    assert!(
        stderr.starts_with("cotton: GET http://127.0.0.1:1/clusters: "),
        "{stderr}"
    );
    assert!(
        stderr.contains("Connection refused") && stderr.lines().count() == 1,
        "{stderr}"
    );
    let output = assert_cmd::Command::cargo_bin("cotton")
        .unwrap()
        .args(["admin", "list"])
        .env_remove("COTTON_API")
        .output()
        .unwrap();
    let sentence = "cotton: --api is missing: say where the scheduler is, with --api http://HOST:PORT or COTTON_API\n";
    assert_eq!(
        texts(&output),
        (Some(2), String::new(), sentence.to_owned())
    );
}

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
async fn a_loss_has_to_be_accepted_and_a_change_is_told() {
    let server = Server::start().await;
    let create = ["create", "a", "--user", "app", "--password-file", "-"];
    assert_eq!(
        admin(&server, &create, "right").await.status.code(),
        Some(0)
    );
    let unread = ["failover", "a", "--password-file", "-"];
    let (status, stdout, stderr) = texts(&admin(&server, &unread, "right").await);
    assert_eq!((status, stdout), (Some(1), String::new()));
    assert!(stderr.contains("accept_data_loss=true"), "{stderr}");
    assert!(
        stderr.contains("known to be lost: 0-1-7 of member 0"),
        "{stderr}"
    );
    let accept = [
        "failover",
        "a",
        "--accept-data-loss",
        "--password-file",
        "-",
    ];
    let (status, stdout, stderr) = texts(&admin(&server, &accept, "right").await);
    assert_eq!((status, stderr), (Some(0), String::new()));
    assert!(
        stdout.contains("master becomes member 1, which holds 0-1-5"),
        "{stdout}"
    );
    assert_eq!(
        admin(&server, &accept, "wrong").await.status.code(),
        Some(1)
    );

    let change = [
        "change",
        "a",
        "--durability",
        "async",
        "--password-file",
        "-",
    ];
    let changed = texts(&admin(&server, &change, "right").await);
    let told = "durability: from majority to async\n".to_owned();
    assert_eq!(changed, (Some(0), told, String::new()));
    let again = texts(&admin(&server, &change, "right").await);
    let told = "nothing to change: it is so already\n".to_owned();
    assert_eq!(again, (Some(0), told, String::new()));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[mysqld]\nmax_connections=7\n").unwrap();
    let my_cnf = file.path().to_str().unwrap();
    let change = [
        "change",
        "a",
        "--my-cnf",
        my_cnf,
        "--mem",
        "1gb",
        "--plan",
        "--password-file",
        "-",
    ];
    let (status, told, _) = texts(&admin(&server, &change, "right").await);
    assert_eq!(status, Some(0));
    assert!(
        told.contains("my_cnf: from no settings to 2 lines"),
        "{told}"
    );
    assert!(told.contains("Nothing was done."), "{told}");
    let restart = ["restart", "a", "--member", "2", "--password-file", "-"];
    let told = "member 2 is restarted, force=false\n".to_owned();
    let output = texts(&admin(&server, &restart, "right").await);
    assert_eq!(output, (Some(0), told, String::new()));
    let mut view = crate::http::pages::view("a");
    view.standing.change = Some(ChangeView {
        revision: 4,
        asked_at: cotton::time::Timestamp::from_millis(1000),
        members_with_it: vec![1],
        members_without_it: vec![0],
        stopped: Some("change stopped: it is how it is".to_owned()),
    });
    server.show(true, vec![view]);
    let wait = [
        "change",
        "a",
        "--cpus",
        "2",
        "--wait",
        "--password-file",
        "-",
    ];
    let (status, _, told) = texts(&admin(&server, &wait, "right").await);
    assert_eq!(status, Some(1));
    assert!(told.contains("change stopped: it is how it is"), "{told}");
    let (_, shown, _) = texts(&admin(&server, &["show", "a"], "").await);
    assert!(
        shown.contains("revision 4: 1 of 2 members have it"),
        "{shown}"
    );
    let nothing = ["change", "a", "--password-file", "-"];
    assert_eq!(
        admin(&server, &nothing, "right").await.status.code(),
        Some(2)
    );
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

/// Goal: a pause says how it ends. Method: pause, resume.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_paused_and_goes_on() {
    let server = Server::start().await;
    let create = ["create", "a", "--user", "app", "--password-file", "-"];
    admin(&server, &create, "right").await;
    for (verb, told) in [
        (
            "pause",
            "a is paused: nothing is decided for it until cotton admin resume a\n",
        ),
        ("resume", "a goes on\n"),
    ] {
        let ask = [verb, "a", "--password-file", "-"];
        let output = admin(&server, &ask, "right").await;
        assert_eq!(texts(&output), (Some(0), told.to_owned(), String::new()));
    }
}

/// Goal: a switchover that does not come about is an error for whoever waits. Method: the view says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_of_a_switchover_is_told() {
    let server = Server::start().await;
    let create = ["create", "a", "--user", "app", "--password-file", "-"];
    admin(&server, &create, "right").await;
    let ask = ["switchover", "a", "--to", "2", "--password-file", "-"];
    let told = "member 2 is to take over from member 0\n".to_owned();
    let output = admin(&server, &ask, "right").await;
    assert_eq!(texts(&output), (Some(0), told, String::new()));
    let same = [
        "switchover",
        "a",
        "--to",
        "0",
        "--wait",
        "--password-file",
        "-",
    ];
    let (status, stdout, _) = texts(&admin(&server, &same, "right").await);
    assert_eq!(status, Some(0));
    assert!(
        stdout.contains("member 0 is the master already"),
        "{stdout}"
    );

    for (done, status) in [(true, Some(0)), (false, Some(1))] {
        let mut view = crate::http::pages::view("a");
        let over = serde_json::json!({
            "number": 3, "epoch": 2, "from": 0, "process": uuid::Uuid::from_u128(1), "to": 2, "asked_at": 1000,
            "outcome": {"done": done, "epoch": 2, "at": 2000, "sentence": "this is how it is"},
        });
        view.standing.switchover = serde_json::from_value(over).unwrap();
        server.show(true, vec![view]);
        let wait = [
            "switchover",
            "a",
            "--to",
            "2",
            "--wait",
            "--password-file",
            "-",
        ];
        let (found, _, stderr) = texts(&admin(&server, &wait, "right").await);
        assert_eq!(found, status, "{stderr}");
        assert!(stderr.contains("this is how it is"), "{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_is_listed_brought_back_and_given_up() {
    let server = Server::start().await;
    let none = texts(&admin(&server, &["slots"], "").await);
    assert_eq!((none.0, none.1), (Some(0), String::new()));
    server.show_left(crate::http::pages::left());
    let (status, listed, told) = texts(&admin(&server, &["slots"], "").await);
    assert_eq!(status, Some(0), "{told}");
    let lines: Vec<Vec<&str>> = listed
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[1][..4], ["orders", "2", "kept", "db7.example.com"]);
    assert_eq!(lines[2][..3], ["orders", "2", "orphaned"]);
    assert_eq!(lines[5][..4], ["orders", "app", "3", "1"]);
    assert!(told.contains("cotton admin slots --reclaim SLOT"), "{told}");

    let undelete = ["undelete", "deleted", "--password-file", "-"];
    let (status, answer, _) = texts(&admin(&server, &undelete, "right").await);
    assert_eq!(status, Some(0));
    let url = "\"cluster_url\":\"zk://z:2181/cotton/discover/deleted\"";
    assert!(answer.contains(url), "{answer}");
    let other = ["undelete", "deleted", "--as", "b", "--password-file", "-"];
    let (_, answer, _) = texts(&admin(&server, &other, "right").await);
    assert!(answer.contains("/discover/b\""), "{answer}");

    let reclaim = ["slots", "--reclaim", "an-orphan", "--password-file", "-"];
    let (status, _, told) = texts(&admin(&server, &reclaim, "right").await);
    assert_eq!(status, Some(1));
    assert!(told.contains("the account of --admin-keypath"), "{told}");
    let administrator = crate::http::double::ADMINISTRATOR;
    let (status, answer, told) = texts(&admin(&server, &reclaim, administrator).await);
    assert_eq!(status, Some(0), "{told}");
    assert!(
        answer.contains("the slot an-orphan of the cluster orders")
            && answer.contains("no record says what lies on it"),
        "{answer}"
    );
}
