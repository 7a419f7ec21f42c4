//! `cotton admin` as a process of its own against a listening server.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod backups;
mod changes;
mod looking;

use std::{path::PathBuf, process::Output};

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
