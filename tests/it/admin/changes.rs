//! What changes a cluster, and what comes of it.

use cotton::cluster::view::ChangeView;

use super::{admin, texts};
use crate::http::double::Server;

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
