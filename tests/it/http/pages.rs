//! What only reads: lists, the page, metrics, the executor's binary.

use cotton::{
    cluster::{
        data_loss::Offer,
        explanation::{Explanation, FailoverView, Waiting},
        failover_record::FailoverRecord,
        id::TaskId,
        size::Size,
        slot_view::Left,
        unknown_task::UnknownTask,
        view::{ClusterState, ClusterView, MemberRole, MemberView, MemberViewState, Standing},
        voters::Durability,
    },
    http::executor_binary::ExecutorBinary,
    time::Timestamp,
};
use http::{Method, StatusCode};

use super::double::Server;

pub fn view(name: &str) -> ClusterView {
    let member = |id: u32, role| MemberView {
        id,
        server_id: id + 1,
        host: Some("db7.example.com".to_owned()),
        port: Some(31007),
        role,
        state: MemberViewState::Running,
        voter: true,
        leaving: false,
        revision: 0,
        agent_id: Some("agent-<1>".to_owned()),
        task_id: Some("task".to_owned()),
    };
    ClusterView {
        name: name.parse().unwrap(),
        user: "mysos".to_owned(),
        num_nodes: 2,
        size: Size::DEFAULT,
        flavour: None,
        version: None,
        durability: Durability::Async,
        state: ClusterState::Running,
        reason: "all <b>members</b> are \"ready\"".to_owned(),
        cluster_url: format!("zk://z:2181/cotton/discover/{name}"),
        epoch: 3,
        standing: Default::default(),
        members: vec![member(0, MemberRole::Master), member(1, MemberRole::Slave)],
    }
}

#[tokio::test]
async fn clusters_are_listed_and_shown() {
    let server = Server::start().await;
    assert_eq!(
        server.get("/clusters").await.json(),
        serde_json::json!({"clusters": []})
    );
    server.show(true, vec![view("b"), view("a")]);
    let list = server.get("/clusters").await.json();
    assert_eq!(
        (&list["clusters"][0]["name"], &list["clusters"][1]["name"]),
        (&"a".into(), &"b".into())
    );
    let expected = serde_json::json!({
        "name": "a", "user": "mysos", "num_nodes": 2,
        "size": {"cpus": 1.0, "mem": "512mb", "disk": "2gb"},
        "flavour": null, "version": null, "durability": "async", "state": "running",
        "reason": "all <b>members</b> are \"ready\"",
        "cluster_url": "zk://z:2181/cotton/discover/a", "epoch": 3,
        "members": [
            {"id": 0, "server_id": 1, "host": "db7.example.com", "port": 31007, "role": "master",
             "state": "running", "voter": true, "agent_id": "agent-<1>", "task_id": "task"},
            {"id": 1, "server_id": 2, "host": "db7.example.com", "port": 31007, "role": "slave",
             "state": "running", "voter": true, "agent_id": "agent-<1>", "task_id": "task"},
        ],
    });
    let answer = server.get("/clusters/a").await;
    assert_eq!(answer.json(), expected);
    assert_eq!(answer.headers["content-type"], "application/json");
    let unknown = server.get("/clusters/c").await;
    assert_eq!(
        (unknown.status, unknown.problem().detail.as_str()),
        (StatusCode::NOT_FOUND, "there is no cluster \"c\"")
    );
}

/// What is told of a cluster that waits in the middle of its second failover.
pub fn explanation(name: &str) -> Explanation {
    let master = |member: u32, address: Option<&str>| {
        serde_json::json!({
            "member": member, "task_id": format!("{name}.0.{member}.1"), "address": address,
            "data": uuid::Uuid::from_u128(1), "process": uuid::Uuid::from_u128(2),
        })
    };
    let quorum =
        serde_json::json!({"durability": "majority", "voters": 3, "k_floor": 1, "needed": 2});
    let mut winner = master(2, Some("db2:31007"));
    winner["won_by"] = "held-most".into();
    let voters = serde_json::json!([
        {"member": 0, "missing": "its server does not run"},
        {"member": 1, "held": {"marker": 1, "received": "0-1-9,50-1-1"}, "reported": 1_769_947_200_020_u64},
        {"member": 2, "held": {"marker": 1, "received": "0-1-10,50-1-1", "unapplied": "0-1-10"}, "reported": 1_769_947_200_050_u64},
    ]);
    let first = serde_json::json!({
        "format": 1, "epoch": 2, "attempt": 1, "before": master(0, Some("db0:31007")), "before_opened": true,
        "ending": {"cause": "server-ended", "sentence": "the server of <member 0> has ended"},
        "quorum": quorum, "voters": voters, "winner": winner,
        "times": {
            "noticed": 1_769_947_199_999_u64, "decided": 1_769_947_200_000_u64, "decision_stored": 1_769_947_200_010_u64,
            "elected": 1_769_947_200_050_u64, "choice_stored": 1_769_947_200_060_u64,
            "opened": 1_769_947_200_200_u64, "published": 1_769_947_200_215_u64,
        },
    });
    let second = serde_json::json!({
        "format": 1, "epoch": 3, "attempt": 1, "before": master(2, None), "before_opened": true,
        "ending": {"cause": "task-ended", "sentence": "the task of member 2 has ended"},
        "quorum": quorum, "times": {"decided": 1_769_947_300_000_u64},
    });
    let view = |record: serde_json::Value| -> FailoverView {
        serde_json::from_value::<FailoverRecord>(record)
            .unwrap()
            .into()
    };
    Explanation {
        name: name.parse().unwrap(),
        state: ClusterState::Waiting,
        reason: "electing in epoch 3".to_owned(),
        epoch: 3,
        master: None,
        quorum: serde_json::from_value(quorum.clone()).unwrap(),
        voters: Vec::new(),
        set_aside: Vec::new(),
        waiting: Some(Waiting {
            blocked: true,
            until: None,
            ends_when: vec![
                "1 more report must count, of these:".to_owned(),
                "member 0: <it> must start".to_owned(),
            ],
            voters: serde_json::from_value(voters.clone()).unwrap(),
        }),
        standing: Default::default(),
        failovers: vec![view(second), view(first.clone())],
    }
}

#[tokio::test]
async fn clusters_are_explained() {
    let server = Server::start().await;
    server.show(true, vec![view("a")]);
    server.explain(explanation("a"));
    let answer = server.get("/clusters/a/explain").await;
    assert_eq!(answer.headers["content-type"], "application/json");
    let explained = answer.json();
    assert!(explained["now"].as_u64().unwrap() > 1_769_947_300_000);
    assert_eq!(explained["state"], "waiting");
    assert_eq!(
        explained["waiting"]["ends_when"][1],
        "member 0: <it> must start"
    );
    let failovers = server.get("/clusters/a/failovers").await.json();
    assert_eq!(failovers["failovers"], explained["failovers"]);
    let newest = &failovers["failovers"][0];
    assert_eq!(
        (&newest["epoch"], &newest["unpublished_millis"]),
        (&3.into(), &serde_json::Value::Null)
    );
    let first = &failovers["failovers"][1];
    assert_eq!(first["before"]["address"], "db0:31007");
    assert_eq!(first["ending"]["cause"], "server-ended");
    assert_eq!(
        first["quorum"],
        serde_json::json!({"durability": "majority", "voters": 3, "k_floor": 1, "needed": 2})
    );
    assert_eq!(
        (&first["counted"], &first["winner"]["won_by"]),
        (&2.into(), &"held-most".into())
    );
    assert_eq!(first["unpublished_millis"], 215);
    assert_eq!(
        first["phases"][2],
        serde_json::json!({"name": "collecting the reports", "millis": 40})
    );
    for path in [
        "/clusters/b/explain",
        "/clusters/b/failovers",
        "/clusters/..%2Fb/failovers",
    ] {
        let unknown = server.get(path).await;
        assert_eq!(unknown.status, StatusCode::NOT_FOUND, "{path}");
        assert!(
            unknown.problem().detail.starts_with("there is no cluster"),
            "{path}"
        );
    }
    let put = server
        .send(Method::POST, "/clusters/a/explain", "text/plain", "")
        .await;
    assert_eq!(put.problem().status, 405);
}

#[tokio::test]
async fn the_page_explains_and_escapes() {
    let server = Server::start().await;
    server.show(true, vec![view("orders")]);
    server.explain(explanation("orders"));
    let page = server.get("/").await;
    for text in [
        "No writes until",
        "member 0: &lt;it&gt; must start",
        "member 2 took over from member 0",
        "the server of &lt;member 0&gt; has ended",
        "2 of the 2 needed",
        "215 ms",
        "not over yet",
        "2026-02-01 12:00:00.000 UTC",
        "/clusters/orders/explain",
    ] {
        assert!(page.text().contains(text), "{text}: {}", page.text());
    }
}

/// What is offered, done and changed stands in the view, in the explanation and on the page.
#[tokio::test]
async fn what_an_operator_can_do_is_shown() {
    let server = Server::start().await;
    let prospect = super::double::prospect();
    let lossy = serde_json::json!({
        "asked_at": 1_769_947_200_000_u64, "given_up": prospect.given_up,
        "outcome": {
            "epoch": 3, "master": 1, "holds": {"mariadb": "0-1-5"},
            "known_lost": prospect.known_lost, "unfenced": prospect.given_up, "note": "more may be lost",
        },
    });
    let switchover = serde_json::json!({
        "number": 3, "epoch": 2, "from": 0, "process": uuid::Uuid::from_u128(1), "to": 1,
        "asked_at": 1_769_947_200_000_u64,
        "outcome": {"done": false, "epoch": 2, "at": 1_769_947_200_000_u64, "sentence": "member 0 is <still> the master"},
    });
    let standing = Standing {
        paused_since: None,
        changing: Some("changing from async to majority: <soon>".to_owned()),
        failover_offer: Some(Offer {
            command: "cotton admin failover orders --accept-data-loss".to_owned(),
            prospect,
        }),
        lossy_failover: serde_json::from_value(lossy).unwrap(),
        switchover: serde_json::from_value(switchover).unwrap(),
        membership: vec!["member 1 is to leave, because <so>".to_owned()],
        package: Some("mariadb-11.8".to_owned()),
        my_cnf: Some("[mysqld]\ninit_connect = <it>\n".to_owned()),
        replace_after: "10m".parse().ok(),
        ..Standing::default()
    };
    let mut shown = view("orders");
    shown.standing = standing.clone();
    server.show(true, vec![shown]);
    let mut explained = explanation("orders");
    explained.standing = standing;
    server.explain(explained);
    let page = server.get("/").await;
    for text in [
        "changing from async to majority: &lt;soon&gt;",
        "cotton admin failover orders --accept-data-loss",
        "<dt>Package</dt><dd>mariadb-11.8</dd>",
        "init_connect = &lt;it&gt;",
        "<dt>Replace after</dt><dd>10m</dd>",
        "known to be lost: 0-1-7 of member 0",
        "master becomes member 1, which holds 0-1-5",
        "member 1 was elected in epoch 3 with 0-1-5",
        "member 0 (task orders.1.0.1, at db0:31007)",
        "Switchover to member 1",
        "member 0 is &lt;still&gt; the master",
    ] {
        assert!(page.text().contains(text), "{text}: {}", page.text());
    }
    for path in ["/clusters/orders", "/clusters/orders/explain"] {
        let answer = server.get(path).await.json();
        let offer = &answer["failover_offer"]["prospect"];
        assert_eq!(offer["known_lost"][0]["whose"], "member 0", "{path}");
        assert_eq!(
            answer["lossy_failover"]["outcome"]["unfenced"][0]["address"],
            "db0:31007"
        );
        assert!(answer["changing"].is_string());
    }
}

#[tokio::test]
async fn the_page_says_whether_mesos_is_there() {
    let server = Server::start().await;
    let page = server.get("/").await;
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    assert!(
        page.text()
            .contains("The scheduler is not connected to a Mesos master yet.")
    );
    assert!(page.text().contains("No clusters yet"));
    server.show(true, vec![]);
    assert!(!server.get("/").await.text().contains("not connected"));
}

#[tokio::test]
async fn the_page_shows_clusters_and_escapes_everything() {
    let server = Server::start().await;
    server.show(true, vec![view("orders")]);
    let page = server.get("/").await;
    for text in [
        "orders",
        "running",
        "zk://z:2181/cotton/discover/orders",
        "db7.example.com:31007",
        "master",
        "slave",
        "all &lt;b&gt;members&lt;/b&gt; are &quot;ready&quot;",
        "agent-&lt;1&gt;",
        "1 cpus, 512mb memory, 2gb disk",
    ] {
        assert!(page.text().contains(text), "{text}");
    }
    assert!(!page.text().contains("<b>") && !page.text().contains("agent-<1>"));
    assert!(!page.text().contains("http-equiv=\"refresh\" content=\"0"));
    assert!(
        page.headers["content-security-policy"]
            .to_str()
            .unwrap()
            .starts_with("default-src 'none'")
    );
    assert_eq!(page.headers["x-content-type-options"], "nosniff");
}

#[tokio::test]
async fn metrics_come_flat_and_for_prometheus() {
    let server = Server::start().await;
    server.metrics.tasks_launched.inc();
    server.metrics.framework_registered.set(1);
    let vars = server.get("/vars.json").await.json();
    assert_eq!(vars["scheduler.tasks_launched"], 1);
    assert_eq!(vars["scheduler.framework_registered"], 1);
    assert!(vars["scheduler.uptime"].as_f64().unwrap() >= 0.0);
    let text = server.get("/metrics").await;
    assert!(
        text.text()
            .contains("cotton_scheduler_tasks_launched_total 1\n"),
        "{}",
        text.text()
    );
    assert!(text.text().ends_with("# EOF\n"));
    assert_eq!(server.get("/health").await.text(), "OK\n");
}

#[tokio::test]
async fn the_executor_is_served_as_it_was_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cotton");
    let content = vec![7_u8; 1 << 20];
    std::fs::write(&path, &content).unwrap();
    let binary = ExecutorBinary::open(&path).unwrap();
    let url_path = binary.url_path();
    // The digest was made with sha256sum.
    let digest = "51b12eb838732b786b4d45c660a974ddf3860ae09084fd293fa6e5df46581a6c";
    assert_eq!(url_path, format!("/executor/cotton-{digest}"));
    let server = Server::with_executor(binary).await;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "another one").unwrap();
    for _ in 0..2 {
        let answer = server.get(&url_path).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.headers["content-length"], "1048576");
        assert_eq!(answer.headers["content-type"], "application/octet-stream");
        assert!(answer.body == content);
    }
    let head = server.send(Method::HEAD, &url_path, "text/plain", "").await;
    assert_eq!(
        (
            head.status,
            head.headers["content-length"].to_str().unwrap()
        ),
        (StatusCode::OK, "1048576")
    );
    for other in [
        "/executor/cotton",
        "/executor/cotton-00",
        "/executor/..%2F..%2Fetc%2Fpasswd",
    ] {
        assert_eq!(
            server.get(other).await.status,
            StatusCode::NOT_FOUND,
            "{other}"
        );
    }
}

#[tokio::test]
async fn before_the_state_was_read_nothing_is_said_of_clusters() {
    let server = Server::start().await;
    server.views.send_replace(Default::default());
    for path in [
        "/clusters",
        "/clusters/a",
        "/clusters/a/explain",
        "/clusters/a/failovers",
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(
            answer
                .problem()
                .detail
                .starts_with("the scheduler has not read its state")
        );
    }
    let created = server
        .form(Method::POST, "/clusters/a", "cluster_user=u")
        .await;
    assert_eq!(created.status, StatusCode::SERVICE_UNAVAILABLE);
    let deleted = server
        .form(Method::DELETE, "/clusters/a", "password=p")
        .await;
    assert_eq!(deleted.status, StatusCode::SERVICE_UNAVAILABLE);
    let page = server.get("/").await;
    assert!(page.text().contains("has not read its state") && !page.text().contains("No clusters"));
}

/// A task that waits for an operator's decision.
pub fn unknown_task() -> UnknownTask {
    UnknownTask {
        task_id: TaskId::from_wire("orders.0123abcd.2.5"),
        agent_id: Some("agent-<1>".to_owned()),
        state: "TASK_RUNNING".to_owned(),
        reason: "the state knows no cluster orders".to_owned(),
        since: Timestamp::from_millis(1_769_947_200_123),
    }
}

#[tokio::test]
async fn tasks_that_no_record_explains_are_listed() {
    let server = Server::start().await;
    server.show(true, vec![view("stock")]);
    assert!(!server.get("/").await.text().contains("no record explains"));
    let none = server.get("/unknown-tasks").await.json();
    assert_eq!(none, serde_json::json!({"unknown_tasks": []}));
    server.show_unknown_task(unknown_task(), 0);
    let listed = server.get("/unknown-tasks").await.json();
    assert_eq!(listed.get("more"), None);
    assert!(!server.get("/").await.text().contains("more."));
    server.show_unknown_task(unknown_task(), 17);
    let listed = server.get("/unknown-tasks").await.json();
    assert_eq!(listed["more"], 17);
    let task = &listed["unknown_tasks"][0];
    assert_eq!(task["task_id"], "orders.0123abcd.2.5");
    assert_eq!(task["reason"], "the state knows no cluster orders");
    let page = server.get("/").await;
    for text in [
        "Tasks that no record explains",
        "orders.0123abcd.2.5",
        "agent-&lt;1&gt;",
        "2026-02-01 12:00:00.123 UTC",
        "SIGTERM to its executor",
        "And 17 more.",
    ] {
        assert!(page.text().contains(text), "{text}");
    }
    let clusters = server.get("/clusters").await.json();
    assert_eq!(clusters["clusters"].as_array().unwrap().len(), 1);
}

/// What is left of a deleted cluster, and an orphan.
pub fn left() -> Left {
    let incarnation = "1c9e5a2e-8d5b-4f0a-9c0e-0d7f5f0a3b6d";
    let slot = |state: &str, slot: &str| {
        serde_json::json!({
            "slot": slot, "state": state, "cluster": "orders", "incarnation": incarnation, "member": 2,
            "agent_id": "agent-<1>", "host": "db7.example.com", "port": 31007,
            "size": {"cpus": 1.0, "mem": "512mb", "disk": "2gb"}, "since": 1_769_947_200_123_u64,
        })
    };
    let deleted = serde_json::json!({
        "name": "orders", "incarnation": incarnation, "user": "app", "num_nodes": 3, "deleted_at": 1_769_947_200_123_u64,
        "kept_until": 1_770_033_600_123_u64, "destroying": false, "slots": 1,
    });
    let view = |view| serde_json::from_value(view).unwrap();
    Left {
        deleted: vec![serde_json::from_value(deleted).unwrap()],
        slots: vec![
            view(slot("kept", "kept.2.1")),
            view(slot("orphaned", "lost.2.1")),
        ],
    }
}

#[tokio::test]
async fn slots_and_deleted_clusters_are_listed() {
    let server = Server::start().await;
    let none = server.get("/slots").await.json();
    let nothing = serde_json::json!({"slots": [], "deleted_clusters": []});
    assert_eq!(none, nothing);
    assert!(!server.get("/").await.text().contains("Deleted clusters"));
    server.show_left(left());
    let listed = server.get("/slots").await.json();
    assert_eq!(listed["slots"][1]["state"], "orphaned");
    assert_eq!(listed["deleted_clusters"][0]["name"], "orders");
    let page = server.get("/").await;
    for text in [
        "Deleted clusters",
        "2026-02-02 12:00:00.123 UTC",
        "Slots that no record explains",
        "lost.2.1",
    ] {
        assert!(page.text().contains(text), "{text}");
    }
    assert!(
        !page.text().contains("kept.2.1"),
        "only what waits for somebody"
    );
}
