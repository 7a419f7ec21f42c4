//! The settings of the scheduler: from what was written in flags, variables and a file to typed values.
//!
//! `flags` is the table of all flags, `layers` finds each one's value, `parse` reads single values, and
//! [`Settings::resolve`] puts them together and checks what must hold between them. Everything that is wrong
//! is told at once.

mod backup;
mod flags;
mod installers;
mod layers;
mod parse;

use std::{ffi::OsString, fmt, path::PathBuf, time::Duration};

use self::layers::{Source, Value, Values};
pub use self::{
    flags::Arguments,
    parse::{EnvironmentVariable, LogFormat, Spread, StateStorage},
};
use crate::{
    backup::store::Store,
    cluster::{
        backup::BackupStore,
        backup_rules::{BackupKeep, BackupSchedule},
        configuration::Package,
        control::Installer,
        timings::Timings,
    },
    keyfile::{self, Account, SchedulerKey},
    mesos::{address::MasterAddresses, authentication::Credential},
    zookeeper::url::{Credentials, ZkUrl},
};

/// What the scheduler runs with. Nothing in it has to be doubted any more.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The port of the REST API.
    pub port: u16,
    /// `host:port` by which others reach it.
    pub advertise: String,
    /// The Mesos masters.
    pub mesos_master: MasterAddresses,
    /// The user that executors run as.
    pub framework_user: String,
    /// The Mesos role.
    pub framework_role: String,
    /// How long Mesos keeps the tasks without a scheduler.
    pub framework_failover_timeout: Duration,
    /// How the scheduler proves to Mesos who it is.
    pub framework_authentication: Option<Credential>,
    /// Where agents fetch the executor from; `None`: from the scheduler itself.
    pub executor_uri: Option<String>,
    /// The command that starts it.
    pub executor_cmd: Option<String>,
    /// Its environment.
    pub executor_environ: Vec<EnvironmentVariable>,
    /// What `ExecutorInfo.source` begins with.
    pub executor_source_prefix: Option<String>,
    /// Where state, control and discovery are kept.
    pub zk_url: ZkUrl,
    /// Who may read discovery; `None`: everybody.
    pub zk_reader: Option<Credentials>,
    /// The executors' ZooKeeper identity; given if and only if `zk_url` has credentials.
    pub executor_zk: Option<ExecutorIdentity>,
    /// The path of the MySQL admin account's file, on the agents too.
    pub admin_keypath: PathBuf,
    /// The MySQL admin account.
    pub admin: Account,
    /// What cluster passwords are stored under.
    pub scheduler_key: SchedulerKey,
    /// Where the state is kept.
    pub state_storage: StateStorage,
    /// Where the scheduler keeps files of its own.
    pub work_dir: PathBuf,
    /// How long an election waits for reports.
    pub election_timeout: Duration,
    /// How soon executors notice faults, and how long they wait before they act.
    pub timings: Timings,
    /// How long a voter may be out of its place before it leaves the voters.
    pub voter_patience: Duration,
    /// How long an agent may be away before its members are replaced.
    pub replace_after: Duration,
    /// How far a voter may be behind in applying what it receives before it is out of its place.
    pub voter_lag: Duration,
    /// How fast another member's data may be copied, in MiB per second; 0 for no limit.
    pub copy_rate_mib: u32,
    /// How many of their commits clients may lose to a copy, in percent; 100 for all that it takes.
    pub copy_cost_percent: u8,
    /// How many failovers within the window make a cluster wait before the next one.
    pub failover_limit: u32,
    /// See there.
    pub failover_window: Duration,
    /// How MySQL gets onto agents.
    pub installer: Installer,
    /// The packages that clusters can choose.
    pub packages: Vec<Package>,
    /// Where backups are stored; `None`: there are none.
    pub backup_store: Option<BackupStore>,
    /// Whether binlogs are archived there.
    pub archive_binlogs: bool,
    /// When backups are made without being asked for, where the cluster says nothing else.
    pub backup_schedule: BackupSchedule,
    /// Which backups are kept, where the cluster says nothing else.
    pub backup_keep: BackupKeep,
    /// How long backups of deleted clusters are kept; `None`: for ever.
    pub backup_keep_deleted: Option<Duration>,
    /// How many clusters make a backup at the same time before those whose schedule is due wait.
    pub backups_at_once: usize,
    /// Whether backups that the schedule has made are verified.
    pub verify_backups: bool,
    /// Whether data is kept on persistent volumes. Never with the role `*`.
    pub volumes: bool,
    /// How long the data of a deleted cluster is kept.
    pub keep_deleted: Duration,
    /// Whether members of a cluster may share an agent.
    pub spread: Spread,
    /// The names of the attributes by which members of a cluster are spread, beside agents, the most important one first.
    pub spread_by: Vec<String>,
    /// Log more.
    pub verbose: bool,
    /// The form of log lines.
    pub log_format: LogFormat,
    /// What is not wrong but should be known, one sentence each; to be logged at start.
    pub warnings: Vec<String>,
}

/// The executors' ZooKeeper identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutorIdentity {
    /// The path of its file, on the agents too.
    pub path: PathBuf,
    /// What stands in it.
    pub credentials: Credentials,
}

/// One thing that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The flag, without dashes in front.
    pub flag: &'static str,
    source: Source,
    detail: String,
}

impl Fault {
    fn of(flag: &'static str, source: &Source, detail: impl fmt::Display) -> Self {
        Self {
            flag,
            source: source.clone(),
            detail: detail.to_string(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--{}{}: {}", self.flag, self.source, self.detail)
    }
}

impl Settings {
    /// Finds every value, reads the files that they name and checks everything.
    ///
    /// # Errors
    /// All that is wrong, in the order of the help.
    pub fn resolve(
        arguments: Arguments,
        environment: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let values = layers::collect(arguments, environment, &mut faults);
        let mut door = Door { values, faults };
        let settings = door.settings();
        if let Some(settings) = &settings {
            door.check_together(settings);
        }
        match settings {
            Some(settings) if door.faults.is_empty() => Ok(settings),
            _ => Err(door.in_order()),
        }
    }
}

/// Takes values out and collects what is wrong with them.
struct Door {
    values: Values,
    faults: Vec<Fault>,
}

impl Door {
    /// All values, or `None` if one is missing or wrong; every one is looked at first.
    fn settings(&mut self) -> Option<Settings> {
        let port = self.required("port", parse::port);
        let advertise = match port {
            Some(port) => self
                .optional("advertise", parse::host_port)
                .map(|given| given.unwrap_or_else(|| format!("{}:{port}", parse::own_host_name()))),
            None => self
                .optional("advertise", parse::host_port)
                .map(Option::unwrap_or_default),
        };
        let mesos_master = self.required("mesos-master", |text| {
            MasterAddresses::parse(text).map_err(|error| error.to_string())
        });
        let framework_user = self.required("framework-user", parse::user);
        let framework_role = self.required("framework-role", parse::role);
        let framework_failover_timeout =
            self.required("framework-failover-timeout", parse::failover_timeout);
        let framework_authentication = self.optional("framework-authentication-file", |text| {
            keyfile::read_credential(text.as_ref()).map_err(|error| error.to_string())
        });
        let executor_uri = self.optional("executor-uri", parse::uri);
        let executor_cmd = self.optional("executor-cmd", parse::command);
        let executor_environ = self.required("executor-environ", parse::environment);
        let executor_source_prefix = self.optional("executor-source-prefix", parse::source_prefix);
        let zk_url = self.required("zk-url", parse::zk_url);
        let zk_reader = self.optional("zk-reader", parse::identity);
        let executor_zk = self.optional("executor-zk-keypath", |text| {
            let (
                path,
                Account {
                    username: user,
                    password,
                },
            ) = account_file(text)?;
            Ok(ExecutorIdentity {
                path,
                credentials: Credentials { user, password },
            })
        });
        let admin = self.required("admin-keypath", account_file);
        let scheduler_key = self.required("scheduler-keypath", |text| {
            SchedulerKey::read(text.as_ref()).map_err(|error| error.to_string())
        });
        let state_storage = self.required("state-storage", parse::state_storage);
        let work_dir = self.required("work-dir", parse::work_dir);
        let election_timeout = self.required("election-timeout", parse::election_timeout);
        let timings = self.timings();
        let voter_patience = self.required("voter-patience", parse::voter_patience);
        let replace_after = self.required("replace-after", parse::replace_after);
        let voter_lag = self.required("voter-lag", parse::voter_lag);
        let copy_rate_mib = self.required("copy-rate", parse::copy_rate);
        let copy_cost_percent = self.required("copy-cost", parse::copy_cost);
        let failover_limit = self.required("failover-limit", parse::failover_limit);
        let failover_window = self.required("failover-window", parse::failover_window);
        let installers = self.required("installer-args", installers::installers);
        let backup_store = self.backup_store();
        let archive_binlogs = self.required("archive-binlogs", parse::on_or_off);
        let backup_schedule = self.required("backup-schedule", str::parse::<BackupSchedule>);
        let backup_keep = self.required("backup-keep", str::parse::<BackupKeep>);
        let backup_keep_deleted = self.optional("backup-keep-deleted", parse::backup_keep_deleted);
        let backups_at_once = self.required("backups-at-once", parse::backups_at_once);
        let verify_backups = self.required("verify-backups", parse::boolean);
        let volumes = self.volumes(framework_role.as_deref());
        let keep_deleted = self.required("keep-deleted", parse::keep_deleted);
        let spread = self.required("spread", parse::spread);
        let spread_by = self.required("spread-by", parse::names);
        let verbose = self.required("verbose", parse::boolean);
        let log_format = self.required("log-format", parse::log_format);
        let warnings = self.warnings();
        let (admin_keypath, admin) = admin?;
        Some(Settings {
            port: port?,
            advertise: advertise?,
            mesos_master: mesos_master?,
            framework_user: framework_user?,
            framework_role: framework_role?,
            framework_failover_timeout: framework_failover_timeout?,
            framework_authentication: framework_authentication?,
            executor_uri: executor_uri?,
            executor_cmd: executor_cmd?,
            executor_environ: executor_environ?,
            executor_source_prefix: executor_source_prefix?,
            zk_url: zk_url?,
            zk_reader: zk_reader?,
            executor_zk: executor_zk?,
            admin_keypath,
            admin,
            scheduler_key: scheduler_key?,
            state_storage: state_storage?,
            work_dir: work_dir?,
            election_timeout: election_timeout?,
            timings: timings?,
            voter_patience: voter_patience?,
            replace_after: replace_after?,
            voter_lag: voter_lag?,
            copy_rate_mib: copy_rate_mib?,
            copy_cost_percent: copy_cost_percent?,
            failover_limit: failover_limit?,
            failover_window: failover_window?,
            packages: installers
                .as_ref()
                .map(|it| it.named.clone())
                .unwrap_or_default(),
            installer: installers?.default,
            backup_store: backup_store?,
            archive_binlogs: archive_binlogs?,
            backup_schedule: backup_schedule?,
            backup_keep: backup_keep?,
            backup_keep_deleted: backup_keep_deleted?,
            backups_at_once: backups_at_once?,
            verify_backups: verify_backups?,
            volumes: volumes?,
            keep_deleted: keep_deleted?,
            spread: spread?,
            spread_by: spread_by?,
            verbose: verbose?,
            log_format: log_format?,
            warnings,
        })
    }

    /// Every one is looked at before the first that is wrong ends it.
    fn timings(&mut self) -> Option<Timings> {
        let check_interval = self.required("health-check-interval", parse::check_interval);
        let hang_timeout = self.required("hang-timeout", parse::hang_timeout);
        let commit_timeout = self.required("commit-timeout", parse::commit_timeout);
        let master_lease = self.required("master-lease", parse::master_lease);
        Some(Timings {
            check_interval: check_interval?,
            hang_timeout: hang_timeout?,
            commit_timeout: commit_timeout?,
            master_lease: master_lease?,
        })
    }

    /// The store is opened, so that what is wrong with its URL or its files is told now. Nothing is asked of it: a store that is
    /// down must not keep the scheduler from running.
    fn backup_store(&mut self) -> Option<Option<BackupStore>> {
        let text = |flag| self.values.get(flag).map(|value| value.text.clone());
        let url = text("backup-store");
        // A fault is told where the URL is.
        let args = text("backup-store-args").unwrap_or_else(|| "{}".to_owned());
        let flag = match url {
            Some(_) if args == "{}" => "backup-store",
            _ => "backup-store-args",
        };
        self.required(flag, |_| {
            let store = backup::store(&args, url.as_deref())?;
            if let Some(settings) = &store {
                Store::open(settings).map_err(|error| crate::executor::chain(&error))?;
            }
            Ok(store)
        })
    }

    /// The role `*` cannot hold reservations, which volumes need. Who did not ask for them is warned; who did is refused.
    fn volumes(&mut self, role: Option<&str>) -> Option<bool> {
        self.optional("volumes", |text| match (text, role) {
            ("off", _) => Ok(false),
            ("on", Some("*")) => Err("the role * cannot hold reservations, which persistent volumes need; give --framework-role another role".to_owned()),
            ("on", _) => Ok(true),
            _ => Err(format!("{text:?} is neither on nor off")),
        })
        .map(|given| given.unwrap_or(role != Some("*")))
    }

    /// What must hold between times, and between ZooKeeper's identities.
    fn check_together(&mut self, settings: &Settings) {
        let Settings {
            zk_url,
            zk_reader,
            executor_zk,
            backup_store,
            backup_schedule,
            ..
        } = settings;
        if backup_store.is_none() && *backup_schedule != BackupSchedule::None {
            self.fault(
                "backup-schedule",
                "there is no store for backups; give --backup-store too",
            );
        }
        match (zk_url.credentials(), executor_zk) {
            (Some(_), None) => self.fault(
                "executor-zk-keypath",
                "it is required because --zk-url has a user: executors need a ZooKeeper identity of their own",
            ),
            (None, Some(_)) => self.fault(
                "executor-zk-keypath",
                "it says who executors are, but --zk-url has no user and password, so nothing would be protected; write zk://user:password@servers/path",
            ),
            (Some(own), Some(identity)) if own.user == identity.credentials.user => self.fault(
                "executor-zk-keypath",
                "the executors must not have the same ZooKeeper user as the scheduler in --zk-url: they could write its state",
            ),
            _ => {}
        }
        let Timings {
            check_interval,
            hang_timeout,
            commit_timeout,
            master_lease,
        } = settings.timings;
        for (flag, time) in [
            ("hang-timeout", hang_timeout),
            ("commit-timeout", commit_timeout),
            ("master-lease", master_lease),
        ] {
            if time <= check_interval {
                self.fault(
                    flag,
                    "it must be longer than --health-check-interval: within it nothing would be looked at",
                );
            }
        }
        let others = [
            zk_url.credentials(),
            executor_zk.as_ref().map(|identity| &identity.credentials),
        ];
        match zk_reader {
            Some(_) if zk_url.credentials().is_none() => self.fault(
                "zk-reader",
                "it says who may read, but --zk-url has no user and password, so everybody may do everything; write zk://user:password@servers/path",
            ),
            Some(reader) if others.iter().flatten().any(|other| other.user == reader.user) => self.fault(
                "zk-reader",
                "the reader must not have the same ZooKeeper user as the scheduler or the executors: it appears in every cluster URL",
            ),
            _ => {}
        }
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let text = |flag| self.values.get(flag).map(|value| value.text.as_str());
        let is_open = text("zk-url").and_then(|url| url.parse::<ZkUrl>().ok());
        if is_open.is_some_and(|url| url.credentials().is_none()) {
            warnings.push("--zk-url has no user and password, so everybody who reaches ZooKeeper can change Cotton's nodes".to_owned());
        }
        if text("framework-role") == Some("*") {
            warnings.push("the role * cannot hold reservations, so there are no persistent volumes: data lives in sandboxes".to_owned());
        }
        for flag in KEY_FILES {
            let Some(path) = text(flag) else { continue };
            if keyfile::is_readable_by_all(path.as_ref()) {
                warnings.push(format!(
                    "every user of this machine can read {path}, the file of --{flag}; chmod o-r it"
                ));
            }
        }
        let args = text("backup-store-args").and_then(|args| backup::store(args, None).ok());
        let store = args.flatten();
        let files = store
            .iter()
            .flat_map(|store| [&store.credentials, &store.key]);
        for path in files.flatten() {
            if keyfile::is_readable_by_all(path.as_ref()) {
                warnings.push(format!(
                    "every user of this machine can read {path}, a file of --backup-store-args; chmod o-r it"
                ));
            }
        }
        warnings
    }

    fn required<T>(
        &mut self,
        flag: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        if self.values.contains_key(flag) {
            self.optional(flag, parse)?
        } else {
            let already_told = self.faults.iter().any(|fault| fault.flag == flag);
            if !already_told {
                self.fault(flag, "it is required and was not given");
            }
            None
        }
    }

    /// `None` if the value is wrong, `Some(None)` if there is none.
    fn optional<T>(
        &mut self,
        flag: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Option<T>> {
        let Some(Value { text, source }) = self.values.get(flag) else {
            return Some(None);
        };
        match parse(text) {
            Ok(value) => Some(Some(value)),
            Err(detail) => {
                self.faults.push(Fault::of(flag, source, detail));
                None
            }
        }
    }

    fn fault(&mut self, flag: &'static str, detail: &str) {
        let source = self
            .values
            .get(flag)
            .map_or(&Source::Default, |value| &value.source);
        self.faults.push(Fault::of(flag, source, detail));
    }

    fn in_order(mut self) -> Vec<Fault> {
        let place = |fault: &Fault| flags::FLAGS.iter().position(|flag| flag.name == fault.flag);
        self.faults.sort_by_key(place);
        self.faults
    }
}

/// The flags that name files with secrets.
const KEY_FILES: [&str; 4] = [
    "framework-authentication-file",
    "executor-zk-keypath",
    "admin-keypath",
    "scheduler-keypath",
];

/// A file with an account that stands at the same path on the agents.
fn account_file(text: &str) -> Result<(PathBuf, Account), String> {
    let path = parse::absolute_path(text)?;
    let account = Account::read(&path).map_err(|error| error.to_string())?;
    Ok((path, account))
}
