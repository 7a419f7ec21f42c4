//! Changing what is there: settings, number and place of members, pauses, failovers; bringing deleted clusters back, giving slots up.

use http::{Method, StatusCode};

use super::double::Server;

/// What a change and a failover take, and what they answer.
#[tokio::test]
async fn changes_and_failovers_take_the_password_and_known_fields() {
    let server = Server::start().await;
    let made = "cluster_user=u&cluster_password=right";
    server.form(Method::POST, "/clusters/a", made).await;
    let (change, failover) = ("/clusters/a", "/clusters/a/failover");
    for (method, path, body, status, detail) in [
        (
            Method::PATCH,
            "/clusters/b",
            "durability=async&password=right",
            404,
            "there is no cluster \"b\"",
        ),
        (
            Method::PATCH,
            change,
            "durability=async",
            401,
            "the form field password is missing: give the password of the cluster's user",
        ),
        (
            Method::PATCH,
            change,
            "durability=async&password=x",
            403,
            "the password is not that of the cluster's user",
        ),
        (
            Method::PATCH,
            change,
            "durability=most&password=right",
            400,
            "durability must be majority or async, not \"most\"",
        ),
        (
            Method::PATCH,
            change,
            "password=right",
            400,
            "nothing is given that is to be changed; give size, cpus, mem, disk, my_cnf, package, replace_after=TIME, backup_schedule=SCHEDULE, backup_keep=RULE, durability=majority or durability=async",
        ),
        (
            Method::PATCH,
            change,
            "durability=async&num_nodes=2&password=right",
            400,
            "there is no form field \"num_nodes\" here; the fields are password, durability, replace_after, backup_schedule, backup_keep, size, cpus, mem, disk, my_cnf, package, force, plan",
        ),
        (
            Method::POST,
            "/clusters/b/failover",
            "password=right",
            404,
            "there is no cluster \"b\"",
        ),
        (
            Method::POST,
            failover,
            "accept_data_loss=true",
            401,
            "the form field password is missing: give the password of the cluster's user",
        ),
        (
            Method::POST,
            failover,
            "accept_data_loss=true&password=x",
            403,
            "the password is not that of the cluster's user",
        ),
        (
            Method::POST,
            failover,
            "accept_data_loss=yes&password=right",
            400,
            "accept_data_loss must be true or false",
        ),
        (
            Method::POST,
            failover,
            "force=true&password=right",
            400,
            "there is no form field \"force\" here; the fields are password, accept_data_loss",
        ),
    ] {
        let answer = server.form(method.clone(), path, body).await;
        assert_eq!(answer.status, status, "{method} {path} {body}");
        assert_eq!(answer.problem().detail, detail, "{method} {path} {body}");
    }
    for (path, from, to) in [("pause", "false", "true"), ("resume", "true", "false")] {
        let path = format!("/clusters/a/{path}");
        let answer = server.form(Method::POST, &path, "password=right").await;
        let changed = serde_json::json!([{"field": "paused", "from": from, "to": to}]);
        assert_eq!(answer.json()["changed"], changed);
        let unknown = server
            .form(Method::POST, &path, "password=right&for=1h")
            .await;
        assert_eq!(unknown.status, 400);
        let missing = server.form(Method::POST, &path, "").await;
        assert_eq!(missing.status, 401);
    }
    let switchover = "/clusters/a/switchover";
    for (body, status, detail) in [
        (
            "to=1",
            401,
            "the form field password is missing: give the password of the cluster's user",
        ),
        (
            "to=one&password=right",
            400,
            "to must be the number of a member, such as 1",
        ),
        (
            "target=1&password=right",
            400,
            "there is no form field \"target\" here; the fields are password, to",
        ),
    ] {
        let answer = server.form(Method::POST, switchover, body).await;
        assert_eq!(answer.status, status, "{body}");
        assert_eq!(answer.problem().detail, detail, "{body}");
    }
    let asked = server
        .form(Method::POST, switchover, "to=2&password=right")
        .await;
    assert_eq!(asked.json()["switchover"]["to"], 2);
    let asked = server
        .form(Method::POST, switchover, "to=0&password=right")
        .await;
    assert_eq!(asked.json()["to"], 0);
    assert!(asked.json().get("switchover").is_none());
    for (method, path, body, status, detail) in [
        (
            Method::PUT,
            "/clusters/a",
            "num_nodes=16&password=right",
            400,
            "num_nodes must be a whole number from 1 to 15, not \"16\"",
        ),
        (
            Method::PUT,
            "/clusters/a",
            "password=right",
            400,
            "num_nodes is missing: say how many members there are to be",
        ),
        (
            Method::PUT,
            "/clusters/a",
            "num_nodes=2",
            401,
            "the form field password is missing: give the password of the cluster's user",
        ),
        (
            Method::POST,
            "/clusters/a/replace",
            "password=right",
            400,
            "member is missing: give the number of the member that is to leave",
        ),
        (
            Method::POST,
            "/clusters/a/replace",
            "member=all&password=right",
            400,
            "member must be the number of a member, such as 1",
        ),
    ] {
        let answer = server.form(method.clone(), path, body).await;
        assert_eq!(answer.status, status, "{method} {path} {body}");
        assert_eq!(answer.problem().detail, detail, "{method} {path} {body}");
    }
    let scaled = server
        .form(Method::PUT, "/clusters/a", "num_nodes=5&password=right")
        .await;
    assert_eq!(scaled.json()["num_nodes"], 5);
    let body = "member=2&password=right";
    let replaced = server.form(Method::POST, "/clusters/a/replace", body).await;
    assert_eq!(replaced.json()["replacement"], 9);
    for (body, detail) in [
        (
            "password=right",
            "member is missing: give the number of the member that is to be restarted",
        ),
        (
            "password=right&member=1&force=yes",
            "force must be true or false",
        ),
    ] {
        let answer = server.form(Method::POST, "/clusters/a/restart", body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert_eq!(answer.problem().detail, detail, "{body}");
    }
    let body = "member=2&force=true&password=right";
    let restarted = server.form(Method::POST, "/clusters/a/restart", body).await;
    assert_eq!(restarted.json()["task_id"], "a.00000001.2.1");
    assert_eq!(
        restarted.json()["note"],
        "member 2 is restarted, force=true"
    );
    let body = "my_cnf=%5Bmysqld%5D%0Async_binlog%3D0&package=a+b&plan=1&mem=1mb&password=right";
    let refused = server.form(Method::PATCH, change, body).await;
    assert_eq!(refused.status, 400);
    for part in [
        "sync_binlog in line 2",
        "plan must be true or false",
        "mem must be from",
    ] {
        assert!(refused.text().contains(part), "{part}: {}", refused.text());
    }
    let body = "my_cnf=%5Bmysqld%5D%0Amax_connections%3D7&mem=1gb&plan=true&password=right";
    let planned = server.form(Method::PATCH, change, body).await.json();
    assert_eq!(planned["planned"], true);
    assert_eq!(planned["changed"][0]["field"], "size");
    assert_eq!(planned["changed"][1]["to"], "2 lines");
    let unread = server.form(Method::POST, failover, "password=right").await;
    assert_eq!(unread.status, StatusCode::CONFLICT);
    let problem = unread.problem();
    assert_eq!(problem.kind, "urn:cotton:problem:data-loss-not-accepted");
    assert!(
        problem
            .detail
            .contains("known to be lost: 0-1-7 of member 0"),
        "{}",
        problem.detail
    );

    let accepted = "accept_data_loss=true&password=right";
    let answer = server.form(Method::POST, failover, accepted).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["cluster_url"], "zk://z:2181/cotton/discover/a");
    assert_eq!(answer["given_up"][0]["address"], "db0:31007");
    assert_eq!(answer["known_lost"][0]["transactions"]["mariadb"], "0-1-7");
    let body = "durability=async&password=right";
    let first = server.form(Method::PATCH, change, body).await.json();
    let changed = serde_json::json!([{"field": "durability", "from": "majority", "to": "async"}]);
    assert_eq!(first["changed"], changed);
    let again = server.form(Method::PATCH, change, body).await.json();
    assert_eq!(again["changed"], serde_json::json!([]));
}

#[tokio::test]
async fn a_deleted_cluster_is_asked_for_and_a_slot_is_given_up() {
    let server = Server::start().await;
    for (path, body, status, detail) in [
        (
            "/clusters/other/undelete",
            "password=right",
            404,
            "nothing is kept of a deleted cluster other: a deleted cluster is kept for the time of --keep-deleted, and only if its members had \
             volumes; GET /slots lists what is kept",
        ),
        (
            "/clusters/deleted/undelete",
            "password=right&as=../x",
            400,
            "the cluster name \"../x\" is not valid: use 1 to 64 letters, digits, '_' and '-', starting with a letter or digit",
        ),
        (
            "/clusters/deleted/undelete",
            "password=right&incarnation=7",
            400,
            "incarnation must be that of a deleted cluster, as GET /slots names it",
        ),
        (
            "/clusters/deleted/undelete",
            "password=right&to=x",
            400,
            "there is no form field \"to\" here; the fields are password, as, incarnation",
        ),
        (
            "/slots/reclaim",
            "password=of-the-administrator",
            400,
            "slot is missing: give the id of the slot, as GET /slots names it",
        ),
        (
            "/slots/reclaim",
            "slot=an-orphan",
            401,
            "the form field password is missing: no cluster's owner gives slots up, so give the password of the account of --admin-keypath",
        ),
        (
            "/slots/reclaim",
            "slot=an-orphan&password=right",
            403,
            "the password is not that of the account of --admin-keypath",
        ),
        (
            "/slots/reclaim",
            "slot=of-a-member&password=of-the-administrator",
            409,
            "it is in use",
        ),
        (
            "/slots/reclaim",
            "slot=x&password=of-the-administrator",
            404,
            "nothing is known of a slot \"x\"; GET /slots lists all that were seen",
        ),
    ] {
        let answer = server.form(Method::POST, path, body).await;
        assert_eq!(answer.status, status, "{path} {body}");
        assert_eq!(answer.problem().detail, detail, "{path} {body}");
    }
    let undelete = "/clusters/deleted/undelete";
    for (body, name) in [
        ("password=right", "deleted"),
        ("password=right&as=other", "other"),
    ] {
        let answer = server.form(Method::POST, undelete, body).await.json();
        let url = format!("zk://z:2181/cotton/discover/{name}");
        assert_eq!(answer["cluster_url"], url);
        let first = "00000000-0000-0000-0000-000000000001";
        assert_eq!(answer["incarnation"], first);
    }
    let body = "slot=an-orphan&password=of-the-administrator";
    let answer = server.form(Method::POST, "/slots/reclaim", body).await;
    assert_eq!(answer.json()["cluster"], "orders");
    assert_eq!(answer.json()["lost"], "no record says what lies on it");
}
