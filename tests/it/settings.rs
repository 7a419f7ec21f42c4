//! The scheduler's settings: for every flag, wrong values and the sentence they get.
//!
//! A set of right values is the starting point; each case changes one thing and expects exactly the faults
//! that follow from it. The binary is run where exit statuses and streams matter.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

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
        .with("installer-args", r#"{"package": "http://a/b.tar.gz"}"#)
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
fn wrong_values_and_their_sentences() {
    let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85";
    let short_digest = format!(r#"{{"package": "/a", "sha256": "{digest}"}}"#);
    for (flag, value, sentence) in [
        (
            "port",
            "0",
            "--port: \"0\" is not a port number from 1 to 65535",
        ),
        (
            "port",
            "65536",
            "--port: \"65536\" is not a port number from 1 to 65535",
        ),
        (
            "port",
            "http",
            "--port: \"http\" is not a port number from 1 to 65535",
        ),
        (
            "port",
            "-1",
            "--port: \"-1\" is not a port number from 1 to 65535",
        ),
        (
            "advertise",
            "host",
            "--advertise: \"host\" is not HOST:PORT, as in cotton.example.com:8080",
        ),
        (
            "advertise",
            "host:0",
            "--advertise: \"host:0\" is not HOST:PORT",
        ),
        (
            "advertise",
            "http://host:1",
            "--advertise: \"http://host:1\" is not HOST:PORT",
        ),
        (
            "mesos-master",
            "m",
            "--mesos-master: \"m\" is not the address of a server: host:port is expected",
        ),
        (
            "mesos-master",
            "m:1,",
            "--mesos-master: no Mesos master is named",
        ),
        (
            "mesos-master",
            "zk://z:2181",
            "--mesos-master: the ZooKeeper URL",
        ),
        (
            "mesos-master",
            "http://m:5050",
            "--mesos-master: Mesos masters cannot be found through http://",
        ),
        ("mesos-master", "zk://hunter2@z:2181/m", "--mesos-master: "),
        (
            "framework-user",
            "a b",
            "--framework-user: \"a b\" is not the name of a user",
        ),
        (
            "framework-user",
            "-x",
            "--framework-user: \"-x\" is not the name of a user",
        ),
        (
            "framework-role",
            "a b",
            "--framework-role: \"a b\" is not a Mesos role",
        ),
        (
            "framework-role",
            "a//b",
            "--framework-role: \"a//b\" is not a Mesos role",
        ),
        (
            "framework-role",
            "../b",
            "--framework-role: \"../b\" is not a Mesos role",
        ),
        (
            "framework-role",
            "a/*",
            "--framework-role: \"a/*\" is not a Mesos role",
        ),
        (
            "framework-role",
            "-a",
            "--framework-role: \"-a\" is not a Mesos role",
        ),
        (
            "framework-failover-timeout",
            "14",
            "--framework-failover-timeout: \"14\" is not a time such as 30s, 5m, 12h or 14d",
        ),
        (
            "framework-failover-timeout",
            "1s",
            "--framework-failover-timeout: 1s is out of range: give a time from 60s to 3650d",
        ),
        (
            "framework-authentication-file",
            "/nonexistent",
            "--framework-authentication-file: the file /nonexistent cannot be read: No such file",
        ),
        (
            "executor-uri",
            "executor",
            "--executor-uri: \"executor\" is nothing that Mesos agents can fetch",
        ),
        (
            "executor-uri",
            "http://",
            "--executor-uri: \"http://\" is nothing that Mesos agents can fetch",
        ),
        (
            "executor-uri",
            "http://a b",
            "--executor-uri: \"http://a b\" is nothing that Mesos agents can fetch",
        ),
        ("executor-cmd", " ", "--executor-cmd: it is empty"),
        (
            "executor-environ",
            "TZ=UTC",
            "--executor-environ: it is not a JSON list of objects with name and value",
        ),
        (
            "executor-environ",
            r#"[{"name": "A", "valeu": "hunter2"}]"#,
            "--executor-environ: it is not a JSON list",
        ),
        (
            "executor-environ",
            r#"[{"name": "A=B", "value": "hunter2"}]"#,
            "--executor-environ: the variable \"A=B\" cannot be",
        ),
        (
            "executor-environ",
            r#"[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]"#,
            "--executor-environ: the variable A is given twice",
        ),
        (
            "executor-source-prefix",
            "a b",
            "--executor-source-prefix: \"a b\" has spaces",
        ),
        (
            "zk-url",
            "z:2181/cotton",
            "--zk-url: a ZooKeeper URL begins with zk://",
        ),
        (
            "zk-url",
            "zk://cotton:hunter2@z:2181",
            "--zk-url: the URL has no path: name the node below which Cotton keeps everything",
        ),
        (
            "zk-url",
            "zk://hunter2@z/cotton",
            "--zk-url: what stands before '@' in a ZooKeeper URL must be user:password",
        ),
        (
            "zk-url",
            "zk://cotton:hunter2@z:x/cotton",
            "--zk-url: \"z:x\" is no server of a ZooKeeper URL",
        ),
        (
            "zk-reader",
            "hunter2",
            "--zk-reader: it is not USER:PASSWORD",
        ),
        (
            "zk-reader",
            "a:hunter2@b",
            "--zk-reader: it is not USER:PASSWORD",
        ),
        (
            "zk-reader",
            "cotton:x",
            "--zk-reader: the reader must not have the same ZooKeeper user as the scheduler or the executors",
        ),
        (
            "zk-reader",
            "executor:x",
            "--zk-reader: the reader must not have the same ZooKeeper user",
        ),
        (
            "executor-zk-keypath",
            "executor.yml",
            "--executor-zk-keypath: \"executor.yml\" must be an absolute path",
        ),
        (
            "executor-zk-keypath",
            "/nonexistent",
            "--executor-zk-keypath: the file /nonexistent cannot be read",
        ),
        (
            "admin-keypath",
            "admin.yml",
            "--admin-keypath: \"admin.yml\" must be an absolute path: agents look for the same one",
        ),
        (
            "admin-keypath",
            "/nonexistent",
            "--admin-keypath: the file /nonexistent cannot be read",
        ),
        (
            "admin-keypath",
            "/",
            "--admin-keypath: the file / cannot be read",
        ),
        (
            "scheduler-keypath",
            "/nonexistent",
            "--scheduler-keypath: the file /nonexistent cannot be read",
        ),
        (
            "state-storage",
            "etcd",
            "--state-storage: \"etcd\" is neither zk nor local",
        ),
        (
            "work-dir",
            "/etc/passwd",
            "--work-dir: /etc/passwd is not a directory",
        ),
        (
            "election-timeout",
            "soon",
            "--election-timeout: \"soon\" is not a time such as 30s, 5m, 12h or 14d",
        ),
        (
            "election-timeout",
            "0s",
            "--election-timeout: 0s is out of range: give a time from 1s to 3600s",
        ),
        (
            "election-timeout",
            "2h",
            "--election-timeout: 2h is out of range",
        ),
        (
            "installer-args",
            "mysqld",
            "--installer-args: it is not JSON",
        ),
        (
            "installer-args",
            "[]",
            "--installer-args: it is not a JSON object",
        ),
        (
            "installer-args",
            r#"{"path": "/x"}"#,
            "--installer-args: it has the unknown key \"path\"",
        ),
        (
            "installer-args",
            r#"{"mysqld": "mysqld"}"#,
            "--installer-args: mysqld must be an absolute path on the agents, not \"mysqld\"",
        ),
        (
            "installer-args",
            r#"{"mysqld": 1}"#,
            "--installer-args: the value of mysqld is not a text",
        ),
        (
            "installer-args",
            r#"{"mysqld": "/a", "package": "/b"}"#,
            "--installer-args: mysqld stands beside package or sha256",
        ),
        (
            "installer-args",
            r#"{"sha256": "00"}"#,
            "--installer-args: sha256 is there without package",
        ),
        (
            "installer-args",
            r#"{"package": "ftp://a"}"#,
            "--installer-args: package must be an http:// or file:/// URL or an absolute path",
        ),
        (
            "installer-args",
            short_digest.as_str(),
            "--installer-args: sha256 must have 64 hexadecimal digits",
        ),
        (
            "backup-store-args",
            r#"{"hdfs": "x"}"#,
            "--backup-store-args: this version has no backup store",
        ),
        (
            "backup-store-args",
            "x",
            "--backup-store-args: it is not JSON",
        ),
        (
            "volumes",
            "on",
            "--volumes: the role * cannot hold reservations, which persistent volumes need; give --framework-role another role",
        ),
        (
            "volumes",
            "maybe",
            "--volumes: \"maybe\" is neither on nor off",
        ),
        (
            "spread",
            "wide",
            "--spread: \"wide\" is neither prefer nor require",
        ),
        (
            "verbose",
            "very",
            "--verbose: \"very\" is neither true nor false",
        ),
        (
            "log-format",
            "xml",
            "--log-format: \"xml\" is neither text nor json",
        ),
        (
            "config",
            "/nonexistent",
            "--config: the file /nonexistent cannot be read",
        ),
    ] {
        let fault = Setup::new().with(flag, value).fault();
        assert!(
            fault.starts_with(sentence),
            "{flag}={value}:\n  {fault}\nis not\n  {sentence}"
        );
    }
}

#[test]
fn every_flag_is_in_the_table_of_wrong_values() {
    let (_, table) = include_str!("settings.rs")
        .split_once("fn wrong_values_and_their_sentences")
        .unwrap();
    let (table, _) = table.split_once("#[test]").unwrap();
    let command = Arguments::augment_args(clap::Command::new("scheduler"));
    for argument in command.get_arguments() {
        let flag = argument.get_id().as_str();
        assert!(
            table.contains(&format!("\"{flag}\",")),
            "--{flag} has no wrong values"
        );
    }
}

#[test]
fn wrong_key_files_and_their_sentences() {
    for (flag, content, sentence) in [
        (
            "admin-keypath",
            "username: a\n",
            "must be YAML with the two keys username and password",
        ),
        (
            "admin-keypath",
            "username: a\npassword: hunter2\nx: y\n",
            "must be YAML with the two keys username and password; see its line 3",
        ),
        (
            "admin-keypath",
            "username: ''\npassword: hunter2\n",
            "username is empty",
        ),
        (
            "executor-zk-keypath",
            "hunter2",
            "must be YAML with the two keys username and password",
        ),
        (
            "framework-authentication-file",
            "principal: a\n",
            "must be YAML with the two keys principal and secret",
        ),
        (
            "scheduler-keypath",
            "hunter2",
            "must hold exactly 32 bytes (and a newline at most), but it holds 7",
        ),
    ] {
        let setup = Setup::new();
        let file = setup.file("wrong", content);
        let fault = setup.with(flag, &file).fault();
        assert!(
            fault.starts_with(&format!("--{flag}: ")) && fault.contains(sentence),
            "{fault}"
        );
    }
}

#[test]
fn a_key_may_end_with_a_newline() {
    let setup = Setup::new();
    let file = setup.file("key2", &("k".repeat(32) + "\n"));
    assert!(setup.with("scheduler-keypath", &file).resolve().is_ok());
}

#[test]
fn the_identities_of_zookeeper_go_together() {
    let fault = Setup::new().without("executor-zk-keypath").fault();
    assert!(
        fault.starts_with("--executor-zk-keypath: it is required because --zk-url has a user"),
        "{fault}"
    );
    let fault = Setup::new().with("zk-url", "zk://z/cotton").fault();
    assert!(
        fault.contains("--zk-url has no user and password, so nothing would be protected"),
        "{fault}"
    );
    let fault = Setup::new()
        .with("zk-url", "zk://executor:x@z/cotton")
        .fault();
    assert!(
        fault.contains("the executors must not have the same ZooKeeper user"),
        "{fault}"
    );
    let open = Setup::new()
        .with("zk-url", "zk://z/cotton")
        .without("executor-zk-keypath");
    let warnings = open.resolve().unwrap().warnings;
    assert!(
        warnings[0].contains("everybody who reaches ZooKeeper can change"),
        "{warnings:?}"
    );
    let fault = open.with("zk-reader", "r:p").fault();
    assert!(
        fault.starts_with("--zk-reader: it says who may read, but"),
        "{fault}"
    );
}

#[test]
fn volumes_need_a_role_and_another_version() {
    let fault = Setup::new()
        .with("volumes", "on")
        .with("framework-role", "db")
        .fault();
    assert!(
        fault.contains("this version keeps data in sandboxes"),
        "{fault}"
    );
}

#[test]
fn key_files_that_everybody_can_read_are_warned_of() {
    let setup = Setup::new();
    let key = &setup.flags["scheduler-keypath"];
    std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let warnings = setup.resolve().unwrap().warnings;
    assert!(
        warnings
            .iter()
            .any(|w| w.contains("the file of --scheduler-keypath; chmod o-r it")),
        "{warnings:?}"
    );
}

#[test]
fn flags_go_before_variables_before_the_file_before_defaults() {
    let setup = Setup::new();
    let config = setup.file(
        "config.toml",
        "framework-role = 'from-file'\nelection_timeout = '7s'\nspread = 'require'\n[[executor-environ]]\nname = 'A'\nvalue = 'b'\n",
    );
    let setup = setup
        .with("config", &config)
        .with("spread", "prefer")
        .variable("COTTON_ELECTION_TIMEOUT", "8s")
        .variable("COTTON_SPREAD", "require")
        .variable("COTTON_LOG_FORMAT", "");
    let settings = setup.resolve().unwrap();
    assert_eq!(settings.framework_role, "from-file");
    assert_eq!(settings.election_timeout.as_secs(), 8);
    assert_eq!(settings.spread, cotton::cli::settings::Spread::Prefer);
    assert_eq!(settings.executor_environ[0].value, "b");
}

#[test]
fn the_file_can_be_named_by_a_variable_and_hold_everything() {
    let setup = Setup::new();
    let lines = setup.flags.iter().map(|(name, value)| match name.as_str() {
        "port" => format!("{name} = {value}\n"),
        _ => format!("{name} = '{value}'\n"),
    });
    let lines: String = lines.chain(["verbose = true\n".to_owned()]).collect();
    let config = setup.file("config.toml", &lines);
    let mut setup = setup.variable("COTTON_CONFIG", &config);
    setup.flags.clear();
    assert!(setup.resolve().unwrap().verbose);
}

#[test]
fn sentences_say_where_a_value_came_from() {
    let fault = Setup::new()
        .without("port")
        .variable("COTTON_PORT", "x")
        .fault();
    assert_eq!(
        fault,
        "--port (from the environment variable COTTON_PORT): \"x\" is not a port number from 1 to 65535"
    );
    let setup = Setup::new();
    let config = setup.file("c.toml", "volumes = 'x'");
    let fault = setup.with("config", &config).fault();
    assert_eq!(
        fault,
        format!("--volumes (from {config}): \"x\" is neither on nor off")
    );
}

#[test]
fn wrong_files_and_their_sentences() {
    for (content, sentence) in [
        ("zk-url = hunter2", "is not TOML"),
        ("prot = 1", "has the unknown key \"prot\""),
        ("config = 'x'", "has the unknown key \"config\""),
        ("zk_url = 'zk://a/b'\nzk-url = 'zk://a/c'", "has the key"),
        ("spread = 2020-01-01", "the value of spread is a date"),
    ] {
        let setup = Setup::new();
        let config = setup.file("c.toml", content);
        let fault = setup.with("config", &config).fault();
        assert!(
            fault.starts_with("--config: ") && fault.contains(sentence),
            "{content}: {fault}"
        );
    }
}

#[test]
fn all_faults_are_told_at_once_and_the_status_is_2() {
    let output = assert_cmd::Command::cargo_bin("cotton")
        .unwrap()
        .args(["scheduler", "--port=x", "--spread=y", "--zk_url=zk://"])
        .env_clear()
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
    let stderr = String::from_utf8(output.stderr).unwrap();
    let flags: Vec<_> = stderr
        .lines()
        .map(|line| line.split(':').nth(1).unwrap().trim())
        .collect();
    assert_eq!(
        flags,
        [
            "--port",
            "--mesos-master",
            "--framework-user",
            "--zk-url",
            "--admin-keypath",
            "--scheduler-keypath",
            "--spread"
        ]
    );
}

#[test]
fn what_the_command_line_itself_refuses_is_one_sentence_too() {
    for (words, sentence) in [
        (
            &["scheduler", "--prot", "1"][..],
            "cotton: unexpected argument '--prot' found; tip: a similar argument exists: '--port'; see --help\n",
        ),
        (
            &["scheduler", "--port"],
            "cotton: a value is required for '--port <PORT>' but none was supplied; see --help\n",
        ),
        (
            &["scheduler", "--port="],
            "cotton: a value is required for '--port <PORT>' but none was supplied; see --help\n",
        ),
        (
            &["scheduler", "--port=1", "--port=2"],
            "cotton: the argument '--port <PORT>' cannot be used multiple times; see --help\n",
        ),
        (
            &["scheduler", "extra"],
            "cotton: unexpected argument 'extra' found; see --help\n",
        ),
        (
            &["shceduler"],
            "cotton: unrecognized subcommand 'shceduler'; tip: a similar subcommand exists: 'scheduler'; see --help\n",
        ),
    ] {
        let output = assert_cmd::Command::cargo_bin("cotton")
            .unwrap()
            .args(words)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert_eq!(
            String::from_utf8(output.stderr).unwrap(),
            sentence,
            "{words:?}"
        );
    }
}
