//! The lines of the user guide as they stand there, and the administrator's verbs.

use std::process::{Output, Stdio};

use cotton::cluster::flavour::Flavour;
use tokio::io::AsyncWriteExt as _;

use crate::support::system::{Cluster, System};
use crate::support::{CREATE_DEADLINE, database::Account, rest};

#[tokio::test]
async fn the_user_guides_lines_work() {
    let system = System::shared(Flavour::Mariadb);
    let api = system.api.as_str();
    let create = r#"curl -X POST   $H/clusters/test_cluster3 --form "cluster_user=mysos" --form "num_nodes=2" --form "num_nodes=2""#;
    let created = rest::line(api, create).await;
    assert_eq!(created.status, 200, "{created:?}");
    let password = created.text_of("cluster_password");
    assert_eq!(password.len(), 21);
    assert!(password.chars().all(|c| c.is_ascii_alphanumeric()));
    let url = created.text_of("cluster_url");
    assert!(
        url.starts_with("zk://") && url.ends_with("/discover/test_cluster3"),
        "{url}"
    );
    // After a lost answer the same request gives the same answer.
    assert_eq!(rest::line(api, create).await.text, created.text);

    // No backup store is configured.
    let from_backup = r#"curl -X POST   $H/clusters/test_cluster4 --form "cluster_user=mysos" --form "backup_id=foo/bar:201503122000" --form 'size={"mem": "1gb", "disk": "3gb", "cpus": 1.0}'"#;
    let refused = rest::line(api, from_backup).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(refused.text.contains("backup"), "{refused:?}");
    let unknown = rest::curl(&[&format!("{api}/clusters/test_cluster4")]).await;
    assert_eq!(unknown.unwrap().status, 404);

    let cluster = Cluster {
        name: "test_cluster3".to_owned(),
        url,
        account: Account {
            user: "mysos".to_owned(),
            password: password.clone(),
        },
    };
    let view = system.wait_running(&cluster, CREATE_DEADLINE).await;
    assert_eq!(view.num_nodes, 2);

    let delete =
        r#"curl -X DELETE $H/clusters/test_cluster3 --form "password=w9gMCkecsMh6sWsRdxNTa""#;
    let wrong = rest::line(api, delete).await;
    assert_eq!(wrong.status, 403, "{wrong:?}");
    let delete = delete.replace("w9gMCkecsMh6sWsRdxNTa", &password);
    let deleted = rest::line(api, &delete).await;
    assert_eq!(deleted.status, 200, "{deleted:?}");
    assert_eq!(deleted.text_of("cluster_url"), cluster.url);
    // Asked again while it goes: accepted too. Once it is gone: unknown.
    let again = rest::line(api, &delete).await;
    assert!([200, 404].contains(&again.status), "{again:?}");
    system.wait_gone(&cluster).await;
}

#[tokio::test]
async fn the_administrators_verbs_work() {
    let system = System::shared(Flavour::Mariadb);
    let create = [
        "create",
        "orders",
        "--user",
        "shop",
        "--num-nodes",
        "2",
        "--wait",
    ];
    let created = admin(&system, &create, "").await;
    assert!(created.status.success(), "{created:?}");
    let answer: serde_json::Value = serde_json::from_slice(&created.stdout).unwrap();
    let password = answer["cluster_password"].as_str().unwrap();

    let waited = admin(&system, &["wait", "orders", "--for", "running"], "").await;
    assert!(waited.status.success(), "{waited:?}");
    let listed = text(admin(&system, &["list"], "").await);
    assert!(
        listed.contains("orders") && listed.contains("running"),
        "{listed}"
    );
    let shown = text(admin(&system, &["show", "orders"], "").await);
    assert!(
        shown.contains("master") && shown.contains("slave"),
        "{shown}"
    );
    let json = text(admin(&system, &["show", "orders", "--json"], "").await);
    let view: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(view["user"], "shop");

    let delete = ["delete", "orders", "--password-file", "-", "--wait"];
    let refused = admin(&system, &delete, "wrong").await;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let deleted = admin(&system, &delete, password).await;
    assert!(deleted.status.success(), "{deleted:?}");
    let shown = admin(&system, &["show", "orders"], "").await;
    assert_eq!(shown.status.code(), Some(1), "{shown:?}");
}

async fn admin(system: &System, arguments: &[&str], input: &str) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_cotton"));
    command
        .arg("admin")
        .args(arguments)
        .env("COTTON_API", &system.api)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A verb that reads nothing may have ended before.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let ended = tokio::time::timeout(CREATE_DEADLINE, child.wait_with_output()).await;
    ended
        .unwrap_or_else(|_| panic!("{arguments:?} does not end"))
        .unwrap()
}

fn text(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
