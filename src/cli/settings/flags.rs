//! The flags of `cotton scheduler`: each in one place, with its name, its default and its help.

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, ArgMatches, Command, builder::NonEmptyStringValueParser};

/// One flag.
pub(super) struct Flag {
    /// With dashes.
    pub name: &'static str,
    /// The original's spelling, accepted too.
    underscored: &'static str,
    /// What stands for the value in the help.
    value: &'static str,
    /// `None`: it is required, or there is nothing when it is not given.
    pub default: Option<&'static str>,
    help: &'static str,
}

const fn flag(
    name: &'static str,
    underscored: &'static str,
    value: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> Flag {
    Flag {
        name,
        underscored,
        value,
        default,
        help,
    }
}

/// The flags that take `true` when they stand alone.
const VERBOSE: &str = "verbose";
const VERIFY_BACKUPS: &str = "verify-backups";

/// The flag that names the file with the others.
pub(super) const CONFIG: &str = "config";

/// All flags, in the order of the help.
pub(super) const FLAGS: &[Flag] = &[
    flag(
        "port",
        "port",
        "PORT",
        None,
        "The port of the REST API and the web page. Required",
    ),
    flag(
        "advertise",
        "advertise",
        "HOST:PORT",
        None,
        "What others reach this scheduler's port by: Mesos shows it, and agents fetch the executor from it [default: this machine's host name and --port]",
    ),
    flag(
        "mesos-master",
        "mesos_master",
        "MASTERS",
        None,
        "The Mesos masters: host:port, several with commas between, or zk://servers/path. Required",
    ),
    flag(
        "framework-user",
        "framework_user",
        "USER",
        None,
        "The user on the agents that executors and MySQL servers run as. Required",
    ),
    flag(
        "framework-role",
        "framework_role",
        "ROLE",
        Some("*"),
        "The Mesos role whose resources are used. The role * cannot hold reservations, so there are no persistent volumes with it",
    ),
    flag(
        "framework-failover-timeout",
        "framework_failover_timeout",
        "TIME",
        Some("14d"),
        "How long Mesos keeps all tasks running without a scheduler",
    ),
    flag(
        "framework-authentication-file",
        "framework_authentication_file",
        "FILE",
        None,
        "YAML with the keys principal and secret: how the scheduler proves to Mesos who it is",
    ),
    flag(
        "executor-uri",
        "executor_uri",
        "URI",
        None,
        "Where agents fetch the executor from [default: from this scheduler, which serves its own binary]",
    ),
    flag(
        "executor-cmd",
        "executor_cmd",
        "COMMAND",
        None,
        "The command that starts the executor in its sandbox [default: the fetched file with the argument `executor`]",
    ),
    flag(
        "executor-environ",
        "executor_environ",
        "JSON",
        Some("[]"),
        "Environment variables of the executors: a JSON list of objects with name and value",
    ),
    flag(
        "executor-source-prefix",
        "executor_source_prefix",
        "PREFIX",
        None,
        "ExecutorInfo.source becomes <prefix>.<cluster>.<server id>, for grouping in monitoring",
    ),
    flag(
        "zk-url",
        "zk_url",
        "URL",
        None,
        "Where state, control and discovery are kept: zk://user:password@servers/path. Without user and password all nodes are open to everybody. Required",
    ),
    flag(
        "zk-reader",
        "zk_reader",
        "USER:PASSWORD",
        None,
        "An identity that may only read discovery and appears in cluster URLs; without it everybody may read discovery",
    ),
    flag(
        "executor-zk-keypath",
        "executor_zk_keypath",
        "FILE",
        None,
        "YAML with the keys username and password: the executors' ZooKeeper identity. A file at this path here and on every agent. Required when --zk-url has a user",
    ),
    flag(
        "admin-keypath",
        "admin_keypath",
        "FILE",
        None,
        "YAML with the keys username and password: the MySQL admin account, with which servers replicate too. A file at this path here and on every agent. Required",
    ),
    flag(
        "scheduler-keypath",
        "scheduler_keypath",
        "FILE",
        None,
        "The key that cluster passwords are stored under: exactly 32 bytes. Required",
    ),
    flag(
        "state-storage",
        "state_storage",
        "zk|local",
        Some("zk"),
        "Where the scheduler keeps its state: in ZooKeeper, or in files below --work-dir",
    ),
    flag(
        "work-dir",
        "work_dir",
        "DIRECTORY",
        Some("/var/lib/cotton"),
        "Where the scheduler keeps files of its own",
    ),
    flag(
        "election-timeout",
        "election_timeout",
        "TIME",
        Some("60s"),
        "How long an election waits for members that do not report before it goes on without them, where that is safe",
    ),
    flag(
        "health-check-interval",
        "health_check_interval",
        "TIME",
        Some("1s"),
        "How often executors check their servers. A check of an idle master is a commit of some 300 bytes of binlog",
    ),
    flag(
        "hang-timeout",
        "hang_timeout",
        "TIME",
        Some("3s"),
        "How long a server may give no sign of life before it is killed and, if it was the master, replaced",
    ),
    flag(
        "commit-timeout",
        "commit_timeout",
        "TIME",
        Some("10s"),
        "How long a commit of a master may take to reach its disk before the server is killed and replaced; if it is acknowledgements that it waits for, before slaves connect anew, and three times as long before the master is replaced",
    ),
    flag(
        "master-lease",
        "master_lease",
        "TIME",
        Some("6s"),
        "How long a master that is out of touch with ZooKeeper goes on while its slaves do not prove that it is still their master",
    ),
    flag(
        "voter-patience",
        "voter_patience",
        "TIME",
        Some("10m"),
        "How long a slave may be dead or not receiving before a cluster of three or more stops counting on its acknowledgements. It comes back by itself",
    ),
    flag(
        "replace-after",
        "replace_after",
        "TIME",
        Some("15m"),
        "How long an agent may be away before its members are replaced on others, if all of their data is elsewhere. It can be set for each cluster too",
    ),
    flag(
        "voter-lag",
        "voter_lag",
        "TIME",
        Some("60s"),
        "How far a slave may be behind in applying what it receives before another takes its place in acknowledging, for as long as --voter-patience says. It is told in steps: 5s, 10s, 20s, 30s, 60s, 2m, 5m, 10m, 30m, 1h, 3h, 12h, 1d",
    ),
    flag(
        "copy-rate",
        "copy_rate",
        "MIB",
        Some("0"),
        "How many MiB per second a member may copy from another one at the most, when it has to get all of a cluster's data; 0 for no limit",
    ),
    flag(
        "copy-cost",
        "copy_cost",
        "PERCENT",
        Some("10"),
        "How many of the transactions that clients commit, in percent, may be missing while a member copies another one's data: it copies more slowly where there would be more, but not below 16 MiB per second. 100: it copies as fast as it can, or as --copy-rate says",
    ),
    flag(
        "failover-limit",
        "failover_limit",
        "NUMBER",
        Some("5"),
        "How many failovers of one cluster within --failover-window make it wait before the next one, twice as long each time",
    ),
    flag(
        "failover-window",
        "failover_window",
        "TIME",
        Some("5m"),
        "See --failover-limit",
    ),
    flag(
        "installer-args",
        "installer_args",
        "JSON",
        Some("{}"),
        "How MySQL gets onto agents: {\"mysqld\": PATH} for an installed server, {\"package\": URL, \"sha256\": HEX} for one to fetch; beside it \"packages\": {NAME: {..., \"server\": \"mariadb 11.8.6\"}} for those that a cluster can choose with cotton admin change --package [default: the mysqld or mariadbd on the agent's search path]",
    ),
    flag(
        "backup-store",
        "backup_store",
        "URL",
        None,
        "Where backups are stored: file:///path, hdfs://namenode:port/path, hdfs://name/path (with several name nodes, from HADOOP_CONF_DIR) or s3://bucket/prefix. Agents and this machine must reach it [default: none, so that there are no backups]",
    ),
    flag(
        "backup-store-args",
        "backup_store_args",
        "JSON",
        Some("{}"),
        "Options of the backup store: {\"url\": URL} in the place of --backup-store; \"region\", \"endpoint\" and \"credentials\" (a YAML file with the keys username and password) for S3; \"key\" (a file of 32 bytes that backups are encrypted with); \"rate_mib\" (how many MiB per second a backup may read). Files are at these paths here and on every agent",
    ),
    flag(
        "archive-binlogs",
        "archive_binlogs",
        "on|off",
        Some("on"),
        "Whether the binlogs of all clusters are archived in the backup store, if there is one, so that a backup can be restored up to any point behind it",
    ),
    flag(
        "backup-schedule",
        "backup_schedule",
        "SCHEDULE",
        Some("none"),
        "When backups of a cluster are made without being asked for, if the cluster says nothing else: none, an interval such as \"every 6h\", or a cron pattern in UTC such as \"30 2 * * *\". Clusters are spread over the interval, or over half an hour",
    ),
    flag(
        "backup-keep",
        "backup_keep",
        "RULE",
        Some("all"),
        "Which backups of a cluster are kept, if the cluster says nothing else: all, a number of the newest, an age such as 30d, or both as in 7,30d: what one of them keeps is kept. The newest one always is",
    ),
    flag(
        "backup-keep-deleted",
        "backup_keep_deleted",
        "TIME",
        None,
        "How long backups of clusters that were deleted are kept. Give it only if no other installation uses the same store: its clusters are not known here [default: for ever]",
    ),
    flag(
        "backups-at-once",
        "backups_at_once",
        "NUMBER",
        Some("10"),
        "How many clusters make a backup at the same time before those whose schedule is due wait; and how many backups are verified at the same time",
    ),
    flag(
        VERIFY_BACKUPS,
        "verify_backups",
        "BOOL",
        Some("false"),
        "Verify each backup that a schedule has made: a task of its own, of the cluster's size, restores it where no member lives, starts a server that nobody reaches, checks all tables and counts their rows. It is launched where no member wants the room",
    ),
    flag(
        "volumes",
        "volumes",
        "on|off",
        None,
        "Whether data is kept on persistent volumes, where a task that is launched again finds it, or in sandboxes, with which it goes [default: on, unless the role is *]",
    ),
    flag(
        "keep-deleted",
        "keep_deleted",
        "TIME",
        Some("24h"),
        "How long the volumes of a deleted cluster are kept before they are destroyed",
    ),
    flag(
        "spread",
        "spread",
        "prefer|require",
        Some("prefer"),
        "Whether members of a cluster share an agent when no other can be had for 30 s (prefer), or wait (require)",
    ),
    flag(
        "spread-by",
        "spread_by",
        "NAMES",
        Some("zone"),
        "Agents' attributes, with commas between them, by which members of a cluster are spread too, the most important one first; region and zone are those of Mesos' fault domains. A member waits up to 30 s for a place of its own",
    ),
    flag(VERBOSE, "verbose", "BOOL", Some("false"), "Log more"),
    flag(
        "log-format",
        "log_format",
        "text|json",
        Some("text"),
        "The form of log lines on stderr",
    ),
    flag(
        CONFIG,
        "config",
        "FILE",
        None,
        "A TOML file whose keys are the names of these flags",
    ),
];

/// The help's last words.
const EXAMPLES: &str = "\
A flag can also be set by the environment variable COTTON_<FLAG> (COTTON_MESOS_MASTER for --mesos-master) and in
the file of --config; a flag goes before a variable, and a variable before the file. Names can be written with
underscores too. Times are written as 30s, 5m, 12h or 14d.

Examples:
  cotton scheduler --port 8080 --mesos-master zk://zk1:2181,zk2:2181/mesos --framework-user mysql \\
      --zk-url zk://cotton:secret@zk1:2181,zk2:2181/cotton --executor-zk-keypath /etc/cotton/executor.yml \\
      --admin-keypath /etc/cotton/admin.yml --scheduler-keypath /etc/cotton/scheduler.key
  cotton scheduler --config /etc/cotton/scheduler.toml --verbose
  cotton scheduler --config /etc/cotton/scheduler.toml --backup-store hdfs://namenode:8020/backups \\
      --backup-schedule '30 2 * * *' --backup-keep 7,30d";

/// The values that were given on the command line, by flag.
#[derive(Debug, Default, Clone)]
pub struct Arguments(pub(super) BTreeMap<&'static str, String>);

impl Flag {
    fn arg(&self) -> Arg {
        let help = match self.default {
            Some("{}" | "false") | None => self.help.to_owned(),
            Some(default) => format!("{} [default: {default}]", self.help),
        };
        let arg = Arg::new(self.name)
            .long(self.name)
            .value_name(self.value)
            .value_parser(NonEmptyStringValueParser::new())
            .action(ArgAction::Set)
            .help(help);
        let arg = if self.underscored == self.name {
            arg
        } else {
            arg.alias(self.underscored)
        };
        if [VERBOSE, VERIFY_BACKUPS].contains(&self.name) {
            arg.num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
        } else {
            // A value may begin with a dash: what is wrong with it is told with all other faults.
            arg.allow_hyphen_values(true)
        }
    }
}

impl clap::FromArgMatches for Arguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut arguments = Self::default();
        arguments.update_from_arg_matches(matches)?;
        Ok(arguments)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for flag in FLAGS {
            if let Some(value) = matches.get_one::<String>(flag.name) {
                self.0.insert(flag.name, value.clone());
            }
        }
        Ok(())
    }
}

impl clap::Args for Arguments {
    fn augment_args(command: Command) -> Command {
        command
            .args(FLAGS.iter().map(Flag::arg))
            .after_help(EXAMPLES)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_underscored_spelling_is_that_of_the_flag() {
        for flag in FLAGS {
            assert_eq!(flag.underscored, flag.name.replace('-', "_"));
        }
    }

    #[test]
    fn the_first_sentences_of_the_help_have_no_full_stop() {
        for flag in FLAGS {
            assert!(!flag.help.ends_with('.'), "{}", flag.name);
        }
    }
}
