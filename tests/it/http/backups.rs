//! Backups: asked for, listed, removed, and clusters made from them.

use http::{Method, StatusCode};

use super::{double::Server, pages};

/// By the owner of a cluster that is there, by the administrator otherwise; and nothing but backups.
async fn backups_are_removed(server: &Server, folder: &std::path::Path) {
    let make = |id: &str| {
        std::fs::create_dir_all(folder.join(id)).unwrap();
        std::fs::write(folder.join(id).join("manifest.json"), "{}").unwrap();
        std::fs::write(folder.join(id).join("data"), "data").unwrap();
    };
    make("a/2");
    make("c/3");
    server.show(true, vec![pages::view("a")]);
    for (path, body, status) in [
        ("/clusters/a/backups/2", "", 401),
        ("/clusters/a/backups/2", "password=wrong", 403),
        ("/clusters/a/backups/2", "colour=red", 400),
        ("/clusters/a/backups/none", "password=right", 404),
        ("/clusters/a/backups/..", "password=right", 404),
        ("/clusters/a/backups/2%2Fdata", "password=right", 404),
        ("/clusters/c/backups/3", "password=right", 403),
        // Whose it is cannot be told from a damaged manifest.
        ("/clusters/a/backups/2", "password=right", 403),
        (
            "/clusters/a/backups/2",
            "password=of-the-administrator",
            200,
        ),
        ("/clusters/a/backups/2", "password=right", 404),
        (
            "/clusters/c/backups/3",
            "password=of-the-administrator",
            200,
        ),
    ] {
        let answer = server.form(Method::DELETE, path, body).await;
        assert_eq!(answer.status, status, "{path} {body}");
    }
    assert!(!folder.join("a/2").exists() && !folder.join("c/3").exists());
    assert!(folder.join("b/1/manifest.json").exists());
    server.show(true, Vec::new());
}

#[tokio::test]
async fn backups_are_asked_for_and_listed() {
    let without = Server::start().await;
    without
        .form(Method::POST, "/clusters/a", "cluster_user=u")
        .await;
    let path = "/clusters/a/backups";
    let refused = without.form(Method::POST, path, "password=right").await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert!(refused.problem().detail.contains("--backup-store"));
    let rule = "password=right&backup_schedule=every%206h";
    let refused = without.form(Method::PATCH, "/clusters/a", rule).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.problem().detail.contains("--backup-store"));

    let folder = tempfile::tempdir().unwrap();
    let server = Server::with_backups(folder.path()).await;
    let create = "cluster_user=u&cluster_password=right";
    server.form(Method::POST, "/clusters/a", create).await;
    for (body, status) in [("", 401), ("password=wrong", 403), ("colour=red", 400)] {
        let answer = server.form(Method::POST, path, body).await;
        assert_eq!(answer.status, status, "{body}");
    }
    let asked = server.form(Method::POST, path, "password=right").await;
    assert_eq!(asked.json()["id"], "a/20260201T120000Z");
    let unknown = server.get("/clusters/b/backups").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    std::fs::create_dir_all(folder.path().join("b/1")).unwrap();
    std::fs::write(folder.path().join("b/1/manifest.json"), "{}").unwrap();
    let listed = server.get("/clusters/b/backups").await.json();
    assert_eq!(listed["backups"][0]["id"], "b/1");
    let problem = listed["backups"][0]["problem"].as_str().unwrap();
    assert!(problem.contains("manifest is damaged"), "{problem}");
    backups_are_removed(&server, folder.path()).await;

    for (id, sentence) in [
        ("nobody", "has no backup nobody"),
        ("foo/bar:201503122000", "has no backup foo/bar:201503122000"),
        ("../b", "is not the id of a backup"),
        ("b", "the backup b/1 cannot be used"),
    ] {
        let body = format!("cluster_user=u&backup_id={id}");
        let answer = server.form(Method::POST, "/clusters/c", &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{id}");
        let problem = answer.problem();
        assert_eq!(problem.errors[0].field, "backup_id");
        assert!(problem.detail.contains(sentence), "{}", problem.detail);
    }
}
