//! The REST API and the web page over a real listening server, with a test double of the core behind it.
//!
//! Every parameter has its wrong values and the sentence they get; a refused request reaches the core never.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod backups;
mod changes;
pub mod double;
pub mod from_backup;
pub mod pages;
mod patience;

use std::process::Command;

use http::{Method, Request, StatusCode};
use http_body_util::Full;
use tokio::sync::mpsc;

use self::double::{MADE_PASSWORD, Server};

#[tokio::test]
async fn both_encodings_make_a_cluster() {
    let server = Server::start().await;
    let answer = server
        .form(
            Method::POST,
            "/clusters/one",
            "cluster_user=mysos&num_nodes=2",
        )
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    let expected = serde_json::json!({
        "cluster_password": MADE_PASSWORD,
        "cluster_url": "zk://z:2181/cotton/discover/one",
    });
    assert_eq!(answer.json(), expected);
    let fields = [
        ("cluster_user", &b"mysos"[..]),
        ("num_nodes", b"1"),
        ("num_nodes", b"2"),
        ("size", b""),
    ];
    let answer = server
        .multipart(Method::POST, "/clusters/two", &fields)
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let made = server.clusters();
    assert_eq!(
        made.iter().map(|spec| spec.num_nodes).collect::<Vec<_>>(),
        [2, 2]
    );
}

#[tokio::test]
async fn the_last_of_a_repeated_field_wins_and_an_empty_one_is_not_given() {
    let server = Server::start().await;
    for (name, body, nodes) in [
        ("a", "cluster_user=u&num_nodes=1&num_nodes=2", 2),
        ("b", "cluster_user=u&num_nodes=1&num_nodes=", 3),
        ("c", "cluster_user=&cluster_user=u&num_nodes=", 3),
    ] {
        let answer = server
            .form(Method::POST, &format!("/clusters/{name}"), body)
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{body}: {}", answer.text());
        let made = server
            .clusters()
            .into_iter()
            .find(|spec| spec.name.as_str() == name)
            .unwrap();
        assert_eq!(made.num_nodes, nodes, "{body}");
    }
}

#[tokio::test]
async fn a_request_can_be_repeated_and_another_one_conflicts() {
    let server = Server::start().await;
    let first = server
        .form(Method::POST, "/clusters/a", "cluster_user=u")
        .await;
    let again = server
        .form(Method::POST, "/clusters/a", "cluster_user=u")
        .await;
    assert_eq!((again.status, again.json()), (StatusCode::OK, first.json()));
    let other = server
        .form(Method::POST, "/clusters/a", "cluster_user=u&num_nodes=1")
        .await;
    assert_eq!(other.status, StatusCode::CONFLICT);
    let detail =
        "there is already a cluster a with other settings; choose another name, or delete it first";
    assert_eq!(other.problem().detail, detail);
}

#[tokio::test]
async fn deletion_wants_the_password() {
    let server = Server::start().await;
    server
        .form(
            Method::POST,
            "/clusters/a",
            "cluster_user=u&cluster_password=right",
        )
        .await;
    for (path, body, status, detail) in [
        (
            "/clusters/b",
            "password=right",
            404,
            "there is no cluster \"b\"",
        ),
        (
            "/clusters/-",
            "password=right",
            404,
            "there is no cluster \"-\"",
        ),
        (
            "/clusters/a",
            "",
            401,
            "the form field password is missing: give the password of the cluster's user",
        ),
        (
            "/clusters/a",
            "password=",
            401,
            "the form field password is missing: give the password of the cluster's user",
        ),
        (
            "/clusters/a",
            "password=wrong",
            403,
            "the password is not that of the cluster's user",
        ),
        (
            "/clusters/a",
            "passwrd=right",
            400,
            "there is no form field \"passwrd\" here; the fields are password",
        ),
    ] {
        let answer = server.form(Method::DELETE, path, body).await;
        assert_eq!(answer.status, status, "{path} {body}");
        assert_eq!(answer.problem().detail, detail);
    }
    let answer = server
        .multipart(Method::DELETE, "/clusters/a", &[("password", b"right")])
        .await;
    assert_eq!(
        answer.json(),
        serde_json::json!({"cluster_url": "zk://z:2181/cotton/discover/a"})
    );
}

#[tokio::test]
async fn wrong_parameters_and_their_sentences() {
    let server = Server::start().await;
    let user = "cluster_user must be 1 to 32 printable ASCII characters without spaces, quotes and backslashes, not ";
    let reserved =
        "is the name of an account that the server or Cotton has for itself; take another name";
    let name =
        "is not valid: use 1 to 64 letters, digits, '_' and '-', starting with a letter or digit";
    let (long, long_name) = ("x".repeat(33), "x".repeat(65));
    let long_password = "x".repeat(129);
    let long_user = format!("cluster_user={long}");
    let long_path = format!("/clusters/{long_name}");
    let long_password = format!("cluster_user=u&cluster_password={long_password}");
    for (path, body, field, sentence) in [
        ("/clusters/-a", "cluster_user=u", "name", name),
        ("/clusters/_a", "cluster_user=u", "name", name),
        ("/clusters/a.b", "cluster_user=u", "name", name),
        ("/clusters/a%2Fb", "cluster_user=u", "name", name),
        ("/clusters/%C3%A4", "cluster_user=u", "name", name),
        ("/clusters/..%2F..", "cluster_user=u", "name", name),
        (&long_path, "cluster_user=u", "name", name),
        (
            "/clusters/a",
            "",
            "cluster_user",
            "cluster_user is missing: give the name of the account that is to be made in the cluster",
        ),
        (
            "/clusters/a",
            "cluster_user=",
            "cluster_user",
            "cluster_user is missing",
        ),
        ("/clusters/a", &long_user, "cluster_user", user),
        ("/clusters/a", "cluster_user=a%20b", "cluster_user", user),
        ("/clusters/a", "cluster_user=a%27b", "cluster_user", user),
        ("/clusters/a", "cluster_user=a%60b", "cluster_user", user),
        ("/clusters/a", "cluster_user=a%5C", "cluster_user", user),
        ("/clusters/a", "cluster_user=a%00", "cluster_user", user),
        ("/clusters/a", "cluster_user=%C3%A4", "cluster_user", user),
        ("/clusters/a", "cluster_user=root", "cluster_user", reserved),
        (
            "/clusters/a",
            "cluster_user=mysql.sys",
            "cluster_user",
            reserved,
        ),
        (
            "/clusters/a",
            "cluster_user=mariadb.sys",
            "cluster_user",
            reserved,
        ),
        (
            "/clusters/a",
            "cluster_user=admin",
            "cluster_user",
            reserved,
        ),
        (
            "/clusters/a",
            "cluster_user=u&num_nodes=0",
            "num_nodes",
            "num_nodes must be a whole number from 1 to 15, not \"0\"",
        ),
        (
            "/clusters/a",
            "cluster_user=u&num_nodes=16",
            "num_nodes",
            "num_nodes must be a whole number from 1 to 15, not \"16\"",
        ),
        (
            "/clusters/a",
            "cluster_user=u&num_nodes=-1",
            "num_nodes",
            "num_nodes must be a whole number from 1 to 15, not \"-1\"",
        ),
        (
            "/clusters/a",
            "cluster_user=u&num_nodes=2.5",
            "num_nodes",
            "num_nodes must be a whole number from 1 to 15, not \"2.5\"",
        ),
        (
            "/clusters/a",
            "cluster_user=u&num_nodes=99999999999999999999",
            "num_nodes",
            "num_nodes must be a whole number from 1 to 15",
        ),
        (
            "/clusters/a",
            "cluster_user=u&num_nodes=three",
            "num_nodes",
            "num_nodes must be a whole number from 1 to 15, not \"three\"",
        ),
        (
            "/clusters/a",
            "cluster_user=u&size=large",
            "size",
            "size must be a JSON object such as",
        ),
        (
            "/clusters/a",
            "cluster_user=u&size=%7B%22mem%22%3A%2216mb%22%7D",
            "size",
            "size: mem must be from 352mb to 64tb, not 16mb",
        ),
        (
            "/clusters/a",
            "cluster_user=u&size=%7B%22cpus%22%3A0.01%7D",
            "size",
            "size: cpus must be from 0.1 to 1024, not 0.01",
        ),
        (
            "/clusters/a",
            "cluster_user=u&size=%7B%22disk%22%3A%222%22%7D",
            "size",
            "size: disk must be an amount such as",
        ),
        (
            "/clusters/a",
            "cluster_user=u&size=%7B%22gpus%22%3A1%7D",
            "size",
            "size has the unknown key \"gpus\"; its keys are cpus, mem and disk",
        ),
        (
            "/clusters/a",
            "cluster_user=u&durability=best",
            "durability",
            "durability must be majority or async, not \"best\"",
        ),
        (
            "/clusters/a",
            "cluster_user=u&backup_id=foo/bar:201503122000",
            "backup_id",
            "backup_id was given, but no backup store is configured, so there is nothing to restore from; leave backup_id out",
        ),
        (
            "/clusters/a",
            "cluster_user=u&cluster_password=a%00b",
            "cluster_password",
            "cluster_password must not contain control characters",
        ),
        (
            "/clusters/a",
            "cluster_user=u&cluster_password=a%0A",
            "cluster_password",
            "cluster_password must not contain control characters",
        ),
        (
            "/clusters/a",
            &long_password,
            "cluster_password",
            "cluster_password must have at most 128 characters",
        ),
        (
            "/clusters/a",
            "cluster_user=u&num_node=2",
            "num_node",
            "there is no form field \"num_node\" here; the fields are cluster_user, num_nodes, size, durability, backup_id, restore_to, backup_schedule, backup_keep, replace_after, my_cnf, package, cluster_password",
        ),
    ] {
        let answer = server.form(Method::POST, path, body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path} {body}");
        let problem = answer.problem();
        assert!(
            problem.detail.contains(sentence),
            "{path} {body}:\n  {}\nis not\n  {sentence}",
            problem.detail
        );
        let fields: Vec<_> = problem
            .errors
            .iter()
            .map(|fault| fault.field.as_str())
            .collect();
        assert_eq!(fields, [field], "{path} {body}");
    }
    assert_eq!(server.clusters(), [], "a refused request made something");
}

#[tokio::test]
async fn all_faults_come_in_one_answer() {
    let server = Server::start().await;
    let body = "num_nodes=0&size=x&durability=y&backup_id=z&colour=red";
    let problem = server
        .form(Method::POST, "/clusters/-", body)
        .await
        .problem();
    let fields: Vec<_> = problem
        .errors
        .iter()
        .map(|fault| fault.field.as_str())
        .collect();
    let expected = [
        "colour",
        "name",
        "cluster_user",
        "num_nodes",
        "size",
        "durability",
        "backup_id",
    ];
    assert_eq!(fields, expected);
    assert!(
        problem.detail.matches("; ").count() >= 6,
        "{}",
        problem.detail
    );
}

#[tokio::test]
async fn bodies_that_are_no_forms_are_refused() {
    let server = Server::start().await;
    let path = "/clusters/a";
    let json = server
        .send(Method::POST, path, "application/json", "{}")
        .await;
    assert_eq!(json.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(
        json.problem()
            .detail
            .starts_with("the body must be multipart/form-data or")
    );
    let no_boundary = server
        .send(Method::POST, path, "multipart/form-data", "x")
        .await;
    assert_eq!(no_boundary.status, StatusCode::BAD_REQUEST);
    assert!(
        no_boundary
            .problem()
            .detail
            .starts_with("the form cannot be read: ")
    );
    let kind = "multipart/form-data; boundary=xyz";
    let cut = server
        .send(
            Method::POST,
            path,
            kind,
            "--xyz\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb",
        )
        .await;
    assert_eq!(cut.status, StatusCode::BAD_REQUEST, "{}", cut.text());
    let nameless = server
        .send(
            Method::POST,
            path,
            kind,
            "--xyz\r\nContent-Disposition: form-data\r\n\r\nb\r\n--xyz--\r\n",
        )
        .await;
    assert_eq!(
        nameless.problem().detail,
        "the form cannot be read: a part has no name"
    );
    let binary = server
        .multipart(Method::POST, path, &[("cluster_user", b"\xff")])
        .await;
    assert_eq!(
        binary.problem().detail,
        "the form cannot be read: the value of \"cluster_user\" is not UTF-8"
    );
    assert_eq!(server.clusters(), []);
}

#[tokio::test]
async fn bodies_are_bounded() {
    let server = Server::start().await;
    let body = format!("cluster_user=u&size={}", "x".repeat(64 * 1024));
    let answer = server.form(Method::POST, "/clusters/a", &body).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(
        answer.problem().detail,
        "the request's body is larger than 65536 bytes"
    );
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() {
    let server = Server::start().await;
    let answer = server.get("/nowhere").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(
        answer
            .problem()
            .detail
            .starts_with("there is nothing at /nowhere; see GET /clusters")
    );
    let answer = server.form(Method::PUT, "/clusters", "").await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.problem().detail, "PUT is not possible at /clusters");
    assert!(answer.headers["allow"].to_str().unwrap().contains("GET"));
}

#[tokio::test]
async fn pages_of_other_sites_cannot_change_anything() {
    let server = Server::start().await;
    let request = Request::post(format!("{}/clusters/a", server.url()))
        .header("content-type", "application/x-www-form-urlencoded")
        .header("sec-fetch-site", "cross-site")
        .body(Full::from("cluster_user=u"))
        .unwrap();
    let answer = server.exchange(request).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(server.clusters(), []);
}

#[tokio::test]
async fn a_core_that_is_full_or_gone_is_told() {
    let (requests, inbox) = mpsc::channel(1);
    let server = std::sync::Arc::new(Server::with_requests(requests.clone()).await);
    // The first request waits in the queue, which nobody reads; the second finds no room.
    let first = tokio::spawn({
        let server = server.clone();
        async move {
            server
                .form(Method::POST, "/clusters/a", "cluster_user=u")
                .await
        }
    });
    crate::support::eventually(
        "the queue is full",
        std::time::Duration::from_secs(10),
        || async { (requests.capacity() == 0).then_some(()) },
    )
    .await;
    let second = server
        .form(Method::POST, "/clusters/b", "cluster_user=u")
        .await;
    assert_eq!(second.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(second.headers["retry-after"], "1");
    assert!(
        second
            .problem()
            .detail
            .starts_with("too many requests are waiting")
    );
    // The core ends: what was in its queue may or may not have been done.
    drop(inbox);
    let first = first.await.unwrap();
    assert_eq!(first.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(first.problem().detail.contains("it is safe to repeat it"));
    let third = server
        .form(Method::POST, "/clusters/c", "cluster_user=u")
        .await;
    assert!(
        third
            .problem()
            .detail
            .starts_with("this scheduler is stopping")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lines_of_the_user_guide_work() {
    let server = Server::start().await;
    let host = server.url();
    let curl = |arguments: &[&str]| {
        let output = Command::new("curl")
            .arg("--silent")
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "curl: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let third = format!("{host}/clusters/test_cluster3");
    let form = [
        "--form",
        "cluster_user=mysos",
        "--form",
        "num_nodes=2",
        "--form",
        "num_nodes=2",
    ];
    let answer = curl(&[&["-X", "POST", &third][..], &form].concat());
    assert_eq!(answer["cluster_password"], MADE_PASSWORD);
    assert_eq!(server.clusters()[0].num_nodes, 2);
    let fourth = format!("{host}/clusters/test_cluster4");
    let answer = curl(&[
        "-X",
        "POST",
        &fourth,
        "--form",
        "cluster_user=mysos",
        "--form",
        "backup_id=foo/bar:201503122000",
        "--form",
        r#"size={"mem": "1gb", "disk": "3gb", "cpus": 1.0}"#,
    ]);
    assert_eq!(
        (&answer["status"], &answer["errors"][0]["field"]),
        (&400.into(), &"backup_id".into())
    );
    assert_eq!(
        answer["errors"].as_array().unwrap().len(),
        1,
        "the size is right: {answer}"
    );
    let answer = curl(&[
        "-X",
        "DELETE",
        &third,
        "--form",
        "password=w9gMCkecsMh6sWsRdxNTa",
    ]);
    assert_eq!(
        answer,
        serde_json::json!({"cluster_url": "zk://z:2181/cotton/discover/test_cluster3"})
    );
}
