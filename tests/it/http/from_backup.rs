//! Creation from a backup at the door: what is refused there, with which sentence, and what is not.

use std::fs;

use cotton::{
    backup::{
        cipher::BackupKey,
        manifest::{self, Manifest, Object},
        verified::{self, Verified},
    },
    cluster::{flavour::Flavour, view::ClusterView},
    keyfile::SchedulerKey,
    time::Timestamp,
};
use http::Method;
use tempfile::TempDir;

use super::{double::Server, pages};
use crate::backup::{manifest_of, settings};

/// What the backups here hold: a MiB more than 3 GiB.
pub const DATA_BYTES: u64 = (3 << 30) + (1 << 20);

const BACKUP: &str = "orders/20260201T120000Z";

/// A folder of backups, and one of keys.
struct Place {
    folder: TempDir,
    keys: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self {
            folder: tempfile::tempdir().unwrap(),
            keys: tempfile::tempdir().unwrap(),
        };
        for number in [1, 2] {
            fs::write(place.keys.path().join(number.to_string()), [number; 32]).unwrap();
        }
        place
    }

    fn key_file(&self, number: u8) -> std::path::PathBuf {
        self.keys.path().join(number.to_string())
    }

    fn key_id(&self, number: u8) -> String {
        BackupKey::new(SchedulerKey::read(&self.key_file(number)).unwrap()).id()
    }

    /// Stores what describes a backup. Its data is for the members, and nobody asks for it here.
    fn has(&self, id: &str, key: Option<u8>) {
        let folder = self.folder.path().join(id);
        fs::create_dir_all(&folder).unwrap();
        let manifest = described(id, key.map(|number| self.key_id(number)));
        fs::write(folder.join(manifest::FILE), manifest.to_json()).unwrap();
    }

    /// Stores what was found when a backup was verified.
    fn was_verified(&self, id: &str, problem: Option<&str>) {
        let found = Verified {
            format: verified::FORMAT,
            id: id.parse().unwrap(),
            sha256: described(id, None).objects[0].sha256.clone(),
            at: Timestamp::now(),
            good: problem.is_none(),
            problem: problem.map(str::to_owned),
            seconds: 1,
            tables: 1,
            rows: 1,
        };
        let file = self.folder.path().join(id).join(verified::FILE);
        fs::write(file, serde_json::to_vec(&found).unwrap()).unwrap();
    }

    async fn server(&self, key: Option<u8>) -> Server {
        let key = key.map(|number| self.key_file(number));
        Server::with_store(settings(self.folder.path(), key.as_deref())).await
    }
}

fn described(id: &str, key_id: Option<String>) -> Manifest {
    let data = Object {
        name: manifest::DATA_FILE.to_owned(),
        bytes: 1,
        sha256: id.to_owned(),
    };
    Manifest {
        objects: vec![data],
        ..manifest_of(id, DATA_BYTES, key_id)
    }
}

fn asked(backup: &str, disk: &str, more: &str) -> String {
    format!("cluster_user=u&size=%7B%22disk%22%3A%22{disk}%22%7D&backup_id={backup}{more}")
}

/// The cluster is not made, and the sentence says why.
async fn is_refused(server: &Server, body: &str, field: &str, sentence: &str) {
    let answer = server.form(Method::POST, "/clusters/new", body).await;
    assert_eq!(answer.status, 400, "{body}: {}", answer.text());
    let problem = answer.problem();
    let found: Vec<(&str, &str)> = problem
        .errors
        .iter()
        .map(|fault| (fault.field.as_str(), fault.detail.as_str()))
        .collect();
    assert_eq!(found, [(field, sentence)], "{body}");
    assert_eq!(server.clusters(), [], "{body}");
}

/// The cluster is made, and deleted.
async fn is_accepted(server: &Server, body: &str) {
    let answer = server.form(Method::POST, "/clusters/new", body).await;
    assert_eq!(answer.status, 200, "{body}: {}", answer.text());
    assert_eq!(server.clusters().len(), 1);
    let password = &answer.json()["cluster_password"];
    let body = format!("password={}", password.as_str().unwrap());
    let answer = server.form(Method::DELETE, "/clusters/new", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Goal: no cluster is made from a backup that is known to be bad, and whoever asks learns which one may be good. Method: by the id of each, and by the
/// cluster's name.
#[tokio::test]
async fn a_backup_that_was_found_bad_is_refused() {
    let place = Place::new();
    let [first, second, third] = [1, 2, 3].map(|day| format!("orders/2026020{day}T120000Z"));
    for id in [&first, &second, &third] {
        place.has(id, None);
    }
    let server = place.server(None).await;
    is_accepted(&server, &asked("orders", "4gb", "")).await;
    place.was_verified(&first, None);
    for id in [&second, &third] {
        place.was_verified(id, Some("table a.b is damaged"));
    }
    let is_bad =
        |id| format!("the backup {id} was verified, and is not good: table a.b is damaged");
    let refused = async |backup: &str, sentence: &str| {
        is_refused(&server, &asked(backup, "4gb", ""), "backup_id", sentence).await;
    };
    refused(&second, &is_bad(&second)).await;
    let instead = format!("; the newest one before it that is not known to be bad is {first}");
    refused("orders", &(is_bad(&third) + &instead)).await;
    is_accepted(&server, &asked(&first, "4gb", "")).await;
}

fn running(name: &str, flavour: Flavour, package: Option<&str>) -> ClusterView {
    let mut view = pages::view(name);
    view.flavour = Some(flavour);
    view.standing.package = package.map(str::to_owned);
    view
}

/// Goal: only a server of the same flavour, not older, gets the data. Method: packages, whose servers are known; and clusters that run, which show
/// what the agents have.
#[tokio::test]
async fn the_server_has_to_fit_the_backup() {
    let place = Place::new();
    place.has(BACKUP, None);
    let server = place.server(None).await;
    let with = |package: &str| asked(BACKUP, "4gb", &format!("&package={package}"));
    let other_flavour = format!(
        "the package mysql-9.7 does not fit: the backup {BACKUP} is of mariadb 10.11.14, and the server here is mysql 9.7.4: a backup is restored by the same flavour"
    );
    let older = format!(
        "the package mariadb-10.6 does not fit: the backup {BACKUP} is of mariadb 10.11.14, and the server here is 10.6.22: a backup is restored by the same or a later version"
    );
    let without = asked(BACKUP, "4gb", "");
    // What runs here says nothing of a package.
    for flavour in [None, Some(Flavour::Mysql), Some(Flavour::Mariadb)] {
        let views = flavour.map(|flavour| running("b", flavour, None));
        server.show(true, views.into_iter().collect());
        is_refused(&server, &with("mysql-9.7"), "backup_id", &other_flavour).await;
        is_refused(&server, &with("mariadb-10.6"), "backup_id", &older).await;
        is_accepted(&server, &with("mariadb-11.8")).await;
    }

    let (mysql, mariadb) = (Flavour::Mysql, Flavour::Mariadb);
    let installed = format!(
        "the backup {BACKUP} is of mariadb 10.11.14, and the servers here are mysql: a backup is restored by the same flavour"
    );
    for clusters in [
        vec![running("b", mysql, None)],
        vec![
            running("b", mysql, None),
            running("c", mariadb, Some("mariadb-11.8")),
        ],
    ] {
        server.show(true, clusters);
        is_refused(&server, &without, "backup_id", &installed).await;
    }
    for clusters in [
        vec![],
        vec![running("b", mariadb, None)],
        vec![running("b", mysql, None), running("c", mariadb, None)],
        // What the agents themselves have is not known from it.
        vec![running("b", mysql, Some("mysql-9.7"))],
    ] {
        server.show(true, clusters);
        is_accepted(&server, &without).await;
    }
}

/// Goal: a backup is read with the key that it was written with, or not at all. Method: its manifest names a key, and the store has none, another and
/// that one.
#[tokio::test]
async fn the_key_has_to_be_that_of_the_backup() {
    let place = Place::new();
    place.has(BACKUP, Some(1));
    let (right, other) = (place.key_id(1), place.key_id(2));
    let body = asked(BACKUP, "4gb", "");
    for (key, found) in [
        (None, "there is no key here".to_owned()),
        (Some(2), format!("the key here is {other}")),
    ] {
        let sentence = format!(
            "the backup {BACKUP} is encrypted with the key {right}, and {found}; name its file as key in --backup-store-args"
        );
        is_refused(&place.server(key).await, &body, "backup_id", &sentence).await;
    }
    is_accepted(&place.server(Some(1)).await, &body).await;
    // One that is not encrypted needs none.
    place.has(BACKUP, None);
    is_accepted(&place.server(Some(2)).await, &body).await;
}

#[tokio::test]
async fn the_disk_has_to_have_room_for_the_backup() {
    let place = Place::new();
    place.has(BACKUP, None);
    let server = place.server(None).await;
    for (disk, mib) in [("3gb", 3072), ("3073mb", 3073)] {
        let sentence = format!(
            "the backup {BACKUP} holds 3073 MiB, and the disk of size has {mib}; ask for a larger one"
        );
        is_refused(&server, &asked(BACKUP, disk, ""), "size", &sentence).await;
    }
    is_accepted(&server, &asked(BACKUP, "3074mb", "")).await;
}

/// Goal: the form of id that the original's manual has is an id. Method: a store with and without a backup under it.
#[tokio::test]
async fn an_id_of_another_form_is_an_id() {
    let place = Place::new();
    let server = place.server(None).await;
    let body = asked("foo/bar:201503122000", "4gb", "");
    let unknown = "the backup store has no backup foo/bar:201503122000; GET /clusters/<name>/backups and cotton admin backups list those that it has";
    is_refused(&server, &body, "backup_id", unknown).await;
    place.has("foo/bar:201503122000", None);
    is_accepted(&server, &body).await;
    // Nobody asked for the newest one of a cluster foo, of which there is none in this form.
    let sentence = unknown.replace("bar:201503122000;", "other;");
    is_refused(
        &server,
        &asked("foo/other", "4gb", ""),
        "backup_id",
        &sentence,
    )
    .await;
}
