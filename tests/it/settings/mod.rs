//! The scheduler's settings: for every flag, wrong values and the sentence they get.
//!
//! A set of right values is the starting point; each case changes one thing and expects exactly the faults
//! that follow from it. The binary is run where exit statuses and streams matter.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod command_line;
mod keys;
mod sources;
mod values;

use std::{collections::BTreeMap, ffi::OsString, os::unix::fs::PermissionsExt as _, path::Path};

use clap::{Args as _, FromArgMatches as _};
use cotton::{
    cli::settings::{Arguments, Settings},
    cluster::control::Installer,
};

/// A directory with right key files, and the flags that name them.
struct Setup {
    folder: tempfile::TempDir,
    flags: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
}

impl Setup {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        write(
            &folder.path().join("admin.yml"),
            "username: admin\npassword: secret\n",
        );
        write(
            &folder.path().join("executor.yml"),
            "username: executor\npassword: secret\n",
        );
        write(
            &folder.path().join("mesos.yml"),
            "principal: cotton\nsecret: hunter2\n",
        );
        write(&folder.path().join("key"), &"k".repeat(32));
        let flags = [
            ("port", "8080".to_owned()),
            ("mesos-master", "m:5050".to_owned()),
            ("framework-user", "mysql".to_owned()),
            ("zk-url", "zk://cotton:hunter2@z:2181/cotton".to_owned()),
            ("executor-zk-keypath", path("executor.yml")),
            ("admin-keypath", path("admin.yml")),
            ("scheduler-keypath", path("key")),
        ];
        let flags = flags.map(|(name, value)| (name.to_owned(), value)).into();
        Self {
            folder,
            flags,
            environment: BTreeMap::new(),
        }
    }

    fn with(mut self, flag: &str, value: &str) -> Self {
        self.flags.insert(flag.to_owned(), value.to_owned());
        self
    }

    fn without(mut self, flag: &str) -> Self {
        self.flags.remove(flag);
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.folder.path().join(name);
        write(&path, content);
        path.to_str().unwrap().to_owned()
    }

    fn arguments(&self) -> Vec<String> {
        self.flags
            .iter()
            .map(|(name, value)| format!("--{name}={value}"))
            .collect()
    }

    fn resolve(&self) -> Result<Settings, Vec<String>> {
        let command = Arguments::augment_args(clap::Command::new("scheduler"));
        let words = std::iter::once("scheduler".to_owned()).chain(self.arguments());
        let matches = command.try_get_matches_from(words).unwrap();
        let arguments = Arguments::from_arg_matches(&matches).unwrap();
        Settings::resolve(arguments, &|name| {
            self.environment.get(name).map(OsString::from)
        })
        .map_err(|faults| faults.iter().map(ToString::to_string).collect())
    }

    /// The one fault that there must be.
    fn fault(&self) -> String {
        let faults = self.resolve().unwrap_err();
        assert_eq!(faults.len(), 1, "{faults:#?}");
        assert!(
            !faults[0].contains("hunter2"),
            "a secret is told: {}",
            faults[0]
        );
        faults[0].clone()
    }
}

fn write(path: &Path, content: &str) {
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn right_values_become_typed_ones() {
    let setup = Setup::new()
        .with("framework-role", "db/mysql")
        .with("framework-failover-timeout", "7d")
        .with("election-timeout", "5s")
        .with("executor-environ", r#"[{"name": "TZ", "value": "UTC"}]"#)
        .with(
            "installer-args",
            r#"{"package": "http://a/b.tar.gz", "packages": {"11.8": {"mysqld": "/opt/m/bin/mariadbd", "server": "mariadb 11.8.6"}}}"#,
        )
        .with("zk-reader", "reader:pass")
        .with("advertise", "cotton.example.com:80")
        .with("spread", "require");
    let settings = setup.resolve().unwrap();
    assert_eq!(settings.port, 8080);
    assert_eq!(settings.mesos_master.to_string(), "m:5050");
    assert_eq!(settings.framework_failover_timeout.as_secs(), 7 * 86400);
    assert_eq!(settings.election_timeout.as_secs(), 5);
    assert_eq!(settings.executor_environ[0].name, "TZ");
    assert_eq!(settings.admin.username, "admin");
    assert_eq!(settings.executor_zk.unwrap().credentials.user, "executor");
    assert_eq!(settings.zk_reader.unwrap().user, "reader");
    assert_eq!(settings.zk_url.to_string(), "zk://z:2181/cotton");
    assert_eq!(settings.advertise, "cotton.example.com:80");
    assert!(matches!(
        settings.installer,
        Installer::Package { sha256: None, .. }
    ));
    let [package] = settings.packages.as_slice() else {
        panic!("{:?}", settings.packages);
    };
    assert_eq!(package.name, "11.8");
    assert_eq!(package.server.version.to_string(), "11.8.6");
    assert_eq!(settings.warnings, Vec::<String>::new());
}

#[test]
fn what_is_left_out_has_its_default() {
    let settings = Setup::new().resolve().unwrap();
    assert_eq!(settings.framework_role, "*");
    assert_eq!(settings.framework_failover_timeout.as_secs(), 14 * 86400);
    assert_eq!(settings.election_timeout.as_secs(), 60);
    assert_eq!(settings.installer, Installer::Search);
    assert!(
        settings.advertise.ends_with(":8080"),
        "{}",
        settings.advertise
    );
    assert_eq!(
        settings.warnings.len(),
        1,
        "of the role: {:?}",
        settings.warnings
    );
}

#[test]
fn volumes_are_on_unless_the_role_cannot_have_them() {
    assert!(!Setup::new().resolve().unwrap().volumes);
    let db = || Setup::new().with("framework-role", "db");
    let settings = db().resolve().unwrap();
    assert!(settings.volumes);
    assert_eq!(settings.warnings, Vec::<String>::new());
    assert!(!db().with("volumes", "off").resolve().unwrap().volumes);
    assert!(db().with("volumes", "on").resolve().unwrap().volumes);
}
