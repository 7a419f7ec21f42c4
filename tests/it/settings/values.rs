//! Wrong values of each flag, and the sentence each gets.

use clap::Args as _;
use cotton::cli::settings::Arguments;

use super::Setup;

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
            "health-check-interval",
            "10ms",
            "--health-check-interval: 10ms is out of range: give a time from 100ms to 60s",
        ),
        (
            "hang-timeout",
            "3",
            "--hang-timeout: \"3\" is not a time such as 30s, 5m, 12h or 14d",
        ),
        (
            "hang-timeout",
            "1s",
            "--hang-timeout: it must be longer than --health-check-interval",
        ),
        (
            "commit-timeout",
            "2h",
            "--commit-timeout: 2h is out of range: give a time from 1s to 3600s",
        ),
        (
            "voter-patience",
            "1s",
            "--voter-patience: 1s is out of range: give a time from 10s to 7d",
        ),
        (
            "copy-rate",
            "10mb",
            "--copy-rate: \"10mb\" is not a whole number of MiB per second, or 0 for no limit",
        ),
        (
            "copy-cost",
            "0",
            "--copy-cost: \"0\" is not a whole number of percent, from 1 to 100",
        ),
        (
            "copy-cost",
            "101",
            "--copy-cost: \"101\" is not a whole number of percent, from 1 to 100",
        ),
        (
            "replace-after",
            "1s",
            "--replace-after: 1s is out of range: give a time from 10s to 30d",
        ),
        (
            "voter-lag",
            "2s",
            "--voter-lag: 2s is out of range: give a time from 10s to 1d",
        ),
        (
            "failover-window",
            "1s",
            "--failover-window: 1s is out of range: give a time from 10s to 1d",
        ),
        (
            "failover-limit",
            "0",
            "--failover-limit: \"0\" is not a whole number from 1 to 100",
        ),
        (
            "master-lease",
            "2s",
            "--master-lease: 2s is out of range: give a time from 3s to 600s",
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
            r#"{"packages": {"next": {"mysqld": "/x"}}}"#,
            "--installer-args: the package \"next\": server must say what is in it",
        ),
        (
            "installer-args",
            r#"{"packages": {"default": {}}}"#,
            "--installer-args: the package \"default\": a name has 1 to 64 letters",
        ),
        (
            "installer-args",
            r#"{"packages": {"next": {"server": "mariadb 11.8.6"}}}"#,
            "--installer-args: the package \"next\": give {\"mysqld\": PATH}",
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
            "--installer-args: package must be an http://, hdfs:// or file:/// URL or an absolute path",
        ),
        (
            "installer-args",
            short_digest.as_str(),
            "--installer-args: sha256 must have 64 hexadecimal digits",
        ),
        (
            "archive-binlogs",
            "yes",
            "--archive-binlogs: \"yes\" is neither on nor off",
        ),
        (
            "backup-store-args",
            r#"{"hdfs": "x"}"#,
            "--backup-store-args: it has no url; the options are url, region,",
        ),
        (
            "backup-store-args",
            r#"{"url": "file:///no/such/folder"}"#,
            "--backup-store-args: the backup store's folder /no/such/folder is not there; make it, or mount what it is on",
        ),
        (
            "backup-store-args",
            r#"{"url": "ftp://host/x"}"#,
            "--backup-store-args: \"ftp://host/x\" is not the URL of a backup store; give file:///path",
        ),
        (
            "backup-store-args",
            r#"{"url": "hdfs://nobody/x"}"#,
            "--backup-store-args: nobody is neither HOST:PORT of a name node nor a name that Hadoop's settings know",
        ),
        (
            "backup-store-args",
            r#"{"url": "s3://bucket/x"}"#,
            "--backup-store-args: an S3 store needs its region",
        ),
        (
            "backup-store-args",
            r#"{"url": "s3://bucket/x", "secret_access_key": "hunter2"}"#,
            "--backup-store-args: secret_access_key must not stand here, where everybody can read it; name a file",
        ),
        (
            "backup-store-args",
            r#"{"url": "file:///tmp", "colour": "red"}"#,
            "--backup-store-args: it has the unknown key \"colour\"",
        ),
        (
            "backup-store-args",
            r#"{"url": "file:///tmp", "key": "key"}"#,
            "--backup-store-args: key: ",
        ),
        (
            "backup-store-args",
            r#"{"url": "file:///tmp", "key": "/no/such/key"}"#,
            "--backup-store-args: the file /no/such/key cannot be read",
        ),
        (
            "backup-store-args",
            r#"{"url": "file:///tmp", "region": "x"}"#,
            "--backup-store-args: region is for stores at s3:// alone",
        ),
        (
            "backup-store-args",
            r#"{"url": "file:///tmp", "rate_mib": -1}"#,
            "--backup-store-args: the value of rate_mib: \"-1\" is not a whole number of MiB per second",
        ),
        (
            "backup-store",
            "/tmp",
            "--backup-store: \"/tmp\" is not the URL of a backup store",
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
            "backup-schedule",
            "daily",
            "--backup-schedule: a schedule is \"none\", an interval from 1m to 31d such as \"every 6h\", or a cron pattern of five fields in UTC such as \"30 2 * * *\", not \"daily\"",
        ),
        (
            "backup-keep",
            "0",
            "--backup-keep: it is \"all\", a number of backups from 1 to 10000, an age from 1m to 3660d, or both as in \"7,30d\", not \"0\"",
        ),
        (
            "backup-keep-deleted",
            "1s",
            "--backup-keep-deleted: 1s is out of range: give a time from 1d to 3650d",
        ),
        (
            "backups-at-once",
            "0",
            "--backups-at-once: \"0\" is not a whole number from 1 to 1000",
        ),
        (
            "verify-backups",
            "always",
            "--verify-backups: \"always\" is neither true nor false",
        ),
        (
            "keep-deleted",
            "for ever",
            "--keep-deleted: \"for ever\" is not a time such as 30s, 5m, 12h or 14d",
        ),
        (
            "spread",
            "wide",
            "--spread: \"wide\" is neither prefer nor require",
        ),
        (
            "spread-by",
            "zone,,rack",
            "--spread-by: there is a name missing in \"zone,,rack\"",
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
    let (_, table) = include_str!("values.rs")
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
